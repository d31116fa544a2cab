"""How far publications have come, for who waits for it. Not here: what counts: the shards do."""

from dataclasses import dataclass, field
from math import ceil
from time import perf_counter

import anyio

from fanwire._engine import Engine, Position, Progress
from fanwire.errors import HubStopped, LimitReached

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


@dataclass(slots=True)
class _Waiting:
    fraction: float
    parts: int
    since: float
    reports: dict[int, Progress] = field(default_factory=dict)
    is_over: anyio.Event = field(default_factory=anyio.Event)
    error: str | None = None

    def totals(self) -> tuple[int, int, int]:
        """Subscribers, those behind, and those who went past it, of all parts."""
        subscribers, behind, skipped = 0, 0, 0
        for report in self.reports.values():
            subscribers += report.subscribers
            behind += report.behind
            skipped += report.skipped
        return subscribers, behind, skipped

    def delivery(self) -> Delivery:
        subscribers, behind, skipped = self.totals()
        taken = max(subscribers - behind - skipped, 0)
        return Delivery(subscribers, taken, skipped, perf_counter() - self.since)

    def is_reached(self) -> bool:
        subscribers, behind, _ = self.totals()
        return len(self.reports) == self.parts and subscribers - behind >= ceil(self.fraction * subscribers - 1e-9)


class Deliveries:
    """Those who wait. All state is the loop's thread's own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[int, _Waiting] = {}

    async def wait(self, position: Position, fraction: float) -> Delivery:
        """Return once that share of the subscribers has it or went past it. Cancelled, it leaves nothing behind."""
        if len(self._waiting) >= WAITING_MAX:
            raise LimitReached("deliveries waited for", WAITING_MAX + 1, WAITING_MAX)
        token, parts = self._engine.track(position)
        waiting = _Waiting(fraction, parts, perf_counter())
        self._waiting[token] = waiting
        try:
            if parts:
                await waiting.is_over.wait()
            else:
                await anyio.lowlevel.checkpoint()
        finally:
            del self._waiting[token]
            self._engine.untrack(token)
        if waiting.error is not None:
            raise HubStopped(waiting.error)
        return waiting.delivery()

    def take(self, progress: Progress) -> None:
        """A shard reports."""
        waiting = self._waiting.get(progress.token)
        if waiting is not None:
            waiting.reports[progress.part] = progress
            if waiting.is_reached():
                waiting.is_over.set()

    def end(self, why: str) -> None:
        """No more reports come."""
        for waiting in self._waiting.values():
            waiting.error = why
            waiting.is_over.set()
