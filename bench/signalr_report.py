"""Writes signalr.json and signalr.md: ``python bench/signalr_report.py signalr.json`` writes the tables again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Figures, write_again
from report import figure_text, markdown_table, span_text

CLIENTS, IDLERS, PINGERS, CALLERS = 1_000, 5_000, 15_000, 100
TITLES = {"json": "JSON", "messagepack": "MessagePack"}
NAMES = {"fanwire": "fanwire", "origin": "the real hub", "raw": "raw"}


@dataclass(frozen=True)
class Bound:
    """What fanwire has to reach: a ratio to another server, or a figure of its own."""

    title: str
    metric: str
    against: str | None
    limit: float
    is_least: bool = False
    """The limit is the least, not the most."""

    def is_reached(self, value: float) -> bool:
        """Whether a value is on the right side."""
        return value >= self.limit if self.is_least else value <= self.limit


BOUNDS = (
    Bound("one at a time, µs a message", "single", "origin", 0.45),
    Bound("burst of 20, µs a message", "burst20", "origin", 0.18),
    Bound("burst of 100, µs a message", "burst100", "origin", 0.1),
    Bound("one at a time, beside the raw protocol", "single", "raw", 1.1),
    Bound("burst of 20, beside the raw protocol", "burst20", "raw", 1.1),
    Bound("burst of 100, beside the raw protocol", "burst100", "raw", 1.1),
    Bound("idle connection, KiB", "idle_kib", None, 1.0),
    Bound("CPU of a connect, µs", "connect_us", "origin", 0.3),
    Bound(f"{IDLERS:,} connects, s", "connects_s", None, 1.0),
    Bound(f"{PINGERS:,} idle clients with pings, % of a core", "pings_percent", None, 2.0),
    Bound("invocations a second", "calls_per_s", "origin", 1.0, is_least=True),
)


def write(figures: Figures, header: dict[str, Any], directory: Path) -> None:
    """Write both files into a directory."""
    figures.write(header, directory, "signalr", markdown(figures, header))


def markdown(figures: Figures, header: dict[str, Any]) -> str:
    """The whole report."""
    parts = [
        "# SignalR: fanwire beside ASP.NET Core's own hub",
        f"Linux {header['kernel']}, {header['congestion_control']}, loopback, {header['cpu']}; server on core 0, "
        f"clients on core 1; {figures.turns} turns, {header['minutes']} minutes. Figures are medians of the turns, "
        "lowest to highest in brackets; a ratio is the median of the ratios of turns, each of two runs side by side. "
        "Made by `python bench/signalr.py`, do not edit.",
        f"WebSockets, {CLIENTS:,} clients for messages; each must have every message exactly once. All servers publish "
        "the same object; the raw protocol's message is a text of as many bytes as fanwire's hub message in the turn.",
    ]
    for protocol, title in TITLES.items():
        if any(one["protocol"] == protocol for one in figures.results):
            parts += [f"## {title}", _bounds(figures, protocol), _notes(figures, protocol)]
    parts += figures.nowhere(lambda one: f"{NAMES[one['server']]}, {one['protocol']}, {one['measure']}")
    return "\n\n".join(parts) + "\n"


def _bounds(figures: Figures, protocol: str) -> str:
    rows = []
    for bound in BOUNDS:
        own = figures.spread("fanwire", protocol, bound.metric)
        beside = figures.spread(bound.against, protocol, bound.metric) if bound.against else None
        ratio = figures.ratio(bound.against, protocol, bound.metric) if bound.against else None
        judged = ratio if bound.against else own
        said = "not measured" if judged is None else "yes" if bound.is_reached(judged.median) else "**no**"
        times = "×" if bound.against else ""
        rows.append(
            [
                bound.title,
                span_text(own),
                f"{span_text(beside)} {NAMES[bound.against]}" if bound.against else "–",
                f"{span_text(ratio)}×" if ratio else "–",
                f"{'≥' if bound.is_least else '≤'} {figure_text(bound.limit)}{times}",
                said,
            ]
        )
    return markdown_table(["", "fanwire", "beside", "ratio", "bound", "reached"], rows)


def _notes(figures: Figures, protocol: str) -> str:
    """What explains the table."""

    def each(metric: str, text: str, factor: float = 1.0) -> str:
        spreads = {name: figures.spread(name, protocol, metric) for name in ("fanwire", "origin")}
        said = (f"{NAMES[name]} {spread.median * factor:,.1f}" for name, spread in spreads.items() if spread)
        return f"- {text}: {', '.join(said)}"

    lines = [
        each("bytes", "Bytes of a message, with its separator or length, without the frame's head"),
        each("call_us", f"CPU of an invocation, µs, from {CALLERS} clients in a closed loop"),
        each("calls_client_share", "How busy the clients' core was meanwhile, %", 100),
        each("connects_client_share", "How busy it was while they connected, %", 100),
        each("connects_s", f"{IDLERS:,} connects, s"),
    ]
    return "\n".join(line for line in lines if not line.endswith(": "))


if __name__ == "__main__":
    write_again(write)
