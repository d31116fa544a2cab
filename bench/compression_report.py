"""Tables and the plot of compression.py; ``python bench/compression_report.py RESULTS.json`` makes them again."""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from pairs import machine
from plot import GRID, INK, SOFT, bare, card, head, prepare, save
from report import figure_text, markdown_table, span_text
from summary import Summary, conditions

CONTEXTS = {"none": "#a9b4bf", "no context": "#2b6cb0", "a context for each": "#8a5a9e", "shared": "#d9480f"}
"""By how a peer compresses, in this order, with a colour."""
CPU_MAX = 1.05
"""A message costs no more than so many times one that is not compressed."""
CPU_OF_WEBSOCKETS_MAX = 0.2
MORE_BYTES_MAX = 64
"""A connection has no more than so much more memory."""
SHARE_MAX, SHARE_12_MAX = 0.10, 0.13


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _bounds(found: dict[str, Any], summary: Summary) -> list[list[str]]:
    """A row for each promise: what it is, at most, measured, reached."""
    rows: list[list[str]] = []

    def row(title: str, at_most: str, value: float | None, bound: float, text: str) -> None:
        reached = "not measured" if value is None else "yes" if value <= bound else "**no**"
        rows.append([title, f"≤ {at_most}", text if value is not None else "–", reached])

    for name, one in found["stock"].items():
        share, bound = one["share"], one["at_most"]
        row(f"bytes on the wire to {name}, of raw", _percent(bound), share, bound, _percent(share))
    for name, bound, text in (("fanwire-shared", SHARE_MAX, ""), ("fanwire-12", SHARE_12_MAX, " with 12 bits")):
        value = summary.median("rate", name, "share")
        row(f"the same, to all of a crowd that comes and goes{text}", _percent(bound), value, bound, _percent(value))
    for against, bound, text in (
        ("fanwire", CPU_MAX, "CPU for a message, of uncompressed"),
        ("websockets-deflate", CPU_OF_WEBSOCKETS_MAX, "CPU for a message, of `websockets` with context"),
    ):
        for workload in ("rate", "flat-out"):
            ratio = summary.ratio(workload, "fanwire-shared", against)
            row(f"{text}, {TITLES[workload]}", f"{bound}×", ratio, bound, f"{ratio or 0:.3f}×")
    one, other = (summary.median("rate-idle", name, "busy_kib") for name in ("fanwire-shared", "fanwire"))
    more = None if one is None or other is None else (one - other) * 1024
    row(
        "memory of a connection, more than uncompressed",
        f"{MORE_BYTES_MAX} B",
        more,
        MORE_BYTES_MAX,
        f"{more or 0:.0f} B",
    )
    return rows


TITLES = {"rate": "20 a second", "flat-out": "one at a time"}


def _crowd(found: dict[str, Any], summary: Summary) -> str:
    """Bytes, CPU and memory of each peer."""
    rows = []
    for name, (label, context) in found["ways"].items():
        if summary.spread("rate", name) is None and summary.spread("flat-out", name) is None:
            continue
        plain = name.partition("-")[0]
        ratios = [summary.ratio(workload, name, plain) for workload in ("rate", "flat-out")]
        cells = [f"{label} ({name})", context]
        cells += [_percent(summary.median("rate", name, metric)) for metric in ("share", "settled_share")]
        cells += [span_text(summary.spread(workload, name)) for workload in ("rate", "flat-out")]
        cells += ["–" if ratio is None else f"{figure_text(ratio)}×" for ratio in ratios]
        cells.append(span_text(summary.spread("rate", name, "busy_kib")))
        rows.append(cells)
    header = [
        "peer",
        "compression",
        "bytes, all",
        "settled",
        "CPU at 20/s, µs",
        "CPU flat out, µs",
        "× its own plain, 20/s",
    ]
    return markdown_table([*header, "flat out", "KiB a connection"], rows)


def _newcomers(found: dict[str, Any], summary: Summary) -> str:
    rows = []
    for name, (label, _) in found["ways"].items():
        if summary.spread("rate", name) is not None:
            metrics = ("newcomers", "newcomers_share", "newcomers_of_wire")
            rows.append([f"{label} ({name})", *(_percent(summary.median("rate", name, one)) for one in metrics)])
    return markdown_table(["peer", "of the messages", "bytes, of raw", "of all bytes"], rows)


def report(found: dict[str, Any]) -> str:
    """The report, as Markdown."""
    summary = Summary(found)
    clients = summary.clients("rate")
    parts = [
        "# Compression beside peers",
        "Made by `python bench/compression.py`; do not edit. One channel has a feed of changed odds, of 480 bytes a "
        "message. *Bytes* are frames with their heads, as a share of the messages'. CPU is the server's, µs for one "
        "message to one client: the median of the turns, and the lowest and highest. A ratio is the median over the "
        "turns, each of two runs side by side.",
        machine(found["header"]),
        "![Bytes and CPU](compression.svg)",
        "## The bounds",
        markdown_table(["bound", "at most", "measured", "reached"], _bounds(found, summary)),
    ]
    if clients:
        parts += [
            f"## {clients:,} clients",
            "*20 a second*: 1 % of the clients leave each second, and as many come; *settled* are those who were there "
            "all the while. *Flat out*: a message as soon as all have the one before, and nobody comes or goes. Memory "
            "is the server's growth since before the first connect, with what it has once for all.",
            _crowd(found, summary),
            "With `DEDICATED_COMPRESSOR_256KB` of socketify's µWebSockets each connection has a context of its own. "
            "The bytes measured here are about those of a window of 9 bits. Whether that is so by its settings, by the "
            "binding or by the version that was installed was not looked into: another may give others.",
            "## Newcomers",
            "Clients that came while bytes were counted: their part of the messages, their bytes as a share of theirs, "
            "and their part of all bytes.",
            _newcomers(found, summary),
        ]
    if incomplete := summary.incomplete():
        rows = [
            [run["peer"], run["workload"], (run["why"].splitlines() or ["?"])[-1].replace("|", "/")]
            for run in incomplete
        ]
        parts += ["## Incomplete runs", markdown_table(["peer", "workload", "what was wrong"], rows)]
    return "\n\n".join(parts) + "\n"


def plot(found: dict[str, Any], folder: Path) -> None:
    """Bytes and CPU of a message, by how it is compressed."""
    summary = Summary(found)
    ways = [
        (name, label, context)
        for kind in CONTEXTS
        for name, (label, context) in found["ways"].items()
        if context == kind and summary.median("rate", name) is not None and name != "fanwire-12"
    ]
    if not ways:
        return
    prepare()
    figure = card(9.6, 1.75 + 0.36 * len(ways))
    head(
        figure,
        "What a message to one client takes, compressed",
        f"a feed of odds, 480 bytes a message, 20 a second to {summary.clients('rate'):,} clients that come and go; "
        "less is better",
        conditions(summary.header),
    )
    bottom, height = 0.55 / figure.get_figheight(), 1 - 1.75 / figure.get_figheight()
    bytes_of = [
        (summary.median("rate", name, "share") or 0) * (summary.median("rate", name, "message_bytes") or 0)
        for name, _, _ in ways
    ]
    cpu_of = [summary.median("rate", name) or 0 for name, _, _ in ways]
    for left, width, title, values in (
        (0.27, 0.3, "bytes on the wire", bytes_of),
        (0.65, 0.3, "server CPU, µs", cpu_of),
    ):
        axes = figure.add_axes((left, bottom, width, height))
        _bars(axes, title, values, [CONTEXTS[context] for _, _, context in ways])
        if left < 0.5:
            for row, (name, label, context) in enumerate(ways):
                weight = "bold" if name == "fanwire-shared" else "normal"
                text = f"{label.partition(',')[0]}: {context}"
                axes.text(
                    -0.03 * max(values), row, text, ha="right", va="center", fontsize=9.4, color=INK, fontweight=weight
                )
    save(figure, folder, "compression")


def _bars(axes: Axes, title: str, values: list[float], colours: list[str]) -> None:
    bare(axes)
    axes.barh(range(len(values)), values, color=colours, height=0.62)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlim(0, max(values) * 1.16)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.axvline(0, color=GRID, linewidth=1)
    axes.set_title(title, fontsize=10, color=SOFT, loc="left", pad=5)
    for row, value in enumerate(values):
        axes.text(value + max(values) * 0.015, row, figure_text(value), va="center", fontsize=9, color=SOFT)


def main() -> None:
    """Write both again beside a compression.json."""
    path = Path(sys.argv[1])
    found = json.loads(path.read_text())
    path.with_suffix(".md").write_text(report(found))
    plot(found, path.parent)


if __name__ == "__main__":
    main()
