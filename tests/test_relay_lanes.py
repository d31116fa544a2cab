"""Lanes, their table, and what spaces attempts: with a clock that stands still, without sockets or loops."""

from types import SimpleNamespace
from typing import Any

import pytest
from fanwire.errors import LimitReached
from fanwire.relay.broadcast import BroadcastLane
from fanwire.relay.lane import PlainLane
from fanwire.relay.lingering import LINGERING_BYTES_MAX, LINGERING_MIN, Lingering
from fanwire.relay.machine import FORSAKEN, TABLE, Act, Event, Machine, Phase, Rest, State
from fanwire.relay.timing import Backoff
from fanwire.relay.wire import PlainWire
from fanwire.wording import BRIEF_MAX
from support.clock import BACKEND, FakeTimers, Noted, One, happened, upstreams
from support.laning import LANES, Stage

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
    context: Any = SimpleNamespace(
        upstreams=upstreams(), timers=timers, backend=BACKEND, names=told, everyones=told, linger=30.0, lanes=LANES
    )
    ended: list[BroadcastLane] = []
    lane = BroadcastLane(context, "json", route, backoff, lambda greeting: None, lambda words: None, ended.append)
    waits = []
    for _ in range(4):
        lane.opened(happened("opened"))
        lane.closed(happened("closed"))
        waits += timers.waits
        timers.let_pass(waits[-1])
    assert waits == [1.0, 2.0, 4.0, 8.0]
    lane.spoken(is_spoken=False)
    lane.closed(happened("closed"))
    timers.let_pass(8.0)
    lane.closed(happened("closed", fault="handshake"))
    assert (timers.waits, ended) == ([], [lane]), "it is not tried for nobody where the backend does not speak it"


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
    stage.lingering.make_room()
    assert (stage.lane.state, stage.timers.waits) == (State.CLOSED, [])


class Left:
    """A lane that nobody watches."""

    def __init__(self, lingering: Lingering, cost: int = 1) -> None:
        self.cost, self._lingering = cost, lingering
        lingering.needed(self)

    def end(self) -> None:
        """As a lane does."""
        self._lingering.ended(self)


def test_one_client_leaves_no_more_lanes_than_it_may_watch_the_oldest_end() -> None:
    lingering = Lingering(2)
    first, second, others = Left(lingering), Left(lingering), Left(lingering)
    lingering.left(others, 2)
    for lane in (first, second):
        lingering.left(lane, 1)
    lingering.needed(first)
    lingering.left(third := Left(lingering), 1)
    lingering.left(first, 1)
    assert list(lingering) == [others, third, first], "who came back is the newest"


def test_all_leave_no_more_lanes_than_were_watched_at_once() -> None:
    lingering = Lingering(100)
    watched = [Left(lingering) for _ in range(LINGERING_MIN + 10)]
    for client, lane in enumerate(watched):
        lingering.left(lane, client)
    assert list(lingering) == watched, "those that all left at once may all come back"
    for client in range(50):
        lingering.left(Left(lingering), 1_000 + client)
    assert len(lingering) == len(watched) and watched[50] in list(lingering) and watched[49] not in list(lingering)


def test_lanes_that_linger_hold_no_more_than_so_many_bytes() -> None:
    lingering = Lingering(100)
    lanes = [Left(lingering, LINGERING_BYTES_MAX // 4) for _ in range(6)]
    for lane in lanes:
        lingering.left(lane, 1)
    assert list(lingering) == lanes[2:]
    for lane in lanes[2:]:
        lane.end()
    assert (len(lingering), lingering._bytes, lingering._of_client, lingering._needed) == (0, 0, {}, set())


@pytest.mark.parametrize("kind", KINDS)
def test_a_lane_that_is_over_that_ends_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanwire.relay.lingering.LINGERING_BYTES_MAX", 1)
    stage, client = Stage(kind), One()
    stage.come(client)
    stage.agree()
    stage.lane.gone(client)
    assert (stage.ended, stage.timers.waits, list(stage.lingering)) == ([stage.lane], [], [])


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


@pytest.mark.parametrize("is_answered_between", [False, True])
def test_a_backend_that_drops_the_connection_at_a_second_call_is_not_asked_again(is_answered_between: bool) -> None:
    stage = Stage()
    stage.come(One(1))
    stage.agree()

    def come_late(id: int) -> int:
        """Have one come when what there is has grown old; gives how often the backend has been asked."""
        stage.timers.let_pass(61.0)
        stage.come(One(id))
        return stage.lane._calls

    assert come_late(2) == 2
    stage.lose()
    stage.timers.let_pass(8.0)
    stage.agree()  # those that wait are welcome, and nobody knows yet whether it was for the call
    assert come_late(3) == 4
    if is_answered_between:
        stage.answer()
        assert come_late(4) == 5
    stage.lose()
    stage.timers.let_pass(8.0)
    stage.agree()
    calls = stage.lane._calls
    assert come_late(5) == calls + is_answered_between, "not a third time in a row"


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


def test_a_backend_s_words_are_kept_short_and_printable() -> None:
    stage = Stage()
    stage.come(One(1))
    stage.agree()
    stage.lose(text="\x1b[2J\n" + "x" * 1_000_000)
    assert stage.lane.why == " [2J " + "x" * (BRIEF_MAX - 5) + "…"


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
        PlainLane("l", PlainWire("/w", b"1", 1), [], (), stage.lane.context, stage.ended.append)
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
