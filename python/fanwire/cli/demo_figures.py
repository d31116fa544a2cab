"""What the demo measures, and how: the hub's counters, its threads' CPU, and what the load client reports."""

import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fanwire._engine import Stats

SAMPLES_MAX = 56
"""Samples of the sparkline."""


@dataclass
class Match:
    """The football match whose odds the demo pretends to publish."""

    home: str = "Harbour United"
    away: str = "Northgate Rovers"
    goals: list[int] = field(default_factory=lambda: [0, 0])
    odds: list[float] = field(default_factory=lambda: [2.10, 3.40, 3.25])
    minute: float = 0.0
    goal_at: float = -1e9
    """When the last goal fell, by ``time.monotonic``."""


@dataclass
class Figures:
    """The demo's state, from which the screen is drawn. Counters are since all clients were connected."""

    clients: int
    seconds: float
    address: str = ""
    poller: str = ""
    phase: str = "connecting"
    note: str = ""
    connections: int = 0
    publications: int = 0
    deliveries: int = 0
    writes: int = 0
    elapsed: float = 0.0
    per_second: float = 0.0
    rates: deque[float] = field(default_factory=lambda: deque([0.0] * SAMPLES_MAX, maxlen=SAMPLES_MAX))
    engine_cpu_s: float = 0.0
    tick: dict[str, Any] = field(default_factory=dict)
    """The load client's last line while messages arrive: received, per_second, p50_us, p99_us."""
    complete: dict[str, Any] = field(default_factory=dict)
    """Its last word: received, expected, gaps, reordered, latency_us, completion_us."""
    connected: dict[str, Any] = field(default_factory=dict)
    match: Match = field(default_factory=Match)

    def __post_init__(self) -> None:
        self._before: Stats | None = None
        self._cpu_before = 0.0
        self._started = 0.0
        self._sampled = (0.0, 0)

    def start(self, stats: Stats) -> None:
        """All clients are there: count from here."""
        self.phase = "playing"
        self._before = stats
        self._cpu_before = engine_cpu_s()
        self._started = time.monotonic()
        self._sampled = (self._started, 0)

    def sample(self, stats: Stats) -> None:
        """Take in the hub's counters, several times a second."""
        self.connections = stats.connections
        before = self._before
        if before is None or self.phase != "playing":
            return
        now = time.monotonic()
        self.elapsed = now - self._started
        self.publications = stats.publications - before.publications
        self.deliveries = stats.deliveries - before.deliveries
        self.writes = stats.writes - before.writes
        self.engine_cpu_s = engine_cpu_s() - self._cpu_before
        then, deliveries = self._sampled
        if now > then:
            self.rates.append((self.deliveries - deliveries) / (now - then))
        self._sampled = (now, self.deliveries)
        self.per_second = self.deliveries / self.elapsed if self.elapsed else 0.0

    @property
    def cpu_us_per_delivery(self) -> float | None:
        """CPU of the engine's threads for each delivery; None before the first."""
        return self.engine_cpu_s * 1e6 / self.deliveries if self.deliveries else None

    def completion_s(self, share: float, stats: Stats) -> float | None:
        """An upper bound of the `share` quantile of fan-out completions so far; None where there were none."""
        before = dict(self._before.completion_buckets) if self._before else {}
        counts = [(bound, count - before.get(bound, 0)) for bound, count in stats.completion_buckets]
        total = counts[-1][1] if counts else 0
        if total <= 0:
            return None
        return next(bound for bound, count in counts if count >= share * total)


def engine_cpu_s() -> float:
    """CPU seconds of this process's threads but the main one, which draws the screen (proc(5), ``schedstat``)."""
    total_ns = 0
    main = threading.main_thread().native_id
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        if task.name == str(main):
            continue
        try:
            total_ns += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the two looks
    return total_ns / 1e9
