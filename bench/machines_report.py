"""Writes machines.json and machines.md: ``python bench/machines_report.py machines.json`` writes the tables again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Figures, write_again
from report import figure_text, markdown_table, notes, span_text
from summary import Spread

NODES, EACH = 4, 100
CHANNELS, RATE = 1_000, 20.0
FAST, BATCH = 200_000, 2_000
BACK, MISSED = 100_000, 100
CLIENTS = 1_000


@dataclass(frozen=True)
class Bound:
    """What nodes have to reach."""

    title: str
    metric: str
    limit: float
    unit: str = ""
    is_least: bool = False
    server: str = "nodes"
    against: str = ""
    """Another server, beside which it stands in the same turn."""

    def judged(self, figures: Figures) -> Spread | None:
        """What is held against the limit."""
        if self.against:
            return figures.ratio(self.against, "raw", self.metric)
        return figures.spread(self.server, "raw", self.metric)

    def is_reached(self, value: float) -> bool:
        """Whether that is good enough."""
        return value >= self.limit if self.is_least else value <= self.limit


BOUNDS = (
    Bound(f"publish at one node until the program at the last of {NODES} has it: p50", "hop_p50_ms", 1, " ms"),
    Bound("p99", "hop_p99_ms", 5, " ms"),
    Bound("publications a second through a node, one channel", "rate_one", 50_000, is_least=True),
    Bound(f"{CHANNELS:,} channels in turn", "rate_many", 50_000, is_least=True),
    Bound(f"a node where nobody wants {CHANNELS * RATE:,.0f} publications a second", "unwanted_percent", 1, " %"),
    Bound("questions to Redis for a node's returning clients, one channel", "back_asked", 1),
    Bound("one at a time, beside python-socketio", "single", 0.1, "×", against="socketio"),
    Bound("bursts of 20", "burst20", 0.1, "×", against="socketio"),
    Bound("one at a time, beside Channels", "single", 0.1, "×", against="channels"),
    Bound("bursts of 20", "burst20", 0.1, "×", against="channels"),
    Bound("one at a time, beside Centrifugo", "single", 0.5, "×", against="centrifugo"),
    Bound("bursts of 20", "burst20", 0.1, "×", against="centrifugo"),
)


def write(figures: Figures, header: dict[str, Any], directory: Path) -> None:
    """Write both files into a directory."""
    figures.write(header, directory, "machines", markdown(figures, header))


def markdown(figures: Figures, header: dict[str, Any]) -> str:
    """The whole report."""
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items() if version)
    parts = [
        "# Hubs on one Redis",
        f"Linux {header['kernel']}, {header['congestion_control']}, loopback, {header['cpu']}; {figures.turns} turns, "
        f"{header['minutes']} minutes; {versions}. Figures are medians of the turns, lowest to highest in brackets; a "
        "comparison is the median of those of turns, each of two runs side by side. Made by "
        "`python bench/machines.py`, do not edit.",
        f"Under way: {NODES} nodes, {EACH} clients each. Through a node: {FAST:,} publications of 128 bytes, "
        f"{BATCH:,} at a time. Returning: {BACK:,} clients come with a position to nodes that never had the channel, "
        f"each having missed {MISSED}. Peers: two nodes with {CLIENTS:,} clients each and Redis have core 0, clients "
        "core 1; the CPU is that of all three.",
        "Redis is asked up to three times for a node's returning clients, whatever their number: for what the channel "
        "keeps, for those who came with a position while the answer was on its way, which may be newer than it, and "
        "for those who came while that one was.",
        _bounds(figures),
        "## CPU a message to one client, µs",
        _peers(figures),
        "## What else was seen",
        _notes(figures),
    ]
    parts += figures.nowhere(lambda one: f"{one['server']}, {one['measure']}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _bounds(figures: Figures) -> str:
    rows = []
    for bound in BOUNDS:
        judged = bound.judged(figures)
        said = "not measured" if judged is None else "yes" if bound.is_reached(judged.median) else "**no**"
        sign = "≥" if bound.is_least else "≤"
        measured = f"{span_text(judged)}{bound.unit}" if judged else "–"
        rows.append([bound.title, measured, f"{sign} {figure_text(bound.limit)}{bound.unit}", said])
    return markdown_table(["", "measured", "bound", "reached"], rows)


def _peers(figures: Figures) -> str:
    names = {"fanwire": "fanwire", "centrifugo": "Centrifugo", "socketio": "python-socketio", "channels": "Channels"}
    metrics = ("single", "single_redis", "burst20", "burst20_redis")
    rows = [
        [title, *(span_text(figures.spread(name, "raw", metric)) for metric in metrics)]
        for name, title in names.items()
    ]
    return markdown_table(["", "one at a time", "of that Redis", "bursts of 20", "of that Redis"], rows)


def _notes(figures: Figures) -> str:
    texts = {
        "hop_p999_ms": "Under way: at the 99.9th percentile, ms",
        "rate_one_us": "Through a node, one channel: its CPU, µs a publication",
        "rate_one_redis_us": "Redis's",
        "rate_many_us": "Many channels: its CPU, µs a publication",
        "rate_many_redis_us": "Redis's",
        "resting_percent": "A node while nobody publishes, % of a core",
        "back_s": "Returning: seconds until all have what they missed",
        "back_us": "CPU of the nodes, µs a client",
    }
    return notes(figures, "nodes", texts.items())


if __name__ == "__main__":
    write_again(write)
