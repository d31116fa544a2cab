"""What a hub did between two readings of its counters: rates, quantiles, processor time. No clock, no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")

Buckets: TypeAlias = Sequence[Sequence[float | None]]
COUNTERS = (
    "connections_total",
    "publications",
    "deliveries",
    "writes",
    "bytes_out",
    "bytes_in",
    "overtaken",
    "expired",
    "handshakes_refused",
    "tokens_refused",
)
"""Those of ``/api/stats`` whose rates are shown."""


BETWEEN_MIN_S = 0.5
"""Rates are of so long a time at least: a key that is pressed asks between two readings."""


class Baseline(Generic[T]):
    """An earlier reading, which the newest is compared with."""

    def __init__(self) -> None:
        self._older: tuple[float, T] | None = None
        self._newer: tuple[float, T] | None = None

    def before(self, at: float, reading: T) -> tuple[float, T] | None:
        """What `reading` is to be compared with, and when that was; None of the first one."""
        if self._newer is None or at < self._newer[0]:
            self._older, self._newer = None, (at, reading)
        elif at - self._newer[0] >= BETWEEN_MIN_S:
            self._older, self._newer = self._newer, (at, reading)
        return self._older


@dataclass(frozen=True, slots=True)
class Totals:
    """How all workers stand together."""

    at: float
    """By the hub's clock, in seconds since 1970."""
    version: str
    workers: int
    silent: Sequence[int]
    connections: int
    subscriptions: int
    channels: int
    lagging: int
    memory: int | None
    faults: int
    """Errors of the program's callbacks since the start."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Of COUNTERS and ``closes``, a second; none where they are not known."""
    cpu: float | None = None
    """Processors in use."""
    p50: float | None = None
    p99: float | None = None
    """Seconds until the last subscriber that keeps up was written to, of what was published in between."""


def totals(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> Totals:
    """What two answers of ``/api/stats`` say. Rates are left out where there is one only, or other workers answered."""
    told = Totals(
        at=now["at"],
        version=now["version"],
        workers=len(now["workers"]),
        silent=now["silent"],
        connections=now["connections"],
        subscriptions=now["subscriptions"],
        channels=now["channels"],
        lagging=now["lagging"],
        memory=now["memory"],
        faults=sum(now["faults"].values()),
    )
    if before is None or not is_after(now, before):
        return told
    took = now["at"] - before["at"]
    rates = {name: (now[name] - before[name]) / took for name in COUNTERS}
    rates["closes"] = max(0, sum(now["closes"].values()) - sum(before["closes"].values())) / took
    between = bucket_differences(now["completion"]["buckets"], before["completion"]["buckets"])
    return Totals(
        **{name: getattr(told, name) for name in Totals.__slots__ if name not in ("rates", "cpu", "p50", "p99")},
        rates=rates,
        cpu=(now["cpu"] - before["cpu"]) / took,
        p50=quantile(between, 0.5),
        p99=quantile(between, 0.99),
    )


def is_after(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether two readings are of the same workers' same lives, so that their difference means something."""
    return (
        now["at"] > before["at"]
        and now["workers"] == before["workers"]
        and now["cpu"] >= before["cpu"]
        and all(now[name] >= before[name] for name in COUNTERS)
    )


def per_second(
    now: Mapping[str, Any], before: Mapping[str, Any], names: Sequence[str], took: float
) -> dict[str, float]:
    """Rates of one row's counters; those are left out that are not known, or that have begun anew."""
    rates = {}
    for name in names:
        value, earlier = now.get(name), before.get(name)
        if took > 0 and value is not None and earlier is not None and value >= earlier:
            rates[name] = (value - earlier) / took
    return rates


def bucket_differences(now: Buckets, before: Buckets) -> list[tuple[float | None, float]]:
    """Cumulative buckets of what came between; of the later reading's bounds where the two differ."""
    earlier = {bound: counted or 0 for bound, counted in before}
    return [(bound, (counted or 0) - earlier.get(bound, 0)) for bound, counted in now]


def quantile(buckets: Sequence[tuple[float | None, float]], share: float) -> float | None:
    """Such a share took no longer, in seconds, as Prometheus reckons: within a bucket all are spread evenly.

    Of what is above the last bound it is that bound. None of nothing.
    """
    total = buckets[-1][1] if buckets else 0
    if total <= 0:
        return None
    wanted, low, below = share * total, 0.0, 0.0
    for bound, reached in buckets:
        if bound is None:
            break
        if reached >= wanted:
            return low + (bound - low) * (wanted - below) / (reached - below)
        low, below = bound, reached
    return low
