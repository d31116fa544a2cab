"""fanwire beside the real ASP.NET Core hub: ``python bench/signalr.py``; needs signalr-origin (SIGNALR_ORIGIN).

One server at a time, pinned to core 0, its clients (``fanwire-load signalr``) to core 1; the servers take turns.
Results go to bench/results: signalr.json and signalr.md. What is measured stands here, the bounds in signalr_report.py.
"""

import argparse
import os
import resource
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import signalr_report
from figures import Figures
from measure import cpu_of, environment, memory_of
from process import Child, ChildFailed, free_port
from signalr_report import CALLERS, CLIENTS, IDLERS, PINGERS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ORIGIN = Path(os.environ.get("SIGNALR_ORIGIN", "signalr-origin"))
BINARIES = Path(os.environ.get("FANWIRE_BENCH_BINARIES", ROOT / "target" / "release"))
PROTOCOLS = ("json", "messagepack")
SERVER_CORE, CLIENT_CORE = 0, 1
SOURCES = 20
"""Addresses that clients connect from: enough ports for those of 15,000 and of their negotiations."""
WITHIN_S = 60.0
MATCH = "m1"
PAD = 40
"""Bytes of a publication's padding: of ours, and of the real hub's beyond 160."""
BURSTS = {"single": (60, 1, 0.03), "burst20": (15, 20, 0.1), "burst100": (8, 100, 0.25)}
"""Rounds, publications in each, seconds between their beginnings."""
WARM_CONNECTS, WARM_CALLS, CALLS = 500, 5_000, 30_000
PING_EVERY_S = 15.0
PINGED_S = 2 * PING_EVERY_S
"""How long the pings are measured; before that, one ping of each client."""
SETTLE_S = 0.5


class Server(Child):
    """A fresh server; it is killed at its end, for the real hub knows no other order."""

    def __init__(
        self, name: str, core: int = SERVER_CORE, port: int | None = None, command: Sequence[str] | None = None
    ) -> None:
        """`name` is origin, fanwire, or raw: fanwire, whose clients speak its own protocol; another has a command."""
        self.port = port or free_port()
        own = [sys.executable, str(HERE / "peers" / "signalr_hub.py"), str(self.port)]
        real = [str(ORIGIN), "serve", "--url", f"http://127.0.0.1:{self.port}"]
        super().__init__(name, command or (real if name == "origin" else own), [core])

    def listen(self) -> None:
        """Wait until it does."""
        self.wait_for("ev" if self.name == "origin" else "ready", WITHIN_S)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)
        super().__exit__(kind, value, trace)


class Crowd(Child):
    """Clients of a server."""

    def __init__(
        self, server: Server, clients: int, protocol: str, path: str = "/live", more: Sequence[str] = ()
    ) -> None:
        """`protocol` is json, messagepack or raw; `more` are options of the load client."""
        self.clients = clients
        command = [str(BINARIES / "fanwire-load"), "signalr", "--url", f"ws://127.0.0.1:{server.port}{path}"]
        command += ["--protocol", protocol, "--connections", str(clients), "--sources", str(SOURCES), *more]
        super().__init__(f"{clients:,} {protocol} clients of {server.name}", command, [CLIENT_CORE])

    def connected(self) -> dict[str, Any]:
        """Wait until all are."""
        said: dict[str, Any] = self.wait_for("connected", WITHIN_S)
        if said["failed"]:
            raise ChildFailed(f"{self.name}: {said['failed']} could not connect")
        return said

    def invoke(self, target: str, *arguments: object, calls: int) -> dict[str, Any]:
        """Have each client call, again as soon as it is answered, `calls` times in all."""
        self.send({"invoke": {"target": target, "arguments": arguments, "calls": calls}})
        said: dict[str, Any] = self.wait_for("invoked", WITHIN_S)
        if said["calls"] != calls or said["failed"] or said["closed"]:
            raise ChildFailed(f"{self.name}: {calls} calls of {target}: {said}")
        return said

    def receive(self, count: int, publish: Callable[[], object]) -> dict[str, Any]:
        """Publish, and wait until each client has exactly `count` messages."""
        self.send({"expect": count})
        self.wait_for("expecting", WITHIN_S)
        publish()
        said: dict[str, Any] = self.wait_for("complete", WITHIN_S)
        is_right = said["lowest"] == said["highest"] == count and not said["closed"] + sum(said["faults"].values())
        if not is_right:
            raise ChildFailed(f"{self.name}: {count} messages each: {said}")
        return said

    def idle(self, seconds: float) -> None:
        """Ping; each client must hear from the server, too."""
        self.send({"idle": {"seconds": seconds, "ping_every_s": PING_EVERY_S}})
        said = self.wait_for("idled", seconds + WITHIN_S)
        expected = int(self.clients * (seconds / PING_EVERY_S - 1))
        if said["closed"] or said["pings_received"] < expected:
            raise ChildFailed(f"{self.name}: at least {expected} pings within {seconds} s: {said}")


@dataclass(frozen=True)
class Turn:
    """One measurement of one server."""

    server: str
    protocol: str
    number: int
    figures: Figures


@contextmanager
def publisher(server: Server, message_bytes: int) -> Iterator[Callable[[int], object]]:
    """What has a server publish so many times, back to back; `message_bytes` is of the raw protocol's texts."""
    if server.name == "origin":

        def publish(count: int) -> None:
            url = f"http://127.0.0.1:{server.port}/publish?matches={MATCH}&count={count}&size={160 + PAD}"
            with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=WITHIN_S) as answer:
                answer.read()

        yield publish
        return
    target, size = ("PublishRaw", message_bytes) if server.name == "raw" else ("Publish", PAD)
    with Crowd(server, 1, "json") as control:
        control.connected()
        yield lambda count: control.invoke(target, MATCH, count, size, calls=1)


def deliveries(turn: Turn) -> Iterator[tuple[str, float]]:
    """Server CPU, µs, for one message to one client, and how many bytes a message has."""
    is_raw = turn.server == "raw"
    message_bytes = round(turn.figures.value(turn.number, "fanwire", turn.protocol, "bytes")) if is_raw else 0
    with ExitStack() as stack:
        server = stack.enter_context(Server(turn.server))
        server.listen()
        publish = stack.enter_context(publisher(server, message_bytes))
        path, protocol = (f"/ws?channel={MATCH}", "raw") if is_raw else ("/live", turn.protocol)
        crowd = stack.enter_context(Crowd(server, CLIENTS, protocol, path))
        crowd.connected()
        if not is_raw:
            crowd.invoke("Subscribe", MATCH, calls=CLIENTS)
        said = crowd.receive(20, partial(publish, 20))
        for burst, (rounds, count, pause_s) in BURSTS.items():
            time.sleep(SETTLE_S)
            before = cpu_of(server.pid)
            for _ in range(rounds):
                began = time.monotonic()
                said = crowd.receive(count, partial(publish, count))
                time.sleep(max(0.0, pause_s - (time.monotonic() - began)))
            yield burst, cpu_of(server.pid).since(before).total_ns / 1e3 / (rounds * count * CLIENTS)
        yield "bytes", said["bytes"] / said["received"]
        crowd.receive(0, partial(publish, 0))


def connects(turn: Turn) -> Iterator[tuple[str, float]]:
    """Memory of an idle connection, KiB, and what a connect costs, µs, with negotiate and handshake."""
    with Server(turn.server) as server:
        server.listen()
        with Crowd(server, 1, turn.protocol) as first:
            first.connected()
        time.sleep(SETTLE_S)
        memory = memory_of(server.pid)
        with Crowd(server, WARM_CONNECTS, turn.protocol) as warm:
            warm.connected()
        time.sleep(SETTLE_S)
        before = cpu_of(server.pid)
        with Crowd(server, IDLERS, turn.protocol) as crowd:
            said = crowd.connected()
            yield "connects_s", said["seconds"]
            yield "connects_client_share", said["cpu_seconds"] / said["seconds"]
            yield "connect_us", cpu_of(server.pid).since(before).total_ns / 1e3 / IDLERS
            time.sleep(1.0)
            yield "idle_kib", (memory_of(server.pid).private_bytes - memory.private_bytes) / 1024 / IDLERS


def calls(turn: Turn) -> Iterator[tuple[str, float]]:
    """Invocations with a small result, a second, and what one costs, µs."""
    with Server(turn.server) as server:
        server.listen()
        with Crowd(server, CALLERS, turn.protocol) as crowd:
            crowd.connected()
            crowd.invoke("Add", 1, 2, calls=WARM_CALLS)
            before = cpu_of(server.pid)
            said = crowd.invoke("Add", 1, 2, calls=CALLS)
            yield "call_us", cpu_of(server.pid).since(before).total_ns / 1e3 / CALLS
            yield "calls_per_s", CALLS / said["seconds"]
            yield "calls_client_share", said["cpu_seconds"] / said["seconds"]


def pings(turn: Turn) -> Iterator[tuple[str, float]]:
    """Share of a core, %, that idle clients take with pings both ways."""
    with Server(turn.server) as server:
        server.listen()
        with Crowd(server, PINGERS, turn.protocol) as crowd:
            crowd.connected()
            crowd.idle(PING_EVERY_S)
            before, began = cpu_of(server.pid), time.monotonic()
            crowd.idle(PINGED_S)
            yield "pings_percent", cpu_of(server.pid).since(before).total_ns / 1e7 / (time.monotonic() - began)


Measures = dict[str, tuple[Callable[[Turn], Iterator[tuple[str, float]]], tuple[str, ...]]]
"""By name: what measures, and whom."""
MEASURES: Measures = {
    "deliveries": (deliveries, ("origin", "fanwire", "raw")),
    "connects": (connects, ("origin", "fanwire")),
    "calls": (calls, ("origin", "fanwire")),
    "pings": (pings, ("fanwire",)),
}
"""What is measured, and of whom; raw comes after fanwire, whose messages' size it takes."""


def take(measure: Callable[[Turn], Iterator[tuple[str, float]]], turn: Turn, turns: int) -> None:
    """Measure, and keep what came; a run in which something is wrong counts nowhere."""
    found: dict[str, float] = {}
    try:
        found.update(measure(turn))
    except (ChildFailed, KeyError, OSError) as error:
        turn.figures.fail(turn.number, turn.server, turn.protocol, measure.__name__, str(error))
        print(f"{turn.server} {turn.protocol} {measure.__name__}: {error}", file=sys.stderr)
        return
    for metric, value in found.items():
        turn.figures.add(turn.number, turn.server, turn.protocol, metric, value)
        place = f"{turn.number + 1}/{turns} {turn.protocol:<11} {turn.server:<8}"
        print(f"{place} {metric:<21} {value:10.3f}", flush=True)


def take_turns(measures: Measures, only: Sequence[str], turns: int) -> Figures:
    """Measure these so often, turn about, with clients of the raw protocol."""
    figures = Figures()
    for number in range(turns):
        for name in only:
            measure, servers = measures[name]
            for server in servers:
                take(measure, Turn(server, "raw", number, figures), turns)
    return figures


def prepare(wanted: int) -> None:
    """Leave where the load client or so many descriptors cannot be had; raise their limit; run beside the clients."""
    if not (BINARIES / "fanwire-load").is_file():
        sys.exit(f"{BINARIES / 'fanwire-load'} is missing: cargo build --release -p fanwire-load")
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if descriptors < wanted:
        sys.exit(f"{wanted:,} descriptors are needed, {descriptors:,} are allowed: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    os.sched_setaffinity(0, {CLIENT_CORE})


def main() -> None:
    """Run, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where signalr.json and signalr.md go")
    options = parser.parse_args()
    if not ORIGIN.is_file():
        sys.exit(f"skipped: SIGNALR_ORIGIN names no file: {ORIGIN}")
    prepare(PINGERS + 100)
    figures = Figures()
    began = time.monotonic()
    for number in range(options.turns):
        for name in options.only:
            measure, servers = MEASURES[name]
            if measure is pings and number > 0:
                continue
            for protocol in options.protocols:
                for server in servers:
                    take(measure, Turn(server, protocol, number, figures), options.turns)
    header = environment(set(), HERE / "peers" / "node") | {"minutes": round((time.monotonic() - began) / 60, 1)}
    signalr_report.write(figures, header, options.results)
    print(f"\n{signalr_report.markdown(figures, header)}")


if __name__ == "__main__":
    main()
