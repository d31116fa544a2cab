"""What a hub's calls reach in other workers, and what they ask there. In a process without workers: what is here."""

from collections.abc import Callable
from typing import Any

import msgspec

from fanwire._engine import Engine
from fanwire.faults import Faults
from fanwire.presence import Roster
from fanwire.relay.stats import RelayStats
from fanwire.workers.bus import NOT_SENT, Bus
from fanwire.workers.stats import StatsOfAll, numbers_of, stats_of_all

DISCONNECT, STATS, RELAYS, OCCUPANCY = "hub.disconnect_user", "hub.stats", "hub.relay_stats", "hub.occupancy"


class Across:
    """Those of one serving. In the event loop's thread, but for ``disconnect_user``: any thread.

    Args:
        bus: to the other workers, where there are any.
    """

    def __init__(
        self,
        engine: Engine,
        roster: Roster,
        relay_stats: Callable[[], list[RelayStats]],
        faults: Faults,
        bus: Bus | None,
    ) -> None:
        self._engine, self._roster, self._relay_stats = engine, roster, relay_stats
        self._faults, self._bus = faults, bus
        if bus is not None:
            bus.on(DISCONNECT, self._disconnect)
            bus.on_question(STATS, lambda worker, message: numbers_of(engine.stats()))
            bus.on_question(RELAYS, lambda worker, message: relay_stats())
            bus.on_question(OCCUPANCY, lambda worker, channel: engine.occupancy(channel))

    @property
    def number(self) -> int:
        """Of this worker."""
        return 0 if self._bus is None else self._bus.number

    def disconnect_user(self, user: str, code: int, reason: str) -> None:
        """Have other workers close a user's connections. Raises LimitReached."""
        if self._bus is not None:
            self._bus.tell(DISCONNECT, [user, code, reason])

    def _disconnect(self, worker: int, message: Any) -> None:
        user, code, reason = message
        for client in self._roster.clients(user):
            client.close(code, reason)

    async def stats(self) -> StatsOfAll:
        """The sums of all."""
        answers = {self.number: numbers_of(self._engine.stats())}
        others = frozenset[int]() if self._bus is None else self._bus.others
        answers.update(await self._ask(STATS, None))
        return stats_of_all(answers, tuple(sorted(others - answers.keys())))

    async def relay_stats(self) -> dict[int, list[RelayStats]]:
        """How the relays of each stand, by its number."""
        stats = {self.number: self._relay_stats()}
        for worker, told in (await self._ask(RELAYS, None)).items():
            stats[worker] = msgspec.convert(told, list[RelayStats])
        return stats

    async def occupancy(self, channel: str) -> int:
        """Subscribers everywhere."""
        here = self._engine.occupancy(channel)
        elsewhere: dict[int, int] = await self._ask(OCCUPANCY, channel)
        return here + sum(elsewhere.values())

    async def _ask(self, kind: str, message: Any) -> dict[int, Any]:
        if self._bus is None:
            return {}
        try:
            return await self._bus.ask(kind, message)
        except NOT_SENT as error:
            self._faults.note("bus.ask", error, "the other workers could not be asked")
            return {}
