"""Lanes, their table, and what spaces attempts: with a clock that stands still, without sockets or loops."""

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from fanwire.budget import Budgets
from fanwire.errors import LimitReached
from fanwire.faults import Faults
from fanwire.relay.broadcast import BroadcastLane
from fanwire.relay.config import CallShare, Lanes
from fanwire.relay.driver import Terms, has_room
from fanwire.relay.lane import CallLane, CallTerms, PlainLane
from fanwire.relay.machine import FORSAKEN, TABLE, Act, Event, Machine, Phase, Rest, State
from fanwire.relay.plain_private import PlainPrivate
from fanwire.relay.private import Gate
from fanwire.relay.shared import SharedCall
from fanwire.relay.timing import Backoff, Bucket
from fanwire.relay.turns import Turns
from fanwire.relay.unsubscribing import Question
from fanwire.relay.wire import Asked, PlainWire
from support.clock import FakeTimers, Noted, happened, upstreams

TARGET: Any = SimpleNamespace(connect_timeout=5.0, queue_bytes_max=100)
LANES = Lanes(backoff_min=1.0, backoff_max=8.0, on_gap="message")


class One:
    """A client, of either kind, that notes what it is told."""

    def __init__(self, id: int = 1, bytes_max: int = 100_000) -> None:
        self.id = id
        self.budget = Budgets(bytes_max).open()
        self.told: list[str] = []
        self.tell: Callable[[str], None] = self.told.append

    def complete(self, call: Asked, outcome: Any) -> None:
        self.tell(f"complete {call.id}")

    def given_up(self, lane: Any, call: Asked, why: str) -> None:
        self.tell(f"given up {call.id}: {why}")

    def failed(self, call: Asked, why: str) -> None:
        self.tell(f"failed {call.id}")

    def left(self, lane: Any, call: Asked) -> None:
        self.tell(f"left {call.id}")

    def let_in(self, subprotocol: str | None) -> None:
        self.tell("let in")

    def turned_away(self, status: int | None) -> None:
        self.tell(f"turned away {status}")

    def refused(self, lane: Any, *what: Any) -> None:
        self.tell("refused")

    def fail(self) -> None:
        self.tell("fail")


class Stage:
    """A lane, its clock, and all that it asks for."""

    def __init__(self, kind: str = "call", **engine: Any) -> None:
        self.timers = FakeTimers()
        self.engine = Noted(**{"join_lane": True, **engine})
        self.upstreams = upstreams()
        self.ended: list[Any] = []
        common: Any = (self.engine, self.upstreams, self.timers, TARGET, 30.0, LANES, {})
        self.lingering: dict[Any, None] = common[-1]
        self.lane: Any
        if kind == "call":
            share, call = CallShare(subscribe="Watch", fresh=60.0), SharedCall("Watch", "json", b'["m"]')
            everyones: Any = SimpleNamespace(life_of=lambda protocol: 0)
            terms = CallTerms(*common, frozenset(), Noted(), everyones)  # type: ignore[arg-type]
            self.lane = CallLane("l", share, call, terms, self.ended.append)
        else:
            message = b'{"watch":1}' if kind == "message" else None
            self.lane = PlainLane("l", PlainWire("?m", message, 1), [], (), Terms(*common), self.ended.append)
        self.lane._backoff = Backoff(1.0, 8.0, lambda low, high: high)

    def come(self, client: One, id: str = "1") -> None:
        """Have a client watch."""
        if isinstance(self.lane, CallLane):
            self.lane.subscribe(client, Asked(id, "Watch"))
        elif self.lane.message is None:
            self.lane.admit(client)
        else:
            self.lane.watch(client)

    def agree(self) -> None:
        """The backend takes what is asked."""
        self.lane.opened(happened("opened"))
        if isinstance(self.lane, CallLane):
            self.answer()

    def answer(self, outcome: str = "result") -> None:
        """To the newest call."""
        self.lane.completed(happened("completion", id=str(self.lane._calls), outcome=outcome))

    def lose(self, **told: Any) -> None:
        """The connection ends."""
        self.lane.closed(happened("closed", **{"text": "gone", **told}))


KINDS = ["call", "query", "message"]


# The table


def test_every_step_of_the_table_leads_on_and_every_phase_but_the_last_is_left() -> None:
    assert {phase for phase, _ in TABLE} == set(Phase) - {Phase.CLOSED} == set(FORSAKEN) - {Phase.CLOSED}
    reached, new = set[Phase](), {Phase.OPENING}
    while new:
        reached |= new
        new = {step.to for (phase, _), step in TABLE.items() if phase in reached} - reached
    assert reached == set(Phase) - {Phase.CLOSED}
    for (phase, event), step in TABLE.items():
        is_lost = event in (Event.LOST, Event.BLAMED, Event.BARRED)
        assert is_lost == (step.to is Phase.PAUSED)
        assert (Act.GO_DOWN in step.acts) == (is_lost and phase in (Phase.LIVE, Phase.RENEWING))
        assert (Act.GO_LIVE in step.acts) == (step.to is Phase.LIVE and phase in (Phase.OPENING, Phase.ASKING))
        assert (Act.ASK in step.acts) == (step.to in (Phase.ASKING, Phase.RENEWING))


def test_what_the_table_does_not_name_changes_nothing() -> None:
    for phase in Phase:
        for event in Event:
            machine = Machine()
            machine.phase = phase
            if (phase, event) not in TABLE:
                assert machine.take(event) == ()
                assert machine.phase is phase


def test_a_lane_that_was_live_is_down_until_it_is_live_again() -> None:
    machine = Machine()
    seen = [machine.state]
    for event in (Event.OPENED, Event.AGREED, Event.WANTED, Event.LOST, Event.DUE, Event.BARRED, Event.DUE):
        machine.take(event)
        seen.append(machine.state)
    machine.take(Event.AGREED)
    live, down = State.LIVE, State.DOWN
    assert [*seen, machine.state] == [State.CONNECTING, State.CONNECTING, live, live, down, down, down, down, live]
    assert (machine.close(), machine.close(), machine.state) == (True, False, State.CLOSED)
    assert machine.rest(is_forsaken=True) is Rest.NOTHING


# Back-off


def test_a_pause_doubles_up_to_its_bound_and_begins_anew_behind_what_lasted() -> None:
    backoff = Backoff(1.0, 8.0, lambda low, high: high)
    assert [backoff.next() for _ in range(5)] == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert backoff.next(7.9) == 8.0, "one that accepts and hangs up again is tried as seldom"
    assert [backoff.next(8.0), backoff.next()] == [1.0, 2.0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_backend_that_agrees_and_hangs_up_is_tried_ever_more_seldom(kind: str) -> None:
    stage = Stage(kind)
    stage.come(One())
    waits = []
    for _ in range(5):
        stage.agree()
        stage.lose()
        (wait,) = stage.timers.waits
        waits.append(wait)
        stage.timers.let_pass(wait)
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0]
    stage.agree()
    stage.timers.let_pass(8.0)
    stage.lose()
    assert stage.timers.waits == [1.0], "one that was good for a while is back at once"
    assert stage.lane.gaps == 6


def test_so_is_a_broadcast_lane() -> None:
    timers = FakeTimers()
    told: Any = Noted()
    backoff = Backoff(1.0, 8.0, lambda low, high: high)
    route = ("broadcast", "/live", frozenset[str](), frozenset[str]())
    lane = BroadcastLane(
        upstreams(),
        timers,
        TARGET,
        "json",
        route,
        backoff,
        lambda greeting: None,
        told,
        told,  # type: ignore[arg-type]
    )
    waits = []
    for _ in range(4):
        lane.opened(happened("opened"))
        lane.closed(happened("closed"))
        waits += timers.waits
        timers.let_pass(waits[-1])
    assert waits == [1.0, 2.0, 4.0, 8.0]


# Lingering


@pytest.mark.parametrize("kind", KINDS)
def test_a_lane_lingers_and_whoever_comes_keeps_it(kind: str) -> None:
    stage, first, second = Stage(kind), One(1), One(2)
    stage.come(first)
    stage.agree()
    stage.lane.gone(first)
    assert (stage.timers.waits, list(stage.lingering)) == ([30.0], [stage.lane])
    stage.timers.let_pass(29.0)
    stage.come(second)
    assert (stage.timers.waits, list(stage.lingering)) == ([], [])
    stage.lane.gone(second)
    stage.timers.let_pass(30.0)
    assert (stage.ended, stage.lane.state, list(stage.lingering)) == ([stage.lane], State.CLOSED, [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_lane_that_everybody_left_before_it_was_live_ends_at_once(kind: str) -> None:
    stage, client = Stage(kind), One()
    stage.come(client)
    stage.lane.gone(client)
    assert (stage.ended, stage.timers.waits, client.budget.bytes) == ([stage.lane], [], 0)
    assert ("close session", 1) in stage.upstreams.noted.calls


@pytest.mark.parametrize("kind", KINDS)
def test_a_lane_that_was_left_while_it_is_down_is_tried_no_sooner_and_makes_room(kind: str) -> None:
    stage, first, second = Stage(kind), One(1), One(2)
    stage.come(first)
    stage.agree()
    stage.lose()
    stage.lane.gone(first)
    assert (stage.timers.waits, list(stage.lingering)) == ([1.0], [stage.lane])
    stage.come(second)
    assert (len(stage.upstreams.opened), list(stage.lingering)) == (1, [])
    stage.timers.let_pass(1.0)
    assert len(stage.upstreams.opened) == 2
    stage.lose()
    stage.lane.gone(second)
    assert not has_room([1], 1, stage.lingering)  # that list does not shrink
    assert (stage.lane.state, stage.timers.waits) == (State.CLOSED, [])


# Refusals and blame


@pytest.mark.parametrize(("kind", "status", "told"), [
    ("call", 401, ["refused"]), ("call", 404, []), ("call", 429, []), ("call", 503, []),
    ("message", 403, ["refused"]), ("message", 404, []), ("message", 429, []), ("message", 503, []),
    ("query", 401, ["turned away 401"]), ("query", 429, ["turned away 429"]), ("query", None, ["turned away None"]),
])  # fmt: skip
def test_only_401_and_403_say_that_a_lane_may_not_what_a_client_may(
    kind: str, status: int | None, told: list[str]
) -> None:
    """A 429 at the lane of thousands would else have each of them open a connection of its own."""
    stage, client = Stage(kind), One()
    stage.come(client)
    stage.lose(status=status)
    assert client.told == told
    assert list(stage.lingering) == ([stage.lane] if told else []), "nobody is left, or all wait"


@pytest.mark.parametrize("kind", ["call", "message"])
def test_who_comes_while_a_lane_is_down_is_told_of_its_refusal_and_who_watched_stays(kind: str) -> None:
    stage, old, new = Stage(kind), One(1), One(2)
    stage.come(old)
    stage.agree()
    stage.lose()
    stage.come(new)
    stage.timers.let_pass(1.0)
    told = list(old.told)
    stage.lose(status=401)
    assert (old.told, new.told) == (told, ["refused"])
    assert list(stage.lane.watchers) == [old]


def test_a_call_that_ends_the_connection_is_told_and_the_others_are_made_again() -> None:
    stage, bad, good = Stage(), One(1), One(2)
    stage.come(bad)
    stage.come(good)
    stage.lane.opened(happened("opened"))
    stage.lose(said=True, text="cannot take it")
    assert (bad.told, good.told) == (["given up 1: The connection to the backend was lost before it answered."], [])
    stage.timers.let_pass(1.0)
    stage.agree()
    assert good.told == ["complete 1"]


def test_a_message_at_which_a_backend_hangs_up_early_is_its_first_client_s() -> None:
    for code, after, told in ((4001, 0.0, ["refused"]), (1012, 0.0, []), (4001, 9.0, [])):
        stage, first, second = Stage("message"), One(1), One(2)
        stage.come(first)
        stage.come(second)
        stage.agree()
        stage.timers.let_pass(after)
        stage.lose(code=code)
        assert (first.told, second.told) == (told, [])


def test_why_a_lane_is_down_is_what_happened_last() -> None:
    stage = Stage()
    stage.come(One(1))
    stage.agree()
    stage.lose(text="first")
    stage.timers.let_pass(1.0)
    stage.lose(text="second")
    assert stage.lane.why == "second"


# One's trouble is nobody else's


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["fail", "refuse", "agree"])
def test_a_client_that_cannot_be_told_keeps_nobody_else_from_being_told(kind: str, how: str) -> None:
    stage, bad, good = Stage(kind), One(1), One(2)

    def raises(what: str) -> None:
        raise RuntimeError(what)

    bad.tell = raises
    stage.come(bad)
    stage.come(good)
    if how == "fail":
        stage.lane.fail()
    elif how == "refuse":
        stage.lose(status=401)
    else:
        stage.agree()
    assert good.told or (kind, how) == ("message", "agree")
    assert stage.upstreams.faults.counts or (kind, how) == ("message", "agree")


def test_a_session_that_has_begun_is_closed_when_what_follows_fails() -> None:
    stage = Stage("message")
    stage.upstreams.send_message = lambda *arguments, **named: 1 / 0
    with pytest.raises(ZeroDivisionError):
        PlainLane("l", PlainWire("/w", b"1", 1), [], (), stage.lane.terms, stage.ended.append)
    assert ("close session", stage.upstreams.opened[-1]) in stage.upstreams.noted.calls


# Who waits


def test_who_waits_is_told_when_its_time_is_up_and_not_before() -> None:
    stage, first, second = Stage(), One(1), One(2)
    stage.come(first)
    stage.timers.let_pass(2.0)
    stage.come(second)
    stage.timers.let_pass(3.0)
    assert (first.told, second.told) == (["given up 1: The backend cannot be reached."], [])
    stage.lane.opened(happened("opened"))
    stage.timers.let_pass(2.0)
    assert second.told == ["given up 1: The backend has not answered."]


def test_who_has_no_room_to_wait_leaves_no_lane_behind() -> None:
    stage = Stage()
    with pytest.raises(LimitReached, match="client_bytes_max"):
        stage.come(One(bytes_max=10))
    assert stage.ended == [stage.lane]


def test_turns_are_taken_in_order_and_what_one_leaves_behind_is_found_at_once() -> None:
    turns: Turns[Any] = Turns()
    clients = [One(number) for number in range(3)]
    items = [SimpleNamespace(client=clients[number % 3], cost=10, number=number) for number in range(9)]
    hashed = [type("Item", (), vars(item))() for item in items]
    for one in hashed:
        turns.add(one)
    assert [one.number for one in turns.drop(clients[1])] == [1, 4, 7]
    assert (clients[1] in turns, clients[0] in turns, len(turns)) == (False, True, 6)
    assert (clients[1].budget.bytes, clients[0].budget.bytes) == (0, 30)
    assert [turns.take().number for _ in range(6)] == [0, 2, 3, 5, 6, 8]
    assert sum(client.budget.bytes for client in clients) == 0


def test_a_client_that_goes_costs_the_same_however_many_wait() -> None:
    """It cost a look at each of them: 3,000 that leave at once were 4,500,000 looks."""
    looks = 0

    class Looked(One):
        @property
        def budget(self) -> Any:
            nonlocal looks
            looks += 1
            return self._budget

        @budget.setter
        def budget(self, budget: Any) -> None:
            self._budget = budget

        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal looks
            looks += 1
            return self is other

    stage, clients = Stage(), [Looked(number) for number in range(300)]
    for client in clients:
        stage.come(client)
    looks = 0
    for client in clients:
        stage.lane.gone(client)
    assert looks < 10 * len(clients)


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


@pytest.mark.parametrize(("waiting", "acknowledged"), [(100, 1), (101, 0)])
def test_a_message_is_owed_an_acknowledgement_only_where_the_backend_s_drained_will_pay_it(
    waiting: int, acknowledged: int
) -> None:
    """A session tells of ``drained`` where more than `queue_bytes_max` waited: at exactly that a client hung."""
    sessions = upstreams()
    sessions.send_message = lambda *arguments, **named: waiting
    client: Any = One()
    client.acknowledge = lambda: client.told.append("acknowledged")
    gate = Gate(FakeTimers(), Faults(), 2.0, 6)  # type: ignore[arg-type]
    credentials: Any = SimpleNamespace(headers=())
    private = PlainPrivate(client, credentials, [], (sessions, TARGET, gate, 60.0))
    private.send(b"x", None, is_text=True)
    assert client.told == ["acknowledged"] * acknowledged
    private.happened(happened("drained", session=sessions.opened[-1]))
    assert client.told == ["acknowledged"]


# What those who leave are answered


class Left:
    """A question, and clients that have left lanes."""

    def __init__(self) -> None:
        self.timers = FakeTimers()
        self.sessions = upstreams()
        self.question = Question(self.sessions, self.timers, TARGET)  # type: ignore[arg-type]

    def leave(self, client: Any, match: str) -> None:
        """Have it leave the lane of this match."""
        share = CallShare(subscribe="Watch", unsubscribe="Unwatch")
        lane: Any = SimpleNamespace(call=SharedCall("Watch", "json", match.encode()), share=share)
        self.question.answer(client, lane, Asked(match, "Unwatch"))

    @property
    def tried(self) -> list[str]:
        """What is being tried."""
        return [probe.lane.call.arguments.decode() for probe in self.question._probes]

    def open(self, index: int = 0) -> Any:
        """Have a probe's connection be there; gives the probe."""
        probe = self.question._probes[index]
        probe.opened(happened("opened"))
        return probe


def test_a_slow_call_has_another_client_s_tried_beside_it_and_three_at_most() -> None:
    left, clients = Left(), [One(number) for number in range(5)]
    for match in ("a", "b"):
        left.leave(clients[0], match)
    for client in clients[1:]:
        left.leave(client, f"of {client.id}")
    assert left.tried == ["a"]
    for index in range(4):
        if index < 3:
            left.open(index)
        left.timers.let_pass(1.0)
    assert left.tried == ["a", "of 1", "of 2"], "of one client never two"
    left.timers.let_pass(5.0)
    assert clients[0].told == ["failed a", "complete b"], "its own is not answered, and what had no turn has left"
    assert (clients[4].told, left.tried[-1]) == (["complete of 4"], "of 3")


def test_a_loss_without_a_word_has_the_call_tried_once_more_behind_the_others() -> None:
    left, first, second = Left(), One(1), One(2)
    left.leave(first, "bad")
    left.leave(second, "good")
    left.open().closed(happened("closed"))
    assert left.tried == ["good"]
    left.open().closed(happened("closed"))
    assert left.tried == ["bad"]
    left.open().closed(happened("closed"))
    assert first.told == ["failed bad"]
    assert left.tried == ["good"]
    probe = left.open()
    for id in ("1", "2"):
        probe.completed(happened("completion", id=id, outcome="result"))
    assert second.told == ["complete good"]
    assert (first.budget.bytes, second.budget.bytes, left.timers.waits) == (0, 0, [])


def test_whose_time_is_up_while_its_call_is_tried_hears_of_that_or_that_it_has_left() -> None:
    left, first, second = Left(), One(1), One(2)
    left.leave(first, "bad")
    left.timers.let_pass(4.9)
    probe = left.open()
    left.leave(second, "bad")
    left.question._probes[0]._timeout.call_off()
    left.timers.let_pass(0.2)
    assert first.told == []
    probe.closed(happened("closed"))
    assert (first.told, second.told, left.tried) == (["complete bad"], [], ["bad"])


def test_who_leaves_and_goes_costs_no_look_at_the_others_who_wait() -> None:
    """It was a pass or three over all of them, at each call and at each client that went."""
    left, looks = Left(), 0

    class Seen(str):
        __slots__ = ()

        def __hash__(self) -> int:
            nonlocal looks
            looks += 1
            return super().__hash__()

    share = CallShare(subscribe="Watch", unsubscribe="Unwatch")
    clients = [One(number) for number in range(300)]
    left.leave(One(1_000), "first")
    for client in clients:
        lane: Any = SimpleNamespace(call=SharedCall(Seen("Watch"), "json", b"%d" % client.id), share=share)
        left.question.answer(client, lane, Asked("1", "Unwatch"))
    for client in clients:
        left.question.gone(client)
    assert looks < 10 * len(clients)
    assert left.tried == ["first"]
