"""How far publications have come, for who waits for it. Not here: what counts: the shards do.

With workers each is asked, and says how far its own subscribers are, again and again until nobody waits any more.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from time import perf_counter
from typing import Any

import anyio

from fanwire._engine import Engine, Position, Progress, Publication
from fanwire.errors import HubStopped, LimitReached
from fanwire.faults import Tasks
from fanwire.workers.bus import NOT_SENT, Bus

WAITING_MAX = 1_024
"""How many publications may be waited for at once: each costs a look at the laggards of its channel in every turn."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far a publication has come."""

    subscribers: int
    """Of the channel, when it was looked at last: who left in between is none of them."""
    taken: int
    """Those whose sockets have taken it whole."""
    skipped: int
    """Those who went past it, by the channel's policy or because its ``ttl`` was over; also of those who left."""
    seconds: float
    """Since it was asked for."""


Totals = tuple[int, int, int]
"""Subscribers, those behind, and those who went past it."""
NONE: Totals = (0, 0, 0)
TRACK, UNTRACK, PROGRESS = "delivered.track", "delivered.untrack", "delivered.progress"
REPORT_S = 0.005
"""For so long reports are gathered that go to another worker."""
COMES_WITHIN = 20
"""So many times as long a publication takes at most to come back from a backbone, where anybody here subscribes."""


@dataclass(slots=True)
class _Tracked:
    """A publication, and what the shards of this process have said of it."""

    parts: int
    reports: dict[int, Progress] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        return len(self.reports) == self.parts

    def totals(self) -> Totals:
        """Of all parts."""
        subscribers, behind, skipped = NONE
        for report in self.reports.values():
            subscribers += report.subscribers
            behind += report.behind
            skipped += report.skipped
        return subscribers, behind, skipped


@dataclass(slots=True)
class _Waiting:
    fraction: float
    here: _Tracked
    since: float
    elsewhere: dict[int, Totals | None]
    """By worker; None until it has said something."""
    is_over: anyio.Event = field(default_factory=anyio.Event)
    error: str | None = None

    def totals(self) -> Totals:
        """Of all workers."""
        subscribers, behind, skipped = self.here.totals()
        for totals in self.elsewhere.values():
            more = totals or NONE
            subscribers, behind, skipped = subscribers + more[0], behind + more[1], skipped + more[2]
        return subscribers, behind, skipped

    def delivery(self) -> Delivery:
        subscribers, behind, skipped = self.totals()
        taken = max(subscribers - behind - skipped, 0)
        return Delivery(subscribers, taken, skipped, perf_counter() - self.since)

    def look(self) -> None:
        """It may be over."""
        subscribers, behind, _ = self.totals()
        is_known = self.here.is_whole and None not in self.elsewhere.values()
        if is_known and subscribers - behind >= ceil(self.fraction * subscribers - 1e-9):
            self.is_over.set()


class Deliveries:
    """Those who wait. All state is the loop's thread's own.

    Args:
        bus: to the other workers, where there are any.
    """

    def __init__(self, engine: Engine, tasks: Tasks, bus: Bus | None = None) -> None:
        self._engine, self._tasks, self._bus = engine, tasks, bus
        self._ids = count()
        self._waiting: dict[int, _Waiting] = {}
        # By the token of the engine's reports: who hears them, one who waits here or another worker and its number.
        self._hears: dict[int, _Waiting | tuple[int, int]] = {}
        # For other workers, by that pair: the token, and what was reported.
        self._asked: dict[tuple[int, int], tuple[int | None, _Tracked]] = {}
        self._changed: dict[tuple[int, int], None] = {}
        if bus is not None:
            bus.on(TRACK, self._track_for)
            bus.on(UNTRACK, self._untrack_for)
            bus.on(PROGRESS, self._hear)
            bus.on_change(self._come_or_gone)

    async def wait(self, position: Position, fraction: float) -> Delivery:
        """Return once that share of the subscribers has it or went past it. Cancelled, it leaves nothing behind."""
        if len(self._waiting) >= WAITING_MAX:
            raise LimitReached("deliveries waited for", WAITING_MAX + 1, WAITING_MAX)
        since = perf_counter()
        if isinstance(position, Publication):
            place = await position if not position.is_placed else position
            position = Position(place.epoch, place.offset)
        token, here = await self._track_here(position)
        others = frozenset[int]() if self._bus is None else self._bus.others
        waiting = _Waiting(fraction, here, since, dict.fromkeys(others))
        id = next(self._ids)
        self._waiting[id] = waiting
        if token is not None:
            self._hears[token] = waiting
        try:
            if self._bus is not None and others:
                self._bus.tell(TRACK, [id, *position])
            if here.parts or others:
                await waiting.is_over.wait()
            else:
                await anyio.lowlevel.checkpoint()
        finally:
            del self._waiting[id]
            self._untrack(token)
            if self._bus is not None and others:
                self._bus.tell_at_last(UNTRACK, lambda: id)
        if waiting.error is not None:
            raise HubStopped(waiting.error)
        return waiting.delivery()

    def take(self, progress: Progress) -> None:
        """A shard reports."""
        hears = self._hears.get(progress.token)
        if isinstance(hears, _Waiting):
            hears.here.reports[progress.part] = progress
            hears.look()
        elif hears is not None:
            self._asked[hears][1].reports[progress.part] = progress
            self._report_soon(hears)

    def end(self, why: str) -> None:
        """No more reports come."""
        for waiting in self._waiting.values():
            waiting.error = why
            waiting.is_over.set()

    def _track(self, position: Position) -> tuple[int | None, _Tracked]:
        try:
            token, parts = self._engine.track(position)
        except ValueError:
            if self._bus is None:
                raise
            return None, _Tracked(0)  # another worker may have subscribers that it came to, or nobody has
        return token, _Tracked(parts)

    def _may_be_to_come(self, tracked: _Tracked) -> bool:
        return not tracked.parts and self._bus is not None and self._bus.spans_machines

    async def _track_here(self, position: Position) -> tuple[int | None, _Tracked]:
        """The same, once it is here: a backbone may have said where it stands before."""
        for _ in range(COMES_WITHIN):
            token, tracked = self._track(position)
            if not self._may_be_to_come(tracked):
                break
            self._untrack(token)
            await anyio.sleep(REPORT_S)
        return token, tracked

    def _untrack(self, token: int | None) -> None:
        if token is not None:
            self._hears.pop(token, None)
            self._engine.untrack(token)

    # What other workers wait for

    def _track_for(self, worker: int, message: Any) -> None:
        id, epoch, offset = message
        asker, position = (worker, id), Position(epoch, offset)
        token, tracked = self._track(position)
        if self._may_be_to_come(tracked):
            self._untrack(token)
            self._asked[asker] = None, _Tracked(1)  # no report comes of that: it is not whole
            self._tasks.start_soon(self._track_in_time, asker, position)
        else:
            self._have_asked(asker, token, tracked)

    async def _track_in_time(self, asker: tuple[int, int], position: Position) -> None:
        """The machine that asks may know where it stands before it is here."""
        token, tracked = await self._track_here(position)
        if asker in self._asked:
            self._have_asked(asker, token, tracked)
        else:
            self._untrack(token)

    def _have_asked(self, asker: tuple[int, int], token: int | None, tracked: _Tracked) -> None:
        self._asked[asker] = token, tracked
        if token is not None:
            self._hears[token] = asker
        if tracked.is_whole:
            self._report_soon(asker)

    def _untrack_for(self, worker: int, id: int) -> None:
        self._forget((worker, id))

    def _forget(self, asker: tuple[int, int]) -> None:
        token, _ = self._asked.pop(asker, (None, None))
        self._untrack(token)

    def _report_soon(self, asker: tuple[int, int]) -> None:
        if not self._changed:
            self._tasks.start_soon(self._report)
        self._changed[asker] = None

    async def _report(self) -> None:
        while self._changed:
            await anyio.sleep(REPORT_S)
            changed, self._changed = self._changed, {}
            for asker in changed:
                if asker in self._asked and self._asked[asker][1].is_whole:
                    self._report_to(asker, self._asked[asker][1].totals())

    def _report_to(self, asker: tuple[int, int], totals: Totals) -> None:
        assert self._bus is not None  # nobody else asks
        worker, id = asker
        try:
            self._bus.tell(PROGRESS, [id, *totals], worker)
        except NOT_SENT:
            self._changed[asker] = None  # it is told again

    def _hear(self, worker: int, message: Any) -> None:
        id, *totals = message
        waiting = self._waiting.get(id)
        if waiting is not None and worker in waiting.elsewhere:
            subscribers, behind, skipped = totals
            waiting.elsewhere[worker] = subscribers, behind, skipped
            waiting.look()

    def _come_or_gone(self, worker: int, has_come: bool) -> None:
        if has_come:
            return
        for waiting in self._waiting.values():
            if worker in waiting.elsewhere:
                del waiting.elsewhere[worker]
                waiting.look()
        for asker in [asker for asker in self._asked if asker[0] == worker]:
            with suppress(HubStopped):
                self._forget(asker)
