"""Lanes that nobody watches any more: how many there may be, and which end first."""

from collections.abc import Callable, Iterator
from typing import Protocol

LINGERING_MIN = 256
"""Lanes that may linger however few were watched at once."""
LINGERING_BYTES_MAX = 4 << 20
"""Of all that linger, of what they watch."""


class Lasting(Protocol):
    """A lane."""

    @property
    def cost(self) -> int:
        """Bytes of what it watches, and some."""

    def end(self) -> None:
        """Close it."""


class Lingering:
    """A relay's lanes that nobody watches, in the order in which they will end. They are charged to nobody, so bounded.

    One client leaves no more of them than it may watch at once. All clients leave no more than were ever watched at
    once, as when all connect again, and their calls are so many bytes at most. Above that the oldest end at once.

    Args:
        is_full: whether other workers need the room.
    """

    __slots__ = ("_bytes", "_is_full", "_left_by", "_most", "_needed", "_of_client", "_per_client_max")

    def __init__(self, per_client_max: int, is_full: Callable[[], bool] = lambda: False) -> None:
        self._per_client_max, self._is_full = per_client_max, is_full
        self._needed: set[Lasting] = set()
        self._most = LINGERING_MIN
        self._left_by: dict[Lasting, int] = {}
        self._of_client: dict[int, dict[Lasting, None]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._left_by)

    def __iter__(self) -> Iterator[Lasting]:
        return iter(self._left_by)

    def needed(self, lane: Lasting) -> None:
        """Somebody watches it, or waits to."""
        self._forget(lane)
        self._needed.add(lane)
        self._most = max(self._most, len(self._needed))

    def ended(self, lane: Lasting) -> None:
        """It is over."""
        self._forget(lane)
        self._needed.discard(lane)

    def left(self, lane: Lasting, client: int) -> None:
        """Nobody watches it any more; this client was the last. It may have to end."""
        if lane in self._left_by:
            return
        self._needed.discard(lane)
        self._left_by[lane] = client
        own = self._of_client.setdefault(client, {})
        own[lane] = None
        self._bytes += lane.cost
        if len(own) > self._per_client_max:
            next(iter(own)).end()
        while len(self._left_by) > self._most or self._bytes > LINGERING_BYTES_MAX:
            next(iter(self._left_by)).end()
        if self._is_full():
            self.make_room()

    def make_room(self) -> None:
        """End the oldest, if there is one."""
        for lane in self._left_by:
            lane.end()
            return

    def _forget(self, lane: Lasting) -> None:
        client = self._left_by.pop(lane, None)
        if client is None:
            return
        self._bytes -= lane.cost
        own = self._of_client[client]
        del own[lane]
        if not own:
            del self._of_client[client]
