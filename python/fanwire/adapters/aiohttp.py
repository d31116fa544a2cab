"""``aiohttp.web.WebSocketResponse``."""

from collections.abc import Sequence
from typing import Any, ClassVar

from fanwire.adapters.foreign import OTHER_LOOP, Broadcast, Departed, Foreign


def is_connected(connection: Any) -> bool:
    """Whether it was prepared, and neither side has closed."""
    return bool(connection.prepared and not connection.closed and connection.close_code is None)


class AiohttpSocket(Foreign):
    """One of them. Its writer has the transport, and so has the protocol of its request, which closes it."""

    __slots__ = ()

    named: ClassVar[tuple[str, str]] = ("aiohttp.web_ws", "WebSocketResponse")
    what: ClassVar[str] = "a WebSocketResponse of aiohttp"

    @property
    def is_open(self) -> bool:
        """Whether it was prepared, and neither side has closed."""
        return is_connected(self.connection)

    @property
    def is_begun(self) -> bool:
        """Whether it was prepared."""
        return bool(self.connection.prepared)

    @property
    def how_to_begin(self) -> str:
        """What prepares it."""
        return "`await ws.prepare(request)` comes first"

    @property
    def holders(self) -> Sequence[tuple[Any, str]]:
        """Writer and protocol, where both have the same transport."""
        writer = getattr(self.connection, "_writer", None)
        protocol = getattr(writer, "protocol", None)
        transport = getattr(writer, "transport", None)
        if transport is None or getattr(protocol, "transport", None) is not transport:
            return ()
        return ((writer, "transport"), (protocol, "transport"))

    @staticmethod
    def pipe(connection: Any) -> Any:
        """The writer's, until it is closed."""
        transport = connection._writer.transport
        return None if transport is None or transport.is_closing() else transport

    @staticmethod
    def standing(connection: Any) -> Any:
        """The writer's."""
        if not is_connected(connection):
            return None
        return connection._writer.transport

    @staticmethod
    def loop_of(connection: Any) -> Any:
        """That of its request."""
        return connection._loop

    @staticmethod
    def push(connection: Any, message: Broadcast, loop: Any) -> Exception | None:
        """By the transport that its writer writes to."""
        if not is_connected(connection):
            return None
        pipe = AiohttpSocket.pipe(connection)
        if pipe is None:
            return None
        if connection._loop is not loop:
            raise RuntimeError(OTHER_LOOP)
        message.write(pipe, AiohttpSocket(connection))
        return None

    async def send(self, data: str | bytes) -> None:
        """One message, compressed where that was negotiated."""
        await (self.connection.send_str(data) if isinstance(data, str) else self.connection.send_bytes(data))

    async def receive(self) -> str | bytes:
        """The next message; what answers pings by itself gets none of them."""
        while True:
            message = await self.connection.receive()
            match message.type.name:
                case "TEXT" | "BINARY":
                    data: str | bytes = message.data
                    return data
                case "CLOSE" | "CLOSING" | "CLOSED" | "ERROR":
                    raise Departed(self.connection.close_code)

    async def close(self, code: int, reason: str) -> None:
        """As the program would. Returns when the client has answered, or its ``timeout`` is over."""
        await self.connection.close(code=code, message=reason.encode())
