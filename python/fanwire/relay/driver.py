"""A lane: one connection to the backend for everyone who watches the same thing. It does what its ``machine`` says.

Here are its timers, its session and its log in the engine; what arrives goes from the session into that log and from
there to the clients, without coming by here.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from time import time
from typing import Any, Generic, Protocol, TypeVar

from fanwire._engine import Engine, Upstream
from fanwire._loop import ends_task
from fanwire.budget import ENTRY_BYTES
from fanwire.errors import LimitReached
from fanwire.logs import name_of, relay_log
from fanwire.relay.config import Lanes
from fanwire.relay.lingering import Lingering
from fanwire.relay.machine import Act, Event, Machine, Phase, Rest, State
from fanwire.relay.mirror import OVERLAP_S, Mirror, Part, ToldOutcome
from fanwire.relay.stats import LaneStats
from fanwire.relay.timing import Backoff, Delay, Timers
from fanwire.relay.turns import Charged, Turns
from fanwire.relay.upstreams import Backend, SessionHandler, Upstreams
from fanwire.relay.wire import NO_CALL, NOT_ANSWERED, UNREACHABLE, Asked, Lifetime, Wire
from fanwire.timings import Timings
from fanwire.wording import INTERNAL_ERROR, brief

ENDS = (Event.LOST, Event.BLAMED, Event.BARRED)
"""What ends a lane's connection."""
MIRRORED = "mirrored"
"""The state of a lane that another worker holds, as stats show it."""


class Watcher(Charged, Protocol):
    """A client, as a lane sees it."""

    id: int


C = TypeVar("C")
W = TypeVar("W", bound=Watcher)


@dataclass(frozen=True, slots=True)
class LaneContext:
    """What all lanes of a relay have in common."""

    upstreams: Upstreams
    timers: Timers
    backend: Backend
    linger: float
    lanes: Lanes
    lingering: Lingering
    """Those that nobody watches."""
    gaps: Timings
    """How long they were down, of those that are live again."""

    @property
    def engine(self) -> Engine:
        """What has the lanes' logs."""
        return self.upstreams.engine

    @property
    def asked_bytes_max(self) -> int:
        """What is kept for those who wait for the backend's answer: its largest message, and as much as else."""
        return self.backend.record_bytes_max + self.lanes.snapshot_bytes_max


@dataclass(slots=True, eq=False)
class Pending(Generic[C]):
    """A call that waits."""

    client: C
    call: Asked
    until: float
    """When it has waited for long enough, by the monotonic clock."""

    @property
    def cost(self) -> int:
        """What its client is charged meanwhile, in bytes."""
        return len(self.call.id) + ENTRY_BYTES


@dataclass(slots=True, eq=False)
class PendingWish(Pending[W]):
    """A wish whose turn has not come."""

    is_leaving: bool = False


class Lane(SessionHandler, Generic[W]):
    """What lanes of both kinds do; see the module."""

    __slots__ = (
        *("_backoff", "_is_gap_counted", "_last", "_live_at", "_lived", "_lost_at", "_machine", "_on_end", "_rest"),
        *("_session", "_span", "_timer", "_waiting", "_wire", "_yielded_at"),
        *("alone", "context", "gap_since", "gaps", "key", "name", "part", "watchers", "why"),
    )

    def __init__(
        self,
        name: str,
        wire: Wire,
        context: LaneContext,
        on_end: Callable[["Lane[Any]"], None],
        part: Part | None = None,
    ) -> None:
        self.context = context
        self.name = name
        """Of its log in the engine."""
        self.alone: tuple[Any, ...] = (self,)
        """What those watch who watch nothing else: one for all of them; empty once it is over."""
        self.key: Any = None
        """Under which its relay has it, once it has."""
        self.part = part
        """In what several workers share, if there are any."""
        self.watchers: dict[W, None] = {}
        """In the order in which they came."""
        self.why = ""
        """Why it is down, or has failed."""
        self.gap_since: float | None = None
        """Wall clock at the begin of the gap, while it is down."""
        self.gaps = 0
        self._wire = wire
        self._on_end = on_end
        self._machine = Machine()
        self._waiting: Turns[PendingWish[W]] = Turns()
        self._session: int | None = None
        # When the backend agreed, by the monotonic clock; None while it has not.
        self._live_at: float | None = None
        # How long that was ago when the connection ended.
        self._lived: float | None = None
        self._rest = Rest.NOTHING
        self._timer: Delay | None = None
        self._backoff = Backoff(context.lanes.backoff_min, context.lanes.backoff_max)
        # The client that came or left last: what it leaves is its own doing.
        self._last = 0
        # Whether a gap was this worker's to count: it is not where another holds it.
        self._is_gap_counted = True
        # Since when nothing has come, by the monotonic clock, when it went down.
        self._lost_at: float | None = None
        # When it gave way to another worker that has held it for longer.
        self._yielded_at: float | None = None
        # Of a connection that is begun, where the hub is instrumented, until it is live or lost.
        self._span: Any = None
        if part is not None:
            part.belongs_to(self, name)
        context.lingering.needed(self)
        try:
            self._session = self._connect()
        except BaseException:
            self.end()
            raise

    def __str__(self) -> str:
        return f"lane {self.name} ({self._wire.method} {self._wire.shown})"

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._machine.state

    @property
    def shown_state(self) -> str:
        """The same in a word: what another worker holds counts there."""
        part = self.part
        return self._machine.word if part is None or part.holder is None else MIRRORED

    def stats(self) -> LaneStats:
        """How it stands, now."""
        part = self.part
        return LaneStats(
            method=self._wire.method,
            arguments=self._wire.shown,
            protocol=self._wire.protocol,
            state=self.shown_state,
            worker=None if part is None else part.sharing.number if part.holder is None else part.holder,
            clients=len(self.watchers),
            gap_since=self.gap_since,
            gaps=self.gaps,
            why=self.why,
        )

    @property
    def cost(self) -> int:
        """Bytes of what it watches, and some."""
        return ENTRY_BYTES + self._wire.extra_bytes

    # What the two kinds do each in its way

    def _open(self) -> int:
        """Begin a session."""
        raise NotImplementedError

    def _live_said(self) -> tuple[Any, ...]:
        """What mirrors are told of the backend's agreement."""
        raise NotImplementedError

    def want(self, mirror: Mirror, lost_s: float | None = None) -> None:
        """Have another worker mirror it."""
        raise NotImplementedError

    def age(self) -> float:
        """Seconds since the backend's answer."""
        return 0.0

    def agreed_there(self, *said: Any) -> None:
        """See ``Shared``."""
        raise NotImplementedError

    def refused_there(self, outcome: str | None, body: bytes, status: int | None) -> None:
        """See ``Shared``."""
        raise NotImplementedError

    def given_up_there(self, why: str) -> None:
        """See ``Shared``."""
        raise NotImplementedError

    def noted_there(self, what: str, *said: Any) -> None:
        """See ``Shared``."""

    @property
    def underway(self) -> int:
        """How many the engine has let join of whom it is yet to tell."""
        return 0

    def _ask(self) -> None:
        """Ask the backend for what the lane is to carry."""

    def _forget_asking(self) -> None:
        """No answer is awaited any more."""

    def _welcome(self, one: PendingWish[W], cause: Upstream | ToldOutcome | None) -> None:
        """Have it watch, and tell it so."""
        raise NotImplementedError

    def _refuse(self, one: PendingWish[W], cause: Upstream | ToldOutcome | None) -> None:
        """Tell it that the backend has refused."""
        raise NotImplementedError

    def _give_up(self, one: PendingWish[W], why: str) -> None:
        """Tell it that its wish could not be done."""
        raise NotImplementedError

    def _blame(self) -> None:
        """Tell the first that the backend has ended the connection at its wish: the others' is tried again."""
        raise NotImplementedError

    def _send_away(self, client: W) -> None:
        """Have one that watches go, and come back."""
        raise NotImplementedError

    # Clients

    def gone(self, client: W) -> None:
        """The client has left altogether: the engine knows, its wishes are for nobody."""
        self._last = client.id
        self._waiting.drop(client)
        self.watchers.pop(client, None)
        self._settle()

    def has(self, client: W) -> bool:
        """Whether the client watches, or waits for that."""
        return client in self.watchers or client in self._waiting

    def _wait(self, client: W, call: Asked = NO_CALL, *, is_leaving: bool = False, patience_s: float = inf) -> None:
        """Have it wait. Raises LimitReached where the client has no room left for that: then nothing has changed."""
        self._last = client.id
        try:
            self._waiting.add(PendingWish(client, call, self.context.timers.now() + patience_s, is_leaving))
        finally:
            self._settle()

    def _join(
        self, client: W, *, is_again: bool = False, newest: tuple[int | None, float | None] = (None, None)
    ) -> bool:
        """Subscribe it, from what is kept on; False when that is lost, or over the bounds: then nothing has changed."""
        if isinstance(client, Mirror):
            return client.part.join(client, newest, is_late=False)
        if not self.context.engine.join_lane(client.id, self.name, is_again, *newest):
            return False
        self.watchers[client] = None
        return True

    def _join_late(self, client: W) -> None:
        """Subscribe it from here on."""
        if isinstance(client, Mirror):
            client.part.join(client, is_late=True)
        elif client not in self.watchers:
            relay_log.warning("%s: more came before the answer than is kept: a late joiner starts live", self)
            self.context.engine.join_live(client.id, self.name)
            self.watchers[client] = None

    def _let_go(self, client: W) -> None:
        self._last = client.id
        if client in self.watchers:
            del self.watchers[client]
            self.context.engine.leave_lane(client.id, self.name)

    # Its life

    def _connect(self) -> int | None:
        """Begin a session; none where another worker holds the lane, who is asked for it."""
        if self.part is not None:
            is_missed = bool(self.watchers or self.underway) and self._lost_at is not None
            lost_s = self.context.timers.now() - (self._lost_at or 0.0) if is_missed else None
            if self.part.follow(self._last, lost_s):
                return None
            self.gaps += self._machine.is_down and not self._is_gap_counted
            self._is_gap_counted = True
        tracing = self.context.upstreams.tracing
        if tracing is not None:
            self._span = tracing.lane_begins(self.name, self._wire.method)
        return self._open()

    def _end_span(self, why: str = "") -> tuple[str, str] | None:
        """The connection has led to something, or to nothing. Gives trace and span, where they are recorded."""
        (span, self._span), tracing = (self._span, None), self.context.upstreams.tracing
        return None if span is None or tracing is None else tracing.lane_ends(span, why)

    @property
    def is_mirrored_here(self) -> bool:
        """Whether another worker holds it, or is asked to."""
        return self.part is not None and self.part.holder is not None

    @property
    def _gravity(self) -> int:
        """How a gap is logged: who holds the lane warns of it, and not each worker that mirrors it."""
        return logging.WARNING if self._is_gap_counted else logging.DEBUG

    @property
    def _is_forsaken(self) -> bool:
        """Whether nobody watches, or waits, here or in other workers."""
        is_mirrored = self.part is not None and self.part.mirrors
        return not (self.watchers or self._waiting or self.underway or is_mirrored)

    def _step(self, event: Event, cause: Upstream | ToldOutcome | None = None) -> None:
        """Do what is to be done when this happens."""
        acts = self._machine.take(event)
        is_over = False
        if self._span is not None and event in ENDS:
            self._end_span(self.why or event.name.lower())
        if not self._machine.is_asking:
            self._forget_asking()
        for act in acts:
            match act:
                case Act.CONNECT:
                    self._session = self._connect()
                case Act.ASK:
                    self._ask()
                case Act.HANG_UP:
                    if self._session is not None:
                        self.context.upstreams.close(self._session)
                    else:  # another worker has hung up
                        is_over = True
                case Act.GO_LIVE:
                    self._go_live()
                case Act.GO_DOWN:
                    self.gaps += self._is_gap_counted
                    now, yielded_at, self._yielded_at = self.context.timers.now(), self._yielded_at, None
                    self.gap_since = time()
                    self._lost_at = now if yielded_at is None else min(now, yielded_at + OVERLAP_S)
                    if self.part is not None:
                        self.part.tell("down", self.why)
                    relay_log.log(self._gravity, "%s is down: %s", self, self.why)
                case Act.ASK_NO_MORE:
                    self._ask_no_more()
                case Act.SUSPECT:
                    self._suspect()
                case Act.WELCOME:
                    self._welcome_all(cause)
                case Act.REFUSE:
                    self._tell_all(partial(self._refuse, cause=cause))
                case Act.GIVE_UP:
                    self._give_up_all()
                case Act.BLAME:
                    self._blame()
        if is_over:
            self._step(Event.LOST)
        else:
            self._settle()

    def _ask_no_more(self) -> None:
        """Newcomers are given what there is."""

    def _suspect(self) -> None:
        """That the backend ends connections on which it is asked twice."""

    def _go_live(self) -> None:
        self._live_at = self.context.timers.now()
        trace = self._end_span()
        if self.part is not None:
            self.part.tell("live", *self._live_said())
        if self.gap_since is not None:
            since, until = self.gap_since, time()
            text = "%s is live again; a gap of %.1f s, because %s"
            relay_log.log(self._gravity, text, self, until - since, self.why)
            self.gap_since = None
            if self._is_gap_counted and self._lost_at is not None:
                self.context.gaps.add(self._live_at - self._lost_at, trace)
            lanes = self.context.lanes
            if lanes.on_gap == "message":
                self.context.engine.publish_to_lane(self.name, self._wire.told_of_gap(since, until), lanes.gap_target)
            elif lanes.on_gap == "close":
                for client in self.watchers:
                    self.context.upstreams.endings.close(client.id, 1012, "")
        self.why = ""

    def _welcome_all(self, cause: Upstream | ToldOutcome | None) -> None:
        while self._waiting:
            one = self._waiting.take()
            try:
                self._part(one) if one.is_leaving else self._welcome(one, cause)
            except BaseException as error:  # such as channels_max: it is one client's, and the others are answered
                if ends_task(error):
                    raise
                is_told = isinstance(error, LimitReached)
                if not is_told:
                    text = "client %s could not join %s"
                    self.context.upstreams.faults.note("relay.join", error, text, name_of(one.client.id), self)
                self._tell(one, partial(self._give_up, why=str(error) if is_told else INTERNAL_ERROR))

    def _part(self, one: PendingWish[W]) -> None:
        """Let it go, as it wished."""
        self._let_go(one.client)

    def _tell(self, one: PendingWish[W], tell: Callable[[PendingWish[W]], None]) -> None:
        """Tell it, or let it go if it wished to leave: what goes wrong with that is nobody else's."""
        faults = self.context.upstreams.faults
        with faults.contained("relay.lane", "client %s of %s could not be told", name_of(one.client.id), self):
            self._part(one) if one.is_leaving else tell(one)

    def _tell_all(self, tell: Callable[[PendingWish[W]], None], until: float = inf) -> int:
        """Tell those whose time is up, who wait in its order; gives how many wished to stay."""
        told = 0
        while self._waiting and self._waiting.first.until <= until:
            one = self._waiting.take()
            told += not one.is_leaving
            self._tell(one, tell)
        return told

    def _give_up_all(self, until: float = inf) -> None:
        why = UNREACHABLE if self._machine.phase in (Phase.OPENING, Phase.PAUSED) else NOT_ANSWERED
        count = self._tell_all(partial(self._give_up, why=why), until)
        if count:
            relay_log.warning("%s: %d subscriptions are given up: %s", self, count, self.why or why)

    def _settle(self) -> None:
        """Have happen later what is to happen if nothing else does."""
        is_forsaken = self._is_forsaken
        rest = self._machine.rest(is_forsaken=is_forsaken)
        if rest is Rest.END or (rest is Rest.LINGER and self.is_mirrored_here):  # it lingers where it is held
            self.end()
            return
        if is_forsaken and rest is not Rest.NOTHING:
            self.context.lingering.left(self, self._last)
            if self._machine.phase is Phase.CLOSED:
                return  # there are so many already
        elif not is_forsaken:
            self.context.lingering.needed(self)
        if rest is not self._rest:
            self._rest = rest
            self._call_off()
            if rest is Rest.RETRY:
                pause = None if self.part is None else self.part.pause()
                wait = self._backoff.next(self._lived or 0.0) if pause is None else pause
                self._timer = self.context.timers.later(wait, self._retry, self.fail)
            elif rest is Rest.LINGER:
                self._timer = self.context.timers.later(self.context.linger, self.end, self.fail)

    def _retry(self) -> None:
        self._rest, self._timer = Rest.NOTHING, None
        if self._is_forsaken:
            self.end()
        else:
            self._step(Event.DUE)

    def _call_off(self) -> None:
        if self._timer is not None:
            self._timer.call_off()
            self._timer = None

    def closed(self, event: Upstream) -> None:
        """The session is over: the lane is down, unless nobody needs it."""
        self._session = None
        machine = self._machine
        self._note_lived()
        if machine.phase is not Phase.ENDING:  # else it is known why
            self.why = brief(event.text) or "the backend closed it"
        lifetime = Lifetime(machine.is_asking, self._lived, self.context.lanes.backoff_max)
        self._step(self._wire.end_of(event, lifetime), event)

    def _note_lived(self) -> None:
        self._lived = None if self._live_at is None else self.context.timers.now() - self._live_at
        self._live_at = None

    # Over workers: what the one says who holds it

    def parted(self, why: str) -> None:
        """See ``Shared``."""
        self._lose(why)
        if self.part is not None and self.part.is_sent_on:
            self._look_again()

    def down_there(self, why: str) -> None:
        """See ``Shared``."""
        self._lose(why)
        self._look_again()

    def _lose(self, why: str) -> None:
        self.why = brief(why)
        self._note_lived()
        self._is_gap_counted = False
        is_new = self.gap_since is None
        self._step(Event.LOST)
        silent_s = None if self.part is None else self.part.silence()
        if silent_s is not None:
            self._lost_at = self.context.timers.now() - silent_s
            if self.part is not None and self.gap_since is not None and is_new:
                self.gap_since -= min(silent_s, self.part.noticed_s)

    def _look_again(self) -> None:
        """The pause is over, or there is none."""
        if self._machine.phase is Phase.PAUSED:
            self._step(Event.DUE)

    def _part_from_holder(self) -> None:
        if self.part is not None:
            self.part.untie(self._last)

    def yielded(self) -> None:
        """See ``Shared``."""
        if self._session is not None:
            self._yielded_at = self.context.timers.now()
            self.context.upstreams.close(self._session)

    def mirror_gone(self, mirror: Mirror) -> None:
        """See ``Shared``."""
        self._last = mirror.id
        self._waiting.drop(mirror)
        if self._machine.phase is not Phase.CLOSED:
            self._settle()

    def end(self) -> None:
        """Close it; nobody watches. Raises nothing."""
        self._machine.close()
        self.alone = ()
        self._rest = Rest.NOTHING
        self._call_off()
        self.context.lingering.ended(self)
        self._on_end(self)
        contained = self.context.upstreams.faults.contained
        if self.part is not None:
            with contained("relay.lane", "other workers could not be told that %s has ended", self):
                self.part.end(self._last)
        with contained("relay.lane", "the call of %s could not be called off", self):
            self._forget_asking()
        with contained("relay.lane", "the log of %s could not be let go", self):
            self.context.engine.forget_beginning(self.name)
        if self._session is not None:
            self.context.upstreams.close(self._session, (1000, "") if self._wire.protocol == "websocket" else None)

    def fail(self) -> None:
        """Something went wrong that nobody expected: it ends, who waits is told, and who watches is to come back."""
        if self._machine.phase is Phase.CLOSED:
            return
        waiting = [self._waiting.take() for _ in range(len(self._waiting))]
        watchers, self.watchers = self.watchers, {}
        self.end()
        for one in waiting:
            watchers.pop(one.client, None)
            self._tell(one, partial(self._give_up, why=INTERNAL_ERROR))
        for client in watchers:
            with self.context.upstreams.faults.contained("relay.lane", "client %s stays", name_of(client.id)):
                self._send_away(client)
