"""What is published to the channels of one attached connection, as it is sent."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from anyio.lowlevel import checkpoint

from fanwire._engine import Listener
from fanwire.arrivals import Arrivals
from fanwire.errors import FanwireError, HubStopped
from fanwire.hearing import READ_MAX, Listeners


def texts_of(taken: Sequence[tuple[Any, ...]]) -> list[str | bytes]:
    """What a client of the raw protocol gets of publications that were heard."""
    return [data.decode() if is_json else data for _, _, data, is_json, _, _ in taken]


class Ear:
    """One channel of a feed."""

    __slots__ = ("_feed", "listener", "token")

    def __init__(self, feed: "Feed", channel: str, listeners: Listeners) -> None:
        self._feed = feed
        self.token: int
        self.listener: Listener
        self.token, self.listener = listeners.begin(self, channel)

    def wake(self) -> None:
        """There is something to read."""
        self._feed.come(self)

    def end(self) -> None:
        """Nothing more comes."""
        self._feed.finish()


class Feed:
    """A cursor in the log of each channel: what waits for a slow connection waits there, as the channel's policy says.

    In the event loop's thread; one task reads.
    """

    __slots__ = ("_arrived", "_cut", "_ears", "_is_over", "_listeners", "_told")

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._ears: dict[str, Ear] = {}
        # Those with something to read, each once.
        self._told: deque[Ear] = deque()
        # What was published to channels before they were cut off.
        self._cut: deque[list[str | bytes]] = deque()
        self._arrived = Arrivals("what is published to an attached connection")
        self._is_over = False

    @property
    def channels(self) -> list[str]:
        """Those that are read."""
        return list(self._ears)

    def add(self, channel: str) -> None:
        """What is published from now on comes. Raises LimitReached, HubStopped."""
        if channel not in self._ears:
            self._ears[channel] = Ear(self, channel, self._listeners)

    def remove(self, channel: str) -> None:
        """No more of it is read."""
        ear = self._ears.pop(channel, None)
        if ear is not None:
            self._listeners.leave(ear.token, ear.listener)

    def cut(self, channel: str) -> None:
        """What was published until now is still read, at most what the channel keeps in its backlog."""
        ear = self._ears.get(channel)
        if ear is not None:
            with suppress(FanwireError):  # overtaken or stopped: there is no more
                while taken := ear.listener.hear(READ_MAX):
                    self._cut.append(texts_of(taken))
            self.remove(channel)
            self._arrived.come()

    def come(self, ear: Ear) -> None:
        """One of the channels has something to read."""
        self._told.append(ear)
        self._arrived.come()

    def finish(self) -> None:
        """Nothing more comes; what was published until now is still read."""
        self._is_over = True
        self._arrived.come()

    def end(self) -> None:
        """Nothing more is read."""
        for channel in list(self._ears):
            self.remove(channel)
        self.finish()

    async def read(self) -> list[str | bytes]:
        """What comes next, in the order of each channel; nothing once all is over.

        Raises Overtaken where the policy promises every publication, and some are lost.
        """
        while True:
            if self._cut:
                return self._cut.popleft()
            while self._told:
                ear = self._told[0]
                try:
                    taken = ear.listener.hear(READ_MAX)
                except HubStopped:
                    return []
                if not taken:
                    self._told.popleft()
                    continue
                self._told.rotate(-1)
                await checkpoint()
                return texts_of(taken)
            if self._is_over:
                return []
            await self._arrived.wait()
