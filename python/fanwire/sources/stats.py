"""What a source has done, for those who measure it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class SourceStats:
    """What a source has done since it was made."""

    read: int
    """Entries, those that are none included."""
    published: int
    skipped: int
    """Entries that are no publication."""
    failures: int
    """Attempts that ended by an error: the connection was lost, the backbone away."""
    place: str | None
    """Behind the last one that was published; None before the first."""
    is_reading: bool
    """Whether it is connected to what it reads."""
    lag: float
    """Seconds since the oldest entry was written that has been read and is not published, or that waits behind a full
    batch; 0 where nothing is known to wait. The two machines' clocks are compared."""


class MeasuredSource(Protocol):
    """A source that is run beside a server."""

    @property
    def name(self) -> str:
        """Of its place."""

    @property
    def is_here(self) -> bool:
        """Whether it is this worker's to read it."""

    def stats(self) -> SourceStats:
        """What it has done, in this process."""

    def number_of(self, place: str) -> float:
        """A place as a number that grows."""

    async def run(self, hub: Any, is_eldest: Callable[[], bool]) -> None:
        """Read it for as long as `is_eldest` says so, until cancelled."""
