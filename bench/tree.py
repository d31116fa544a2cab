"""An edge near the users of a far origin: ``python bench/tree.py``.

The origin is 100 ms away, each way, by ``distance.py``. What a client waits for with and without an edge near it, and
what crosses the distance for 1,000 clients of one channel. Results go to bench/results: tree.json and tree.md. The
bounds stand in tree_report.py.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import tree_report
from caller import WITHIN_S, Caller, masked
from machines import connected, crowd
from measure import environment
from process import CORES, Child, ChildFailed
from scale_stage import kill, take_port
from signalr import BINARIES, HERE, SETTLE_S, Measures, Turn, take_turns
from tree_report import CLIENTS, CLOSE_BY, DELAY_MS, KEPT, PAYLOAD_BYTES, PUBLISHED, ROUNDS

PACKAGES: set[str] = set()


class Hub(Child):
    """An origin, or an edge of one."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        """It has these variables."""
        self.port = take_port()
        self._environment = environment
        command = [sys.executable, str(HERE / "peers" / "workers_hub.py"), "--port", str(self.port)]
        super().__init__(name, command, [*CORES])

    def __enter__(self) -> Self:
        """Start it, and wait until it serves."""
        os.environ.update(self._environment)
        try:
            super().__enter__()
        finally:
            for name in self._environment:
                del os.environ[name]
        self.wait_until_logged(f"serving on 127.0.0.1:{self.port}", WITHIN_S)
        return self

    def __exit__(self, *error: Any) -> None:
        """End it."""
        kill([self.pid])
        super().__exit__(*error)


class Distance(Child):
    """The way to a server."""

    def __init__(self, port: int) -> None:
        """To this port."""
        command = [sys.executable, str(HERE / "distance.py"), "--to", str(port), "--delay-ms", str(DELAY_MS)]
        super().__init__("distance", command, [*CORES])

    def __enter__(self) -> Self:
        """Start it; it listens."""
        super().__enter__()
        self.port = int(self.wait_for("listens", WITHIN_S)["port"])
        return self

    def carried(self) -> int:
        """Bytes so far, both ways."""
        self.send({})
        return sum(self.wait_for("carried", WITHIN_S).values())


class Watcher(Caller):
    """A raw client that looks at what comes."""

    def __init__(self, port: int, query: str) -> None:
        """Connect with that query."""
        self._connect(port, query)

    def subscribe(self, channel: str) -> None:
        """Watch it; returns when that is so."""
        self._socket.sendall(masked(json.dumps({"subscribe": [channel], "id": 1}).encode()))
        self._frame()

    def next(self) -> bytes:
        """The next message."""
        return self._frame()


@contextmanager
def tree() -> Iterator[tuple[Caller, dict[str, int], Distance]]:
    """A caller of the origin, where clients connect with and without an edge, and the way of each to the origin."""
    with ExitStack() as stack:
        origin = stack.enter_context(Hub("origin", {"FANWIRE_BENCH_HISTORY": "1"}))
        way = stack.enter_context(Distance(origin.port))
        edge = stack.enter_context(Hub("edge", {"FANWIRE_BENCH_BACKBONE": f"fanwire://127.0.0.1:{way.port}"}))
        caller = stack.enter_context(Caller(origin.port))
        edge.wait_until_logged("the backbone is reached", WITHIN_S)
        yield caller, {"far": way.port, "near": edge.port}, way


def waiting(turn: Turn) -> Iterator[tuple[str, float]]:
    """What a client waits for, ms: the first of what is kept, the last of what it missed, a publication."""
    with tree() as (caller, ports, _):
        since = caller.call("history", KEPT, PAYLOAD_BYTES)
        for name, port in ports.items():
            began = time.perf_counter()
            with Watcher(port, "?channel=c0&start=history") as first:
                first.next()
                yield f"{name}_cold_ms", (time.perf_counter() - began) * 1e3
                times: dict[str, list[float]] = {"first": [], "recover": []}
                for _ in range(CLOSE_BY):
                    for what, query, count in (
                        ("first", "&start=history", 1),
                        ("recover", f"&since={since}", KEPT + 1),
                    ):
                        began = time.perf_counter()
                        with Watcher(port, f"?channel=c0{query}") as one:
                            for _ in range(count):
                                one.next()
                            times[what].append((time.perf_counter() - began) * 1e3)
                for what, spent in times.items():
                    yield f"{name}_{what}_ms", sorted(spent)[len(spent) // 2]
            with Watcher(port, "") as one:
                one.subscribe("hop")
                ages = []
                for _ in range(PUBLISHED):
                    caller.call("hop", 1, 0)
                    published_ns = int(one.next())
                    ages.append(time.monotonic_ns() - published_ns)
                yield f"{name}_publish_ms", sorted(ages)[len(ages) // 2] / 1e6


def bytes_over(turn: Turn) -> Iterator[tuple[str, float]]:
    """What crosses for so many clients of one channel: when they come, and a publication."""
    with tree() as (caller, ports, way):
        for name, port in ports.items():
            before = way.carried()
            with crowd(port, CLIENTS) as clients:
                connected(clients)
                time.sleep(SETTLE_S + 3 * DELAY_MS / 1e3)
                came = way.carried()
                yield f"{name}_come_bytes", came - before
                clients.send({"expect": ROUNDS * CLIENTS})
                time.sleep(SETTLE_S / 10)
                caller.call("publish", {"rounds": ROUNDS, "burst": 1, "interval_s": 0.05, "bytes": PAYLOAD_BYTES})
                said = clients.wait_for("complete", WITHIN_S)
                wrong = [what for what in ("gaps", "reordered", "malformed") if said[what]]
                if said["received"] != ROUNDS * CLIENTS or wrong:
                    raise ChildFailed(f"{said['received']:,} of {ROUNDS * CLIENTS:,} messages: {wrong}")
                yield f"{name}_publication_bytes", (way.carried() - came) / ROUNDS


MEASURES: Measures = {"waiting": (waiting, ("tree",)), "bytes": (bytes_over, ("tree",))}


def main() -> None:
    """Run, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where tree.json and tree.md go")
    options = parser.parse_args()
    if not (BINARIES / "fanwire-load").is_file():
        sys.exit(f"{BINARIES / 'fanwire-load'} is missing: cargo build --release -p fanwire-load")
    began = time.monotonic()
    figures = take_turns(MEASURES, options.only, options.turns)
    header = environment(PACKAGES, HERE / "peers" / "node") | {"minutes": round((time.monotonic() - began) / 60, 1)}
    tree_report.write(figures, header, options.results)
    print(f"\n{tree_report.markdown(figures, header)}")


if __name__ == "__main__":
    main()
