"""Channels as the program's own code hears them."""

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Protocol

import msgspec
from anyio.lowlevel import checkpoint

from fanwire._engine import Audible, Engine, Listener, Position
from fanwire.arrivals import Arrivals
from fanwire.errors import FanwireError, HubStopped

READ_MAX = 64
"""So many publications are taken from the engine at once; the others wait in the logs, as they do for clients."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One publication, as ``Hub.listen`` gives it."""

    channel: str
    position: Position
    data: Any
    """A ``str`` or ``bytes`` as it was published; of anything else what its JSON says, as a client would read it."""
    event: str | None
    keyframe: bool
    _json: bytes | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self._json is not None:  # read once somebody asks: who only passes it on never does
            object.__delattr__(self, "data")

    def __getattr__(self, name: str) -> Any:
        if name != "data" or self._json is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        object.__setattr__(self, "data", msgspec.json.decode(self._json))
        return self.data

    @property
    def payload(self) -> str | bytes:
        """The message itself, as a client of ``/ws`` gets it: JSON is a text."""
        if self._json is not None:
            return self._json.decode()
        data = self.data
        return data if isinstance(data, str | bytes) else msgspec.json.encode(data).decode()


class Listeners:
    """Those of one serving. All state is the loop's thread's own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tokens = count(1)
        self._by_token: dict[int, Listening] = {}

    def begin(self, listening: "Listening", pattern: str) -> tuple[int, Listener]:
        """It hears from now on. Raises what ``Hub.listen`` does."""
        token = next(self._tokens)
        listener = self._engine.listen_to(pattern, token)
        self._by_token[token] = listening
        return token, listener

    def leave(self, token: int, listener: Listener) -> None:
        """It hears no more."""
        if self._by_token.pop(token, None) is not None:
            listener.end()

    def take(self, event: Audible) -> None:
        """There is something to read."""
        listening = self._by_token.get(event.token)
        if listening is not None:
            listening.wake()

    def end(self) -> None:
        """Serving is over: nothing more comes."""
        listening, self._by_token = self._by_token, {}
        for one in listening.values():
            one.end()


class Serves(Protocol):
    """What knows those of the serving that is now."""

    def __call__(self) -> Listeners:
        """Raises HubStopped, RuntimeError where there is none, or in another thread."""


class Listening:
    """What ``Hub.listen`` gives: an async context whose body iterates over publications. One body at a time."""

    __slots__ = ("_arrived", "_heard", "_is_over", "_listener", "_listeners", "_pattern", "_serves", "_token")

    def __init__(self, pattern: str, serves: Serves) -> None:
        self._pattern = pattern
        self._serves = serves
        self._listeners: Listeners | None = None
        self._listener: Listener
        self._token = 0
        self._heard: deque[Heard] = deque()
        self._arrived = Arrivals(f"what is published to {pattern!r}")
        self._is_over = False

    async def __aenter__(self) -> "Listening":
        if self._listeners is not None:
            raise RuntimeError(f"this is listening to {self._pattern!r} already: call hub.listen once more")
        listeners = self._serves()
        self._token, self._listener = listeners.begin(self, self._pattern)
        self._listeners = listeners
        self._heard.clear()
        self._is_over = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        listeners, self._listeners = self._listeners, None
        self._heard.clear()
        self.end()
        if listeners is not None:
            listeners.leave(self._token, self._listener)

    def __aiter__(self) -> "Listening":
        return self

    async def __anext__(self) -> Heard:
        """The next publication. Raises Overtaken where the policy promises every one, and some are lost."""
        while not self._heard:
            if self._is_over:
                raise StopAsyncIteration
            if self._listeners is None:
                raise RuntimeError(
                    f"listening to {self._pattern!r} is not entered: `async with hub.listen(...) as ...`"
                )
            if self._read():
                await checkpoint()
            else:
                await self._arrived.wait()
        return self._heard.popleft()

    def _read(self) -> bool:
        try:
            taken = self._listener.hear(READ_MAX)
        except HubStopped:
            self._is_over = True
            return True
        except FanwireError:
            self._is_over = True
            raise
        for channel, position, data, is_json, event, keyframe in taken:
            self._heard.append(Heard(channel, position, data, event, keyframe, data if is_json else None))
        return bool(taken)

    def wake(self) -> None:
        """There is something to read."""
        self._arrived.come()

    def end(self) -> None:
        """Nothing more comes; what was taken already is still given out."""
        self._is_over = True
        self._arrived.come()
