"""A client of a relay: which of its calls go where. Not here: lanes' lives, bytes.

A call that subscribes goes to the lane of its method and arguments; one that unsubscribes leaves it. Pooled methods go
over shared connections. Everything else, and what the lane was refused but the client may be allowed, is private.

There are hundreds of thousands of clients, most of which watch one lane and say nothing else. What such a one does not
need is made when it is needed: its own connection (``private``), and a queue.
"""

from collections import deque
from time import monotonic

from fanwire._engine import Connected, HubMessage
from fanwire._loop import ends_task
from fanwire.budget import ENTRY_BYTES, Budget
from fanwire.errors import LimitReached, PayloadTooBig
from fanwire.logs import name_of
from fanwire.relay.calls import CallRelay
from fanwire.relay.config import CallShare
from fanwire.relay.credentials import Credentials
from fanwire.relay.lane import CallLane
from fanwire.relay.private import REFUSED, PrivateSide
from fanwire.relay.shared import SharedCall, call_of
from fanwire.relay.wire import Asked, Outcome
from fanwire.wording import INTERNAL_ERROR, failed_to_invoke

OVERLOADED = 1013
"""The close code of a client for which too much waits."""


class RelayedClient:
    """One client, from its asking to connect on; the relay hands it what the client sent."""

    __slots__ = (
        "_budget",
        "_busy_until",
        "_credentials",
        "_held",
        "_private",
        "_relay",
        "id",
        "is_convicted",
        "is_turned_away",
        "lanes",
        "protocol",
    )

    def __init__(self, relay: CallRelay, id: int, credentials: Credentials) -> None:
        self.id = id
        self.protocol = ""
        """``json`` or ``messagepack``; empty until it has shaken hands."""
        self.lanes: tuple[CallLane, ...] = ()
        """Those that it watches, or has asked to watch: one as a rule, ``lanes.per_client_max`` at most."""
        self.is_convicted = False
        """Whether a call of this client's ended a pooled connection, and again when alone, or held one up for long."""
        self.is_turned_away = False
        """Whether it is being closed: then nothing that it sent or sends is dealt with."""
        self._relay = relay
        self._credentials = credentials
        # Until its subscriptions are made up for; see ``Pace``.
        self._busy_until = 0.0
        # What waits for the broadcast lane.
        self._held: deque[HubMessage] | None = None
        self._private: PrivateSide | None = None
        self._budget: Budget | None = None

    @property
    def budget(self) -> Budget:
        """What waits on its behalf, and what its lanes cost: made when there is more than one lane's."""
        if self._budget is None:
            self._budget = self._relay.budgets.open()
            self._budget.bytes = sum(lane.call.cost for lane in self.lanes)
        return self._budget

    def connected(self, event: Connected) -> None:
        """It has shaken hands."""
        self.protocol = "messagepack" if event.hub_protocol == "messagepack" else "json"  # for all the same str

    def hold(self) -> None:
        """Have its private lane from now on, if it is somebody."""
        if self._credentials.are_any:
            self._own().hold()

    def _own(self) -> PrivateSide:
        """What it has for itself, from the first time on that it is needed."""
        if self._private is None:
            self._private = PrivateSide(self._relay, self, self._credentials)
        return self._private

    # What comes

    def take(self, event: HubMessage) -> None:
        """Have a message go where it belongs. Each is acknowledged once."""
        if self._held is not None:
            self._hold(event)
        elif not self._relay.broadcasts.when_ready(self.protocol, self.release):
            self._held = deque()
            self._hold(event)
        else:
            self._route(event)

    def _hold(self, event: HubMessage) -> None:
        assert self._held is not None
        try:
            self.budget.require(cost_of(event))
        except LimitReached as error:
            self.no_room(Asked(event.id, event.target) if event.kind in ("invocation", "stream") else None, error)
            self.acknowledge()
        else:
            self._held.append(event)

    def release(self) -> None:
        """The broadcast lane is there, or cannot be had: go on."""
        held, self._held = self._held or (), None
        for event in held:
            self.budget.release(cost_of(event))
            self._route(event)

    def end(self) -> None:
        """The client is gone."""
        self._held = None
        self._relay.forget(self)
        self._relay.broadcasts.forget(self.protocol, self.release)
        for lane in self.lanes:
            with self._relay.faults.contained(
                "relay.gone", "client %s could not be taken from %s", name_of(self.id), lane
            ):
                lane.gone(self)
        self.lanes = ()
        if self._private is not None:
            self._private.end()

    def _route(self, event: HubMessage) -> None:
        """Nothing that a client sends ends more than its call."""
        try:
            self._pass_on(event)
        except BaseException as error:
            self._fail(event, error)
            self.acknowledge()

    def _fail(self, call: Asked | HubMessage, error: BaseException) -> None:
        """Answer a call with what kept it from being dealt with: it is nobody else's."""
        if ends_task(error):
            raise error
        is_told = isinstance(error, LimitReached)
        if not is_told:
            text = "client %s: a call of %r could not be dealt with"
            self._relay.faults.note("relay.call", error, text, name_of(self.id), call.target)
        self._tell(call, str(error) if is_told else INTERNAL_ERROR)

    def _pass_on(self, event: HubMessage) -> None:
        if event.kind in ("invocation", "stream"):
            self._relay.names.called(event.target)
        if event.kind == "invocation" and not event.stream_ids:
            relay, target = self._relay, event.target.casefold()
            share = relay.subscribing.get(target)
            if share is not None:
                if self._subscribe(share, event):
                    self.acknowledge()
                return
            share = relay.unsubscribing.get(target)
            if share is not None and self._unsubscribe(share, event):
                self.acknowledge()
                return
            method = relay.pooled.get(target)
            if method is not None and self._pool(method, event):
                return  # it is acknowledged when it has ended
        self._send(event)

    def _subscribe(self, share: CallShare, event: HubMessage) -> bool:
        """Have it watch; False when its private lane has the call, and acknowledges it."""
        relay, limits = self._relay, self._relay.config.lanes
        busy_until = relay.pace.take(self._busy_until, monotonic())
        if busy_until is None:
            self._tell(event, f"more than {limits.subscribe_rate:g} subscriptions a second")
            return True
        self._busy_until = busy_until
        call = call_of(share.subscribe, self.protocol, event.body)
        if call is None:
            self._send(event)
            return False
        own = {} if self._private is None else self._private.subscriptions
        if call in own:
            self._own().note(call, event.id)
            self._send(event)
            return False
        lane = relay.lanes.get(call)
        count = len(self.lanes) + len(own) + 1
        if lane not in self.lanes and count > limits.per_client_max:
            self._tell(event, f"{count} subscriptions are over the bound of {limits.per_client_max}")
            return True
        if lane is None:
            call.check(relay.config.upstream_message_bytes_max, share.unsubscribe or "")
            if not relay.has_room(["call", *call]):
                self._tell(event, relay.over_max)
                return True
        if lane not in self.lanes:
            self._charge(call)
            try:
                lane = lane or relay.open_lane(share, call)
            except BaseException:
                self._discharge(call)
                raise
            self._add(lane)
        self._watch(lane, Asked(event.id, event.target))
        return True

    def joined(self, lane: CallLane, offer: int) -> None:
        """Its first call was answered by the engine: it watches already."""
        relay = self._relay
        relay.names.called(lane.share.subscribe)
        self._charge(lane.call)  # others watch it, so it is not too much for one that watches nothing else
        self._add(lane)
        lane.came(self, offer)

    def _watch(self, lane: CallLane, call: Asked) -> None:
        try:
            lane.subscribe(self, call)
        except LimitReached:  # such as channels_max: it is this client's alone
            if not lane.has(self):
                self._forget(lane)
                lane.gone(self)
            raise
        except BaseException:  # what has become of the lane nobody can tell
            lane.fail()
            raise

    def _unsubscribe(self, share: CallShare, event: HubMessage) -> bool:
        """Leave the lane; False when the client is not on it, and the call is the backend's to answer."""
        call = call_of(share.subscribe, self.protocol, event.body)
        lane = None if call is None else self._relay.lanes.get(call)
        if lane is None or lane not in self.lanes:
            if call is not None and self._private is not None:
                self._private.unsubscribe(call)
            return False
        lane.unsubscribe(self, Asked(event.id, event.target))
        return True

    def _pool(self, method: str, event: HubMessage) -> bool:
        """Have its call made over a shared connection; False of one that can only be its own."""
        call = None if self.is_convicted else call_of(method, self.protocol, event.body)
        if call is None:
            return False
        call.check(self._relay.config.upstream_message_bytes_max)
        return self._relay.pool_of(self.protocol).call(self, Asked(event.id, event.target), call)

    # What its lanes say

    def complete(self, call: Asked, outcome: Outcome) -> None:
        """The call ended so, for everybody who makes it."""
        if not call.id:
            return
        try:
            self._relay.engine.complete_raw(self.id, call.id, outcome.outcome, outcome.body)
        except PayloadTooBig as error:
            self._tell(call, str(error))
        except BaseException as error:
            self._fail(call, error)

    def refused(self, lane: CallLane, call: Asked, outcome: Outcome | None) -> None:
        """The backend refused the lane: a client that is somebody asks in its own name."""
        self._forget(lane)
        if self._credentials.are_any and lane not in self.lanes:
            try:
                self._own().note(lane.call, call.id)
            except LimitReached as error:
                self._tell(call, str(error))
                return
            try:
                self.call_by_itself(call, lane.call.record(call.id))
            except BaseException as error:
                self._fail(call, error)
        elif outcome is not None:
            self.complete(call, outcome)
        else:
            self.failed(call, REFUSED)

    def given_up(self, lane: CallLane, call: Asked, why: str) -> None:
        """The call to watch a lane could not be made."""
        self._forget(lane)
        self._tell(call, why)

    def failed(self, call: Asked | HubMessage, why: str) -> None:
        """A private or pooled call could not be made."""
        if self._private is not None:
            self._private.unanswered(call.id)
        self._tell(call, why)

    def _tell(self, call: Asked | HubMessage, why: str) -> None:
        if call.id:
            text = f"{failed_to_invoke(call.target)} HubException: {why}"
            self._relay.endings.fail_call(self.id, call.id, text)

    def left(self, lane: CallLane, call: Asked) -> None:
        """The client watches no longer."""
        self._forget(lane)
        if call.id:
            try:
                self._relay.answers.answer(self, lane, call)
            except BaseException as error:
                self._fail(call, error)

    def _forget(self, lane: CallLane) -> None:
        """It is not on the lane any more, unless it has asked for it once more."""
        if lane in self.lanes and not lane.has(self):
            self.lanes = tuple(one for one in self.lanes if one is not lane)
            self._discharge(lane.call)

    def _add(self, lane: CallLane) -> None:
        """It watches one more, which is charged."""
        self.lanes = (*self.lanes, lane) if self.lanes else lane.alone

    def _charge(self, call: SharedCall) -> None:
        """Set aside what a lane costs. Raises LimitReached where there is no room for that."""
        if self._budget is not None or self.lanes or call.cost > self._relay.budgets.bytes_max:
            self.budget.require(call.cost)

    def _discharge(self, call: SharedCall) -> None:
        """Give that back."""
        if self._budget is not None:
            self._budget.release(call.cost)

    # Over its own connection

    def call_by_itself(self, call: Asked, record: bytes) -> None:
        """Make a call, which is acknowledged, over its own connection."""
        self._own().send(call, record, is_owed=False)

    def _send(self, event: HubMessage) -> None:
        """Pass a message on as it came; it is acknowledged once the backend keeps pace."""
        assert event.record is not None  # it is a relayed client's
        call = Asked(event.id, event.target) if event.kind in ("invocation", "stream") else None
        self._own().send(call, event.record, is_owed=True)

    def no_room(self, call: Asked | None, error: LimitReached) -> None:
        """It sends more than may wait for it: a call is refused, and for anything else it is closed."""
        if call is not None:
            self.failed(call, str(error))
        else:
            self._relay.endings.close(self.id, OVERLOADED, error, is_hub=True)

    def acknowledge(self) -> None:
        """A message is dealt with."""
        self._relay.acknowledge(self.id)


def cost_of(event: HubMessage) -> int:
    """What a message is charged while it waits as it is, in bytes."""
    return len(event.record or b"") + len(event.body) + ENTRY_BYTES
