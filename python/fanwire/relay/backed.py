"""What a relay of either kind is: the owner of a path, with a backend, its servers and lanes; and how it ends."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from fanwire._engine import Engine, __version__
from fanwire.budget import Budgets
from fanwire.client import Link
from fanwire.config.kinds import roots_of
from fanwire.errors import ClientGone, ConfigError
from fanwire.faults import Tasks
from fanwire.logs import relay_log
from fanwire.owner import Owner
from fanwire.relay.admit import ASKING_PART
from fanwire.relay.config import RelayConfig
from fanwire.relay.driver import Lane, Lingering, has_room
from fanwire.relay.headers import Passing
from fanwire.relay.names import Names
from fanwire.relay.servers import Servers
from fanwire.relay.session import Gate
from fanwire.relay.stats import RelayStats, RelaySums
from fanwire.relay.timing import Backoff, RelayTasks, Timers
from fanwire.relay.upstreams import Backend, HeaderFields, Sessions, Upstreams
from fanwire.values import Mistake

RECORD_BYTES_MAX = 1 << 20
"""Of a message from the backend: clients built on ``websockets`` take no more."""
QUEUE_BYTES_MAX = 256 << 10
"""What may wait for the backend of one client's before the client is not read from."""
K = TypeVar("K")
L = TypeVar("L", bound=Lane[Any])


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all relays of one serving have around them."""

    link: Link
    tasks: Tasks
    sessions: Sessions
    acknowledge: Callable[[int], None]
    """Called with the connection of a message that was dealt with."""
    handshake_timeout: float
    """Seconds that an opening may take."""
    budgets: Budgets
    """What may wait for each client."""


class Backed(Owner, Generic[K, L]):
    """One relay, for one serving; lives in the hub's event loop."""

    def __init__(self, config: RelayConfig, around: Surroundings) -> None:
        self.config, self.budgets, self.acknowledge = config, around.budgets, around.acknowledge
        self.faults, self.endings = around.sessions.faults, around.sessions.endings
        self.lanes: dict[K, L] = {}
        self.names = Names(config)
        self._tasks = RelayTasks(around.tasks)
        self._upstreams = Upstreams(around.sessions)
        backend = backend_of(config, service_headers(config))
        self._servers = Servers(self._upstreams, self._tasks, backend, config.path, config.ready)
        # Of lanes, with headers of the relay's own; and of what is one client's.
        self._shared = replace(backend, health=self._servers)
        self._own = replace(self._shared, headers=())
        self._timers = Timers(self._tasks)
        self.gate = Gate(self._timers, self.faults, config.private.rate, config.private.per_relay_max, self._shortage)
        self._passing = Passing.of(config.private.drop, config.trusted_proxies, config.admit_ignore)
        # Who opens a connection waits no longer than for its handshake, and is to be told why.
        self._answer_s = min(config.lanes.connect_timeout, ASKING_PART * around.handshake_timeout)
        lingering = self._lingering = Lingering(config.lanes.per_client_max)
        # What a context of lanes begins with.
        linger, lanes = config.linger, config.lanes
        self._of_lanes = self._upstreams, self._timers, self._shared, linger, lanes, lingering
        self._lanes_made = 0
        self._gaps = 0

    @property
    def engine(self) -> Engine:
        """What has its clients."""
        return self._upstreams.engine

    def _shortage(self) -> str:
        """Why there may be no connection more to a backend, those that are down included; empty where there may."""
        count, bound = max(len(self._upstreams), len(self.lanes) + self.gate.count), self._upstreams.count_max
        if count < bound:
            return ""
        return f"{count + 1} connections to backends are over the bound of {bound}, half of the process's descriptors"

    def has_room(self) -> bool:
        """Whether there may be one lane more; one that lingers makes room."""
        lanes_max = min(len(self.lanes), self.config.lanes.max) if self._shortage() else self.config.lanes.max
        return has_room(self.lanes, lanes_max, self._lingering) and not self._shortage()

    @property
    def over_max(self) -> str:
        """What is said where there is none."""
        lanes, lanes_max = len(self.lanes), self.config.lanes.max
        return f"{lanes + 1} lanes are over the bound of {lanes_max}" if lanes >= lanes_max else self._shortage()

    def backoff(self) -> Backoff:
        """How attempts to connect to the backend are spaced."""
        return Backoff(self.config.lanes.backoff_min, self.config.lanes.backoff_max)

    def _keep(self, key: K, make: Callable[[str, Callable[[Lane[Any]], None]], L]) -> L:
        """A new lane, under this key until it ends."""
        self._lanes_made += 1

        def end(lane: Lane[Any]) -> None:
            self._gaps += lane.gaps
            if self.lanes.get(key) is lane:
                del self.lanes[key]

        lane = self.lanes[key] = make(f"{self.config.path}#{self._lanes_made}", end)
        relay_log.debug("%s is opened", lane)
        return lane

    def _part_with_all(self, gone: ClientGone) -> None:
        """Every client goes, and whoever asks to be one."""
        raise NotImplementedError

    def end(self, gone: ClientGone) -> None:
        """All of it is over: the path is gone, and its clients are being closed so. Raises nothing."""
        contained = self.faults.contained
        with contained("relay.end", "clients of the relay at %s could not be parted with", self.config.path):
            self._part_with_all(gone)
        for lane in list(self.lanes.values()):
            lane.end()
        self._tasks.end()
        self._upstreams.end()
        with contained("relay.end", "/readyz still tells of the relay at %s", self.config.path):
            self._upstreams.readiness.note(self.config.path, "")

    def _broadcasts_stats(self) -> dict[str, str]:
        """How broadcast lanes stand, by hub protocol."""
        return {}

    def stats(self) -> RelayStats:
        """How it stands, now."""
        return RelayStats(
            path=self.config.path,
            lanes=[lane.stats() for lane in self.lanes.values()],
            broadcasts=self._broadcasts_stats(),
            upstreams=self._servers.stats(),
            private_lanes=self.gate.count,
            sessions=len(self._upstreams),
            unused=self.names.unused,
            gaps=self._gaps + sum(lane.gaps for lane in self.lanes.values()),
        )

    def sums(self) -> RelaySums:
        """The same in numbers, of which many may ask."""
        states: Counter[str] = Counter()
        watching, gaps = 0, self._gaps
        for lane in self.lanes.values():
            states[lane.state.value] += 1
            watching += len(lane.watchers)
            gaps += lane.gaps
        return RelaySums(
            path=self.config.path,
            states=states,
            watching=watching,
            broadcasts=self._broadcasts_stats(),
            upstreams=self._servers.stats(),
            private_lanes=self.gate.count,
            gaps=gaps,
            unused=len(self.names.unused),
        )


def backend_of(config: RelayConfig, headers: HeaderFields = ()) -> Backend:
    """Where a relay's connections go, with these headers of the relay's own.

    Raises:
        ConfigError: `ca` was good when it was checked, and is not any more.
    """
    lanes = config.lanes
    try:
        roots = None if config.ca is None else roots_of(config.ca)
    except Mistake as mistake:
        raise ConfigError(f"is {config.ca!r}, {mistake}", key=f"ca of the relay at {config.path}") from mistake
    return Backend(
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
