"""Frames of WebSockets (RFC 6455 §5): those to the engine, whose client we are, and a server's. Not here: sockets."""

from collections.abc import Iterator
from typing import NamedTuple

from fanwire.wording import cut_reason

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NO_CODE = 1005
"""Stands for a Close frame without a code (RFC 6455 §7.1.5)."""
_CONTINUATION = 0
_FIN = 0x80
_MASKED = 0x80
_NO_MASK = bytes(4)
"""A client's frames are masked (§5.3), against proxies that read them as something else; between us there is none."""


class Framed(NamedTuple):
    """A whole message, or a control frame."""

    opcode: int
    payload: bytes

    @property
    def data(self) -> str | bytes:
        """A message's payload as frameworks send it."""
        return self.payload.decode() if self.opcode == TEXT else self.payload


def _head(opcode: int, count: int, mask: int = 0) -> bytes:
    if count < 126:
        return bytes((_FIN | opcode, mask | count))
    if count < 1 << 16:
        return bytes((_FIN | opcode, mask | 126)) + count.to_bytes(2, "big")
    return bytes((_FIN | opcode, mask | 127)) + count.to_bytes(8, "big")


def server_frame(opcode: int, payload: bytes) -> bytes:
    """One whole message as a server sends it: not masked, and not compressed."""
    return _head(opcode, len(payload)) + payload


def server_message(data: str | bytes) -> bytes:
    """The same of a text or bytes."""
    return server_frame(TEXT, data.encode()) if isinstance(data, str) else server_frame(BINARY, data)


def frame(opcode: int, payload: bytes) -> bytes:
    """One frame to the engine."""
    return _head(opcode, len(payload), _MASKED) + _NO_MASK + payload


def close_frame(code: int, reason: str) -> bytes:
    """The client's Close: without a code where there was none."""
    return frame(CLOSE, b"" if code == NO_CODE else code.to_bytes(2, "big") + cut_reason(reason).encode())


def close_of(payload: bytes) -> tuple[int, str]:
    """Code and reason of a Close; 1000 where it has none, as ASGI says it."""
    if len(payload) < 2:
        return 1000, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")


class Frames:
    """The engine's frames, out of bytes as they come. A message that is not whole waits; the hub bounds its size."""

    def __init__(self) -> None:
        # Bytes that are no whole frame yet, and how many there must be before it is worth a look.
        self._parts: list[bytes] = []
        self._count = 0
        self._wanted = 2
        # Of a message in several frames.
        self._opcode = 0
        self._fragments: list[bytes] = []

    def take(self, data: bytes) -> Iterator[Framed]:
        """What is whole now, in order."""
        self._parts.append(data)
        self._count += len(data)
        if self._count < self._wanted:
            return
        data = b"".join(self._parts) if len(self._parts) > 1 else data
        at = 0
        while (found := _whole(data, at))[0]:
            opcode, start, end = found[1:]
            yield from self._message(opcode, data[start:end])
            at = end
        self._parts, self._count, self._wanted = [data[at:]], len(data) - at, found[3]

    def _message(self, first: int, payload: bytes) -> Iterator[Framed]:
        opcode = first & 0x0F
        if opcode >= CLOSE or (first & _FIN and opcode != _CONTINUATION):
            yield Framed(opcode, payload)
            return
        self._opcode = opcode or self._opcode
        self._fragments.append(payload)
        if first & _FIN:
            yield Framed(self._opcode, b"".join(self._fragments))
            self._fragments.clear()


def _whole(data: bytes, at: int) -> tuple[bool, int, int, int]:
    """Whether a whole frame stands there, its first byte, where its payload begins, and where it ends.

    Of one that is not whole the last is how many bytes of it there must be first.
    """
    there = len(data) - at
    if there < 2:
        return False, 0, 0, 2
    count, start = data[at + 1], at + 2
    if count >= 126:
        size = 2 if count == 126 else 8
        if there < 2 + size:
            return False, 0, 0, 2 + size
        start += size
        count = int.from_bytes(data[start - size : start], "big")
    if len(data) < start + count:
        return False, 0, 0, start + count - at
    return True, data[at], start, start + count
