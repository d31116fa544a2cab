"""What is told while somebody watches: the numbers each second, lines of the log, what is published to a channel.

The side's own hub has a channel for each. What nobody watches is not asked for.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import time
from typing import Any

import anyio
import msgspec

from fanwire.admin.desk import Desk
from fanwire.admin.door import SLOWED, AdminDoor
from fanwire.admin.ids import position_text
from fanwire.admin.payloads import told_of
from fanwire.admin.problems import Problem
from fanwire.admin.shapes import Nothing
from fanwire.admin.table import LIVE
from fanwire.auth import Identity, Refused, Request
from fanwire.errors import LimitReached, Overtaken
from fanwire.faults import Tasks
from fanwire.wording import printable, shortened

STATS, LOG, TAIL = "stats", "log", "tail:"
EVERY_S = 1.0
TAILS_MAX = 64
"""Channels that are followed at once, for all who watch."""
LINE_MAX = 2_000


class Live:
    """That of one side."""

    def __init__(self, desk: Desk, hub: Any, stats: Callable[[Nothing], Awaitable[Any]], door: AdminDoor) -> None:
        self._desk, self._hub, self._stats, self._door = desk, hub, stats, door
        self._tails: dict[str, anyio.CancelScope] = {}
        self._tasks: Tasks
        self._handler = LogEar(self)
        hub.authenticate(self._admit)
        hub.authorize(self._may_watch)

    def begin(self, tasks: Tasks, origins: Sequence[str]) -> None:
        """Serve them."""
        self._tasks = tasks
        self._hub.path(LIVE, wire="events", origins=list(origins))
        tasks.start_soon(self._run)

    async def _admit(self, request: Request) -> Identity | None:
        try:
            self._door.check("GET", {name: request.headers[name] for name in request.headers})
        except Problem as problem:
            if problem.code == SLOWED:
                await self._door.slow_down()
            raise Refused(problem.detail, status=problem.status) from problem
        return None

    def _may_watch(self, client: Any, channel: str) -> bool:
        if not channel.startswith(TAIL):
            return channel in (STATS, LOG)
        name = channel.removeprefix(TAIL)
        if not name:
            return False
        if channel not in self._tails:
            if len(self._tails) >= TAILS_MAX:
                raise LimitReached("channels that are followed", TAILS_MAX + 1, TAILS_MAX)
            self._tails[channel] = anyio.CancelScope()
            self._tasks.start_soon(self._follow, channel, name)
        return True

    async def _run(self) -> None:
        """Tell the numbers while somebody watches them, and let go of what nobody follows any more."""
        idle: dict[str, int] = {}
        try:
            while True:
                await anyio.sleep(EVERY_S)
                if self._hub.occupancy(STATS):
                    self._hub.publish(STATS, msgspec.to_builtins(await self._stats(Nothing())), event=STATS)
                self._handler.watch(is_watched=bool(self._hub.occupancy(LOG)))
                for channel, scope in list(self._tails.items()):
                    idle[channel] = 0 if self._hub.occupancy(channel) else idle.get(channel, 0) + 1
                    if idle[channel] > 2:
                        del idle[channel]
                        scope.cancel()
        finally:
            self._handler.watch(is_watched=False)

    async def _follow(self, channel: str, name: str) -> None:
        try:
            with self._tails[channel]:
                while True:
                    with suppress(Overtaken):  # whoever watches sees by the positions what is missing
                        await self._tell_what_comes(channel, name)
                        return
        finally:
            del self._tails[channel]

    async def _tell_what_comes(self, channel: str, name: str) -> None:
        async with self._desk.hub.listen(name) as publications:
            async for heard in publications:
                told = {
                    "channel": heard.channel,
                    "position": position_text(heard.position),
                    "data": told_of(heard.data),
                    "event": heard.event,
                    "at": time(),
                }
                self._hub.publish(channel, told, event="publication")

    def tell_line(self, record: logging.LogRecord) -> None:
        """Any thread."""
        text = "\n".join(printable(line) for line in shortened(record.getMessage(), LINE_MAX).split("\n"))
        line = {"at": record.created, "level": record.levelname.lower(), "logger": record.name, "text": text}
        self._hub.publish(LOG, line, event=LOG)


class LogEar(logging.Handler):
    """Hears the log of fanwire while somebody watches it."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live
        self._is_watching = False
        self._is_telling = False

    def watch(self, *, is_watched: bool) -> None:
        """Begin or end."""
        if is_watched != self._is_watching:
            self._is_watching = is_watched
            log = logging.getLogger("fanwire")
            (log.addHandler if is_watched else log.removeHandler)(self)

    def emit(self, record: logging.LogRecord) -> None:
        """One line; what telling it logs itself is not told."""
        if not self._is_telling:
            self._is_telling = True
            try:
                self._live.tell_line(record)
            except Exception:
                self.handleError(record)
            finally:
                self._is_telling = False
