"""A raw client in this process that calls methods of a hub: whoever calls decides where something is published."""

import json
import socket
import struct
import threading
from typing import Any, Self

from process import ChildFailed

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
WITHIN_S = 60.0


def masked(text: bytes) -> bytes:
    """A client's frame of a text of at most 65,535 bytes, its mask zeros (RFC 6455 §5.2)."""
    length = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + struct.pack("!H", len(text))
    return b"\x81" + length + bytes(4) + text


class Caller:
    """A raw client, which calls methods of the worker that has it, and may then read what comes and look at nothing."""

    def __init__(self, port: int) -> None:
        """Connect."""
        self._connect(port)
        self.number, self.pid = self.call("worker")

    def _connect(self, port: int, query: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), WITHIN_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"GET /ws{query} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self._socket.sendall(f"{head}Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        self._bytes = b""
        while b"\r\n\r\n" not in self._bytes:
            self._more()
        answer, self._bytes = self._bytes.split(b"\r\n\r\n", 1)
        if b" 101 " not in answer:
            raise ChildFailed(f"the hub answers {answer!r}")

    def __enter__(self) -> Self:
        """It is connected."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave; whoever reads for it ends."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def call(self, method: str, *arguments: object) -> Any:
        """What a method gives."""
        return self._request({"call": method, "args": arguments, "id": 1})

    def read(self, channels: list[str]) -> None:
        """Subscribe, and from now on read what comes."""
        self._request({"subscribe": channels, "id": 1})
        threading.Thread(target=self._read, daemon=True).start()

    def _request(self, request: dict[str, Any]) -> Any:
        self._socket.sendall(masked(json.dumps(request).encode()))
        answer = json.loads(self._frame())
        if "error" in answer:
            raise ChildFailed(f"{request}: {answer['error']}")
        return answer["result"]

    def _frame(self) -> bytes:
        while True:
            length, head = self._bytes[1] if len(self._bytes) > 1 else 0, 2
            if length in (126, 127):
                head = 4 if length == 126 else 10
                length = int.from_bytes(self._bytes[2:head]) if len(self._bytes) >= head else 1 << 40
            if 2 <= head + length <= len(self._bytes):
                frame, self._bytes = self._bytes[: head + length], self._bytes[head + length :]
                return frame[head:]
            self._more()

    def _more(self) -> None:
        read = self._socket.recv(1 << 16)
        if not read:
            raise ChildFailed("the hub has closed")
        self._bytes += read

    def _read(self) -> None:
        self._socket.settimeout(None)
        while self._socket.recv(1 << 18):
            pass
