"""What clients of a SignalR relay share: lanes, by their calls; pools; and what those are answered who leave a lane."""

from collections.abc import Callable, Iterable
from typing import Any

from fanwire.relay.backed import Backed, SharedLane, Surroundings
from fanwire.relay.broadcast import BroadcastLane, Broadcasts
from fanwire.relay.config import CallShare, RelayConfig
from fanwire.relay.driver import Lane
from fanwire.relay.everyones import Everyones
from fanwire.relay.lane import CallLane, CallLaneContext
from fanwire.relay.mirror import Part, ToldOutcome
from fanwire.relay.offering import Offers
from fanwire.relay.pool import Pool, Pooling
from fanwire.relay.shared import SharedCall
from fanwire.relay.timing import Pace
from fanwire.relay.unsubscribing import LearnedAnswers
from fanwire.relay.wire import Outcome

LEFT = "left"
"""What a worker tells: how the backend answers those who unsubscribe."""


class CallRelay(Backed[SharedCall, CallLane]):
    """The relay, as its clients need it.

    Args:
        turn_away: closes the client of this number, with the words in which the backend refused its hub protocol.
        present: gives the clients that have shaken hands and speak this hub protocol.
    """

    def __init__(
        self,
        config: RelayConfig,
        around: Surroundings,
        turn_away: Callable[[int, str], None],
        present: Callable[[str], Iterable[int]],
    ) -> None:
        super().__init__(config, around)
        shares = [share for share in config.share if isinstance(share, CallShare)]
        self.subscribing = {share.subscribe.casefold(): share for share in shares}
        self.unsubscribing = {share.unsubscribe.casefold(): share for share in shares if share.unsubscribe is not None}
        self.pooled = {method.casefold(): method for method in config.private.pooled}
        everyone, welcome = frozenset(config.everyone.targets), frozenset(config.everyone.welcome)
        subscribing = frozenset(share.subscribe.lower() for share in shares)
        self.private_context = self._upstreams, self._own, everyone | welcome, subscribing
        everyones = Everyones(config.path, config.everyone.targets, self._timers.later)
        self.offers: Offers[CallLane] = Offers(may_be=not welcome)
        self._context = CallLaneContext(*self._of_lanes, everyone | welcome, self.names, everyones, self.offers)
        route = "broadcast", config.path, everyone, welcome
        self.broadcasts = Broadcasts(self._context, route, turn_away, present, self._part_for_all, self._note_for_all)
        self.answers = LearnedAnswers(self._context, self._tell_learned)
        self._pools: dict[str, Pool] = {}
        self.pace = Pace(config.lanes.subscribe_rate)
        """Of each client's subscriptions."""

    def open_lane(self, share: CallShare, call: SharedCall) -> CallLane:
        """The lane of this call, which has none yet."""
        return self._hold_or_mirror(share, call)

    def _hold_or_mirror(self, share: CallShare, call: SharedCall, *, is_held: bool = False) -> CallLane:
        def make(name: str, on_end: Callable[[Lane[Any]], None], part: Part | None) -> CallLane:
            return CallLane(name, share, call, self._context, on_end, part)

        return self._keep(call, ["call", *call], make, is_held=is_held)

    # Over workers

    def _tell_learned(self, method: str, protocol: str, outcome: Outcome) -> None:
        self._tell_others(LEFT, method, protocol, outcome.outcome, outcome.body)

    def heard(self, worker: int, what: str, *said: Any) -> None:
        """See ``Sharer``."""
        if what == LEFT:
            method, protocol, *outcome = said
            self.answers.learn(method, protocol, ToldOutcome(*outcome))
        else:
            super().heard(worker, what, *said)

    def welcome(self, worker: int) -> None:
        """See ``Sharer``."""
        super().welcome(worker)
        if self._sharing is not None:
            for method, protocol, outcome in self.answers.known:
                said = method, protocol, outcome.outcome, outcome.body
                self._sharing.tell_relays(self.config.path, LEFT, *said, to=worker)

    def _part_for_all(self, protocol: str, is_held: bool) -> Part | None:
        return self.part_of(["all", protocol], is_held=is_held)

    def _note_for_all(self, lane: BroadcastLane, is_there: bool) -> None:
        if lane.part is not None:
            self._note_shared(lane.part, lane, is_there=is_there)

    def _open_for_other(self, what: Any) -> SharedLane | str | None:
        match what:
            case ["all", str(protocol)]:
                return self.broadcasts.hold(protocol)
            case ["call", str(method), str(protocol), bytes(arguments)]:
                share = self.subscribing.get(method.casefold())
                if share is None:
                    return None
                call = SharedCall(method, protocol, arguments)
                return self._hold_or_mirror(share, call, is_held=True) if self.has_room() else self.over_max
        return None

    def pool_of(self, protocol: str) -> Pool:
        """The shared connections for pooled methods."""
        pool = self._pools.get(protocol)
        if pool is None:
            private = self.config.private
            size = private.pool_size if self._workers is None else self._workers.part_of_each(private.pool_size)
            pool = self._pools[protocol] = Pool(self._context, protocol, size, private.idle)
        return pool

    def forget(self, client: Pooling) -> None:
        """A client is gone: what waits for it elsewhere is for nobody."""
        self.answers.gone(client)
        for pool in self._pools.values():
            pool.gone(client)

    def _broadcasts_stats(self) -> dict[str, str]:
        return self.broadcasts.stats()
