"""Whether each of a relay's upstreams is up: said in the log when it changes, and shown in metrics.

Only connections of fanwire's own decide. What fails in a client's name may be that client's doing, so it has the
upstream asked in fanwire's own; and one that is down is asked again until it is back.
"""

from functools import partial

from fanwire._engine import Upstream
from fanwire.faults import Tasks
from fanwire.logs import relay_log
from fanwire.relay.stats import UpstreamStats
from fanwire.relay.timing import Delay
from fanwire.relay.upstreams import FAILING, Owner, Target, Upstreams

ASKED_EVERY_S = 2.0
"""How often one that is down is asked."""
GATEWAYS = (502, 503)
"""Statuses that say the same of an upstream that is not asked for its negotiation."""


class Server(Owner):
    """One upstream of a relay."""

    def __init__(self, upstreams: Upstreams, tasks: Tasks, target: Target, index: int) -> None:
        self._upstreams = upstreams
        self._tasks = tasks
        self._target = target
        self._url = target.urls[index]
        self.name = self._url.partition("?")[0]
        """Its URL without the query, which may hold a secret."""
        self.is_up: bool | None = None
        """None until it is known."""
        self.why = ""
        self.connects = 0
        self.failures = 0
        # It is asked, or about to be.
        self._is_asked = False

    def stats(self) -> UpstreamStats:
        """How it stands, now."""
        state = "unknown" if self.is_up is None else "up" if self.is_up else "down"
        return UpstreamStats(self.name, state, self.why, self.connects, self.failures)

    def reached(self, *, is_own: bool) -> None:
        """A connection was had."""
        self.connects += 1
        if is_own:
            self._up()

    def failed(self, why: str, *, is_own: bool) -> None:
        """A connection could not be had."""
        self.failures += 1
        if is_own:
            self._down(why)
        elif self.is_up is not False:
            self._ask()

    def _up(self) -> None:
        was, self.is_up, self.why = self.is_up, True, ""
        if was is False:
            relay_log.info("the upstream %s is back", self.name)

    def _down(self, why: str) -> None:
        was, self.is_up, self.why = self.is_up, False, why
        if was is not False:
            relay_log.warning("the upstream %s is down: %s", self.name, why)
        self._ask_later()

    # Asking

    def _ask_later(self) -> None:
        if not self._is_asked:
            self._is_asked = True
            Delay(self._tasks, ASKED_EVERY_S, partial(self._ask, is_due=True), self.fail)

    def _ask(self, *, is_due: bool = False) -> None:
        if is_due and self.is_up:
            self._is_asked = False
        elif is_due or not self._is_asked:
            self._is_asked = True
            target = self._target
            timeout = target.connect_timeout / len(target.urls)
            self._upstreams.negotiate(self, self._url, target.headers, timeout)

    def happened(self, event: Upstream) -> None:
        """The answer to what it was asked."""
        self._is_asked = False
        status = event.status or 0
        if not status:
            self._down(event.body.decode(errors="replace"))
        elif status in (FAILING if self._target.negotiates else GATEWAYS):
            self._down(f"negotiate was answered with status {status}")
        else:
            self._up()

    def fail(self) -> None:
        """It is asked once more when something fails."""
        self._is_asked = False


class Servers:
    """All of a relay, by their index."""

    def __init__(self, upstreams: Upstreams, tasks: Tasks, target: Target) -> None:
        self._servers = [Server(upstreams, tasks, target, index) for index in range(len(target.urls))]

    def reached(self, index: int, *, is_own: bool) -> None:
        """A connection was had."""
        self._servers[index].reached(is_own=is_own)

    def failed(self, index: int, why: str, *, is_own: bool) -> None:
        """A connection could not be had."""
        self._servers[index].failed(why, is_own=is_own)

    def stats(self) -> list[UpstreamStats]:
        """How they stand, now."""
        return [server.stats() for server in self._servers]
