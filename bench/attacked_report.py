"""Writes attacked.json and attacked.md: ``python bench/attacked_report.py attacked.json`` writes the tables again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Figures, write_again
from report import markdown_table, span_text
from summary import Spread

HUB, FLOOR, RAW = "fanwire", "floor", "raw"
BOUND = 1.1
"""Others' p99 beside an attacker, as a multiple of theirs without, above that of the bare loop where it can be had."""


@dataclass(frozen=True)
class Kind:
    """One kind of attack."""

    title: str
    is_served_by_floor: bool = False
    """Whether the bare loop takes it, too, so that the kernel's part is known."""


ATTACKS = {
    "garbage": Kind("connects, writes what is no request, leaves, as fast as it can", is_served_by_floor=True),
    "calls": Kind("SignalR invocations as fast as they are answered, on two connections"),
    "streams": Kind("500 event streams of 20 channels with all their history"),
}


def ratio(figures: Figures, server: str, kind: str) -> Spread | None:
    """p99 attacked beside p99 alone, turn by turn."""
    return figures.beside(server, RAW, f"{kind}_attacked_p99_ms", f"{kind}_alone_p99_ms")


def write(figures: Figures, header: dict[str, Any], directory: Path) -> None:
    """Write both files into a directory."""
    figures.write(header, directory, "attacked", markdown(figures, header))


def markdown(figures: Figures, header: dict[str, Any]) -> str:
    """The whole report."""
    parts = [
        "# Beside attackers",
        f"Linux {header['kernel']}, {header['congestion_control']}, loopback, {header['cpu']}; {figures.turns} turns, "
        f"{header['minutes']} minutes. Figures are medians of the turns, lowest to highest in brackets. Made by "
        f"`{header['command']}`, do not edit.",
        f"{header['clients']} honest clients, 20 publications a second; each must have each once and in order, or the "
        "run counts nowhere. The server has core 0, its clients and the attacker core 1. The floor is a bare loop that "
        "accepts, reads and sends: what its clients notice is the kernel's part, on the same cores.",
        _table(figures),
    ]
    parts += figures.nowhere(lambda one: str(one["measure"]))
    return "\n\n".join(parts) + "\n"


def _table(figures: Figures) -> str:
    rows = []
    for kind, about in ATTACKS.items():
        floor = ratio(figures, FLOOR, kind)
        for server in (HUB, FLOOR) if floor else (HUB,):
            own = ratio(figures, server, kind)
            if own is None:
                continue
            limit = BOUND * max(1.0, floor.median if floor else 1.0)
            said = "–" if server == FLOOR else "yes" if own.median <= limit else "**no**"
            rows.append(
                [
                    f"{about.title}: {server}",
                    *(
                        span_text(figures.spread(server, RAW, f"{kind}_{metric}"))
                        for metric in ("alone_p99_ms", "attacked_p99_ms")
                    ),
                    f"{span_text(own)}×",
                    f"≤ {limit:.2f}×" if server == HUB else "–",
                    said,
                    *(
                        span_text(figures.spread(server, RAW, f"{kind}_{metric}"))
                        for metric in ("per_s", "busy_share", "memory_mib", "kept_mib")
                    ),
                ]
            )
    head = ["", "p99 alone, ms", "attacked, ms", "compared", "bound", "reached"]
    return markdown_table([*head, "attacks a second", "server's core busy, %", "memory +MiB", "kept +MiB"], rows)


if __name__ == "__main__":
    write_again(write)
