"""What a backend answers to those who unsubscribe, learned once: a lane does not while others watch. Not here: lanes.

The first time that a client leaves, a connection of its own subscribes and unsubscribes as the client did. From then on
clients of this share and protocol are answered what the second call gave, whatever their arguments. Where that goes
wrong it is the fault of that call alone (``wire``): who made it is told, and the next one's arguments are tried. One
that takes its time has others tried beside it. Whose own call was not tried in time is answered without a result, as it
has left all the same.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fanwire._engine import Upstream
from fanwire._loop import ends_task
from fanwire.logs import relay_log
from fanwire.relay.driver import LaneContext, Pending
from fanwire.relay.lane import CallLane
from fanwire.relay.shared import SharedCall
from fanwire.relay.timing import Delay
from fanwire.relay.turns import Turns
from fanwire.relay.upstreams import SessionHandler
from fanwire.relay.wire import ALONE_S, LOST, NOT_ANSWERED, SLOW_MAX, UNREACHABLE, Asked, Caller, Outcome, is_said
from fanwire.wording import INTERNAL_ERROR


@dataclass(frozen=True, slots=True)
class Void:
    """A call that has ended, and gave nothing."""

    outcome: str = "void"
    body: bytes = b""


@dataclass(slots=True, eq=False)
class PendingUnsubscribe(Pending[Caller]):
    """A call whose answer is not known yet."""

    lane: CallLane
    is_overdue: bool = False
    """It has waited for long enough, and is tried."""


class Probe(SessionHandler):
    """A connection that subscribes and unsubscribes as who left this lane did, and carries nothing else."""

    def __init__(self, learned: "LearnedAnswer", client: Caller, lane: CallLane) -> None:
        self.lane = lane
        self.client: Caller | None = client
        """Whose call it is, while that is there."""
        self.is_open = False
        self.is_slow = False
        """It has had its time: others need not wait for it."""
        self._learned = learned
        self._session = learned.upstreams.open(self, learned.backend, lane.call.protocol, ("calls",))
        self._invoke("1", lane.call.method)
        self._timeout = learned.timers.later(learned.backend.connect_timeout, self.fail)
        self._alone: Delay | None = None

    def is_for(self, one: PendingUnsubscribe) -> bool:
        """Whether it is this one's call that is tried, or one of this one's client, which has no two at a time."""
        return one.client is self.client or one.lane.call == self.lane.call

    def _invoke(self, id: str, method: str) -> None:
        self._learned.upstreams.send(self._session, self.lane.call._replace(method=method).record(id))

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands."""
        self.is_open = True
        self._alone = self._learned.timers.later(ALONE_S, self._let_others)

    def _let_others(self) -> None:
        self.is_slow = True
        self._learned.slowed(self)

    def completed(self, event: Upstream) -> None:
        """The second call tells; it waits for the first, as a backend may deal with several at once."""
        if event.outcome == "error":
            relay_log.warning("%s: what it answers to %s could not be learned", self.lane, self.lane.share.unsubscribe)
            self._fail(Void())
        elif event.id == "1":
            self._invoke("2", self.lane.share.unsubscribe or "")
        else:
            self.close()
            self._learned.settled(self, event)

    def closed(self, event: Upstream) -> None:
        """It is over without an outcome."""
        self._call_off()
        self._learned.failed(self, LOST if self.is_open else UNREACHABLE, is_guilty=is_said(event))

    def fail(self) -> None:
        """It is given up."""
        self._fail(NOT_ANSWERED if self.is_open else UNREACHABLE)

    def _fail(self, outcome: Outcome | str) -> None:
        self.close()
        self._learned.failed(self, outcome, is_guilty=True)

    def close(self) -> None:
        """End it: what it still says is for nobody."""
        self._call_off()
        self._learned.upstreams.close(self._session)

    def _call_off(self) -> None:
        self._timeout.call_off()
        if self._alone is not None:
            self._alone.call_off()


class LearnedAnswer:
    """What clients of one share and protocol are answered: asked for one by one until there is an answer.

    What a client does costs no look at the others: only what a probe tells has it looked for whose turn is next.
    """

    def __init__(self, context: LaneContext, tell: Callable[[Outcome], object] = lambda outcome: None) -> None:
        self.upstreams, self.timers, self.backend = context.upstreams, context.timers, context.backend
        # Has other workers know it.
        self._tell_workers = tell
        self._outcome: Outcome | None = None
        # In the order in which they came, and so of their time; and those whose time is up while theirs is tried.
        self._waiting: Turns[PendingUnsubscribe] = Turns()
        self._overdue: Turns[PendingUnsubscribe] = Turns()
        # Whose calls are tried first, and who made which.
        self._order: OrderedDict[Caller, None] = OrderedDict()
        self._by_call: dict[SharedCall, OrderedDict[PendingUnsubscribe, None]] = {}
        self._probes: list[Probe] = []
        # Calls at which a connection was lost, and the backend did not say why.
        self._suspects: set[SharedCall] = set()
        self._patience: Delay | None = None

    def answer(self, client: Caller, lane: CallLane, call: Asked) -> None:
        """Answer a client that has left a lane, once the outcome is known."""
        one = PendingUnsubscribe(client, call, self.timers.now() + self.backend.connect_timeout, lane)
        if self._outcome is not None:
            client.complete(call, self._outcome)
        elif one.cost > client.budget.left:  # it has left all the same
            client.complete(call, Void())
        else:
            self._waiting.add(one)
            self._order.setdefault(client)
            self._by_call.setdefault(lane.call, OrderedDict())[one] = None
            if self._has_turn and not any(probe.is_for(one) for probe in self._probes):
                self._try(one)  # none of the others could be, or it would be already
            self._be_patient()

    def gone(self, client: Caller) -> None:
        """A client is gone: its calls are for nobody."""
        for one in self._of(client):
            self._forget(one)
        is_free = False
        for probe in [probe for probe in self._probes if probe.client is client]:
            probe.client = None
            if probe.lane.call not in self._by_call:  # nor does anybody else wait for what it says
                self._probes.remove(probe)
                probe.close()
                is_free = True
        if is_free:
            self._go_on()
        else:
            self._be_patient()

    def _of(self, client: Caller) -> list[PendingUnsubscribe]:
        return self._overdue.of(client) + self._waiting.of(client)

    def _forget(self, one: PendingUnsubscribe) -> None:
        """It waits no longer."""
        (self._overdue if one.is_overdue else self._waiting).remove(one)
        if one.client not in self._waiting and one.client not in self._overdue:
            self._order.pop(one.client)
        call = one.lane.call
        del self._by_call[call][one]
        if not self._by_call[call]:
            del self._by_call[call]
            self._suspects.discard(call)

    @property
    def _has_turn(self) -> bool:
        """Whether one more may be tried: none is that may still answer for all."""
        return len(self._probes) < SLOW_MAX and all(probe.is_slow for probe in self._probes)

    def _next(self) -> PendingUnsubscribe | None:
        tried = {probe.lane.call for probe in self._probes}
        trying = [probe.client for probe in self._probes]
        clients = (client for client in self._order if client not in trying)
        return next((one for client in clients for one in self._of(client) if one.lane.call not in tried), None)

    def _go_on(self) -> None:
        """Have the next one tried, unless one is that may still answer for all."""
        while self._has_turn and (one := self._next()) is not None:
            self._try(one)
        self._be_patient()

    def _try(self, one: PendingUnsubscribe) -> None:
        try:
            self._probes.append(Probe(self, one.client, one.lane))
        except BaseException as error:  # it is this call's trouble alone
            if ends_task(error):
                raise
            self.upstreams.faults.note("relay.unsubscribe", error, "%s: its backend could not be asked", one.lane)
            self._tell_of(one.lane.call, INTERNAL_ERROR)

    # What the probes say

    def slowed(self, probe: Probe) -> None:
        """A call takes its time: another one is tried beside it, of another client if there is one."""
        self._put_back(probe.lane.call)
        self._go_on()

    def settled(self, probe: Probe, outcome: Outcome) -> None:
        """The answer is known."""
        self._probes.remove(probe)
        self.learn(outcome)
        self._tell_workers(outcome)

    @property
    def outcome(self) -> Outcome | None:
        """What is known."""
        return self._outcome

    def learn(self, outcome: Outcome) -> None:
        """This is the answer."""
        self._outcome = outcome
        probes, self._probes = self._probes, []
        for other in probes:
            other.close()
        self._tell_all(outcome)

    def failed(self, probe: Probe, outcome: Outcome | str, *, is_guilty: bool) -> None:
        """Nothing is learned of this one."""
        if probe not in self._probes:  # it was given up
            return
        self._probes.remove(probe)
        call = probe.lane.call
        if not probe.is_open:  # so it is for all
            self._tell_all(outcome)
        elif is_guilty or call in self._suspects:
            if outcome == LOST:
                relay_log.warning("%s: the backend ended the connection as it was left", probe.lane)
            self._put_back(call)
            self._tell_of(call, outcome)
        else:
            self._suspects.add(call)
            self._put_back(call)
            self._tell([one for one in self._by_call.get(call, ()) if one.is_overdue], Void())
        self._go_on()

    def _put_back(self, call: SharedCall) -> None:
        """Whoever made this call comes last, with all else that it has called: others are not to wait for that."""
        for one in self._by_call.get(call, ()):
            self._order.move_to_end(one.client)

    def _tell_of(self, call: SharedCall, outcome: Outcome | str) -> None:
        """Answer those who made this call."""
        self._tell(list(self._by_call.get(call, ())), outcome)

    def _tell_all(self, outcome: Outcome | str) -> None:
        self._tell([*self._overdue, *self._waiting], outcome)

    def _tell(self, those: list[PendingUnsubscribe], outcome: Outcome | str) -> None:
        for one in those:
            self._forget(one)
        self._be_patient()
        for one in those:
            with self.upstreams.faults.contained("relay.unsubscribe", "a client could not be answered"):
                if isinstance(outcome, str):
                    one.client.failed(one.call, outcome)
                else:
                    one.client.complete(one.call, outcome)

    # Time

    def _be_patient(self) -> None:
        """Have those whose turn does not come answered in time, whatever becomes of the others' calls."""
        if not self._waiting and self._patience is not None:
            self._patience.call_off()
            self._patience = None
        elif self._waiting and self._patience is None:
            wait = max(0.0, self._waiting.first.until - self.timers.now())
            self._patience = self.timers.later(wait, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience, now = None, self.timers.now()
        tried = {probe.lane.call for probe in self._probes}
        untried = []
        while self._waiting and self._waiting.first.until <= now:
            one = self._waiting.take()
            self._overdue.add(one)
            one.is_overdue = True
            if one.lane.call not in tried:  # who made one that is tried hears what becomes of that
                untried.append(one)
        self._tell(untried, Void())


class LearnedAnswers:
    """What clients are answered, of each share and protocol."""

    def __init__(
        self,
        context: LaneContext,
        tell: Callable[[str, str, Outcome], object] = lambda method, protocol, outcome: None,
    ) -> None:
        self._context, self._tell = context, tell
        self._by_kind: dict[tuple[str, str], LearnedAnswer] = {}

    def answer(self, client: Caller, lane: CallLane, call: Asked) -> None:
        """Answer a client that has left a lane as the backend would have."""
        learned = self._of(lane.call.method, lane.call.protocol)
        learned.answer(client, lane, call)

    def learn(self, method: str, protocol: str, outcome: Outcome) -> None:
        """Another worker has learned it."""
        learned = self._of(method, protocol)
        if learned.outcome is None:
            learned.learn(outcome)

    @property
    def known(self) -> list[tuple[str, str, Outcome]]:
        """What is known of each."""
        found = ((*key, learned.outcome) for key, learned in self._by_kind.items())
        return [(method, protocol, outcome) for method, protocol, outcome in found if outcome is not None]

    def _of(self, method: str, protocol: str) -> LearnedAnswer:
        key = method, protocol
        learned = self._by_kind.get(key)
        if learned is None:
            learned = self._by_kind[key] = LearnedAnswer(self._context, partial(self._tell, method, protocol))
        return learned

    def gone(self, client: Caller) -> None:
        """A client is gone: its calls are for nobody."""
        for learned in self._by_kind.values():
            learned.gone(client)
