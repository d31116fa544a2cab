"""Which connections of frameworks are attached in one serving. Not here: how each of them is written to."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from fanwire._engine import Adopted, Drained, Engine, Position, Released
from fanwire.adapters import FRAMEWORKS, foreign_of
from fanwire.adapters.foreign import Foreign
from fanwire.adopt.joining import Joined
from fanwire.adopt.plain import Plain
from fanwire.adopt.proxy import Proxy, Writing, ask
from fanwire.errors import AdoptionError, FanwireError
from fanwire.faults import Tasks
from fanwire.logs import hub_log
from fanwire.stand_in import IS_STAND_IN

Seat: TypeAlias = Proxy | Plain
"""How a connection is written to."""
EVENTS_MAX = 1 << 24
"""All that the engine has left to tell."""
LOOPS = frozenset({"asyncio", "uvloop"})
"""Whose transports are known: by the first part of the module's name."""


_plain: weakref.WeakKeyDictionary[Any, "tuple[Attachments, Plain]"] = weakref.WeakKeyDictionary()
"""Those that are written to by their framework, of all hubs of this process, by what identifies the connection; each
with whose it is."""


class Attachments:
    """Those of one serving. All state is the loop's thread's own."""

    def __init__(self, engine: Engine, tasks: Tasks, call_soon: Callable[[Callable[[], object]], object]) -> None:
        self._engine = engine
        self._tasks = tasks
        self._call_soon = call_soon
        # By their numbers in the engine.
        self._proxies: dict[int, tuple[Proxy, Adopted]] = {}
        # Those that are detached in this turn of the loop.
        self._leaving: list[Seat] = []
        self._is_flush_due = False
        # What was told of in the log already.
        self._told: set[tuple[str, str]] = set()

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

    def flush_soon(self) -> None:
        """Have the engine write when the loop turns: what was published and written in one turn goes out together."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        ask(self._engine.flush)

    # What the program asks

    def attach(
        self, connection: Any, channels: Iterable[str], since: Mapping[str, Position], start: str | None
    ) -> Foreign:
        """Have what is published from now on reach it. Raises what ``Hub.attach`` does; then nothing was done."""
        foreign = known(connection)
        if not foreign.is_begun:
            raise AdoptionError(foreign.what, f"it is not open yet: {foreign.how_to_begin}")
        if not foreign.is_open:
            raise AdoptionError(foreign.what, "it is closed, or being closed")
        found = self._find(foreign)
        seat = found or self._seat(foreign)
        added: list[str] = []
        try:
            for channel in channels:
                if channel not in seat.channels:
                    seat.adopted.subscribe(channel, since.get(channel), start)
                    seat.channels.add(channel)
                    added.append(channel)
        except BaseException:
            self._unsubscribe(seat, added)
            if found is None:
                self._leave(seat)
            raise
        if seat in self._leaving:
            self._leaving.remove(seat)
        return foreign

    def detach(self, connection: Any, channels: Iterable[str] | None = None) -> int | None:
        """Have what is published from now on not reach it; of all channels, or of some.

        Gives the code with which the hub has closed it, if it has.
        """
        seat = self._find(known(connection), is_lenient=True)
        if seat is None:
            return None
        self._unsubscribe(seat, list(seat.channels) if channels is None else channels)
        if channels is None:
            self._leave(seat)
        return seat.closed_with

    def _unsubscribe(self, seat: Seat, channels: Iterable[str]) -> None:
        for channel in channels:
            if channel in seat.channels:
                seat.channels.remove(channel)
                ask(seat.adopted.unsubscribe, channel)

    def _find(self, foreign: Foreign, *, is_lenient: bool = False) -> Seat | None:
        """How it is written to, if it is attached. Raises AdoptionError where it is attached to another hub."""
        owner, seat = self._seated(foreign)
        if seat is None:
            return None
        if owner is not self and isinstance(owner, Attachments) and seat in owner._leaving:
            owner._let_go()
            return None
        if owner is self:
            return seat
        if is_lenient:
            return None
        raise AdoptionError(foreign.what, "it is attached to another hub: detach it there first")

    def _seated(self, foreign: Foreign) -> tuple[object, Seat | None]:
        """Whose it is, of all hubs, and how it is written to; or None."""
        found = _plain.get(foreign.identity)
        if found is not None:
            return found
        proxy = proxy_of(foreign)
        return (None, None) if proxy is None or proxy.state != Writing.ENGINE else (proxy.owner, proxy)

    def _seat(self, foreign: Foreign) -> Seat:
        if foreign.holders:
            standing = getattr(*foreign.holders[0], None)
            if isinstance(standing, Joined):  # there was a broadcast in this turn of the loop
                standing.leave()
        why = why_plain(foreign)
        if not why:
            holders = foreign.holders
            real = getattr(*holders[0])
            adopted = self._engine.adopt(real.get_extra_info("socket").fileno())
            if isinstance(real, Proxy):
                real.renew(adopted, self)
            else:
                real = Proxy(adopted, real, holders, self)
            self._proxies[adopted.connection] = real, adopted
            return real
        plain = Plain(self._engine.adopt, foreign, self._tasks.faults, self._forget)
        _plain[foreign.identity] = self, plain
        self._tasks.start_soon(plain.run, where="adopt.plain")
        if (foreign.what, why) not in self._told:
            self._told.add((foreign.what, why))
            hub_log.info("%s is written to by its own send: %s", foreign.what, why)
        return plain

    def _leave(self, seat: Seat) -> None:
        """The engine lets it go when the loop turns: until then it may be attached again."""
        if not self._leaving:
            self._call_soon(self._let_go)
        if seat not in self._leaving:
            self._leaving.append(seat)

    def _let_go(self) -> None:
        leaving, self._leaving = self._leaving, []
        for seat in leaving:
            if isinstance(seat, Plain):
                self._forget(seat)
            seat.release()

    def _forget(self, plain: Plain) -> None:
        """It is attached no more, unless it was closed: for who asks later with which code."""
        identity = plain.identity()
        if identity is not None and plain.closed_with is None and _plain.get(identity) == (self, plain):
            del _plain[identity]

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
        for connection in [one for one, (owner, _) in _plain.items() if owner is self]:
            del _plain[connection]
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
        return "" if transport.may_renew else "the engine is still letting it go"
    if transport is None or transport.is_closing():
        return "its transport is closed"
    if type(transport).__module__.partition(".")[0] not in LOOPS:
        return f"its transport is a {type(transport).__qualname__}"
    if transport.get_extra_info("sslcontext") is not None:
        return "its TLS is Python's"
    if not callable(getattr(transport.get_protocol(), "data_received", None)):
        return "its protocol has buffers of its own"
    return ""
