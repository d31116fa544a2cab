"""A source that runs beside a server: it ends nobody, and one worker of all reads it."""

from collections.abc import Callable
from random import uniform

import anyio

from fanwire.errors import HubStopped
from fanwire.hub import Hub
from fanwire.logs import source_log
from fanwire.publisher import Publisher
from fanwire.sources.source import Source
from fanwire.sources.stats import SourceStats

LOOK_S = 1.0
"""So often it looks whether it is this worker's to read."""
WAIT_FIRST_S, WAIT_LAST_S = 1.0, 60.0
"""Between two attempts of what another attempt may not help."""


class Beside:
    """One of the sources of a hub.

    Args:
        source: which.
        publisher: makes what it publishes with; None: the hub.
    """

    def __init__(self, source: Source, publisher: Callable[[], Publisher] | None) -> None:
        self._source, self._publisher = source, publisher
        self._is_here = False

    @property
    def name(self) -> str:
        """The source's."""
        return self._source.name

    @property
    def is_here(self) -> bool:
        """Whether it is this worker's to read it."""
        return self._is_here

    def stats(self) -> SourceStats:
        """The source's."""
        return self._source.stats()

    def number_of(self, place: str) -> float:
        """As ``Source.number_of``."""
        return self._source.number_of(place)

    async def run(self, hub: Hub, is_eldest: Callable[[], bool]) -> None:
        """Read it for as long as `is_eldest`, until cancelled, or the hub ends."""
        try:
            while True:
                if is_eldest():
                    await self._read_while(hub, is_eldest)
                await anyio.sleep(LOOK_S)
        except HubStopped:
            return

    async def _read_while(self, hub: Hub, is_eldest: Callable[[], bool]) -> None:
        self._is_here = True
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.keep_reading, hub)
                while is_eldest():
                    await anyio.sleep(LOOK_S)
                tasks.cancel_scope.cancel()
        except* HubStopped as group:
            raise HubStopped(str(group.exceptions[0])) from group
        finally:
            self._is_here = False
        source_log.info("source %s: another worker reads it from now on", self.name)

    async def keep_reading(self, hub: Hub | None) -> None:
        """Read it, and again whatever ends that, until cancelled. Raises HubStopped."""
        wait = WAIT_FIRST_S
        while True:
            before = self.stats().published
            try:
                if self._publisher is None:
                    assert hub is not None
                    await self._source.run(hub)
                else:
                    async with self._publisher() as publisher:
                        await self._source.run(publisher)
            except HubStopped:
                raise
            except Exception as error:
                wait = WAIT_FIRST_S if self.stats().published > before else wait
                source_log.error(
                    "source %s: %s: %s; it begins anew in %.0f s", self.name, type(error).__name__, error, wait
                )
            await anyio.sleep(uniform(wait / 2, wait))
            wait = min(wait * 2, WAIT_LAST_S)
