"""Private connections of both kinds, gates and buckets: a clock that stands still, no sockets, no loops."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from fanwire.errors import LimitReached
from fanwire.faults import Faults
from fanwire.relay.session import CallLine, Gate, PlainLine, Session, UpstreamMessage
from fanwire.relay.timing import Backoff, Bucket
from fanwire.relay.wire import Asked
from support.clock import BACKEND, FakeTimers, One, happened, upstreams

# Gates and buckets


def test_a_gate_opens_so_many_a_second_in_order_and_who_leaves_costs_no_time() -> None:
    timers, opened = FakeTimers(), list[tuple[int, float]]()

    class Door:
        is_open = False

        def __init__(self, number: int) -> None:
            self.number = number

        def open(self) -> None:
            opened.append((self.number, timers.time - 1_000))

        def fail(self) -> None:
            raise AssertionError

    gate = Gate(timers, Faults(), 2.0, 6)  # type: ignore[arg-type]
    doors = [Door(number) for number in range(7)]
    assert [gate.enter(door) for door in doors] == [True] * 6 + [False]
    gate.call_off(doors[2])
    assert gate.count == 5
    timers.let_pass(10.0)
    assert [number for number, _ in opened] == [0, 1, 3, 4, 5]
    times = [time for _, time in opened]
    assert times[:2] == [0.0, 0.0]
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times[1:]))
    gate.leave()
    assert gate.enter(doors[6])


def test_a_bucket_gives_as_many_at_once_as_in_a_second() -> None:
    bucket = Bucket(3.0)
    assert [bucket.try_take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait == pytest.approx(1 / 3)
    assert not bucket.try_take(100.3)
    assert bucket.try_take(100.4)
    assert [bucket.try_take(200.0) for _ in range(4)] == [True, True, True, False], "no more, however long it waited"


def test_a_bucket_whose_rate_changes_goes_on_with_what_is_in_it() -> None:
    bucket = Bucket(4.0)
    bucket.set_rate(2.0)
    assert [bucket.try_take(100.0) for _ in range(3)] == [True, True, False]
    assert bucket.wait == pytest.approx(1 / 2)
    bucket.set_rate(4.0)
    assert bucket.wait == pytest.approx(1 / 4)


# Private connections


class Owning(One):
    """A client with a connection of its own, of either kind."""

    def __init__(self, kind: str, waiting: int | None = 0, **options: Any) -> None:
        super().__init__(**options)
        self.timers = FakeTimers()
        self.sessions = upstreams()
        self.waiting = waiting
        self.sessions.send = self.sessions.send_message = lambda *arguments, **named: self.waiting
        self.gate = Gate(self.timers, Faults(), 2.0, 1)  # type: ignore[arg-type]
        shown: Any = SimpleNamespace(headers=(), urls=lambda urls: urls)
        common: Any = (self.sessions, BACKEND, 60.0, self.id)
        line: Any = PlainLine(*common, shown, [])
        if kind == "call":
            line = CallLine(*common, "json", shown, frozenset(), frozenset())
        self.private = Session(self, line, self.sessions, self.gate)
        self.stays = True

    def acknowledge(self) -> None:
        self.tell("acknowledged")

    def arrived(self, subprotocol: str | None) -> None:
        pass

    def lost(self, event: Any) -> bool:
        return self.stays

    def no_room(self, call: Any, error: LimitReached) -> None:
        self.tell("no room")

    def over_bound(self, call: Any, why: str) -> None:
        self.tell("over bound")

    def subscribed_privately(self, id: str, *, is_refused: bool) -> None:
        pass

    def send(self, *, begins: bool = True) -> None:
        self.private.send(UpstreamMessage(Asked("1", "Echo") if begins else None, b"x", is_text=True, is_owed=True))

    def happened(self, kind: str, session: int) -> None:
        (self.private.closed if kind == "closed" else self.private.happened)(happened(kind, session=session))


BOTH = pytest.mark.parametrize("kind", ["call", "plain"])


@BOTH
@pytest.mark.parametrize(("waiting", "acknowledged"), [(100, 1), (101, 0)])
def test_a_message_is_owed_an_acknowledgement_only_where_the_backend_s_drained_will_pay_it(
    kind: str, waiting: int, acknowledged: int
) -> None:
    """A session tells of ``drained`` where more than `queue_bytes_max` waited: at exactly that a plain client hung."""
    client = Owning(kind, waiting)
    client.send()
    assert client.told == ["acknowledged"] * acknowledged
    client.happened("drained", 1)
    assert client.told == ["acknowledged"]


@BOTH
def test_what_an_old_connection_says_pays_nothing_that_a_new_one_owes(kind: str) -> None:
    client = Owning(kind)
    client.send()
    client.timers.let_pass(60.0)
    client.happened("idle", 1)
    assert ("close session", 1) in client.sessions.noted.calls
    client.happened("closed", 1)
    client.waiting = 101
    client.told.clear()
    client.send()
    client.happened("drained", 1)
    assert client.told == [], "a SignalR client was read from again before its backend kept pace"
    client.happened("drained", 2)
    assert client.told == ["acknowledged"]


@BOTH
def test_what_belongs_to_no_call_that_is_known_opens_no_connection(kind: str) -> None:
    client = Owning(kind)
    client.send(begins=False)
    assert (client.told, client.sessions.opened, client.gate.count) == (["acknowledged"], [], 0)


@BOTH
def test_what_comes_as_a_connection_ends_goes_over_the_next_one_where_the_client_stays(kind: str) -> None:
    for stays in (True, False):
        client = Owning(kind)
        client.stays = stays
        client.send()
        client.waiting = None
        client.send()
        client.waiting = 0
        client.happened("closed", 1)
        assert (client.told, client.budget.bytes) == (["acknowledged"] * (1 + stays), 0)
        assert len(client.sessions.opened) == 1 + stays


@BOTH
def test_bounds_of_private_connections_and_of_what_waits_for_one_are_told(kind: str) -> None:
    client = Owning(kind, bytes_max=600)
    assert client.gate.enter(Owning(kind).private)
    client.send()
    assert (client.told, client.budget.bytes) == (["over bound", "acknowledged"], 0)
    small = Owning(kind, bytes_max=10)
    small.send()
    assert (small.told, small.gate.count, small.private.is_open) == (["no room", "acknowledged"], 0, False)


@BOTH
def test_who_goes_before_its_turn_leaves_the_gate(kind: str) -> None:
    client = Owning(kind)
    client.gate._bucket.take(client.timers.now() + 1)
    client.gate._bucket._tokens = 0.0
    client.send()
    assert (client.gate.count, client.sessions.opened) == (1, [])
    client.private.end()
    assert (client.gate.count, client.budget.bytes) == (0, 0)
    client.timers.let_pass(10.0)
    assert client.sessions.opened == []


def test_a_held_connection_that_is_accepted_and_hung_up_is_had_again_ever_more_seldom() -> None:
    client = Owning("call")
    client.private.hold(Backoff(1.0, 8.0, lambda low, high: high))
    waits = []
    for session in range(1, 5):
        client.private.opened(happened("opened"))
        client.happened("closed", session)
        waits += client.timers.waits
        client.timers.let_pass(waits[-1])
    assert waits == [1.0, 2.0, 4.0, 8.0]
