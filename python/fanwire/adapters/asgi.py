"""A WebSocket as an ASGI server has it, whether a framework stands above it or not."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fanwire.adapters.foreign import Departed, Foreign


def message_of(event: Mapping[str, Any]) -> str | bytes:
    """What ``receive`` gave, as a message. Raises Departed for the end."""
    if event["type"] == "websocket.disconnect":
        raise Departed(event.get("code", 1005))
    text: str | None = event.get("text")
    data: bytes = event.get("bytes") or b""
    return data if text is None else text


def event_of(data: str | bytes) -> dict[str, Any]:
    """What ``send`` is given for a message."""
    return {"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data}


class AsgiSocket(Foreign):
    """What the calls of the scope's extension attach: `fanwire.scope.Socket`."""

    __slots__ = ()

    named: ClassVar[tuple[str, str]] = ("fanwire.scope", "Socket")
    what: ClassVar[str] = "a WebSocket of an ASGI server"

    @property
    def is_open(self) -> bool:
        """Whether it was accepted, and neither side has closed."""
        return bool(self.connection.state() == "open")

    @property
    def is_begun(self) -> bool:
        """Whether it was accepted, or never will be."""
        return bool(self.connection.state() != "connecting")

    @property
    def how_to_begin(self) -> str:
        """What accepts it."""
        return "`await send({'type': 'websocket.accept'})` comes first"

    @property
    def identity(self) -> Any:
        """The server's: a framework above it may be attached as well."""
        return self.connection.holder

    @property
    def holders(self) -> Sequence[tuple[Any, str]]:
        """What the server says."""
        return ((self.connection.holder, "transport"),)

    @staticmethod
    def pipe(connection: Any) -> Any:
        """The transport, until it is closed."""
        transport = connection.holder.transport
        return None if transport.is_closing() else transport

    async def send(self, data: str | bytes) -> None:
        """One message, compressed where that was negotiated."""
        await self.connection.send(event_of(data))

    async def receive(self) -> str | bytes:
        """The next message."""
        return message_of(await self.connection.receive())

    async def close(self, code: int, reason: str) -> None:
        """As the program would."""
        await self.connection.send({"type": "websocket.close", "code": code, "reason": reason})
