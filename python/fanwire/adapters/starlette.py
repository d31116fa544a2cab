"""``starlette.websockets.WebSocket``, which is FastAPI's as well, under any ASGI server and in ``TestClient``."""

from collections.abc import Sequence
from typing import Any, ClassVar

from fanwire.adapters.foreign import OTHER_LOOP, Broadcast, Departed, Foreign, NoTransport

EXTENSION = "fanwire"
"""Of the ASGI scope: what a server offers whose transport can be had; its ``holder`` has the ``transport``."""


def holder_of(connection: Any) -> Any:
    """What holds the transport, if the server says so."""
    offered = (connection.scope.get("extensions") or {}).get(EXTENSION)
    return offered.get("holder") if offered else None


class StarletteSocket(Foreign):
    """One of them. Its ``_send`` is wrapped in closures, so its transport is found by the scope alone."""

    __slots__ = ()

    named: ClassVar[tuple[str, str]] = ("starlette.websockets", "WebSocket")
    what: ClassVar[str] = "a WebSocket of Starlette"

    @property
    def is_open(self) -> bool:
        """Whether it was accepted, and neither side has closed."""
        return bool(self.connection.application_state.name == self.connection.client_state.name == "CONNECTED")

    @property
    def is_begun(self) -> bool:
        """Whether it was accepted."""
        return bool(self.connection.application_state.name != "CONNECTING")

    @property
    def how_to_begin(self) -> str:
        """What accepts it."""
        return "`await websocket.accept()` comes first"

    @property
    def holders(self) -> Sequence[tuple[Any, str]]:
        """What the server offers."""
        holder = holder_of(self.connection)
        return () if holder is None else ((holder, "transport"),)

    @property
    def why_none(self) -> str:
        """What would offer it."""
        return "its server does not offer the scope's extension `fanwire`"

    @staticmethod
    def pipe(connection: Any) -> Any:
        """What the server offers, until it is closed."""
        holder = holder_of(connection)
        return None if holder is None or holder.transport.is_closing() else holder.transport

    @staticmethod
    def push(connection: Any, message: Broadcast, loop: Any) -> Exception | None:
        """By the transport that the server offers."""
        if not connection.application_state.name == connection.client_state.name == "CONNECTED":
            return None
        holder = holder_of(connection)
        if holder is None:
            raise NoTransport
        if getattr(holder, "loop", loop) is not loop:
            raise RuntimeError(OTHER_LOOP)
        pipe = StarletteSocket.pipe(connection)
        if pipe is not None:
            message.write(pipe, StarletteSocket(connection))
        return None

    async def send(self, data: str | bytes) -> None:
        """One message, past what a subclass may do to texts."""
        key = "text" if isinstance(data, str) else "bytes"
        await self.connection.send({"type": "websocket.send", key: data})

    async def receive(self) -> str | bytes:
        """The next message."""
        message = await self.connection.receive()
        if message["type"] == "websocket.disconnect":
            raise Departed(message.get("code", 1005))
        text: str | None = message.get("text")
        data: bytes = message.get("bytes") or b""
        return data if text is None else text

    async def close(self, code: int, reason: str) -> None:
        """As the program would."""
        await self.connection.close(code, reason)
