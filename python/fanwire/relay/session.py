"""A private connection: a client's own to the backend, for what is not shared, of either kind. No bytes of a protocol.

It is opened with the first message that begins something, in the client's own name and in its turn (``Gate``). It
closes when nothing has come or gone for a while and nothing is pending. Or a client waits for it to be let in: then it
lasts as long as the client. What comes on it goes from the upstream thread to the client, and to nobody else.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from fanwire._engine import Upstream
from fanwire._loop import ends_task
from fanwire.budget import ENTRY_BYTES, Budget
from fanwire.errors import LimitReached
from fanwire.faults import Faults
from fanwire.relay.credentials import Credentials
from fanwire.relay.timing import Backoff, Bucket, Timers
from fanwire.relay.upstreams import Backend, SessionHandler, Upstreams
from fanwire.relay.wire import Asked


class Gated(Protocol):
    """A private connection before its turn."""

    def open(self) -> None:
        """It is its turn."""

    @property
    def is_open(self) -> bool:
        """Whether it has a session, or waits to have one."""

    def fail(self) -> None:
        """It could not be opened."""


class Gate:
    """Opens private connections in order, no faster than so many a second, and never more than so many."""

    def __init__(
        self, timers: Timers, faults: Faults, rate: float, count_max: int, shortage: Callable[[], str] = str
    ) -> None:
        self.timers = timers
        self._shortage = shortage
        self._faults = faults
        self._bucket = Bucket(rate)
        self._waiting: OrderedDict[Gated, None] = OrderedDict()
        # For a token.
        self._is_waiting = False
        self._count_max = count_max
        self.count = 0
        """Private connections that are open or wait to be."""

    @property
    def over_bound(self) -> str:
        """Why there may be no more now; empty where there may."""
        if self.count >= self._count_max:
            return f"{self.count + 1} private connections are over the bound of {self._count_max}"
        return self._shortage()

    def set_rate(self, rate: float) -> None:
        """Open so many a second from now on."""
        self._bucket.set_rate(rate)

    def enter(self, one: Gated) -> bool:
        """Have it opened in its turn; False at the bound."""
        if self.over_bound:
            return False
        self.count += 1
        self._waiting[one] = None
        if not self._is_waiting:
            self._go_on()
        return True

    def leave(self) -> None:
        """One that was opened is closed."""
        self.count -= 1

    def call_off(self, one: Gated) -> None:
        """It does not wait any more: it costs the others no time, and nothing of it is kept."""
        del self._waiting[one]
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

    def _open(self, one: Gated) -> None:
        try:
            one.open()
        except BaseException as error:  # it is one client's: the others are not to wait for ever
            if ends_task(error):
                raise
            self._faults.note("relay.gate", error, "a private connection could not be opened")
            if not one.is_open:
                self.leave()  # else its session will
            with self._faults.contained("relay.fail", "a client without its private connection could not be ended"):
                one.fail()


class UpstreamMessage(NamedTuple):
    """What is to be passed on."""

    call: Asked | None
    """None of what belongs to one: an item, an end, a cancellation. Those open no connection."""
    data: bytes
    is_text: bool
    is_owed: bool
    """Whether an acknowledgement is due once the backend keeps pace: until then it is one of the few that may wait."""

    @property
    def cost(self) -> int:
        """What it is charged while it waits, in bytes."""
        return len(self.data) + ENTRY_BYTES


class SessionClient(Protocol):
    """Whose it is."""

    id: int
    budget: Budget
    """What waits here is on it."""

    def arrived(self, subprotocol: str | None) -> None:
        """The backend has let it in."""

    def lost(self, event: Upstream) -> bool:
        """The connection is gone, with calls pending perhaps, or could not be had. Whether the client stays."""

    def acknowledge(self) -> None:
        """Another message may come."""

    def no_room(self, call: Asked | None, error: LimitReached) -> None:
        """There is no room in which a message could wait."""

    def over_bound(self, call: Asked | None, why: str) -> None:
        """There may be no more private connections."""

    def subscribed_privately(self, id: str, *, is_refused: bool) -> None:
        """A call of a method that subscribes has been answered."""

    def fail(self) -> None:
        """What it has lost nobody can tell: the client goes, and may come back."""


class Line(Protocol):
    """How a connection is opened, spoken over and ended; of either kind."""

    backend: Backend
    idle: float
    farewell: tuple[int, str] | None
    """What it is closed with when it is idle."""

    def open(self, handler: SessionHandler) -> int:
        """Begin a session."""

    def send(self, session: int, message: UpstreamMessage) -> int | None:
        """Queue a message; gives how many bytes wait, None where the session is closed or closing."""


@dataclass(slots=True)
class CallLine:
    """To a SignalR backend."""

    upstreams: Upstreams
    backend: Backend
    idle: float
    client: int
    protocol: str
    credentials: Credentials
    dropped: frozenset[str]
    """Targets that come over the broadcast lane."""
    reported: frozenset[str]
    """Methods whose calls' ends are told."""
    farewell: tuple[int, str] | None = field(default=None, init=False)

    def open(self, handler: SessionHandler) -> int:
        """See ``Line``."""
        return self.upstreams.open(
            handler,
            self.backend,
            self.protocol,
            ("private", self.client, self.dropped, self.reported),
            headers=self.credentials.headers,
            urls=self.credentials.urls(self.backend.urls),
            idle=self.idle,
            is_own=False,
        )

    def send(self, session: int, message: UpstreamMessage) -> int | None:
        """See ``Line``."""
        return self.upstreams.send(session, message.data)


@dataclass(slots=True)
class PlainLine:
    """To a plain backend."""

    upstreams: Upstreams
    backend: Backend
    idle: float
    client: int
    credentials: Credentials
    urls: Sequence[str]
    offered: Sequence[str] = ()
    """Subprotocols."""
    accepts: bool = False
    """Whether the client waits for it to be let in: then it is never idle."""
    farewell: tuple[int, str] | None = (1000, "")

    def open(self, handler: SessionHandler) -> int:
        """See ``Line``."""
        return self.upstreams.open_plain(
            handler,
            self.backend,
            self.offered,
            ("private", self.client, self.accepts),
            headers=self.credentials.headers,
            urls=self.urls,
            idle=None if self.accepts else self.idle,
        )

    def send(self, session: int, message: UpstreamMessage) -> int | None:
        """See ``Line``."""
        return self.upstreams.send_message(session, message.data, is_text=message.is_text)


class Session(SessionHandler):
    """One client's; see the module."""

    __slots__ = (
        "_backoff",
        "_client",
        "_gate",
        "_is_over",
        "_line",
        "_open_since",
        "_owed",
        "_queued",
        "_sent_at",
        "_session",
        "_upstreams",
        "pins",
    )

    def __init__(self, client: SessionClient, line: Line, upstreams: Upstreams, gate: "Gate") -> None:
        self._client = client
        self._line = line
        self._upstreams = upstreams
        self._gate = gate
        # Of one that is held: how attempts to have it again are spaced.
        self._backoff: Backoff | None = None
        self._session: int | None = None
        # What waits for it to be opened, or, where it has just ended, for its end to be told.
        self._queued: list[UpstreamMessage] | None = None
        self._owed = 0
        self._is_over = False
        self._open_since: float | None = None
        self._sent_at = 0.0
        self.pins = 0
        """Subscriptions that only this one has: while there are any, it is not idle."""

    @property
    def is_open(self) -> bool:
        """Whether it is open, or waits to be."""
        return self._session is not None or self._queued is not None

    def hold(self, backoff: Backoff) -> None:
        """Open it now, and again whenever it is lost, for as long as the client is there."""
        self._backoff = backoff
        self._open_again(backoff)

    def _open_again(self, backoff: Backoff) -> None:
        if not self._is_over and not self.is_open and not self._enter():
            self._open_later(backoff)

    def _open_later(self, backoff: Backoff) -> None:
        timers = self._gate.timers
        lived = 0.0 if self._open_since is None else timers.now() - self._open_since
        self._open_since = None
        timers.later(backoff.next(lived), partial(self._open_again, backoff))

    def begin(self) -> None:
        """Open it for a client that waits for that."""
        if not self._enter():
            self._client.over_bound(None, self._gate.over_bound)

    def _enter(self) -> bool:
        self._queued = []
        if self._gate.enter(self):
            return True
        self._queued = None
        return False

    def send(self, message: UpstreamMessage) -> None:
        """Pass a message on; it is acknowledged, where that is owed, once the backend keeps pace."""
        if self._queued is not None:
            self._keep(message)
        elif self._session is not None:
            self._pass_on(message)
        elif message.call is None:  # of a call that nobody knows any more
            self._acknowledge_all([message])
        else:
            self._queued = []
            if not self._keep(message):
                self._queued = None
            elif not self._gate.enter(self):
                queued = self._take_queued()
                self._client.over_bound(message.call, self._gate.over_bound)
                self._acknowledge_all(queued)

    def _keep(self, message: UpstreamMessage) -> bool:
        """Have it wait; False, and it is dealt with, where the client's budget has no room for it."""
        assert self._queued is not None
        try:
            self._client.budget.require(message.cost)
        except LimitReached as error:
            self._client.no_room(message.call, error)
            self._acknowledge_all([message])
            return False
        self._queued.append(message)
        return True

    def _take_queued(self) -> list[UpstreamMessage]:
        """What waits; it waits no longer."""
        queued, self._queued = self._queued or [], None
        self._client.budget.release(sum(message.cost for message in queued))
        return queued

    def _acknowledge_all(self, messages: list[UpstreamMessage]) -> None:
        for message in messages:
            if message.is_owed:
                self._client.acknowledge()

    def open(self) -> None:
        """It is its turn."""
        queued = self._take_queued()
        self._session = self._line.open(self)
        for message in queued:
            self._pass_on(message)

    def _pass_on(self, message: UpstreamMessage) -> None:
        assert self._session is not None
        self._sent_at = self._gate.timers.now()
        waiting = self._line.send(self._session, message)
        if waiting is None:  # it has ended, and says so in a moment: then this goes over another one
            if self._queued is None:
                self._queued = []
            self._keep(message)
        elif message.is_owed and waiting <= self._line.backend.queue_bytes_max:
            self._client.acknowledge()
        else:  # more waits, of which the session tells when it is `drained`
            self._owed += message.is_owed

    def end(self, farewell: tuple[int, str] | None = None) -> None:
        """The client is gone."""
        if self._queued is not None and self._session is None and not self._is_over:
            self._gate.call_off(self)
        self._is_over = True
        self._take_queued()
        if self._session is not None:
            self._upstreams.close(self._session, farewell)

    def fail(self) -> None:
        """What it has lost nobody can tell: the client goes, and may come back."""
        self._client.fail()

    # What the session tells

    def opened(self, event: Upstream) -> None:
        """The backend has agreed."""
        self._open_since = self._gate.timers.now()
        if not self._is_over:
            self._client.arrived(event.subprotocol)

    def completed(self, event: Upstream) -> None:
        """A call that subscribes has been answered."""
        self._client.subscribed_privately(event.id, is_refused=event.outcome == "error")

    def happened(self, event: Upstream) -> None:
        """It is idle, or takes more again."""
        if event.session != self._session:
            return
        if event.kind == "drained":
            self._acknowledge_owed()
        elif event.kind == "idle" and self._is_idle:
            self._upstreams.close(self._session, self._line.farewell)
            self._session = None  # what comes now goes over another one

    @property
    def _is_idle(self) -> bool:
        is_silent = self._gate.timers.now() - self._sent_at >= self._line.idle
        return is_silent and self._backoff is None and self.pins == 0

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
                self.send(message)
        if self._backoff is not None:
            self._open_later(self._backoff)

    def _acknowledge_owed(self) -> None:
        owed, self._owed = self._owed, 0
        for _ in range(owed):
            self._client.acknowledge()
