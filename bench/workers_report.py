"""Writes workers.json and workers.md: ``python bench/workers_report.py workers.json`` writes the tables again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Figures, write_again
from report import figure_text, markdown_table, notes, span_text
from summary import Spread

WORKERS, CLIENTS = 4, 1_000
CHANNELS, RATE = 1_000, 20.0


@dataclass(frozen=True)
class Bound:
    """What workers have to reach: a figure of theirs, or beside that of one process in the same turn."""

    title: str
    metric: str
    limit: float
    is_ratio: bool = False

    def judged(self, figures: Figures) -> Spread | None:
        """What is held against the limit."""
        own = figures.by_turn("workers", "raw", self.metric)
        if self.is_ratio:
            other = figures.by_turn("shards", "raw", self.metric)
            own = {turn: value / other[turn] for turn, value in own.items() if turn in other}
        return Spread.of(list(own.values())) if own else None


BOUNDS = (
    Bound("one at a time: CPU, µs a message", "single", 1.1, is_ratio=True),
    Bound("burst of 20: CPU, µs a message", "burst20", 1.1, is_ratio=True),
    Bound("burst of 100: CPU, µs a message", "burst100", 1.1, is_ratio=True),
    Bound("channels that only one worker wants: the busiest other, % of a core", "interest_others_percent", 1),
    Bound("publish in one until a listener in another has it: p99, ms", "hop_p99_ms", 1),
)


def write(figures: Figures, header: dict[str, Any], directory: Path) -> None:
    """Write both files into a directory."""
    figures.write(header, directory, "workers", markdown(figures, header))


def markdown(figures: Figures, header: dict[str, Any]) -> str:
    """The whole report."""
    parts = [
        f"# {WORKERS} workers beside one process with {WORKERS} shards",
        f"Linux {header['kernel']}, {header['congestion_control']}, loopback, {header['cpu']}; {figures.turns} turns, "
        f"{header['minutes']} minutes. Figures are medians of the turns, lowest to highest in brackets; a comparison "
        "is the median of those of turns, each of two runs side by side. Made by `python bench/workers.py`, do not "
        "edit.",
        f"CPU a message: {CLIENTS:,} raw clients, 128 bytes; supervisor and workers have core 0 for themselves, as the "
        f"one process has, and clients core 1. Channels: {CHANNELS:,} × {RATE:.0f} a second, all of whose clients are "
        "in the worker that publishes. Under way: from `publish` in one worker until `hub.listen` gives it to the "
        "program in each other, which is the append and a turn of that program's loop. There everybody has both cores.",
        _bounds(figures),
        _notes(figures),
    ]
    parts += figures.nowhere(lambda one: f"{one['server']}, {one['measure']}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _bounds(figures: Figures) -> str:
    rows = []
    for bound in BOUNDS:
        judged = bound.judged(figures)
        said = "not measured" if judged is None else "yes" if judged.median <= bound.limit else "**no**"
        unit = "×" if bound.is_ratio else ""
        rows.append(
            [
                bound.title,
                span_text(figures.spread("workers", "raw", bound.metric)),
                span_text(figures.spread("shards", "raw", bound.metric)) if bound.is_ratio else "–",
                f"{span_text(judged)}×" if bound.is_ratio and judged else "–",
                f"≤ {figure_text(bound.limit)}{unit}",
                said,
            ]
        )
    return markdown_table(["", "workers", "one process", "compared", "bound", "reached"], rows)


def _notes(figures: Figures) -> str:
    texts = {
        "interest_first_percent": "Those channels: the worker that publishes, % of a core",
        "interest_owner_percent": "the supervisor, which orders them, % of a core",
        "interest_rate": "how many were published, a second and channel",
        "hop_p50_ms": "Under way: median, ms",
        "hop_p999_ms": "at the 99.9th percentile, ms",
    }
    return notes(figures, "workers", texts.items())


if __name__ == "__main__":
    write_again(write)
