"""Records that a log has let go of and that are still the newest of their keys: policy `latest` only."""

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

REPLACED_MIN, REPLACED_BYTES_MIN = 16, 4 << 10
"""The replaced are removed once they are more than so many, or bytes, and half of the rest."""


class Placed(Protocol):
    """A record, as it is known here."""

    frame: bytes
    offset: int
    place: int

    @property
    def is_removal(self) -> bool:
        """Whether its key has ended."""


T = TypeVar("T", bound=Placed)


class Compacted(Generic[T]):
    """By offset, the oldest first. They keep their places: a cursor before the log's head goes on with what is here."""

    def __init__(self, is_newest: Callable[[T], bool]) -> None:
        self._is_newest = is_newest
        self._values: dict[int, T] = {}
        self._replaced: set[int] = set()
        self.forgotten = 0
        """Of removals up to this offset nobody is told any more: everyone who lags has passed them."""

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._values.values()))

    @property
    def first(self) -> T | None:
        """The oldest, which may be replaced by now."""
        return next(iter(self._values.values()), None)

    @property
    def count(self) -> int:
        """Of those that are not replaced."""
        return len(self._values) - len(self._replaced)

    @property
    def size(self) -> int:
        """Bytes of those that are not replaced."""
        return sum(len(one.frame) for offset, one in self._values.items() if offset not in self._replaced)

    def push(self, record: T) -> None:
        """Take one that leaves the log."""
        self._values[record.offset] = record

    def pop(self) -> None:
        """Let go of the oldest."""
        offset = next(iter(self._values))
        del self._values[offset]
        self._replaced.discard(offset)

    def at(self, place: int) -> T | None:
        """The one that stood at a place."""
        return next((one for one in self._values.values() if one.place == place), None)

    def is_current(self, record: T) -> bool:
        """Whether it is the newest of its key, and no removal that was forgotten."""
        return not self._is_forgotten(record) and self._is_newest(record)

    def _is_forgotten(self, record: T) -> bool:
        return record.is_removal and record.offset <= self.forgotten

    def note_replaced(self, offset: int) -> None:
        """The publication of this number was replaced, which may be one of these."""
        record = self._values.get(offset)
        if record is not None and not self._is_forgotten(record):
            self._end(offset)

    def forget_removals(self, needed: int) -> None:
        """Removals before this place are for nobody any more."""
        for record in self:
            if record.is_removal and record.place < needed and not self._is_forgotten(record):
                self.forget_removal(record.offset)

    def forget_removal(self, offset: int) -> None:
        """Of this removal nobody will be told who comes back from before it."""
        record = self._values.get(offset)
        was_current = record is not None and self.is_current(record)
        self.forgotten = max(self.forgotten, offset)
        if was_current:
            self._end(offset)

    def _end(self, offset: int) -> None:
        self._replaced.add(offset)
        size = sum(len(self._values[one].frame) for one in self._replaced)
        if size > REPLACED_BYTES_MIN + self.size // 2 or len(self._replaced) > REPLACED_MIN + self.count // 2:
            self._values = {offset: one for offset, one in self._values.items() if self.is_current(one)}
            self._replaced.clear()
