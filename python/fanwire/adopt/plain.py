"""A connection that is written to in the event loop: by its transport, or where that cannot be had by its framework."""

import logging
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from fanwire._loop import ends_task
from fanwire.adapters.foreign import Broadcast, Foreign
from fanwire.adopt.feeding import Feed
from fanwire.errors import Overtaken
from fanwire.faults import Faults
from fanwire.logs import hub_log

WRITE_BYTES = 65_536
"""About so much is one write: what is behind it may yet be dropped, where the client turns out to be slow."""
OVERTAKEN = 1013
"""The close code of who is promised every publication and falls behind the backlog; see docs/promises.md."""


def framed(waiting: deque[str | bytes]) -> bytes:
    """Takes some of the messages, and gives their frames."""
    frames: list[bytes] = []
    size = 0
    while waiting and size < WRITE_BYTES:
        message = waiting.popleft()
        is_text = isinstance(message, str)
        frames.append(Broadcast(message.encode() if isinstance(message, str) else message, is_text=is_text).frame)
        size += len(frames[-1])
    return b"".join(frames)


class Plain:
    """One of them, in a task of its own: who is stalled holds up nobody, and has one message on its way.

    The connection is held weakly: one that its program has forgotten ends here as well.
    """

    __slots__ = ("__weakref__", "_faults", "_gone", "_kind", "closed_with", "connection", "feed")

    def __init__(self, foreign: Foreign, feed: Feed, faults: Faults, gone: Callable[["Plain"], None]) -> None:
        self.feed = feed
        """What it is sent."""
        self.closed_with: int | None = None
        """The code with which it was closed here."""
        self._kind = type(foreign)
        self._faults = faults
        self._gone = gone
        forgotten = weakref.WeakMethod(self.forgotten)

        def collected(_: object) -> None:
            forget = forgotten()
            if forget is not None:
                forget()

        self.connection: weakref.ref[Any] = weakref.ref(foreign.connection, collected)
        """Whose it is."""

    def forgotten(self) -> None:
        """Nobody holds the connection any more."""
        self.feed.end()

    async def run(self) -> None:
        """Send until the connection is closed, or nothing more comes."""
        try:
            while messages := await self.feed.read():
                if not await self._send(messages):
                    break
        except Overtaken as error:
            await self._close(str(error))
        finally:
            self.feed.end()
            self._gone(self)

    def _foreign(self) -> Foreign | None:
        connection = self.connection()
        if connection is None:
            return None
        foreign = self._kind(connection)
        return foreign if foreign.is_open else None

    async def _send(self, messages: list[str | bytes]) -> bool:
        """Whether it can go on.

        As long as the client keeps up, all that is there is one write to its transport. Where that cannot be had, or
        something waits in it, the framework sends one message, and waits as it does.
        """
        waiting = deque(messages)
        while waiting:
            foreign = self._foreign()
            if foreign is None:
                return False
            try:
                pipe = foreign.pipe(foreign.connection)
                if pipe is None or pipe.get_write_buffer_size():
                    await foreign.send(waiting.popleft())
                else:
                    pipe.write(framed(waiting))
            except Exception as error:
                self._tell(foreign, "a publication could not be sent", error)
                return False
        return True

    async def _close(self, reason: str) -> None:
        foreign = self._foreign()
        if foreign is not None:
            self.closed_with = OVERTAKEN
            try:
                await foreign.close(OVERTAKEN, reason.encode()[:123].decode(errors="ignore"))
            except Exception as error:
                self._tell(foreign, "it could not be closed", error)

    def _tell(self, foreign: Foreign, text: str, error: Exception) -> None:
        """That clients leave is no news, whatever their framework raises then."""
        if ends_task(error):
            raise error
        level = logging.WARNING if foreign.is_open and not isinstance(error, OSError) else logging.DEBUG
        self._faults.tell(hub_log, level, f"{foreign.what}: {text}", "%s: %s: %r", foreign.what, text, error)
