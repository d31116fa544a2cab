"""What workers tell and ask one another, however they come and go."""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import Any

import anyio
import msgspec
import pytest
from fanwire.errors import LimitReached
from fanwire.workers.bus import ASKS_MAX, MESSAGE_BYTES_MAX, Bus, pieces
from hypothesis import given
from hypothesis import strategies as st
from support.joined import Star, tasks_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def turns(count: int = 5) -> None:
    """Let other tasks go on."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


async def with_three(work: Callable[[Star, list[Bus]], Awaitable[None]]) -> None:
    """Do something with three workers that know one another."""
    async with anyio.create_task_group() as group:
        star = Star()
        buses = [star.join(number, tasks_of(group)) for number in range(3)]
        star.settle()
        await work(star, buses)
        group.cancel_scope.cancel()


async def test_one_or_all_others_hear_what_is_told() -> None:
    async def work(star: Star, buses: list[Bus]) -> None:
        heard: list[tuple[int, int, Any]] = []
        for bus in buses:
            bus.on("word", lambda worker, said, bus=bus: heard.append((bus.number, worker, said)))
        assert [bus.others for bus in buses] == [{1, 2}, {0, 2}, {0, 1}]
        said = {"a": [1, None, 2.5], "b": b"\x00\xff"}
        buses[0].tell("word", said)
        buses[1].tell("word", "x", to=2)
        buses[1].tell("word", "to nobody", to=7)
        star.settle()
        assert heard == [(1, 0, said), (2, 0, said), (2, 1, "x")]

    await with_three(work)


async def test_all_who_are_there_answer_and_nobody_waits_for_one_that_goes() -> None:
    async def work(star: Star, buses: list[Bus]) -> None:
        may_answer = anyio.Event()

        async def later(bus: Bus, worker: int, message: Any) -> Any:
            await may_answer.wait()
            return [bus.number, worker, message]

        buses[1].on_question("sum", lambda worker, message: [1, worker, message])
        buses[2].on_question("sum", partial(later, buses[2]))
        got: list[dict[int, Any]] = []

        async def ask(to: int | None = None) -> None:
            got.append(await buses[0].ask("sum", "?", to, timeout_s=inf))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask, 1)
            group.start_soon(ask, 9)
            await turns()
            star.settle()
            await turns()
            assert got == [{}, {1: [1, 0, "?"]}]
            may_answer.set()
            await turns()
            star.settle()
        assert got[2] == {1: [1, 0, "?"], 2: [2, 0, "?"]}
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await turns()
            star.leave(2)
            star.settle()
        assert got[3] == {1: [1, 0, "?"]}
        assert buses[0].others == {1}

    await with_three(work)


async def test_who_does_not_answer_in_time_is_left_out() -> None:
    async def work(star: Star, buses: list[Bus]) -> None:
        buses[1].on_question("sum", lambda worker, message: 1)
        buses[2].on_question("sum", lambda worker, message: 2)
        star.silent.add(2)
        async with anyio.create_task_group() as group:
            group.start_soon(star.run)
            assert await buses[0].ask("sum", None, timeout_s=0.05) == {1: 1}
            star.silent.clear()  # what comes too late is no trouble
            star.arrived.set()
            await turns()
            assert await buses[0].ask("sum", None, timeout_s=inf) == {1: 1, 2: 2}
            group.cancel_scope.cancel()

    await with_three(work)


async def test_what_raises_or_is_unknown_ends_nothing_and_is_counted_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(star: Star, buses: list[Bus]) -> None:
        def fail(worker: int, said: Any) -> Any:
            raise KeyError(said)

        async def fail_later(worker: int, said: Any) -> Any:
            raise KeyError(said)

        buses[1].on("word", fail)
        buses[1].on_question("now", fail)
        buses[1].on_question("later", fail_later)
        buses[1].on_question("odd", lambda worker, message: object())
        buses[1].on_question("big", lambda worker, message: b"x" * MESSAGE_BYTES_MAX)
        buses[1].on_change(fail)  # type: ignore[arg-type]
        faults = buses[1]._faults
        async with anyio.create_task_group() as group:
            group.start_soon(star.run)
            buses[0].tell("word", "?", to=1)
            for kind in ("now", "later", "odd", "big", "none", "none"):
                assert await buses[0].ask(kind, None, 1, timeout_s=inf) == {}
            group.cancel_scope.cancel()
        for message in (b"\xc1", msgspec.msgpack.encode([9, 9]), msgspec.msgpack.encode("x"), b""):
            buses[1].told(0, message)
        buses[1].told(9, msgspec.msgpack.encode([0, "word", 1]))
        star.leave(2)
        star.settle()
        assert faults.counts == {"bus.told": 1, "bus.answer": 4, "bus.left_out": 7, "bus.change": 1}
        left_out = [line for line in caplog.messages if "is left out" in line]
        assert left_out == [
            "what worker 0 sends is left out: kind 'none'",
            "what worker 0 sends is left out: another version",
            "what worker 9 sends is left out: a worker that is not there",
        ]

    await with_three(work)


async def test_bounds() -> None:
    async def work(star: Star, buses: list[Bus]) -> None:
        with pytest.raises(LimitReached, match="bytes of one message"):
            buses[0].tell("word", b"x" * MESSAGE_BYTES_MAX)
        with pytest.raises(TypeError):
            buses[0].tell("word", object())
        star.is_full.add(0)
        with pytest.raises(LimitReached):
            await buses[0].ask("word", None)
        star.is_full.clear()
        async with anyio.create_task_group() as group:
            for _ in range(ASKS_MAX):
                group.start_soon(partial(buses[0].ask, "word", None, timeout_s=inf))
            await turns()
            with pytest.raises(LimitReached, match="questions to other workers"):
                await buses[0].ask("word", None)
            buses[0].end()
        assert not buses[0]._asking

    await with_three(work)


def test_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanwire.workers.bus.PIECE_BYTES_MAX", 20)
    assert list(pieces([])) == []
    assert list(pieces(["a" * 9, "b" * 9, "c"])) == [["a" * 9, "b" * 9], ["c"]]
    assert list(pieces(["a" * 99, "b"])) == [["a" * 99], ["b"]]
    assert list(pieces([["a", 1]])) == [[["a", 1]]]


WORKERS = st.integers(0, 4)
WHAT = st.one_of(
    st.tuples(st.just("join"), WORKERS),
    st.tuples(st.just("leave"), WORKERS),
    st.tuples(st.just("tell"), WORKERS, st.none() | WORKERS),
    st.tuples(st.just("ask"), WORKERS, st.none() | WORKERS),
    st.tuples(st.just("step"), st.integers(0, 99), st.integers(1, 20)),
)


@given(st.lists(WHAT, max_size=60), st.booleans())
def test_any_order(whats: list[tuple[Any, ...]], is_async: bool) -> None:
    """What comes from one worker comes in order, once; and nobody waits for ever."""
    anyio.run(any_order, whats, is_async)


async def any_order(whats: list[tuple[Any, ...]], is_async: bool) -> None:
    star, said = Star(), 0
    lives: dict[int, int] = defaultdict(int)
    heard: dict[tuple[int, int, int, int], list[int]] = defaultdict(list)
    asked = over = 0

    def join(number: int, tasks: Any) -> None:
        bus = star.join(number, tasks)
        life = lives[number] = lives[number] + 1

        def hear(worker: int, message: list[int]) -> None:
            heard[worker, message[0], number, life].append(message[1])

        async def answer_later(worker: int, message: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            return [number, life]

        bus.on("word", hear)
        bus.on_question("who", answer_later if is_async else lambda worker, message: [number, life])

    async def ask(number: int, to: int | None) -> None:
        nonlocal over
        answers = await star.buses[number].ask("who", None, to, timeout_s=inf)
        assert all(worker == answer[0] for worker, answer in answers.items())
        assert number not in answers
        over += 1

    async with anyio.create_task_group() as group:
        for what in whats:
            match what:
                case ("join", number) if number not in star.buses:
                    join(number, tasks_of(group))
                case ("leave", number) if number in star.buses:
                    star.buses[number].end()  # as a hub does that ends
                    star.leave(number)
                case ("tell", number, to) if number in star.buses:
                    said += 1
                    star.buses[number].tell("word", [lives[number], said], to)
                case ("ask", number, to) if number in star.buses:
                    asked += 1
                    group.start_soon(ask, number, to)
                    await turns(2)
                case ("step", which, times):
                    for _ in range(times):
                        steps = star.steps()
                        if steps:
                            steps[which % len(steps)]()
                    await turns(2)
        for _ in range(20):
            star.settle()
            await turns(5)
        assert over == asked
    assert all(numbers == sorted(set(numbers)) for numbers in heard.values())
    everyone = set(star.buses)
    assert all(bus.others == everyone - {number} for number, bus in star.buses.items())
