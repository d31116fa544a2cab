"""What the demo measures, from what its processes say, and how a person reads it. Not here: processes, the screen."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SAMPLES_MAX = 400
"""Samples that are kept for the picture of the rate."""
RATE_OVER_S = 2.0
"""Rates are those of the last seconds."""
AGES_OVER_S = 2.0


@dataclass(frozen=True, slots=True)
class Counters:
    """How much there has been, at one moment."""

    at: float = 0.0
    backend_messages: int = 0
    backend_bytes: int = 0
    backend_cpu_s: float = 0.0
    relay_cpu_s: float = 0.0
    received: int = 0
    received_bytes: int = 0

    def minus(self, other: "Counters") -> "Counters":
        """What there has been since."""
        names = [name for name in self.__slots__ if name != "at"]
        return Counters(self.at - other.at, **{name: getattr(self, name) - getattr(other, name) for name in names})

    @property
    def saved(self) -> float | None:
        """The share of the clients' bytes that the backend did not send; None before the first."""
        return 1 - self.backend_bytes / self.received_bytes if self.received_bytes else None


@dataclass(slots=True)
class Course:
    """The same work, with the relay or without: what it took."""

    has_relay: bool
    begin: Counters = Counters()
    """At its first login."""
    clients: int = 0
    login_s: float = 0.0
    login: Counters = Counters()
    """What the logins took."""
    connections: int = 0
    """At the backend, once all clients were there."""
    published: int = 0
    expected: int = 0
    received: int = 0
    work: Counters = Counters()
    """What odds and goals took."""
    ages_us: Counter[int] = field(default_factory=Counter)

    @property
    def p50_s(self) -> float | None:
        """Half of the messages were younger when they came."""
        return quantile_s(self.ages_us, 0.5)

    @property
    def p99_s(self) -> float | None:
        """All but a hundredth of the messages were younger when they came."""
        return quantile_s(self.ages_us, 0.99)


@dataclass(slots=True)
class Outage:
    """The backend's death and what came of it, in seconds since it was killed."""

    killed_at: float
    lanes: int
    started_s: float | None = None
    lanes_back_s: float | None = None
    heard_s: float | None = None
    clients: int = 0
    stayed: int = 0


class Figures:
    """What is known now; processes' lines come in by ``take_…``."""

    def __init__(self) -> None:
        self.backend: Mapping[str, Any] = {}
        """The last that the backend said; empty while there is none."""
        self.ticks: dict[int, Mapping[str, Any]] = {}
        """The last that each load process said."""
        self.relay_cpu_s = 0.0
        self.ages_us: Counter[int] = Counter()
        """Of messages since a course began."""
        self.samples: deque[Counters] = deque([Counters(time.monotonic())], maxlen=SAMPLES_MAX)
        self._ages: deque[tuple[float, list[list[int]]]] = deque()
        self._ended = Counters()

    def take_backend(self, said: Mapping[str, Any]) -> None:
        """The backend says how things are."""
        self.backend = said

    def end_backend(self) -> None:
        """The backend is gone: what it did stays counted."""
        self._ended = replace(
            self._ended,
            backend_messages=self._ended.backend_messages + self.backend.get("messages", 0),
            backend_bytes=self._ended.backend_bytes + self.backend.get("bytes", 0),
            backend_cpu_s=self._ended.backend_cpu_s + self.backend.get("cpu_s", 0.0),
        )
        self.backend = {}

    def take_tick(self, process: int, tick: Mapping[str, Any]) -> None:
        """A load process says how its clients are."""
        self.ticks[process] = tick
        for age_us, count in tick["ages_us"]:
            self.ages_us[age_us] += count
        self._ages.append((time.monotonic(), tick["ages_us"]))

    def end_clients(self) -> None:
        """All clients are gone: what they received stays counted."""
        self._ended = replace(
            self._ended,
            received=self._ended.received + self._sum("received"),
            received_bytes=self._ended.received_bytes + self._sum("bytes"),
        )
        self.ticks.clear()

    def now(self) -> Counters:
        """All counters."""
        ended, backend = self._ended, self.backend
        return Counters(
            time.monotonic(),
            ended.backend_messages + backend.get("messages", 0),
            ended.backend_bytes + backend.get("bytes", 0),
            ended.backend_cpu_s + backend.get("cpu_s", 0.0),
            self.relay_cpu_s,
            ended.received + self._sum("received"),
            ended.received_bytes + self._sum("bytes"),
        )

    def sample(self) -> None:
        """Remember the counters as they are, for rates."""
        self.samples.append(self.now())
        while self._ages and self._ages[0][0] < time.monotonic() - AGES_OVER_S:
            self._ages.popleft()

    def lately(self) -> Counters:
        """What there has been in the last seconds."""
        newest = self.samples[-1]
        oldest = next(sample for sample in self.samples if sample.at >= newest.at - RATE_OVER_S)
        lately = newest.minus(oldest)
        return replace(lately, at=max(lately.at, RATE_OVER_S / 4))

    def age_s(self, share: float) -> float | None:
        """The quantile of the ages of the last messages."""
        lately: Counter[int] = Counter()
        for _, ages in self._ages:
            for age_us, count in ages:
                lately[age_us] += count
        return quantile_s(lately, share)

    @property
    def clients(self) -> int:
        """Clients that are connected."""
        return self._sum("open")

    @property
    def connections(self) -> int:
        """Connections at the backend."""
        return int(self.backend.get("connections", 0))

    @property
    def failures(self) -> Counter[str]:
        """Why clients could not connect or were lost, and how many."""
        failures: Counter[str] = Counter()
        for tick in self.ticks.values():
            failures.update(tick["failures"])
        return failures

    def _sum(self, name: str) -> int:
        return sum(tick[name] for tick in self.ticks.values())


def quantile_s(ages_us: Counter[int], share: float) -> float | None:
    """The least age that the share of all does not exceed, in seconds; None of nothing."""
    left = share * ages_us.total()
    for age_us in sorted(ages_us):
        left -= ages_us[age_us]
        if left <= 0:
            return age_us / 1e6
    return None


def expected_of(odds: list[int], announcements: int, crowds: list[int]) -> int:
    """How many messages clients get of what was published, in crowds whose clients take turns with the matches."""
    matches = len(odds)
    watchers = [sum(clients // matches + (match < clients % matches) for clients in crowds) for match in range(matches)]
    return sum(count * watching for count, watching in zip(odds, watchers, strict=True)) + announcements * sum(crowds)


NONE = "–"


def number(value: float) -> str:
    """A count."""
    return f"{value:,.0f}"


def size(count: float) -> str:
    """Bytes."""
    for unit in ("B", "kB", "MB"):
        if count < 999.95:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def rate(count: float, seconds: float) -> str:
    """Bytes a second."""
    return f"{size(count / seconds if seconds else 0)}/s"


def ratio(larger: float, smaller: float) -> str:
    """How many times as much."""
    return f"{larger / smaller:,.0f} : 1" if smaller and larger else NONE


def percent(share: float | None) -> str:
    """A share."""
    return NONE if share is None else f"{100 * max(0.0, share):.1f} %"


def saved(value: float, beside: float) -> str:
    """How much less it is, or how much more."""
    if not beside:
        return NONE
    share = 1 - value / beside
    return f"{percent(abs(share))} {'less' if share >= 0 else 'more'}"


def duration(seconds: float | None) -> str:
    """A time."""
    if seconds is None:
        return NONE
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return (
        f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    )
