"""What a hub's calls reach in other workers: several hubs of one process, joined as workers are."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import fanwire
import pytest
from anyio.abc import TaskGroup
from fanwire._engine import Position
from fanwire.deliveries import Deliveries, Delivery
from fanwire.pump import Pump
from fanwire.relay.readiness import LINES_MAX, Readiness
from fanwire.workers.bus import Bus
from support.clients import connected
from support.joined import Star, tasks_of
from support.waiting import until
from test_metrics import scrape

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Served:
    """One worker's hub."""

    def __init__(self, hub: fanwire.Hub, address: str, changes: list[fanwire.PresenceChange]) -> None:
        self.hub, self.address, self.changes = hub, address, changes


SEAT = SimpleNamespace(key="00" * 32)
"""What is looked at of a worker's."""


@asynccontextmanager
async def workers(monkeypatch: pytest.MonkeyPatch, count: int = 3) -> AsyncIterator[tuple[Star, list[Served]]]:
    """So many hubs that serve."""
    star = Star()

    def buses_of(seat: Any, engine: Any, tasks: Any) -> tuple[Bus, Bus]:
        bus = star.join(len(star.buses), tasks)
        return bus, bus  # what is told to one machine and to all has different kinds

    init = Pump.__init__
    monkeypatch.setattr(Pump, "__init__", lambda *given, **named: init(*given, **{**named, "seat": SEAT}))
    monkeypatch.setattr("fanwire.pump.buses_of", buses_of)
    monkeypatch.setattr("fanwire.presence.BATCH_S", 0.01)
    monkeypatch.setattr("fanwire.scraping.FRESH_S", 0.0)
    served = []
    async with anyio.create_task_group() as group, AsyncExitStack() as stack:
        group.start_soon(star.run)
        for _ in range(count):
            hub = fanwire.Hub({"room": fanwire.Channel(presence=True, presence_linger=0)})
            hub.authenticate(lambda request: request.query.get("user"))
            changes: list[fanwire.PresenceChange] = []
            hub.on_presence(changes.append)
            serving = await stack.enter_async_context(hub.serve(ANY))
            served.append(Served(hub, serving.address, changes))
        await until(lambda: all(len(bus.others) == count - 1 for bus in star.buses.values()))
        yield star, served
        await stack.aclose()
        group.cancel_scope.cancel()


async def test_a_user_is_disconnected_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async with workers(monkeypatch) as (star, served), AsyncExitStack() as stack:
        anns, bobs = [], []
        for one in served:
            anns.append(await stack.enter_async_context(connected(one.address, "/ws?user=ann")))
            bobs.append(await stack.enter_async_context(connected(one.address, "/ws?user=bob")))
        await until(lambda: all(len(one.hub.clients()) == 2 for one in served))
        assert served[0].hub.disconnect_user("ann", 4001, "signed out") == 1
        assert [await ann.closed() for ann in anns] == [(4001, "signed out")] * 3
        await until(lambda: all(len(one.hub.clients("bob")) == len(one.hub.clients()) == 1 for one in served))
        star.is_full.add(0)
        with pytest.raises(fanwire.LimitReached):
            served[0].hub.disconnect_user("bob")
        assert len(served[0].hub.clients("bob")) == 1, "nobody was closed"


async def test_who_is_there_is_known_everywhere_and_told_by_the_eldest(monkeypatch: pytest.MonkeyPatch) -> None:
    async with workers(monkeypatch) as (_, served):
        async with (
            connected(served[1].address, "/ws?user=ann&channel=room"),
            connected(served[2].address, "/ws?user=bob&channel=room"),
        ):
            await until(lambda: all(one.hub.presence("room") == ["ann", "bob"] for one in served))
            await until(lambda: all(one.hub.occupancy("room") == 2 for one in served))
            assert [await one.hub.occupancy_of_all("room") for one in served] == [2] * 3
            await until(lambda: served[0].changes and served[0].changes[-1].occupancy == 2)
        await until(lambda: not any(one.hub.presence("room") for one in served))
        assert not served[1].changes and not served[2].changes


async def test_counters_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with workers(monkeypatch) as (star, served), AsyncExitStack() as stack:
        for one in served:
            await stack.enter_async_context(connected(one.address, "/ws?channel=a"))
        await until(lambda: all(one.hub.occupancy("a") == 1 for one in served))
        stats = await served[1].hub.stats_of_all()
        assert (stats.connections, stats.subscriptions, stats.workers, stats.silent) == (3, 3, (0, 1, 2), ())
        assert await served[1].hub.relay_stats_of_all() == {0: [], 1: [], 2: []}
        samples = await scrape(served[2].address)
        assert samples["fanwire_subscriptions", ""] == samples["fanwire_workers", ""] == 3
        monkeypatch.setattr("fanwire.workers.summing.ANSWER_S", 0.5)
        star.silent.add(0)
        samples = await scrape(served[2].address)
        assert samples["fanwire_subscriptions", ""] == 3
        assert [samples["fanwire_workers_silent", number] for number in ("0", "1")] == [1, 0]
        star.silent.clear()
        star.arrived.set()
        star.leave(0)
        await until(lambda: star.buses[2].others == {1})
        samples = await scrape(served[1].address)
        assert samples["fanwire_subscriptions", ""] == samples["fanwire_workers", ""] == 2
        assert samples["fanwire_connections_accepted_total", ""] >= 3


async def test_without_workers_all_is_here(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a"):
        await until(lambda: hub.occupancy("a") == 1)
        assert await hub.occupancy_of_all("a") == 1
        stats = await hub.stats_of_all()
        assert (stats.connections, stats.workers, stats.silent, stats.closes) == (1, (0,), (), {})
        assert await hub.relay_stats_of_all() == {0: []}


# Deliveries


class Tracking:
    """An engine whose shards report when a test says so."""

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts
        self.tracked: dict[int, Position] = {}
        self.newest = 0

    def track(self, position: Position) -> tuple[int, int]:
        if position.offset > 9:
            raise ValueError("nothing was published there")
        self.newest += 1
        self.tracked[self.newest] = position
        return self.newest, self.parts

    def untrack(self, token: int) -> None:
        del self.tracked[token]


async def with_deliveries(
    work: Callable[[Star, list[Tracking], list[Deliveries], Any], Any], parts: tuple[int, ...] = (1, 1, 1)
) -> None:
    async with anyio.create_task_group() as group:
        star = Star()
        engines = [Tracking(count) for count in parts]
        made: list[Deliveries] = []
        for number, engine in enumerate(engines):
            tasks = tasks_of(group)
            made.append(Deliveries(engine, tasks, star.join(number, tasks)))  # type: ignore[arg-type]
        star.settle()
        group.start_soon(star.run)
        await work(star, engines, made, group)
        group.cancel_scope.cancel()


def report(deliveries: Deliveries, engine: Tracking, subscribers: int, behind: int, skipped: int = 0) -> None:
    """A shard says how far it is."""
    for token in engine.tracked:
        progress: Any = SimpleNamespace(token=token, part=0, subscribers=subscribers, behind=behind, skipped=skipped)
        deliveries.take(progress)


async def test_a_delivery_is_summed_over_workers_until_enough_have_it() -> None:
    async def work(star: Star, engines: list[Tracking], made: list[Deliveries], group: Any) -> None:
        got: list[Delivery] = []

        async def wait(fraction: float) -> None:
            got.append(await made[0].wait(Position(1, 5), fraction))

        group.start_soon(wait, 0.5)
        group.start_soon(wait, 1.0)
        await until(lambda: all(len(engine.tracked) == 2 for engine in engines))
        report(made[0], engines[0], 4, 0)
        report(made[1], engines[1], 4, 4)
        await anyio.lowlevel.checkpoint()
        assert not got, "one has not said anything"
        report(made[2], engines[2], 2, 2)
        with anyio.move_on_after(0.05):
            await anyio.sleep_forever()
        assert not got
        report(made[2], engines[2], 2, 0, 1)
        await until(lambda: len(got) == 1)
        assert (got[0].subscribers, got[0].taken, got[0].skipped) == (10, 5, 1)
        report(made[1], engines[1], 4, 0)
        await until(lambda: len(got) == 2)
        assert (got[1].subscribers, got[1].taken, got[1].skipped) == (10, 9, 1)
        await until(lambda: not any(engine.tracked for engine in engines))
        assert not any(one._asked or one._hears or one._waiting for one in made)

    await with_deliveries(work)


async def test_nobody_waits_for_a_worker_that_goes_or_has_no_such_channel() -> None:
    async def work(star: Star, engines: list[Tracking], made: list[Deliveries], group: Any) -> None:
        got: list[Delivery] = []

        async def wait(number: int, offset: int) -> None:
            got.append(await made[number].wait(Position(1, offset), 1.0))

        group.start_soon(wait, 0, 5)
        await until(lambda: engines[1].tracked)
        report(made[0], engines[0], 1, 0)
        assert not got
        star.leave(1)
        await until(lambda: len(got) == 1)
        assert got[0].taken == 1, "and 2 has no part"
        group.start_soon(wait, 2, 99)
        await until(lambda: len(got) == 2)
        assert got[1].subscribers == 0, "nobody knows of it"
        group.start_soon(wait, 0, 5)
        await until(lambda: len(made[2]._asked) == 1)
        star.leave(0)
        await until(lambda: not made[2]._asked and not engines[2].tracked)

    await with_deliveries(work, (1, 1, 0))


# Readiness


def holder_of(told: list[tuple[str | None, bool]]) -> Any:
    """What has an engine that is told whether it is ready."""
    return SimpleNamespace(engine=SimpleNamespace(set_unready=lambda *said: told.append(said)))


class Ready:
    """Two workers, and room for a third."""

    def __init__(self, group: TaskGroup) -> None:
        self.star = Star()
        self.told: list[list[tuple[str | None, bool]]] = [[], [], []]
        self._group = group
        self.made = [self.join(number) for number in range(2)]
        self.star.settle()
        group.start_soon(self.star.run)

    def join(self, number: int) -> Readiness:
        """One more."""
        return Readiness(holder_of(self.told[number]), self.star.join(number, tasks_of(self._group)))


async def test_one_that_is_not_ready_makes_all_say_so() -> None:
    async with anyio.create_task_group() as group:
        workers = Ready(group)
        star, told, made = workers.star, workers.told, workers.made
        made[0].note("/live", "no upstream is up")
        await until(lambda: told[1][-1:] == [("worker 0: /live: no upstream is up\n", True)])
        assert told[0][-1] == ("/live: no upstream is up\n", True)
        made[1].note("/live", "no upstream is up")
        assert told[1][-1] == ("/live: no upstream is up\n", True), "once"
        late = workers.join(2)
        both = "worker 0: /live: no upstream is up\nworker 1: /live: no upstream is up\n"
        await until(lambda: told[2][-1:] == [(both, True)])
        made[1].note("/live", "")
        await until(lambda: told[2][-1] == ("worker 0: /live: no upstream is up\n", True))
        star.leave(0)
        await until(lambda: told[1][-1] == told[2][-1] == (None, True))
        for number in range(2 * LINES_MAX):
            late._hear(1, [f"{number}\n" for number in range(number)])
        assert (told[2][-1][0] or "").endswith("\n63 lines more\n")
        group.cancel_scope.cancel()


async def test_whether_others_serve_is_known_while_workers_drain_come_and_go() -> None:
    async with anyio.create_task_group() as group:
        workers = Ready(group)
        star, told, made = workers.star, workers.told, workers.made
        assert told[0][-1] == told[1][-1] == (None, True)
        made[0].drain()
        await until(lambda: told[1][-1] == (None, False))
        assert told[0][-1] == (None, True), "the other serves"
        made.append(workers.join(2))
        await until(lambda: told[1][-1] == (None, True) and told[2][-1:] == [(None, True)])
        made[1].drain()
        await until(lambda: told[2][-1] == (None, False))
        star.leave(2)
        await until(lambda: told[0][-1] == told[1][-1] == (None, False))
        group.cancel_scope.cancel()
