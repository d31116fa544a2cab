"""Writes tree.json and tree.md: ``python bench/tree_report.py tree.json`` writes the tables again."""

from pathlib import Path
from typing import Any

from figures import Figures, write_again
from report import markdown_table, span_text
from summary import Spread

DELAY_MS = 100
CLIENTS = 1_000
KEPT, CLOSE_BY, PUBLISHED, ROUNDS = 100, 10, 20, 100
PAYLOAD_BYTES = 128
BYTES_LEAST = 100
"""So many times less has to cross for a publication."""

ROWS = {
    "cold_ms": "the first client of a channel: connected, and the first of what is kept, ms",
    "first_ms": "any other: the same, ms",
    "recover_ms": f"comes back, and has all of {KEPT} that it missed, ms",
    "publish_ms": "published at the origin until the client has it, ms",
    "come_bytes": f"crosses when {CLIENTS:,} clients come, bytes",
    "publication_bytes": f"crosses for a publication to {CLIENTS:,} clients, bytes",
}


def write(figures: Figures, header: dict[str, Any], directory: Path) -> None:
    """Write both files into a directory."""
    figures.write(header, directory, "tree", markdown(figures, header))


def markdown(figures: Figures, header: dict[str, Any]) -> str:
    """The whole report."""
    fewer = _fewer(figures)
    said = "not measured" if fewer is None else "yes" if fewer.median >= BYTES_LEAST else "**no**"
    parts = [
        "# An edge near the users",
        f"Linux {header['kernel']}, {header['congestion_control']}, loopback, {header['cpu']}; {figures.turns} turns, "
        f"{header['minutes']} minutes. Figures are medians of the turns, lowest to highest in brackets. Made by "
        "`python bench/tree.py`, do not edit.",
        f"The origin is {DELAY_MS} ms away, each way. A connection there costs the round trip of its handshake, too. "
        f"Publications have {PAYLOAD_BYTES} bytes, and go to an edge as text.",
        markdown_table(["a client", "of the far origin", "of an edge nearby"], _rows(figures)),
        markdown_table(
            ["", "measured", "bound", "reached"],
            [["what crosses for a publication, times less", span_text(fewer), f"≥ {BYTES_LEAST}", said]],
        ),
    ]
    parts += figures.nowhere(lambda one: str(one["measure"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(figures: Figures) -> list[list[str]]:
    def both(metric: str) -> list[str]:
        return [span_text(figures.spread("tree", "raw", f"{where}_{metric}")) for where in ("far", "near")]

    return [[title, *both(metric)] for metric, title in ROWS.items()]


def _fewer(figures: Figures) -> Spread | None:
    return figures.beside("tree", "raw", "far_publication_bytes", "near_publication_bytes")


if __name__ == "__main__":
    write_again(write)
