"""One relay: a path whose clients are a backend's, over as few connections to it as there are things watched.

It says who may connect (``admit``), keeps the lanes by what they watch (``lane``), the broadcast lanes
(``broadcast``), the pools (``pool``) and its clients (``client``).
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fanwire._engine import Engine, __version__
from fanwire._loop import ends_task
from fanwire.auth import Identity, Request
from fanwire.budget import Budgets
from fanwire.config.kinds import roots_of
from fanwire.errors import ConfigError, PayloadTooBig
from fanwire.faults import Tasks
from fanwire.logs import relay_log
from fanwire.relay.admit import ASKING_PART, HubAdmission
from fanwire.relay.broadcast import BroadcastLane
from fanwire.relay.client import RelayedClient
from fanwire.relay.config import CallShare, RelayConfig
from fanwire.relay.driver import Lane, has_room
from fanwire.relay.everyones import Everyones
from fanwire.relay.headers import Passing
from fanwire.relay.lane import CallLane, CallTerms
from fanwire.relay.names import Names
from fanwire.relay.pool import Pool
from fanwire.relay.servers import Servers
from fanwire.relay.session import Gate
from fanwire.relay.shared import SharedCall
from fanwire.relay.stats import RelayStats, stats_of
from fanwire.relay.timing import Backoff, Timers
from fanwire.relay.unsubscribing import Answers
from fanwire.relay.upstreams import Headers, Target, Upstreams
from fanwire.relay.wire import Asked
from fanwire.texts import INTERNAL_ERROR, name_of
from fanwire.values import Mistake

if TYPE_CHECKING:
    from fanwire.client import Client

RECORD_BYTES_MAX = 1 << 20
"""Of a message from the backend: clients built on ``websockets`` take no more."""
QUEUE_BYTES_MAX = 256 << 10
"""What may wait for the backend of one client's before the client is not read from."""


class Relay:
    """See the module. Lives in the hub's event loop, for one serving."""

    def __init__(
        self,
        config: RelayConfig,
        engine: Engine,
        tasks: Tasks,
        upstreams: Upstreams,
        acknowledge: Callable[[int], None],
        handshake_timeout: float,
        budgets: Budgets,
    ) -> None:
        self.config = config
        self.budgets = budgets
        self.engine = engine
        self.faults, self.endings = upstreams.faults, upstreams.endings
        self.acknowledge = acknowledge
        self.lanes: dict[SharedCall, CallLane] = {}
        shares = [share for share in config.share if isinstance(share, CallShare)]
        self.subscribing: dict[str, CallShare] = {share.subscribe.casefold(): share for share in shares}
        self.unsubscribing: dict[str, CallShare] = {
            share.unsubscribe.casefold(): share for share in shares if share.unsubscribe is not None
        }
        self.pooled = {method.casefold(): method for method in config.private.pooled}
        shared = target_of(config, service_headers(config))
        self._servers = Servers(upstreams, tasks, shared, config.path, config.ready)
        shared = replace(shared, standing=self._servers)
        own = replace(shared, headers=())
        everyone, welcome = frozenset(config.everyone.targets), frozenset(config.everyone.welcome)
        timers = Timers(tasks)
        self.gate = Gate(timers, upstreams.faults, config.private.rate, config.private.per_relay_max)
        subscribing = frozenset(share.subscribe.lower() for share in shares)
        self.private_terms = upstreams, own, everyone | welcome, subscribing
        # Who opens a connection waits no longer than for its handshake, and is to be told why.
        wait = min(config.lanes.connect_timeout, ASKING_PART * handshake_timeout)
        asked = replace(own, connect_timeout=wait)
        asks = config.admit == "negotiate"
        self._admission = HubAdmission(
            upstreams, asked, asks=asks, admit_for=config.admit_for, passing=passing_of(config)
        )
        self.names = Names(config)
        everyones = Everyones(config.path, config.everyone.targets, timers.later)
        self._terms = CallTerms(
            engine,
            upstreams,
            timers,
            shared,
            config.linger,
            config.lanes,
            {},
            everyone | welcome,
            self.names,
            everyones,
        )
        self._broadcast_route = ("broadcast", config.path, everyone, welcome)
        self._broadcasts: dict[str, BroadcastLane] = {}
        self._pools: dict[str, Pool] = {}
        self._answers = Answers(self._terms)
        # Hub protocols of the clients that are connected.
        self._present: dict[int, str] = {}
        self._lanes_made = 0
        self._gaps = 0
        self.recall = self._admission.recall

    # Clients

    async def admit(self, request: Request) -> Identity:
        """Who connects; see ``HubAdmission.admit``."""
        return await self._admission.admit(request)

    def connected(self, client: "Client") -> None:
        """A client has shaken hands: it hears from now on what is sent to all."""
        protocol = client.hub_protocol or "json"
        self._present[client.id] = protocol
        self._welcome(client.id, self._broadcast(protocol).welcome)
        if self.config.private.eager:
            client._calls = relayed = self.calls_of(client)
            relayed.hold()

    def calls_of(self, client: "Client") -> RelayedClient:
        """What takes the client's messages."""
        return RelayedClient(self, client)

    def gone(self, id: int) -> None:
        """A client is gone."""
        self._present.pop(id, None)

    def _greet(self, protocol: str, records: bytes) -> None:
        """Give a welcome that has just come to those who came before it."""
        for id, spoken in self._present.items():
            if spoken == protocol:
                self._welcome(id, (records,))

    def _welcome(self, id: int, welcome: Iterable[bytes]) -> None:
        """Give a client each greeting by itself: together they may be more than what may wait for it."""
        for records in welcome:
            try:
                self.engine.send_records(id, records)
            except PayloadTooBig as error:
                self.endings.close(id, 1013, error)
                return
            except BaseException as error:
                if ends_task(error):
                    raise
                self.faults.note("relay.welcome", error, "client %s could not be greeted", name_of(id))
                self.endings.close(id, 1011, INTERNAL_ERROR)
                return

    def when_ready(self, protocol: str, go_on: Callable[[], None]) -> bool:
        """Whether clients of this protocol may begin; else `go_on` is called when they may."""
        return self._broadcast(protocol).when_ready(go_on)

    def _broadcast(self, protocol: str) -> BroadcastLane:
        broadcast = self._broadcasts.get(protocol)
        if broadcast is None:
            greet = partial(self._greet, protocol)
            broadcast = self._broadcasts[protocol] = BroadcastLane(
                self._terms, protocol, self._broadcast_route, self.backoff(), greet
            )
        return broadcast

    def backoff(self) -> Backoff:
        """How attempts to connect to the backend are spaced."""
        return Backoff(self.config.lanes.backoff_min, self.config.lanes.backoff_max)

    # Lanes

    def has_room(self) -> bool:
        """Whether there may be one lane more; one that lingers makes room."""
        return has_room(self.lanes, self.config.lanes.max, self._terms.lingering)

    def open_lane(self, share: CallShare, call: SharedCall) -> CallLane:
        """The lane of this call, which has none yet."""
        self._lanes_made += 1

        def end(lane: Lane[Any]) -> None:
            self._gaps += lane.gaps
            if self.lanes.get(call) is lane:
                del self.lanes[call]

        lane = self.lanes[call] = CallLane(f"{self.config.path}#{self._lanes_made}", share, call, self._terms, end)
        relay_log.debug("%s is opened", lane)
        return lane

    def answer_unsubscribe(self, client: RelayedClient, lane: CallLane, call: Asked) -> None:
        """Answer a client that has left a lane as the backend would have."""
        if call.id:
            self._answers.answer(client, lane, call)

    def forget(self, client: RelayedClient) -> None:
        """A client is gone: what waits for it elsewhere is for nobody."""
        self._answers.gone(client)
        broadcast = self._broadcasts.get(client.protocol)
        if broadcast is not None:
            broadcast.forget(client.release)
        for pool in self._pools.values():
            pool.gone(client)

    def pool_of(self, protocol: str) -> Pool:
        """The shared connections for pooled methods."""
        pool = self._pools.get(protocol)
        if pool is None:
            private = self.config.private
            pool = self._pools[protocol] = Pool(self._terms, protocol, private.pool_size, private.idle)
        return pool

    # What is visible

    def stats(self) -> RelayStats:
        """How it stands, now."""
        return RelayStats(
            path=self.config.path,
            lanes=[stats_of(lane) for lane in self.lanes.values()],
            broadcasts={protocol: one.why or "live" for protocol, one in self._broadcasts.items()},
            upstreams=self._servers.stats(),
            private_lanes=self.gate.count,
            sessions=len(self._terms.upstreams),
            unused=self.names.unused,
            gaps=self._gaps + sum(lane.gaps for lane in self.lanes.values()),
        )


def target_of(config: RelayConfig, headers: Headers = ()) -> Target:
    """Where a relay's connections go, with these headers of the relay's own.

    Raises:
        ConfigError: `ca` was good when it was checked, and is not any more.
    """
    lanes = config.lanes
    try:
        roots = None if config.ca is None else roots_of(config.ca)
    except Mistake as mistake:
        raise ConfigError(f"is {config.ca!r}, {mistake}", key=f"ca of the relay at {config.path}") from mistake
    return Target(
        config.upstream,
        config.negotiate and config.protocol == "signalr",
        lanes.keepalive,
        lanes.server_timeout,
        lanes.connect_timeout,
        RECORD_BYTES_MAX,
        QUEUE_BYTES_MAX,
        headers,
        roots,
    )


def service_headers(config: RelayConfig) -> list[tuple[str, str]]:
    """What shared connections show the backend."""
    headers = [(name, value.reveal()) for name, value in config.lanes.headers.items()]
    if config.lanes.token is not None:
        headers.append(("Authorization", f"Bearer {config.lanes.token.reveal()}"))
    if not any(name.lower() == "user-agent" for name, _ in headers):
        headers.append(("User-Agent", f"fanwire/{__version__}"))
    # As all headers: the bytes of a setting, which is UTF-8, decoded as latin-1.
    return [(name, value.encode().decode("latin-1")) for name, value in headers]


def passing_of(config: RelayConfig) -> Passing:
    """Its rules for headers."""
    return Passing.of(config.private.drop, config.trusted_proxies, config.admit_ignore)
