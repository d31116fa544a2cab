"""Programs before and after they hand fanwire their sockets: ``python bench/dropin.py``; ``--smoke`` to see it run.

Each pair is the same program on the same server, side by side: peers take turns, as in run.py, which has the rest of
the method. Results go to bench/results: dropin.json and dropin.md. The pairs and their bounds stand here.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from measure import environment
from report import figure_text, markdown_table, span_text
from rich.console import Console
from session import Session
from summary import Summary
from workloads import HERE, Group, Workload, python_peer

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


def groups(clients: int, turns: int, *, is_smoke: bool) -> Group:
    """The layout for so many clients."""
    single, bursts = (5, 2) if is_smoke else (60_000 // clients, 10_000 // clients)
    workloads = (
        Workload(f"single-{clients}", "one at a time", single, 1, 0.025 * clients / 1_000, warm_rounds=2),
        Workload(f"burst20-{clients}", "burst of 20", bursts, 20, 0.1 * clients / 1_000),
    )
    return Group(f"{clients}", clients, turns, tuple(PEERS), workloads, memory=True)


def measure(group: Group, names: list[str], load: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All turns of one layout."""
    results = []
    for repeat in range(group.repeats):
        for name in names:
            for result in Session(PEERS[name], group, repeat, load, control=False).run(group.workloads, lambda _: None):
                idle = f"idle-{group.clients}" if result.workload == "idle" else result.workload
                result = replace(result, workload=idle)
                results.append(result.as_dict())
                figure = f"{result.cpu_us:.3f} µs" if result.complete else result.why.splitlines()[-1]
                if "idle_kib" in result.figures:
                    figure = f"{result.figures['idle_kib']:.2f} KiB"
                label = PEERS[name].label
                say(f"{group.clients:>6} {repeat + 1}/{group.repeats} {label:<24} {result.workload:<14} {figure}")
    return results


def markdown(found: dict[str, Any], crowds: tuple[int, ...]) -> str:
    """The report."""
    summary = Summary(found)
    header = found["header"]
    parts = [
        "# Programs before and after",
        "Made by `python bench/dropin.py`; do not edit. Server CPU, µs for one message to one client: the median of "
        "the turns, and the lowest and highest. A ratio is the median over the turns, each of two runs side by side. "
        "No compression. Server on core 0, clients on core 1.",
        f"Linux {header['kernel']}, {header['cpu']}, Python {header['python']}; "
        + ", ".join(f"{name} {version}" for name, version in header["versions"].items()),
    ]
    for clients in crowds:
        rows = []
        for bound in BOUNDS:
            workload = f"{bound.workload}-{clients}"
            ratio = summary.ratio(workload, bound.before, bound.after)
            reached = "not measured" if ratio is None else "yes" if ratio >= bound.times else "**no**"
            spreads = (summary.spread(workload, name) for name in (bound.before, bound.after))
            rows.append(
                [
                    f"{PEERS[bound.after].label} ({bound.after}), {bound.workload}",
                    *map(span_text, spreads),
                    "–" if ratio is None else f"{figure_text(ratio)}×",
                    f"≥ {figure_text(bound.times)}×",
                    reached,
                ]
            )
        head = ["", "before, µs", "after, µs", "faster", "bound", "reached"]
        parts += [f"## {clients:,} clients", markdown_table(head, rows)]
        idle = [
            [PEERS[name].label + f" ({name})", span_text(spread)]
            for name in PEERS
            if (spread := summary.spread(f"idle-{clients}", name, "idle_kib")) is not None
        ]
        parts.append(markdown_table(["memory of a connection", "KiB"], idle))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--clients", nargs="+", type=int, default=list(CROWDS))
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
    for clients in crowds:
        group = groups(clients, 1 if options.smoke else options.turns, is_smoke=options.smoke)
        results += measure(group, options.peers, load, lambda line: console.print(line, highlight=False))
    packages = {"fastapi", "uvicorn", "uvloop", "websockets"}
    header = environment(packages, HERE / "peers" / "node") | {"minutes": round((time.monotonic() - began) / 60, 1)}
    found = {"header": header, "results": results}
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "dropin.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    (options.results / "dropin.md").write_text(markdown(found, crowds))
    console.print(f"{options.results / 'dropin.md'}, {header['minutes']} minutes")


if __name__ == "__main__":
    main()
