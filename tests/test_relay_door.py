"""Who comes while lanes look for a worker that holds them: those who are here have theirs first."""

import logging
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from fanwire.faults import Faults
from fanwire.relay.door import LOOK_S, SHUT_S_MAX, Door
from fanwire.relay.machine import State
from fanwire.relay.mirror import TAKEOVER_S, Part
from support.clock import FakeTimers


class Stage:
    """A door, who has come through it, and lanes."""

    def __init__(self, lanes: int = 2) -> None:
        self.timers = FakeTimers()
        self.faults = Faults()
        self.door = Door(self.timers, self.faults)  # type: ignore[arg-type]
        self.came: list[int] = []
        self.lanes = [SimpleNamespace(state=State.DOWN) for _ in range(lanes)]

    def come(self, connection: int) -> Any:
        """Somebody asks to connect while it is shut."""
        assert self.door.is_shut
        return self.door.wait(connection, partial(self.came.append, connection))


def test_it_is_open_and_nothing_runs_where_no_lane_was_lost() -> None:
    stage = Stage()
    stage.door.shut([])
    assert not stage.door.is_shut and not stage.timers.due


def test_who_comes_waits_until_the_last_lane_is_live_or_over() -> None:
    stage = Stage()
    stage.door.shut(stage.lanes)
    stage.come(1)
    stage.lanes[0].state = State.LIVE
    stage.timers.let_pass(2 * LOOK_S)
    call_off = stage.come(2)
    stage.come(3)
    call_off()
    call_off()
    assert stage.came == []
    stage.lanes[1].state = State.CLOSED
    stage.timers.let_pass(LOOK_S)
    assert stage.came == [1, 3] and not stage.door.is_shut and not stage.timers.waits


def test_nobody_waits_for_longer_than_it_may_be_shut() -> None:
    stage = Stage()
    stage.door.shut(stage.lanes)
    stage.come(1)
    stage.timers.let_pass(SHUT_S_MAX - LOOK_S)
    assert stage.came == []
    stage.timers.let_pass(3 * LOOK_S)
    assert stage.came == [1] and not stage.door.is_shut


def test_another_worker_that_is_lost_meanwhile_keeps_it_shut() -> None:
    stage = Stage()
    stage.door.shut(stage.lanes[:1])
    stage.door.shut(stage.lanes[1:])
    stage.come(1)
    stage.lanes[0].state = State.LIVE
    stage.timers.let_pass(2 * LOOK_S)
    assert stage.came == [] and len(stage.timers.waits) == 1
    stage.lanes[1].state = State.LIVE
    stage.timers.let_pass(LOOK_S)
    assert stage.came == [1]


def test_one_that_cannot_be_let_in_keeps_no_other_out(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.door.shut(stage.lanes)

    def fail() -> None:
        raise ValueError("no")

    stage.door.wait(1, fail)
    stage.come(2)
    with caplog.at_level(logging.ERROR):
        stage.timers.let_pass(2 * SHUT_S_MAX)
    assert stage.came == [2] and stage.faults.counts["relay.door"] == 1


@pytest.mark.parametrize("holder", [0, 1])
def test_the_one_that_all_others_will_ask_does_not_wait_for_that(holder: int) -> None:
    sharing: Any = SimpleNamespace(
        number=0, holder_of=lambda _: holder, unfollow=lambda *_: None, bus=SimpleNamespace(others=set())
    )
    engine: Any = SimpleNamespace(engine=SimpleNamespace(unfollow=lambda *_: None))
    part = Part(sharing, engine, "/live", b"lane", None, is_held=False)
    part.belongs_to(SimpleNamespace(parted=lambda _: None), "/live#1")  # type: ignore[arg-type]
    assert part.pause() is None, "it was the backend"
    part.holder = 2
    part.parted("worker 2, which held it, is gone")
    pause = part.pause()
    assert pause == 0 if holder == 0 else pause is not None and 0 < pause <= TAKEOVER_S
    assert part.pause() is None, "only once"
