"""A client of a relay of plain WebSockets: which of its messages go where. Not here: lanes' lives, bytes.

A message that subscribes goes to the lane of its value, one that unsubscribes leaves it; everything else is private.
"""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

from fanwire._engine import Relayed, Upstream, may_be_sent
from fanwire.auth import ResponseHeaders
from fanwire.budget import ENTRY_BYTES
from fanwire.errors import ClientGone, LimitReached
from fanwire.logs import name_of, relay_log
from fanwire.relay.admit import Verdict, nothing
from fanwire.relay.backed import Backed
from fanwire.relay.credentials import Credentials
from fanwire.relay.lane import PlainLane
from fanwire.relay.session import Gate, PlainLine, Session, UpstreamMessage
from fanwire.relay.shared import too_large
from fanwire.relay.timing import Bucket
from fanwire.relay.upstreams import Backend, Upstreams, status_of
from fanwire.relay.wire import NO_CALL, Asked
from fanwire.wording import INTERNAL_ERROR

GONE = "the backend is gone"
LEFT = 1001
"""What the backend is told of a client that ended without a close frame of its own."""


class Wish(NamedTuple):
    """To watch or to watch no longer what others may watch, too."""

    is_subscribing: bool
    key: Any
    """Of the lane."""
    message: bytes
    """The client's message in its one form: what a lane sends."""
    what: Any
    """The value."""


class MessageRelay(Backed[Any, PlainLane]):
    """The relay, as its clients need it."""

    def wish_of(self, message: Relayed, subprotocol: str | None) -> Wish | None:
        """What a message wishes for that is shared; None of any other."""
        raise NotImplementedError

    def open_lane(self, wish: Wish) -> PlainLane:
        """The lane of this wish, which has none yet."""
        raise NotImplementedError


class PlainClient:
    """One client; the pump hands it what the client sent."""

    __slots__ = (
        "_bucket",
        "_is_in",
        "_is_over",
        "_lanes",
        "_line",
        "_private",
        "_relay",
        "_subprotocol",
        "budget",
        "forget_asking",
        "headers",
        "id",
    )

    def __init__(
        self,
        relay: MessageRelay,
        connection: int,
        credentials: Credentials,
        urls: Sequence[str],
        context: tuple[Upstreams, Backend, Gate, float],
    ) -> None:
        self.id = connection
        self.budget = relay.budgets.open()
        """What waits on its behalf."""
        self.headers = ResponseHeaders()
        """What stands in the answer to its upgrade."""
        self.forget_asking: Callable[[], object] = nothing
        """Calls off the question whether it may connect."""
        self._relay = relay
        self._lanes: set[PlainLane] = set()
        self._is_in = False
        self._is_over = False
        self._subprotocol: str | None = None
        self._bucket = Bucket(relay.config.lanes.subscribe_rate)
        upstreams, backend, gate, idle = context
        self._line = PlainLine(upstreams, backend, idle, connection, credentials, urls)
        self._private = Session(self, self._line, upstreams, gate)

    # Its opening

    @property
    def is_over(self) -> bool:
        """It is gone, or turned away."""
        return self._is_over

    def join(self, lane: PlainLane) -> None:
        """Let it in with that lane, which it then watches."""
        self._lanes.add(lane)
        lane.admit(self)

    def open_privately(self, subprotocols: Sequence[str]) -> None:
        """Let it in with a connection of its own."""
        self._line.offered, self._line.accepts = subprotocols, True
        self._private.begin()

    def let_in(self, subprotocol: str | None) -> None:
        """The backend has agreed: the client's upgrade is answered."""
        self._relay.engine.accept_relayed(self.id, subprotocol, list(self.headers))
        self.arrived(subprotocol)

    def arrived(self, subprotocol: str | None) -> None:
        """It is in, with this one, which its own connection is opened with, too."""
        if not self._is_in:
            self._is_in, self._subprotocol = True, subprotocol
            self._line.offered = () if subprotocol is None else (subprotocol,)

    def turned_away(self, status: int | None) -> None:
        """The backend has refused with that status, or cannot be reached."""
        if self._is_in:
            refused = f"the backend refused the connection with status {status}"
            self._close(*((1008, refused) if status else (1012, GONE)))
        else:
            self._refuse(*Verdict(status or 0).refusal)

    def close_over_bound(self, why: str) -> None:
        """A bound is reached: it is closed with what that is."""
        if not self._is_in:
            self.let_in(None)
        self._close(1008, why)

    def over_bound(self, call: Asked | None, why: str) -> None:
        """There may be no more private connections."""
        self.close_over_bound(why)

    def no_room(self, call: Asked | None, error: LimitReached) -> None:
        """More waits for it than may: it is closed."""
        if self._is_in:
            self._close(1013, str(error))
        else:
            self._refuse(503, str(error))

    def fail(self) -> None:
        """Something went wrong that nobody expected: it goes, connected or not."""
        if self._is_in:
            self._close(1011, INTERNAL_ERROR)
        else:
            self._refuse(500, INTERNAL_ERROR)

    def _refuse(self, status: int, reason: str) -> None:
        self._is_over = True
        self._relay.endings.refuse(self.id, status, reason)

    # What it sends

    def take(self, message: Relayed) -> None:
        """Have a message go where it belongs. Each is acknowledged once."""
        if self._is_over:
            self.acknowledge()
            return
        wish = self._relay.wish_of(message, self._subprotocol)
        if wish is not None:
            lane = self._relay.lanes.get(wish.key)
            if wish.is_subscribing:
                self._subscribe(wish, lane)
                self.acknowledge()
                return
            if lane is not None and lane in self._lanes:
                self._drop(lane)
                lane.leave(self)
                self.acknowledge()
                return
        self._private.send(UpstreamMessage(NO_CALL, message.data, message.is_text, is_owed=True))

    def _subscribe(self, wish: Wish, lane: PlainLane | None) -> None:
        relay, limits = self._relay, self._relay.config.lanes
        if lane is not None and lane in self._lanes:
            return
        if not self._bucket.try_take(monotonic()):
            self._tell_error(f"more than {limits.subscribe_rate:g} subscriptions a second")
        elif len(self._lanes) >= limits.per_client_max:
            self._tell_error(f"{len(self._lanes) + 1} subscriptions are over the bound of {limits.per_client_max}")
        elif len(wish.message) > relay.config.upstream_message_bytes_max:
            self._tell_error(str(too_large(len(wish.message), relay.config.upstream_message_bytes_max)))
        elif lane is None and not relay.has_room([*wish.key, wish.message]):
            self._tell_error(relay.over_max)
        else:
            self._watch(wish, lane)

    def _watch(self, wish: Wish, lane: PlainLane | None) -> None:
        cost = cost_of(wish.message)
        try:
            self.budget.require(cost)
        except LimitReached as error:
            self._tell_error(str(error))
            return
        try:
            lane = lane or self._relay.open_lane(wish)
            self._lanes.add(lane)
            lane.watch(self)
        except LimitReached as error:  # such as channels_max: the client stays as it was
            self.budget.release(cost)
            if lane is not None:
                self._lanes.discard(lane)
                lane.leave(self)
            self._tell_error(str(error))

    def refused(self, lane: PlainLane, message: bytes) -> None:
        """The backend refused the lane of this message: it goes in the client's own name."""
        self._drop(lane)
        self._private.send(UpstreamMessage(NO_CALL, message, is_text=True, is_owed=False))

    def _drop(self, lane: PlainLane) -> None:
        self._lanes.discard(lane)
        if lane.message is not None:
            self.budget.release(cost_of(lane.message))

    def _tell_error(self, error: str) -> None:
        self._relay.engine.send(self.id, {"error": error})

    # Its end

    def lost(self, event: Upstream) -> bool:
        """Its own connection is gone, and so it goes: the backend's close code is its own. It does not stay."""
        if not event.was_open:
            if event.status is None:
                relay_log.warning("client %s: no connection to the backend: %s", name_of(self.id), event.text)
            self.turned_away(status_of(event))
        elif event.code is None:
            relay_log.info("client %s: its connection to the backend is lost: %s", name_of(self.id), event.text)
            self._close(1012, GONE)
        elif may_be_sent(event.code):
            self._close(event.code, event.reason)
        else:
            self._close(1000, "")
        return False

    def subscribed_privately(self, id: str, *, is_refused: bool) -> None:
        """Nothing answers what it sends."""

    def end(self, gone: ClientGone) -> None:
        """The client is gone."""
        self._is_over = True
        self.forget_asking()
        for lane in self._lanes:
            with self._relay.faults.contained(
                "relay.gone", "client %s could not be taken from %s", name_of(self.id), lane
            ):
                lane.gone(self)
        self._lanes.clear()
        says = gone.by == "client" and may_be_sent(gone.close_code)
        self._private.end((gone.close_code, gone.reason) if says else (LEFT, ""))

    def acknowledge(self) -> None:
        """A message is dealt with."""
        self._relay.acknowledge(self.id)

    def _close(self, code: int, reason: str) -> None:
        self._is_over = True
        self._relay.endings.close(self.id, code, reason)


def cost_of(message: bytes) -> int:
    """What a client is charged for as long as it watches what it sent this for, in bytes."""
    return len(message) + ENTRY_BYTES
