"""uvicorn's own protocol, ``websockets-sansio``, which also says what writes to its socket."""

from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State as Status

from fanwire.scope import State, extend

ACCEPTED = 101


class Sansio(WebSocketsSansIOProtocol):
    """uvicorn's protocol as it is, with ``scope["extensions"]["fanwire"]``: ``--ws fanwire.uvicorn:Sansio``."""

    def handle_connect(self, event: Request) -> None:
        """Build the scope and start the application, which sees the scope once the loop turns."""
        super().handle_connect(event)
        if self.response.status_code == ACCEPTED:
            extend(
                cast(dict[str, Any], self.scope),
                self,
                receive=self.receive,
                send=self.send,
                state=self.offered_state,
                deflate=bool(self.conn.extensions),
            )

    def offered_state(self) -> State:
        """How far it has come, for the scope's extension."""
        if self.transport.is_closing() or self.conn.state not in (Status.CONNECTING, Status.OPEN):
            return "closed"
        return "open" if self.conn.state is Status.OPEN else "connecting"
