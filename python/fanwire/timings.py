"""How long something took that Python times: what is too rare to be a matter of the engine's own histograms."""

from bisect import bisect_left
from itertools import accumulate
from math import inf
from time import time
from typing import Any, NamedTuple, Protocol

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds of all buckets but the last, which has none."""


class Example(NamedTuple):
    """One that was timed and has a trace: an exemplar, as OpenMetrics calls it."""

    trace: str
    """32 digits, hexadecimal."""
    span: str
    """16 digits."""
    seconds: float
    at: float
    """When, in seconds of the wall clock."""


class LaneTracing(Protocol):
    """Who wants to know how long lanes take to be live; see ``fanwire.otel``."""

    def lane_begins(self, name: str, method: str) -> Any:
        """A connection to the backend is begun for it; what this gives goes to ``lane_ends``, once."""

    def lane_ends(self, span: Any, why: str = "") -> tuple[str, str] | None:
        """It is live, or, for a reason, could not be had. Gives trace and span, where they are recorded."""


class Timings:
    """A histogram. Lives in the event loop's thread.

    About 200 bytes, and 200 more for each bucket that has an example.
    """

    __slots__ = ("_counts", "examples", "seconds")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.seconds = 0.0
        """Sum of all."""
        self.examples: dict[int, Example] = {}
        """The newest with a trace, by the bucket's index."""

    def add(self, seconds: float, trace: tuple[str, str] | None = None) -> None:
        """Count one; `trace` is that of the span, and the span."""
        seconds = max(seconds, 0.0)
        index = bisect_left(BOUNDS_S, seconds)
        self._counts[index] += 1
        self.seconds += seconds
        if trace is not None:
            self.examples[index] = Example(*trace, seconds, time())

    @property
    def buckets(self) -> list[tuple[float, int]]:
        """Upper bounds in seconds, and how many took at most so long; the last bound is inf."""
        return list(zip((*BOUNDS_S, inf), accumulate(self._counts), strict=True))
