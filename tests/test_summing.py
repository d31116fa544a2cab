"""What ``/metrics`` counts over several workers: nothing twice, and never less than before."""

from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from fanwire._engine import Engine, Settings
from fanwire.scraping import Measured, Scraping
from fanwire.timings import Timings
from fanwire.workers.summing import Samples, Summed, Summing
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from support.joined import Star, tasks_of

pytestmark = pytest.mark.anyio

CLOSES = ("fanwire_closes", "counter", "fanwire_closes_total", ("code", "1000"))
OPEN = ("fanwire_connections", "gauge", "fanwire_connections", ())


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Counting:
    """Workers that count."""

    def __init__(self, group: Any) -> None:
        self.group = group
        self.star = Star()
        self.counts: dict[int, Samples] = {}
        self.summings: dict[int, Summing] = {}
        group.start_soon(self.star.run)

    def start(self, number: int) -> None:
        tasks = tasks_of(self.group)
        self.counts[number] = {CLOSES: 0.0, OPEN: 0.0}
        counts = self.counts[number]
        self.summings[number] = Summing(self.star.join(number, tasks), tasks, lambda: dict(counts))

    def end(self, number: int, *, is_lost: bool) -> None:
        if not is_lost:
            self.summings[number].part()
            self.star.settle()
        self.star.leave(number)
        del self.counts[number], self.summings[number]

    async def settle(self) -> None:
        for _ in range(20):
            self.star.settle()
            await anyio.lowlevel.checkpoint()

    async def sum(self, number: int) -> Summed:
        await self.settle()
        return await self.summings[number].sum()


async def with_counting(work: Callable[[Counting], Any], count: int = 3) -> None:
    async with anyio.create_task_group() as group:
        counting = Counting(group)
        for number in range(count):
            counting.start(number)
        await work(counting)
        group.cancel_scope.cancel()


async def test_what_ended_workers_have_counted_stays() -> None:
    async def work(counting: Counting) -> None:
        for number, counts in counting.counts.items():
            counts[CLOSES], counts[OPEN] = 10.0**number, 1.0
        summed = await counting.sum(0)
        assert summed.samples == {CLOSES: 111.0, OPEN: 3.0}
        assert summed.silent == {1: False, 2: False}
        counting.end(2, is_lost=True)
        for number in (0, 1):
            assert (await counting.sum(number)).samples == {CLOSES: 111.0, OPEN: 2.0}, "of which 1 was told nothing"
        counting.counts[1][CLOSES] += 1000
        counting.end(1, is_lost=False)
        assert (await counting.sum(0)).samples == {CLOSES: 1111.0, OPEN: 1.0}
        counting.start(2)
        counting.start(3)
        await counting.settle()
        counting.end(0, is_lost=True)
        summed = await counting.sum(3)
        assert summed.samples == {CLOSES: 1111.0, OPEN: 0.0}, "and those who came later know it"
        assert set(summed.workers) == {2, 3}

    await with_counting(work)


async def test_a_silent_worker_is_named_and_what_it_said_last_stands_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanwire.workers.summing.ANSWER_S", 0.5)

    async def work(counting: Counting) -> None:
        counting.counts[2][CLOSES] = 7.0
        await counting.sum(1)
        counting.star.silent.add(2)
        summed = await counting.sum(0)
        assert summed.samples[CLOSES] == 7.0, "as 1 knows"
        assert summed.silent == {1: False, 2: True}

    await with_counting(work)


async def test_one_that_could_not_be_reached_for_a_while_counts_once() -> None:
    async def work(counting: Counting) -> None:
        for number, counts in counting.counts.items():
            counts[CLOSES] = 10.0**number
        assert (await counting.sum(0)).samples[CLOSES] == 111.0
        counting.star.cut(2)
        counting.counts[2][CLOSES] += 100
        assert (await counting.sum(0)).samples[CLOSES] == 111.0
        counting.end(1, is_lost=True)
        counting.star.mend(2)
        for number in (0, 2):
            assert (await counting.sum(number)).samples[CLOSES] == 211.0
        counting.end(2, is_lost=True)
        assert (await counting.sum(0)).samples[CLOSES] == 211.0

    await with_counting(work)


WHAT = st.one_of(
    st.tuples(st.just("start"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["lose", "end"]), st.integers(0, 3)),
    st.tuples(st.just("count"), st.integers(0, 3)),
    st.tuples(st.just("scrape"), st.integers(0, 3)),
)


@given(st.lists(WHAT, max_size=40))
def test_no_sum_falls_while_a_worker_is_left(whats: list[tuple[str, int]]) -> None:
    anyio.run(no_sum_falls, whats)


async def no_sum_falls(whats: list[tuple[str, int]]) -> None:
    async with anyio.create_task_group() as group:
        counting = Counting(group)
        counted = lost = seen = 0.0
        is_asked = False
        scraped: dict[int, float] = {}
        for what, number in whats:
            is_there = number in counting.counts
            if what == "start" and not is_there:
                if not counting.counts:
                    counted = lost = seen = 0.0  # all that anybody knew is gone
                    is_asked = False
                counting.start(number)
                scraped[number] = 0.0
                await counting.settle()
            elif what in ("lose", "end") and is_there:
                if what == "lose" or not is_asked:  # what it counted since it was asked last
                    lost += counting.counts[number][CLOSES] - scraped[number]
                counting.end(number, is_lost=what == "lose")
                await counting.settle()
            elif what == "count" and is_there:
                counting.counts[number][CLOSES] += 1
                counted += 1
            elif what == "scrape" and is_there:
                total = (await counting.sum(number)).samples[CLOSES]
                is_asked = True
                scraped = {one: counts[CLOSES] for one, counts in counting.counts.items()}
                assert seen <= total <= counted
                assert total >= counted - lost
                seen = total
        group.cancel_scope.cancel()


async def test_the_text_of_all() -> None:
    """With real stats; one that has another's answer is labelled where there is no sum."""
    answers: list[tuple[int, int, bytes]] = []
    read: list[int] = []
    async with anyio.create_task_group() as group:
        star = Star()
        group.start_soon(star.run)
        engines = []
        scrapings = []
        for number in range(2):
            tasks = tasks_of(group)
            stats = Engine(Settings()).stats()
            engine: Any = SimpleNamespace(
                stats=lambda stats=stats, number=number: read.append(number) or stats,
                respond=lambda id, status, kind, body: answers.append((id, status, body)),
            )
            upstream = SimpleNamespace(url="http://b", state="down" if number else "up", connects=3, failures=0)
            relay: Any = SimpleNamespace(
                sums=lambda number=number, upstream=upstream: SimpleNamespace(
                    path="/hub",
                    states={"live": 2},
                    watching=number,
                    private_lanes=0,
                    unused=1,
                    gaps=1,
                    broadcasts={},
                    gap_times=Timings(),
                    connect_times={"http://b": Timings()},
                    upstreams=[
                        SimpleNamespace(url="http://b", state="down" if number else "up", connects=3, failures=0)
                    ],
                )
            )
            endings: Any = None
            bus = star.join(number, tasks)
            scrapings.append(Scraping(engine, tasks, endings, Measured({"calls": 1}, [relay]), bus=bus))
            engines.append(engine)
        star.settle()
        for connection in range(3):
            scrapings[0].asking(SimpleNamespace(connection=connection, headers=[]))  # type: ignore[arg-type]
        with anyio.fail_after(60):
            while len(answers) < 3:
                await anyio.lowlevel.checkpoint()
        scrapings[0].asking(SimpleNamespace(connection=3, headers=[]))  # type: ignore[arg-type]
        assert [(id, status) for id, status, _ in answers] == [(id, 200) for id in range(4)]
        assert sorted(read) == [0, 1], "each worker counts once for all who ask"
        group.cancel_scope.cancel()
    families = {family.name: family for family in text_string_to_metric_families(answers[0][2].decode())}
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert families["fanwire_publications"].documentation == "Publications appended to a log."
    assert samples["fanwire_workers",] == 2
    assert samples["fanwire_workers_silent", ("worker", "1")] == 0
    assert samples["fanwire_client_refusals_total", ("bound", "calls")] == 2
    assert samples["fanwire_relay_lanes", ("path", "/hub"), ("state", "live")] == 4
    assert samples["fanwire_relay_upstream_up", ("path", "/hub"), ("upstream", "http://b"), ("worker", "0")] == 1
    assert samples["fanwire_relay_upstream_up", ("path", "/hub"), ("upstream", "http://b"), ("worker", "1")] == 0
    assert samples["fanwire_fanout_completion_seconds_bucket", ("le", "+Inf")] == 0
    bounds = [
        sample.labels["le"] for sample in families["fanwire_fanout_completion_seconds"].samples if "le" in sample.labels
    ]
    assert bounds == sorted(bounds, key=lambda bound: inf if bound == "+Inf" else float(bound))
