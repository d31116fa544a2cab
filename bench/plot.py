"""Draws the plots of a run as SVG and PNG: ``python bench/plot.py bench/results/results.json`` draws them again.

Each plot is a white card, so that it reads on GitHub's white and dark pages alike; names stand at their lines.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from summary import Spread, Summary, conditions
from workloads import Peer, peers

INK, SOFT, GRID, BAND = "#1f2933", "#6b7785", "#e8ecf0", "#eef1f4"
COLOURS = {
    "fanwire": "#d9480f",
    "socketify": "#2b6cb0",
    "picows": "#2f855a",
    "websockets": "#8a5a9e",
    "websockets-uvloop": "#b794c7",
    "aiohttp": "#b7791f",
    "fastapi": "#0f8b8d",
    "node-ws": "#7c8794",
    "centrifugo": "#a33b6b",
    "floor-uring": "#a9b4bf",
}
BURSTS = (("single", 1), ("burst5", 5), ("burst20", 20), ("burst100", 100))
FLOOR = "floor-uring"
LABEL_GAP = 0.046
"""Least distance between two labels, as a share of the axis's height."""


def draw(found: dict[str, Any], table: dict[str, Peer], directory: Path) -> None:
    """Draw every plot for which the run has figures."""
    summary = Summary(found)
    prepare()
    if any(summary.median(workload, name) for workload, _ in BURSTS for name in COLOURS):
        save(_cpu_per_message(summary, table), directory, "cpu_per_message")
    if any(workload in summary.workloads() for workload in ("markets", "goal", "idle")):
        save(_bars(summary, table), directory, "markets_goal_idle")


def prepare() -> None:
    """Fonts and colours of all plots."""
    matplotlib.rcParams.update(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["Inter", "Source Sans 3", "Open Sans", "DejaVu Sans"],
            "svg.fonttype": "path",
            "svg.hashsalt": "fanwire",
            "text.color": INK,
        }
    )


def save(figure: Figure, directory: Path, name: str) -> None:
    """Write both forms."""
    for ending in ("svg", "png"):
        metadata = {"Date": None} if ending == "svg" else None
        figure.savefig(directory / f"{name}.{ending}", dpi=160, facecolor="none", metadata=metadata)
    plt.close(figure)


def card(width: float, height: float) -> Figure:
    """A figure whose background is a white card with round corners and a hairline."""
    figure = plt.figure(figsize=(width, height))
    inset = 0.02
    card = FancyBboxPatch(
        (inset, inset),
        width - 2 * inset,
        height - 2 * inset,
        boxstyle="round,pad=0,rounding_size=0.14",
        transform=figure.dpi_scale_trans,
        facecolor="white",
        edgecolor="#d5dbe1",
        linewidth=1,
        zorder=-10,
    )
    figure.patches.append(card)
    return figure


def head(figure: Figure, title: str, subtitle: str, shown: str) -> None:
    """Title, what it shows, and the conditions under which it was measured."""
    width, height = figure.get_size_inches()
    left = 0.42 / width
    figure.text(left, 1 - 0.36 / height, title, fontsize=16.5, fontweight="bold", va="top")
    figure.text(left, 1 - 0.74 / height, subtitle, fontsize=10.3, color=SOFT, va="top")
    figure.text(left, 0.22 / height, shown, fontsize=7.6, color="#8f9aa6", va="bottom")


def _plain(value: float, _position: object = None) -> str:
    return f"{value:g}"


def bare(axes: Axes) -> None:
    """No frame, no ticks, soft labels."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=9.5, labelcolor=SOFT)
    axes.set_axisbelow(True)


def _cpu_per_message(summary: Summary, table: dict[str, Peer]) -> Figure:
    """The main plot: what one message to one client costs, by how many are published back to back."""
    figure = card(9.6, 5.9)
    axes = figure.add_axes((0.078, 0.15, 0.705, 0.655))
    axes.set(xscale="log", yscale="log", xlim=(0.93, 104))
    clients = summary.clients("single") or summary.clients("burst20")
    head(
        figure,
        "What one message to one client costs the server",
        f"CPU time in µs, {clients:,} WebSocket clients, 128-byte messages; log scales; less is better",
        conditions(summary.header),
    )
    lines = {name: _line(summary, name) for name in COLOURS}
    lines = {name: points for name, points in lines.items() if points}
    values = [spread.median for points in lines.values() for _, spread in points]
    axes.set_ylim(min(values) / 1.7, max(values) * 1.45)
    floor = lines.pop(FLOOR, [])
    if floor:
        bursts, medians = [burst for burst, _ in floor], [spread.median for _, spread in floor]
        axes.fill_between(bursts, medians, axes.get_ylim()[0], color=BAND, zorder=1, linewidth=0)
        axes.plot(bursts, medians, color=COLOURS[FLOOR], linewidth=1.1, zorder=2)
        low = axes.get_ylim()[0] * 1.14
        axes.text(1.06, low, "the kernel's own cost: a bare loop of io_uring sends", fontsize=9, color=SOFT)
    for name, points in lines.items():
        _draw_line(axes, name, points)
    _label_ends(axes, {name: points[-1] for name, points in lines.items()}, table)
    bare(axes)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.xaxis.set_major_locator(FixedLocator([burst for _, burst in BURSTS]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator([0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_plain))
    axes.set_xlabel("messages published back to back", fontsize=9.5, color=SOFT, labelpad=6)
    return figure


def _line(summary: Summary, name: str) -> list[tuple[int, Spread]]:
    spreads = ((burst, summary.spread(workload, name)) for workload, burst in BURSTS)
    return [(burst, spread) for burst, spread in spreads if spread is not None]


def _draw_line(axes: Axes, name: str, points: list[tuple[int, Spread]]) -> None:
    """A peer's line with its range behind it; fanwire's stands out."""
    is_ours = name == "fanwire"
    bursts = [burst for burst, _ in points]
    lows, highs = [spread.low for _, spread in points], [spread.high for _, spread in points]
    axes.fill_between(bursts, lows, highs, color=COLOURS[name], alpha=0.12, linewidth=0, zorder=3)
    axes.plot(
        bursts,
        [spread.median for _, spread in points],
        color=COLOURS[name],
        linewidth=3 if is_ours else 1.7,
        marker="o",
        markersize=6.5 if is_ours else 4,
        markeredgecolor="white",
        markeredgewidth=1,
        solid_capstyle="round",
        zorder=6 if is_ours else 5,
    )


def _label_ends(axes: Axes, ends: dict[str, tuple[int, Spread]], table: dict[str, Peer]) -> None:
    """Names and last values at the right ends, moved apart where they would touch."""
    places = sorted((axes.transAxes.inverted().transform(axes.transData.transform((burst, spread.median)))[1], name)
                    for name, (burst, spread) in ends.items())  # fmt: skip
    heights: list[float] = []
    for place, _ in places:
        heights.append(max(place, heights[-1] + LABEL_GAP) if heights else place)
    overflow = max(0.0, heights[-1] - 1.0) if heights else 0.0
    for index in reversed(range(len(heights))):  # pushed down from the top, and back towards where they belong
        above = heights[index + 1] - LABEL_GAP if index + 1 < len(heights) else 1.0
        heights[index] = min(heights[index] - (overflow if index == len(heights) - 1 else 0), above)
    heights = _centred(heights, [place for place, _ in places])
    for height, (place, name) in zip(heights, places, strict=True):
        is_ours = name == "fanwire"
        axes.annotate(
            "",
            xy=(1.004, place),
            xytext=(1.026, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": COLOURS[name], "linewidth": 0.8, "alpha": 0.6},
            annotation_clip=False,
        )
        axes.text(
            1.032,
            height,
            f"{_label(table[name])}  {_figure(ends[name][1].median)}",
            transform=axes.transAxes,
            color=COLOURS[name],
            fontsize=12 if is_ours else 9.6,
            fontweight="bold" if is_ours else "normal",
            va="center_baseline",
        )


def _centred(heights: list[float], wanted: list[float]) -> list[float]:
    """Shift each run of touching labels so that it sits about the middle of its lines."""
    moved: list[float] = []
    start = 0
    for index in range(1, len(heights) + 1):
        if index == len(heights) or heights[index] - heights[index - 1] > LABEL_GAP * 1.01:
            run, targets = heights[start:index], wanted[start:index]
            shift = sum(targets) / len(targets) - sum(run) / len(run)
            below = moved[-1] + LABEL_GAP if moved else -1.0
            shift = max(shift, below - run[0])
            moved += [height + min(shift, 1.0 - run[-1]) for height in run]
            start = index
    return moved


def _label(peer: Peer) -> str:
    """A peer's name, short enough to stand at a line."""
    return peer.label.replace(" (socketify)", "").replace(", io_uring", "").replace(" on uvicorn", "")


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def _bars(summary: Summary, table: dict[str, Peer]) -> Figure:
    """The second plot: markets, the goal and idle memory, a panel each."""
    panels = [
        ("markets", "cpu_us", "Markets", "CPU µs a message; 1,000 channels,\n10 subscriptions a client, Zipf"),
        ("goal", "cpu_us", "The goal", "CPU µs a message; {clients:,} clients,\none message a second"),
        ("idle", "idle_kib", "Idle", "KiB of server memory a connection,\n{clients:,} clients, without the kernel's"),
    ]
    panels = [panel for panel in panels if any(_bar_values(summary, panel[0], panel[1]))]
    figure = card(11.4, 4.6)
    head(
        figure,
        "Many channels, many clients, nothing to say",
        "Server's cost by peer, median of the runs; less is better",
        conditions(summary.header),
    )
    left, gap = 0.42 / 11.4, 0.012
    width = (1 - left - 0.02 - gap * (len(panels) - 1)) / max(len(panels), 1)
    for index, (workload, metric, title, text) in enumerate(panels):
        place = (left + index * (width + gap), 0.11, width, 0.53)
        axes = figure.add_axes(place)
        _panel(axes, _bar_values(summary, workload, metric), table)
        axes.text(0, 1.235, title, transform=axes.transAxes, fontsize=11.5, fontweight="bold", va="top")
        shown = text.format(clients=summary.clients(workload))
        axes.text(0, 1.15, shown, transform=axes.transAxes, fontsize=8.2, color=SOFT, va="top", linespacing=1.25)
    return figure


def _bar_values(summary: Summary, workload: str, metric: str) -> list[tuple[str, float]]:
    found = ((name, summary.median(workload, name, metric)) for name in COLOURS)
    return sorted(((name, value) for name, value in found if value is not None), key=lambda pair: pair[1])


def _panel(axes: Axes, values: list[tuple[str, float]], table: dict[str, Peer]) -> None:
    """Horizontal bars, the least on top, name and value in words beside them."""
    bare(axes)
    most = max(value for _, value in values)
    axes.set(xlim=(-most * 0.86, most * 1.22), ylim=(len(COLOURS) - 0.4, -0.6), xticks=[], yticks=[])
    for row, (name, value) in enumerate(values):
        is_ours = name == "fanwire"
        weight = "bold" if is_ours else "normal"
        axes.barh(row, max(value, most * 0.004), height=0.6, color=COLOURS[name], alpha=1 if is_ours else 0.72)
        axes.text(
            -most * 0.03, row, _label(table[name]), ha="right", va="center", fontsize=8.8, fontweight=weight, color=INK
        )
        axes.text(value + most * 0.025, row, _figure(value), va="center", fontsize=8.8, fontweight=weight, color=SOFT)


def main() -> None:
    """Draw beside a results.json."""
    path = Path(sys.argv[1])
    draw(json.loads(path.read_text()), peers(Path("fanwire-floor")), path.parent)


if __name__ == "__main__":
    main()
