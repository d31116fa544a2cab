"""The demo's last word: the same work with the relay and without it, counted. Not here: measuring."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fanwire.demo.acts import Show
from fanwire.demo.figures import NONE, Course, Outage, duration, number, ratio, saved, size
from fanwire.demo.screen import ACCENT, GOOD, PADDING, PLAIN, WIDTH


def summary(show: Show) -> RenderableType:
    """What happened, in figures that were counted, not estimated."""
    parts: list[RenderableType] = [_comparison(show.relayed, show.direct)]
    if show.outage is not None:
        parts += [Text(), _story(show.outage)]
    parts += [Text(), Text(_small_print(), style="dim")]
    return Panel(
        Group(*parts),
        title="[bold]the same work, with the relay and without[/]",
        border_style=ACCENT,
        width=WIDTH,
        padding=(1, PADDING),
    )


def _comparison(relayed: Course, direct: Course) -> RenderableType:
    table = Table.grid(expand=True)
    table.add_column(style="dim", width=34)
    for width in (18, 18, 16):
        table.add_column(justify="right", style="bold", width=width, no_wrap=True)
    table.add_row(
        "",
        Text("with the relay", style=f"bold {ACCENT}"),
        Text("without", style=f"bold {PLAIN}"),
        Text("", style="dim"),
    )
    for name, cells in _rows(relayed, direct):
        table.add_row(name, cells[0], cells[1], Text(cells[2], style=f"bold {GOOD}"))
    return table


def _rows(one: Course, other: Course) -> list[tuple[str, tuple[str, str, str]]]:
    def counted(value: int, beside: int) -> tuple[str, str, str]:
        return number(value) if value else NONE, number(beside) if beside else NONE, ratio(beside, value)

    def sized(value: int, beside: int) -> tuple[str, str, str]:
        return size(value), size(beside), saved(value, beside)

    def timed(value: float, beside: float) -> tuple[str, str, str]:
        return duration(value), duration(beside), saved(value, beside)

    return [
        ("clients", (number(one.clients), number(other.clients), "")),
        ("connections at the backend", counted(one.connections, other.connections)),
        ("logins: all are in after", (duration(one.login_s), duration(other.login_s), "")),
        ("logins: bytes from the backend", sized(one.login.backend_bytes, other.login.backend_bytes)),
        ("logins: CPU of the backend", timed(one.login.backend_cpu_s, other.login.backend_cpu_s)),
        ("", ("", "", "")),
        ("odds and goals published", (number(one.published), number(other.published), "")),
        ("messages out of the backend", counted(one.work.backend_messages, other.work.backend_messages)),
        ("bytes out of the backend", sized(one.work.backend_bytes, other.work.backend_bytes)),
        ("CPU of the backend", timed(one.work.backend_cpu_s, other.work.backend_cpu_s)),
        ("CPU of the relay", (duration(one.work.relay_cpu_s), NONE, "")),
        ("", ("", "", "")),
        ("messages that clients are due", (number(one.expected), number(other.expected), "")),
        ("messages that arrived", (number(one.received), number(other.received), _missing(one, other))),
        ("latency p50", (duration(one.p50_s), duration(other.p50_s), "")),
        ("latency p99", (duration(one.p99_s), duration(other.p99_s), "")),
    ]


def _missing(one: Course, other: Course) -> str:
    missing = abs(one.expected - one.received) + abs(other.expected - other.received)
    return f"{missing:,} astray" if missing else "each of them"


def _story(outage: Outage) -> RenderableType:
    return Text.assemble(
        "The backend was killed with -9 and started again after ",
        (duration(outage.started_s), "bold"),
        ". ",
        (
            f"{outage.stayed:,} of {outage.clients:,}",
            f"bold {GOOD if outage.stayed == outage.clients else 'bright_red'}",
        ),
        " clients stayed connected, all ",
        (f"{outage.lanes:,}", "bold"),
        " connections were back after ",
        (duration(outage.lanes_back_s), "bold"),
        ", and clients heard odds again after ",
        (duration(outage.heard_s), "bold"),
        ".",
    )


def _small_print() -> str:
    return (
        "All of it shared this machine. Bytes are those of sockets, with heads of frames and answers to logins. On "
        "loopback the receiver's half of TCP runs, and is counted, inside the sender's call."
    )
