"""The verbs of a ``Hub`` for connections that a framework has accepted: attach, adopt, detach."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from fanwire._engine import Position
from fanwire._loop import has_to_be_awaited
from fanwire.adapters.foreign import Departed, Foreign
from fanwire.adopt.attachments import Attachments
from fanwire.calls import check_channel, check_since, check_start, read_filter, wrong
from fanwire.publishing import Publishing

OnMessage: TypeAlias = Callable[[str | bytes], Awaitable[object] | object]
"""What is called with each message of an adopted connection, ``def`` or ``async def``."""


class Attaching(Publishing):
    """Connections of Starlette and FastAPI, aiohttp and ``websockets``, which the hub writes to as to its own."""

    def __init__(self, own_paths: Sequence[str]) -> None:
        super().__init__(own_paths)
        self._attachments: Attachments | None = None

    def attach(
        self,
        connection: Any,
        channels: Iterable[str],
        *,
        since: Mapping[str, Position] | None = None,
        start: str | None = None,
        filter: Mapping[str, object] | None = None,
    ) -> None:
        """In the event loop's thread: have what is published to `channels` reach a WebSocket that a framework accepted.

        Returns at once; the program goes on receiving and sending as before. Each publication is one message: a ``str``
        a text, ``bytes`` a binary one, anything else JSON. Those of a channel come in their order. What a slow client
        has not taken waits in the channel's log, within the backlog, and the channel's policy says what becomes of the
        rest; ``every`` closes it with 1013. It counts in ``occupancy``. It ends with the connection, with ``detach``,
        and with the serving, which closes none.

        Args:
            connection: an accepted ``WebSocket`` of Starlette or FastAPI, a prepared ``WebSocketResponse`` of aiohttp,
                or an open connection of ``websockets``. One that is attached already gets the channels besides those
                that it has. It is held weakly.
            channels: their names.
            since: by channel the last publication that the client had: it gets what it missed; if that is lost, it
                begins at `start`.
            start: ``live``, ``keyframe`` or ``history``; None is as each channel has it.
            filter: what publications in these have to be tagged with: see ``Hub.subscribe``. A channel that it has got
                already stays as it is.

        Raises:
            AdoptionError: it is none of these, is not open, or is attached to another hub.
            TypeError, ValueError, InvalidChannel: no channel can have such a name, or there is no such start.
            LimitReached, OSError: a bound of the engine is reached, or no descriptor is left.
            RuntimeError: this is another thread or another loop than the one that serves.
            HubStopped: the hub does not serve.
        """
        self._attach(connection, channels, since, start, filter)

    def _attach(
        self,
        connection: Any,
        channels: Iterable[str],
        since: Mapping[str, Position] | None,
        start: str | None,
        filter: Mapping[str, object] | None,
    ) -> Foreign:
        names = check_channels(channels)
        if not isinstance(since, Mapping | None):
            wrong("since", "positions by the names of their channels, or None", since)
        for position in (since or {}).values():
            check_since(position)
        check_start(start)
        read = read_filter("filter", filter)
        self._link.require_loop("attach")
        assert self._attachments is not None  # there is an engine
        return self._attachments.attach(connection, names, since or {}, start, read)

    def detach(self, connection: Any, channels: Iterable[str] | None = None) -> None:
        """In the event loop's thread: have what is published from now on not reach it, of `channels` or, None, of all.

        What was published before still goes out. Does nothing where it is not attached, or the hub does not serve.

        Raises:
            AdoptionError: it is no connection that could be attached.
            TypeError, InvalidChannel: no channel can have such a name.
            RuntimeError: this is another thread or another loop than the one that serves.
        """
        self._detach(connection, channels)

    def _detach(self, connection: Any, channels: Iterable[str] | None = None) -> int | None:
        names = None if channels is None else check_channels(channels)
        if self._attachments is None:
            return None
        self._link.require_loop("detach")
        return self._attachments.detach(connection, names)

    async def adopt(
        self,
        connection: Any,
        channels: Iterable[str] = (),
        *,
        since: Mapping[str, Position] | None = None,
        start: str | None = None,
        filter: Mapping[str, object] | None = None,
        on_message: OnMessage | None = None,
    ) -> int:
        """In the event loop's thread: ``attach``, and receive what the client sends until it leaves; then ``detach``.

        For a route that has nothing else to do. Nobody else may receive meanwhile. What `on_message` raises ends it.

        Args:
            connection: as for ``attach``, and so are `channels`, `since`, `start` and `filter`.
            on_message: is called with each message, one after another, and awaited where that can be; None drops them.

        Returns:
            The close code with which the client left, or the connection ended: 1006 where there was none.

        Raises:
            What ``attach`` and `on_message` raise.
        """
        if on_message is not None and not callable(on_message):
            wrong("on_message", "a function of one argument, or None", on_message)
        foreign = self._attach(connection, channels, since, start, filter)
        closed_with: int | None = None
        try:
            while True:
                message = await foreign.receive()
                if on_message is not None:
                    result = on_message(message)
                    if has_to_be_awaited(result):
                        await result
        except Departed as gone:
            code = gone.code
        finally:
            closed_with = self._detach(connection)
        return code if closed_with is None else closed_with


def check_channels(channels: object) -> list[str]:
    """Their names. Raises TypeError for what is no list of them, such as one name, and InvalidChannel."""
    if isinstance(channels, str | bytes | Mapping) or not isinstance(channels, Iterable):
        wrong("channels", "a list of names of channels", channels)
    return [check_channel(channel) for channel in channels]
