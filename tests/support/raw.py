"""Bytes on a socket: a WebSocket client that can misbehave."""

import os
import random
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 §1.3
_SEND_BUFFER_MAX = int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])
_GIVEN: set[int] = set()
# A text of which a socket takes only a part: who does not read it lags until it does. A socket that is merely full may
# not stay so: the kernel lets its send buffer grow with each acknowledgement, and the first may come 40 ms late.
MORE_THAN_A_SOCKET_TAKES = "x" * (_SEND_BUFFER_MAX + (1 << 20))


def free_port(ports: range = range(28_000, 32_000)) -> int:
    """One that nobody has, and that nobody is given who asks the kernel for any: those are above 32,768 (ip(7)).

    By chance, as other processes look for one at the same time; tests that run beside this one look among others.
    """
    worker, count = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    own = ports[int(worker.removeprefix("gw")) :: int(count)]
    for port in random.sample(own, len(own)):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port
    raise OSError("no port is free")


def open_socket(address: str, *, receive_buffer: int | None = None) -> socket.socket:
    """A blocking TCP socket to ``HOST:PORT``, with a deadline; `receive_buffer` bytes are set before connecting."""
    host, _, port = address.rpartition(":")
    made = socket.socket()
    made.settimeout(60)
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.connect((host, int(port)))
    return made


def request_text(target: str = "/ws", **fields: str) -> bytes:
    """A valid upgrade request; `fields` replace or, when empty, remove header fields (``sec_websocket_key="…"``)."""
    headers = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-Websocket-Key": KEY,
        "Sec-Websocket-Version": "13",
    }
    headers.update({name.replace("_", "-").title(): value for name, value in fields.items()})
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_head(connection: socket.socket) -> str:
    """The answer's head, with its blank line. What follows it is left in the socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    return head.decode("latin-1")


def upgraded(address: str, target: str = "/ws", *, receive_buffer: int | None = None) -> socket.socket:
    """A socket after the opening handshake."""
    connection = open_socket(address, receive_buffer=receive_buffer)
    connection.sendall(request_text(target))
    head = read_head(connection)
    assert head.startswith("HTTP/1.1 101 "), head
    assert f"sec-websocket-accept: {ACCEPT}".lower() in head.lower()
    return connection


def frame(
    opcode: int, payload: bytes = b"", *, is_final: bool = True, is_masked: bool = True, reserved: int = 0
) -> bytes:
    """One frame (RFC 6455 §5.2) as a client sends it, unless told to misbehave."""
    head = bytearray([(0x80 if is_final else 0) | (reserved << 4) | opcode])
    masked = 0x80 if is_masked else 0
    if len(payload) < 126:
        head.append(masked | len(payload))
    elif len(payload) < 65_536:
        head += bytes([masked | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", len(payload))
    if not is_masked:
        return bytes(head) + payload
    mask = os.urandom(4)
    return bytes(head) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@dataclass
class Received:
    """One frame from the server."""

    opcode: int
    payload: bytes
    is_final: bool = True

    @property
    def close(self) -> tuple[int, str]:
        """Code and reason of a close frame."""
        assert self.opcode == 8, self
        return struct.unpack("!H", self.payload[:2])[0], self.payload[2:].decode()


def read_frame(connection: socket.socket) -> Received:
    """The next frame; EOFError where the server closed the socket."""
    first, second = _exactly(connection, 2)
    assert not second & 0x80, "a server must not mask (RFC 6455 §5.1)"
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", _exactly(connection, 2))
    elif length == 127:
        (length,) = struct.unpack("!Q", _exactly(connection, 8))
    return Received(first & 0x0F, _exactly(connection, length), bool(first & 0x80))


def read_close(connection: socket.socket) -> tuple[int, str]:
    """Code and reason of the close frame that ends the stream; frames before it are dropped."""
    while True:
        received = read_frame(connection)
        if received.opcode == 8:
            return received.close


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError("the server closed the socket")
        data += piece
    return bytes(data)
