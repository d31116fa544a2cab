"""Whether each of a relay's upstreams is up: said in the log when it changes, and shown in metrics.

Only connections of fanwire's own decide. What fails in a client's name may be that client's doing, so it has the
upstream asked in fanwire's own. One that is down is so until the next success, and is asked again until then, whether
there are clients or not: while ``/readyz`` says that the relay is not ready, a balancer sends none.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from fanwire._engine import Upstream
from fanwire.faults import Tasks
from fanwire.logs import relay_log
from fanwire.relay.readiness import Ready, why_unready
from fanwire.relay.stats import UpstreamStats
from fanwire.relay.timing import Delay
from fanwire.relay.upstreams import FAILING, Backend, SessionHandler, Upstreams
from fanwire.timings import Timings
from fanwire.wording import brief

ASKED_EVERY_S = 2.0
"""How often one that is down is asked, on average: instances that lost it together do not ask together."""
JITTER = 0.25
"""By what part of that it is asked earlier or later."""
GATEWAYS = (502, 503)
"""Statuses that say the same of an upstream that is asked for a WebSocket at once."""


class Server(SessionHandler):
    """One upstream of a relay."""

    def __init__(
        self, upstreams: Upstreams, tasks: Tasks, backend: Backend, index: int, changed: Callable[[], None]
    ) -> None:
        self._upstreams = upstreams
        self._changed = changed
        self._tasks = tasks
        self._backend = backend
        self._url = backend.urls[index]
        self.name = self._url.partition("?")[0]
        """Its URL without the query, which may hold a secret."""
        self.is_up: bool | None = None
        """None until it is known."""
        self.why = ""
        self.connects = 0
        self.failures = 0
        self.connect_times = Timings()
        """How long it took until a connection was had."""
        self._session = 0
        # It is asked, or about to be.
        self._is_asked = False

    def stats(self) -> UpstreamStats:
        """How it stands, now."""
        state = "unknown" if self.is_up is None else "up" if self.is_up else "down"
        return UpstreamStats(self.name, state, self.why, self.connects, self.failures)

    def reached(self, took_s: float | None, *, is_own: bool) -> None:
        """A connection was had, within so many seconds."""
        self.connects += 1
        if took_s is not None:
            self.connect_times.add(took_s)
        if is_own or self.is_up is None:  # whoever has it, it is there
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
        if was is not True:
            self._changed()

    def _down(self, why: str) -> None:
        for url in (self.name, self.name.replace("ws", "http", 1)):  # whoever tells of it has named it
            why = why.removeprefix(f"{url}: ")
        was, self.is_up, self.why = self.is_up, False, brief(why)
        if was is not False:
            relay_log.warning("the upstream %s is down: %s", self.name, why)
        self._ask_later()
        self._changed()

    # Asking

    def _ask_later(self) -> None:
        if not self._is_asked:
            self._is_asked = True
            seconds = ASKED_EVERY_S * random.uniform(1 - JITTER, 1 + JITTER)
            Delay(self._tasks, seconds, self._ask_again, self.fail)

    def _ask_again(self) -> None:
        self._is_asked = False
        if not self.is_up:
            self._ask()

    def _ask(self) -> None:
        if not self._is_asked:
            backend = self._backend
            timeout = backend.connect_timeout / len(backend.urls)
            if backend.negotiates:
                self._upstreams.negotiate(self, self._url, backend.headers, timeout, backend.roots)
            else:  # what speaks nothing but WebSocket may answer no other request
                alone = replace(backend, urls=(self._url,), connect_timeout=timeout, health=None)
                self._session = self._upstreams.open_plain(self, alone, (), ("nowhere",))
            self._is_asked = True

    def happened(self, event: Upstream) -> None:
        """The answer to its negotiation."""
        self._is_asked = False
        if event.fault == "machine":  # which says nothing of the server
            self._ask_later()
        elif not event.status:
            self._down(event.body.decode(errors="replace"))
        elif event.status in FAILING:
            self._down(f"negotiate was answered with status {event.status}")
        else:
            self._up()

    def opened(self, event: Upstream) -> None:
        """It has taken the WebSocket that was to see whether it does."""
        self._upstreams.close(self._session, (1000, ""))
        self._up()

    def closed(self, event: Upstream) -> None:
        """That is over; or it was refused, which says that the server is there unless a gateway says so."""
        self._is_asked = False
        if event.fault == "machine":
            self._ask_later()
        elif not event.was_open and (event.status is None or event.status in GATEWAYS):
            self._down(event.text)
        elif not event.was_open:
            self._up()
        elif self.is_up is False:  # it fell meanwhile
            self._ask_later()

    def fail(self) -> None:
        """Whatever went wrong, one that is down is asked again."""
        if self.is_up is False:
            self._ask_later()


class Servers:
    """All of a relay, by their index."""

    def __init__(self, upstreams: Upstreams, tasks: Tasks, backend: Backend, path: str, ready: Ready) -> None:
        self._path = path
        self._ready: Ready = ready
        self._readiness = upstreams.readiness
        self._servers = [Server(upstreams, tasks, backend, index, self._changed) for index in range(len(backend.urls))]

    def _changed(self) -> None:
        self._readiness.note(self._path, why_unready(self._ready, self.stats()))

    def reached(self, index: int, took_s: float | None = None, *, is_own: bool) -> None:
        """A connection was had."""
        self._servers[index].reached(took_s, is_own=is_own)

    def failed(self, index: int, why: str, *, is_own: bool) -> None:
        """A connection could not be had."""
        self._servers[index].failed(why, is_own=is_own)

    def stats(self) -> list[UpstreamStats]:
        """How they stand, now."""
        return [server.stats() for server in self._servers]

    @property
    def connect_times(self) -> dict[str, Timings]:
        """By the server's name; of one that is named twice the last."""
        return {server.name: server.connect_times for server in self._servers}
