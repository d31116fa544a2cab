"""Fills the table of figures in README.md from a run: ``python bench/readme.py [bench/results/results.json]``."""

import json
import sys
from pathlib import Path

from report import FLOOR, NATIVE
from summary import Summary, conditions

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
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


def _figure(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def filled(page: str, figures: str) -> str:
    """The page with the block between its two marks replaced. Raises ValueError where a mark is missing."""
    before, after = page.index(BEGIN) + len(BEGIN), page.index(END)
    return f"{page[:before]}\n{figures}\n{page[after:]}"


def main() -> None:
    """Write README.md again."""
    found = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bench" / "results" / "results.json"
    page = ROOT / "README.md"
    page.write_text(filled(page.read_text(), block(Summary(json.loads(found.read_text())))))


if __name__ == "__main__":
    main()
