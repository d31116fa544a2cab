"""The broadcast lane: what a backend sends to all its clients, and to each when it connects, once for all.

A message does not say whom it was sent to. So what goes to all is named in ``everyone.targets`` and taken from here
only; what greets each connection is named in ``everyone.welcome``, kept, and given to each client that comes.
"""

from collections.abc import Callable

from fanwire._engine import Upstream
from fanwire.logs import relay_log
from fanwire.relay.lane import CallLaneContext
from fanwire.relay.timing import Backoff
from fanwire.relay.upstreams import REFUSING, SessionHandler


class BroadcastLane(SessionHandler):
    """One hub protocol's; open from its first client until serving ends."""

    def __init__(
        self,
        context: CallLaneContext,
        protocol: str,
        route: tuple[str, str, frozenset[str], frozenset[str]],
        backoff: Backoff,
        greet: Callable[[bytes], None],
    ) -> None:
        self._upstreams, self._timers, self._backend = context.upstreams, context.timers, context.backend
        self._protocol = protocol
        self._route = route
        self._backoff = backoff
        self._greet = greet
        self._names, self._everyones = context.names, context.everyones
        self._welcome: dict[str, bytes] = {}
        self._waiting: dict[Callable[[], None], None] | None = {}
        self._give_up_at = self._timers.now() + context.backend.connect_timeout
        self.why = ""
        """Why it is down; empty while it is live or has not been opened."""
        self.is_live = False
        self._open_since: float | None = None
        self._connect()

    @property
    def welcome(self) -> list[bytes]:
        """What a client gets when it connects, one by one."""
        return list(self._welcome.values())

    def when_ready(self, go_on: Callable[[], None]) -> bool:
        """Whether it is there, or has been waited for long enough; else `go_on` is called then."""
        if self._waiting is None:
            return True
        self._waiting[go_on] = None
        return False

    def forget(self, go_on: Callable[[], None]) -> None:
        """Who waited is gone."""
        if self._waiting:
            self._waiting.pop(go_on, None)

    def _connect(self) -> None:
        self._upstreams.open(self, self._backend, self._protocol, self._route)

    def _let_go(self) -> None:
        waiting, self._waiting = self._waiting or {}, None
        for go_on in waiting:
            with self._upstreams.faults.contained("relay.broadcast", "a client could not go on"):
                go_on()

    def fail(self) -> None:
        """Nobody waits for it; it is opened anew, if it was lost."""
        self._let_go()

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands."""
        if self.why:
            relay_log.info("the broadcast lane of %s (%s) is back", self._route[1], self._protocol)
        self.is_live, self.why = True, ""
        self._everyones.opened(self._protocol)
        self._open_since = self._timers.now()
        self._let_go()

    def happened(self, event: Upstream) -> None:
        """A greeting, or the first message of another target."""
        if event.kind == "welcome":
            is_first = event.id not in self._welcome
            self._welcome[event.id] = event.body
            if is_first:
                self._greet(event.body)
            self._names.greeted(event.id)
        elif event.kind == "came":
            self._names.came_to_all(event.id)
            self._everyones.came_to_all(self._protocol, event.id)
        elif event.kind == "unnamed":
            self._names.unnamed(event.id)

    def closed(self, event: Upstream) -> None:
        """It is down, and tried again."""
        self._everyones.lost(self._protocol)
        if self.is_live or not self.why:
            relay_log.warning("the broadcast lane of %s (%s) is down: %s", self._route[1], self._protocol, event.text)
            if event.status in REFUSING and self._route[2]:
                relay_log.warning(
                    "nobody gets the targets of everyone (%s) until the backend lets the broadcast lane in: "
                    "lanes.token or lanes.headers say who it is",
                    ", ".join(sorted(self._route[2])),
                )
        self.is_live, self.why = False, event.text or "closed"
        self._connect_later()
        if self._timers.now() > self._give_up_at or event.status is not None:
            self._let_go()  # who waits for it longer waits in vain

    def _connect_later(self) -> None:
        lived = 0.0 if self._open_since is None else self._timers.now() - self._open_since
        self._open_since = None
        self._timers.later(self._backoff.next(lived), self._connect, self._connect_later)
