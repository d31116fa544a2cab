"""What a backend answers to those who unsubscribe, learned once: a lane does not while others watch. ✗ lanes.

The first time that a client leaves, a connection of its own subscribes and unsubscribes as the client did, and what the
second call gave is from then on what clients of this share and protocol are answered, whatever their arguments. Where
that went wrong nothing is learned: who left that lane is answered without a result, as it has left all the same, and
others who wait are asked for once more, with arguments of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fanwire._engine import Upstream
from fanwire.budget import ENTRY_BYTES, Budget
from fanwire.faults import Tasks
from fanwire.logs import relay_log
from fanwire.relay.lane import NOT_ANSWERED, UNREACHABLE, Asked, Lane, Outcome
from fanwire.relay.timing import Delay
from fanwire.relay.upstreams import Owner, Target, Upstreams


class Leaving(Protocol):
    """A client that has left."""

    budget: Budget
    """What waits here is on it."""

    def complete(self, call: Asked, outcome: Outcome) -> None:
        """The call ended so."""

    def failed(self, call: Asked, why: str) -> None:
        """The call could not be made."""


@dataclass(frozen=True, slots=True)
class Void:
    """A call that has ended, and gave nothing."""

    outcome: str = "void"
    body: bytes = b""


class Waiting(NamedTuple):
    """A call whose answer is not known yet."""

    client: Leaving
    lane: Lane
    call: Asked
    is_again: bool
    """Whether it waited already for one that failed."""

    @property
    def cost(self) -> int:
        """What its client is charged meanwhile, in bytes."""
        return len(self.call.id) + ENTRY_BYTES


class Probe(Owner):
    """A connection that subscribes, unsubscribes and is closed."""

    def __init__(
        self, upstreams: Upstreams, tasks: Tasks, target: Target, lane: Lane, ask_again: Callable[[Waiting], None]
    ) -> None:
        self._upstreams = upstreams
        self._is_open = False
        self.outcome: Outcome | None = None
        self.is_over = False
        self.waiting: list[Waiting] = []
        self._lane = lane
        self._ask_again = ask_again
        self._session = upstreams.open(self, target, lane.call.protocol, ("calls",))
        self._invoke("1", lane.call.method)
        self._timeout = Delay(tasks, target.connect_timeout, self._give_up)

    def answer(self, one: Waiting) -> None:
        """Answer a client, once the outcome is known."""
        if self.outcome is not None:
            one.client.complete(one.call, self.outcome)
        elif one.client.budget.charge(one.cost):
            self.waiting.append(one)
        else:  # it has left all the same
            one.client.complete(one.call, Void())

    def _invoke(self, id: str, method: str) -> None:
        self._upstreams.send(self._session, self._lane.call._replace(method=method).record(id))

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands."""
        self._is_open = True

    def completed(self, event: Upstream) -> None:
        """The second call tells; it waits for the first, as a backend may deal with several at once."""
        if event.outcome == "error":
            relay_log.warning(
                "%s: what it answers to %s could not be learned", self._lane, self._lane.share.unsubscribe
            )
            self._fail(Void())
        elif event.id == "1":
            self._invoke("2", self._lane.share.unsubscribe or "")
            return
        else:
            self.outcome = event
            self.is_over = True
            for one in self._take_all():
                self._tell(one, event)
        self._upstreams.close(self._session)

    def closed(self, event: Upstream) -> None:
        """It is over; without an outcome those who wait are told that it could not be had."""
        self._timeout.call_off()
        self._fail()

    def fail(self) -> None:
        """Nothing is learned."""
        self._give_up()

    def _give_up(self) -> None:
        self._fail()
        self._upstreams.close(self._session)

    def _take_all(self) -> list[Waiting]:
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one.client.budget.release(one.cost)
        return waiting

    def _fail(self, outcome: Outcome | None = None) -> None:
        """It went wrong with these arguments: who left the same lane is told, the others are asked for once more."""
        self.is_over = True
        for one in self._take_all():
            if self._is_open and not one.is_again and one.lane.call != self._lane.call:
                self._ask_again(one._replace(is_again=True))
            else:
                self._tell(one, outcome)

    def _tell(self, one: Waiting, outcome: Outcome | None) -> None:
        with self._upstreams.faults.contained("relay.unsubscribe", "a client could not be answered"):
            if outcome is not None:
                one.client.complete(one.call, outcome)
            else:
                one.client.failed(one.call, NOT_ANSWERED if self._is_open else UNREACHABLE)


class Answers:
    """By share and protocol."""

    def __init__(self, upstreams: Upstreams, tasks: Tasks, target: Target) -> None:
        self._upstreams = upstreams
        self._tasks = tasks
        self._target = target
        self._probes: dict[tuple[str, str], Probe] = {}

    def answer(self, client: Leaving, lane: Lane, call: Asked) -> None:
        """Answer a client that has left a lane as the backend would have."""
        self._answer(Waiting(client, lane, call, is_again=False))

    def gone(self, client: Leaving) -> None:
        """A client is gone: its calls are for nobody."""
        for probe in self._probes.values():
            if probe.waiting:
                probe.waiting = [one for one in probe.waiting if one.client is not client]

    def _answer(self, one: Waiting) -> None:
        key = (one.lane.call.method, one.lane.call.protocol)
        probe = self._probes.get(key)
        if probe is None or (probe.is_over and probe.outcome is None):
            probe = self._probes[key] = Probe(self._upstreams, self._tasks, self._target, one.lane, self._answer)
        probe.answer(one)
