"""``starlette.websockets.WebSocket``, which is FastAPI's as well, under any ASGI server and in ``TestClient``."""

from collections.abc import Sequence
from typing import Any, ClassVar

from fanwire.adapters.asgi import event_of, message_of
from fanwire.adapters.foreign import OTHER_LOOP, Broadcast, Foreign, NoTransport
from fanwire.scope import holder_of

CLOSED = "fanwire.closed"
"""Key of the scope of one that was closed here, or found gone. Starlette is not told: behind its own ``close``, or a
``send`` of its own that failed, it would keep the route from receiving the end."""


def is_connected(connection: Any) -> bool:
    """Whether it was accepted, and neither side has closed."""
    state = connection.client_state
    is_so = state is connection.application_state and state is type(state).CONNECTED
    return bool(is_so and CLOSED not in connection.scope)


class StarletteSocket(Foreign):
    """One of them. Its ``_send`` is wrapped in closures, so its transport is found by the scope alone."""

    __slots__ = ()

    named: ClassVar[tuple[str, str]] = ("starlette.websockets", "WebSocket")
    what: ClassVar[str] = "a WebSocket of Starlette"

    @property
    def is_open(self) -> bool:
        """Whether it was accepted, and neither side has closed."""
        return is_connected(self.connection)

    @property
    def is_begun(self) -> bool:
        """Whether it was accepted."""
        return bool(self.connection.application_state.name != "CONNECTING")

    @property
    def how_to_begin(self) -> str:
        """What accepts it."""
        return "`await websocket.accept()` comes first"

    @property
    def identity(self) -> Any:
        """What the server has, where it says so: its application may attach that by the scope as well."""
        return holder_of(self.connection.scope) or self.connection

    @property
    def holders(self) -> Sequence[tuple[Any, str]]:
        """What the server offers."""
        holder = holder_of(self.connection.scope)
        return () if holder is None else ((holder, "transport"),)

    @property
    def why_none(self) -> str:
        """What would offer it."""
        return "its server does not offer the scope's extension `fanwire`"

    @staticmethod
    def pipe(connection: Any) -> Any:
        """What the server offers, until it is closed."""
        holder = holder_of(connection.scope)
        return None if holder is None or holder.transport.is_closing() else holder.transport

    @staticmethod
    def standing(connection: Any) -> Any:
        """What the server offers."""
        if not is_connected(connection):
            return None
        holder = holder_of(connection.scope)
        return None if holder is None else holder.transport

    @staticmethod
    def loop_of(connection: Any) -> Any:
        """Its server's, if that says so."""
        return getattr(holder_of(connection.scope), "loop", None)

    @staticmethod
    def push(connection: Any, message: Broadcast, loop: Any) -> Exception | None:
        """By the transport that the server offers."""
        if not is_connected(connection):
            return None
        holder = holder_of(connection.scope)
        if holder is None:
            raise NoTransport
        if getattr(holder, "loop", loop) is not loop:
            raise RuntimeError(OTHER_LOOP)
        pipe = StarletteSocket.pipe(connection)
        if pipe is not None:
            message.write(pipe, StarletteSocket(connection))
        return None

    async def send(self, data: str | bytes) -> None:
        """One message, past what a subclass may do to texts. Raises OSError where the client is gone."""
        try:
            await self.connection._send(event_of(data))
        except OSError:  # by which a server says so
            self.connection.scope[CLOSED] = True
            raise

    async def receive(self) -> str | bytes:
        """The next message."""
        return message_of(await self.connection.receive())

    async def close(self, code: int, reason: str) -> None:
        """So that its route finds the end where it looks for it: by receiving, as where the client has left.

        Behind a ``close`` of Starlette's own, receiving is an error of the route's.
        """
        if is_connected(self.connection):
            self.connection.scope[CLOSED] = True
            await self.connection._send({"type": "websocket.close", "code": code, "reason": reason})
