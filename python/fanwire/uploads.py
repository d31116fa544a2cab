"""What SignalR clients stream to methods. Not here: which method it is for.

Items wait for the method: ``ITEMS_MAX`` of each stream, as far as the client's budget goes, are acknowledged as they
come, the others as they are taken. So the client is not read from while it is too far ahead.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from fanwire.arguments import Decoder
from fanwire.arrivals import Arrivals
from fanwire.budget import Budget
from fanwire.errors import HubError, anew
from fanwire.wording import UPLOAD_FAILED, Wording

ITEMS_MAX = 10
"""Items of a client's stream that are acknowledged before the method takes them; ``StreamBufferCapacity`` in .NET."""
ITEM_BYTES = 96
"""What an item costs beside its bytes: 33 of the object, 8 of its place, and what malloc rounds."""
UPLOAD_BYTES = 1536
"""What an upload costs without its items, most of it the empty queue. An estimate with room."""


class Upload:
    """An async iterator, once."""

    __slots__ = (
        "_accepted",
        "_acknowledge",
        "_arrived",
        "_budget",
        "_decoder",
        "_error",
        "_is_json",
        "_is_over",
        "_items",
        "_wording",
    )

    def __init__(
        self,
        decoder: Decoder,
        is_json: bool,
        acknowledge: Callable[[], None],
        budget: Budget,
        wording: Wording,
    ) -> None:
        self._decoder = decoder
        self._is_json = is_json
        self._acknowledge = acknowledge
        self._budget = budget
        self._wording = wording
        self._items: deque[bytes] = deque()
        # How many of them, from the first on, are acknowledged and charged.
        self._accepted = 0
        self._is_over = False
        self._error: Exception | None = None
        self._arrived = Arrivals("the stream of a client")

    def push(self, item: bytes) -> None:
        """An item came; one behind the end is dropped."""
        if self._is_over:
            self._acknowledge()
            return
        self._items.append(item)
        self._accept()
        self._arrived.come()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes; with `error`, because of that."""
        if not self._is_over:
            self._is_over = True
            self._error = error
            self._arrived.come()

    def abandon(self, error: Exception | None = None) -> None:
        """The method is done, or the client is gone and has not ended it: nothing is kept any more."""
        self.end(error)
        while self._items:
            self._take()

    def lose(self, gone: Exception) -> None:
        """The client is gone: what it did not end is worth nothing."""
        if not self._is_over:
            self.abandon(gone)

    def _accept(self) -> None:
        while self._accepted < min(len(self._items), ITEMS_MAX):
            if not self._budget.charge(ITEM_BYTES + len(self._items[self._accepted])):
                return
            self._accepted += 1
            self._acknowledge()

    def _take(self) -> bytes:
        item = self._items.popleft()
        if self._accepted:
            self._accepted -= 1
            self._budget.release(ITEM_BYTES + len(item))
        else:
            self._acknowledge()
        return item

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not self._items:
            if self._is_over:
                if self._error is not None:
                    raise anew(self._error)
                raise StopAsyncIteration
            await self._arrived.wait()
        item = self._take()
        self._accept()
        try:
            return self._decoder.decode(item, self._is_json)
        except ValueError as error:
            raise HubError(self._wording.of(UPLOAD_FAILED, error)) from error
