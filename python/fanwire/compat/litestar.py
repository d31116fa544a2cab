"""A backend for Litestar's ``ChannelsPlugin`` on a hub: ``ChannelsPlugin(backend=HubChannelsBackend(hub), …)``.

What the plugin publishes goes to the hub's own clients as well, and what the hub publishes to the plugin's subscribers.
What is promised stands in docs/litestar.md. It needs the package ``litestar``, which ``fanwire[litestar]`` brings.
"""

import logging
from collections.abc import AsyncGenerator, Iterable

from anyio.lowlevel import checkpoint

from fanwire._engine import Position
from fanwire.compat.recent import Recent
from fanwire.errors import FanwireError, HubStopped, Overtaken
from fanwire.hearing import Heard, Listening
from fanwire.hub import Hub

try:
    from litestar.channels import ChannelsBackend
except ImportError as error:
    raise ImportError(
        "fanwire.compat.litestar needs the package litestar: pip install 'fanwire[litestar]'", name=error.name
    ) from error

__all__ = ["HubChannelsBackend"]

NOT_BEGUN = "Backend not yet initialized. Did you forget to call on_startup?"
"""As the backends of Litestar say it."""

log = logging.getLogger("fanwire.litestar")


class HubChannelsBackend(ChannelsBackend):
    """Channels of a hub for Litestar's plugin.

    Args:
        hub: None: one of its own, which serves without an address while the application runs. One that is given must
            serve from before the application's startup until after its shutdown.
        history: messages of each channel that are kept for ``get_history``, 0 or more, of 1,024 channels at most: those
            that this backend published.

    Raises:
        TypeError, ValueError: `history` is out of range.
    """

    def __init__(self, hub: Hub | None = None, *, history: int = 0) -> None:
        self.hub: Hub = Hub() if hub is None else hub
        """Where the channels are."""
        self._is_own = hub is None
        self._history: Recent[bytes] = Recent(history)
        self._since: dict[str, Position] = {}  # of each channel when it was subscribed to
        self._heard: Listening | None = None

    async def on_startup(self) -> None:
        """Hear the hub from now on. Raises HubStopped where the hub that was given does not serve."""
        if self._is_own:
            await self.hub.start()
        heard = self.hub.listen("*")
        await heard.__aenter__()
        self._heard = heard

    async def on_shutdown(self) -> None:
        """Hear it no more; who streams is told that there is nothing more. It may start again."""
        heard, self._heard = self._heard, None
        self._since.clear()
        if heard is not None:
            await heard.__aexit__(None, None, None)
        if self._is_own:
            await self.hub.stop()

    async def publish(self, data: bytes, channels: Iterable[str]) -> None:
        """Publish to each of `channels`: as text where it is UTF-8, as the plugin's JSON is, else as binary.

        A name that no channel can have, or a message beyond a bound, is left out and told in the log: clients may have
        made it up, and what this raises ends the plugin's one task that publishes.

        Raises:
            RuntimeError: ``on_startup`` was not called.
            HubStopped: the hub does not serve any more.
        """
        if self._heard is None:
            raise RuntimeError(NOT_BEGUN)
        message: str | bytes
        try:
            message = data.decode()
        except UnicodeDecodeError:
            message = data
        for channel in channels:
            try:
                self.hub.publish(channel, message)
            except HubStopped:
                raise
            except (FanwireError, TypeError) as error:
                log.warning("a message is left out: %s", error)
            else:
                self._history.add(channel, data)
        await checkpoint()

    async def subscribe(self, channels: Iterable[str]) -> None:
        """Stream what is published to `channels` from now on; nothing is to those that cannot be.

        An error for these would leave others of the call without events, also for who subscribes to them later: the
        plugin knows them as subscribed to. Raises RuntimeError, HubStopped.
        """
        if self._heard is None:
            raise RuntimeError(NOT_BEGUN)
        for channel in channels:
            if channel in self._since:
                continue
            try:
                self._since[channel] = self.hub.position(channel)
            except HubStopped:
                raise
            except (FanwireError, TypeError) as error:
                log.warning("a channel has no events: %s", error)

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        """Stream them no more, and forget their history."""
        for channel in channels:
            self._since.pop(channel, None)
            self._history.forget(channel)

    async def stream_events(self) -> AsyncGenerator[tuple[str, bytes], None]:
        """What is published to channels that are subscribed to. It ends with ``on_shutdown``.

        Raises:
            RuntimeError: ``on_startup`` was not called; when it is iterated.
            HubStopped: the hub that was given ends before the application.
        """
        if self._heard is None:
            raise RuntimeError(NOT_BEGUN)
        while (heard := self._heard) is not None:
            try:
                async for one in heard:
                    since = self._since.get(one.channel)
                    if since is not None and is_after(one.position, since):
                        yield one.channel, payload_of(one)
            except Overtaken as error:
                log.warning("messages were missed: %s", error)
                await heard.__aexit__(None, None, None)
                await heard.__aenter__()
            else:
                if heard is self._heard:
                    raise HubStopped

    async def get_history(self, channel: str, limit: int | None = None) -> list[bytes]:
        """The newest `limit` messages, or all that are kept, the oldest first."""
        return self._history.last(channel, limit or None)


def is_after(position: Position, since: Position) -> bool:
    """Whether it came later; an idle channel's log goes, and what comes then is of another epoch."""
    return position.epoch != since.epoch or position.offset > since.offset


def payload_of(heard: Heard) -> bytes:
    """What was published, as the plugin's subscribers get it: text as UTF-8, objects as the JSON that clients get."""
    payload = heard.payload
    return payload.encode() if isinstance(payload, str) else payload
