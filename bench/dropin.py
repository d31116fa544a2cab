"""Programs before and after they hand fanwire their sockets: ``python bench/dropin.py``; ``--smoke`` to see it run.

Each pair is the same program on the same server, side by side: peers take turns, as in run.py, which has the rest of
the method. Results go to bench/results: dropin.json and dropin.md. The pairs and their bounds stand here.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from measure import environment
from pairs import Framed, machine, memory_table, reached, results_of, times_text, write
from report import figure_text, markdown_table, span_text
from rich.console import Console
from session import Session
from summary import Summary
from workloads import HERE, Group, Peer, Workload, python_peer

ROOT = HERE.parent
WEBSOCKETS = "websockets_asyncio.py"
SERVER = ("--ws", "fanwire.uvicorn:Protocol")
PEERS = {
    peer.name: peer
    for peer in (
        python_peer("fanwire", "the hub's own listener", "fanwire_hub.py"),
        python_peer("fastapi", "FastAPI, a send to each", "fastapi_hub.py"),
        python_peer("fastapi-manager", "fanwire's ConnectionManager", "fastapi_hub.py", "--send", "manager", *SERVER),
        python_peer("fastapi-attached", "FastAPI, attached", "fastapi_hub.py", "--send", "attach", *SERVER),
        python_peer("websockets", "websockets.broadcast", WEBSOCKETS, "--uvloop"),
        python_peer("websockets-broadcast", "fanwire.broadcast", WEBSOCKETS, "--uvloop", "--send", "broadcast"),
        python_peer("websockets-attached", "websockets, attached", WEBSOCKETS, "--uvloop", "--send", "attach"),
    )
}


@dataclass(frozen=True)
class Bound:
    """After: at least `times` as fast as before in this workload; below 1 it may be so much slower."""

    after: str
    before: str
    workload: str
    times: float


BOUNDS = (
    Bound("fastapi-manager", "fastapi", "single", 1.5),
    Bound("fastapi-manager", "fastapi", "burst20", 25),
    Bound("fastapi-attached", "fastapi", "single", 1.5),
    Bound("fastapi-attached", "fastapi", "burst20", 25),
    Bound("websockets-broadcast", "websockets", "single", 1.5),
    Bound("websockets-broadcast", "websockets", "burst20", 10),
    Bound("websockets-attached", "fanwire", "single", 1 / 1.1),
    Bound("websockets-attached", "fanwire", "burst20", 1 / 1.1),
)
CROWDS = (1_000, 5_000)
DEFLATED = 1_000
"""With so many clients all is run once more, where each of them has negotiated permessage-deflate."""
FEW_TURNS_FROM = 5_000
"""With so many clients there are two turns at most."""
WITH_DEFLATE = frozenset(
    ["fastapi", "fastapi-manager", "fastapi-attached", "websockets", "websockets-broadcast", "websockets-attached"]
)
"""Programs whose framework can negotiate it."""
ADOPTING_US_MAX = 100.0
"""Handing over one socket costs no more."""


def groups(clients: int, turns: int, *, deflate: bool = False, is_smoke: bool) -> Group:
    """The layout for so many clients."""
    single, bursts = (5, 2) if is_smoke else (60_000 // clients, 10_000 // clients)
    if deflate and not is_smoke:  # a message takes hundreds of microseconds before, and the clients inflate
        single, bursts = 12, 2
    name = f"{clients}-deflate" if deflate else f"{clients}"
    workloads = (
        Workload(f"single-{name}", "one at a time", single, 1, 0.025 * clients / 1_000, warm_rounds=2),
        Workload(f"burst20-{name}", "burst of 20", bursts, 20, 0.1 * clients / 1_000),
    )
    return Group(name, clients, turns, tuple(PEERS), workloads, memory=not deflate)


def deflating(peer: Peer) -> Peer:
    """The same program, which negotiates permessage-deflate."""
    return replace(peer, command=(*peer.command, "--deflate"))


def measure(
    group: Group, names: list[str], load: Path, say: Callable[[str], None], *, deflate: bool
) -> list[dict[str, Any]]:
    """All turns of one layout."""
    results: list[dict[str, Any]] = []
    for repeat in range(group.repeats):
        for name in names:
            if deflate and name not in WITH_DEFLATE:
                continue
            session = (
                Framed(deflating(PEERS[name]), group, repeat, "ws?channel=c0", ["--deflate"])
                if deflate
                else Session(PEERS[name], group, repeat, load, control=False)
            )
            results += results_of(session, say)
    return results


def adopting() -> dict[str, float]:
    """What adopting.py finds, in a process of its own on the server's core."""
    command = ["taskset", "-c", "0", sys.executable, str(HERE / "adopting.py")]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE).stdout
    found: dict[str, float] = json.loads(said)
    return found


def rows_of(summary: Summary, name: str, *, has_bytes: bool) -> list[list[str]]:
    """A row for each bound, of a group of this name."""
    rows = []
    for bound in BOUNDS:
        if has_bytes and bound.before not in WITH_DEFLATE:
            continue
        workload = f"{bound.workload}-{name}"
        ratio = summary.ratio(workload, bound.before, bound.after)
        spreads = (summary.spread(workload, peer) for peer in (bound.before, bound.after))
        row = [
            f"{PEERS[bound.after].label} ({bound.after}), {bound.workload}",
            *map(span_text, spreads),
            times_text(ratio),
            f"≥ {times_text(bound.times)}",
            reached(ratio, bound.times),
        ]
        if has_bytes:
            row += [span_text(summary.spread(workload, peer, "wire_bytes")) for peer in (bound.before, bound.after)]
        rows.append(row)
    return rows


def markdown(found: dict[str, Any], crowds: tuple[int, ...]) -> str:
    """The report."""
    summary = Summary(found)
    parts = [
        "# Programs before and after",
        "Made by `python bench/dropin.py`; do not edit. Server CPU, µs for one message to one client: the median of "
        "the turns, and the lowest and highest. A ratio is the median over the turns, each of two runs side by side. "
        "No compression but where it is said. Server on core 0, clients on core 1.",
        machine(found["header"]),
    ]
    head = ["", "before, µs", "after, µs", "faster", "bound", "reached"]
    for clients in crowds:
        parts += [f"## {clients:,} clients", markdown_table(head, rows_of(summary, f"{clients}", has_bytes=False))]
        parts += memory_table(summary, f"{clients}", PEERS.values())
    name = next((result["group"] for result in found["results"] if result["group"].endswith("-deflate")), None)
    if name is not None:
        parts += [
            f"## {name.partition('-')[0]} clients that have negotiated permessage-deflate",
            "What fanwire's engine writes is not compressed, also where that was negotiated (RFC 7692 allows it); what "
            "the program itself sends is. Bytes are of a frame with its head, as clients count them.",
            markdown_table([*head, "bytes before", "bytes after"], rows_of(summary, name, has_bytes=True)),
        ]
    if found["adopting"]:
        ways = {"attach_us": "`hub.attach`", "broadcast_us": "the second `fanwire.broadcast` to a connection"}
        rows = [
            [
                ways[key],
                figure_text(us),
                f"≤ {figure_text(ADOPTING_US_MAX)}",
                "yes" if us <= ADOPTING_US_MAX else "**no**",
            ]
            for key, us in found["adopting"].items()
        ]
        parts += [
            "## Handing a socket to the engine",
            "Thousands in a row, wall time of the call: the median.",
            markdown_table(["", "µs", "bound", "reached"], rows),
        ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--clients", nargs="+", type=int, default=list(CROWDS))
    parser.add_argument(
        "--only", choices=["plain", "deflate", "adopting"], nargs="+", default=["plain", "deflate", "adopting"]
    )
    parser.add_argument("--smoke", action="store_true", help="a few seconds: figures that mean nothing")
    binaries = os.environ.get("FANWIRE_BENCH_BINARIES", ROOT / "target" / "release")
    parser.add_argument("--binaries", type=Path, default=Path(binaries), help="directory of fanwire-load")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where dropin.json and dropin.md go")
    options = parser.parse_args()
    load = options.binaries / "fanwire-load"
    if not load.exists():
        sys.exit(f"{load} is missing: cargo build --release -p fanwire-load")
    console = Console()
    began = time.monotonic()
    crowds = (50,) if options.smoke else tuple(options.clients)
    results: list[dict[str, Any]] = []
    turns = 1 if options.smoke else options.turns

    def say(line: str) -> None:
        console.print(line, highlight=False)

    for clients in crowds if "plain" in options.only else ():
        group = groups(clients, turns if clients < FEW_TURNS_FROM else min(turns, 2), is_smoke=options.smoke)
        results += measure(group, options.peers, load, say, deflate=False)
    if "deflate" in options.only:
        group = groups(crowds[0] if options.smoke else DEFLATED, 1, deflate=True, is_smoke=options.smoke)
        results += measure(group, options.peers, load, say, deflate=True)
    costs = adopting() if "adopting" in options.only and not options.smoke else {}
    for key, us in costs.items():
        say(f"adopting: {key} {us:.1f}")
    packages = {"fastapi", "uvicorn", "uvloop", "websockets"}
    header = environment(packages, HERE / "peers" / "node") | {"minutes": round((time.monotonic() - began) / 60, 1)}
    found = {"header": header, "results": results, "adopting": costs}
    say(write(options.results, "dropin", found, markdown(found, crowds)))


if __name__ == "__main__":
    main()
