"""Connections of ``websockets`` (``websockets.asyncio`` and ``websockets.trio``), servers' and clients'."""

from collections.abc import Sequence
from typing import Any, ClassVar

from fanwire.adapters.foreign import Departed, Foreign


class TrioConnection(Foreign):
    """One of trio's: it has a stream, and no transport."""

    __slots__ = ()

    named: ClassVar[tuple[str, str]] = ("websockets.trio.connection", "Connection")
    what: ClassVar[str] = "a connection of websockets.trio"

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

    @property
    def holders(self) -> Sequence[tuple[Any, str]]:
        """The connection, between two messages: the rest of one that has begun must not have another before it."""
        return () if self.connection.send_in_progress is not None else ((self.connection, "transport"),)

    @property
    def why_none(self) -> str:
        """It was in the middle of a message."""
        return "it is sending a message in fragments"
