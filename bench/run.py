"""Runs the comparison with the peers: ``python bench/run.py [--short | --full | --smoke] [--only …] [--peers …]``.

Servers are pinned to core 0, the load client to core 1; peers take turns (A B C, A B C, …); a table is a median over
the turns. Results go to bench/results: results.json, README.md and the plots. What is measured stands in workloads.py.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import plot
import report
from measure import CONGESTION, RPS_CPUS, environment, kernel_value
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from session import Result, Session
from workloads import FORMS, HERE, MAIN, Group, Peer, Workload, peers

ROOT = HERE.parent
RESULTS = HERE / "results"
CONTROL_TURNS_MAX = 2
"""The control runs show a direction, not a figure: fewer turns do."""
DESCRIPTORS_SPARE = 200
"""What a server needs besides its clients' sockets."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    form = parser.add_mutually_exclusive_group()
    for name, text in (("short", "under ten minutes (default)"), ("full", "the published figures"), ("smoke", "1 min")):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=text)
    parser.set_defaults(form="short")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORKLOAD", help="workloads or groups")
    parser.add_argument("--peers", nargs="+", default=[], metavar="PEER", help=f"of: {', '.join(peers(Path()))}")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each peer, instead of the table's")
    parser.add_argument("--clients", type=int, metavar="N", help="clients in each group, instead of the table's")
    parser.add_argument("--no-control", action="store_true", help="leave out the runs with rps_cpus moved")
    parser.add_argument("--congestion", metavar="NAME", help="TCP congestion control during the run (needs root)")
    parser.add_argument("--binaries", type=Path, default=_binaries(), help="directory of fanwire-load, fanwire-floor")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results.json and the rest go")
    return parser.parse_args()


def _binaries() -> Path:
    return Path(os.environ.get("FANWIRE_BENCH_BINARIES", ROOT / "target" / "release"))


def chosen_groups(options: argparse.Namespace, table: dict[str, Peer]) -> list[Group]:
    """The form's groups, narrowed by the options. Unknown names end the program."""
    groups = FORMS[options.form]()
    names = {name for group in groups for name in (group.name, "idle", *(w.name for w in group.workloads))}
    for given, known in ((options.only, names), (options.peers, set(table))):
        if unknown := set(given) - known:
            sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    chosen = []
    for group in groups:
        whole = not options.only or group.name in options.only
        workloads = tuple(w for w in group.workloads if whole or w.name in options.only)
        memory = group.memory and (whole or "idle" in options.only)
        names_here = (name for name in group.peers if not options.peers or name in options.peers)
        peers_here = tuple(name for name in names_here if table[name].has_channels or not group.channels)
        if not peers_here or (not workloads and not memory):
            continue
        chosen.append(
            replace(
                group,
                workloads=workloads,
                memory=memory,
                peers=peers_here,
                repeats=options.rounds or group.repeats,
                clients=options.clients or group.clients,
                control=group.control and not options.no_control,
            )
        )
    return chosen


def turns(groups: list[Group], control: bool) -> Iterator[tuple[Group, int, str, tuple[Workload, ...]]]:
    """Every turn in its order: within a group the peers alternate, so that a drift of the machine hits all alike."""
    for group in groups:
        if control and not group.control:
            continue
        for repeat in range(min(group.repeats, CONTROL_TURNS_MAX) if control else group.repeats):
            for name in group.peers:
                if not control or name in MAIN:
                    workloads = tuple(w for w in group.workloads if not control or w.name != "burst5")
                    yield group, repeat, name, workloads


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[tuple[Progress, Any]]:
    """A bar over all turns, with what runs now beside it."""
    columns = (
        TextColumn("{task.description:<58}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield progress, progress.add_task("", total=total)


def run_all(
    options: argparse.Namespace, groups: list[Group], table: dict[str, Peer], console: Console
) -> dict[str, Any]:
    """Run everything; gives the contents of results.json."""
    node_dir = HERE / "peers" / "node"
    packages = {package for peer in table.values() for package in peer.packages}
    header = environment(packages, node_dir) | {"form": options.form, "control": _control_state(groups)}
    plain, controls = list(turns(groups, control=False)), list(turns(groups, control=True))
    load = options.binaries / "fanwire-load"
    results: list[Result] = []
    with progress_bar(console, len(plain) + len(controls)) as (progress, task):

        def take(step: tuple[Group, int, str, tuple[Workload, ...]], control: bool) -> None:
            group, repeat, name, workloads = step
            place = f"{'control · ' if control else ''}{table[name].label}"

            def show(what: str) -> None:
                progress.update(task, description=f"{group.name} {repeat + 1}/{group.repeats} · {place} · {what}")

            show("start")
            found = Session(table[name], group, repeat, load, control=control).run(workloads, show)
            results.extend(found)
            for result in found:
                _print(progress.console, table, result)
            progress.advance(task)

        for step in plain:
            take(step, control=False)
        with kernel_value(RPS_CPUS, "2") as permitted:
            for step in controls:
                if permitted:
                    take(step, control=True)
                else:
                    progress.advance(task)
    return {"header": header, "results": [result.as_dict() for result in results]}


def _control_state(groups: list[Group]) -> str:
    if not any(group.control for group in groups):
        return "not asked for"
    with kernel_value(RPS_CPUS, "2") as permitted:
        return "measured" if permitted else f"{RPS_CPUS} could not be set"


def _print(console: Console, table: dict[str, Peer], result: Result) -> None:
    """One line for a result, above the bar."""
    label = table[result.peer].label + (" (control)" if result.control else "")
    if not result.complete:
        said = f"[yellow]incomplete:[/] {result.why.splitlines()[-1] if result.why else '?'}"
    elif result.workload == "idle":
        figures = result.figures
        said = (
            f"{figures['idle_kib']:.2f} KiB a connection, {result.clients:,} connects in {figures['connect_s']:.2f} s"
        )
    else:
        said = f"{result.cpu_us:7.3f} µs a message"
    console.print(f"{label:<33} {result.workload:<14} {said}", highlight=False, soft_wrap=True)


def check(options: argparse.Namespace, groups: list[Group]) -> None:
    """End the program where it could not run at all: no binaries, no cores, too few descriptors."""
    import resource

    for name in ("fanwire-load", "fanwire-floor"):
        if not (options.binaries / name).exists():
            sys.exit(f"{options.binaries / name} is missing: cargo build --release -p fanwire-load")
    if (os.cpu_count() or 1) < 2:
        sys.exit("the bench needs two cores: one for the server, one for the clients")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(group.clients for group in groups) + DESCRIPTORS_SPARE
    if hard < wanted:
        sys.exit(f"{wanted:,} descriptors are needed, {hard:,} are allowed: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))


def main() -> None:
    """Run, write, draw."""
    options = arguments()
    console = Console()
    table = peers(options.binaries / "fanwire-floor")
    groups = chosen_groups(options, table)
    if not groups:
        sys.exit("nothing to run")
    check(options, groups)
    began = time.monotonic()
    with ExitStack() as stack:
        if options.congestion and not stack.enter_context(kernel_value(CONGESTION, options.congestion)):
            sys.exit(f"{CONGESTION} could not be set to {options.congestion}")
        found = run_all(options, groups, table, console)
    found["header"]["minutes"] = round((time.monotonic() - began) / 60, 1)
    options.results.mkdir(parents=True, exist_ok=True)
    report.write(found, table, options.results)
    plot.draw(found, table, options.results)
    console.print(f"{options.results / 'README.md'} and the plots beside it, {found['header']['minutes']} minutes")


if __name__ == "__main__":
    main()
