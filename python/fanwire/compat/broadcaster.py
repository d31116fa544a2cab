"""encode/broadcaster's interface: ``from fanwire.compat.broadcaster import Broadcast`` in the place of its own.

``memory://`` and backends of one's own need nothing else, ``HubBackend`` joins a hub of fanwire; redis, postgres and
kafka are the backends of the package ``broadcaster``, which ``fanwire[broadcaster]`` brings. What is promised stands in
docs/broadcaster.md. It runs in one event loop, asyncio's or trio's (a backend may need one of them).
"""

import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from fanwire._loop import ends_task, spawn
from fanwire.adapters.foreign import Foreign
from fanwire.adopt.broadcast import WAITING_BYTES_MAX, broadcast, kind_of, waiting_bytes
from fanwire.adopt.seats import known
from fanwire.arrivals import Arrivals
from fanwire.compat.recent import Recent
from fanwire.errors import AdoptionError, HubStopped, Overtaken, anew
from fanwire.hearing import Listening
from fanwire.hub import Hub
from fanwire.values import Whole, checked

__all__ = ["Broadcast", "BroadcastBackend", "Event"]

WAITING_MAX = 1024
"""Events that may wait for one subscriber."""
PUBLISHED_MAX = 1024
"""Messages of ``memory://`` that may wait for the listener; ``publish`` waits for room then."""
LEAVING_S = 5.0
"""How long a backend gets to unsubscribe a channel when its last subscriber was cancelled."""
PEERS = {
    "redis": ("redis", "RedisBackend"),
    "rediss": ("redis", "RedisBackend"),
    "redis-stream": ("redis", "RedisStreamBackend"),
    "postgres": ("postgres", "PostgresBackend"),
    "postgresql": ("postgres", "PostgresBackend"),
    "kafka": ("kafka", "KafkaBackend"),
}
"""By the scheme of the URL: the module and the class of the package ``broadcaster``."""

log = logging.getLogger("fanwire.broadcaster")


class Event:
    """One message, as subscribers get it."""

    __slots__ = ("channel", "message")

    def __init__(self, channel: str, message: Any) -> None:
        self.channel = channel
        self.message = message

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self.channel == other.channel and self.message == other.message

    __hash__ = None  # type: ignore[assignment] # a message may be a dict

    def __repr__(self) -> str:
        return f"Event(channel={self.channel!r}, message={self.message!r})"


class Unsubscribed(Exception):
    """``Subscriber.get``: the subscription was left, or the broadcast disconnected; nothing more comes."""


class BroadcastBackend:
    """What carries messages; a backend of one's own has these methods, and need not be a subclass."""

    hears_everything = False
    """Whether ``next_published`` gives messages of channels that nobody subscribed to as well."""

    def __init__(self, url: str) -> None:
        raise NotImplementedError

    async def connect(self) -> None:
        """Called once, before all else but subscriptions that came early."""
        raise NotImplementedError

    async def disconnect(self) -> None:
        """Called once, last."""
        raise NotImplementedError

    async def subscribe(self, channel: str) -> None:
        """Somebody wants a channel; called for the first one only."""
        raise NotImplementedError

    async def unsubscribe(self, channel: str) -> None:
        """Nobody wants it any more."""
        raise NotImplementedError

    async def publish(self, channel: str, message: Any) -> None:
        """Send `message` to all that subscribed to `channel`, its publisher among them."""
        raise NotImplementedError

    async def next_published(self) -> Event:
        """The next message. What it raises ends the broadcast's subscriptions."""
        raise NotImplementedError


class MemoryBackend(BroadcastBackend):
    """``memory://``: within this process and loop; the very object that was published arrives."""

    hears_everything = True

    def __init__(self, url: str = "memory://") -> None:
        self._published: deque[Event] = deque()
        self._arrived = Arrivals("what is published")
        self._taken = anyio.Event()
        self._is_connected = False

    async def connect(self) -> None:
        """Begin anew: what was not heard before is gone."""
        self._published.clear()
        self._is_connected = True

    async def disconnect(self) -> None:
        """Have whoever waits for room in ``publish`` hear of it."""
        self._is_connected = False
        self._taken.set()

    async def subscribe(self, channel: str) -> None:
        """Nothing is to be done: all is heard."""

    async def unsubscribe(self, channel: str) -> None:
        """As little."""

    async def publish(self, channel: str, message: Any) -> None:
        """Raises RuntimeError where the broadcast is not connected."""
        while self._is_connected and len(self._published) >= PUBLISHED_MAX:
            self._taken = anyio.Event() if self._taken.is_set() else self._taken
            await self._taken.wait()
        if not self._is_connected:
            raise RuntimeError("the broadcast is not connected: `await broadcast.connect()` first")
        self._published.append(Event(channel, message))
        self._arrived.come()
        await checkpoint()

    async def next_published(self) -> Event:
        """The next of any channel."""
        while not self._published:
            await self._arrived.wait()
        self._taken.set()
        return self._published.popleft()


class HubBackend(BroadcastBackend):
    """The channels of a hub: its own clients, on its own wires, have what subscribers have, and both may publish.

    Text and bytes arrive as they are, of anything else what its JSON says; see docs/types.md.

    Args:
        hub: serves from before ``connect`` until after ``disconnect``.
        pattern: of the channels that may be subscribed to; what no pattern names costs nothing.
    """

    hears_everything = True

    def __init__(self, hub: Hub, pattern: str = "*") -> None:
        self._hub = hub
        self._pattern = pattern
        self._heard: Listening | None = None

    async def connect(self) -> None:
        """Hear the hub from now on. Raises what ``Hub.listen`` raises."""
        heard = self._hub.listen(self._pattern)
        await heard.__aenter__()
        self._heard = heard

    async def disconnect(self) -> None:
        """Hear it no more; the hub goes on."""
        heard, self._heard = self._heard, None
        if heard is not None:
            await heard.__aexit__(None, None, None)

    async def subscribe(self, channel: str) -> None:
        """Raises ValueError for a channel that is not heard."""
        if not matcher(self._pattern)(channel):
            raise ValueError(f"channel {channel!r} is not heard: the pattern of this HubBackend is {self._pattern!r}")

    async def unsubscribe(self, channel: str) -> None:
        """Nothing is to be done: the one listener stays."""

    async def publish(self, channel: str, message: Any) -> None:
        """Raises what ``Hub.publish`` raises."""
        self._hub.publish(channel, message)
        await checkpoint()

    async def next_published(self) -> Event:
        """The next of any channel of the pattern. Raises HubStopped when the hub no longer serves."""
        while self._heard is not None:
            try:
                heard = await anext(self._heard)
            except StopAsyncIteration:
                raise HubStopped from None
            except Overtaken as error:
                log.warning("messages were missed: %s", error)
                await self.disconnect()
                await self.connect()
            else:
                return Event(heard.channel, heard.data)
        raise HubStopped("the backend is not connected")


class Subscriber:
    """What ``Broadcast.subscribe`` gives: an async iterator of events, which ends with the subscription."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting: deque[Event] = deque()
        self._waiting_max = waiting_max
        self._arrived = Arrivals("a subscription")
        self._end: Exception | None = None
        self.socket: Any = None
        """The WebSocket that gets its events in its place, while ``send_to`` runs."""

    def __aiter__(self) -> "Subscriber":
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.get()
        except Unsubscribed:
            raise StopAsyncIteration from None

    async def get(self) -> Event:
        """The next event.

        Raises:
            Unsubscribed: the subscription was left, or the broadcast disconnected.
            Overtaken: more events came than may wait for it; those that waited were given out before.
            What ended the broadcast's listener.
            RuntimeError: another task reads it already.
        """
        if self._waiting:
            await checkpoint()  # else who never waits would keep the loop
        while not self._waiting:
            if self._end is not None:
                raise anew(self._end)
            await self._arrived.wait()
        return self._waiting.popleft()

    async def send_to(self, websocket: Any) -> None:
        """Send what comes to a WebSocket, in the place of ``async for event in subscriber: await websocket.send_…``.

        A ``str`` is sent as text, bytes as binary, anything else as JSON; what holds a lone surrogate is left out, as
        UTF-8 has none. One frame is written to all WebSockets that
        get a message, past tasks and queues, where the server's transport can be had; see docs/broadcaster.md. Returns
        when the subscription has ended, or a message finds the client gone. Nothing is received: that is another
        task's.

        Args:
            websocket: open, and what ``fanwire.broadcast`` takes.

        Raises:
            Overtaken: the client has not taken 1 MiB; what was on its way is still sent.
            AdoptionError, TypeError: it is no WebSocket of a framework that is known, or is not open.
            TypeError: a message has no form in JSON.
            What ended the broadcast's listener.
            RuntimeError: another task reads the subscriber.
        """
        kind_of(websocket)
        foreign = known(websocket)
        if not foreign.is_open:
            raise AdoptionError(foreign.what, "it is not open")
        if self.socket is not None:
            raise RuntimeError("the subscriber sends to a WebSocket already")
        while self._waiting:
            event = self._waiting.popleft()
            if (payload := payload_or_none(event)) is not None:
                broadcast([websocket], payload, text=not isinstance(event.message, bytes))
        self.socket = websocket
        try:
            while self._end is None:
                await self._arrived.wait()
        finally:
            self.socket = None
        if not isinstance(self._end, Unsubscribed):
            raise anew(self._end)

    def put(self, event: Event) -> bool:
        """One more; whether it found room. One that did not is the subscriber's end."""
        if self._end is not None:
            return False
        if len(self._waiting) >= self._waiting_max:
            self.end(Overtaken(event.channel))
            return False
        self._waiting.append(event)
        self._arrived.come()
        return True

    def end(self, why: Exception) -> None:
        """Nothing more comes; the first reason counts."""
        if self._end is None:
            self._end = why
            self._arrived.come()


class Subscribed:
    """One channel's subscribers."""

    __slots__ = ("claims", "is_subscribed", "lock", "subscribers")

    def __init__(self) -> None:
        self.subscribers: dict[Subscriber, None] = {}
        self.claims = 0
        """Subscribers, and those on their way in or out."""
        self.lock = anyio.Lock()
        """Held while the backend subscribes or unsubscribes it: two at once would end in either state."""
        self.is_subscribed = False
        """Whether the backend has been told to."""


class Broadcast:
    """Publish and subscribe through a backend.

    Args:
        url: ``memory://``, or of the package ``broadcaster``: ``redis``, ``rediss``, ``redis-stream``, ``postgres``,
            ``postgresql``, ``kafka``.
        backend: in its place, one of one's own, such as a ``HubBackend``.
        history: messages of each channel that are kept for ``subscribe(history=…)``, of 1,024 channels at most. They
            are those that came by: with ``memory://`` all, with Redis what came while somebody was subscribed.
        waiting_max: events that may wait for one subscriber, > 0; with one more its subscription ends.

    Raises:
        AssertionError: neither `url` nor `backend` is given.
        ValueError: there is no such scheme; `history` or `waiting_max` is out of range.
        ImportError: the scheme's backend is not installed; it says what brings it.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        backend: BroadcastBackend | None = None,
        history: int = 0,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        if not (url or backend):
            raise AssertionError("Either `url` or `backend` must be provided.")
        self._backend: Any = backend or backend_of(str(url))
        self._waiting_max: int = checked("waiting_max", waiting_max, Whole())
        self._recent: Recent[Event] = Recent(history)
        self._subscribers: dict[str, Subscribed] = {}
        self._patterns: dict[Subscriber, Callable[[str], object]] = {}
        self._scope: anyio.CancelScope | None = None  # of the listener; None: not connected
        self._over = anyio.Event()
        self._failure: BaseException | None = None

    async def __aenter__(self) -> "Broadcast":
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.disconnect()

    async def connect(self) -> None:
        """Connect the backend, and listen from now on. Raises RuntimeError where it is connected already."""
        if self._scope is not None:
            raise RuntimeError("the broadcast is connected already")
        self._scope, self._over, self._failure = anyio.CancelScope(), anyio.Event(), None
        try:
            await self._backend.connect()
        except BaseException:
            self._scope = None
            raise
        spawn(partial(self._listen, self._scope, self._over), "fanwire broadcast")

    async def disconnect(self) -> None:
        """End all subscriptions, and disconnect the backend. Does nothing where it is not connected.

        Raises what ended the listener before, if something did, when the backend is disconnected.
        """
        scope = self._scope
        if scope is None:
            return
        self._scope = None
        scope.cancel()
        try:
            await self._over.wait()
        finally:
            await self._backend.disconnect()
        if self._failure is not None:
            raise self._failure

    async def publish(self, channel: str, message: Any) -> None:
        """Send `message` to all who subscribed to `channel`.

        Raises:
            TypeError: `channel` is no ``str``, which would end the listener for all.
            What the backend raises.
        """
        if not isinstance(channel, str):
            raise TypeError(f"a channel must be a str, not {channel!r}")
        await self._backend.publish(channel, message)

    def subscribe(
        self, channel: str | Iterable[str] = (), *, pattern: str | None = None, history: int = 0
    ) -> AbstractAsyncContextManager[Subscriber]:
        """Get what is published from when the context is entered until it is left.

        Args:
            channel: one, or several at once: then the events of all come through one subscriber.
            pattern: besides, all channels that match, also those that come later: ``*`` is any run of characters.
                ``memory://`` and ``HubBackend`` can.
            history: messages of each `channel` from before, at most so many, and at most what ``Broadcast(history=…)``
                keeps; none of them comes twice.

        Raises:
            TypeError, ValueError: there is neither a channel nor a pattern, or the backend cannot do patterns.
            What the backend raises, when it is entered.
        """
        names = dict.fromkeys((channel,) if isinstance(channel, str) else channel)
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"a channel must be a str, not {name!r}")
        if not names and pattern is None:
            raise ValueError("subscribe needs a channel, several, or a pattern")
        if pattern is not None and not getattr(self._backend, "hears_everything", False):
            raise ValueError(f"{type(self._backend).__name__} cannot do patterns; memory:// and HubBackend can")
        checked("history", history, Whole(0))
        return self._subscribed(list(names), pattern, history)

    @asynccontextmanager
    async def _subscribed(self, names: list[str], pattern: str | None, history: int) -> AsyncIterator[Subscriber]:
        subscriber = Subscriber(self._waiting_max)
        async with AsyncExitStack() as leaving:  # which leaves each, though one cannot be left
            leaving.callback(subscriber.end, Unsubscribed())
            for name in names:
                subscribed = self._subscribers.setdefault(name, Subscribed())
                subscribed.claims += 1
                leaving.push_async_callback(self._leave, name, subscriber)
                async with subscribed.lock:
                    if not subscribed.is_subscribed:
                        await self._backend.subscribe(name)
                        subscribed.is_subscribed = True
                for event in self._recent.last(name, history):
                    subscriber.put(event)
                subscribed.subscribers[subscriber] = None
            if pattern is not None:
                self._patterns[subscriber] = matcher(pattern)
                leaving.callback(self._patterns.pop, subscriber, None)
            if self._failure is not None:
                raise again(self._failure)
            yield subscriber

    async def _leave(self, name: str, subscriber: Subscriber) -> None:
        subscribed = self._subscribers[name]
        subscribed.subscribers.pop(subscriber, None)
        subscribed.claims -= 1
        try:
            with anyio.move_on_after(LEAVING_S, shield=True):
                async with subscribed.lock:
                    if not subscribed.claims and subscribed.is_subscribed:
                        subscribed.is_subscribed = False
                        if self._scope is not None:  # one that is disconnected has nothing to unsubscribe
                            await self._backend.unsubscribe(name)
        finally:
            if not subscribed.claims and self._subscribers.get(name) is subscribed:
                del self._subscribers[name]

    async def _listen(self, scope: anyio.CancelScope, over: anyio.Event) -> None:
        why: Exception = Unsubscribed()
        try:
            with scope:
                while True:
                    self._deliver(await self._backend.next_published())
        except BaseException as error:
            if ends_task(error):
                raise
            self._failure = error
            why = again(error)
            log.error("the broadcast's listener ended: %r", error, exc_info=error)
        finally:
            for subscribed in self._subscribers.values():
                for subscriber in subscribed.subscribers:
                    subscriber.end(why)
            for subscriber in self._patterns:
                subscriber.end(why)
            over.set()

    def _deliver(self, published: Any) -> None:
        event = published if type(published) is Event else Event(published.channel, published.message)
        channel = event.channel
        self._recent.add(channel, event)
        subscribed = self._subscribers.get(channel)
        found = subscribed.subscribers if subscribed is not None else {}
        reached = [*found, *(one for one, matches in self._patterns.items() if one not in found and matches(channel))]
        with_sockets = [subscriber for subscriber in reached if subscriber.socket is not None]
        for subscriber in reached:
            if subscriber.socket is None:
                subscriber.put(event)
        if with_sockets:
            send_to_all(event, with_sockets)


def payload_or_none(event: Event) -> bytes | None:
    """A message as it is sent to a WebSocket; None for one that cannot be, as UTF-8 or JSON has no such value.

    That is told in the log and hurts nobody: a client may have had it published. Raises TypeError for what has no form
    in JSON, which is the program's.
    """
    message = event.message
    if isinstance(message, bytes):
        return message
    try:
        return message.encode() if isinstance(message, str) else msgspec.json.encode(message)
    except ValueError as error:
        log.warning("a message of channel %r is left out: %r", event.channel, error)
        return None


def send_to_all(event: Event, subscribers: list[Subscriber]) -> None:
    """Send to the WebSocket of each, by one frame for all; those that are gone or too slow end. Raises nothing."""
    sockets = []
    try:
        payload = payload_or_none(event)
    except Exception as error:
        for subscriber in subscribers:
            subscriber.end(error)
        return
    if payload is None:
        return
    for subscriber in subscribers:
        if is_gone(known(subscriber.socket)):
            subscriber.end(Unsubscribed())
        elif (waiting := waiting_bytes(subscriber.socket)) and waiting + len(payload) > WAITING_BYTES_MAX:
            subscriber.end(Overtaken(event.channel))
        else:
            sockets.append(subscriber.socket)
    broadcast(sockets, payload, text=not isinstance(event.message, bytes))


def is_gone(foreign: Foreign) -> bool:
    """Whether its framework, or its transport, has closed it."""
    return not foreign.is_open or any(getattr(holder, name).is_closing() for holder, name in foreign.holders)


def again(failure: BaseException) -> Exception:
    """What ended the listener, for one who is told of it."""
    return anew(failure) if isinstance(failure, Exception) else RuntimeError(f"the listener ended: {failure!r}")


def matcher(pattern: str) -> Callable[[str], object]:
    """What says whether a channel's name matches, in which ``*`` is any run of characters."""
    if not isinstance(pattern, str):
        raise TypeError(f"a pattern must be a str such as 'odds:*', not {pattern!r}")
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL).fullmatch


def backend_of(url: str) -> Any:
    """The backend of a URL. Raises ValueError, ImportError."""
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return MemoryBackend(url)
    if scheme not in PEERS:
        known = ", ".join(["memory", *PEERS])
        raise ValueError(f"Unsupported backend: {scheme} (there are {known})")
    name, kind = PEERS[scheme]
    failures = []
    for package in ("broadcaster._backends", "broadcaster.backends"):
        try:
            return getattr(import_module(f"{package}.{name}"), kind)(url)
        except ImportError as error:
            failures.append(error)
    driver = "asyncpg" if name == "postgres" else "aiokafka" if name == "kafka" else "redis"
    raise ImportError(
        f"{scheme}:// is a backend of the package broadcaster and needs {driver}: "
        f"pip install 'fanwire[broadcaster]' 'broadcaster[{name}]'",
        name=failures[0].name,
    ) from failures[0]
