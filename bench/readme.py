"""Fills the tables of figures in README.md from runs: ``python bench/readme.py [bench/results/results.json]``.

The table of the million comes from scale.json beside it, where there is one.
"""

import json
import sys
from pathlib import Path
from typing import Any

from report import FLOOR, NATIVE
from summary import Summary, conditions

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
MILLION = "<!-- million -->", "<!-- /million -->"
TITLES = {
    "single": "one at a time",
    "burst5": "burst of 5",
    "burst20": "burst of 20",
    "burst100": "burst of 100",
    "burst20-crowd": "burst of 20",
    "markets": "1,000 channels, 10 for each client",
    "goal": "one message a second",
}
"""Workloads in the order of the table."""


def block(summary: Summary) -> str:
    """The table, what else was measured, and the conditions of it."""
    header = ["workload", "fanwire, µs", "× bare loop", "× µWebSockets", "× `websockets.broadcast`"]
    rows = [_row(summary, workload) for workload in TITLES if summary.median(workload, "fanwire") is not None]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join(part for part in (table, _idle(summary), f"<sub>{conditions(summary.header)}</sub>") if part)


def _row(summary: Summary, workload: str) -> list[str]:
    own = summary.median(workload, "fanwire")
    against = (summary.ratio(workload, "fanwire", peer) for peer in (FLOOR, NATIVE, "websockets"))
    ratios = (f"{_figure(ratio)}×" if ratio else "–" for ratio in against)
    return [f"{TITLES[workload]}, {summary.clients(workload):,} clients", _figure(own), *ratios]


def _idle(summary: Summary) -> str:
    memory, connects = summary.median("idle", "fanwire", "idle_kib"), summary.median("idle", "fanwire", "connect_s")
    if memory is None or connects is None:
        return ""
    return (
        f"An idle connection holds {_figure(memory)} KiB of the server's own memory; "
        f"{summary.clients('idle'):,} clients connect in {_figure(connects)} s."
    )


def million(found: dict[str, Any]) -> str:
    """What bench/scale.py has measured, in a few rows."""
    header, figures = found["header"], found["figures"]
    clients = int(header["clients"])
    goal, bare = figures.get(f"us_{clients}"), figures.get(f"bare_us_{clients}")
    beside = f", {goal / bare:.2f}× a bare loop's" if goal and bare else ""
    rows = [
        ("connections at the backend", "connections", ""),
        ("all are connected after", "connect_s", " s"),
        ("memory of a client, user's", "user_kib", " KiB"),
        ("the kernel's, for both ends of its connection", "slab_kib", " KiB"),
        ("one message to everyone: CPU for each", f"us_{clients}", f" µs{beside}"),
        ("until everyone has it", f"goal_s_{clients}", " s"),
        (f"a match's {clients // 1_000:,} have theirs, p99", "match_p99_ms", " ms"),
        (
            f"`kill -9` of a worker: its {figures.get('worker_clients', 0):,.0f} clients are back after",
            "worker_s",
            " s",
        ),
        ("messages missing, doubled or out of order while nothing is killed", "faults", ""),
    ]
    workers = f"{figures.get('workers', 0):.0f}"
    title = f"{clients:,} SignalR clients, {workers} workers, one machine of {header['cores']} cores for both ends"
    lines = [[title, ""], ["---", "---:"]]
    lines += [[text, f"{_count(figures[name])}{unit}"] for text, name, unit in rows if name in figures]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    source = (
        '<sub>`python bench/scale.py --clients {}`: <a href="bench/results/scale.md">bench/results/scale.md</a>.</sub>'
    )
    image = "![Clients, and their connections at the backend](bench/results/scale.svg)"
    return "\n\n".join((table, source.format(clients), image))


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or value >= 1_000 else _figure(value)


def _figure(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def filled(page: str, figures: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The page with the block between its two marks replaced. Raises ValueError where a mark is missing."""
    before, after = page.index(marks[0]) + len(marks[0]), page.index(marks[1])
    return f"{page[:before]}\n{figures}\n{page[after:]}"


def main() -> None:
    """Write README.md again."""
    found = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bench" / "results" / "results.json"
    page = ROOT / "README.md"
    page.write_text(filled(page.read_text(), block(Summary(json.loads(found.read_text())))))
    if (scale := found.parent / "scale.json").is_file():
        page.write_text(filled(page.read_text(), million(json.loads(scale.read_text())), MILLION))


if __name__ == "__main__":
    main()
