"""What compression saves and costs, beside peers: ``python bench/compression.py``; ``--smoke`` to see that all runs.

One channel has a feed of changed odds (odds_feed.py). Peers take turns, as in run.py, which has the rest of the method.
Results go to bench/results: compression.json, compression.md and the plot.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import odds_feed
from compression_report import plot, report
from measure import Cpu, Memory, cpu_of, environment, memory_of
from pairs import write
from process import Child, ChildFailed
from rich.console import Console
from session import PIPE_SETTLE_S, Result, Session
from stock import stock_clients
from workloads import HERE, Group, Peer, Workload, centrifugo_peer, python_peer

ROOT = HERE.parent
BROWSERS = "permessage-deflate; client_max_window_bits"
"""What browsers, Node's ws and aiohttp offer."""
TWELVE = f"{BROWSERS}; server_max_window_bits=12"
"""What Python's websockets offers."""
FORGETS = f"{BROWSERS}; server_no_context_takeover"
FANWIRE, SOCKETIFY, WEBSOCKETS = "fanwire_hub.py", "socketify_hub.py", "websockets_asyncio.py"


@dataclass(frozen=True)
class Way:
    """A peer, what its clients offer, and how it compresses then."""

    peer: Peer
    context: str
    """none, no context, a context for each, shared: what the plot sorts by."""
    offer: str | None = BROWSERS


def _way(name: str, label: str, context: str, file: str, *options: str, offer: str | None = BROWSERS) -> Way:
    return Way(python_peer(name, label, file, *options), context, offer)


WAYS = {
    way.peer.name: way
    for way in (
        _way("fanwire", "fanwire", "none", FANWIRE, offer=None),
        _way("fanwire-shared", "fanwire", "shared", FANWIRE, "--deflate"),
        _way("fanwire-12", "fanwire, 12 bits", "shared", FANWIRE, "--deflate", offer=TWELVE),
        _way("fanwire-alone", "fanwire", "no context", FANWIRE, "--deflate", offer=FORGETS),
        _way("socketify", "µWebSockets", "none", SOCKETIFY),
        _way("socketify-shared", "µWebSockets, SHARED", "no context", SOCKETIFY, "--compression", "SHARED_COMPRESSOR"),
        _way(
            "socketify-dedicated",
            "µWebSockets, DEDICATED",
            "a context for each",
            SOCKETIFY,
            "--compression",
            "DEDICATED_COMPRESSOR_256KB",
        ),
        _way("websockets", "websockets", "none", WEBSOCKETS, "--uvloop"),
        _way("websockets-deflate", "websockets", "a context for each", WEBSOCKETS, "--uvloop", "--deflate"),
        Way(centrifugo_peer("centrifugo", "Centrifugo"), "none"),
        Way(centrifugo_peer("centrifugo-deflate", "Centrifugo", "--deflate"), "no context"),
    )
}
RATE_S = 1 / 20
"""Between two messages, as the feed has them."""
LEAVE_SHARE = 0.01
"""So much of the clients leave each second, and as many come."""
SETTLE_S = 6.0
"""The feed goes on for so long before the bytes count: 120 messages, more than anybody's window holds."""
UNDER_WAY_S = 1.0
"""Until what was published has come."""
IDLE_CLIENTS = 8_000
"""So many that what a server has once is little for each."""


class Feeding(Session):
    """A session whose clients count bytes on the wire, and publish the feed."""

    def __init__(self, way: Way, group: Group, repeat: int, load: Path, feed: Path) -> None:
        super().__init__(way.peer, group, repeat, load, control=False)
        self._way, self._feed = way, feed
        self._before_bytes = 0

    def _load_command(self, port: int) -> list[str]:
        url = f"ws://127.0.0.1:{port}/ws{self.peer.query or '?channel=c0'}"
        command = [str(self.load), "feed", "--url", url, "--connections", str(self.group.clients)]
        command += ["--feed", str(self._feed), *self.peer.load]
        return command + (["--offer", self._way.offer] if self._way.offer else [])

    def _connect(self, server: Child, client: Child, memory: Memory, cpu: Cpu) -> Result | None:
        self._before_bytes = memory.private_bytes
        return super()._connect(server, client, memory, cpu)

    def _publish(self, server: Child, client: Child, workload: Workload, rounds: int, interval_s: float, _: int) -> Any:
        """As that of others, with the feed."""
        expected = rounds * workload.burst * self.group.clients
        client.send({"expect": expected})
        time.sleep(PIPE_SETTLE_S)
        before = cpu_of(server.pid)
        published = self._feed_on(server, rounds, interval_s, workload.burst)
        complete = client.wait_for("complete", 60 + expected * 200e-6)
        if self._way.context != "none" and not complete["counts"]["settled"]["compressed"]:
            raise ChildFailed("nothing was compressed")
        return cpu_of(server.pid).since(before), published, complete

    def _feed_on(self, server: Child, rounds: int, interval_s: float, burst: int = 1) -> dict[str, Any]:
        command = {"rounds": rounds, "burst": burst, "interval_s": interval_s, "feed": str(self._feed)}
        server.send({"publish": command})
        published: dict[str, Any] = server.wait_for("published", 120 + rounds * interval_s * 4)
        return published

    def _measure(self, server: Child, client: Child, workload: Workload) -> Result:
        if not workload.name.startswith("rate"):
            return super()._measure(server, client, workload)
        result = self._result(workload.name)
        if workload.name == "rate":
            client.send({"churn": max(1, round(self.group.clients * LEAVE_SHARE))})
        self._feed_on(server, workload.warm_rounds, workload.interval_s)
        time.sleep(UNDER_WAY_S)
        client.send({"begin": True})
        time.sleep(PIPE_SETTLE_S)
        before = cpu_of(server.pid)
        published = self._feed_on(server, workload.rounds, workload.interval_s)
        spent = cpu_of(server.pid).since(before)
        client.send({"churn": 0})
        time.sleep(UNDER_WAY_S)
        client.send({"tell": True})
        told = client.wait_for("complete", 60)
        faults = {name: told[name] for name in ("gaps", "malformed", "closed", "failed") if told[name]}
        is_whole = told["lowest"] == told["highest"] == workload.rounds
        result.complete = is_whole and not faults
        result.why = "" if result.complete else f"{told['lowest']} to {told['highest']} messages, {faults}"
        result.publications, result.deliveries = published["published"], told["received"]
        result.cpu_us = spent.total_ns / 1e3 / max(1, told["received"])
        result.figures = shares(told["counts"], published["payload_bytes"] / published["published"])
        grown = memory_of(server.pid).private_bytes - self._before_bytes
        result.figures["busy_kib"] = grown / 1024 / self.group.clients
        return result


def shares(counts: dict[str, Any], message_bytes: float) -> dict[str, float]:
    """Bytes on the wire as a share of the messages', of all, of who was there all the while, and of newcomers."""
    settled, newcomers = counts["settled"], counts["newcomers"]
    wire, messages = (sum(one[key] for one in (settled, newcomers)) for key in ("wire_bytes", "messages"))
    return {
        "message_bytes": message_bytes,
        "share": wire / messages / message_bytes,
        "settled_share": settled["wire_bytes"] / max(1, settled["messages"]) / message_bytes,
        "newcomers_share": newcomers["wire_bytes"] / max(1, newcomers["messages"]) / message_bytes,
        "newcomers": newcomers["messages"] / messages,
        "newcomers_of_wire": newcomers["wire_bytes"] / wire,
        "compressed": sum(one["compressed"] for one in (settled, newcomers)) / messages,
        "checked": counts["checked"],
    }


def group_of(clients: int, turns: int, seconds: float, *, is_smoke: bool) -> Group:
    """The layout: the feed at its rate with clients that come and go, then as fast as a server can."""
    rounds = round(seconds / RATE_S)
    workloads = (
        Workload("flat-out", "one at a time", 10 if is_smoke else 200, 1, 0.02, warm_rounds=5 if is_smoke else 70),
        Workload("rate", "20 a second", rounds, 1, RATE_S, warm_rounds=10 if is_smoke else round(SETTLE_S / RATE_S)),
    )
    return Group(f"{clients}", clients, turns, tuple(WAYS), workloads, memory=True)


def idle_group(clients: int, turns: int) -> Group:
    """Many clients that have heard enough to be among those who share a context, and then nothing."""
    few = Workload("rate-idle", "a few", 20, 1, 0.15, warm_rounds=100)
    return Group("idle", clients, turns, (), (few,), memory=True)


def measure(group: Group, names: list[str], load: Path, feed: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All turns of one layout."""
    results = []
    for repeat in range(group.repeats):
        for name in names:
            for result in Feeding(WAYS[name], group, repeat, load, feed).run(group.workloads, lambda _: None):
                if result.workload == "idle":
                    result.workload = f"idle-{group.name}"
                results.append(result.as_dict())
                says = f"{result.cpu_us:.3f} µs" if result.cpu_us else f"{result.figures.get('idle_kib', 0):.3f} KiB"
                if "share" in result.figures:
                    says += f", {result.figures['share']:.3f} of raw"
                said = says if result.complete else result.why.splitlines()[-1]
                say(f"{repeat + 1}/{group.repeats} {name:<22} {result.workload:<12} {said}")
    return results


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="the feed's at its own rate, of each turn")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--only", nargs="+", choices=["crowd", "idle", "stock"], default=["crowd", "idle", "stock"])
    parser.add_argument("--smoke", action="store_true", help="a few seconds: figures that mean nothing")
    binaries = os.environ.get("FANWIRE_BENCH_BINARIES", ROOT / "target" / "release")
    parser.add_argument("--binaries", type=Path, default=Path(binaries), help="directory of fanwire-load")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the results go")
    options = parser.parse_args()
    load = options.binaries / "fanwire-load"
    if not load.exists():
        sys.exit(f"{load} is missing: cargo build --release -p fanwire-load")
    console, began = Console(), time.monotonic()

    def say(line: str) -> None:
        console.print(line, highlight=False)

    clients = 50 if options.smoke else options.clients
    turns = 1 if options.smoke else options.turns
    seconds = 2.0 if options.smoke else options.seconds
    results: list[dict[str, Any]] = []
    stock: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        feed = Path(folder) / "odds.jsonl"
        odds_feed.write(feed)
        if "crowd" in options.only:
            group = group_of(clients, turns, seconds, is_smoke=options.smoke)
            results += measure(group, options.ways, load, feed, say)
        if "idle" in options.only:
            names = [name for name in ("fanwire", "fanwire-shared") if name in options.ways]
            group = idle_group(100 if options.smoke else IDLE_CLIENTS, turns)
            results += measure(group, names, load, feed, say)
        if "stock" in options.only:
            stock = stock_clients(WAYS["fanwire-shared"].peer, feed, 3.0 if options.smoke else 60.0, Path(folder), say)
    header = environment({"websockets", "socketify", "aiohttp", "uvloop"}, HERE / "peers" / "node")
    header["minutes"] = round((time.monotonic() - began) / 60, 1)
    contexts = {name: [way.peer.label, way.context] for name, way in WAYS.items()}
    found = {"header": header, "results": results, "ways": contexts, "stock": stock}
    say(write(options.results, "compression", found, report(found)))
    plot(found, options.results)


if __name__ == "__main__":
    main()
