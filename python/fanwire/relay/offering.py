"""Lanes that clients join by their first call in the engine, without a word of Python's: offered, taken back, told of.

A lane is offered while it is live and somebody watches it: then all who make its call are answered alike. The engine
tells of each that it has let join, in order with all else that it tells of that client. Who takes an offer back learns
of how many it is yet to be told: so nobody who watches is ever unknown, and no lane ends that one of them has joined.
"""

from typing import Any, Generic, Protocol, TypeVar

from fanwire.relay.config import CallShare
from fanwire.relay.shared import SharedCall
from fanwire.relay.upstreams import Upstreams
from fanwire.relay.wire import Outcome

OFFERED_BYTES_MAX = 4_096
"""Of a call's arguments: the engine looks for no larger ones."""
L = TypeVar("L")


class Around(Protocol):
    """What a lane has around it."""

    @property
    def upstreams(self) -> Upstreams:
        """With the engine that has its log."""


class OfferedLane(Protocol):
    """What is offered."""

    name: str
    call: SharedCall
    share: CallShare

    @property
    def context(self) -> Around:
        """See ``Around``."""


class Offers(Generic[L]):
    """Those of a relay, by the numbers that the engine gives.

    Args:
        may_be: whether clients may be answered before they are known: not where the backend greets them first.
    """

    __slots__ = ("_lanes", "_left", "may_be", "owner")

    def __init__(self, *, may_be: bool = True) -> None:
        self.may_be = may_be
        self.owner: int | None = None
        """The relay's number, once it has heard of a client."""
        self._lanes: dict[int, L] = {}
        # Of those that were taken back: of how many that joined it is yet to be told.
        self._left: dict[int, int] = {}

    def lane_of(self, offer: int) -> L | None:
        """What was offered under this number."""
        return self._lanes.get(offer)

    def made(self, offer: int, lane: L) -> None:
        """An offer stands."""
        self._lanes[offer] = lane

    def ended(self, offer: int, left: int) -> None:
        """It stands no longer; of so many that joined it is yet to be told."""
        if left > 0:
            self._left[offer] = left
        else:
            self._left.pop(offer, None)
            self._lanes.pop(offer, None)

    def told(self, offer: int) -> bool:
        """One has joined; whether by an offer that stands no longer."""
        left = self._left.get(offer)
        if left is None:
            return False
        self.ended(offer, left - 1)
        return True


class Offering:
    """Of one lane. Raises nothing: an offer is a favour."""

    __slots__ = ("_number", "_offers", "_outdated", "_told", "underway")

    def __init__(self, offers: Offers[Any]) -> None:
        self.underway = 0
        """Who has joined by one that stands no longer, and is yet to be told of."""
        self._offers = offers
        # Of the offer that stands, or stood last; negative of one that does no more.
        self._number = 0
        # How many have joined by the one that stands, as far as is told.
        self._told = 0
        # The last number before what its clients were to be sent away for.
        self._outdated = 0

    def make(self, lane: OfferedLane, outcome: Outcome, age_s: float) -> None:
        """Offer the lane, which is live, if it is not, with the backend's answer of so long ago."""
        if self._number > 0:
            return
        offers, call, share, upstreams = self._offers, lane.call, lane.share, lane.context.upstreams
        is_found = call.method.isascii() and len(call.arguments) <= OFFERED_BYTES_MAX
        if offers.owner is None or not (offers.may_be and is_found):
            return
        bounds = (None, None) if share.snapshot is None else (share.snapshot_messages_max, share.fresh)
        wanted = offers.owner, call.protocol, call.method, call.arguments
        terms = max(0.0, share.fresh - age_s), *bounds
        with upstreams.faults.contained("relay.offer", "%s could not be offered", lane):
            self._number = upstreams.engine.offer_lane(lane.name, wanted, (outcome.outcome, outcome.body), terms)
            self._told = 0
            offers.made(self._number, lane)

    def withdraw(self, lane: OfferedLane) -> None:
        """Take the offer back, if there is one."""
        if self._number > 0:
            number, self._number = self._number, -self._number
            with lane.context.upstreams.faults.contained("relay.offer", "%s may be offered still", lane):
                left = lane.context.upstreams.engine.withdraw_lane(number) - self._told
                self._offers.ended(number, left)
                self.underway += left

    def outdate(self) -> None:
        """Who watches is sent away: so is who has joined, and is not known yet."""
        self._outdated = abs(self._number)

    def told(self, number: int) -> bool:
        """One has joined by the offer of this number; False where it is to be sent away as others were."""
        if self._offers.told(number):
            self.underway -= 1
        elif number == self._number:
            self._told += 1
        return number > self._outdated
