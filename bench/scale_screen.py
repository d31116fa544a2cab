"""What scale.py shows while it runs, and the samples that it draws later: one screen on a terminal, lines elsewhere."""

import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from measure import PROC
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SAMPLE_S, ASK_S = 0.5, 1.0
BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH, RATE_LINES, FOUND_MAX = 98, 3, 4
ACCENT, GOOD, BAD, LOUD = "bright_cyan", "bright_green", "bright_red", "bright_yellow"
GIB = 1 << 30
PAGE = os.sysconf("SC_PAGE_SIZE")
WRONG = ("gaps", "repeats", "misrouted", "malformed")
SHOWN = {
    "direct_us": "direct: backend µs a publication",
    "connect_s": "all connected, s",
    "storm_s": "the storm, s",
    "user_kib": "user memory, KiB a client",
    "slab_kib": "kernel memory, KiB a client",
    "idle_percent": "idle, % of a core",
    "stock_percent": "stock pings, % of a core",
    "match_p50_ms": "one match: p50, ms",
    "match_p99_ms": "one match: p99, ms",
    "backend_us": "backend µs a publication",
    "connections": "connections at the backend",
    "worker_s": "a worker's clients back, s",
    "lane_lanes_s": "lanes held elsewhere, s",
    "backend_lanes_s": "lanes back, s",
}
"""Figures that the screen names; those of a number of clients besides."""


class Machine:
    """What the kernel counts of the whole machine."""

    def __init__(self) -> None:
        """Now."""
        fields = (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
        self.idle = int(fields[3]) + int(fields[4])
        self.all = sum(int(field) for field in fields[:8])
        lines = dict(line.split(":") for line in (PROC / "meminfo").read_text().splitlines())
        self.total, self.available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        files = (PROC / "sys/fs/file-nr").read_text().split()
        self.files, self.files_max = int(files[0]), int(files[2])
        tcp = (PROC / "net/sockstat").read_text().split("TCP:")[1].split()
        self.tcp = int(tcp[tcp.index("mem") + 1])


class Show:
    """The screen, and who looks at everything twice a second."""

    def __init__(self, clients: int, titles: dict[str, str], console: Console) -> None:
        """`titles` are the phases in their order."""
        self._clients, self._titles, self._console = clients, titles, console
        self._states: dict[str, str] = {}
        self._note, self._done, self._total = "", 0.0, 0.0
        self._found: list[tuple[str, float]] = []
        self._watched: tuple[Any, Any, Any] | None = None
        self._is_quiet = False
        self._connections = 0
        self._rates: list[float] = []
        self._began = time.monotonic()
        self._over = threading.Event()
        self._machine, self._busy = Machine(), 0.0
        self.samples: list[dict[str, float]] = []
        self.peaks = {"files": 0.0, "tcp_pages": 0.0, "memory_used_gib": 0.0}
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._live = Live(get_renderable=self._screen, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        """Begin to look, and to show."""
        self._thread.start()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End both; the last picture stays."""
        self._over.set()
        self._thread.join()
        if self._console.is_terminal:
            self._live.stop()
            self._console.print(self._screen())

    # What phases tell

    def watch(self, backend: Any, front: Any, fleet: Any) -> None:
        """What is on the stage now; None of each when it is empty."""
        self._watched = (backend, front, fleet) if fleet else None
        self._rates = []

    def begin(self, name: str) -> None:
        """A phase."""
        self._states[name] = "now"
        self._done = self._total = 0.0
        self.note(self._titles[name])

    def end(self, name: str, why: str = "") -> None:
        """It went well, or why not."""
        self._states[name] = "failed" if why else "done"
        mark = f"[{BAD}]✗[/]" if why else f"[{GOOD}]✓[/]"
        self.say(f"{mark} {self._titles[name]:<20} {time.monotonic() - self._began:6.0f} s  {why}")

    def say(self, text: str) -> None:
        """A line above the screen."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """What happens now."""
        self._note = text
        self._done = self._total = 0.0
        if not self._console.is_terminal:
            self.say(f"  {time.monotonic() - self._began:6.0f} s  {text}")

    def progress(self, done: float, total: float) -> None:
        """How far that is."""
        self._done, self._total = done, total

    def steady(self, seconds: float) -> None:
        """Wait so long, and show it."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            self.progress(passed, seconds)
            time.sleep(min(0.25, seconds - passed))

    def found(self, figures: dict[str, float]) -> None:
        """Figures, some of which are shown."""
        for name, value in figures.items():
            known = name[:3] == "us_" or name[:8] in ("bare_us_", "goal_s_") or name in SHOWN
            if known:
                self._found.append((_named(name), value))
            if not self._console.is_terminal:
                self.say(f"           {name} = {value:.4g}")

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Ask the backend nothing meanwhile: what it does is measured."""
        self._is_quiet = True
        try:
            yield
        finally:
            self._is_quiet = False

    # What is looked at

    def _sample(self) -> None:
        received = 0.0
        while not self._over.wait(SAMPLE_S):
            before, self._machine = self._machine, Machine()
            machine = self._machine
            passed = max(1, machine.all - before.all)
            self._busy = 1 - (machine.idle - before.idle) / passed
            used = (machine.total - machine.available) / GIB
            for name, value in (("files", machine.files), ("tcp_pages", machine.tcp), ("memory_used_gib", used)):
                self.peaks[name] = max(self.peaks[name], value)
            watched = self._watched
            if watched is None:
                received = 0.0
                continue
            backend, _, fleet = watched
            with suppress(Exception):  # the backend may be dead, on purpose
                if not self._is_quiet and len(self.samples) % 2 == 0:
                    with urllib.request.urlopen(f"http://127.0.0.1:{backend.port}/stats", timeout=ASK_S) as answer:
                        self._connections = json.load(answer)["connected"]
            now = fleet.total("received")
            self._rates.append(max(0.0, now - received) / SAMPLE_S)
            received = now
            self.samples.append(
                {
                    "s": round(time.monotonic() - self._began, 2),
                    "open": fleet.total("open"),
                    "connections": self._connections,
                    "received": now,
                    "crowd": fleet.clients,
                }
            )

    # What is seen

    def _screen(self) -> RenderableType:
        parts: list[RenderableType] = [self._phases(), Text(), self._path(), Text(), self._bars(), Text()]
        parts += [*self._picture(), Text(), self._gauges(), Text(), self._figures(), Text()]
        parts.append(Text(self._note, style=f"bold {LOUD}", no_wrap=True, overflow="ellipsis"))
        title = f"[bold {ACCENT}]fanwire[/] {self._clients:,} clients on one machine"
        width = min(WIDTH, self._console.width)
        return Panel(Group(*parts), title=title, border_style=ACCENT, width=width, padding=(0, 2))

    def _phases(self) -> RenderableType:
        text = Text()
        marks = {"done": ("✓", GOOD), "failed": ("✗", BAD), "now": ("●", f"bold {ACCENT}")}
        for name, title in self._titles.items():
            mark, style = marks.get(self._states.get(name, ""), ("·", "dim"))
            text.append(f"{mark} {title}".replace(" ", "\xa0"), style=style)
            text.append("  ")
        row = Table.grid(expand=True)
        row.add_column(ratio=1)
        row.add_column(justify="right")
        passed = int(time.monotonic() - self._began)
        row.add_row(text, Text(f"{passed // 60}:{passed % 60:02}", style="dim"))
        return row

    def _path(self) -> RenderableType:
        watched = self._watched
        if watched is None:
            return Text("no relay on the stage", style="dim")
        _, front, fleet = watched
        text = Text.assemble((f"{fleet.total('open'):>9,} clients ", f"bold {ACCENT}"), no_wrap=True, overflow="crop")
        text.append("═" * 14 + "▶ ", style=ACCENT)
        text.append(f"{front.count} worker{'s' * (front.count != 1)} ", style="bold")
        text.append("─" * 6, style=ACCENT)
        text.append(f" {self._connections:,} connections ", style=f"bold {ACCENT}")
        text.append("─" * 6 + "▶ ", style=ACCENT)
        return text.append("backend", style="bold")

    def _bars(self) -> RenderableType:
        fleet = self._watched[2] if self._watched else None
        is_open = fleet.total("open") if fleet else 0
        row = Table.grid(expand=True)
        row.add_column(style="dim", width=14)
        row.add_column(ratio=1)
        row.add_column(justify="right", width=14)
        row.add_row("clients", _bar(is_open, self._clients), f"{is_open / self._clients:.1%}")
        share = self._done / self._total if self._total else 0.0
        row.add_row("this phase", _bar(share, 1.0), f"{share:.0%}" if self._total else "")
        return row

    def _picture(self) -> list[RenderableType]:
        inner = min(WIDTH, self._console.width) - 6
        values = self._rates[-inner:]
        highest = max(values, default=0.0) or 1.0
        lines: list[RenderableType] = []
        for floor in range((RATE_LINES - 1) * 8, -1, -8):
            heights = (round(value / highest * RATE_LINES * 8) - floor for value in values)
            picture = "".join(BLOCKS[max(0, min(8, height))] for height in heights)
            lines.append(Text(picture or " ", style=ACCENT, no_wrap=True, overflow="crop"))
        shown = highest if highest > 1 else 0
        lines.append(Text(f"messages a second to the clients, highest {shown:,.0f}", style="dim"))
        return lines

    def _gauges(self) -> RenderableType:
        machine, fleet = self._machine, self._watched[2] if self._watched else None
        wrong = sum(load.tick.get("faults", {}).get(name, 0) for load in fleet.loads for name in WRONG) if fleet else 0
        row = Table.grid(expand=True)
        cells: list[Text] = []
        used = (machine.total - machine.available) / GIB
        for name, value, style in (
            ("messages", f"{fleet.total('received') if fleet else 0:,}", "bold"),
            ("wrong", f"{wrong:,}", f"bold {BAD if wrong else GOOD}"),
            ("cores", f"{self._busy * (os.cpu_count() or 1):.2f}", "bold"),
            ("memory", f"{used:.1f} of {machine.total / GIB:.1f} GiB", "bold"),
            ("open files", f"{machine.files / 1e6:.2f} of {machine.files_max / 1e6:.2f} M", "bold"),
        ):
            row.add_column(no_wrap=True)
            cells.append(Text.assemble((f"{name} ", "dim"), (value, style)))
        row.add_row(*cells)
        return row

    def _figures(self) -> RenderableType:
        row = Table.grid(expand=True)
        row.add_column(style="dim", ratio=1)
        row.add_column(justify="right", style=f"bold {GOOD}", width=12)
        shown = self._found[-FOUND_MAX:]
        for name, value in shown + [("", 0.0)] * (FOUND_MAX - len(shown)):
            row.add_row(name, f"{value:,.4g}" if name else "")
        return row


def _bar(done: float, total: float) -> ProgressBar:
    return ProgressBar(total=total, completed=min(done, total), complete_style=ACCENT, finished_style=GOOD)


def _named(name: str) -> str:
    for begin, text in (
        ("bare_us_", "bare loop, {}: CPU µs a message"),
        ("us_", "goal to {}: CPU µs a message"),
        ("goal_s_", "goal to {}: all have it, s"),
    ):
        if name.startswith(begin):
            return text.format(f"{int(name.removeprefix(begin)):,}")
    return SHOWN[name]
