"""What a relay of either kind is: the owner of a path, with a backend, its servers and lanes; and how it ends."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from fanwire._engine import Engine, __version__
from fanwire.budget import Budgets
from fanwire.client import Link
from fanwire.config.kinds import roots_of
from fanwire.errors import ClientGone, ConfigError
from fanwire.faults import Tasks
from fanwire.logs import relay_log
from fanwire.owner import Owner
from fanwire.relay.admit import ASKING_PART, Admission
from fanwire.relay.admitting import KINDS, SharedAdmission
from fanwire.relay.config import RelayConfig
from fanwire.relay.door import Door
from fanwire.relay.driver import Lane
from fanwire.relay.headers import Passing
from fanwire.relay.lingering import Lingering
from fanwire.relay.machine import State
from fanwire.relay.mirror import Mirror, Part
from fanwire.relay.names import Names
from fanwire.relay.servers import Servers
from fanwire.relay.session import Gate
from fanwire.relay.sharing import Sharing, Verb, client_of, fingerprint_of, id_of
from fanwire.relay.stats import RelayStats, RelaySums
from fanwire.relay.timing import Backoff, RelayTasks, Timers
from fanwire.relay.upstreams import Backend, HeaderFields, Sessions, Upstreams
from fanwire.timings import Timings
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
    sharing: Sharing | None = None
    """With other workers of this machine."""
    over_machines: Sharing | None = None
    """With those of all machines, where a backbone joins them."""

    def sharing_of(self, config: RelayConfig) -> Sharing | None:
        """With whom a relay's lanes are shared."""
        return self.sharing if config.lanes.machines == "own" else self.over_machines


class SharedLane(Protocol):
    """What workers share: a lane, or one for all."""

    part: Part | None

    def want(self, mirror: Mirror, lost_s: float | None = None) -> None:
        """Have another worker mirror it, or be told something newer."""

    def age(self) -> float:
        """Seconds since what was said last."""


class Backed(Owner, Generic[K, L]):
    """One relay, for one serving; lives in the hub's event loop."""

    def __init__(self, config: RelayConfig, around: Surroundings) -> None:
        self.config, self.budgets, self.acknowledge = config, around.budgets, around.acknowledge
        self.faults, self.endings = around.sessions.faults, around.sessions.endings
        self.lanes: dict[K, L] = {}
        # Of lanes; and of what stays among the workers of this machine.
        self._sharing, self._workers = around.sharing_of(config), around.sharing
        # By what all workers call them.
        self._shared_by_id: dict[bytes, SharedLane] = {}
        self._shared_admission: SharedAdmission | None = None
        self.names = Names(config, lambda where: self._tell_others("used", where))
        self._tasks = RelayTasks(around.tasks)
        self._upstreams = Upstreams(around.sessions)
        headers = service_headers(config)
        backend = backend_of(config, headers)
        self._fingerprint = fingerprint_of(config, headers)
        self._servers = Servers(self._upstreams, self._tasks, backend, config.path, config.ready)
        # Of lanes, with headers of the relay's own; and of what is one client's.
        self._shared = replace(backend, health=self._servers)
        self._own = replace(self._shared, headers=())
        self._timers = Timers(self._tasks)
        self._door = Door(self._timers, self.faults)
        self.gate = Gate(self._timers, self.faults, self._rate(), config.private.per_relay_max, self._shortage)
        self._passing = Passing.of(config.private.drop, config.trusted_proxies, config.admit_ignore)
        # Who opens a connection waits no longer than for its handshake, and is to be told why.
        self._answer_s = min(config.lanes.connect_timeout, ASKING_PART * around.handshake_timeout)
        is_shared = self._sharing is not None
        lingering = self._lingering = Lingering(config.lanes.per_client_max, lambda: is_shared and self._is_full())
        # What a context of lanes begins with.
        linger, lanes = config.linger, config.lanes
        self._gap_times = Timings()
        self._of_lanes = self._upstreams, self._timers, self._shared, linger, lanes, lingering, self._gap_times
        self._lanes_made = 0
        self._lane_ended = self._ended  # one for all of them
        self._gaps = 0
        self._sharings = [one for one in {self._sharing, self._workers} if one is not None]
        for sharing in self._sharings:
            sharing.add(config.path, self)

    @property
    def engine(self) -> Engine:
        """What has its clients."""
        return self._upstreams.engine

    def _rate(self) -> int:
        """Private connections that this worker may open in a second: its part of what all may."""
        rate = self.config.private.rate
        return rate if self._workers is None else self._workers.part_of_each(rate)

    def _shortage(self) -> str:
        """Why there may be no connection more to a backend, those that are down included; empty where there may."""
        bound = self._upstreams.count_max
        if max(len(self._upstreams), len(self.lanes) + self.gate.count) < bound:
            return ""
        mirrored = sum(lane.is_mirrored_here for lane in self.lanes.values())  # which have none
        count = max(len(self._upstreams), len(self.lanes) - mirrored + self.gate.count)
        if count < bound:
            return ""
        return f"{count + 1} connections to backends are over the bound of {bound}, half of the process's descriptors"

    def _lane_count(self) -> int:
        """Of all workers, each once; or those here, mirrored ones as well, if these are more."""
        held = 0 if self._sharing is None else self._sharing.lanes_at(self.config.path)
        return max(len(self.lanes), held)

    def _is_full(self) -> bool:
        return self._lane_count() >= self.config.lanes.max

    def has_room(self, what: Any = None) -> bool:
        """Whether there may be one lane more; the one that lingers for the longest makes room.

        Args:
            what: names it to other workers: one that they hold is only mirrored here.
        """
        if self._is_full() or self._shortage():
            self._lingering.make_room()
        if self._shortage():
            return False
        return not self._is_full() or (len(self.lanes) < self.config.lanes.max and self._is_held_elsewhere(what))

    def _is_held_elsewhere(self, what: Any) -> bool:
        return self._sharing is not None and self._sharing.claimed(id_of(self._fingerprint, what)) is not None

    def one_more(self) -> None:
        """See ``Sharer``: should room be needed anywhere, what lingers here makes it now."""
        if self._is_full():
            self._lingering.make_room()

    @property
    def over_max(self) -> str:
        """What is said where there is none."""
        if not self._is_full():
            return self._shortage()
        of_whom = "" if self._sharing is None else f" of all {self._sharing.of_whom}"
        return f"{self._lane_count() + 1} lanes{of_whom} are over the bound of {self.config.lanes.max}"

    def backoff(self) -> Backoff:
        """How attempts to connect to the backend are spaced."""
        return Backoff(self.config.lanes.backoff_min, self.config.lanes.backoff_max)

    def _keep(
        self,
        key: K,
        what: Any,
        make: Callable[[str, Callable[[Lane[Any]], None], Part | None], L],
        *,
        is_held: bool = False,
    ) -> L:
        """A new lane, under this key until it ends; `what` names it to other workers."""
        self._lanes_made += 1
        part = self.part_of(what, is_held=is_held)
        name = f"{self.config.path}#{self._lanes_made}"
        lane = make(name, self._lane_ended, part)
        self.lanes[key], lane.key = lane, key
        if part is not None and lane.state is not State.CLOSED:
            self._note_shared(part, lane, is_there=True)
        relay_log.debug("%s is opened", lane)
        return lane

    def _ended(self, lane: Lane[Any]) -> None:
        self._gaps += lane.gaps
        if self.lanes.get(lane.key) is lane:
            del self.lanes[lane.key]
        if lane.part is not None:
            self._note_shared(lane.part, lane, is_there=False)

    # Over workers

    def part_of(self, what: Any, *, is_held: bool = False) -> Part | None:
        """Of something that workers share; None where there is one process."""
        if self._sharing is None:
            return None
        id = id_of(self._fingerprint, what)
        return Part(self._sharing, self._upstreams, self.config.path, id, what, is_held=is_held)

    def _note_shared(self, part: Part, lane: SharedLane, *, is_there: bool) -> None:
        """What other workers may ask for is there, or is not any more."""
        if is_there:
            self._shared_by_id[part.id] = lane
        elif self._shared_by_id.get(part.id) is lane:
            del self._shared_by_id[part.id]

    def _share_admission(self, admission: Admission) -> None:
        """Have it ask once for all workers of this machine."""
        if self._workers is not None:
            admission.share(self._workers, self.config.path, self._timers)
            self._shared_admission = admission.shared

    def _tell_others(self, what: str, *said: Any) -> None:
        if self._sharing is not None:
            self._sharing.tell_relays(self.config.path, what, *said)

    def _open_for_other(self, what: Any) -> SharedLane | str | None:
        """Hold what another worker wants; or why that cannot be, None where it is nothing of this relay's."""
        raise NotImplementedError

    def wanted(self, worker: int, id: bytes, tie: int, what: Any, client: int, lost_s: float | None) -> None:
        """See ``Sharer``."""
        assert self._sharing is not None  # it calls this
        lane = self._shared_by_id.get(id)
        part = None if lane is None else lane.part
        if part is not None and part.holder == worker:
            # Each asks the other: both know by this which of them it is to be.
            if self._sharing.is_before(id, worker):
                return
            part.take_over()
        elsewhere = self._sharing.claimed(id) if part is None else part.holder
        if elsewhere is not None and elsewhere not in (self._sharing.number, worker):
            self._sharing.send_on(worker, id, tie, elsewhere)
            return
        lane = self._shared_by_id.get(id)
        if lane is None:
            opened = None if id != id_of(self._fingerprint, what) else self._open_for_other(what)
            if opened is None:
                self._sharing.refuse(worker, id, tie)
                return
            if isinstance(opened, str):
                self._sharing.tell_mirror(worker, id, tie, "no room", opened)
                return
            lane = opened
        if lane.part is not None:
            lane.want(lane.part.add(worker, tie, client_of(worker, client), lane.age), lost_s)

    def of_mirror(self, worker: int, verb: int, id: bytes, tie: int, *said: Any) -> None:
        """See ``Sharer``."""
        lane = self._shared_by_id.get(id)
        part = None if lane is None else lane.part
        mirror = None if part is None else part.mirrors.get(worker)
        if lane is None or part is None or mirror is None or mirror.tie != tie:
            return
        if verb == Verb.AGAIN:
            lane.want(mirror)
        elif verb == Verb.LEAVE:
            mirror.id = client_of(worker, said[0]) or mirror.id
            part.remove(worker)

    def heard(self, worker: int, what: str, *said: Any) -> None:
        """See ``Sharer``."""
        if what in KINDS and self._shared_admission is not None:
            self._shared_admission.told(worker, what, *said)
        elif what == "used":
            for where in said:
                self.names.used_elsewhere(where)

    def welcome(self, worker: int) -> None:
        """See ``Sharer``."""
        self.gate.set_rate(self._rate())
        if self._sharing is not None and self.names.used:
            self._sharing.tell_relays(self.config.path, "used", *self.names.used, to=worker)

    def parted(self, worker: int) -> None:
        """See ``Sharer``."""
        self.gate.set_rate(self._rate())
        if self._shared_admission is not None:
            self._shared_admission.parted(worker)
        held_there = (lane for lane in self.lanes.values() if lane.part is not None and lane.part.holder == worker)
        self._door.shut(lane for lane in held_there if lane.watchers)
        for lane in list(self._shared_by_id.values()):
            if lane.part is not None:
                lane.part.remove(worker)

    def yield_to(self, worker: int, id: bytes) -> None:
        """See ``Sharer``."""
        lane = self._shared_by_id.get(id)
        if lane is not None and lane.part is not None and lane.part.holder is None:
            lane.part.yield_to(worker)

    def retire(self) -> None:
        """See ``Sharer``."""
        for lane in list(self._shared_by_id.values()):
            if lane.part is not None:
                lane.part.give_up_mirrors("ended", "the worker that held it ends")

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
        for sharing in self._sharings:
            sharing.remove(self.config.path)
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
        states: dict[str, int] = {}
        watching, gaps = 0, self._gaps
        for lane in self.lanes.values():
            word = lane.shown_state
            states[word] = states.get(word, 0) + 1
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
            gap_times=self._gap_times,
            connect_times=self._servers.connect_times,
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
