"""A lane of plain WebSockets: one connection to the backend for all that watch the same. ✗ who they are ✗ bytes.

Either it is what its URL says (clients of equal query parameters, which wait to be let in until the backend agrees), or
what its first message says (clients that sent one of equal value, which are connected already). What comes on it goes
into the engine's log of the same name, and from there to them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any, Protocol

import msgspec

from fanwire._engine import Engine, Upstream
from fanwire._loop import ends_task
from fanwire.faults import Tasks
from fanwire.logs import relay_log
from fanwire.relay.config import Lanes
from fanwire.relay.lane import State
from fanwire.relay.stats import shortened
from fanwire.relay.timing import Backoff, Delay
from fanwire.relay.upstreams import Owner, Target, Upstreams
from fanwire.texts import name_of

AWAY = {1001, 1006, 1012, 1013, 1014}
"""Close codes of a backend that is not well, whatever it was told (RFC 6455 §7.4 and its registry)."""


class Watcher(Protocol):
    """A client, as a lane sees it."""

    id: int

    def let_in(self, subprotocol: str | None) -> None:
        """The backend has agreed: the client's upgrade is answered."""

    def turned_away(self, status: int | None) -> None:
        """The backend has refused with that status, or cannot be reached."""

    def refused(self, lane: "PlainLane", message: bytes) -> None:
        """The backend refused the lane that this message of the client was to have: it may be allowed it by itself."""

    def fail(self) -> None:
        """Something went wrong that nobody expected: the client goes."""


@dataclass(frozen=True, slots=True)
class PlainTerms:
    """What all lanes of a relay have in common."""

    engine: Engine
    upstreams: Upstreams
    tasks: Tasks
    target: Target
    linger: float
    lanes: Lanes
    lingering: "dict[PlainLane, None]"
    """Those that nobody watches, in the order in which they will end."""


@dataclass(slots=True, eq=False)
class PlainLane(Owner):
    """One connection; see the module."""

    name: str
    """Of its log in the engine."""
    way: str
    """How it is watched, for people: ``?match`` or ``/watch``."""
    urls: Sequence[str] = field(repr=False)
    subprotocols: Sequence[str]
    """Offered to the backend."""
    message: bytes | None = field(repr=False)
    """What it sends when it is connected: the one form of what each of its clients sent."""
    what: Any = field(repr=False)
    """Shown to clients that are told of a gap."""
    terms: PlainTerms = field(repr=False)
    on_end: Callable[["PlainLane"], None] = field(repr=False)
    state: State = State.CONNECTING
    watchers: dict[Watcher, None] = field(default_factory=dict, repr=False)
    """In the order in which they came."""
    subprotocol: str | None = None
    """What the backend chose."""
    why: str = ""
    """Why it is down, or has failed."""
    gap_since: float | None = None
    """Wall clock at the begin of the gap, while it is down."""
    gaps: int = 0
    _waiting: dict[Watcher, None] = field(default_factory=dict, repr=False)
    _session: int | None = None
    _live_at: float = 0.0
    _delay: Delay | None = None
    _backoff: Backoff = field(init=False, repr=False)
    shown: str = field(init=False, repr=False)
    """What is watched, for people."""

    def __post_init__(self) -> None:
        lanes = self.terms.lanes
        self.shown = shortened(msgspec.json.encode(self.what).decode())
        self._backoff = Backoff(lanes.backoff_min, lanes.backoff_max)
        try:
            self._connect()
        except BaseException:
            self.end()
            raise

    # Clients

    def admit(self, client: Watcher) -> None:
        """Let the client in and have it watch, once the backend has agreed."""
        if self.state is not State.LIVE:
            self.terms.lingering.pop(self, None)
            self._waiting[client] = None
            return
        self._call_off()
        self._welcome(client)

    def watch(self, client: Watcher) -> None:
        """Have a client that is connected watch from now on."""
        if self.state is State.LIVE:
            self._call_off()
        self.terms.lingering.pop(self, None)
        self._join(client)
        self.watchers[client] = None

    def leave(self, client: Watcher) -> None:
        """Have the client watch no longer."""
        if self.watchers.pop(client, None) is not None:
            self.terms.engine.leave_lane(client.id, self.name)
        self._linger_if_empty()

    def gone(self, client: Watcher) -> None:
        """The client has left altogether, as the engine knows."""
        self.watchers.pop(client, None)
        self._waiting.pop(client, None)
        self._linger_if_empty()

    def _welcome(self, client: Watcher) -> None:
        client.let_in(self.subprotocol)
        self.watchers[client] = None
        self._join(client)

    def _join(self, client: Watcher) -> None:
        engine = self.terms.engine
        if not engine.join_lane(client.id, self.name):
            relay_log.warning("%s: what came first is over snapshot_bytes_max: clients start behind it", self)
            engine.keep(self.name, None)
            engine.join_lane(client.id, self.name)

    def _linger_if_empty(self) -> None:
        if self.watchers or self._waiting or self.state is State.CLOSED:
            return
        if self.state is State.LIVE:
            self._call_off()
            self._delay = Delay(self.terms.tasks, self.terms.linger, self.end, self.fail)
            self.terms.lingering[self] = None
        elif self._delay is None:
            self.end()
        else:  # it is to be tried again: who comes before that waits for it, and does not have it tried at once
            self.terms.lingering[self] = None

    def end(self) -> None:
        """Close it; nobody watches. Raises nothing."""
        self.state = State.CLOSED
        self._call_off()
        self.on_end(self)
        contained = self.terms.upstreams.faults.contained
        with contained("relay.lane", "the log of %s could not be let go", self):
            self.terms.engine.keep(self.name, None)
        with contained("relay.lane", "the session of %s could not be closed", self):
            if self._session is not None:
                self.terms.upstreams.close(self._session, (1000, ""))

    def fail(self) -> None:
        """Something went wrong that nobody expected: it ends, and so do its clients, which may come back."""
        if self.state is State.CLOSED:
            return
        clients, self._waiting, self.watchers = [*self._waiting, *self.watchers], {}, {}
        self.end()
        for client in clients:
            client.fail()

    def _call_off(self) -> None:
        self.terms.lingering.pop(self, None)
        if self._delay is not None:
            self._delay.call_off()
            self._delay = None

    # The backend

    def _connect_again(self) -> None:
        self._delay = None
        if self.state is State.CLOSED:
            return
        if self.watchers or self._waiting:
            self._connect()
        else:
            self.end()

    def _connect(self) -> None:
        if self.message is None:
            # For those who wait: what the backend sends first may be here before they are let in.
            self.terms.engine.keep(self.name, self.terms.lanes.snapshot_bytes_max)
        offered = self.subprotocols if self.subprotocol is None else (self.subprotocol,)
        self._session = self.terms.upstreams.open_plain(
            self, self.terms.target, offered, ("lane", self.name), urls=self.urls
        )
        if self.message is not None:
            self.terms.upstreams.send_message(self._session, self.message, is_text=True)

    def opened(self, event: Upstream) -> None:
        """The backend has agreed."""
        if self.state is State.CLOSED:
            return
        self.state, self._live_at, self.subprotocol = State.LIVE, monotonic(), event.subprotocol
        if self.gap_since is not None:
            self._tell_gap(self.gap_since, time())
            self.gap_since = None
        self.why = ""
        waiting, self._waiting = self._waiting, {}
        for client in waiting:
            try:
                self._welcome(client)
            except BaseException as error:  # such as channels_max: it is one client's, and the others are let in
                if ends_task(error):
                    raise
                self.terms.upstreams.faults.note(
                    "relay.join", error, "client %s could not join %s", name_of(client.id), self
                )
                self.watchers.pop(client, None)
                client.fail()
        self.terms.engine.keep(self.name, None)
        self._linger_if_empty()

    def _tell_gap(self, since: float, until: float) -> None:
        relay_log.warning("%s is live again; a gap of %.1f s, because %s", self, until - since, self.why)
        lanes = self.terms.lanes
        if lanes.on_gap == "message":
            told = {"gap": {"watching": self.what, "since": since, "until": until}}
            self.terms.engine.publish_to_lane(self.name, told, lanes.gap_target)
        elif lanes.on_gap == "close":
            for client in self.watchers:
                self.terms.upstreams.endings.close(client.id, 1012, "")

    def closed(self, event: Upstream) -> None:
        """The connection is gone, or could not be had: the lane is down, unless nobody needs it."""
        self._session = None
        if self.state is State.CLOSED:
            return
        self.why = event.text
        refused: list[Watcher] = []
        if self.state is State.LIVE:
            if self._is_blamed(event):
                refused = [next(iter(self.watchers))]
            self._went_down()
        elif self.gap_since is None and event.status is not None and 400 <= event.status < 500:
            refused = [] if self.message is None else list(self.watchers)
        waiting, self._waiting = self._waiting, {}
        if waiting and event.status is None:
            relay_log.warning("%s cannot be opened: %s", self, self.why)
        self.state = State.DOWN if self.gap_since is not None else State.CONNECTING
        self._call_off()
        relay_log.debug("%s is tried again: %s", self, self.why)
        self._delay = Delay(self.terms.tasks, self._backoff.next(), self._connect_again, self.fail)
        for client in waiting:
            client.turned_away(event.status)
        for client in refused:
            with self.terms.upstreams.faults.contained(
                "relay.refused", "client %s could not go on", name_of(client.id)
            ):
                self.leave(client)
                client.refused(self, self.message or b"")
        self._linger_if_empty()

    def _is_blamed(self, event: Upstream) -> bool:
        """Whether the backend has ended the connection for what was said on it: the first then says it by itself."""
        is_early = monotonic() - self._live_at < self.terms.lanes.backoff_max
        is_meant = event.code is not None and event.code not in AWAY
        return self.message is not None and bool(self.watchers) and is_early and is_meant

    def _went_down(self) -> None:
        self.gaps += 1
        self.gap_since = time()
        relay_log.warning("%s is down: %s", self, self.why)
        # One that accepts and hangs up again is not there: it is tried ever more seldom.
        if monotonic() - self._live_at >= self.terms.lanes.backoff_max:
            self._backoff.reset()

    def __str__(self) -> str:
        return f"lane {self.name} ({self.way} {self.shown})"
