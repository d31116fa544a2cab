"""A client of a relay: which of its calls go where. ✗ lanes' lives ✗ bytes.

A call that subscribes goes to the lane of its method and arguments; one that unsubscribes leaves it. Pooled methods go
over shared connections. Everything else, and what the lane was refused but the client may be allowed, is private.
"""

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from fanwire._engine import Engine, HubMessage, Upstream
from fanwire.client import Client
from fanwire.errors import ClientGone, LimitReached, PayloadTooBig
from fanwire.logs import relay_log
from fanwire.relay.admission import Credentials
from fanwire.relay.config import CallShare, RelayConfig
from fanwire.relay.lane import UNREACHABLE, Lane, Outcome
from fanwire.relay.private import Gate, PrivateLane
from fanwire.relay.timing import Backoff, Bucket
from fanwire.relay.upstreams import REFUSING, Target, Upstreams
from fanwire.signalr import failed_to_invoke
from fanwire.texts import INTERNAL_ERROR, cut_reason

RESTART = 1012
"""The close code with which a SignalR client is told to come back."""
LOST = "The connection to the backend was lost before it answered."
REFUSED = "The backend refused the connection."


class Calling(Protocol):
    """A pool of shared connections."""

    def call(self, caller: "RelayedClient", call: HubMessage) -> None:
        """Make a client's call."""


class Home(Protocol):
    """The relay, as its clients need it."""

    config: RelayConfig
    engine: Engine
    gate: Gate
    private_terms: tuple[Upstreams, Target, frozenset[str], frozenset[str]]
    lanes: dict[Any, Lane]
    subscribing: dict[str, CallShare]
    unsubscribing: dict[str, CallShare]
    pooled: frozenset[str]
    acknowledge: Callable[[int], None]

    def key_of(self, share: CallShare, protocol: str, arguments: bytes) -> Any:
        """What lanes are told apart by; None of arguments that cannot be read, so that nobody shares them."""

    def has_room(self) -> bool:
        """Whether there may be one lane more; one that lingers makes room."""

    def open_lane(self, key: Any, share: CallShare, protocol: str, arguments: bytes) -> Lane:
        """The lane of this key, which has none yet."""

    def answer_unsubscribe(self, client: "RelayedClient", lane: Lane, call: HubMessage) -> None:
        """Answer a client that has left a lane as the backend would have."""

    def pool_of(self, protocol: str) -> Calling:
        """The shared connections for pooled methods."""

    def backoff(self) -> Backoff:
        """How attempts to connect to the backend are spaced."""

    def when_ready(self, protocol: str, go_on: Callable[[], None]) -> bool:
        """Whether clients of this protocol may begin; else `go_on` is called when they may."""


@dataclass(slots=True)
class OwnSubscription:
    """One that a client has over its private lane, or has asked for there."""

    asked: set[str] = field(default_factory=set)
    """Ids of the calls that are not answered yet."""
    is_had: bool = False


class RelayedClient:
    """One client; the pump hands it what the client sent."""

    __slots__ = ("_bucket", "_credentials", "_held", "_own", "_private", "_relay", "id", "lanes", "protocol")

    def __init__(self, relay: Home, client: Client) -> None:
        self.id = client.id
        self.protocol = client.hub_protocol or "json"
        self.lanes: set[Lane] = set()
        """Those that it watches, or has asked to watch."""
        self._own: dict[Hashable, OwnSubscription] = {}
        """By key, the subscriptions of its private lane, because the shared one was refused them."""
        self._relay = relay
        self._held: deque[HubMessage] | None = None
        self._bucket = Bucket(relay.config.lanes.subscribe_rate)
        credentials = client.identity.claims["credentials"] if client.identity else None
        assert isinstance(credentials, Credentials)  # the relay's own admission put them there
        self._credentials = credentials
        self._private = PrivateLane(self, credentials, relay.private_terms, relay.gate, relay.config.private.idle)

    def hold(self) -> None:
        """Have its private lane from now on, if it is somebody."""
        if self._credentials.are_any:
            self._private.hold(self._relay.backoff())

    # What comes, as the pump sees a client's calls

    def take(self, event: HubMessage) -> None:
        """Have a message go where it belongs. Each is acknowledged once."""
        if self._held is not None:
            self._held.append(event)
        elif not self._relay.when_ready(self.protocol, self.release):
            self._held = deque((event,))
        else:
            self._route(event)

    def release(self) -> None:
        """The broadcast lane is there, or cannot be had: go on."""
        held, self._held = self._held or (), None
        for event in held:
            self._route(event)

    def drained(self) -> None:
        """Nobody asks for it."""

    def end(self, gone: ClientGone) -> None:
        """The client is gone."""
        self._held = None
        for lane in self.lanes:
            lane.gone(self)
        self.lanes.clear()
        self._private.end()

    async def ask(self, target: str, arguments: tuple[Any, ...]) -> Any:
        """Of clients that are not relayed."""
        raise TypeError(f"client {self.id} is relayed: it answers to its backend")

    def _route(self, event: HubMessage) -> None:
        """Nothing that a client sends ends more than its call."""
        try:
            self._pass_on(event)
        except Exception as error:
            is_told = isinstance(error, LimitReached)
            if not is_told:
                relay_log.exception("client %d: a call of %r could not be passed on", self.id, event.target)
            self._tell(event, str(error) if is_told else INTERNAL_ERROR)
            self.acknowledge()

    def _pass_on(self, event: HubMessage) -> None:
        if event.kind == "invocation" and not event.stream_ids:
            relay, target = self._relay, event.target.casefold()
            share = relay.subscribing.get(target)
            if share is not None:
                self._subscribe(share, event)
                self.acknowledge()
                return
            share = relay.unsubscribing.get(target)
            if share is not None and self._unsubscribe(share, event):
                self.acknowledge()
                return
            if target in relay.pooled:
                relay.pool_of(self.protocol).call(self, event)  # which acknowledges it when it has ended
                return
        self._private.send(event)

    def _subscribe(self, share: CallShare, event: HubMessage) -> None:
        relay, limits = self._relay, self._relay.config.lanes
        key = relay.key_of(share, self.protocol, event.body)
        if key is None:
            self._private.send(event, is_owed=False)
            return
        if key in self._own:
            self._subscribe_privately(key, event)
            return
        lane = relay.lanes.get(key)
        if not self._bucket.try_take(monotonic()):
            self._tell(event, f"more than {limits.subscribe_rate:g} subscriptions a second")
        elif lane not in self.lanes and len(self.lanes) >= limits.per_client_max:
            self._tell(event, f"{len(self.lanes) + 1} subscriptions are over the bound of {limits.per_client_max}")
        elif lane is None and not relay.has_room():
            self._tell(event, f"{len(relay.lanes) + 1} lanes are over the bound of {limits.max}")
        else:
            if lane is None:
                lane = relay.open_lane(key, share, self.protocol, event.body)
            self.lanes.add(lane)
            lane.subscribe(self, event)

    def _unsubscribe(self, share: CallShare, event: HubMessage) -> bool:
        """Leave the lane; False when the client is not on it, and the call is the backend's to answer."""
        key = self._relay.key_of(share, self.protocol, event.body)
        lane = self._relay.lanes.get(key)
        if lane is None or lane not in self.lanes:
            if self._own.pop(key, None) is not None:
                self._private.pins = len(self._own)
            return False
        lane.unsubscribe(self, event)
        return True

    # What its lanes say

    def complete(self, call: HubMessage, outcome: Outcome) -> None:
        """The call ended so, for everybody who makes it."""
        if not call.id:
            return
        try:
            self._relay.engine.complete_raw(self.id, call.id, outcome.outcome, outcome.body)
        except PayloadTooBig as error:
            self._tell(call, str(error))

    def refused(self, call: HubMessage, outcome: Outcome | None) -> None:
        """The backend refused the lane: a client that is somebody asks in its own name."""
        key = self._leave(call)
        if self._credentials.are_any and key is not None:
            self._subscribe_privately(key, call)
        elif outcome is not None:
            self.complete(call, outcome)
        else:
            self.failed(call, REFUSED)

    def _subscribe_privately(self, key: Hashable, call: HubMessage) -> None:
        own = self._own.setdefault(key, OwnSubscription())
        if call.id:
            own.asked.add(call.id)
        else:
            own.is_had = True  # nobody will hear otherwise
        self._private.pins = len(self._own)
        self._private.send(call, is_owed=False)

    def subscribed_privately(self, id: str, *, is_refused: bool) -> None:
        """The backend has answered a call that subscribes on the private lane."""
        for own in self._own.values():
            if id in own.asked:
                own.asked.discard(id)
                own.is_had |= not is_refused
        self._keep_own()

    def _keep_own(self) -> None:
        self._own = {key: own for key, own in self._own.items() if own.is_had or own.asked}
        self._private.pins = len(self._own)

    def failed(self, call: HubMessage, why: str) -> None:
        """The call could not be made."""
        for own in self._own.values():
            own.asked.discard(call.id)
        self._keep_own()
        self._leave(call)
        self._tell(call, why)

    def _tell(self, call: HubMessage, why: str) -> None:
        if call.id:
            self._relay.engine.complete_error(self.id, call.id, f"{failed_to_invoke(call.target)} HubException: {why}")

    def left(self, lane: Lane, call: HubMessage) -> None:
        """The client watches no longer."""
        if not lane.has(self):  # else it has asked for it once more
            self.lanes.discard(lane)
        self._relay.answer_unsubscribe(self, lane, call)

    def _leave(self, call: HubMessage) -> Any:
        """Forget the call's lane; gives its key, None of another call or where the lane has the client all the same."""
        share = self._relay.subscribing.get(call.target.casefold())
        if share is None:
            return None
        key = self._relay.key_of(share, self.protocol, call.body)
        lane = self._relay.lanes.get(key)
        if lane is not None and lane.has(self):
            return None
        if lane is not None:
            self.lanes.discard(lane)
        return key

    # What its private lane says

    def acknowledge(self) -> None:
        """A message is dealt with."""
        self._relay.acknowledge(self.id)

    def lost(self, event: Upstream) -> bool:
        """The private lane is gone. Whether the client stays."""
        engine = self._relay.engine
        if event.said:  # the backend ended the client's connection, and so do we
            code = RESTART if event.may_reconnect else 1000
            engine.disconnect(self.id, code, cut_reason(event.text))
            return False
        for own in self._own.values():
            own.asked.clear()  # who waits for an answer is told below
        self._keep_own()
        for id in event.pending:
            refusal = REFUSED if event.status in REFUSING else UNREACHABLE
            engine.complete_error(self.id, id, LOST if event.was_open else refusal)
        if not event.was_open:
            relay_log.warning("client %d: no private connection: %s", self.id, event.text)
            self._own.clear()  # those that asked for one have been told
            self._private.pins = 0
        if self._own:
            relay_log.info("client %d is told to come back: its private subscriptions are lost", self.id)
            engine.disconnect(self.id, RESTART, "")
        return not self._own
