"""uvicorn's own protocol, ``websockets-sansio``, which also says what writes to its socket."""

from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State as Status

from fanwire.scope import State, extend
from fanwire.uvicorn.handing import give_away

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
                take=self.give_away,
            )

    def give_away(self, to: Callable[[int], object]) -> bool:
        """Have `to` take the socket, before anything is answered; for the scope's extension."""
        if self.initial_response is not None or self.conn.reader.buffer or not give_away(self.transport, to):
            return False
        client, path = get_client_addr(self.scope), get_path_with_query_string(self.scope)
        self.logger.info('%s - "WebSocket %s" [given away]', client, path)
        self.handshake_complete = self.close_sent = True  # there is nothing more to answer
        return True

    def offered_state(self) -> State:
        """How far it has come, for the scope's extension."""
        if self.transport.is_closing() or self.conn.state not in (Status.CONNECTING, Status.OPEN):
            return "closed"
        return "open" if self.conn.state is Status.OPEN else "connecting"
