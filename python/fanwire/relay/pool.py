"""Pooled calls: methods whose answer is nobody's own go over a few shared connections. Not here: streams.

Each client counts its calls from 0, so they get numbers of the pool's own on their way out, and their old ones back.

A call at which the backend ends the connection must not take others' calls with it (``wire``), and which one it was
nobody says. So all that a lost connection leaves unanswered are made once more, one by one, each with the connection
to itself. One that loses it again is the one: it fails, and its client's others go over the client's own connection
from then on. A single one that was lost may be innocent as well: another may have been answered before the backend
ended the connection for it. That holds the others up, so none has the connection to itself for long, and only a few
that are slow: the rest go over their clients' own connections, and so does a slow one that is lost once more.

Nor must a call that the backend does not answer hold up those behind it, as ASP.NET Core deals with one at a time. All
of a client's go over one connection, so that it has no more than its share. One that has not answered its oldest call
for a while gets no more of them: where all do that, calls go over their clients' own connections. And no call has one
for longer than ``lanes.connect_timeout``, whether its client is still there or not: then the connection ends, that call
fails, and those beside it are made over their clients' own.

Nor does a call wait for its turn for longer than that. One that was lost, and waits for those that are made again
before it, fails. One that was not sent yet is made over its client's own connection.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple, Protocol

from fanwire._engine import Upstream
from fanwire._loop import ends_task
from fanwire.budget import ENTRY_BYTES
from fanwire.logs import name_of, relay_log
from fanwire.relay.driver import LaneContext
from fanwire.relay.shared import SharedCall
from fanwire.relay.timing import Delay
from fanwire.relay.upstreams import SessionHandler
from fanwire.relay.wire import ALONE_S, LOST, NO_TURN, NOT_ANSWERED, SLOW_MAX, UNREACHABLE, Asked, Caller, is_said
from fanwire.wording import INTERNAL_ERROR

AT_WORK_MAX = 8_192
"""Calls that one connection has and has not answered; more wait here. Half of what would end the session."""
HELD_UP_S = 1.0
"""How long the backend may have a call before no more are sent behind it."""
LOSSES_MAX = 3
"""How often a call is made again over a shared connection: after that, it is made over its client's own."""


class Pooling(Caller, Protocol):
    """Whose call it is."""

    is_convicted: bool
    """Whether a call of this client's ended the connection twice: then the pool makes no more of them."""

    def call_by_itself(self, call: Asked, record: bytes) -> None:
        """Make the call over the client's own connection."""

    def acknowledge(self) -> None:
        """Another message may come: a client waits for its calls as it would at the backend, and piles up none."""


@dataclass(slots=True, eq=False)
class Pooled:
    """A call until it has ended."""

    caller: Pooling
    asked: Asked
    call: SharedCall
    """As it goes upstream."""
    cost: int
    """What the client is charged until then, in bytes."""
    number: str = ""
    """Upstream, once it is there."""
    losses: int = 0
    """Connections that were lost while it was at work."""
    until: float = 0.0
    """When it has waited for its turn for long enough, by the monotonic clock; of those that wait."""


class Sent(NamedTuple):
    """What the backend has."""

    one: Pooled | None
    """None where the client has left: the answer is for nobody."""
    since: float
    """By the monotonic clock."""


class Member(SessionHandler):
    """One connection of a pool, opened with its first call and again after a loss."""

    def __init__(
        self,
        context: LaneContext,
        protocol: str,
        idle: float,
        ended: Callable[[Pooled], None],
    ) -> None:
        self._upstreams, self._timers, self._backend = context.upstreams, context.timers, context.backend
        self._protocol = protocol
        self._idle = idle
        self._ended = ended
        self._session: int | None = None
        # When the backend had shaken hands; before that it has no call.
        self._opened_at: float | None = None
        self._newest = 0
        # In the order in which they were sent.
        self._at_work: dict[str, Sent] = {}
        self._patience: Delay | None = None
        # Until the first of those that wait for their turn has waited long enough.
        self._turn_patience: Delay | None = None
        self._waiting: OrderedDict[Pooled, None] = OrderedDict()
        # What a lost connection left: they go first, and alone.
        self._suspects: OrderedDict[Pooled, None] = OrderedDict()
        # The one that has the connection to itself, and when that is over.
        self._alone: tuple[Pooled, Delay] | None = None
        # How many have used up their time since the last loss.
        self._slow = 0
        # The backend keeps no pace, or the session has ended and is about to say so.
        self._is_held = False

    @property
    def load(self) -> int:
        """How many wait for their end."""
        return len(self._at_work) + len(self._waiting) + len(self._suspects)

    def take(self, one: Pooled) -> None:
        """Make a call in its turn."""
        self._wait(one, self._waiting)
        self._go_on()

    def abandon(self, one: Pooled) -> None:
        """Its client has left."""
        if one in self._waiting or one in self._suspects:
            self._waiting.pop(one, None)
            self._suspects.pop(one, None)
        else:
            self._at_work[one.number] = self._at_work[one.number]._replace(one=None)
            if self._alone is not None and self._alone[0] is one:
                self._end_alone()
                self._go_on()

    @property
    def is_held_up(self) -> bool:
        """Whether what is sent now would wait behind a call that the backend does not answer."""
        return self._oldest >= HELD_UP_S

    @property
    def _oldest(self) -> float:
        """Seconds that the backend has had the first of its calls."""
        if not self._at_work or self._opened_at is None:
            return 0.0
        return self._timers.now() - max(self._opened_at, next(iter(self._at_work.values())).since)

    def _be_patient(self) -> None:
        if self._patience is None and self._at_work and self._opened_at is not None:
            wait = max(0.0, self._backend.connect_timeout - self._oldest)
            self._patience = self._timers.later(wait, self._lose_patience, self.fail)

    def _lose_patience(self) -> None:
        self._patience = None
        if self._oldest >= self._backend.connect_timeout:
            self._renew()
        self._be_patient()

    def _wait(self, one: Pooled, queue: OrderedDict[Pooled, None]) -> None:
        """Have it wait for its turn, behind the others, and not for ever."""
        one.until = self._timers.now() + self._backend.connect_timeout
        queue[one] = None
        self._await_turns()

    def _await_turns(self) -> None:
        firsts = [next(iter(queue)).until for queue in (self._suspects, self._waiting) if queue]
        if self._turn_patience is None and firsts:
            wait = max(0.0, min(firsts) - self._timers.now())
            self._turn_patience = self._timers.later(wait, self._lose_turns, self.fail)

    def _lose_turns(self) -> None:
        """Those that have waited for too long wait no more."""
        self._turn_patience = None
        lost, unsent = self._late(self._suspects), self._late(self._waiting)
        if lost:
            text = "%d calls of a lost pooled connection are given up: they did not get their turn within %g s"
            relay_log.warning(text, len(lost), self._backend.connect_timeout)
        self._fail(lost, NO_TURN)
        for one in unsent:
            self._make_apart(one)
        self._await_turns()

    def _late(self, queue: OrderedDict[Pooled, None]) -> list[Pooled]:
        """Take those whose time is up out of a queue, in which the first wait for the longest."""
        now = self._timers.now()
        late = list(takewhile(lambda one: one.until <= now, queue))
        for one in late:
            del queue[one]
        return late

    def _renew(self) -> None:
        """The first call is not answered: it has the connection no longer, and those beside it get others."""
        assert self._session is not None  # there are calls at work
        first = next(iter(self._at_work.values())).one
        self._upstreams.close(self._session)
        self._end_alone()
        self._forget_session()
        left = self._take_at_work()
        timeout = self._backend.connect_timeout
        relay_log.warning("a pooled connection is ended: a call was not answered within %g s", timeout)
        if first is not None:
            left.remove(first)
            first.caller.is_convicted = True
            text = "client %s: %r was not answered: its calls are not pooled any more"
            relay_log.warning(text, name_of(first.caller.id), first.asked.target)
            self._fail([first], NOT_ANSWERED)
        for one in left:
            self._make_apart(one)
        self._go_on()

    def _forget_session(self) -> None:
        self._session, self._opened_at, self._is_held, self._slow = None, None, False, 0

    def _take_at_work(self) -> list[Pooled]:
        """What the backend has and somebody waits for; the backend has it no more."""
        at_work, self._at_work = self._at_work, {}
        return [sent.one for sent in at_work.values() if sent.one is not None]

    def _go_on(self) -> None:
        while not (self._is_held or self._alone is not None):
            if self._suspects:
                one, _ = self._suspects.popitem(last=False)
                if self._try(one):
                    self._alone = one, self._timers.later(ALONE_S, self._let_others)
            elif self._waiting and len(self._at_work) < AT_WORK_MAX:
                self._try(self._waiting.popitem(last=False)[0])
            else:
                return

    def _end_alone(self) -> bool:
        """Nobody has the connection to itself any more; whether somebody had."""
        if self._alone is None:
            return False
        self._alone[1].call_off()
        self._alone = None
        return True

    def _let_others(self) -> None:
        """A call takes its time: the others go on beside it, and should one of them lose it, it is not theirs again."""
        assert self._alone is not None  # this is its delay
        self._alone[0].losses = LOSSES_MAX
        self._alone = None
        self._slow += 1
        if self._slow >= SLOW_MAX:
            suspects, self._suspects = list(self._suspects), OrderedDict()
            for one in suspects:
                self._make_apart(one)
        self._go_on()

    def _make_apart(self, one: Pooled) -> None:
        """Over its client's own connection."""
        with self._upstreams.faults.contained("relay.pool", "a pooled call could not be made by itself"):
            self._ended(one)
            one.caller.call_by_itself(one.asked, one.call.record(one.asked.id))

    def _try(self, one: Pooled) -> bool:
        """``_send``; what goes wrong is this call's alone."""
        try:
            return self._send(one)
        except BaseException as error:
            if ends_task(error):
                raise
            self._upstreams.faults.note(
                "relay.pool", error, "a pooled call of client %s failed", name_of(one.caller.id)
            )
            self._fail([one], INTERNAL_ERROR)
            return False

    def _send(self, one: Pooled) -> bool:
        """Have the backend get it; False where it does not."""
        if one.caller.is_convicted:
            self._ended(one)
            one.caller.call_by_itself(one.asked, one.call.record(one.asked.id))
            return False
        if self._session is None:
            self._session = self._upstreams.open(self, self._backend, self._protocol, ("calls",), idle=self._idle)
        self._newest += 1
        one.number = str(self._newest)
        waiting = self._upstreams.send(self._session, one.call.record(one.number))
        if waiting is None:
            self._is_held = True
            self._suspects[one] = None
            self._suspects.move_to_end(one, last=False)
            return False
        self._at_work[one.number] = Sent(one, self._timers.now())
        self._be_patient()
        self._is_held = waiting > self._backend.queue_bytes_max
        return True

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands, and gets what was sent."""
        if event.session == self._session:
            self._opened_at = self._timers.now()
            self._be_patient()

    def completed(self, event: Upstream) -> None:
        """A call has ended."""
        if event.id not in self._at_work:
            return
        one = self._at_work.pop(event.id).one
        if self._alone is not None and self._alone[0].number == event.id:
            self._end_alone()
        if one is not None:
            one.caller.complete(one.asked, event)
            self._ended(one)
        self._go_on()

    def happened(self, event: Upstream) -> None:
        """It is idle, or takes more again."""
        if event.session != self._session:
            return
        if event.kind == "drained":
            self._is_held = False
            self._go_on()
        elif event.kind == "idle" and not self.load:
            self._upstreams.close(self._session)
            self._forget_session()

    def closed(self, event: Upstream) -> None:
        """The connection is gone, and what waited with it."""
        if event.session != self._session:
            return
        self._forget_session()
        was_single = len(self._at_work) == 1  # who has left counts: the call may have been the one
        was_alone = self._end_alone() and was_single
        is_guilty = was_alone or (was_single and is_said(event))
        left = self._take_at_work()
        if not event.was_open:
            left += [*self._suspects, *self._waiting]
            self._suspects.clear()
            self._waiting.clear()
            self._fail(left, UNREACHABLE)
        elif is_guilty:
            for one in left:
                one.caller.is_convicted |= was_alone
                if was_alone:
                    relay_log.warning(
                        "client %s: the backend ends the connection at a call of %r: its calls are not pooled any more",
                        name_of(one.caller.id),
                        one.asked.target,
                    )
            self._fail(left, LOST)
        elif left:
            relay_log.warning("a pooled connection is lost, its %d calls are made again: %s", len(left), event.text)
            for one in left:
                one.losses += 1
                if one.losses > LOSSES_MAX:  # it is slow, or it was never alone with what was lost
                    self._make_apart(one)
                else:
                    self._wait(one, self._suspects)
        self._go_on()

    def fail(self) -> None:
        """The connection is closed, and what waits for it is told."""
        session = self._session
        self._forget_session()
        self._end_alone()
        left = [*self._take_at_work(), *self._suspects, *self._waiting]
        self._suspects.clear()
        self._waiting.clear()
        self._fail(left, INTERNAL_ERROR)
        if session is not None:
            self._upstreams.close(session)

    def _fail(self, calls: list[Pooled], why: str) -> None:
        for one in calls:
            with self._upstreams.faults.contained("relay.pool", "a client could not be told that its call has failed"):
                one.caller.failed(one.asked, why)
                self._ended(one)


class Pool:
    """The connections for one hub protocol."""

    def __init__(self, context: LaneContext, protocol: str, size: int, idle: float) -> None:
        self._members = [Member(context, protocol, idle, self._ended) for _ in range(size)]
        # What has not ended, by its client.
        self._calls: dict[int, dict[Pooled, Member]] = {}

    def call(self, caller: Pooling, asked: Asked, call: SharedCall) -> bool:
        """Make a client's call over the connection with the fewest that wait; it is acknowledged when it has ended.

        False where there is none for it: it would wait for a call that the backend does not answer. Raises LimitReached
        where the client has no room left for it.
        """
        member = self._member_for(caller)
        if member is None:
            return False
        cost = len(call.arguments) + len(asked.id) + ENTRY_BYTES
        caller.budget.require(cost)
        one = Pooled(caller, asked, call, cost)
        self._calls.setdefault(caller.id, {})[one] = member
        member.take(one)
        return True

    def _member_for(self, caller: Pooling) -> Member | None:
        """The one that has calls of this client's, or that with the fewest; one client holds up no more than one."""
        its_own = next(iter(self._calls.get(caller.id, {}).values()), None)
        members = self._members if its_own is None else [its_own]
        return min((one for one in members if not one.is_held_up), key=lambda one: one.load, default=None)

    def gone(self, caller: Pooling) -> None:
        """A client has left: nothing of it is kept, but that the backend still has a call of that number."""
        for one, member in self._calls.pop(caller.id, {}).items():
            member.abandon(one)

    def _ended(self, one: Pooled) -> None:
        calls = self._calls.get(one.caller.id, {})
        if calls.pop(one, None) is not None:
            one.caller.budget.release(one.cost)
            one.caller.acknowledge()
            if not calls:
                del self._calls[one.caller.id]
