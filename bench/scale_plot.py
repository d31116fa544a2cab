"""Draws scale.svg and scale.png: ``python bench/scale_plot.py bench/results/scale.json`` draws them again."""

import json
import sys
from pathlib import Path
from typing import Any

import plot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from plot import COLOURS, GRID, INK, SOFT
from scale_report import scales

WIDTH, HEIGHT = 11.4, 4.7
LANES = "#2b6cb0"


def draw(found: dict[str, Any], directory: Path) -> None:
    """Clients and connections over the run at the left; what a message costs at the right."""
    plot.prepare()
    figure = plot.card(WIDTH, HEIGHT)
    clients = found["header"]["clients"]
    connections = found["figures"].get("connections")
    title = f"{clients:,} clients on one machine"
    if connections:
        title += f", {connections:,.0f} connections at the backend"
    plot.head(figure, title, _subtitle(found), _conditions(found["header"]))
    _course(figure.add_axes((0.075, 0.185, 0.45, 0.57)), found["samples"], clients)
    _cost(figure, found["figures"])
    plot.save(figure, directory, "scale")


def _subtitle(found: dict[str, Any]) -> str:
    figures = found["figures"]
    parts = [f"{figures['workers']:.0f} workers before one ASP.NET Core hub" if "workers" in figures else "fanwire"]
    if "connect_s" in figures:
        parts.append(f"all connect in {figures['connect_s']:.0f} s")
    if "match_p99_ms" in figures:
        parts.append(f"one match's goal reaches its thousand in {figures['match_p99_ms']:.0f} ms (p99)")
    return "; ".join(parts)


def _conditions(header: dict[str, Any]) -> str:
    parts = (f"Linux {header['kernel']}", header["congestion_control"], "loopback", header["cpu"])
    return " · ".join((*parts, f"{header['cores']} cores for servers and clients"))


def _thousands(value: float, _position: object = None) -> str:
    if value >= 1_000_000:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g},000" if value >= 1_000 else f"{value:g}"


def _course(axes: Axes, samples: list[dict[str, float]], clients: int) -> None:
    """What the big crowd's run looked like from outside: a log scale, since the two are a thousand apart."""
    big = [one for one in samples if one["open"] > 0]
    if not big:
        axes.axis("off")
        return
    most = max(one["crowd"] for one in big)
    last = max(index for index, one in enumerate(big) if one["crowd"] == most)
    first = last
    while first > 0 and 0 < big[first - 1]["crowd"] <= big[first]["crowd"]:
        first -= 1
    big = big[first : last + 1]
    start = big[0]["s"]
    times = [one["s"] - start for one in big]
    axes.plot(times, [max(1.0, one["open"]) for one in big], color=COLOURS["fanwire"], linewidth=2.6)
    axes.plot(times, [max(1.0, one["connections"]) for one in big], color=LANES, linewidth=2.2)
    axes.set(yscale="log", ylim=(10, clients * 4), xlim=(0, max(times[-1], 1.0)))
    end = times[-1]
    for name, key, colour in (
        ("clients", "open", COLOURS["fanwire"]),
        ("connections at the backend", "connections", LANES),
    ):
        height = max(20.0, big[-1][key])
        axes.text(end, height * 1.25, name, color=colour, fontsize=10, fontweight="bold", ha="right", va="bottom")
    plot.bare(axes)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.yaxis.set_major_locator(FixedLocator([10, 100, 1_000, 10_000, 100_000, 1_000_000]))
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("seconds", fontsize=9.5, color=SOFT, labelpad=4)


def _cost(figure: Figure, figures: dict[str, float]) -> None:
    """CPU a message by how many have it, beside the bare loop."""
    axes = figure.add_axes((0.6, 0.185, 0.36, 0.49))
    own, bare = scales(figures, "us"), scales(figures, "bare_us")
    if not own:
        axes.axis("off")
        return
    axes.text(0, 1.17, "CPU of one message to one client, µs", transform=axes.transAxes, fontsize=10.5, color=INK)
    highest = max(value for _, value in own + bare)
    for points, name, colour in ((bare, "bare loop", "#8f9aa6"), (own, "fanwire", COLOURS["fanwire"])):
        if not points:
            continue
        counts, values = zip(*points, strict=True)
        is_ours = name == "fanwire"
        axes.plot(counts, values, color=colour, linewidth=2.8 if is_ours else 1.6, marker="o", markersize=5.5)
        for count, value in points:
            shift = 1 if is_ours == (value >= dict(bare).get(count, 0.0)) else -1
            axes.annotate(
                f"{value:.2g}" if value < 10 else f"{value:.0f}",
                (count, value),
                (0, 9 * shift),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=8.6,
                color=colour,
                fontweight="bold" if is_ours else "normal",
            )
        axes.annotate(
            name, points[0], (0, 22 if is_ours else -22), textcoords="offset points", color=colour, fontsize=9.6
        )
    axes.set(xscale="log", ylim=(0, highest * 1.35), xlim=(own[0][0] * 0.7, own[-1][0] * 1.5))
    plot.bare(axes)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(FixedLocator([count for count, _ in own]))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("clients that it goes to", fontsize=9.5, color=SOFT, labelpad=4)


def main() -> None:
    """Draw beside a scale.json."""
    path = Path(sys.argv[1])
    draw(json.loads(path.read_text()), path.parent)


if __name__ == "__main__":
    main()
