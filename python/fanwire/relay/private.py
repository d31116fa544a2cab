"""A private lane: a client's own connection to the backend, for everything that is not shared. ✗ whose turn it is.

It is opened with the first call, in the client's own name, and closes when nothing has come or gone for a while and
nothing is pending. What comes on it goes from the upstream thread to the client, and to nobody else.
"""

from collections import deque
from functools import partial
from time import monotonic
from typing import Protocol

from fanwire._engine import HubMessage, Upstream
from fanwire.faults import Tasks
from fanwire.relay.admission import Credentials
from fanwire.relay.timing import Backoff, Bucket, Delay
from fanwire.relay.upstreams import Owner, Target, Upstreams


class Waiting(Protocol):
    """A private lane before its turn."""

    @property
    def awaits_turn(self) -> bool:
        """Whether it is still to be opened by the gate."""

    def open(self) -> None:
        """It is its turn."""


class Gate:
    """Opens private lanes no faster than so many a second, first come first served, and never more than so many."""

    def __init__(self, tasks: Tasks, rate: float, count_max: int) -> None:
        self.tasks = tasks
        self._bucket = Bucket(rate)
        self._waiting: deque[Waiting] = deque()
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
        self._waiting.append(lane)
        if not self._is_waiting:
            self._go_on()
        return True

    def leave(self) -> None:
        """One is closed, or does not wait any more."""
        self.count -= 1

    def _go_on(self) -> None:
        self._is_waiting = False
        while self._waiting:
            if not self._waiting[0].awaits_turn:  # it has left, and costs the others no time
                self._waiting.popleft()
            elif self._bucket.try_take(monotonic()):
                self._waiting.popleft().open()
            else:
                self._is_waiting = True
                Delay(self.tasks, self._bucket.wait, self._go_on)
                return


class Client(Protocol):
    """Whose it is."""

    id: int
    protocol: str

    def lost(self, event: Upstream) -> bool:
        """The lane is gone, with calls pending perhaps. Whether the client stays."""

    def acknowledge(self) -> None:
        """Another message may come."""

    def failed(self, call: HubMessage, why: str) -> None:
        """The call could not be made."""

    def subscribed_privately(self, id: str, *, is_refused: bool) -> None:
        """A call of a method that subscribes has been answered."""


class PrivateLane(Owner):
    """One client's; see the module."""

    __slots__ = (
        "_backoff",
        "_client",
        "_credentials",
        "_gate",
        "_idle",
        "_is_over",
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
        self._queued: list[tuple[HubMessage, bool]] | None = None
        self._owed = 0
        self._is_over = False
        self._sent_at = 0.0
        self.pins = 0
        """Subscriptions that only this lane has: while there are any, it is not idle."""

    @property
    def is_open(self) -> bool:
        """Whether it is open, or waits to be."""
        return self._session is not None or self._queued is not None

    @property
    def awaits_turn(self) -> bool:
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
        Delay(self._gate.tasks, backoff.next(), partial(self._open_again, backoff))

    def send(self, message: HubMessage, *, is_owed: bool = True) -> None:
        """Pass a message on; one that `is_owed` an acknowledgement gets it once the backend keeps pace."""
        if self._queued is not None:
            self._queued.append((message, is_owed))
            return
        if self._session is not None:
            self._pass_on(message, is_owed)
            return
        if message.kind in ("invocation", "stream"):
            self._queued = [(message, is_owed)]
            if self._gate.enter(self):
                return  # it is open by now, or waits for its turn
            self._queued = None
            self._client.failed(message, f"{self._gate.count_max} private connections are open, the most that may be")
        # Else it is of a call that nobody knows any more.
        if is_owed:
            self._client.acknowledge()

    def open(self) -> None:
        """It is its turn."""
        queued, self._queued = self._queued or [], None
        upstreams, target, dropped, reported = self._terms
        self._session = upstreams.open(
            self,
            target,
            self._client.protocol,
            ("private", self._client.id, dropped, reported),
            headers=self._credentials.of_session(),
            urls=self._credentials.urls(target.urls),
            idle=self._idle,
        )
        for message, is_owed in queued:
            self._pass_on(message, is_owed)

    def _pass_on(self, message: HubMessage, is_owed: bool) -> None:
        upstreams, target, *_ = self._terms
        assert self._session is not None and message.record is not None  # it is a relayed client's
        self._sent_at = monotonic()
        waiting = upstreams.send(self._session, message.record)
        if waiting is None:  # it has ended, and says so in a moment: then this goes over another one
            if self._queued is None:
                self._queued = []
            self._queued.append((message, is_owed))
        elif is_owed and waiting <= target.queue_bytes_max:
            self._client.acknowledge()
        else:
            self._owed += is_owed

    def end(self) -> None:
        """The client is gone."""
        if self.awaits_turn:
            self._gate.leave()
        self._is_over = True
        if self._session is not None:
            self._terms[0].close(self._session)

    # What the session tells

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands."""
        if self._backoff is not None:
            self._backoff.reset()

    def completed(self, event: Upstream) -> None:
        """A call that subscribes has been answered."""
        self._client.subscribed_privately(event.id, is_refused=event.outcome == "error")

    def happened(self, event: Upstream) -> None:
        """It is idle, or takes more again."""
        if event.kind == "drained":
            self._acknowledge_owed()
        elif event.session == self._session and self._may_go and monotonic() - self._sent_at >= self._idle:
            self._terms[0].close(self._session)
            self._session = None  # what comes now goes over another one

    def closed(self, event: Upstream) -> None:
        """It is gone: the next call opens another one."""
        self._gate.leave()
        if event.session != self._session:
            return  # it was idle, and closed for that
        self._session = None
        queued, self._queued = self._queued or [], None
        if self._is_over:
            return
        self._acknowledge_owed()
        if self._client.lost(event):
            for message, is_owed in queued:
                self.send(message, is_owed=is_owed)
        if self._backoff is not None:
            self._open_later(self._backoff)

    def _acknowledge_owed(self) -> None:
        owed, self._owed = self._owed, 0
        for _ in range(owed):
            self._client.acknowledge()
