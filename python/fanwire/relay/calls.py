"""What clients of a SignalR relay share: lanes, by their calls; pools; and what those are answered who leave a lane."""

from collections.abc import Callable

from fanwire.relay.backed import Backed, Surroundings
from fanwire.relay.broadcast import Broadcasts
from fanwire.relay.config import CallShare, RelayConfig
from fanwire.relay.everyones import Everyones
from fanwire.relay.lane import CallLane, CallLaneContext
from fanwire.relay.pool import Pool, Pooling
from fanwire.relay.shared import SharedCall
from fanwire.relay.unsubscribing import LearnedAnswers


class CallRelay(Backed[SharedCall, CallLane]):
    """The relay, as its clients need it.

    Args:
        turn_away: closes the client of this number, with the words in which the backend refused its hub protocol.
    """

    def __init__(self, config: RelayConfig, around: Surroundings, turn_away: Callable[[int, str], None]) -> None:
        super().__init__(config, around)
        shares = [share for share in config.share if isinstance(share, CallShare)]
        self.subscribing = {share.subscribe.casefold(): share for share in shares}
        self.unsubscribing = {share.unsubscribe.casefold(): share for share in shares if share.unsubscribe is not None}
        self.pooled = {method.casefold(): method for method in config.private.pooled}
        everyone, welcome = frozenset(config.everyone.targets), frozenset(config.everyone.welcome)
        subscribing = frozenset(share.subscribe.lower() for share in shares)
        self.private_context = self._upstreams, self._own, everyone | welcome, subscribing
        everyones = Everyones(config.path, config.everyone.targets, self._timers.later)
        self._context = CallLaneContext(*self._of_lanes, everyone | welcome, self.names, everyones)
        self.broadcasts = Broadcasts(self._context, ("broadcast", config.path, everyone, welcome), turn_away)
        self.answers = LearnedAnswers(self._context)
        self._pools: dict[str, Pool] = {}

    def open_lane(self, share: CallShare, call: SharedCall) -> CallLane:
        """The lane of this call, which has none yet."""
        return self._keep(call, lambda name, on_end: CallLane(name, share, call, self._context, on_end))

    def pool_of(self, protocol: str) -> Pool:
        """The shared connections for pooled methods."""
        pool = self._pools.get(protocol)
        if pool is None:
            private = self.config.private
            pool = self._pools[protocol] = Pool(self._context, protocol, private.pool_size, private.idle)
        return pool

    def forget(self, client: Pooling) -> None:
        """A client is gone: what waits for it elsewhere is for nobody."""
        self.answers.gone(client)
        for pool in self._pools.values():
            pool.gone(client)

    def _broadcasts_stats(self) -> dict[str, str]:
        return self.broadcasts.stats()
