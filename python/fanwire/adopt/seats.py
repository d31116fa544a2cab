"""Frameworks' connections whose sockets one engine writes to. Not here: what is written, and who asks for it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from fanwire._engine import Adopted, Drained, Engine, Released
from fanwire._loop import is_transport
from fanwire.adapters import FRAMEWORKS, foreign_of
from fanwire.adapters.foreign import Foreign
from fanwire.adopt.joining import JoinedPipe
from fanwire.adopt.proxy import Proxy, ask
from fanwire.errors import AdoptionError, FanwireError
from fanwire.stand_in import IS_STAND_IN

EVENTS_MAX = 1 << 24
"""All that the engine has left to tell."""
LEAVING = "the engine is still letting it go"
"""Why a connection cannot be had just now; all else but a message in the making stays as it is."""


class Seats:
    """Those of one engine. All state is the thread's of one event loop."""

    gives_way: ClassVar[bool] = False
    """Whether a hub may have any of them that it wants."""

    def __init__(self, engine: Engine, call_soon: Callable[[Callable[[], object]], object]) -> None:
        self._engine = engine
        self._call_soon = call_soon
        # By their numbers in the engine.
        self._proxies: dict[int, tuple[Proxy, Adopted]] = {}
        self._is_flush_due = False
        self.has_pending = False
        """Whether the engine has yet to take something that was to be written."""
        self.high = 1 << 62
        """No connection has fewer bytes wait when its framework is to pause."""

    def note_high(self, high: int) -> None:
        """A framework is to pause once more than so many bytes wait for one of its connections."""
        self.high = min(self.high, high)

    # What the engine tells

    def drained(self, event: Drained) -> bool:
        """No more waits for it than was asked. False where it is none of these."""
        found = self._proxies.get(event.connection)
        if found is not None:
            found[0].drained()
        return found is not None

    def released(self, event: Released) -> None:
        """The engine has let it go."""
        found = self._proxies.pop(event.connection, None)
        if found is not None:
            proxy, adopted = found
            proxy.released(adopted, event.why, event.code)

    def settle(self) -> None:
        """Have the engine take what it has yet to."""

    def flush_soon(self) -> None:
        """Have the engine write when the loop turns: what was published and written in one turn goes out together."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        ask(self._engine.flush)

    def adopt(self, foreign: Foreign) -> Proxy:
        """Have the engine write to the socket of one of which ``why_plain`` says nothing.

        Raises LimitReached, OSError, HubStopped; then nothing was done.
        """
        holders = foreign.holders
        real = getattr(*holders[0])
        adopted = self._engine.adopt(real.get_extra_info("socket").fileno())
        if isinstance(real, Proxy):
            real.renew(adopted, self)
        else:
            real = Proxy(adopted, real, holders, self)
        self._proxies[adopted.connection] = real, adopted
        return real

    def give_way(self, proxy: Proxy) -> None:
        """Let one of them go, for a hub that wants it."""
        proxy.release()

    @property
    def is_parting(self) -> bool:
        """Whether the engine has sockets that are a framework's."""
        return bool(self._proxies)

    def end(self) -> None:
        """The engine has ended: connections are their program's alone, but for those in the middle of a frame."""
        with suppress(FanwireError):
            for event in self._engine.take_events(EVENTS_MAX):
                if isinstance(event, Released):
                    self.released(event)
        proxies, self._proxies = self._proxies, {}
        for proxy, _ in proxies.values():
            proxy.break_off()


def known(connection: Any) -> Foreign:
    """The connection as the hub sees it. Raises AdoptionError for what is none."""
    foreign = foreign_of(connection)
    if foreign is None:
        kinds = ", ".join(kind.what for kind in FRAMEWORKS.values())
        name = f"{type(connection).__module__}.{type(connection).__qualname__}"
        raise AdoptionError(name, f"it must be one of these: {kinds}")
    return foreign


def proxy_of(foreign: Foreign) -> Proxy | None:
    """What stands in the place of its transport, if anything does."""
    holders = foreign.holders
    transport = getattr(*holders[0], None) if holders else None
    return transport if isinstance(transport, Proxy) else None


def leave_turn(foreign: Foreign) -> None:
    """Have what was broadcast in this turn of the loop be with its transport, which stands where it stood."""
    if foreign.holders:
        standing = getattr(*foreign.holders[0], None)
        if isinstance(standing, JoinedPipe):
            standing.leave()


def why_plain(foreign: Foreign) -> str:
    """Why its framework has to send, if it has to."""
    if IS_STAND_IN:
        return "fanwire's engine is not installed here"
    holders = foreign.holders
    if not holders:
        return foreign.why_none
    if foreign.pipe(foreign.connection) is None:
        return "it is a client's, in the middle of a message, or has an extension that is not known"
    transport = getattr(*holders[0], None)
    if isinstance(transport, Proxy):
        return "" if transport.may_renew else LEAVING
    if transport is None or transport.is_closing():
        return "its transport is closed"
    if not is_transport(transport):
        return f"its transport is a {type(transport).__qualname__}"
    if transport.get_extra_info("sslcontext") is not None:
        return "its TLS is Python's"
    if not callable(getattr(transport.get_protocol(), "data_received", None)):
        return "its protocol has buffers of its own"
    return ""
