"""A lane: one connection to the backend for everyone who watches the same thing. ✗ who the clients are ✗ bytes.

Life: connecting → live → (down → live)… → closed. It is opened with its first client, calls the method that subscribes,
and ends ``linger`` after its last client has left. While it is down its clients stay. What arrives on it goes into the
engine's log of the same name, and from there to them; here are only calls and their outcomes.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from time import monotonic, time
from typing import NamedTuple, Protocol

import msgspec

from fanwire._engine import Engine, Upstream
from fanwire._loop import ends_task
from fanwire.budget import ENTRY_BYTES, Budget
from fanwire.errors import LimitReached
from fanwire.faults import Tasks
from fanwire.logs import relay_log
from fanwire.relay.blame import is_said
from fanwire.relay.config import CallShare
from fanwire.relay.everyones import Everyones
from fanwire.relay.names import Names
from fanwire.relay.shared import SharedCall
from fanwire.relay.stats import shortened
from fanwire.relay.timing import Backoff, Delay
from fanwire.relay.upstreams import REFUSING, Owner, Target, Upstreams
from fanwire.texts import INTERNAL_ERROR, name_of

UNREACHABLE = "The backend cannot be reached."
"""What a client is told: where the backend is, and what is wrong with it, is in the log."""
NOT_ANSWERED = "The backend has not answered."
"""What a client is told whose call the backend has taken, and kept."""

LOST = "The connection to the backend was lost before it answered."


class State(Enum):
    """Of a lane."""

    CONNECTING = "connecting"
    LIVE = "live"
    DOWN = "down"
    CLOSED = "closed"


class Outcome(Protocol):
    """How a call ended."""

    @property
    def outcome(self) -> str:
        """``error``, ``void`` or ``result``."""

    @property
    def body(self) -> bytes:
        """The text of the error, or the value, raw."""


class Asked(NamedTuple):
    """A client's call while it waits: the bytes that it came in are not kept."""

    id: str
    """Empty where no answer is wanted."""
    target: str
    """The method, as the client writes it."""


class Watcher(Protocol):
    """A client, as a lane sees it."""

    id: int
    budget: Budget
    """What waits here is on it."""

    def complete(self, call: Asked, outcome: Outcome) -> None:
        """The call ended so, for everybody who makes it."""

    def refused(self, lane: "Lane", call: Asked, outcome: Outcome | None) -> None:
        """The backend refused the lane its call, or, without an outcome, to connect: the client may be allowed it."""

    def given_up(self, lane: "Lane", call: Asked, why: str) -> None:
        """The call could not be made."""

    def left(self, lane: "Lane", call: Asked) -> None:
        """The client's call that unsubscribes has had its turn."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What all lanes of a relay have in common."""

    engine: Engine
    upstreams: Upstreams
    tasks: Tasks
    target: Target
    everyone: frozenset[str]
    linger: float
    backoff_min: float
    backoff_max: float
    snapshot_bytes_max: int
    gap_target: str | None
    """The target of the message that tells clients of a gap, if they are told."""
    closes_on_gap: bool
    names: Names
    everyones: Everyones
    lingering: "dict[Lane, None]"
    """Those that nobody watches, in the order in which they will end."""


@dataclass(slots=True)
class Waiting:
    """A call whose turn has not come."""

    client: Watcher
    call: Asked
    until: float
    is_leaving: bool = False

    @property
    def cost(self) -> int:
        """What its client is charged meanwhile, in bytes."""
        return len(self.call.id) + ENTRY_BYTES


@dataclass(slots=True, eq=False)
class Lane(Owner):
    """One subscription at the backend; see the module."""

    name: str
    """Of its log in the engine."""
    share: CallShare
    call: SharedCall = field(repr=False)
    """That subscribes."""
    terms: Terms = field(repr=False)
    on_end: Callable[["Lane"], None] = field(repr=False)
    state: State = State.CONNECTING
    watchers: dict[int, Watcher] = field(default_factory=dict, repr=False)
    why: str = ""
    """Why it is down, or has failed."""
    gap_since: float | None = None
    """Wall clock at the begin of the gap, while it is down."""
    gaps: int = 0
    _waiting: deque[Waiting] = field(default_factory=deque, repr=False)
    _waits_of: dict[int, int] = field(default_factory=dict, repr=False)
    """How many of those are a client's."""
    _session: int | None = None
    _calls: int = 0
    _call: str | None = None
    _call_timeout: Delay | None = None
    _patience: Delay | None = None
    """Until the first of those who wait has waited long enough."""
    _outcome: Upstream | None = None
    _outcome_at: float = 0.0
    _delay: Delay | None = None
    _asks_again: bool = True
    """Whether the backend lets it subscribe more than once over one connection."""
    _dropped: Counter[str] = field(default_factory=Counter, repr=False)
    """Reports of this connection, by target."""
    _life: int = 0
    """Of the broadcast lane, when this connection was opened."""
    _backoff: Backoff = field(init=False, repr=False)
    shown: str = field(init=False, repr=False)
    """Its arguments, for people."""

    def __post_init__(self) -> None:
        self.shown = shown(self.call)
        self._backoff = Backoff(self.terms.backoff_min, self.terms.backoff_max)
        try:
            self._connect()
        except BaseException:
            self.end()
            raise

    # Clients

    def subscribe(self, client: Watcher, call: Asked) -> None:
        """Have the client watch, and answer its call as the backend answered the lane's.

        Raises LimitReached where it would have to wait, and has no room left for that: then nothing has changed.
        """
        if self.state is State.LIVE:
            self._call_off()  # it lingers no longer
        is_next = client.id not in self._waits_of  # else this call is behind its others
        if self.state is State.LIVE and is_next and self._join_at_once(client):
            assert self._outcome is not None  # it is live
            client.complete(call, self._outcome)
            return
        self.terms.lingering.pop(self, None)
        try:
            self._wait(client, call, is_leaving=False)
        except LimitReached:
            self._linger_if_empty()
            raise
        if self.state is State.LIVE and self._call is None:
            if self.share.snapshot is not None:
                self.terms.engine.await_snapshot(self.name)
            self._subscribe_upstream()

    def unsubscribe(self, client: Watcher, call: Asked) -> None:
        """Have the client watch no longer, once what it asked for before is done."""
        if client.id in self._waits_of:
            self._wait(client, call, is_leaving=True)
        else:
            self._let_go(client)
            client.left(self, call)
            self._linger_if_empty()

    def gone(self, client: Watcher) -> None:
        """The client has left altogether: the engine knows, its calls are for nobody."""
        if self._waits_of.pop(client.id, 0):
            self._waiting = deque(one for one in self._waiting if one.client is not client)
            self._be_patient()
        self.watchers.pop(client.id, None)
        self._linger_if_empty()

    def has(self, client: Watcher) -> bool:
        """Whether the client watches, or waits for that."""
        return client.id in self.watchers or client.id in self._waits_of

    def _wait(self, client: Watcher, call: Asked, *, is_leaving: bool) -> None:
        one = Waiting(client, call, monotonic() + self.terms.target.connect_timeout, is_leaving)
        client.budget.require(one.cost)
        self._waiting.append(one)
        self._waits_of[client.id] = self._waits_of.get(client.id, 0) + 1
        self._be_patient()

    def _take_first(self) -> Waiting:
        """Whose turn it is; it waits no longer."""
        one = self._waiting.popleft()
        one.client.budget.release(one.cost)
        self._waits_of[one.client.id] -= 1
        if not self._waits_of[one.client.id]:
            del self._waits_of[one.client.id]
        return one

    def _join_at_once(self, client: Watcher) -> bool:
        """Subscribe the client with what is there; False where the backend is to be asked for something newer."""
        share, is_new = self.share, monotonic() - self._outcome_at < self.share.fresh
        if share.snapshot is None:
            if is_new and self._join(client):
                return True
        # Newer than an answer that is new enough the backend's next one would not be.
        elif self._join(client, share.snapshot_messages_max, None if is_new else share.fresh):
            return True
        if self._asks_again:
            return False
        if not self._join(client):
            self._join_late(client)
        return True

    def _join(self, client: Watcher, messages_max: int | None = None, age_max: float | None = None) -> bool:
        """Subscribe the client, from the newest snapshot on; one that watches begins once more there, as it would at
        the backend. False when the snapshot is not there any more, or over these bounds: then nothing has changed.
        """
        is_again = client.id in self.watchers
        if is_again and self.share.snapshot is None:
            return True
        if not self.terms.engine.join_lane(client.id, self.name, is_again, messages_max, age_max):
            return False
        self.watchers[client.id] = client
        return True

    def _join_late(self, client: Watcher) -> None:
        """Subscribe the client without a snapshot."""
        if client.id not in self.watchers:
            relay_log.warning("%s: more than snapshot_bytes_max came at once: a late joiner starts live", self)
            self.terms.engine.join_live(client.id, self.name)
            self.watchers[client.id] = client

    def _let_go(self, client: Watcher) -> None:
        if self.watchers.pop(client.id, None) is not None:
            self.terms.engine.leave_lane(client.id, self.name)

    def _linger_if_empty(self) -> None:
        if self.watchers or self._waiting or self.state is State.CLOSED:
            return
        if self.state is State.LIVE:
            self._call_off()
            self._delay = Delay(self.terms.tasks, self.terms.linger, self.end, self.fail)
            self.terms.lingering[self] = None
        elif self._delay is None:
            self.end()
        else:  # it is to be tried again: who asks before that waits for it, and does not have it tried at once
            self.terms.lingering[self] = None

    def end(self) -> None:
        """Close it; nobody watches. Raises nothing."""
        self.state = State.CLOSED
        self._call_off()
        self.on_end(self)
        contained = self.terms.upstreams.faults.contained
        with contained("relay.lane", "the call of %s could not be called off", self):
            self._forget_call()
            self._be_patient()
        with contained("relay.lane", "the log of %s could not be let go", self):
            self.terms.engine.keep(self.name, None)
        with contained("relay.lane", "the session of %s could not be closed", self):
            if self._session is not None:
                self.terms.upstreams.close(self._session)

    def fail(self) -> None:
        """Something went wrong that nobody expected: it ends, who waits is told, and who watches is to come back."""
        if self.state is State.CLOSED:
            return
        waiting = [self._take_first() for _ in range(len(self._waiting))]
        watchers, self.watchers = self.watchers, {}
        self.end()
        upstreams = self.terms.upstreams
        for one in waiting:
            with upstreams.faults.contained("relay.lane", "client %s could not be told", name_of(one.client.id)):
                if one.is_leaving:
                    one.client.left(self, one.call)
                else:
                    one.client.given_up(self, one.call, INTERNAL_ERROR)
        for id in watchers:
            upstreams.endings.close(id, 1012, "")

    def _call_off(self) -> None:
        self.terms.lingering.pop(self, None)
        if self._delay is not None:
            self._delay.call_off()
            self._delay = None

    # The backend

    def _connect_again(self) -> None:
        self._delay = None
        if self.state is State.CLOSED:
            return
        if self.watchers or self._waiting:
            self._connect()
        else:
            self.end()

    def _connect(self) -> None:
        self.terms.engine.keep(self.name, self.terms.snapshot_bytes_max)
        route = ("lane", self.name, self.terms.everyone, self.share.snapshot)
        self._session = self.terms.upstreams.open(self, self.terms.target, self.call.protocol, route)

    def _subscribe_upstream(self) -> None:
        assert self._session is not None
        self._calls += 1
        self._call = str(self._calls)
        self.terms.upstreams.send(self._session, self.call.record(self._call))
        self._call_timeout = Delay(self.terms.tasks, self.terms.target.connect_timeout, self._give_up_call, self.fail)

    def _forget_call(self) -> None:
        self._call = None
        if self.share.snapshot is not None:
            self.terms.engine.await_snapshot(self.name, False)  # one that still comes is everyone's
        if self._call_timeout is not None:
            self._call_timeout.call_off()
            self._call_timeout = None

    def _give_up_call(self) -> None:
        self._call_timeout = None
        if self._call is None or self._session is None:
            return
        why = f"{self.share.subscribe} was not answered within {self.terms.target.connect_timeout:g} s"
        if self.state is State.LIVE:  # it was asked again for newcomers: whoever watches goes on
            relay_log.warning("%s: late joiners: %s", self, why)
            self._give_up_waiting()
            self._forget_call()
        else:
            self.why = why
            self.terms.upstreams.close(self._session)

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands."""
        self._dropped.clear()
        self._life = self.terms.everyones.life_of(self.call.protocol)
        if self.state is not State.CLOSED:
            self._subscribe_upstream()

    def happened(self, event: Upstream) -> None:
        """The first message of a target has come; or twice as many of one that is dropped here, as everyone gets it."""
        if event.kind != "came":
            return
        self.terms.names.came_over_lane(event.id)
        if event.id in self.terms.everyone:
            self._dropped[event.id] += 1
            self.terms.everyones.dropped(self.call.protocol, event.id, self._dropped[event.id], self._life)

    def completed(self, event: Upstream) -> None:
        """The backend has answered the lane's call."""
        if event.id != self._call or self.state is State.CLOSED:
            return
        self._forget_call()
        if event.outcome == "error":
            self._refused(event)
            return
        self._outcome, self._outcome_at = event, monotonic()
        if self.state is not State.LIVE:
            self._went_live()
        while self._waiting:
            one = self._take_first()
            if one.is_leaving:
                self._let_go(one.client)
                one.client.left(self, one.call)
                continue
            try:
                if not self._join(one.client):
                    self._join_late(one.client)
                one.client.complete(one.call, event)
            except BaseException as error:  # such as channels_max: it is one client's, and the others are answered
                if ends_task(error):
                    raise
                is_told = isinstance(error, LimitReached)
                if not is_told:
                    faults = self.terms.upstreams.faults
                    faults.note("relay.join", error, "client %s could not join %s", name_of(one.client.id), self)
                one.client.given_up(self, one.call, str(error) if is_told else INTERNAL_ERROR)
        self._be_patient()
        if self.watchers:
            self._call_off()  # it lingers no longer
        if self.share.snapshot is None:
            self.terms.engine.keep(self.name, None)
        self._linger_if_empty()

    def _went_live(self) -> None:
        self.state = State.LIVE
        self._backoff.reset()
        if self.gap_since is not None:
            since, until = self.gap_since, time()
            relay_log.warning("%s is live again; a gap of %.1f s, because %s", self, until - since, self.why)
            self.gap_since = None
            if self.terms.gap_target is not None:
                told = {"call": self.share.subscribe, "since": since, "until": until}
                self.terms.engine.publish_to_lane(self.name, told, self.terms.gap_target)
            if self.terms.closes_on_gap:
                for client in self.watchers.values():
                    self.terms.upstreams.endings.close(client.id, 1012, "")
        self.why = ""

    def _refused(self, event: Upstream) -> None:
        self._refuse_waiting(event)
        if self.state is State.LIVE:
            return  # it was asked again for newcomers, and those have been told
        self.why = f"{self.share.subscribe} was refused"
        if self.watchers and self._session is not None:
            self.terms.upstreams.close(self._session)  # and tried again, as after any other loss
        else:
            self._linger_if_empty()

    def closed(self, event: Upstream) -> None:
        """The session is over: the lane is down, unless nobody needs it."""
        self._session = None
        is_blamed = self._call is not None and is_said(event)
        self._forget_call()
        if self.state is State.CLOSED:
            return
        self.why = self.why or event.text or "the backend closed it"
        if self.state is State.LIVE:
            self.gaps += 1
            self.gap_since = time()
            self._asks_again &= not is_blamed  # its own subscription was fine
            relay_log.warning("%s is down: %s", self, self.why)
        self.state = State.DOWN if self.gap_since is not None else State.CONNECTING
        if event.status in REFUSING:
            self._refuse_waiting(None)
        elif is_blamed:
            self._blame_first()
        self._call_off()
        self._delay = Delay(self.terms.tasks, self._backoff.next(), self._connect_again, self.fail)
        self._linger_if_empty()

    def _blame_first(self) -> None:
        """The backend has ended the connection at the call of the first who waits: the others' is made again."""
        while self._waiting:
            one = self._take_first()
            if not one.is_leaving:
                relay_log.warning("%s: the backend ended the connection at this call: %s", self, self.why)
                one.client.given_up(self, one.call, LOST)
                break
            self._let_go(one.client)
            one.client.left(self, one.call)
        self._be_patient()

    def _refuse_waiting(self, event: Upstream | None) -> None:
        while self._waiting:
            one = self._take_first()
            if one.is_leaving:
                self._let_go(one.client)
                one.client.left(self, one.call)
            else:
                one.client.refused(self, one.call, event)
        self._be_patient()

    def _be_patient(self) -> None:
        """Have those who wait told in time that it was in vain, whatever the backend does."""
        if self._waiting and self.state is not State.CLOSED:
            if self._patience is None:
                wait = max(0.0, self._waiting[0].until - monotonic())
                self._patience = Delay(self.terms.tasks, wait, self._lose_patience, self.fail)
        elif self._patience is not None:
            self._patience.call_off()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        self._give_up_waiting(until=monotonic())
        self._linger_if_empty()

    def _give_up_waiting(self, until: float = inf) -> None:
        """Tell those whose time is up: they wait in its order."""
        why = UNREACHABLE if self._call is None and self.state is not State.LIVE else NOT_ANSWERED
        given_up = 0
        while self._waiting and self._waiting[0].until <= until:
            one = self._take_first()
            if one.is_leaving:
                self._let_go(one.client)
                one.client.left(self, one.call)
            else:
                given_up += 1
                one.client.given_up(self, one.call, why)
        if given_up:
            relay_log.warning("%s: %d subscriptions are given up: %s", self, given_up, self.why or why)
        self._be_patient()

    def __str__(self) -> str:
        return f"lane {self.name} ({self.share.subscribe} {self.shown})"


class Lingering(Protocol):
    """A lane that nobody watches."""

    def end(self) -> None:
        """Close it."""


def has_room(lanes: Sized, lanes_max: int, lingering: Iterable[Lingering]) -> bool:
    """Whether there may be one lane more; the one that lingers for the longest makes room."""
    if len(lanes) >= lanes_max:
        for lane in lingering:
            lane.end()
            break
    return len(lanes) < lanes_max


def shown(call: SharedCall) -> str:
    """A lane's arguments for people: as JSON, where MessagePack has more, the nearest."""
    if call.protocol == "json":
        text = call.arguments.decode()
    else:
        text = msgspec.json.encode(msgspec.msgpack.decode(call.arguments)).decode()
    return shortened(text)
