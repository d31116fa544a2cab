"""Rooms of python-socketio and groups of Django Channels before and after: ``python bench/dropin_rooms.py``.

Each pair is the same program on the same server, side by side, as in dropin.py, which has the rest of the method. The
clients are those of framed_clients.py, in another process on another core. Results go to bench/results:
dropin_rooms.json and dropin_rooms.md. The pairs and their bounds stand here.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from measure import environment
from pairs import Framed, machine, memory_table, reached, results_of, times_text, write
from report import markdown_table, span_text
from rich.console import Console
from summary import Summary
from workloads import HERE, Group, Workload, python_peer

SOCKETIO, CHANNELS = "socketio_hub.py", "channels_hub.py"
AIOHTTP, BROADCASTER, LITESTAR = "aiohttp_hub.py", "broadcaster_hub.py", "litestar_hub.py"
ON_UVICORN = ("--ws", "fanwire.uvicorn:Protocol")
OURS = ("--manager", "fanwire")
LAYER = ("--layer", "fanwire")
PEERS = {
    peer.name: peer
    for peer in (
        python_peer("socketio", "python-socketio on uvicorn", SOCKETIO),
        python_peer("socketio-fanwire", "AsyncFanwireManager on uvicorn", SOCKETIO, *OURS, *ON_UVICORN),
        python_peer("socketio-aiohttp", "python-socketio on aiohttp", SOCKETIO, "--server", "aiohttp"),
        python_peer(
            "socketio-aiohttp-fanwire", "AsyncFanwireManager on aiohttp", SOCKETIO, *OURS, "--server", "aiohttp"
        ),
        python_peer("channels", "Channels' in-memory layer on uvicorn", CHANNELS),
        python_peer("channels-fanwire", "fanwire's layer on uvicorn", CHANNELS, *LAYER, *ON_UVICORN),
        python_peer("channels-daphne", "Channels' in-memory layer on Daphne", CHANNELS, "--server", "daphne"),
        python_peer("channels-daphne-fanwire", "fanwire's layer on Daphne", CHANNELS, *LAYER, "--server", "daphne"),
        python_peer("aiohttp", "aiohttp, gather over send_str", AIOHTTP),
        python_peer("aiohttp-attached", "aiohttp, attached", AIOHTTP, "--send", "attach"),
        python_peer("broadcaster", "broadcaster on Starlette", BROADCASTER),
        python_peer(
            "broadcaster-fanwire", "fanwire's Broadcast, send_to", BROADCASTER, "--library", "fanwire", *ON_UVICORN
        ),
        python_peer("litestar", "Litestar's channels in memory", LITESTAR),
        python_peer("litestar-attached", "Litestar, attached", LITESTAR, "--send", "attach", *ON_UVICORN),
    )
}
PAIRS = {
    "socketio-fanwire": "socketio",
    "socketio-aiohttp-fanwire": "socketio-aiohttp",
    "channels-fanwire": "channels",
    "channels-daphne-fanwire": "channels-daphne",
    "aiohttp-attached": "aiohttp",
    "broadcaster-fanwire": "broadcaster",
    "litestar-attached": "litestar",
}
"""Before, by after."""
TIMES = {after: 5.0 for after in PAIRS if after.startswith(("socketio", "channels"))}
"""After: at least so many times as fast as before, wherever it is measured; of the others nothing was promised."""
LINES = {  # that docs/ shows as added
    "socketio-fanwire": "3 lines",
    "socketio-aiohttp-fanwire": "2 lines",
    "channels-fanwire": "5 lines",
    "channels-daphne-fanwire": "4 lines",
    "aiohttp-attached": "8 lines",
    "broadcaster-fanwire": "2 lines",
    "litestar-attached": "5 lines",
}
NEAR = ("socketio", "socketio-fanwire", "socketio-aiohttp", "socketio-aiohttp-fanwire", "channels", "channels-fanwire")
OTHERS = (
    "aiohttp",
    "aiohttp-attached",
    "broadcaster",
    "broadcaster-fanwire",
    "litestar",
    "litestar-attached",
)
ON_DAPHNE = ("channels-daphne", "channels-daphne-fanwire")
CROWD = ("socketio", "socketio-fanwire", "channels", "channels-fanwire")


@dataclass(frozen=True)
class Layout:
    """Which programs run with so many clients.

    Attributes:
        clients: connections.
        turns: how often the programs take turns.
        peers: their names.
        offers_deflate: whether the clients offer permessage-deflate, as browsers do.
        bursts: whether bursts of 20 are measured besides.
    """

    clients: int
    turns: int
    peers: tuple[str, ...]
    offers_deflate: bool = False
    bursts: bool = True

    @property
    def name(self) -> str:
        """In results and tables."""
        return f"{self.clients}-deflate" if self.offers_deflate else f"{self.clients}"

    def group(self, *, is_smoke: bool) -> Group:
        """As session.py wants it. Rounds are few: without fanwire a burst takes seconds."""
        single = Workload(f"single-{self.name}", "one at a time", 3 if is_smoke else 8, 1, 0.05, warm_rounds=2)
        burst = Workload(f"burst20-{self.name}", "burst of 20", 1 if is_smoke else 2, 20, 0.1)
        workloads = (single, burst) if self.bursts else (single,)
        return Group(self.name, self.clients, self.turns, self.peers, workloads, memory=not self.offers_deflate)


LAYOUTS = (
    Layout(1_000, 1, (*NEAR, *ON_DAPHNE, *OTHERS)),
    Layout(1_000, 1, CROWD, offers_deflate=True),
    Layout(5_000, 1, CROWD[:2], bursts=False),  # Channels by itself takes minutes
)
SMOKE = (Layout(20, 1, (*NEAR, *ON_DAPHNE, *OTHERS)), Layout(20, 1, CROWD, offers_deflate=True))


def session_of(name: str, group: Group, repeat: int, *, offers_deflate: bool) -> Framed:
    """One turn of a program, whose clients speak what it does."""
    is_socketio = name.startswith("socketio")
    target = "socket.io/?EIO=4&transport=websocket" if is_socketio else "ws"
    flags = [*["--socketio"] * is_socketio, *["--deflate"] * offers_deflate]
    return Framed(PEERS[name], group, repeat, target, flags)


def measure(
    layout: Layout, turns: int, names: list[str], say: Callable[[str], None], is_smoke: bool
) -> list[dict[str, Any]]:
    """All turns of one layout."""
    group = replace(layout, turns=turns).group(is_smoke=is_smoke)
    results: list[dict[str, Any]] = []
    for repeat in range(group.repeats):
        for name in (one for one in group.peers if one in names):
            results += results_of(session_of(name, group, repeat, offers_deflate=layout.offers_deflate), say)
    return results


def markdown(found: dict[str, Any], layouts: tuple[Layout, ...]) -> str:
    """The report."""
    summary = Summary(found)
    parts = [
        "# Rooms and groups before and after",
        "Made by `python bench/dropin_rooms.py`; do not edit. `emit` of python-socketio to a room with all clients, "
        "`group_send` of Channels to a group with all consumers. Server CPU, µs for one message to one client: the "
        "median of the turns, and the lowest and highest. Bytes are those of one message on the wire. Server on core "
        "0, clients on core 1, loopback; every message was checked.",
        machine(found["header"]),
    ]
    head = ["", "lines", "before, µs", "after, µs", "faster", "bound", "reached", "bytes before", "bytes after"]
    for layout in layouts:
        names = [after for after in PAIRS if after in layout.peers]
        rows = [row(summary, after, workload) for after in names for workload in workloads_of(layout)]
        offered = "offered by all clients, as browsers do" if layout.offers_deflate else "not offered"
        parts += [f"## {layout.clients:,} clients, compression {offered}", markdown_table(head, rows)]
        parts += memory_table(summary, layout.name, (PEERS[name] for name in layout.peers))
    return "\n\n".join(parts) + "\n"


def workloads_of(layout: Layout) -> list[str]:
    """Their names."""
    return [f"{kind}-{layout.name}" for kind in (("single", "burst20") if layout.bursts else ("single",))]


def row(summary: Summary, after: str, workload: str) -> list[str]:
    """One of the table."""
    before = PAIRS[after]
    ratio = summary.ratio(workload, before, after)
    least = TIMES.get(after)
    name = f"{PEERS[after].label} ({after}), {workload.partition('-')[0]}"
    sizes = (wire(summary, workload, one) for one in (before, after))
    spreads = (span_text(summary.spread(workload, one)) for one in (before, after))
    bound = "" if least is None else f"≥ {times_text(least)}"
    return [name, LINES[after], *spreads, times_text(ratio), bound, reached(ratio, least), *sizes]


def wire(summary: Summary, workload: str, name: str) -> str:
    """Bytes of a message, and whether compression was negotiated."""
    size, deflating = (summary.median(workload, name, metric) for metric in ("wire_bytes", "deflating"))
    if size is None:
        return "–"
    return f"{size:.0f}{', negotiated' if deflating else ''}"


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--smoke", action="store_true", help="a few seconds: figures that mean nothing")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where dropin_rooms.* go")
    options = parser.parse_args()
    console = Console()
    show = partial(console.print, highlight=False)
    began = time.monotonic()
    layouts = SMOKE if options.smoke else LAYOUTS
    results: list[dict[str, Any]] = []
    for layout in layouts:
        results += measure(layout, options.turns, options.peers, show, options.smoke)
    frameworks = {"aiohttp", "broadcaster", "channels", "django", "litestar", "python-socketio", "starlette"}
    packages = frameworks | {"daphne", "uvicorn", "uvloop"}
    header = environment(packages, HERE / "peers" / "node") | {"minutes": round((time.monotonic() - began) / 60, 1)}
    header["versions"] = {name: one for name, one in header["versions"].items() if name in packages | {"fanwire"}}
    found = {"header": header, "results": results}
    show(write(options.results, "dropin_rooms", found, markdown(found, layouts)))


if __name__ == "__main__":
    main()
