"""What a supervisor decides about its workers, over processes and a clock of the test's."""

import itertools
import logging
from collections.abc import Iterator
from math import inf

import pytest
from fanwire.relay.timing import Backoff
from fanwire.workers.crew import Crew, Worker, ending

numbers = itertools.count(1)


class FakeProcess:
    """It runs until the test says otherwise."""

    def __init__(self) -> None:
        self.pid = next(numbers)
        self.asked = 0
        self.is_killed = False

    def poll(self) -> int | None:
        return None

    def send_signal(self, number: int) -> None:
        raise AssertionError("the supervisor asks")

    def kill(self) -> None:
        self.is_killed = True


class Played:
    """A crew of which the test plays the processes: 30 s until a worker has to give a sign, 10 s to end."""

    def __init__(self, count: int = 2, timeout_s: float = 30.0) -> None:
        self.now = 100.0
        self.served = 0
        self.restarts: list[str] = []
        self.cannot_start = False
        self.crew = Crew(
            count,
            timeout_s,
            10.0,
            self._start,
            self._ask,
            served=self._all_served,
            restarted=self.restarts.append,
            backoff=Backoff(0.25, 30.0, lambda low, high: high),
        )
        self.crew.begin(self.now)

    def _start(self, number: int) -> FakeProcess:
        if self.cannot_start:
            raise OSError(11, "Resource temporarily unavailable")
        return FakeProcess()

    def _ask(self, worker: Worker, is_hurried: bool) -> None:
        process = self.process(worker.number)
        assert is_hurried == (process.asked > 0)
        process.asked += 1

    def _all_served(self) -> None:
        self.served += 1

    @property
    def numbers(self) -> list[int]:
        return [worker.number for worker in self.crew]

    def worker(self, number: int) -> Worker:
        return next(worker for worker in self.crew if worker.number == number)

    def process(self, number: int) -> FakeProcess:
        process = self.worker(number).process
        assert isinstance(process, FakeProcess)
        return process

    def ready(self, *numbers: int) -> None:
        for number in numbers:
            self.crew.heard(self.worker(number), self.now, is_ready=True)

    def ends(self, number: int, code: int = 0) -> None:
        self.crew.ended(self.worker(number), code, self.now)

    def passes(self, seconds: float, *beating: int) -> None:
        self.now += seconds
        for number in beating:
            self.crew.heard(self.worker(number), self.now)
        self.crew.tick(self.now)

    def next_s(self) -> float:
        return self.crew.next_at() - self.now


@pytest.fixture
def played() -> Played:
    """Two workers that serve."""
    made = Played()
    made.ready(0, 1)
    return made


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "fanwire.workers"):
        yield


def test_it_is_told_once_when_all_serve() -> None:
    played = Played(3)
    played.ready(0, 2)
    assert (played.served, played.crew.serving) == (0, 2)
    played.ready(1, 1)
    assert (played.served, played.crew.serving) == (1, 3)
    played.ends(1, -9)
    played.passes(1, 0, 2)
    played.ready(3)
    assert (played.served, played.crew.serving) == (1, 3)


def test_one_that_ends_is_replaced_by_one_of_another_number(played: Played, caplog: pytest.LogCaptureFixture) -> None:
    played.passes(20, 0, 1)
    played.ends(0, -9)
    assert "worker 0" in caplog.text and "ended: SIGKILL; another is started in 0.2 s" in caplog.text
    assert played.next_s() == 0.25
    played.passes(0.2, 1)
    assert played.numbers == [1]
    played.passes(0.05)
    assert played.numbers == [1, 2]


def test_who_ends_again_and_again_is_replaced_ever_more_seldom_and_then_as_at_first(played: Played) -> None:
    waits = []
    for number in range(1, 10):
        played.ends(number, 1)
        waits.append(played.next_s())
        played.passes(waits[-1], 0)
        played.ready(number + 1)
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    played.passes(29, 0, 10)
    played.passes(1, 0, 10)
    played.ends(10, 1)
    assert played.next_s() == 0.25


def test_starts_that_fail_in_a_row_end_all_where_nobody_serves() -> None:
    played = Played(2)
    while not played.crew.is_over:
        played.ends(played.numbers[0], 1)
        played.passes(max(0.0, min(played.next_s(), 30.0)))
        if played.crew.failure:
            assert all(played.process(number).asked for number in played.numbers)
    assert (
        "ended before it served: exit code 1; so it was 5 times in a row, and no worker serves" in played.crew.failure
    )


def test_starts_that_fail_together_are_one_failure_and_are_tried_again_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    played = Played(8)
    for wave, wait_s in enumerate((0.25, 0.5, 1, 2)):
        for number in played.numbers:
            played.ends(number, -9)
        assert (played.numbers, played.next_s(), played.crew.failure) == ([], wait_s, "")
        played.passes(wait_s)
        assert played.numbers == list(range(8 * wave + 8, 8 * wave + 16))
    assert len([line for line in caplog.messages if "before it served: SIGKILL; another is started in" in line]) == 4
    played.ends(played.numbers[0], 1)
    assert "exit code 1; so it was 5 times in a row, and no worker serves" in played.crew.failure


def test_processes_that_cannot_be_started_are_one_failure() -> None:
    played = Played(8)
    for number in played.numbers:
        played.ends(number, -9)
    played.cannot_start = True
    played.passes(0.25)
    assert (played.numbers, played.next_s(), played.crew.failure) == ([], 0.5, "")
    played.cannot_start = False
    played.passes(0.5)
    played.ready(*played.numbers)
    assert played.crew.serving == 8


def test_who_serves_goes_on_whatever_becomes_of_the_others(played: Played) -> None:
    for number in range(1, 20):
        played.ends(number, 1)
        played.passes(played.next_s() if played.next_s() < 30 else 30, 0)
        played.passes(0.001, 0)
    assert not played.crew.failure
    assert played.process(0).asked == 0


def test_one_without_a_sign_is_killed_and_says_so(played: Played, caplog: pytest.LogCaptureFixture) -> None:
    played.passes(29, 1)
    assert (played.process(0).is_killed, played.next_s()) == (False, 1)
    played.passes(1)
    assert played.process(0).is_killed and not played.process(1).is_killed
    assert played.next_s() == 29
    played.ends(0, -9)
    assert "its loop gave no sign for 30 s, and it was killed; another is started" in caplog.text


def test_one_that_does_not_come_to_serve_is_killed_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    played = Played(1, timeout_s=1)
    played.passes(29)
    assert (played.process(0).is_killed, played.next_s()) == (False, 1)
    played.passes(1)
    assert played.process(0).is_killed
    played.ends(0, -9)
    assert "ended before it served: it did not serve for 30 s, and it was killed" in caplog.text


def test_at_the_end_each_has_its_time_and_is_then_killed(played: Played, caplog: pytest.LogCaptureFixture) -> None:
    played.crew.end(played.now)
    assert [played.process(number).asked for number in (0, 1)] == [1, 1]
    played.ends(0)
    played.passes(9)
    assert not played.process(1).is_killed and not played.crew.is_over
    played.passes(1)
    assert played.process(1).is_killed and played.next_s() == inf
    played.ends(1, -9)
    assert played.crew.is_over and not played.crew.failure
    assert "it did not end within 10 s, and was killed" in caplog.text


def test_asked_again_they_have_a_second(played: Played) -> None:
    played.crew.end(played.now)
    played.crew.end(played.now)
    assert [played.process(number).asked for number in (0, 1)] == [2, 2]
    assert played.next_s() == 1


def test_a_restart_replaces_one_after_another_and_none_is_asked_to_end_before_its_place_is_taken(
    played: Played,
) -> None:
    played.crew.restart(played.now)
    assert played.numbers == [0, 1, 2]
    assert [played.process(number).asked for number in (0, 1)] == [0, 0]
    played.ready(2)
    assert [played.process(number).asked for number in (0, 1)] == [1, 0]
    assert played.numbers == [0, 1, 2]  # the next one waits until the first has gone
    played.ends(0)
    assert played.numbers == [1, 2, 3]
    played.ready(3)
    assert (played.process(1).asked, played.restarts) == (1, [])
    played.ends(1)
    assert (played.numbers, played.restarts) == ([2, 3], [""])
    assert played.next_s() == 30  # nobody else is started


def test_a_restart_whose_new_worker_fails_leaves_the_others_as_they_are(played: Played) -> None:
    played.crew.restart(played.now)
    played.ends(2, 1)
    (why,) = played.restarts
    assert "worker 2" in why and "ended before it served: exit code 1; those that serve go on" in why
    assert (played.numbers, played.crew.serving, played.next_s()) == ([0, 1], 2, 30)
    played.cannot_start = True
    played.crew.restart(played.now)
    assert "a worker cannot be started: [Errno 11]" in played.restarts[1]
    played.cannot_start = False
    played.crew.restart(played.now)
    assert played.numbers == [0, 1, 3]


def test_one_that_dies_while_it_is_replaced_leaves_its_place_to_the_new_one(played: Played) -> None:
    played.crew.restart(played.now)
    played.ends(0, -11)
    assert played.numbers == [1, 2]
    assert played.next_s() == 30  # and to no other
    played.ready(2)
    assert (played.process(1).asked, played.numbers) == (0, [1, 2, 3])
    played.ready(3)
    played.ends(1)
    assert played.restarts == [""]


def test_a_restart_waits_until_all_serve_and_asked_again_begins_again(played: Played) -> None:
    played.ends(1, 1)
    played.crew.restart(played.now)
    assert played.numbers == [0]
    played.passes(0.25, 0)
    played.crew.restart(played.now)
    assert played.numbers == [0, 2]
    played.ready(2)
    for old, new in ((0, 3), (2, 4)):
        assert played.numbers[-1] == new
        played.ready(new)
        played.ends(old)
    assert (played.numbers, played.restarts) == ([3, 4], [""])


def test_the_end_breaks_a_restart_off(played: Played) -> None:
    played.crew.restart(played.now)
    played.crew.end(played.now)
    assert played.restarts == ["the supervisor ends"]
    for number in (2, 1, 0):
        assert played.process(number).asked == 1
        played.ends(number, -15)
    assert played.crew.is_over


def test_a_worker_that_cannot_be_started_is_tried_again(played: Played, caplog: pytest.LogCaptureFixture) -> None:
    played.cannot_start = True
    played.ends(0, -9)
    played.passes(0.25, 1)
    assert "a worker cannot be started: [Errno 11] Resource temporarily unavailable; another is started" in caplog.text
    played.cannot_start = False
    played.passes(0.5, 1)
    assert played.numbers == [1, 2]


def test_a_number_is_nobody_else_s_while_its_worker_lives(played: Played) -> None:
    """Ids of connections begin with it, and an old one must name nobody new."""
    for _ in range(300):
        last = played.numbers[-1]
        played.ends(last, -9)
        played.passes(played.next_s(), 0)
        assert played.numbers[-1] not in (0, last)
        played.ready(played.numbers[-1])
    assert max(played.numbers) < 256


def test_how_a_process_ended_is_told() -> None:
    assert [ending(code) for code in (0, 3, -9, -63)] == ["exit code 0", "exit code 3", "SIGKILL", "signal 63"]
