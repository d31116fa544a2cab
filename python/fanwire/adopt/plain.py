"""A connection that is written to by the framework's own ``send``, where the transport below it cannot be had."""

import logging
import weakref
from collections.abc import Callable
from typing import Any

from fanwire._loop import ends_task
from fanwire.adapters.foreign import Foreign
from fanwire.adopt.feeding import Feed
from fanwire.errors import Overtaken
from fanwire.faults import Faults
from fanwire.logs import hub_log

OVERTAKEN = 1013
"""The close code of who is promised every publication and falls behind the backlog; see docs/promises.md."""


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
        """Whether it can go on."""
        for message in messages:
            foreign = self._foreign()
            if foreign is None:
                return False
            try:
                await foreign.send(message)
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
