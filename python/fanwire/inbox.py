"""What one client sent, for the function that reads it: one message after another. Not here: whose function that is."""

import anyio


class Inbox:
    """Hands each message over as it is asked for; in the event loop's thread.

    Nothing piles up here: who offers a message waits until the next one is asked for, and so does the client.
    """

    __slots__ = ("_arrived", "_is_over", "_message", "_passed")

    def __init__(self) -> None:
        self._message: str | bytes | None = None
        self._arrived = anyio.Event()
        # The message that was offered last is dealt with.
        self._passed = anyio.Event()
        self._is_over = False

    async def offer(self, message: str | bytes) -> None:
        """Return when it was dealt with, or nobody reads any more; one at a time."""
        if self._is_over:
            return
        self._message = message
        self._passed = anyio.Event()
        self._arrived.set()
        await self._passed.wait()

    def end(self) -> None:
        """No more comes, or nobody reads. A message that was offered is still given out."""
        self._is_over = True
        self._arrived.set()
        self._passed.set()

    def __aiter__(self) -> "Inbox":
        return self

    async def __anext__(self) -> str | bytes:
        self._passed.set()
        while self._message is None:
            if self._is_over:
                raise StopAsyncIteration
            self._arrived = anyio.Event()
            await self._arrived.wait()
        message, self._message = self._message, None
        return message
