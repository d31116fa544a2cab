"""A SignalR backend that does at each stage what a test tells it, well or badly: a thread for each connection."""

import base64
import hashlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
SEPARATOR = b"\x1e"
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Session:
    """One connection to the backend, from its side."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self.head = b""
        """Of the request."""
        self.watched: list[Any] = []
        """What it was asked to watch, and agreed."""
        self.records: list[bytes] = []
        """What came on it, as it came; the first is the handshake."""
        self._saying = threading.Lock()

    def read_head(self) -> bool:
        """Read the request; False if none came."""
        while b"\r\n\r\n" not in self._received:
            if not self._more():
                return False
        self.head, _, self._received = self._received.partition(b"\r\n\r\n")
        return True

    def answer(self, status: int, body: bytes = b"", cookies: Iterable[str] = ()) -> None:
        """An answer of HTTP's, which sets cookies."""
        lines = "".join(f"Set-Cookie: {cookie}\r\n" for cookie in cookies)
        head = f"HTTP/1.1 {status} Whatever\r\n{lines}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._connection.sendall(head.encode("latin-1") + body)

    def upgrade(self) -> None:
        """Switch to a WebSocket."""
        fields = dict(line.split(b": ", 1) for line in self.head.split(b"\r\n")[1:])
        key = next(value for name, value in fields.items() if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self._connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def say(self, *messages: dict[str, Any]) -> None:
        """Hub messages, in one frame."""
        self.say_raw(b"".join(json.dumps(message).encode() + SEPARATOR for message in messages))

    def say_raw(self, payload: bytes) -> None:
        """A text frame."""
        length = len(payload)
        size = bytes([length]) if length < 126 else struct.pack("!BQ", 127, length)
        with suppress(OSError), self._saying:
            self._connection.sendall(b"\x81" + size + payload)

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the relay says, until it goes."""
        records = b""
        while (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == 8:
                with suppress(OSError):
                    self._connection.sendall(b"\x88\x02\x03\xe8")
                return
            records += payload if opcode in (0, 1, 2) else b""
            *whole, records = records.split(SEPARATOR)
            self.records += whole
            yield from map(json.loads, whole)

    def hang(self) -> None:
        """Do nothing until the other side gives up."""
        while self._more():
            self._received = b""

    def reset(self) -> None:
        """Break the connection off."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)  # its thread wakes up and closes it

    def end(self) -> None:
        """Have everything that reads here come to its end."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def secure(self, tls: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._connection = tls.wrap_socket(self._connection, server_side=True)

    def close(self) -> None:
        """Give the descriptor back."""
        self._connection.close()

    def _frame(self) -> tuple[int, bytes] | None:
        if not self._fill(2):
            return None
        opcode, length = self._received[0] & 0x0F, self._received[1] & 0x7F
        at = 2 + {126: 2, 127: 8}.get(length, 0)
        if not self._fill(at):
            return None
        length = int.from_bytes(self._received[2:at]) if at > 2 else length
        if not self._fill(at + 4 + length):
            return None
        mask = self._received[at : at + 4]
        masked = self._received[at + 4 : at + 4 + length]
        self._received = self._received[at + 4 + length :]
        return opcode, bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))

    def _fill(self, count: int) -> bool:
        while len(self._received) < count:
            if not self._more():
                return False
        return True

    def _more(self) -> bool:
        try:
            piece = self._connection.recv(65_536)
        except OSError:
            return False
        self._received += piece
        return bool(piece)


def negotiate(session: Session, cookies: Iterable[str] = ()) -> None:
    """As a hub does, behind a balancer that sets these."""
    transports = [{"transport": "WebSockets", "transferFormats": ["Text", "Binary"]}]
    reply = {"connectionId": "a", "connectionToken": "b", "negotiateVersion": 1, "availableTransports": transports}
    session.answer(200, json.dumps(reply).encode(), cookies)


def upgrade(session: Session) -> None:
    """As a hub does."""
    session.upgrade()


def shake_hands(session: Session) -> None:
    """As a hub does."""
    session.say({})


def answer(session: Session, message: dict[str, Any]) -> None:
    """A snapshot for who watches, and for every call its first argument."""
    if message["type"] != 1:
        return
    if message["target"] == "Watch":
        session.watched.append(message["arguments"][0])
        session.say({"type": 1, "target": "Snapshot", "arguments": [message["arguments"][0]]})
    if "invocationId" in message:
        result = next(iter(message["arguments"]), None)
        session.say({"type": 3, "invocationId": message["invocationId"], "result": result})


def hang(session: Session, *arguments: Any) -> None:
    """No answer, at any stage."""
    session.hang()


def answering(status: int, body: bytes = b"") -> Callable[[Session], None]:
    """An answer of HTTP's."""
    return lambda session: session.answer(status, body)


class ScriptedBackend:
    """Listens for as long as it is entered. What it does at a stage may be changed at any time."""

    def __init__(self, address: str = "127.0.0.1:0", tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.negotiate: Callable[[Session], None] = negotiate
        self.upgrade: Callable[[Session], None] = upgrade
        self.shake_hands: Callable[[Session], None] = shake_hands
        self.answer: Callable[[Session, dict[str, Any]], None] = answer
        self.sessions: list[Session] = []
        """Those that are open."""
        self.heads: list[bytes] = []
        """All requests."""
        self.calls: list[dict[str, Any]] = []
        """All messages."""
        self._threads: list[threading.Thread] = []
        host, _, port = address.rpartition(":")
        self._listener = socket.create_server((host, int(port)))
        self.address = f"{host}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "ScriptedBackend":
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for session in list(self.sessions):
            session.end()
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()

    def watching(self, match: str) -> list[Session]:
        """Sessions that watch this."""
        return [session for session in list(self.sessions) if match in session.watched]

    def _start(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(60)
            session = Session(connection)
            self.sessions.append(session)
            self._start(self._serve, session)

    def _serve(self, session: Session) -> None:
        with suppress(OSError, ValueError):  # what it cannot read, such as MessagePack, ends it
            if self._tls is not None:
                session.secure(self._tls)
            self._play(session)
        session.close()
        self.sessions.remove(session)

    def _play(self, session: Session) -> None:
        if not session.read_head():
            return
        self.heads.append(session.head)
        if session.head.startswith(b"POST"):
            self.negotiate(session)
            return
        self.upgrade(session)
        messages = session.messages()
        if next(messages, None) is None:
            return
        self.shake_hands(session)
        for message in messages:
            self.calls.append(message)
            if message["type"] == 7:
                return
            self.answer(session, message)
