"""The demo as a person sees it while it runs: a live screen on a terminal, lines elsewhere. Not here: measuring."""

import time

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fanwire.demo.acts import ACTS, Show
from fanwire.demo.figures import NONE, duration, number, percent, rate, ratio, size

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 96
PADDING = 3
INNER_MIN = 72
"""Of a terminal of 80 columns."""
ACCENT = "bright_cyan"
PLAIN = "bright_magenta"
LOUD = "bright_yellow"
GOOD = "bright_green"
BAD = "bright_red"
RATE_LINES = 4
KILLED = 3
"""The act that another backend is spared."""
COLUMN_S = 0.8
"""One column of the picture of the rate."""


def screen(show: Show, width: int) -> RenderableType:
    """One picture of the demo, so wide at most; each thing has its place, whatever the numbers are."""
    width = min(width, WIDTH)
    inner = max(INNER_MIN, width - 2 * PADDING - 2)
    parts = [_acts(show), Text(), _path(show, inner), Text(), _table(show), Text(), _saved(show)]
    return Panel(
        Group(*parts, _gauges(show, inner), Text(), _rates(show, inner), Text(), _note(show)),
        title=f"[bold {ACCENT}]fanwire[/] relay",
        subtitle="[dim]Ctrl-C ends it[/]",
        border_style=ACCENT,
        width=width,
        padding=(1, PADDING),
    )


def line(show: Show) -> str:
    """The same as one line, for what is no terminal."""
    figures, lately = show.figures, show.figures.lately()
    saved = figures.now().minus(show.course.begin).saved
    return (
        f"{_passed_s(show):3.0f} s  {ACTS[show.act]:18}{figures.clients:>7,} clients{figures.connections:>7,} at the "
        f"backend, which sends {rate(lately.backend_bytes, lately.at):>10}  clients get "
        f"{rate(lately.received_bytes, lately.at):>10}  saved {percent(saved):>6}  latency p50 "
        f"{duration(figures.age_s(0.5)):>7} p99 {duration(figures.age_s(0.99)):>7}"
    )


def _passed_s(show: Show) -> float:
    return time.monotonic() - show.started


def _colour(show: Show) -> str:
    return ACCENT if show.is_relayed else PLAIN


def _acts(show: Show) -> RenderableType:
    text = Text()
    for index, name in enumerate(ACTS):
        if index == KILLED and show.plan.backend is not None:
            continue
        if index < show.act:
            text.append(f"✓ {name}", style=GOOD)
        elif index == show.act:
            text.append(f"● {name}", style=f"bold {BAD if show.is_down else _colour(show)}")
        else:
            text.append(f"· {name}", style="dim")
        text.append("   " if name != ACTS[-1] else "")
    row = Table.grid(expand=True)
    row.add_column()
    row.add_column(justify="right")
    row.add_row(text, Text(f"{_passed_s(show):.0f} s", style="dim"))
    return row


def _path(show: Show, inner: int) -> RenderableType:
    """From the clients to the backend."""
    figures, colour = show.figures, _colour(show)
    long = 9 + (inner - INNER_MIN) // 2  # of an arrow
    text = Text.assemble((f"{figures.clients:>7,} clients ", f"bold {colour}"), no_wrap=True, overflow="crop")
    if not show.is_relayed:
        text.append("═" * (long + 17), style=colour)
        text.append(f"{figures.connections:>7,} connections ", style=f"bold {colour}")
        text.append("═" * (long - 8) + "▶ ", style=colour)
    else:
        text.append("═" * long + "▶ ", style=colour)
        text.append("relay ", style="bold")
        if show.is_down:
            text.append("─ ─ ─ ─ ─", style=BAD)
            text.append("     no lanes ", style=f"bold {BAD}")
            text.append("✗".center(long - 2) + "  ", style=BAD)
        else:
            text.append("─" * 9, style=colour)
            text.append(f"{figures.connections:>7,} lanes ", style=f"bold {colour}")
            text.append("─" * (long - 2) + "▶ ", style=colour)
    return text.append("backend", style=f"bold {BAD}" if show.is_down else "bold")


def _table(show: Show) -> RenderableType:
    figures, lately = show.figures, show.figures.lately()
    total = figures.now().minus(show.course.begin)
    table = Table.grid(expand=True)
    table.add_column(style="dim", width=22)
    for width in (22, 22, 22):
        table.add_column(justify="right", style="bold", width=width, no_wrap=True)
    table.add_row("", *(Text(head, style="dim") for head in ("out of the backend", "to the clients", "ratio")))
    table.add_row(
        "connections",
        Text(number(figures.connections), style=BAD if show.is_down else ""),
        number(figures.clients),
        ratio(figures.clients, figures.connections),
    )
    for name, backend, clients in (
        ("messages", total.backend_messages, total.received),
        ("messages a second", lately.backend_messages / lately.at, lately.received / lately.at),
    ):
        sent = number(backend) if show.plan.backend is None else NONE  # another backend does not count them
        table.add_row(name, sent, number(clients), ratio(clients, backend))
    table.add_row(
        "bytes", size(total.backend_bytes), size(total.received_bytes), ratio(total.received_bytes, total.backend_bytes)
    )
    table.add_row(
        "bytes a second",
        rate(lately.backend_bytes, lately.at),
        rate(lately.received_bytes, lately.at),
        ratio(lately.received_bytes, lately.backend_bytes),
    )
    return table


def _saved(show: Show) -> RenderableType:
    saved = show.figures.now().minus(show.course.begin).saved
    row = Table.grid(expand=True)
    row.add_column(style="dim", width=22)
    row.add_column(ratio=1)
    row.add_column(justify="right", width=10, style=f"bold {GOOD}")
    bar = ProgressBar(total=100, completed=100 * max(0.0, saved or 0.0), complete_style=GOOD, finished_style=GOOD)
    row.add_row("bandwidth saved", bar, percent(saved))
    return row


def _gauges(show: Show, inner: int) -> RenderableType:
    figures, lately = show.figures, show.figures.lately()
    row = Table.grid(expand=True)
    gauges = (
        ("latency p50", duration(figures.age_s(0.5))),
        ("p99", duration(figures.age_s(0.99))),
        ("backend CPU", percent(lately.backend_cpu_s / lately.at)),
        ("relay CPU", percent(lately.relay_cpu_s / lately.at) if show.is_relayed else NONE),
    )
    cells: list[str] = []
    for name, value in gauges:
        if cells:
            row.add_column(width=2 + (inner - INNER_MIN) // 8)
            cells.append("")
        row.add_column(style="dim", no_wrap=True)
        row.add_column(justify="right", style="bold", no_wrap=True, width=8 + (inner - INNER_MIN) // 8)
        cells += [name, value]
    row.add_row(*cells)
    return row


def _rates(show: Show, inner: int) -> RenderableType:
    """Messages to the clients from the beginning on, a column for each part of a second."""
    samples = show.figures.samples
    counts: dict[int, int] = {}
    for before, after in zip(list(samples), list(samples)[1:], strict=False):
        column = int((after.at - show.started) / COLUMN_S)
        counts[column] = counts.get(column, 0) + after.received - before.received
    newest = max(counts, default=0)
    first = max(0, newest - inner + 1)
    values = [counts.get(column, 0) / COLUMN_S for column in range(first, newest)]
    highest = max(values, default=0.0) or 1.0
    direct_from = show.direct.begin.at or float("inf")
    lines = []
    for floor in range((RATE_LINES - 1) * 8, -1, -8):
        text = Text(no_wrap=True, overflow="crop")
        for column, value in enumerate(values, first):
            is_direct = show.started + column * COLUMN_S >= direct_from
            height = round(value / highest * RATE_LINES * 8) - floor
            text.append(BLOCKS[max(0, min(8, height))], style=PLAIN if is_direct else ACCENT)
        lines.append(text)
    caption = Table.grid(expand=True)
    caption.add_column(style="dim")
    caption.add_column(justify="right")
    legend = Text.assemble(("▆", ACCENT), (" with the relay   ", "dim"), ("▆", PLAIN), (" without", "dim"))
    caption.add_row(f"messages a second, highest {highest if highest > 1 else 0:,.0f}", legend)
    return Group(*lines, Text("─" * inner, style="dim", no_wrap=True, overflow="crop"), caption)


def _note(show: Show) -> RenderableType:
    text = show.note
    outage = show.outage
    if outage is not None and show.act == 3:
        text += f"   ({time.monotonic() - outage.killed_at:.1f} s)" if outage.heard_s is None else ""
    style = f"bold {BAD}" if show.is_down else f"bold {LOUD}" if show.is_loud else ""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
