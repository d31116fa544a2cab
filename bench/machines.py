"""Hubs on one Redis, as on several machines: ``python bench/machines.py``; needs redis-server.

How long a publication is under way to other nodes, how many go through one, what a node has to do with what only others
want, what many clients cost that come back to another node; and python-socketio, Channels and Centrifugo on the same
Redis. Results go to bench/results: machines.json and machines.md. The bounds stand in machines_report.py.
"""

import argparse
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import machines_report
from caller import Caller
from machines_report import BACK, BATCH, CHANNELS, CLIENTS, EACH, FAST, MISSED, NODES, RATE
from measure import cpu_of, environment
from process import CORES, Child, ChildFailed
from scale_stage import EACH_MAX, kill, processes_for, take_port
from signalr import BINARIES, CLIENT_CORE, HERE, SERVER_CORE, SETTLE_S, WITHIN_S, Measures, Turn, take_turns
from workloads import Peer, peers, python_peer

PAYLOAD_BYTES = 128
FEED_S = 5.0
HOPS, HOP_EVERY_S = 2_000, 0.002
BURSTS = {"single": (15, 1, 0.3), "burst20": (3, 20, 4.0)}
"""Rounds, publications in each, seconds between their beginnings: as much as the slowest of the peers bears."""
PACKAGES = {"channels", "channels-redis", "django", "python-socketio", "redis", "uvicorn"}


class Redis(Child):
    """A server with nothing in it, which keeps nothing on a disk."""

    def __init__(self, cores: set[int]) -> None:
        """It runs on these cores from ``with`` on."""
        self.port = take_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = tempfile.TemporaryDirectory()
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__("redis-server", [*command, "--dir", self._folder.name], [*cores])

    def __enter__(self) -> Self:
        """Start it; returns when it answers."""
        super().__enter__()
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                self.ask("PING")
            except OSError as error:
                if time.monotonic() > deadline or self.is_over:
                    raise ChildFailed(f"redis-server does not answer: {error}") from error
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *error: Any) -> None:
        """End it."""
        kill([self.pid])
        super().__exit__(*error)
        self._folder.cleanup()

    def ask(self, *words: str) -> str:
        """What it answers to a command, as it comes."""
        with socket.create_connection(("127.0.0.1", self.port), WITHIN_S) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            return connection.recv(1 << 16).decode()

    def calls(self) -> dict[str, int]:
        """How often each command was called, by name."""
        lines = (line.partition(":") for line in self.ask("INFO", "commandstats").splitlines())
        return {
            name.removeprefix("cmdstat_"): int(rest.split("calls=")[1].split(",")[0])
            for name, _, rest in lines
            if name.startswith("cmdstat_")
        }


class Node(Child):
    """A hub on it."""

    def __init__(self, redis: Redis, number: int) -> None:
        """One of them."""
        self.port = take_port()
        self._redis = redis
        command = [sys.executable, str(HERE / "peers" / "workers_hub.py"), "--port", str(self.port)]
        super().__init__(f"node {number}", command, [*CORES])

    def __enter__(self) -> Self:
        """Start it, and wait until it serves."""
        os.environ["FANWIRE_BENCH_BACKBONE"] = self._redis.url
        try:
            super().__enter__()
        finally:
            del os.environ["FANWIRE_BENCH_BACKBONE"]
        self.wait_until_logged(f"serving on 127.0.0.1:{self.port}", WITHIN_S)
        return self

    def __exit__(self, *error: Any) -> None:
        """End it."""
        kill([self.pid])
        super().__exit__(*error)


@contextmanager
def several(count: int, clients: int = 0) -> Iterator[tuple[Redis, list[Node], list[Caller], list[Child]]]:
    """A Redis, so many nodes, a caller of each, and crowds of clients who watch c0 at each."""
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(CORES))
        nodes = [stack.enter_context(Node(redis, number)) for number in range(count)]
        callers = [stack.enter_context(Caller(node.port)) for node in nodes]
        crowds = [stack.enter_context(crowd(node.port, clients)) for node in nodes if clients]
        for one in crowds:
            connected(one)
        yield redis, nodes, callers, crowds


def crowd(port: int, clients: int, query: str = "", options: Sequence[str] = ()) -> Child:
    """Clients of one server."""
    command = [str(BINARIES / "fanwire-load"), "--url", f"ws://127.0.0.1:{port}/ws{query}", *options]
    return Child("clients", [*command, "--connections", str(clients)], [CLIENT_CORE])


def connected(one: Child) -> None:
    """Wait until all of a crowd are."""
    if failed := one.wait_for("connected", WITHIN_S)["failed"]:
        raise ChildFailed(f"{failed} clients could not connect\n{one.complaints()}")


def hops(turn: Turn) -> Iterator[tuple[str, float]]:
    """From publish at one node until the program at the last of the others has it, ms; each has clients who get it."""
    with several(NODES, EACH) as (_, _, callers, crowds):
        first, *others = callers
        for other in others:
            other.call("listen")
        for one in crowds:
            one.send({"expect": HOPS * EACH})
        for count in (HOPS // 10, HOPS):
            for other in others:
                other.call("heard")
            first.call("hop", count, HOP_EVERY_S)
            time.sleep(SETTLE_S)
        heard = [other.call("heard") for other in others]
        if any(len(one) != HOPS for one in heard):
            raise ChildFailed(f"{[len(one) for one in heard]} of {HOPS} publications were heard")
        ages = sorted(max(of_one) for of_one in zip(*heard, strict=True))
        for name, quantile in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
            yield f"hop_{name}_ms", ages[round(quantile * (HOPS - 1))] / 1e6


def rate(turn: Turn) -> Iterator[tuple[str, float]]:
    """Publications a second through one node: into one channel, and into many."""
    with several(1) as (redis, nodes, [caller], _):
        for name, channels in (("one", 1), ("many", CHANNELS)):
            caller.call("publish_fast", FAST // 10, BATCH, channels, PAYLOAD_BYTES)
            before, outside = cpu_of(nodes[0].pid), cpu_of(redis.pid)
            seconds = caller.call("publish_fast", FAST, BATCH, channels, PAYLOAD_BYTES)
            yield f"rate_{name}", FAST / seconds
            yield f"rate_{name}_us", cpu_of(nodes[0].pid).since(before).total_ns / 1e3 / FAST
            yield f"rate_{name}_redis_us", cpu_of(redis.pid).since(outside).total_ns / 1e3 / FAST


def interest(turn: Turn) -> Iterator[tuple[str, float]]:
    """Share of a core, %, of a node where nobody wants what others publish; and of itself when nobody publishes."""
    with several(2) as (_, nodes, [first, _], _):
        feed = {"rounds": round(RATE), "burst": CHANNELS, "interval_s": 1 / RATE, "bytes": 64, "channels": CHANNELS}
        first.call("publish", feed)
        for name, seconds in (("resting", FEED_S), ("unwanted", FEED_S)):
            time.sleep(SETTLE_S)
            before, began = cpu_of(nodes[1].pid), time.monotonic()
            if name == "resting":
                time.sleep(seconds)
            else:
                first.call("publish", feed | {"rounds": round(seconds * RATE)})
            yield f"{name}_percent", cpu_of(nodes[1].pid).since(before).total_ns / 1e7 / (time.monotonic() - began)


def back(turn: Turn) -> Iterator[tuple[str, float]]:
    """Clients come back to nodes that they never were at, each having missed some: seconds, and what Redis is asked."""
    count = processes_for(BACK)
    with several(1 + count) as (redis, nodes, callers, _), ExitStack() as stack:
        since = callers[0].call("history", MISSED, PAYLOAD_BYTES)
        before, spent = redis.calls(), [cpu_of(node.pid) for node in nodes]
        began = time.monotonic()
        shares = [BACK * (number + 1) // count - BACK * number // count for number in range(count)]
        options = ["--sources", "2", "--in-flight", str(3_000 // count), "--patience", "60"]
        crowds = [
            stack.enter_context(crowd(node.port, share, f"?since={since}", options))
            for node, share in zip(nodes[1:], shares, strict=True)
        ]
        for one in crowds:
            connected(one)
        deadline = time.monotonic() + WITHIN_S
        while (had := sum(caller.call("deliveries") for caller in callers[1:])) < BACK * MISSED:
            if time.monotonic() > deadline:
                raise ChildFailed(f"{had:,} of {BACK * MISSED:,} missed messages went out")
            time.sleep(0.1)
        yield "back_s", time.monotonic() - began
        yield "back_us", sum(cpu_of(n.pid).since(s).total_ns for n, s in zip(nodes, spent, strict=True)) / 1e3 / BACK
        if had != BACK * MISSED:
            raise ChildFailed(f"{had:,} messages went out where {BACK * MISSED:,} were missed")
        asked = {name: calls - before.get(name, 0) for name, calls in redis.calls().items()}
        yield "back_asked", sum(asked.get(name, 0) for name in ("eval", "evalsha", "xrange", "xrevrange")) / count


@dataclass(frozen=True)
class Program:
    """A server program among peers on one Redis."""

    peer: Peer
    client: str = "fanwire-load"


def programs() -> dict[str, Program]:
    """All, by name."""
    known = peers(BINARIES / "fanwire-floor")
    framed = str(HERE / "framed_clients.py")
    return {
        "fanwire": Program(known["fanwire"]),
        "centrifugo": Program(known["centrifugo"]),
        "socketio": Program(python_peer("socketio", "python-socketio, AsyncRedisManager", "socketio_hub.py"), framed),
        "channels": Program(
            python_peer("channels", "Channels, RedisPubSubChannelLayer", "channels_hub.py", "--layer", "redis"), framed
        ),
    }


def delivery(turn: Turn) -> Iterator[tuple[str, float]]:
    """CPU of all servers, µs, for one message to one client of two nodes; they have core 0, clients core 1."""
    program = programs()[turn.server]
    with ExitStack() as stack:
        redis = stack.enter_context(Redis({SERVER_CORE}))
        servers, crowds = [], []
        for _ in range(2):
            port = take_port()
            command = [*program.peer.command, "--port", str(port), "--redis", redis.url]
            servers.append(stack.enter_context(Child(program.peer.label, command, [SERVER_CORE])))
            servers[-1].wait_for("ready", WITHIN_S)
            if program.client == "fanwire-load":
                crowds.append(stack.enter_context(crowd(port, CLIENTS, program.peer.query, program.peer.load)))
            else:
                is_socketio = turn.server == "socketio"
                path = "socket.io/?EIO=4&transport=websocket" if is_socketio else "ws"
                clients = [sys.executable, program.client, "--url", f"ws://127.0.0.1:{port}/{path}"]
                clients += ["--connections", str(CLIENTS), *["--socketio"] * is_socketio]
                crowds.append(stack.enter_context(Child("clients", clients, [CLIENT_CORE])))
            connected(crowds[-1])
        time.sleep(SETTLE_S)
        _publish(servers[0], crowds, 2, 1, 0.5)
        for burst, (rounds, count, pause_s) in BURSTS.items():
            pids = [redis.pid, *(server.pid for server in servers)]
            before = [cpu_of(pid) for pid in pids]
            _publish(servers[0], crowds, rounds, count, pause_s)
            spent = [cpu_of(pid).since(one).total_ns for pid, one in zip(pids, before, strict=True)]
            yield burst, sum(spent) / 1e3 / (rounds * count * 2 * CLIENTS)
            yield f"{burst}_redis", spent[0] / 1e3 / (rounds * count * 2 * CLIENTS)


def _publish(server: Child, crowds: list[Child], rounds: int, burst: int, interval_s: float) -> None:
    wanted = rounds * burst * CLIENTS
    for one in crowds:
        one.send({"expect": wanted})
    time.sleep(SETTLE_S / 10)
    command = {"rounds": rounds, "burst": burst, "interval_s": interval_s, "bytes": PAYLOAD_BYTES, "sequence": None}
    server.send({"publish": command})
    server.wait_for("published", WITHIN_S + rounds * interval_s)
    for one in crowds:
        said = one.wait_for("complete", WITHIN_S)
        wrong = [name for name in ("gaps", "reordered", "malformed") if said[name]]
        if said["received"] != wanted or wrong:
            raise ChildFailed(f"{said['received']:,} of {wanted:,} messages: {wrong}\n{server.complaints()}")


MEASURES: Measures = {
    "hops": (hops, ("nodes",)),
    "rate": (rate, ("nodes",)),
    "interest": (interest, ("nodes",)),
    "back": (back, ("nodes",)),
    "delivery": (delivery, ("fanwire", "centrifugo", "socketio", "channels")),
}


def main() -> None:
    """Run, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where machines.json and .md go")
    options = parser.parse_args()
    if not (BINARIES / "fanwire-load").is_file():
        sys.exit(f"{BINARIES / 'fanwire-load'} is missing: cargo build --release -p fanwire-load")
    if shutil.which("redis-server") is None:
        sys.exit("skipped: there is no redis-server")
    assert processes_for(BACK) * EACH_MAX >= BACK
    began = time.monotonic()
    figures = take_turns(MEASURES, options.only, options.turns)
    header = environment(PACKAGES, HERE / "peers" / "node") | {"minutes": round((time.monotonic() - began) / 60, 1)}
    machines_report.write(figures, header, options.results)
    print(f"\n{machines_report.markdown(figures, header)}")


if __name__ == "__main__":
    main()
