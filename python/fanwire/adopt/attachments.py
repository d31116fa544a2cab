"""Which connections of frameworks are attached in one serving. Not here: how each of them is written to."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from fanwire._engine import Engine, Filter, Position
from fanwire.adapters.foreign import Foreign
from fanwire.adopt.plain import Plain
from fanwire.adopt.proxy import Proxy, Writing, ask
from fanwire.adopt.seats import Seats, known, leave_turn, proxy_of, why_plain
from fanwire.errors import AdoptionError
from fanwire.faults import Tasks
from fanwire.logs import hub_log

Seat: TypeAlias = Proxy | Plain
"""How a connection is written to."""


_plain: weakref.WeakKeyDictionary[Any, "tuple[Attachments, Plain]"] = weakref.WeakKeyDictionary()
"""Those that are written to by their framework, of all hubs of this process, by what identifies the connection; each
with whose it is."""


class Attachments(Seats):
    """Those of one serving. All state is the loop's thread's own."""

    def __init__(self, engine: Engine, tasks: Tasks, call_soon: Callable[[Callable[[], object]], object]) -> None:
        super().__init__(engine, call_soon)
        self._tasks = tasks
        # Those that are detached in this turn of the loop.
        self._leaving: list[Seat] = []
        # What was told of in the log already.
        self._told: set[tuple[str, str]] = set()

    # What the program asks

    def attach(
        self,
        connection: Any,
        channels: Iterable[str],
        since: Mapping[str, Position],
        start: str | None,
        filter: Filter | None,
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
                    seat.adopted.subscribe(channel, since.get(channel), start, filter)
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
        if isinstance(owner, Seats) and isinstance(seat, Proxy) and owner.gives_way:
            if not is_lenient:
                owner.give_way(seat)
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
        leave_turn(foreign)
        why = why_plain(foreign)
        if not why:
            return self.adopt(foreign)
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

    def end(self) -> None:
        """The engine has ended: connections are their program's alone, but for those in the middle of a frame."""
        for connection in [one for one, (owner, _) in _plain.items() if owner is self]:
            del _plain[connection]
        super().end()
