"""Who holds which lane, and who asks about whom, over workers that are joined in one process."""

from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from fanwire.faults import Faults
from fanwire.relay.admitting import SharedAdmission
from fanwire.relay.backed import Backed
from fanwire.relay.sharing import Sharing, Verb
from fanwire.workers.bus import NUMBERS, Bus
from support.joined import Star

PATH = "/live"
IDS = [bytes([number]) * 16 for number in range(64)]


class Relay:
    """What a relay hears."""

    def __init__(self) -> None:
        self.heard_of: list[tuple[Any, ...]] = []
        self.more = 0
        self.admission: SharedAdmission

    def wanted(self, worker: int, id: bytes, *said: Any) -> None:
        """Note it."""
        self.heard_of.append(("wanted", worker, id, *said))

    def of_mirror(self, worker: int, verb: int, id: bytes, *said: Any) -> None:
        """Note it."""
        self.heard_of.append((verb, worker, id, *said))

    def heard(self, worker: int, what: str, *said: Any) -> None:
        """It is of admissions."""
        self.admission.told(worker, what, *said)

    def welcome(self, worker: int) -> None:
        """Note it."""
        self.heard_of.append(("welcome", worker))

    def parted(self, worker: int) -> None:
        """Note it."""
        self.heard_of.append(("parted", worker))
        self.admission.parted(worker)

    def yield_to(self, worker: int, id: bytes) -> None:
        """Note it."""
        self.heard_of.append(("yield", worker, id))

    def one_more(self) -> None:
        """Note it."""
        self.more += 1

    def retire(self) -> None:
        """Note it."""
        self.heard_of.append(("retire",))


class One:
    """Who waits to be told whether it may connect."""

    def __init__(self, key: bytes, shown: bytes) -> None:
        self.key, self.shown = key, shown
        self.told: list[Any] = []


class Admission:
    """What a relay remembers, and whom it asks the backend about."""

    def __init__(self) -> None:
        self.memory: dict[bytes, Any] = {}
        self.asked: list[tuple[One, bytes]] = []
        self.due: list[Callable[[], object]] = []

    def known(self, key: bytes, shown: bytes) -> Any:
        """What is remembered."""
        return self.memory.get(shown) or self.memory.get(key)

    def remember(self, key: bytes, shown: bytes, said: Any) -> None:
        """Keep it."""
        self.memory[key if said[0] == 200 else shown] = said

    def say(self, asker: One, said: Any) -> None:
        """Note it."""
        asker.told.append(said[0])

    def go_and_ask(self, asker: One) -> None:
        """Note it."""
        self.asked.append((asker, asker.key))

    def ask_anew(self, asker: One) -> None:
        """Note it."""
        self.asked.append((asker, asker.shown))

    def later(self, seconds: float, function: Callable[[], object]) -> Any:
        """It is due when the test says so."""
        self.due.append(function)
        admission = self

        class Off:
            def call_off(self) -> None:
                """It is not."""
                if function in admission.due:
                    admission.due.remove(function)

        return Off()


class Workers:
    """Some of them."""

    def __init__(self, *numbers: int) -> None:
        self.star = Star()
        self.time = 1.0
        self.sharing: dict[int, Sharing] = {}
        self.relays: dict[int, Relay] = {}
        self.admissions: dict[int, Admission] = {}
        for number in numbers:
            self.join(number)
        self.star.settle()

    def join(self, number: int, key: bytes = b"") -> None:
        """One more; a key names its machine."""
        faults = Faults()
        bus = self.star.join(number, _Tasks(faults))  # type: ignore[arg-type]
        sharing = self.sharing[number] = Sharing(bus, faults, key, clock=lambda: self.time)
        relay, admission = self.relays[number], self.admissions[number] = Relay(), Admission()
        relay.admission = SharedAdmission(sharing, PATH, admission, 5.0)
        sharing.add(PATH, relay)

    def ask(self, number: int, key: bytes, shown: bytes = b"s") -> One:
        """Somebody comes there."""
        one = One(key, shown)
        self.relays[number].admission.ask(one)
        self.star.settle()
        return one

    def answer(self, number: int, one: One, status: int, holds_s: float = 9.0) -> None:
        """The backend has answered there."""
        self.relays[number].admission.heard(one, (status, b"", None, holds_s))
        self.star.settle()


class _Tasks:
    def __init__(self, faults: Faults) -> None:
        self.faults = faults


def test_all_name_the_same_worker_and_every_worker_is_named() -> None:
    workers = Workers(0, 1, 2)
    named = [{sharing.holder_of(id) for sharing in workers.sharing.values()} for id in IDS]
    assert all(len(one) == 1 for one in named)
    assert set().union(*named) == {0, 1, 2}


def test_what_all_may_have_together_is_shared_alike_by_those_that_are_to_be_there_or_are() -> None:
    workers = Workers(0, 1, 2)
    assert [sharing.part_of_each(200) for sharing in workers.sharing.values()] == [67] * 3
    workers.star.leave(0)
    workers.star.settle()
    assert workers.sharing[1].part_of_each(200) == 100 and workers.sharing[1].part_of_each(1) == 1


def test_what_is_held_stays_whoever_comes_and_is_known_to_who_comes() -> None:
    workers = Workers(0, 1)
    for id in IDS:
        workers.sharing[0].hold(id)
    workers.star.settle()
    workers.join(2)
    workers.star.settle()
    assert all(sharing.holder_of(id) == 0 for id in IDS for sharing in workers.sharing.values())
    workers.sharing[0].let_go(IDS[0])
    workers.star.settle()
    assert workers.sharing[2].claimed(IDS[0]) is None
    workers.star.leave(0)
    workers.star.settle()
    assert workers.sharing[1].claimed(IDS[1]) is None
    assert ("parted", 0) in workers.relays[1].heard_of


def test_of_two_that_hold_one_the_older_goes_on() -> None:
    workers = Workers(0, 1)
    workers.sharing[1].hold(IDS[0])
    workers.time = 2.0
    workers.sharing[0].hold(IDS[0])
    workers.star.settle()
    assert ("yield", 1, IDS[0]) in workers.relays[0].heard_of
    assert not [one for one in workers.relays[1].heard_of if one[0] == "yield"]
    assert {sharing.claimed(IDS[0]) for sharing in workers.sharing.values()} == {1}


class Meeting:
    """Two workers of each of three machines, each of which has other numbers for those of the others."""

    def __init__(self) -> None:
        self.workers = [(machine, number) for machine in range(3) for number in (4, 200)]
        self._arriving: deque[Callable[[], object]] = deque()
        self.buses = {one: self._bus(one) for one in self.workers}
        self.sharing = {one: self._sharing(one) for one in self.workers}
        for one in self.workers:
            for other in self.workers:
                if other != one:
                    self.buses[one].changed(self.number(one, other), True)
        self.settle()

    def number(self, one: tuple[int, int], other: tuple[int, int]) -> int:
        """Of another, as one knows it."""
        return (other[0] - one[0]) % 3 * NUMBERS + other[1]

    def _bus(self, one: tuple[int, int]) -> Bus:
        def send(to: int | None, message: bytes) -> None:
            for other in self.workers:
                if other != one and to in (None, self.number(one, other)):
                    from_whom, bus = self.number(other, one), self.buses[other]
                    self._arriving.append(partial(bus.told, from_whom, message))

        bus = Bus(one[1], send, _Tasks(Faults()))  # type: ignore[arg-type]
        bus.spans_machines = True
        return bus

    def _sharing(self, one: tuple[int, int]) -> Sharing:
        sharing = Sharing(self.buses[one], Faults(), bytes([one[0]]), clock=lambda: 1.0)
        relay = Relay()
        relay.admission = SharedAdmission(sharing, PATH, Admission(), 5.0)
        sharing.add(PATH, relay)
        return sharing

    def settle(self) -> None:
        """Have all arrive."""
        while self._arriving:
            self._arriving.popleft()()


def test_workers_of_all_machines_name_the_same_worker_though_each_has_other_numbers() -> None:
    all_of_them = Meeting().sharing.values()
    named = [{sharing.name_of(sharing.elected(id)) for sharing in all_of_them} for id in IDS]
    assert all(len(one) == 1 for one in named)
    assert set().union(*named) == {sharing.name_of(sharing.number) for sharing in all_of_them}
    assert len({sharing.elected(IDS[0]) for sharing in all_of_them}) > 1
    for sharing in all_of_them:
        assert all(sharing.number_of(sharing.name_of(one)) == one for one in (sharing.number, *sharing.bus.others))
        assert sharing.number_of(b"elsewhere") is None


def test_of_two_machines_that_have_held_one_for_as_long_all_name_the_same() -> None:
    meeting = Meeting()
    for one in meeting.workers[1:4]:
        meeting.sharing[one].hold(IDS[0])
    meeting.settle()
    named = {sharing.name_of(sharing.claimed(IDS[0]) or 0) for sharing in meeting.sharing.values()}
    assert len(named) == 1


def test_a_machine_that_is_gone_has_no_name_and_no_claim() -> None:
    meeting = Meeting()
    gone = [one for one in meeting.workers if one[0] == 1]
    meeting.sharing[gone[0]].hold(IDS[0])
    meeting.settle()
    sharing = meeting.sharing[meeting.workers[0]]
    assert sharing.claimed(IDS[0]) == NUMBERS + 4
    for one in gone:
        meeting.buses[meeting.workers[0]].changed(meeting.number(meeting.workers[0], one), False)
    assert sharing.claimed(IDS[0]) is None and sharing.name_of(NUMBERS + 4) == b""
    assert all(sharing.elected(id) // NUMBERS != 1 for id in IDS)


def test_lanes_are_counted_once_for_all_workers() -> None:
    workers = Workers(0, 1)

    def counts() -> list[int]:
        workers.star.settle()
        return [sharing.lanes_at(PATH) for sharing in workers.sharing.values()]

    for number in range(3):
        workers.sharing[number % 2].hold(IDS[number], PATH)
        workers.sharing[number % 2].hold(IDS[number], PATH)
    workers.sharing[0].hold(IDS[9])  # no lane of this relay's
    assert counts() == [3, 3] and [relay.more for relay in workers.relays.values()] == [3, 3]
    workers.join(2)
    assert counts() == [3, 3, 3]
    for _ in range(2):
        workers.sharing[0].let_go(IDS[0])
    assert counts() == [2, 2, 2]
    workers.sharing[0].retire()
    assert counts()[1:] == [1, 1]
    workers.star.leave(0)
    workers.star.leave(1)
    assert counts()[2] == 0


def test_one_that_retires_is_named_no_more() -> None:
    workers = Workers(0, 1, 2)
    workers.sharing[1].hold(IDS[0])
    workers.star.settle()
    workers.sharing[1].retire()
    workers.star.settle()
    workers.join(3)
    workers.star.settle()
    assert ("retire",) in workers.relays[1].heard_of
    others = [sharing for number, sharing in workers.sharing.items() if number != 1]
    assert all(sharing.holder_of(id) != 1 for id in IDS for sharing in others)
    assert workers.sharing[1].holder_of(IDS[0]) == 1, "its own clients have it until they are gone"


def test_what_is_said_of_an_older_attempt_is_not_heard() -> None:
    workers = Workers(0, 1)
    heard: list[tuple[Any, ...]] = []

    class Lane:
        def told(self, what: str, *said: Any) -> None:
            """Note it."""
            heard.append((what, *said))

        def parted(self, why: str) -> None:
            """Note it."""
            heard.append(("parted", why))

    first = workers.sharing[0].follow(1, IDS[0], Lane())
    second = workers.sharing[0].follow(1, IDS[0], Lane())
    workers.sharing[1].tell_mirror(0, IDS[0], first, "live")
    workers.sharing[1].tell_mirror(0, IDS[0], second, "down", "why")
    workers.star.settle()
    assert heard == [("down", "why")]
    workers.sharing[0].say(1, "/elsewhere", Verb.WANT, IDS[0], second, [], 1, None)
    workers.star.settle()
    assert heard[1:] == [("elsewhere", None)], "no such relay is there"
    workers.star.leave(1)
    workers.star.settle()
    assert heard[2][0] == "parted"


# Who may connect


@pytest.mark.parametrize("status", [200, 401])
def test_the_backend_is_asked_once_for_all_workers(status: int) -> None:
    workers = Workers(0, 1, 2)
    key = IDS[3]
    first = workers.ask(0, key)
    others = [workers.ask(number, key) for number in (1, 2, 0)]
    assert [len(admission.asked) for admission in workers.admissions.values()] == [1, 0, 0]
    workers.answer(0, first, status)
    late = workers.ask(1, key)
    asked = sum(len(admission.asked) for admission in workers.admissions.values())
    told = [one.told for one in (*others, late)]
    assert (asked, told) == (1, [[status]] * 4)


def test_a_no_is_only_for_who_shows_the_very_same() -> None:
    workers = Workers(0, 1, 2)
    key = IDS[5]
    first = workers.ask(0, key)
    same, other = workers.ask(1, key), workers.ask(2, key, b"other")
    workers.answer(0, first, 403)
    assert (same.told, other.told) == ([403], [])
    assert [one for one, _ in workers.admissions[2].asked] == [other]


def test_what_a_bad_moment_gave_is_told_and_not_remembered() -> None:
    workers = Workers(0, 1)
    first = workers.ask(0, IDS[7])
    second = workers.ask(1, IDS[7])
    workers.answer(0, first, 500, 0.0)
    assert second.told == [500]
    assert not any(admission.memory for admission in workers.admissions.values())


@pytest.mark.parametrize("asker", [0, 1, 2])
def test_when_the_one_that_asks_is_gone_the_next_does(asker: int) -> None:
    workers = Workers(0, 1, 2)
    key = next(id for id in IDS if workers.sharing[0].elected(id) != asker)
    workers.ask(asker, key)
    others = [number for number in (0, 1, 2) if number != asker]
    waiting = {number: workers.ask(number, key) for number in others}
    workers.star.leave(asker)
    workers.star.settle()
    assert sum(len(workers.admissions[number].asked) for number in others) == 1
    asking = next(number for number in others if workers.admissions[number].asked)
    workers.answer(asking, waiting[asking], 200)
    assert [waiting[number].told for number in others if number != asking] == [[200]]


def test_who_wants_to_know_no_more_leaves_it_to_the_next() -> None:
    workers = Workers(0, 1, 2)
    key = IDS[9]
    first = workers.ask(0, key)
    workers.ask(1, key)
    workers.relays[0].admission.heard(first, None)
    workers.star.settle()
    assert len(workers.admissions[1].asked) == 1


def test_an_owner_that_is_gone_or_silent_is_not_waited_for() -> None:
    workers = Workers(0, 1)
    theirs = [id for id in IDS if workers.sharing[0].elected(id) == 1]
    workers.star.silent.add(1)
    workers.ask(0, theirs[0])
    assert not workers.admissions[0].asked
    workers.admissions[0].due.pop()()
    assert len(workers.admissions[0].asked) == 1
    workers.ask(0, theirs[1])
    workers.star.leave(1)
    workers.star.settle()
    assert len(workers.admissions[0].asked) == 2


class Sessions:
    """So many connections to backends, of which there may be four."""

    count_max = 4

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


@pytest.mark.parametrize(
    ("lanes", "mirrored", "private", "sessions", "said"),
    [(5, 0, 0, 0, "6"), (6, 3, 0, 0, ""), (6, 3, 2, 1, "6"), (6, 6, 0, 4, "5"), (6, 6, 3, 3, "")],
)
def test_a_lane_that_another_worker_holds_costs_no_connection_here_and_makes_no_room_for_other_relays(
    lanes: int, mirrored: int, private: int, sessions: int, said: str
) -> None:
    relay: Any = SimpleNamespace(
        lanes={number: SimpleNamespace(is_mirrored_here=number < mirrored) for number in range(lanes)},
        gate=SimpleNamespace(count=private),
        _upstreams=Sessions(sessions),
    )
    assert Backed._shortage(relay).partition(" ")[0] == said
