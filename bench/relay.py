"""fanwire's relay before the real ASP.NET Core hub: ``python bench/relay.py``; needs signalr-origin (SIGNALR_ORIGIN).

The same clients straight at the hub and through the relay, in turns. What shares a core with what is said at each
measure. Results go to bench/results: relay.json and relay.md. The bounds stand in relay_report.py.
"""

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import relay_report
from figures import Figures
from measure import cpu_of, environment
from process import ChildFailed, wait_until
from relay_report import CROWD, FEW, LANES, MANY, MATCHES, NEWCOMERS, STALL_CLIENTS, STALL_ONE_IN
from signalr import (
    BURSTS,
    CLIENT_CORE,
    HERE,
    MATCH,
    ORIGIN,
    PAD,
    SERVER_CORE,
    SETTLE_S,
    WITHIN_S,
    Crowd,
    Server,
    Turn,
    prepare,
    publisher,
    take,
)

SIZE = 160 + PAD
"""Bytes of a publication."""
NAMES = ",".join(f"m{number + 1}" for number in range(MATCHES))
IN_FLIGHT = 1_000
"""Newcomers that log in at a time."""
LOW_RATE, STEADY_RATE, BUSY_RATE, LOGIN_RATE = 2.0, 8.0, 20.0, 2.0
"""Publications of each match in a second."""
FEED_S, DRAIN_S = 5.0, 2.0
STALL_BYTES, STALL_RATE, STALL_S = 16_000, 100.0, 8.0
DIRECT_STALL_S = 18.0
"""The real hub gives a client up after 10 to 11 s; what the kernel takes for it comes before."""
AWAY_S = 5.0
POLL_S = 0.05
COMPILER = ".NET Tiered"
"""The thread that compiles what has run often: it is busy for minutes after a start, whatever the load."""
CONFIGURATION = """\
[listen]
address = "127.0.0.1:{port}"

[[relay]]
path = "/live"
upstream = "http://127.0.0.1:{upstream}/live"

[[relay.share]]
subscribe = "Subscribe"
unsubscribe = "Unsubscribe"
snapshot = "Snapshot"

[relay.everyone]
targets = ["Announcement"]

[relay.lanes]
backoff_max = "1s"
"""
GAP = re.compile(r"is live again; a gap of ([\d.]+) s")


class Backend(Server):
    """The real hub."""

    def __init__(self, core: int = SERVER_CORE, port: int | None = None) -> None:
        """A fresh one; on the port of one that died, where it comes back."""
        super().__init__("origin", core, port)
        self._published = 0

    def ask(self, what: str, method: str = "POST") -> Any:
        """One request past any relay."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{what}", method=method)
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def stats(self) -> dict[str, Any]:
        """What it counts."""
        found: dict[str, Any] = self.ask("stats", "GET")
        return found

    def reset(self) -> None:
        """Count connections, bytes and publications anew."""
        self._published += self.stats()["published"]
        self.ask("stats/reset")

    def published(self) -> int:
        """Publications ever."""
        return int(self._published + self.stats()["published"])

    def publish(self, count: int, names: str = NAMES) -> None:
        """So many back to back to each match."""
        self.ask(f"publish?matches={names}&count={count}&size={SIZE}")

    def feed(self, rate: float, seconds: float, matches: int = MATCHES, size: int = SIZE) -> None:
        """Have it publish steadily."""
        self.ask(f"feed?count={matches}&rate={rate}&size={size}&seconds={seconds}")

    def wait_until(self, what: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Look at its counters until that holds."""
        wait_until(self.name, self.stats, what, holds, WITHIN_S, POLL_S)

    def warm(self, matches: int) -> None:
        """Have it compile what publishing takes, with one client of its own for each match, and forget them."""
        with Watchers(self, matches, matches) as crowd:
            crowd.connected()
            for _ in range(5):
                names = NAMES if matches == MATCHES else MATCH
                crowd.receive(20, partial(self.publish, 20, names))
        self.wait_until("no connections", lambda found: found["connected"] == 0)
        self.reset()


class Relay(Server):
    """`fanwire serve` in front of a backend."""

    def __init__(self, backend: Backend, core: int = SERVER_CORE) -> None:
        """Its settings are in a file of its own."""
        self._directory = tempfile.TemporaryDirectory()
        file = Path(self._directory.name) / "fanwire.toml"
        super().__init__("relay", core, command=[sys.executable, "-m", "fanwire", "serve", str(file)])
        file.write_text(CONFIGURATION.format(port=self.port, upstream=backend.port))

    def listen(self) -> None:
        """Wait until it does."""
        deadline = time.monotonic() + WITHIN_S
        while f"serving on 127.0.0.1:{self.port}" not in self.errors():
            if time.monotonic() > deadline:
                raise ChildFailed(f"{self.name} never listened\n{self.complaints()}")
            time.sleep(POLL_S)

    def gaps(self) -> list[float]:
        """Of the lanes that are back: for how many seconds each was gone."""
        return [float(seconds) for seconds in GAP.findall(self.errors())]


class Watchers(Crowd):
    """Clients that each watch a match, and check what they receive of it."""

    def __init__(self, server: Server, clients: int, matches: int = MATCHES, in_flight: int = 128) -> None:
        """All matches have as many."""
        more = ["--subscribe", "Subscribe", "--matches", str(matches), "--in-flight", str(in_flight)]
        super().__init__(server, clients, "json", more=more)

    def watch(self, seconds: float) -> None:
        """Begin to read what comes for so long."""
        self.send({"watch": {"seconds": seconds}})
        self.wait_for("watching", WITHIN_S)

    def watched(self, published: int, seconds: float, restarts: int = 0) -> dict[str, Any]:
        """What came; everybody must have all there is."""
        said: dict[str, Any] = self.wait_for("watched", seconds + WITHIN_S)
        faults = dict(said["faults"])
        is_right = faults.pop("restarts") == restarts and not sum(faults.values())
        if not is_right or said["behind"] or said["closed"] or said["newest"] != published:
            raise ChildFailed(f"{self.name}: {published} publications: {said}")
        return said

    def stall(self, one_in: int) -> None:
        """Have one in so many read no more."""
        self.send({"stall": {"one_in": one_in}})
        self.wait_for("stalled", WITHIN_S)


@contextmanager
def staged(
    server: str, *, matches: int = MATCHES, backend_core: int = SERVER_CORE, relay_core: int = SERVER_CORE
) -> Iterator[tuple[Backend, Server]]:
    """A fresh backend, and what clients connect to: itself (direct) or a relay (relayed)."""
    with ExitStack() as stack:
        backend = stack.enter_context(Backend(backend_core))
        backend.listen()
        backend.warm(matches)
        front: Server = backend
        if server == "relayed":
            front = stack.enter_context(Relay(backend, relay_core))
            front.listen()
        yield backend, front


def lanes(turn: Turn) -> Iterator[tuple[str, float]]:
    """Connections that the backend has at most, and messages that clients of two processes have each once."""
    each, processes = 20, 2
    with staged(turn.server) as (backend, front), ExitStack() as stack:
        crowds = [stack.enter_context(Watchers(front, MANY // processes)) for _ in range(processes)]
        for crowd in crowds:
            crowd.connected()
        publish: Callable[[], object] = partial(backend.publish, each)
        for crowd in crowds[1:]:
            publish = partial(crowd.receive, each, publish)
        crowds[0].receive(each, publish)
        yield "lanes", backend.stats()["connectedPeak"]
        yield "lanes_messages", each * MANY


class Cost:
    """CPU and bytes of a backend, but for what it takes to compile itself, from now on."""

    def __init__(self, backend: Backend) -> None:
        """Begin."""
        self._backend = backend
        self._stats = backend.stats()
        self._cpu = cpu_of(backend.pid)

    def of_publication(self) -> tuple[float, float]:
        """What one has cost: µs, bytes."""
        threads = cpu_of(self._backend.pid).since(self._cpu).threads.values()
        stats = self._backend.stats()
        publications = stats["published"] - self._stats["published"]
        spent = sum(ns for name, ns in threads if not name.startswith(COMPILER))
        return spent / 1e3 / publications, (stats["bytesOut"] - self._stats["bytesOut"]) / publications


def backend_share(turn: Turn) -> Iterator[tuple[str, float]]:
    """What a publication costs the backend, which has core 0 for itself: in bursts, and of a steady feed."""
    rounds, each = 4, 20
    with staged(turn.server, relay_core=CLIENT_CORE) as (backend, front), Watchers(front, CROWD) as crowd:
        crowd.connected()
        crowd.receive(each, partial(backend.publish, each))
        time.sleep(SETTLE_S)
        cost = Cost(backend)
        for _ in range(rounds):
            crowd.receive(each, partial(backend.publish, each))
        yield "backend_us", (found := cost.of_publication())[0]
        yield "backend_bytes", found[1]
        time.sleep(SETTLE_S)
        crowd.watch(FEED_S + DRAIN_S)
        cost = Cost(backend)
        backend.feed(STEADY_RATE, FEED_S)
        time.sleep(FEED_S + DRAIN_S)
        yield "backend_steady_us", cost.of_publication()[0]
        crowd.watched(backend.published(), FEED_S)


def delivery(turn: Turn) -> Iterator[tuple[str, float]]:
    """CPU of the relay, or of fanwire's hub, µs, for one message to one client; it has core 0 for itself."""
    with ExitStack() as stack:
        if turn.server == "fanwire":
            server: Server = stack.enter_context(Server("fanwire"))
            server.listen()
            publish = stack.enter_context(publisher(server, 0))
        else:
            backend, server = stack.enter_context(staged(turn.server, matches=1, backend_core=CLIENT_CORE))
            publish = partial(backend.publish, names=MATCH)
        crowd = stack.enter_context(Watchers(server, FEW, 1))
        crowd.connected()
        crowd.receive(20, partial(publish, 20))
        for burst, (rounds, count, pause_s) in BURSTS.items():
            time.sleep(SETTLE_S)
            before = cpu_of(server.pid)
            for _ in range(rounds):
                began = time.monotonic()
                crowd.receive(count, partial(publish, count))
                time.sleep(max(0.0, pause_s - (time.monotonic() - began)))
            yield burst, cpu_of(server.pid).since(before).total_ns / 1e3 / (rounds * count * FEW)


def fed(turn: Turn, clients: int, rate: float, name: str) -> Iterator[tuple[str, float]]:
    """Latency, ms, from the publication's own time stamp; backend and relay share core 0."""
    with staged(turn.server) as (backend, front), Watchers(front, clients) as crowd:
        crowd.connected()
        seconds = FEED_S + DRAIN_S
        before = backend.published()
        crowd.watch(seconds)
        backend.feed(rate, FEED_S)
        time.sleep(seconds)
        published = backend.published()
        said = crowd.watched(published, seconds)
        for quantile in ("p50", "p99"):
            yield f"{name}_{quantile}_ms", said["latency_us"][quantile] / 1e3
        yield f"{name}_rate", (published - before) / MATCHES / FEED_S
        yield f"{name}_client_share", said["cpu_seconds"] / said["seconds"]


def latency(turn: Turn) -> Iterator[tuple[str, float]]:
    """At a low rate."""
    yield from fed(turn, FEW, LOW_RATE, "low")


def feed(turn: Turn) -> Iterator[tuple[str, float]]:
    """At a high one."""
    yield from fed(turn, CROWD, BUSY_RATE, "feed")


def login(turn: Turn) -> Iterator[tuple[str, float]]:
    """Newcomers, each with negotiate, handshake and Subscribe, while messages flow; backend and relay share core 0."""
    with ExitStack() as stack:
        backend, front = stack.enter_context(staged(turn.server))
        backend.feed(LOGIN_RATE, 4 * WITHIN_S)
        before = cpu_of(front.pid)
        crowd = stack.enter_context(Watchers(front, NEWCOMERS, in_flight=IN_FLIGHT))
        said = crowd.connected()
        if sum(said["faults"].values()):
            raise ChildFailed(f"{crowd.name}: {said}")
        yield "login_us", cpu_of(front.pid).since(before).total_ns / 1e3 / NEWCOMERS
        yield "login_s", said["seconds"]
        yield "login_p99_s", said["login_us"]["p99"] / 1e6
        yield "login_client_share", said["cpu_seconds"] / said["seconds"]
        yield "login_lanes", backend.stats()["connectedPeak"]
        backend.ask("feed/stop")
        time.sleep(DRAIN_S)
        crowd.watch(0)
        crowd.watched(backend.published(), 0)


def stall(turn: Turn) -> Iterator[tuple[str, float]]:
    """What the others notice of clients that read no more; backend and relay share core 0."""
    with staged(turn.server, matches=1) as (backend, front), Watchers(front, STALL_CLIENTS, 1) as crowd:
        crowd.connected()
        for name in ("level", "stalled"):
            seconds = DIRECT_STALL_S if (name, turn.server) == ("stalled", "direct") else STALL_S
            crowd.watch(seconds + DRAIN_S)
            backend.feed(STALL_RATE, seconds, 1, STALL_BYTES)
            time.sleep(seconds + DRAIN_S)
            said = crowd.watched(backend.published(), seconds)
            yield f"{name}_p99_ms", said["latency_us"]["p99"] / 1e3
            yield f"{name}_silence_s", said["silence_s"]
            yield f"{name}_client_share", said["cpu_seconds"] / said["seconds"]
            crowd.stall(STALL_ONE_IN)


def restart(turn: Turn) -> Iterator[tuple[str, float]]:
    """The backend is killed and comes back; nobody may lose the connection. Backend and relay share core 0."""
    with ExitStack() as stack:
        backend, front = stack.enter_context(staged(turn.server))
        assert isinstance(front, Relay)
        crowd = stack.enter_context(Watchers(front, CROWD))
        crowd.connected()
        seconds = AWAY_S + 2 * FEED_S
        crowd.watch(seconds)
        began = time.monotonic()
        backend.feed(LOW_RATE, WITHIN_S)
        time.sleep(1.0)
        os.kill(backend.pid, signal.SIGKILL)
        time.sleep(AWAY_S)
        back = stack.enter_context(Backend(SERVER_CORE, backend.port))
        back.listen()
        returned = time.monotonic()
        back.wait_until("all lanes", lambda found: sum(found["watchers"].values()) >= MATCHES)
        yield "back_s", time.monotonic() - returned
        back.feed(LOW_RATE, 2.0)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        crowd.watched(back.published(), seconds, restarts=CROWD)
        gaps = front.gaps()
        yield "gaps", len(gaps)
        yield "gap_longest_s", max(gaps, default=0.0)
        yield "back_lanes", back.stats()["connectedPeak"]


@dataclass(frozen=True)
class Measure:
    """What is measured, of whom, and of whom once only."""

    take: Callable[[Turn], Iterator[tuple[str, float]]]
    servers: tuple[str, ...]
    once: tuple[str, ...] = ()


MEASURES = {
    "lanes": Measure(lanes, (), ("relayed",)),
    "backend": Measure(backend_share, ("direct", "relayed")),
    "delivery": Measure(delivery, ("fanwire", "relayed")),
    "latency": Measure(latency, ("direct", "relayed")),
    "feed": Measure(feed, ("direct", "relayed")),
    "login": Measure(login, (), ("direct", "relayed")),
    "stall": Measure(stall, ("relayed",), ("direct",)),
    "restart": Measure(restart, (), ("relayed",)),
}


def check_machine() -> None:
    """Leave where something is missing, and raise what may be raised."""
    if not ORIGIN.is_file():
        sys.exit(f"skipped: SIGNALR_ORIGIN names no file: {ORIGIN}")
    prepare(MANY + IN_FLIGHT + LANES)


def main() -> None:
    """Run, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where relay.json and relay.md go")
    options = parser.parse_args()
    check_machine()
    figures = Figures()
    began = time.monotonic()
    for number in range(options.turns):
        for name in options.only:
            measure = MEASURES[name]
            for server in (*measure.servers, *(measure.once if number == 0 else ())):
                take(measure.take, Turn(server, "json", number, figures), options.turns)
    header = environment(set(), HERE / "peers" / "node") | {"minutes": round((time.monotonic() - began) / 60, 1)}
    relay_report.write(figures, header, options.results)
    print(f"\n{relay_report.markdown(figures, header)}")


if __name__ == "__main__":
    main()
