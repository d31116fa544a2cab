"""Daphne, whose WebSockets can be written to without a call for each: ``python -m fanwire.daphne asgi:application``.

The arguments are ``daphne``'s. Each WebSocket has one key more in its scope: docs/scope.md. Needs daphne, which the
extra of that name brings.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar

from fanwire.scope import State, extend

try:
    from daphne.cli import CommandLineInterface as DaphnesInterface
    from daphne.server import Server
except ImportError as error:
    raise ImportError(
        "fanwire.daphne needs the package daphne: pip install 'fanwire[daphne]'", name=error.name
    ) from error

__all__ = ["CommandLineInterface", "DaphneServer"]


class Transport:
    """What writes to one WebSocket of Daphne's, as an ``asyncio.Transport`` would have it."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        """Behind what Daphne has written; several of one turn of the loop are one write to the socket."""
        if not self.is_closing():
            self._protocol.sendData(bytes(data))

    def writelines(self, lines: Iterable[bytes]) -> None:
        """All of them, one behind the other."""
        self.write(b"".join(lines))

    def is_closing(self) -> bool:
        """Whether nothing may be written, as it is not open yet, or a closing handshake has begun."""
        return bool(self._protocol.state != self._protocol.STATE_OPEN)

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken."""
        twisted = self._protocol.transport
        return len(twisted.dataBuffer) - int(twisted.offset) + int(twisted._tempDataLen)

    def get_extra_info(self, name: str, default: object = None) -> object:
        """There is none."""
        return default


class Offered:
    """One WebSocket, for the extension of its scope."""

    def __init__(self, server: "DaphneServer", protocol: Any) -> None:
        self.transport = Transport(protocol)
        """What writes to it."""
        self.events: asyncio.Queue[Any] | None = None
        """What the application receives, once it is made."""
        self._server = server
        self._protocol = protocol

    async def receive(self) -> Any:
        """The application's next event."""
        assert self.events is not None  # it is made at once
        return await self.events.get()

    async def send(self, message: Any) -> None:
        """An event of the application's."""
        await self._server.handle_reply(self._protocol, message)

    def state(self) -> State:
        """How far it has come."""
        protocol = self._protocol
        if protocol.state == protocol.STATE_OPEN:
            return "open"
        return "connecting" if protocol.state == protocol.STATE_CONNECTING else "closed"


class DaphneServer(Server):
    """Daphne's server, with ``scope["extensions"]["fanwire"]`` where it writes to the socket itself: not with TLS."""

    def create_application(self, protocol: Any, scope: Any) -> Any:
        """Called for each request."""
        holder = None
        if scope["type"] == "websocket" and hasattr(protocol.transport, "_tempDataLen"):
            holder = Offered(self, protocol)
            extend(scope, holder, receive=holder.receive, send=holder.send, state=holder.state, deflate=False)
        events = super().create_application(protocol, scope)
        if holder is not None:
            holder.events = events
        return events


class CommandLineInterface(DaphnesInterface):
    """``daphne`` with that server."""

    server_class: ClassVar[Any] = DaphneServer


if __name__ == "__main__":
    CommandLineInterface.entrypoint()
