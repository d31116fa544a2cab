"""What one client of a SignalR relay has for itself: its connection to the backend, and its subscriptions there.

Made for a client that says something which is not shared: most never do.
"""

from dataclasses import dataclass, field
from typing import Protocol

from fanwire._engine import Upstream
from fanwire.errors import LimitReached
from fanwire.logs import name_of, relay_log
from fanwire.relay.calls import CallRelay
from fanwire.relay.credentials import Credentials
from fanwire.relay.session import CallLine, Session, UpstreamMessage
from fanwire.relay.shared import SharedCall
from fanwire.relay.upstreams import REFUSING
from fanwire.relay.wire import LOST, UNREACHABLE, Asked, Caller
from fanwire.wording import INTERNAL_ERROR

RESTART = 1012
"""The close code with which a SignalR client is told to come back."""
REFUSED = "The backend refused the connection."


@dataclass(slots=True)
class OwnSubscription:
    """One that a client has over its own connection, or has asked for there."""

    asked: set[str] = field(default_factory=set)
    """Ids of the calls that are not answered yet."""
    is_had: bool = False


class PrivateClient(Caller, Protocol):
    """Whose it is."""

    protocol: str

    def acknowledge(self) -> None:
        """A message is dealt with."""

    def no_room(self, call: Asked | None, error: LimitReached) -> None:
        """It sends more than may wait for it."""


class PrivateSide:
    """One client's."""

    __slots__ = ("_client", "_relay", "_session", "budget", "id", "subscriptions")

    def __init__(self, relay: CallRelay, client: PrivateClient, credentials: Credentials) -> None:
        self.id, self.budget = client.id, client.budget
        self.subscriptions: dict[SharedCall, OwnSubscription] = {}
        """Those that the shared lane was refused, or may be."""
        self._relay, self._client = relay, client
        upstreams, backend, dropped, reported = relay.private_context
        idle = relay.config.private.idle
        line = CallLine(upstreams, backend, idle, self.id, client.protocol, credentials, dropped, reported)
        self._session = Session(self, line, upstreams, relay.gate)

    def hold(self) -> None:
        """Have the connection from now on."""
        self._session.hold(self._relay.backoff())

    def send(self, call: Asked | None, record: bytes, *, is_owed: bool) -> None:
        """Pass a message on; see ``UpstreamMessage``."""
        self._session.send(UpstreamMessage(call, record, is_text=True, is_owed=is_owed))

    def end(self) -> None:
        """The client is gone."""
        self._session.end()

    # Its subscriptions

    def note(self, call: SharedCall, id: str) -> None:
        """It subscribes with a call of this id. Raises LimitReached where its budget has no room for that."""
        own = self.subscriptions.get(call)
        if own is None:
            self.budget.require(call.cost)
            own = self.subscriptions[call] = OwnSubscription()
        if id:
            own.asked.add(id)
        else:
            own.is_had = True  # nobody will hear otherwise
        self._session.pins = len(self.subscriptions)

    def unsubscribe(self, call: SharedCall) -> None:
        """It is about to leave this one, if it has it."""
        if call in self.subscriptions:
            self._keep(without=call)

    def unanswered(self, id: str) -> None:
        """A call of this id was not answered by the backend, and never will be."""
        for own in self.subscriptions.values():
            own.asked.discard(id)
        self._keep()

    def _keep(self, without: SharedCall | None = None) -> None:
        """Forget those that it neither has nor waits for."""
        subscriptions = self.subscriptions
        over = [call for call, own in subscriptions.items() if call == without or not (own.is_had or own.asked)]
        for call in over:
            del subscriptions[call]
            self.budget.release(call.cost)
        self._session.pins = len(subscriptions)

    # What the connection tells

    def subscribed_privately(self, id: str, *, is_refused: bool) -> None:
        """The backend has answered a call that subscribes."""
        for own in self.subscriptions.values():
            if id in own.asked:
                own.asked.discard(id)
                own.is_had |= not is_refused
        self._keep()

    def arrived(self, subprotocol: str | None) -> None:
        """The client was in before."""

    def acknowledge(self) -> None:
        """A message is dealt with."""
        self._client.acknowledge()

    def no_room(self, call: Asked | None, error: LimitReached) -> None:
        """There is no room in which a message could wait."""
        self._client.no_room(call, error)

    def over_bound(self, call: Asked | None, why: str) -> None:
        """There may be no more private connections."""
        if call is not None:
            self._client.failed(call, why)

    def fail(self) -> None:
        """What its connection has lost nobody can tell: it goes, and may come back."""
        self._relay.endings.close(self.id, 1011, INTERNAL_ERROR)

    def lost(self, event: Upstream) -> bool:
        """The connection is gone. Whether the client stays."""
        endings = self._relay.endings
        if event.said:  # the backend ended the client's connection, and so do we
            code = RESTART if event.may_reconnect else 1000
            endings.close(self.id, code, event.text, is_hub=True)
            return False
        for own in self.subscriptions.values():
            own.asked.clear()  # who waits for an answer is told below
        self._keep()
        for id in event.pending:
            is_refused = event.status in REFUSING or event.fault in ("handshake", "request")
            refusal = REFUSED if is_refused else UNREACHABLE
            endings.fail_call(self.id, id, LOST if event.was_open else refusal)
        if not event.was_open:
            relay_log.warning("client %s: no private connection: %s", name_of(self.id), event.text)
            for own in self.subscriptions.values():
                own.is_had = False  # those that asked for one have been told
            self._keep()
        if self.subscriptions:
            relay_log.info("client %s is told to come back: its private subscriptions are lost", name_of(self.id))
            endings.close(self.id, RESTART, "")
        return not self.subscriptions
