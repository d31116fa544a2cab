"""A private lane: a client's own connection to the backend, for everything that is not shared. ✗ whose turn it is.

It is opened with the first call, in the client's own name, and closes when nothing has come or gone for a while and
nothing is pending. What comes on it goes from the upstream thread to the client, and to nobody else.
"""

from collections import OrderedDict
from functools import partial
from typing import NamedTuple, Protocol

from fanwire._engine import HubMessage, Upstream
from fanwire._loop import ends_task
from fanwire.budget import ENTRY_BYTES, Budget
from fanwire.errors import LimitReached
from fanwire.faults import Faults
from fanwire.relay.admission import Credentials
from fanwire.relay.timing import Backoff, Bucket, Timers
from fanwire.relay.upstreams import Owner, Target, Upstreams
from fanwire.relay.wire import Asked
from fanwire.texts import INTERNAL_ERROR


class Waiting(Protocol):
    """A private lane before its turn."""

    def open(self) -> None:
        """It is its turn."""

    @property
    def is_open(self) -> bool:
        """Whether it has a session, or waits to have one."""

    def fail(self) -> None:
        """It could not be opened."""


class Gate:
    """Opens private lanes no faster than so many a second, first come first served, and never more than so many."""

    def __init__(self, timers: Timers, faults: Faults, rate: float, count_max: int) -> None:
        self.timers = timers
        self._faults = faults
        self._bucket = Bucket(rate)
        self._waiting: OrderedDict[Waiting, None] = OrderedDict()
        # For a token.
        self._is_waiting = False
        self.count_max = count_max
        self.count = 0
        """Private lanes that are open or wait to be."""

    def enter(self, lane: Waiting) -> bool:
        """Have the lane opened in its turn; False at the bound."""
        if self.count >= self.count_max:
            return False
        self.count += 1
        self._waiting[lane] = None
        if not self._is_waiting:
            self._go_on()
        return True

    def leave(self) -> None:
        """One that was opened is closed."""
        self.count -= 1

    def call_off(self, lane: Waiting) -> None:
        """It does not wait any more: it costs the others no time, and nothing of it is kept."""
        del self._waiting[lane]
        self.count -= 1

    def _go_on(self) -> None:
        self._is_waiting = False
        while self._waiting:
            if self._bucket.try_take(self.timers.now()):
                self._open(self._waiting.popitem(last=False)[0])
            else:
                self._is_waiting = True
                self.timers.later(self._bucket.wait, self._go_on)
                return

    def _open(self, lane: Waiting) -> None:
        try:
            lane.open()
        except BaseException as error:  # it is one client's: the others are not to wait for ever
            if ends_task(error):
                raise
            self._faults.note("relay.gate", error, "a private connection could not be opened")
            if not lane.is_open:
                self.leave()  # else its session will
            with self._faults.contained("relay.fail", "a client without its private connection could not be ended"):
                lane.fail()


class Client(Protocol):
    """Whose it is."""

    id: int
    protocol: str
    budget: Budget
    """What waits here is on it."""

    def lost(self, event: Upstream) -> bool:
        """The lane is gone, with calls pending perhaps. Whether the client stays."""

    def acknowledge(self) -> None:
        """Another message may come."""

    def failed(self, call: Asked, why: str) -> None:
        """The call could not be made."""

    def over_budget(self, error: LimitReached) -> None:
        """What belongs to a call finds no room: the client cannot go on."""

    def subscribed_privately(self, id: str, *, is_refused: bool) -> None:
        """A call of a method that subscribes has been answered."""


class Message(NamedTuple):
    """What is to be passed on."""

    call: Asked | None
    """None of what belongs to one: an item, an end, a cancellation."""
    record: bytes
    is_owed: bool
    """Whether an acknowledgement is due once the backend keeps pace: until then it is one of the few that may wait."""

    @property
    def cost(self) -> int:
        """What it is charged while it waits, in bytes."""
        return len(self.record) + ENTRY_BYTES


class PrivateLane(Owner):
    """One client's; see the module."""

    __slots__ = (
        "_backoff",
        "_client",
        "_credentials",
        "_gate",
        "_idle",
        "_is_over",
        "_open_since",
        "_owed",
        "_queued",
        "_sent_at",
        "_session",
        "_terms",
        "pins",
    )

    def __init__(
        self,
        client: Client,
        credentials: Credentials,
        terms: tuple[Upstreams, Target, frozenset[str], frozenset[str]],
        gate: Gate,
        idle: float,
    ) -> None:
        self._client = client
        # Of one that is held: how attempts to have it again are spaced.
        self._backoff: Backoff | None = None
        self._credentials = credentials
        self._terms = terms
        self._gate = gate
        self._idle = idle
        self._session: int | None = None
        self._queued: list[Message] | None = None
        self._owed = 0
        self._is_over = False
        self._open_since: float | None = None
        self._sent_at = 0.0
        self.pins = 0
        """Subscriptions that only this lane has: while there are any, it is not idle."""

    @property
    def is_open(self) -> bool:
        """Whether it is open, or waits to be."""
        return self._session is not None or self._queued is not None

    @property
    def _awaits_turn(self) -> bool:
        """Whether it is still to be opened by the gate."""
        return self._queued is not None and self._session is None and not self._is_over

    @property
    def _may_go(self) -> bool:
        """Whether nothing but calls needs it: it is neither held nor pinned."""
        return self._backoff is None and self.pins == 0

    def hold(self, backoff: Backoff) -> None:
        """Open it now, and again whenever it is lost, for as long as the client is there."""
        self._backoff = backoff
        self._open_again(backoff)

    def _open_again(self, backoff: Backoff) -> None:
        if not self._is_over and not self.is_open:
            self._queued = []
            if not self._gate.enter(self):
                self._queued = None
                self._open_later(backoff)

    def _open_later(self, backoff: Backoff) -> None:
        now = self._gate.timers.now()
        lived = 0.0 if self._open_since is None else now - self._open_since
        self._open_since = None
        self._gate.timers.later(backoff.next(lived), partial(self._open_again, backoff))

    def send(self, event: HubMessage) -> None:
        """Pass a message on as it came; it is acknowledged once the backend keeps pace."""
        assert event.record is not None  # it is a relayed client's
        is_call = event.kind in ("invocation", "stream")
        self._take(Message(Asked(event.id, event.target) if is_call else None, event.record, is_owed=True))

    def ask(self, call: Asked, record: bytes) -> None:
        """Make a call of the client's that is acknowledged already."""
        self._take(Message(call, record, is_owed=False))

    def _take(self, message: Message) -> None:
        if self._queued is not None:
            self._keep(message)
        elif self._session is not None:
            self._pass_on(message)
        elif message.call is not None:
            self._queued = []
            if self._keep(message) and not self._gate.enter(self):
                bound = self._gate.count_max
                self._client.failed(message.call, f"{bound} private connections are open, the most that may be")
                self._acknowledge_all(self._take_queued())
            elif not self._queued and self._session is None:
                self._queued = None  # it found no room
        elif message.is_owed:  # of a call that nobody knows any more
            self._client.acknowledge()

    def _keep(self, message: Message) -> bool:
        """Have it wait; False, and it is dealt with, where the client's budget has no room for it."""
        assert self._queued is not None
        try:
            self._client.budget.require(message.cost)
        except LimitReached as error:
            if message.call is not None:
                self._client.failed(message.call, str(error))
            else:
                self._client.over_budget(error)
            self._acknowledge_all([message])
            return False
        self._queued.append(message)
        return True

    def _take_queued(self) -> list[Message]:
        """What waits; it waits no longer."""
        queued, self._queued = self._queued or [], None
        self._client.budget.release(sum(message.cost for message in queued))
        return queued

    def _acknowledge_all(self, messages: list[Message]) -> None:
        for message in messages:
            if message.is_owed:
                self._client.acknowledge()

    def open(self) -> None:
        """It is its turn."""
        queued = self._take_queued()
        upstreams, target, dropped, reported = self._terms
        self._session = upstreams.open(
            self,
            target,
            self._client.protocol,
            ("private", self._client.id, dropped, reported),
            headers=self._credentials.headers,
            urls=self._credentials.urls(target.urls),
            idle=self._idle,
            is_own=False,
        )
        for message in queued:
            self._pass_on(message)

    def _pass_on(self, message: Message) -> None:
        upstreams, target, *_ = self._terms
        assert self._session is not None
        self._sent_at = self._gate.timers.now()
        waiting = upstreams.send(self._session, message.record)
        if waiting is None:  # it has ended, and says so in a moment: then this goes over another one
            if self._queued is None:
                self._queued = []
            self._keep(message)
        elif message.is_owed and waiting <= target.queue_bytes_max:
            self._client.acknowledge()
        else:
            self._owed += message.is_owed

    def end(self) -> None:
        """The client is gone."""
        if self._awaits_turn:
            self._gate.call_off(self)
        self._is_over = True
        self._take_queued()
        if self._session is not None:
            self._terms[0].close(self._session)

    def fail(self) -> None:
        """What it has lost nobody can tell: the client goes, and may come back."""
        self._terms[0].endings.close(self._client.id, 1011, INTERNAL_ERROR)

    # What the session tells

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands."""
        self._open_since = self._gate.timers.now()

    def completed(self, event: Upstream) -> None:
        """A call that subscribes has been answered."""
        self._client.subscribed_privately(event.id, is_refused=event.outcome == "error")

    def happened(self, event: Upstream) -> None:
        """It is idle, or takes more again."""
        if event.kind == "drained":
            self._acknowledge_owed()
        elif event.session == self._session and self._may_go and self._gate.timers.now() - self._sent_at >= self._idle:
            self._terms[0].close(self._session)
            self._session = None  # what comes now goes over another one

    def closed(self, event: Upstream) -> None:
        """It is gone: the next call opens another one."""
        self._gate.leave()
        if event.session != self._session:
            return  # it was idle, and closed for that
        self._session = None
        queued = self._take_queued()
        if self._is_over:
            return
        self._acknowledge_owed()
        if self._client.lost(event):
            for message in queued:
                self._take(message)
        if self._backoff is not None:
            self._open_later(self._backoff)

    def _acknowledge_owed(self) -> None:
        owed, self._owed = self._owed, 0
        for _ in range(owed):
            self._client.acknowledge()
