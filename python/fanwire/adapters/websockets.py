"""Connections of ``websockets`` (``websockets.asyncio`` and ``websockets.trio``), servers' and clients'."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

from fanwire.adapters.foreign import FRAGMENTS, OTHER_LOOP, Broadcast, Departed, Foreign

OPEN = 1
"""``websockets.protocol.State.OPEN``, an ``IntEnum``."""
SERVER = 0
"""``websockets.protocol.Side.SERVER``, an ``IntEnum``: a client's frames are masked, each with a key of its own."""
SHARED = "permessage-deflate"
"""The one extension beside which a frame may be the same for all: with others it goes through the connection."""


class TrioConnection(Foreign):
    """One of trio's: it has a stream, and no transport."""

    __slots__ = ()

    named: ClassVar[tuple[str, str]] = ("websockets.trio.connection", "Connection")
    what: ClassVar[str] = "a connection of websockets.trio"
    why_no_broadcast: ClassVar[str] = "its stream is written to by tasks: `await websockets.trio.server.broadcast(…)`"

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return bool(self.connection.protocol.state.name == "OPEN")

    @property
    def is_begun(self) -> bool:
        """Whether the opening handshake is over."""
        return bool(self.connection.protocol.state.name != "CONNECTING")

    @property
    def how_to_begin(self) -> str:
        """What opens it."""
        return "its opening handshake comes first"

    @property
    def holders(self) -> Sequence[tuple[Any, str]]:
        """None."""
        return ()

    @property
    def why_none(self) -> str:
        """Trio has streams."""
        return "trio has no transports"

    async def send(self, data: str | bytes) -> None:
        """One message, compressed where that was negotiated."""
        await self.connection.send(data)

    async def receive(self) -> str | bytes:
        """The next message."""
        try:
            data: str | bytes = await self.connection.recv()
        except Exception:
            if self.is_open:
                raise
            raise Departed(self.connection.close_code) from None
        return data

    async def close(self, code: int, reason: str) -> None:
        """As the program would. Returns when the client has answered, or its ``close_timeout`` is over."""
        await self.connection.close(code, reason)


class AsyncioConnection(TrioConnection):
    """One of asyncio's: it is itself the protocol, and holds the transport."""

    __slots__ = ()

    named: ClassVar[tuple[str, str]] = ("websockets.asyncio.connection", "Connection")
    what: ClassVar[str] = "a connection of websockets"
    why_no_broadcast: ClassVar[str] = ""

    @property
    def holders(self) -> Sequence[tuple[Any, str]]:
        """The connection."""
        return ((self.connection, "transport"),)

    @property
    def log(self) -> logging.Logger:
        """The connection's own."""
        log: logging.Logger = self.connection.logger
        return log

    @staticmethod
    def standing(connection: Any) -> Any:
        """Its own, between two messages."""
        if connection.protocol.state == OPEN and connection.send_in_progress is None:
            return connection.transport
        return None

    @staticmethod
    def loop_of(connection: Any) -> Any:
        """Its own."""
        return connection.loop

    @staticmethod
    def pipe(connection: Any) -> Any:
        """A server's, between two messages, and with no extension that would want to see what is sent."""
        protocol = connection.protocol
        if protocol.side != SERVER or protocol.debug or connection.send_in_progress is not None:
            return None
        extensions = protocol.extensions
        if extensions and not all(extension.name == SHARED for extension in extensions):
            return None
        return connection.transport

    @staticmethod
    def push(connection: Any, message: Broadcast, loop: Any) -> Exception | None:
        """As ``websockets.broadcast``, without the work for each connection where the frame can be shared."""
        protocol = connection.protocol
        if protocol.state != OPEN:
            return None
        if connection.send_in_progress is not None:
            from websockets.exceptions import ConcurrencyError

            return ConcurrencyError(FRAGMENTS)
        if connection.loop is not loop:
            raise RuntimeError(OTHER_LOOP)
        pipe = AsyncioConnection.pipe(connection)
        if pipe is not None:
            message.write(pipe, AsyncioConnection(connection))
        else:
            (protocol.send_text if message.is_text else protocol.send_binary)(message.payload)
            connection.send_data()
        return None
