"""A client's own connection to a plain WebSocket backend. ✗ whose turn it is ✗ bytes.

What comes on it goes from the upstream thread to the client, and to nobody else. Where nothing is shared the client
waits for it to be let in, and it lasts as long as the client; else the first message that is not for a lane opens it.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fanwire._engine import Upstream
from fanwire.budget import ENTRY_BYTES, Budget
from fanwire.errors import LimitReached
from fanwire.logs import relay_log
from fanwire.relay.admission import Credentials
from fanwire.relay.private import Gate
from fanwire.relay.upstreams import Owner, Target, Upstreams
from fanwire.texts import name_of


class Client(Protocol):
    """Whose it is."""

    id: int
    budget: Budget
    """What waits here is on it."""

    def arrived(self, subprotocol: str | None) -> None:
        """The backend has let it in, and the engine has answered its upgrade."""

    def turned_away(self, status: int | None) -> None:
        """The backend has refused with that status, or cannot be reached."""

    def hung_up(self, event: Upstream) -> None:
        """The connection is gone."""

    def over_bound(self, why: str) -> None:
        """There may be no more such connections."""

    def over_budget(self, error: LimitReached) -> None:
        """More waits for it than may."""

    def acknowledge(self) -> None:
        """Another message may come."""

    def fail(self) -> None:
        """Something went wrong that nobody expected."""


class Waiting(NamedTuple):
    """A message."""

    data: bytes
    is_text: bool
    is_owed: bool
    """Whether an acknowledgement is due."""

    @property
    def cost(self) -> int:
        """What it is charged while it waits, in bytes."""
        return len(self.data) + ENTRY_BYTES


class PlainPrivate(Owner):
    """One client's; see the module."""

    __slots__ = (
        "_accepts",
        "_client",
        "_credentials",
        "_gate",
        "_idle",
        "_is_over",
        "_offered",
        "_owed",
        "_queued",
        "_sent_at",
        "_session",
        "_target",
        "_upstreams",
        "_urls",
    )

    def __init__(
        self,
        client: Client,
        credentials: Credentials,
        urls: Sequence[str],
        terms: tuple[Upstreams, Target, Gate, float],
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._urls = urls
        self._upstreams, self._target, self._gate, self._idle = terms
        self._session: int | None = None
        self._queued: list[Waiting] | None = None
        self._owed = 0
        self._is_over = False
        self._accepts = False
        self._sent_at = 0.0
        self._offered: Sequence[str] = ()

    def begin(self, subprotocols: Sequence[str]) -> None:
        """Open it for a client that waits for that."""
        self._accepts = True
        self._enter(subprotocols, [])

    def send(self, data: bytes, subprotocol: str | None, *, is_text: bool, is_owed: bool = True) -> None:
        """Pass a message on; one that `is_owed` an acknowledgement gets it once the backend keeps pace.

        `subprotocol` is what the client speaks.
        """
        message = Waiting(data, is_text, is_owed)
        if self._session is not None:
            self._pass_on(message)
            return
        try:
            self._client.budget.require(message.cost)
        except LimitReached as error:
            self._client.over_budget(error)
            return
        if self._queued is not None:
            self._queued.append(message)
        else:
            self._enter(() if subprotocol is None else (subprotocol,), [message])

    def end(self, code: int, reason: str) -> None:
        """The client is gone, with this code."""
        if self._queued is not None:
            self._gate.call_off(self)
            self._take_queued()
        self._is_over = True
        if self._session is not None:
            self._upstreams.close(self._session, (code, reason))

    def fail(self) -> None:
        """What it has lost nobody can tell: the client goes, and may come back."""
        self._client.fail()

    def _enter(self, subprotocols: Sequence[str], queued: list[Waiting]) -> None:
        self._offered, self._queued = subprotocols, queued
        if not self._gate.enter(self):
            self._take_queued()
            bound = self._gate.count_max
            self._client.over_bound(f"{bound + 1} private connections are over the bound of {bound}")

    def _take_queued(self) -> list[Waiting]:
        """What waits; it waits no longer."""
        queued, self._queued = self._queued or [], None
        self._client.budget.release(sum(message.cost for message in queued))
        return queued

    @property
    def is_open(self) -> bool:
        """Whether it has a session, or waits to have one."""
        return self._session is not None or self._queued is not None

    def open(self) -> None:
        """It is its turn."""
        queued = self._take_queued()
        self._session = self._upstreams.open_plain(
            self,
            self._target,
            self._offered,
            ("private", self._client.id, self._accepts),
            headers=self._credentials.headers,
            urls=self._urls,
            idle=None if self._accepts else self._idle,
        )
        for message in queued:
            self._pass_on(message)

    def _pass_on(self, message: Waiting) -> None:
        assert self._session is not None
        self._sent_at = self._gate.timers.now()
        waiting = self._upstreams.send_message(self._session, message.data, is_text=message.is_text)
        # Without a number it has just ended, and says so in a moment: then the client is closed, and this was too late.
        if waiting is not None and waiting > self._target.queue_bytes_max:
            self._owed += message.is_owed
        elif message.is_owed:
            self._client.acknowledge()

    # What the session tells

    def opened(self, event: Upstream) -> None:
        """The backend has agreed."""
        if self._accepts and not self._is_over:
            self._client.arrived(event.subprotocol)

    def happened(self, event: Upstream) -> None:
        """It is idle, or takes more again."""
        if event.session != self._session:
            return
        if event.kind == "drained":
            self._acknowledge_owed()
        elif event.kind == "idle" and self._gate.timers.now() - self._sent_at >= self._idle:
            self._upstreams.close(self._session, (1000, ""))
            self._session = None  # what comes now goes over another one

    def closed(self, event: Upstream) -> None:
        """It is gone."""
        self._gate.leave()
        if event.session != self._session:
            return  # it was idle, and closed for that
        self._session = None
        if self._is_over:
            return
        self._acknowledge_owed()
        if event.was_open:
            self._client.hung_up(event)
        else:
            if event.status is None:
                relay_log.warning("client %s: no connection to the backend: %s", name_of(self._client.id), event.text)
            self._client.turned_away(event.status)

    def _acknowledge_owed(self) -> None:
        owed, self._owed = self._owed, 0
        for _ in range(owed):
            self._client.acknowledge()
