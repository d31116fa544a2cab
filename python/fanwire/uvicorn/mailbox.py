"""What waits for an application's ``receive``, in order. Nothing here knows sockets."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

Event = dict[str, Any]
"""An ASGI event of a WebSocket."""


class Mailbox:
    """Events for any number of receivers; the last of them stays: who receives once more gets it again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.events: deque[Event] = deque()
        self.ending: Event | None = None
        """The last, behind all that waits."""
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._woken = 0

    def put(self, event: Event) -> None:
        """Append an event; one who waits wakes up."""
        self.events.append(event)
        self._wake()

    def end(self, event: Event) -> None:
        """Say what comes last, unless it was said before."""
        if self.ending is None:
            self.ending = event
            while self._waiters:
                self._wake()

    @property
    def surplus(self) -> int:
        """How many events nobody has come for."""
        return len(self.events) - self._woken

    async def wait(self) -> None:
        """Return once there may be something; cancelled, it leaves that to others."""
        waiter = self.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.cancelled():
                with suppress(ValueError):  # passed over already
                    self._waiters.remove(waiter)
            else:
                self._woken -= 1
                if self.events:
                    self._wake()
            raise
        self._woken -= 1

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._woken += 1
                return
