"""Writes relay.json and relay.md: ``python bench/relay_report.py relay.json`` writes the tables again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Figures, write_again
from report import figure_text, markdown_table, span_text
from summary import Spread

MATCHES = 30
LANES = MATCHES + 1
"""One for each match, and the broadcast lane."""
MANY, NEWCOMERS, CROWD, FEW = 18_000, 10_000, 5_000, 1_000
STALL_CLIENTS, STALL_ONE_IN = 200, 100
NAMES = {"direct": "direct", "relayed": "relayed", "fanwire": "fanwire's hub"}


def _times_less(own: float, other: float) -> float:
    return other / own


def _ratio(own: float, other: float) -> float:
    return own / other


def _added(own: float, other: float) -> float:
    return own - other


@dataclass(frozen=True)
class Bound:
    """What the relay has to reach: a figure of its own, or beside that of another server in the same turn."""

    title: str
    metric: str
    limit: float
    against: tuple[str, str] | None = None
    """Server and metric."""
    compare: Callable[[float, float], float] = _ratio
    is_least: bool = False
    """The limit is the least, not the most."""
    unit: str = "×"
    """Of the comparison."""
    server: str = "relayed"

    def judged(self, figures: Figures) -> Spread | None:
        """What is held against the limit."""
        own = figures.by_turn(self.server, "json", self.metric)
        if self.against is None:
            values = list(own.values())
        else:
            other = figures.by_turn(self.against[0], "json", self.against[1])
            values = [self.compare(own[turn], other[turn]) for turn in own if turn in other]
        return Spread.of(values) if values else None

    def is_reached(self, value: float) -> bool:
        """Whether a value is on the right side."""
        return value >= self.limit if self.is_least else value <= self.limit


BOUNDS = (
    Bound(f"{MANY:,} clients, {MATCHES} matches: connections at the backend", "lanes", LANES),
    Bound(
        f"{CROWD:,} clients, bursts of 20 for each match: backend CPU, µs a publication",
        "backend_us",
        100,
        ("direct", "backend_us"),
        _times_less,
        is_least=True,
        unit="× less",
    ),
    Bound(
        f"{CROWD:,} clients, 8 a second for each match: backend CPU, µs a publication",
        "backend_steady_us",
        100,
        ("direct", "backend_steady_us"),
        _times_less,
        is_least=True,
        unit="× less",
    ),
    Bound(
        f"{CROWD:,} clients: backend bytes, a publication",
        "backend_bytes",
        100,
        ("direct", "backend_bytes"),
        _times_less,
        is_least=True,
        unit="× less",
    ),
    Bound("one at a time: CPU, µs a message", "single", 1.1, ("fanwire", "single")),
    Bound("burst of 20: CPU, µs a message", "burst20", 1.1, ("fanwire", "burst20")),
    Bound("burst of 100: CPU, µs a message", "burst100", 1.1, ("fanwire", "burst100")),
    Bound(f"{FEW:,} clients, low rate: p99, ms", "low_p99_ms", 1, ("direct", "low_p99_ms"), _added, unit=" more"),
    Bound(f"{CROWD:,} clients, {MATCHES} × 20 a second: p99, ms", "feed_p99_ms", 1, ("direct", "feed_p99_ms")),
    Bound(f"{NEWCOMERS:,} clients log in, s", "login_s", 2),
    Bound("one of them at the 99th percentile, s", "login_p99_s", 1),
    Bound("connections at the backend meanwhile", "login_lanes", LANES),
    Bound("one client in a hundred stalls: p99, ms", "stalled_p99_ms", 1.1, ("relayed", "level_p99_ms")),
    Bound("meanwhile nothing reaches anybody for, s", "stalled_silence_s", 1),
    Bound("the same straight: it stops for, s", "stalled_silence_s", 2, is_least=True, server="direct"),
    Bound(f"backend gone for 5 s, {CROWD:,} clients: all lanes back, s", "back_s", 2),
    Bound("lanes whose gap was reported", "gaps", MATCHES, is_least=True),
)


def write(figures: Figures, header: dict[str, Any], directory: Path) -> None:
    """Write both files into a directory."""
    figures.write(header, directory, "relay", markdown(figures, header))


def markdown(figures: Figures, header: dict[str, Any]) -> str:
    """The whole report."""
    parts = [
        "# The relay before ASP.NET Core's own hub",
        f"Linux {header['kernel']}, {header['congestion_control']}, loopback, {header['cpu']}; {figures.turns} turns, "
        f"{header['minutes']} minutes. Figures are medians of the turns, lowest to highest in brackets; "
        "a comparison is the median of those of turns, each of two runs side by side. Made by "
        "`python bench/relay.py`, do not edit.",
        "JSON over WebSockets. The clients are always on core 1. What is measured by its CPU time has core 0 for "
        "itself: the backend beside the relay on core 1, the relay beside the backend on core 1. Where latency or time "
        "counts, backend and relay share core 0, so that the server's side has one core with the relay and without. "
        "Every message is checked: each client has each publication of its match once and in order, or the run counts "
        "nowhere. Latency counts from the publication's own time stamp; the feed waits for its broadcasts, so a hub "
        "that cannot keep up publishes less. The relay has its defaults but for `lanes.backoff_max`, which is 1 s. "
        "What the real hub spends on compiling itself, with and without the relay, is left off its CPU time.",
        _bounds(figures),
        _notes(figures),
    ]
    parts += figures.nowhere(lambda one: f"{NAMES[one['server']]}, {one['measure']}")
    return "\n\n".join(parts) + "\n"


def _bounds(figures: Figures) -> str:
    rows = []
    for bound in BOUNDS:
        judged = bound.judged(figures)
        beside = figures.spread(bound.against[0], "json", bound.against[1]) if bound.against else None
        unit = bound.unit if bound.against else ""
        name = "" if bound.against is None else " without" if bound.against[0] == "relayed" else f" {bound.against[0]}"
        said = "not measured" if judged is None else "yes" if bound.is_reached(judged.median) else "**no**"
        rows.append(
            [
                bound.title,
                span_text(figures.spread(bound.server, "json", bound.metric)),
                f"{span_text(beside)}{name}" if bound.against else "–",
                f"{span_text(judged)}{unit}" if bound.against and judged else "–",
                f"{'≥' if bound.is_least else '≤'} {figure_text(bound.limit)}{unit}",
                said,
            ]
        )
    return markdown_table(["", "relay", "beside", "compared", "bound", "reached"], rows)


def _notes(figures: Figures) -> str:
    """What explains the table."""

    def each(metric: str, text: str, factor: float = 1.0) -> str:
        spreads = {name: figures.spread(name, "json", metric) for name in NAMES}
        said = (f"{NAMES[name]} {figure_text(spread.median * factor)}" for name, spread in spreads.items() if spread)
        return f"- {text}: {', '.join(said)}"

    lines = [
        each("lanes_messages", f"Messages checked with {MANY:,} clients"),
        each("low_p50_ms", "Low rate (2 a second and match): median, ms"),
        each("feed_p50_ms", "20 a second and match: median, ms"),
        each("feed_rate", "20 a second and match: how many were published"),
        each("feed_client_share", "How busy the clients' core was meanwhile, %", 100),
        each("login_us", "What one of them costs the server they connect to, with the messages that flow, µs of CPU"),
        each("login_s", f"{NEWCOMERS:,} clients log in, 1,000 at a time and 2 messages a second and match, s"),
        each("login_p99_s", "One of them at the 99th percentile, s"),
        each("login_client_share", "How busy the clients' core was meanwhile, %", 100),
        each("level_p99_ms", f"{STALL_CLIENTS} clients, 100 messages of 16 kB a second: p99, ms"),
        each("stalled_p99_ms", "The same when one in a hundred stalls"),
        each("stalled_silence_s", "The longest time in which nothing reached anybody, s"),
        each("gap_longest_s", "The longest gap that the log reported, s"),
    ]
    return "\n".join(line for line in lines if not line.endswith(": "))


if __name__ == "__main__":
    write_again(write)
