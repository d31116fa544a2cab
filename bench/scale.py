"""A million SignalR clients through fanwire's workers before one real hub: ``python bench/scale.py --clients 1000000``.

Needs signalr-origin (SIGNALR_ORIGIN), loopback, and the descriptors and memory for both ends. Every client checks what
it receives. Results go to bench/results: scale.json, scale.md and scale.svg. A phase that fails leaves the others; the
bounds stand in scale_report.py. ``--only connect goal`` runs some phases; ``--clients 20000`` is to try it.
"""

import argparse
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import scale_report
from measure import PROC, environment
from rich.console import Console
from scale_phases import ALONE, TITLES, TOGETHER, Run, crowd
from scale_screen import Show
from scale_stage import EACH_MAX, processes_for
from signalr import BINARIES, HERE, ORIGIN

RESERVE = 150_000
"""Open files of the machine besides the clients' two each."""
BYTES_EACH = 14 << 10
"""Memory of a client, both ends and all that the kernel holds for them, with room."""
ALREADY_BYTES = 45 << 20
"""Memory of a worker and of its load process, with nobody."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=600_000)
    parser.add_argument("--only", nargs="+", choices=TITLES, default=list(TITLES), metavar="PHASE", help=str([*TITLES]))
    parser.add_argument("--skip", nargs="+", choices=TITLES, default=[], metavar="PHASE", help="of the same")
    parser.add_argument("--ping-every", type=int, default=120, metavar="S", help="of clients and workers both (120)")
    parser.add_argument("--no-floor", action="store_true", help="leave out the bare loop beside it")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where scale.json and the rest go")
    return parser.parse_args()


def limits(clients: int) -> dict[str, Any]:
    """What this machine allows, by name."""
    names = {
        "file_max": "sys/fs/file-max",
        "port_range": "sys/net/ipv4/ip_local_port_range",
        "somaxconn": "sys/net/core/somaxconn",
        "tcp_mem": "sys/net/ipv4/tcp_mem",
        "conntrack_max": "sys/net/netfilter/nf_conntrack_max",
        "conntrack_count": "sys/net/netfilter/nf_conntrack_count",
    }
    found: dict[str, Any] = {"descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[1], "each_max": EACH_MAX}
    for name, path in names.items():
        with suppress(OSError):
            found[name] = " ".join((PROC / path).read_text().split())
    low, high = (int(word) for word in found["port_range"].split())
    return found | {"ports_each": high - low + 1, "addresses": 2 * processes_for(clients)}


def check(clients: int) -> None:
    """Leave where something is missing, or where the machine is too small for so many clients."""
    if not ORIGIN.is_file():
        sys.exit(f"skipped: SIGNALR_ORIGIN names no file: {ORIGIN}")
    for name in ("fanwire-load", "fanwire-floor"):
        if not (BINARIES / name).is_file():
            sys.exit(f"{BINARIES / name} is missing: cargo build --release -p fanwire-load")
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed < EACH_MAX + 1_000:
        sys.exit(f"a process needs {EACH_MAX + 1_000:,} descriptors, {allowed:,} are allowed: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    files = int((PROC / "sys/fs/file-max").read_text())
    if files < 2 * clients + RESERVE:
        sys.exit(f"{2 * clients + RESERVE:,} open files are needed, fs.file-max is {files:,}")
    lines = dict(line.split(":") for line in (PROC / "meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    wanted = clients * BYTES_EACH + processes_for(clients) * ALREADY_BYTES
    if available < wanted:
        sys.exit(f"about {wanted >> 30} GiB of memory are needed, {available >> 30} GiB are there")


def main() -> None:
    """Run, write what there is, whatever happens."""
    options = arguments()
    check(options.clients)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    wanted = [name for name in TITLES if name in options.only and name not in options.skip]
    if set(wanted) & set(TOGETHER) and "connect" not in wanted:
        wanted.insert(0, "connect")
    console = Console()
    show = Show(options.clients, {name: TITLES[name] for name in TITLES if name in wanted}, console)
    run = Run(options.clients, options.ping_every, not options.no_floor, show)
    failed: dict[str, str] = {}
    began = time.monotonic()

    def write(*, draws: bool) -> None:
        header = environment(set(), HERE / "peers" / "node") | {
            "clients": options.clients,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "ping_every_s": options.ping_every,
            "limits": limits(options.clients),
            "peaks": show.peaks,
        }
        scale_report.write(header, run.figures, failed, show.samples, options.results, draws=draws)

    def guarded(name: str, phase: Callable[[], Any]) -> bool:
        show.begin(name)
        try:
            phase()
        except Exception as error:
            failed[name] = str(error) or type(error).__name__
        show.end(name, (failed.get(name, "").splitlines() or [""])[0])
        write(draws=False)
        return name not in failed

    try:
        with show:
            _run(run, wanted, guarded)
    finally:
        write(draws=True)
        print((options.results / "scale.md").read_text())
    os._exit(1 if failed else 0)  # at once: nothing is left that would have to be waited for


def _run(run: Run, wanted: list[str], guarded: Callable[[str, Callable[[], Any]], bool]) -> None:
    for name in ("direct", "small", "stock"):
        if name in wanted:
            guarded(name, partial(ALONE[name], run))
            run.show.watch(None, None, None)
    if "connect" in wanted:
        together = [name for name in wanted if name in TOGETHER]
        try:
            crowd(run, together, guarded)
        except Exception as error:
            guarded("connect", partial(_raise, error))
        run.show.watch(None, None, None)
    if "floors" in wanted and run.floor:
        guarded("floors", partial(ALONE["floors"], run))


def _raise(error: Exception) -> None:
    raise error


if __name__ == "__main__":
    main()
