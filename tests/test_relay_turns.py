"""Who waits, and what those who leave are answered: a clock that stands still, no sockets, no loops."""

from types import SimpleNamespace
from typing import Any

from fanwire.relay.config import CallShare
from fanwire.relay.shared import SharedCall
from fanwire.relay.turns import Turns
from fanwire.relay.unsubscribing import LearnedAnswer
from fanwire.relay.wire import Asked
from support.clock import BACKEND, FakeTimers, One, happened, upstreams


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


# What those who leave are answered


class Left:
    """A question, and clients that have left lanes."""

    def __init__(self) -> None:
        self.timers = FakeTimers()
        self.sessions = upstreams()
        context: Any = SimpleNamespace(upstreams=self.sessions, timers=self.timers, backend=BACKEND)
        self.learned = LearnedAnswer(context)

    def leave(self, client: Any, match: str) -> None:
        """Have it leave the lane of this match."""
        share = CallShare(subscribe="Watch", unsubscribe="Unwatch")
        lane: Any = SimpleNamespace(call=SharedCall("Watch", "json", match.encode()), share=share)
        self.learned.answer(client, lane, Asked(match, "Unwatch"))

    @property
    def tried(self) -> list[str]:
        """What is being tried."""
        return [probe.lane.call.arguments.decode() for probe in self.learned._probes]

    def open(self, index: int = 0) -> Any:
        """Have a probe's connection be there; gives the probe."""
        probe = self.learned._probes[index]
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
    left.learned._probes[0]._timeout.call_off()
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
        left.learned.answer(client, lane, Asked("1", "Unwatch"))
    for client in clients:
        left.learned.gone(client)
    assert looks < 10 * len(clients)
    assert left.tried == ["first"]
