"""Frames of the engine, as a client would read them: what is published to a connection that the loop writes to."""

from dataclasses import dataclass

TEXT, BINARY, CLOSE = 1, 2, 8


@dataclass(frozen=True, slots=True)
class EngineFrame:
    """A whole message of the engine's, neither masked nor compressed (RFC 6455 §5.2)."""

    whole: bytes
    head_bytes: int

    @property
    def opcode(self) -> int:
        """``TEXT``, ``BINARY`` or ``CLOSE``."""
        return self.whole[0] & 0x0F

    @property
    def payload(self) -> bytes:
        """What was published."""
        return self.whole[self.head_bytes :]

    @property
    def data(self) -> str | bytes:
        """The same as frameworks send it."""
        return self.payload.decode() if self.opcode == TEXT else self.payload


class EngineFrames:
    """Takes bytes and gives frames."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def take(self, data: bytes) -> list[EngineFrame]:
        """Those that are whole by now."""
        self._bytes += data
        held, at = self._bytes, 0
        taken: list[EngineFrame] = []
        while len(held) >= at + 2:
            size, begin = held[at + 1], at + 2
            if size >= 126:
                begin += 2 if size == 126 else 8
                if len(held) < begin:
                    break
                size = int.from_bytes(held[at + 2 : begin])
            if len(held) < begin + size:
                break
            taken.append(EngineFrame(bytes(held[at : begin + size]), begin - at))
            at = begin + size
        del held[:at]
        return taken
