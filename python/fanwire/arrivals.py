"""What one task waits for again and again: the next of what a client sent, or of what was published."""

import anyio


class Arrivals:
    """Wakes who waits, one task at a time; in the event loop's thread."""

    __slots__ = ("_awaited", "_what")

    def __init__(self, what: str) -> None:
        """`what` says in the error what was read."""
        self._what = what
        self._awaited: anyio.Event | None = None

    def come(self) -> None:
        """There is something, or nothing more comes."""
        if self._awaited is not None:
            self._awaited.set()

    async def wait(self) -> None:
        """Return when something has come. Raises RuntimeError where another task waits: only one would be woken."""
        if self._awaited is not None:
            raise RuntimeError(f"{self._what} is read by another task already")
        self._awaited = anyio.Event()
        try:
            await self._awaited.wait()
        finally:
            self._awaited = None
