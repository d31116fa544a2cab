"""A publication's place, and what publishing gives: that place, which can be awaited."""

from collections.abc import Generator, Iterator
from functools import total_ordering
from typing import Any, Self, cast


def _whole(value: object) -> int:
    """A whole number of 64 bits. Python takes True for 1, but nobody means that."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"epoch and offset must be whole numbers, not {value!r}")
    if not 0 <= value < 1 << 64:
        raise OverflowError(f"epoch and offset must be whole numbers, 0 to 2**64 - 1, not {value}")
    return value


@total_ordering
class Position:
    """A publication's place in its channel: (epoch, offset). Ordered, hashable, unpacks like a tuple."""

    __module__ = "fanwire"
    __slots__ = ("_epoch", "_offset")
    _epoch: int
    _offset: int

    def __new__(cls, epoch: int, offset: int) -> Self:
        """Raises TypeError and OverflowError for what is no whole number of 64 bits."""
        self = super().__new__(cls)
        object.__setattr__(self, "_epoch", _whole(epoch))
        object.__setattr__(self, "_offset", _whole(offset))
        return self

    @property
    def epoch(self) -> int:
        """Which life of the channel's log, > 0."""
        return self._epoch

    @property
    def offset(self) -> int:
        """The publication's number in that life, from 1."""
        return self._offset

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of a Position cannot be set")

    def __iter__(self) -> Iterator[int]:
        return iter((self._epoch, self._offset))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Position):
            return NotImplemented
        return (self._epoch, self._offset) == (other._epoch, other._offset)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Position):
            return NotImplemented
        return (self._epoch, self._offset) < (other._epoch, other._offset)

    def __hash__(self) -> int:
        return hash((self._epoch, self._offset))

    def __repr__(self) -> str:
        return f"Position(epoch={self._epoch}, offset={self._offset})"

    def __reduce__(self) -> tuple[type["Position"], tuple[int, int]]:
        return Position, (self._epoch, self._offset)


class Publication(Position):
    """What ``publish`` gives: the position of what was published, wherever one is taken; awaited it gives that, too.

    ``Publication()`` is what went to one client alone, which stands in no log. Pickled it is a ``Position``.
    """

    __module__ = "fanwire"
    __slots__ = ()

    def __new__(cls, _epoch: int = 0, _offset: int = 0) -> Self:
        """The engine alone gives a place."""
        return super().__new__(cls, _epoch, _offset)

    @property
    def position(self) -> Position:
        """The place in the log. Raises LookupError where there is none."""
        if not self._epoch:
            raise LookupError("what goes to one client alone stands in no log, and has no position")
        return Position(self._epoch, self._offset)

    @property
    def is_placed(self) -> bool:
        """It is from the beginning."""
        return True

    def await_place(self) -> None:
        """Nobody has to wait."""

    def __await__(self) -> Generator[Any, None, Position]:
        from fanwire.to import settled  # which awaits what every loop knows

        waiting: Any = settled(cast(Any, self))
        return cast(Generator[Any, None, Position], waiting.__await__())

    def __repr__(self) -> str:
        return super().__repr__().replace("Position", "Publication") if self._epoch else "Publication()"
