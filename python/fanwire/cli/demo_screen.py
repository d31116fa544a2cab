"""The demo as a person sees it: a live screen on a terminal, lines elsewhere, a summary at the end. ✗ measuring."""

import time
from collections.abc import Iterable

from rich.align import Align
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fanwire.cli.demo_figures import Figures

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 74
ACCENT = "bright_cyan"
GOAL = "bright_yellow"
SPARK_LINES = 3
GOAL_SHOWN_S = 1.6


def screen(figures: Figures, completion: tuple[float | None, float | None]) -> RenderableType:
    """One picture of the demo; `completion` bounds the p50 and p99 of fan-out completion, in seconds."""
    parts: list[RenderableType] = [_header(figures)]
    if figures.phase == "connecting":
        parts += [Text(), _connecting(figures)]
    else:
        parts += [Text(), _score(figures), Text(), _table(figures, completion), Text(), _sparkline(figures.rates)]
    return Align.center(
        Panel(
            Group(*parts),
            title=f"[bold {ACCENT}]fanwire[/] demo",
            subtitle=_subtitle(figures),
            border_style=ACCENT,
            width=WIDTH,
            padding=(1, 3),
        )
    )


def line(figures: Figures) -> str:
    """The same as one line, for what is no terminal."""
    if figures.phase == "connecting":
        return f"connecting: {figures.connections:,} of {figures.clients:,}"
    tick = figures.tick
    return (
        f"{figures.elapsed:5.1f} s  {figures.connections:,} clients  {figures.publications:,} publications  "
        f"{figures.deliveries:,} deliveries  {_cpu(figures)} each  "
        f"latency p50 {_duration_us(tick.get('p50_us'))} p99 {_duration_us(tick.get('p99_us'))}"
    )


def summary(figures: Figures) -> RenderableType:
    """What happened, in figures that were counted, not estimated."""
    complete = figures.complete
    latency = complete.get("latency_us", {})
    completion = complete.get("completion_us", {})
    rows = _grid()
    rows.add_row("clients", f"{figures.connected.get('connected', figures.connections):,}")
    rows.add_row("publications", f"{figures.publications:,}")
    rows.add_row("deliveries", f"{figures.deliveries:,}")
    if complete:
        rows.add_row("arrived", f"{complete.get('received', 0):,} of {complete.get('expected', 0):,}")
        rows.add_row("gaps, reordered", f"{complete.get('gaps', 0)}, {complete.get('reordered', 0)}")
        rows.add_row("latency", f"p50 {_duration_us(latency.get('p50'))}, p99 {_duration_us(latency.get('p99'))}")
        rows.add_row("last client has it", f"p50 {_duration_us(completion.get('p50'))}")
    rows.add_row("CPU for each delivery", _cpu(figures))
    parts: list[RenderableType] = [rows]
    if figures.writes and figures.deliveries:
        each = figures.deliveries / figures.writes
        parts += [
            Text(),
            Text(
                f"A loop that sends each message to each client makes {figures.deliveries:,} writes for this. "
                f"The hub made {figures.writes:,}: {each:.1f} deliveries a write, because what is published "
                "back to back goes out together."
            ),
        ]
    parts += [
        Text(),
        Text(
            "Hub and clients shared this machine. On loopback the receiver's half of TCP runs, and is counted, "
            "inside the sender's call; over a network card each delivery costs the hub less.",
            style="dim",
        ),
    ]
    title = "[bold]that was fanwire[/]" if figures.phase == "done" else "[bold]stopped early[/]"
    return Align.center(Panel(Group(*parts), title=title, border_style=ACCENT, width=WIDTH, padding=(1, 3)))


def _header(figures: Figures) -> RenderableType:
    left = Text.assemble((f"{figures.connections:,}", f"bold {ACCENT}"), (" clients", "bold"))
    right = Text(f"{figures.address} · {figures.poller}", style="dim")
    table = Table.grid(expand=True)
    table.add_column()
    table.add_column(justify="right")
    table.add_row(left, right)
    return table


def _connecting(figures: Figures) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=max(figures.clients, 1), completed=figures.connections, complete_style=ACCENT)
    table.add_row(bar, f"{figures.connections / max(figures.clients, 1):4.0%}")
    return Group(Text("connecting real WebSocket clients", style="dim"), table)


def _score(figures: Figures) -> RenderableType:
    match = figures.match
    is_goal = time.monotonic() - match.goal_at < GOAL_SHOWN_S
    style = f"bold black on {GOAL}" if is_goal else "bold"
    score = Text.assemble(
        (f"{match.home}  ", "bold"), (f" {match.goals[0]} : {match.goals[1]} ", style), (f"  {match.away}", "bold")
    )
    under = Text("G O A L !   20 publications at once", style=f"bold {GOAL}")
    if not is_goal:
        home, draw, away = match.odds
        under = Text(f"{match.minute:.0f}′    1  {home:.2f}    X  {draw:.2f}    2  {away:.2f}", style="dim")
    return Group(Align.center(score), Align.center(under))


def _table(figures: Figures, completion: tuple[float | None, float | None]) -> RenderableType:
    tick = figures.tick
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_row("publications", f"{figures.publications:,}", "latency p50", _duration_us(tick.get("p50_us")))
    table.add_row("deliveries", f"{figures.deliveries:,}", "latency p99", _duration_us(tick.get("p99_us")))
    table.add_row("a second", f"{figures.per_second:,.0f}", "completion p50", _bound_s(completion[0]))
    table.add_row("CPU a delivery", _cpu(figures), "completion p99", _bound_s(completion[1]))
    return table


def _sparkline(rates: Iterable[float]) -> RenderableType:
    """Bars a few lines high, by the square root: a goal is twenty times a tick, and both are to be seen."""
    values = list(rates)
    highest = max(values, default=0.0) or 1.0
    heights = [round((value / highest) ** 0.5 * SPARK_LINES * 8) for value in values]
    lines = []
    for floor in range((SPARK_LINES - 1) * 8, -1, -8):
        text = Text()
        for height in heights:
            text.append(BLOCKS[max(0, min(8, height - floor))], style=GOAL if height > SPARK_LINES * 4 else ACCENT)
        lines.append(text)
    caption = f"deliveries a second, square root scale, highest {highest:,.0f}"
    return Group(*lines, Text(caption, style="dim"))


def _subtitle(figures: Figures) -> str:
    if figures.note:
        return f"[dim]{figures.note}[/]"
    if figures.phase == "connecting":
        return "[dim]Ctrl-C ends it[/]"
    return f"[dim]{max(0.0, figures.seconds - figures.elapsed):.0f} s to go · Ctrl-C ends it[/]"


def _grid() -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", style="bold")
    return table


def _cpu(figures: Figures) -> str:
    each = figures.cpu_us_per_delivery
    return "–" if each is None else f"{each:.2f} µs"


def _duration_us(value: float | None) -> str:
    return "–" if value is None else _duration_s(value / 1e6)


def _bound_s(value: float | None) -> str:
    return "–" if value is None else "over the scale" if value == float("inf") else f"≤ {_duration_s(value)}"


def _duration_s(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"
