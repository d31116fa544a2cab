"""Writes late.json and late.md: ``python bench/late_report.py late.json`` writes the tables again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Figures, write_again
from report import figure_text, markdown_table, notes, span_text
from summary import Spread

HUB, RAW = "hub", "raw"
"""Under what the figures stand: there is one server, and one protocol."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything; the header of late.json has them."""

    healthy: int = 4_500
    stalled: int = 500
    rounds: int = 75
    """Of each of four feeds: without those who stall, with them, with them, without."""
    burst: int = 20
    watchers: int = 200
    keys: int = 200
    seconds: float = 5.0
    """Of the feed that one client is too slow for."""
    returning: int = 15_000
    history: int = 256
    missed: int = 100
    receivers: int = 1_000
    publications: int = 1_000


SMOKE = Sizes(healthy=45, stalled=5, rounds=5, watchers=49, seconds=1.0, returning=50, receivers=50, publications=50)


@dataclass(frozen=True)
class Bound:
    """What the hub has to reach: a figure, or one beside another of the same turn."""

    title: str
    metric: str
    limit: float
    against: str | None = None
    is_least: bool = False
    """The limit is the least, not the most."""

    def judged(self, figures: Figures) -> Spread | None:
        """What is held against the limit: the figure's median, or that of the turns' ratios."""
        if self.against is None:
            return figures.spread(HUB, RAW, self.metric)
        return figures.beside(HUB, RAW, self.metric, self.against)

    def is_reached(self, value: float) -> bool:
        """Whether a value is on the right side."""
        return value >= self.limit if self.is_least else value <= self.limit


def bounds(sizes: Sizes) -> Sequence[Bound]:
    """All of them."""
    share = f"{sizes.stalled:,} beside {sizes.healthy:,} do not read"
    return (
        Bound(f"{share}: the others' p99, ms", "stalled_p99_ms", 1.1, "level_p99_ms"),
        Bound(f"{share}: CPU, µs a message to the others", "stalled_us", 1.1, "level_us"),
        Bound(f"{share}: memory grows by, KiB", "stalled_memory_kib", 1_024),
        Bound("a slow client of `latest`: keys whose newest value it has", "latest_newest", sizes.keys, is_least=True),
        Bound("messages that it has out of order", "latest_disorder", 0),
        Bound(f"{sizes.returning:,} come back, each has missed {sizes.missed}: all have all, s", "stampede_s", 5),
        Bound("meanwhile: clients that `authenticate` was asked about", "openings", sizes.returning, is_least=True),
        Bound("meanwhile: events that Python heard", "events", sizes.returning),
        Bound("best and worst client's mean delay apart, of a fan-out", "fair_spread", 0.1),
    )


NOTES = (
    ("utilisation", "The feed with and without those who do not read: the server's core is busy, %"),
    ("slow_interval_ms", "A burst every so many ms"),
    ("level_p50_ms", "Median without them, ms"),
    ("stalled_p50_ms", "Median with them, ms"),
    ("level_memory_kib", "Memory grows without them by, KiB, in half as many publications"),
    ("stalled_taken", "Publications that those who did not read got, now or when they read again, all together"),
    ("stalled_skipped", "Publications that they went past; the two are all that there were"),
    ("slow_client_share", "How busy the clients' core was, %"),
    ("latest_published", "`latest`: publications"),
    ("latest_received", "of them the slow client got"),
    ("latest_share", "of their bytes it read, until the feed's end, %"),
    ("latest_keys_before", "keys whose newest value it had at the feed's end"),
    ("latest_behind_s", "then the newest that it had was older than the newest by, s"),
    ("latest_caught_up_s", "then it read on, and had everything after, s"),
    ("latest_healthy", "messages that the others had meanwhile, each all of them"),
    ("stampede_connects_s", "The stampede: from the first connect to the last upgrade, s"),
    ("stampede_messages", "messages"),
    ("stampede_cpu_s", "the server's CPU, s"),
    ("stampede_python_s", "of it Python's thread, s"),
    ("stampede_python_us", "Python's, µs a client"),
    ("stampede_client_share", "How busy the clients' core was, %"),
    ("fair_fanout_ms", "Fan-out of one publication, from the first receiver to the last, mean, ms"),
    ("fair_best_ms", "the client with the least mean delay behind the first, ms"),
    ("fair_worst_ms", "the one with the greatest, ms"),
    ("fair_merged", "publications left out, because a client read two together"),
)


def write(figures: Figures, header: dict[str, Any], directory: Path) -> None:
    """Write both files into a directory."""
    figures.write(header, directory, "late", markdown(figures, header))


def markdown(figures: Figures, header: dict[str, Any]) -> str:
    """The whole report."""
    sizes = Sizes(**header["sizes"])
    parts = [
        "# Late, slow and returning clients",
        f"Linux {header['kernel']}, {header['congestion_control']}, loopback, {header['cpu']}; {figures.turns} turns, "
        f"{header['minutes']} minutes. Figures are medians of the turns, lowest to highest in brackets; a comparison "
        "is the median of those of turns, each of two feeds in one server's life. Made by "
        f"`{header['command']}`, do not edit.",
        "The server has core 0, its clients core 1. Texts of 128 bytes on one channel, open loop. Every message is "
        "checked: who reads must have each publication once and in order, or the run counts nowhere. Without those who "
        "do not read, with them, with them, without: four feeds to the same clients in the same process.",
        _bounds(figures, sizes),
        _notes(figures),
    ]
    parts += figures.nowhere(lambda one: str(one["measure"]))
    return "\n\n".join(parts) + "\n"


def _bounds(figures: Figures, sizes: Sizes) -> str:
    rows = []
    for bound in bounds(sizes):
        judged = bound.judged(figures)
        beside = figures.spread(HUB, RAW, bound.against) if bound.against else None
        unit = "×" if bound.against else ""
        said = "not measured" if judged is None else "yes" if bound.is_reached(judged.median) else "**no**"
        rows.append(
            [
                bound.title,
                span_text(figures.spread(HUB, RAW, bound.metric)),
                f"{span_text(beside)} without" if bound.against else "–",
                f"{span_text(judged)}×" if bound.against and judged else "–",
                f"{'≥' if bound.is_least else '≤'} {figure_text(bound.limit)}{unit}",
                said,
            ]
        )
    return markdown_table(["", "measured", "beside", "compared", "bound", "reached"], rows)


def _notes(figures: Figures) -> str:
    """What explains the table."""
    return notes(figures, HUB, NOTES)


if __name__ == "__main__":
    write_again(write)
