"""``hub.stats()`` of all workers as one."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fanwire._engine import Stats

COUNTED = (
    "closes",
    "refused",
    "skipped",
    "compression_readers",
    "compression_sent_bytes",
    "compression_plain_bytes",
    "compression_joins",
    "compression_fallbacks",
)


@dataclass(frozen=True, slots=True)
class StatsOfAll:
    """The sums of what ``hub.stats()`` gives in each worker that is there, on all machines; of none that has ended."""

    workers: tuple[int, ...]
    """By their numbers, those that have answered, this one among them. Without workers it is number 0. Above 255 it is
    of another machine: 256 times what is the machine's number here, and the worker's there."""
    silent: tuple[int, ...]
    """Those that are there and have not answered within a second; they are not in the sums."""
    connections: int
    connections_total: int
    subscriptions: int
    channels: int
    """A channel that is in several workers counts in each."""
    publications: int
    """One counts in each worker that has its channel."""
    deliveries: int
    writes: int
    bytes_out: int
    bytes_in: int
    lagging: int
    overtaken: int
    expired: int
    accept_pauses: int
    handshakes_refused: int
    tokens_refused: int
    passed_on: int
    completion_seconds: float
    closes: dict[int, int]
    """Closed connections by close code."""
    refused: dict[int, int]
    """Requests answered with an error, by status."""
    skipped: dict[str, int]
    """By the channel's policy."""
    compression_seconds: float
    compression_rests: int
    compression_readers: dict[str, int]
    compression_sent_bytes: dict[str, int]
    compression_plain_bytes: dict[str, int]
    compression_joins: dict[str, int]
    compression_fallbacks: dict[str, int]


SUMMED = tuple(one.name for one in fields(StatsOfAll) if one.name not in ("workers", "silent", *COUNTED))


def numbers_of(stats: Stats) -> dict[str, Any]:
    """What is told to another worker."""
    counted = {name: list(getattr(stats, name).items()) for name in COUNTED}
    return {name: getattr(stats, name) for name in SUMMED} | counted


def stats_of_all(answers: Mapping[int, Mapping[str, Any]], silent: tuple[int, ...]) -> StatsOfAll:
    """What these workers' answers are together."""
    sums: dict[str, Any] = {name: sum(one.get(name, 0) for one in answers.values()) for name in SUMMED}
    for name in COUNTED:
        counts: Counter[Any] = Counter()
        for one in answers.values():
            counts.update(dict(one.get(name, ())))
        sums[name] = dict(counts)
    return StatsOfAll(workers=tuple(sorted(answers)), silent=silent, **sums)
