"""Which worker is the eldest: it does what one is to do for all, and for as long as it is there nobody else does.

Whoever comes is younger than those who are there, so a worker that comes takes over from nobody. So is who comes back
after it could not reach the others: it has missed what they told. Of workers on several machines those are the eldest
whose machine is there for longest.
"""

from collections.abc import Callable
from math import inf
from time import monotonic

import anyio

from fanwire.faults import Tasks
from fanwire.workers.bus import Bus

SETTLE_S = 2.0
"""So long whoever has just started takes those for older that have not said since when they are there."""


class Elders:
    """Since when each worker is there. All state is the event loop's thread's own.

    Args:
        changed: called when another worker may have become the eldest.
        now: seconds of a clock that all workers have in common.
    """

    def __init__(
        self, bus: Bus, tasks: Tasks, changed: Callable[[], object], now: Callable[[], float] = monotonic
    ) -> None:
        self._bus = bus
        self._changed, self._now = changed, now
        self.since = now()
        """Since when this worker is there."""
        self._since: dict[int, float] = {}
        self._unknown = -inf  # what stands for those that have said nothing
        self._is_settled = False
        bus.on("since", self._heard)
        bus.on_change(self._come_or_gone)
        tasks.start_soon(self._settle)

    @property
    def eldest(self) -> int:
        """Its number."""
        age, since = self._bus.age, self._since
        others = ((age(worker), since.get(worker, self._unknown), worker) for worker in self._bus.others)
        return min(((0, self.since, self._bus.number), *others))[-1]

    @property
    def is_this(self) -> bool:
        """Whether it is this one; not while it cannot reach the others, nor until those on other machines are known."""
        if self._bus.spans_machines and not self._is_settled:
            return False
        return self.eldest == self._bus.number if self._bus.others else not self._bus.is_apart

    async def _settle(self) -> None:
        await anyio.sleep(SETTLE_S)
        self._unknown, self._is_settled = inf, True
        self._changed()

    def _come_or_gone(self, worker: int, has_come: bool) -> None:
        if has_come:
            self._bus.tell_at_last("since", lambda: self.since, worker)
        else:
            self._since.pop(worker, None)
            if not self._bus.others and self._bus.is_apart:
                self.since = self._now()
        self._changed()

    def _heard(self, worker: int, since: float) -> None:
        self._since[worker] = since
        self._changed()
