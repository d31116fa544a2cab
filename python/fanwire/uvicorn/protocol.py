"""A protocol for uvicorn whose handshake, frames and compression are Rust's: ``--ws fanwire.uvicorn:Protocol``.

What is not bytes is here: the life of one connection, between uvicorn, its transport and the application.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)
from uvicorn.server import ServerState

from fanwire._engine import (
    CloseFrame,
    Misdeed,
    Ping,
    Pong,
    WebSocketCodec,
    WebSocketHandshake,
    may_be_sent,
    read_handshake,
)
from fanwire.scope import State, extend
from fanwire.uvicorn.denial import Denial
from fanwire.uvicorn.handing import give_away
from fanwire.uvicorn.mailbox import Event, Mailbox

CLOSE_TIMEOUT_S = 10.0
"""How long the peer's Close frame is waited for."""
LINGER_S = 0.25
"""How long a peer that broke a rule has to read why."""
HEAD_BYTES_MAX = 65_536
"""Of a request's head, which is kept as long as the connection: uvicorn's bound for h11; its httptools has none."""
PING_BYTES = 4
"""What tells one ping from another: so many random bytes."""
ABNORMAL, INTERNAL_ERROR, RESTART = 1006, 1011, 1012


class Stage(Enum):
    """How far a connection has come."""

    HANDSHAKE = auto()
    """The request is yet to be read."""
    CONNECTING = auto()
    """The application has yet to accept it."""
    DENIED = auto()
    """The application answers with a response of its own."""
    OPEN = auto()
    CLOSING = auto()
    """The application's Close is sent; messages are dropped, the peer's Close is waited for."""
    OVER = auto()
    """Nothing is heard or sent any more."""


class Ended:
    """A transport behind our last frame: nobody writes to it any more, who found it by the scope included."""

    def __init__(self, real: asyncio.Transport) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def is_closing(self) -> bool:
        """It is as good as closed."""
        return True

    def write(self, data: bytes) -> None:
        """Dropped."""

    def writelines(self, data: Iterable[bytes]) -> None:
        """The same."""


class Protocol(asyncio.Protocol):
    """One WebSocket, as uvicorn makes it: with the server's configuration, its shared state, and what lifespan left.

    All that writes does so through `transport`, looked up at each call: docs/scope.md.
    """

    transport: asyncio.Transport
    client: tuple[str, int] | None
    """The peer's address. A transport of TLS that was closed cannot be asked any more."""
    handshake: WebSocketHandshake
    codec: WebSocketCodec
    scope: dict[str, Any]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.config = config
        self.loop = _loop or asyncio.get_event_loop()
        self.logger = logging.getLogger("uvicorn.error")
        self.server_state = server_state
        self.app_state = app_state
        self.stage = Stage.HANDSHAKE
        self.mailbox = Mailbox(self.loop)
        self.denial: Denial | None = None
        self.misdeed: Misdeed | None = None
        """What the peer did behind messages that the application has yet to take: it may still answer them."""
        self.has_closed = False
        """The application has sent its Close, or its whole answer."""
        self.is_lost = False
        self.is_reading_paused = False
        self.owes_pongs = False
        """Pongs wait in the transport beyond its mark: who does not read gets no more of them."""
        self.writable: asyncio.Event | None = None
        """Set once the transport's buffer has room again; None while it has."""
        self.close_timeout = CLOSE_TIMEOUT_S
        self.close_timer: asyncio.TimerHandle | None = None
        self.ping_timer: asyncio.TimerHandle | None = None
        self.pong_timer: asyncio.TimerHandle | None = None
        self.ping_payload: bytes | None = None
        """Of the ping that is under way."""
        self.ping_sent_at = 0.0
        self.round_trip_s = 0.0

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """uvicorn's HTTP protocol hands its transport over."""
        self.transport = cast(asyncio.Transport, transport)
        self.client = get_remote_addr(self.transport)
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        self.trace("WebSocket connection made")

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.is_lost = True
        self.stage = Stage.OVER
        self.server_state.connections.discard(self)
        self.trace("WebSocket connection lost")
        self.stop_timers()
        self.mailbox.end({"type": "websocket.disconnect", "code": ABNORMAL})
        self.resume_writing()
        if exc is None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes of the request's head, whole, or of frames."""
        if self.stage is Stage.OPEN or self.stage is Stage.CLOSING:
            self.hear(data)
        elif self.stage is Stage.HANDSHAKE:
            self.begin(data)
        elif self.stage is Stage.CONNECTING:
            self.codec.receive(data, 0)
            self.regulate()

    def eof_received(self) -> None:
        """The peer sends nothing more: the transport closes itself."""

    def pause_writing(self) -> None:
        """The transport's buffer is above its mark."""
        if self.writable is None:
            self.writable = asyncio.Event()

    def resume_writing(self) -> None:
        """It is below its mark again."""
        if self.writable is not None:
            self.writable.set()
            self.writable = None
        if self.owes_pongs:
            self.owes_pongs = False
            self.read_on()

    # What uvicorn says

    def shutdown(self) -> None:
        """The server stops: 1012 to who is connected, 500 to who is not yet."""
        if self.stage is Stage.OPEN:
            self.mailbox.end({"type": "websocket.disconnect", "code": RESTART})
            self.transport.write(self.codec.close(RESTART))
        elif self.stage is Stage.CONNECTING:
            self.answer_500()
        self.finish()

    # Bytes

    def begin(self, head: bytes) -> None:
        """Read the request, and start the application."""
        if len(head) > HEAD_BYTES_MAX:
            text = f"request head has {len(head)} bytes, over {HEAD_BYTES_MAX}"
            self.deny(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text.encode())
            return
        read = read_handshake(head, deflates=self.config.ws_per_message_deflate)
        if isinstance(read, bytes):
            self.transport.write(read)
            self.finish()
            return
        self.handshake = read
        self.codec = read.codec(self.config.ws_max_size)
        root_path = self.config.root_path
        self.scope = {
            "type": "websocket",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": self.client,
            "root_path": root_path,
            "path": root_path + unquote(read.raw_path.decode("ascii")),
            "raw_path": root_path.encode("ascii") + read.raw_path,
            "query_string": read.query,
            "headers": read.headers,
            "subprotocols": read.subprotocols,
            "state": self.app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }
        extend(
            self.scope,
            self,
            receive=self.receive,
            send=self.send,
            state=self.offered_state,
            deflate=read.deflates,
            take=self.give_away,
        )
        self.stage = Stage.CONNECTING
        self.mailbox.put({"type": "websocket.connect"})
        task = self.loop.create_task(self.run())
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    def offered_state(self) -> State:
        """How far it has come, for the scope's extension."""
        if self.stage is Stage.OPEN:
            return "open"
        return "connecting" if self.stage is Stage.CONNECTING else "closed"

    def give_away(self, to: Callable[[int], object]) -> bool:
        """Have `to` take the socket, before anything is answered; for the scope's extension."""
        if self.codec.has_rest or not give_away(self.transport, to):
            return False
        self.log_answer("[given away]")
        self.stage = Stage.OVER
        return True

    def hear(self, data: bytes) -> None:
        """Deal with what frames say, as far as there is room for it."""
        events = self.mailbox.events
        room = max(1, self.config.ws_max_queue - len(events))
        while True:
            for event in self.codec.receive(data, room):
                if isinstance(event, str):
                    if self.stage is Stage.OPEN:
                        self.mailbox.put({"type": "websocket.receive", "text": event})
                elif isinstance(event, bytes):
                    if self.stage is Stage.OPEN:
                        self.mailbox.put({"type": "websocket.receive", "bytes": event})
                else:
                    self.heed(event)
            if self.stage is not Stage.CLOSING or not self.codec.has_rest:
                break
            data = b""
        self.regulate()

    def heed(self, event: Ping | Pong | CloseFrame | Misdeed) -> None:
        """Deal with what is no message."""
        if isinstance(event, Pong):
            self.heed_pong(event.payload)
        elif isinstance(event, Misdeed):
            self.misdeed = event
            if not self.mailbox.events:
                self.fail()
        elif isinstance(event, CloseFrame):
            if self.stage is Stage.OPEN:
                self.mailbox.end({"type": "websocket.disconnect", "code": event.code, "reason": event.reason})
                code = event.code if may_be_sent(event.code) else None
                self.transport.write(self.codec.close(code, event.reason))
            self.finish()
        elif self.stage is Stage.OPEN and not self.transport.is_closing():  # else asyncio warns for each of a flood
            self.transport.write(self.codec.pong(event.payload))
            self.owes_pongs = self.writable is not None

    def fail(self) -> None:
        """End for the peer's misdeed (RFC 6455 §7.1.7)."""
        misdeed, self.misdeed = self.misdeed, None
        if misdeed is None or self.stage is not Stage.OPEN:
            self.finish()
            return
        self.mailbox.end({"type": "websocket.disconnect", "code": misdeed.code, "reason": misdeed.reason})
        self.transport.write(self.codec.close(misdeed.code, misdeed.reason))
        self.finish(lingers=True)

    def finish(self, *, lingers: bool = False) -> None:
        """Hear and send nothing more. What is written still goes out.

        With `lingers` what still comes is dropped for a while: a socket closed with bytes unread is reset, and then
        what was written last may never be read.
        """
        self.stage = Stage.OVER
        self.stop_timers()
        if lingers:
            self.close_timer = self.loop.call_later(LINGER_S, self.give_up)
            self.regulate()
            self.transport = cast(asyncio.Transport, Ended(self.transport))
        else:
            self.transport.close()

    def give_up(self) -> None:
        """The peer took its time."""
        self.close_timer = None
        self.transport.close()

    def regulate(self) -> None:
        """Read only as long as somebody takes what comes."""
        if self.stage is Stage.OPEN:
            waits = self.codec.has_rest or self.misdeed is not None
            pauses = waits or self.mailbox.surplus > 0 or self.owes_pongs
        else:
            pauses = self.stage is Stage.CONNECTING and self.codec.has_rest
        if pauses is not self.is_reading_paused and not self.transport.is_closing():
            self.is_reading_paused = pauses
            if pauses:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def read_on(self) -> None:
        """Somebody may take more."""
        if self.stage in (Stage.OPEN, Stage.CLOSING) and self.codec.has_rest:
            self.hear(b"")
        else:
            self.regulate()

    # Keepalive

    def stop_timers(self) -> None:
        """None of them fires any more."""
        for timer in (self.close_timer, self.ping_timer, self.pong_timer):
            if timer is not None:
                timer.cancel()
        self.close_timer = self.ping_timer = self.pong_timer = None
        self.ping_payload = None

    def schedule_ping(self) -> None:
        """The next ping, so long after the last one was sent."""
        if self.config.ws_ping_interval:
            delay_s = max(0.0, self.config.ws_ping_interval - self.round_trip_s)
            self.ping_timer = self.loop.call_later(delay_s, self.send_ping)

    def send_ping(self) -> None:
        """A ping, whose pong has to come in time."""
        self.ping_timer = None
        self.ping_payload = os.urandom(PING_BYTES)
        self.ping_sent_at = self.loop.time()
        self.transport.write(self.codec.ping(self.ping_payload))
        if self.config.ws_ping_timeout is None:
            self.schedule_ping()
        else:
            self.pong_timer = self.loop.call_later(self.config.ws_ping_timeout, self.miss_pong)

    def heed_pong(self, payload: bytes) -> None:
        """The peer is there, if this answers the ping that is under way."""
        if payload != self.ping_payload:
            return
        self.ping_payload = None
        self.round_trip_s = self.loop.time() - self.ping_sent_at
        if self.pong_timer is not None:
            self.pong_timer.cancel()
            self.pong_timer = None
            self.schedule_ping()

    def miss_pong(self) -> None:
        """The pong did not come in time: 1011. While we do not read, that says nothing about the peer."""
        self.pong_timer = None
        if self.is_reading_paused and self.config.ws_ping_timeout is not None:
            self.pong_timer = self.loop.call_later(self.config.ws_ping_timeout, self.miss_pong)
            return
        self.trace("WebSocket keepalive ping timeout")
        reason = "keepalive ping timeout"
        self.mailbox.end({"type": "websocket.disconnect", "code": INTERNAL_ERROR, "reason": reason})
        self.transport.write(self.codec.close(INTERNAL_ERROR, reason))
        self.finish()

    # The application

    async def run(self) -> None:
        """Run it; what it leaves open is ended."""
        try:
            result = await self.config.loaded_app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException:
            self.logger.exception("Exception in ASGI application\n")
            self.answer_500()
        else:
            if self.stage is Stage.CONNECTING:
                self.logger.error("ASGI callable returned without completing handshake.")
                self.answer_500()
            elif result is not None:
                self.logger.error("ASGI callable should return None, but returned '%s'.", result)
        if self.denial is not None and not self.denial.is_begun and self.stage is Stage.DENIED:
            if self.denial.promises_body:  # which never came
                self.deny(HTTPStatus.INTERNAL_SERVER_ERROR, b"Internal Server Error")
            else:
                self.transport.write(self.denial.begin(0))
        if self.close_timer is None:
            self.finish()

    async def receive(self) -> Event:
        """The next event; at the end, always the same one."""
        mailbox = self.mailbox
        while not mailbox.events:
            if self.misdeed is not None:
                self.fail()
            if mailbox.ending is not None:
                return mailbox.ending
            await mailbox.wait()
        event = mailbox.events.popleft()
        if not mailbox.events and self.is_reading_paused:
            self.read_on()
        return event

    async def send(self, message: Event) -> None:
        """Do as the application says; waits while the transport's buffer is above its mark."""
        while self.writable is not None:
            await self.writable.wait()
        if self.stage is Stage.OPEN:
            self.send_open(message)
        elif self.is_lost:
            raise ClientDisconnected
        elif self.stage is Stage.CONNECTING:
            self.send_first(message)
        elif self.stage is Stage.DENIED:
            self.send_denial(message)
        elif self.has_closed:
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}', after sending 'websocket.close'.")
        elif message["type"] != "websocket.close":
            raise ClientDisconnected

    def send_open(self, message: Event) -> None:
        """A message, or the Close."""
        kind = message["type"]
        if kind == "websocket.send":
            data, text = message.get("bytes"), message.get("text")
            if data is not None:
                self.transport.write(self.codec.binary(data))
            elif text is not None:
                self.transport.write(self.codec.text(text))
            else:
                raise RuntimeError("ASGI message 'websocket.send' has neither 'bytes' nor 'text'.")
        elif kind == "websocket.close":
            code, reason = message.get("code", 1000), message.get("reason") or ""
            self.transport.write(self.codec.close(code, reason))
            self.has_closed = True
            self.stage = Stage.CLOSING
            self.stop_timers()
            self.mailbox.end({"type": "websocket.disconnect", "code": code, "reason": reason})
            self.close_timer = self.loop.call_later(self.close_timeout, self.give_up)
            self.read_on()
        else:
            raise RuntimeError(f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'.")

    def send_first(self, message: Event) -> None:
        """The answer to the request, or its beginning."""
        kind = message["type"]
        if kind == "websocket.accept":
            self.log_answer("[accepted]")
            own = message.get("headers") or ()
            headers = [*self.server_state.default_headers, *own]
            self.transport.write(self.handshake.accept(message.get("subprotocol") or None, headers))
            self.stage = Stage.OPEN
            self.schedule_ping()
            self.read_on()
        elif kind == "websocket.close":
            self.log_answer(HTTPStatus.FORBIDDEN.value)
            self.deny(HTTPStatus.FORBIDDEN, b"")
        elif kind == "websocket.http.response.start":
            own = message.get("headers") or ()
            self.denial = Denial(message["status"], own, self.server_state.default_headers)
            self.stage = Stage.DENIED
            self.log_answer(self.denial.status)
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' "
                f"or 'websocket.http.response.start' but got '{kind}'."
            )

    def send_denial(self, message: Event) -> None:
        """More of a response."""
        assert self.denial is not None
        if message["type"] != "websocket.http.response.body":
            raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body' but got '{message['type']}'.")
        self.transport.write(self.denial.write(message))
        if not message.get("more_body", False):
            self.end_denied()

    def deny(self, status: HTTPStatus, body: bytes) -> None:
        """A whole response."""
        self.denial = Denial(status, (), self.server_state.default_headers)
        self.transport.write(self.denial.write({"body": body}))
        self.end_denied()

    def end_denied(self) -> None:
        """The response is written."""
        self.has_closed = True
        self.mailbox.end({"type": "websocket.disconnect", "code": ABNORMAL})
        self.finish()

    def answer_500(self) -> None:
        """Where nothing was answered yet."""
        if self.stage is Stage.CONNECTING:
            self.deny(HTTPStatus.INTERNAL_SERVER_ERROR, b"Internal Server Error")

    # Lines of the log

    def log_answer(self, answer: str | int) -> None:
        """As uvicorn logs what a WebSocket was answered."""
        client, path = get_client_addr(self.scope), get_path_with_query_string(self.scope)  # type: ignore[arg-type]
        self.logger.info('%s - "WebSocket %s" %s', client, path, answer)

    def trace(self, text: str) -> None:
        """As uvicorn traces a connection."""
        if self.logger.level <= TRACE_LOG_LEVEL:
            client = f"{self.client[0]}:{self.client[1]} - " if self.client else ""
            self.logger.log(TRACE_LOG_LEVEL, "%s%s", client, text)
