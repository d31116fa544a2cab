"""An engine that writes to adopted sockets when a test says so."""

import os
import socket


class FakeAdopted:
    """One socket of it; as ``fanwire._engine.Adopted``. Nothing happens before a turn."""

    def __init__(self, engine: "FakeEngine", fd: int, connection: int) -> None:
        self.engine = engine
        self.connection = connection
        self.socket = socket.socket(fileno=os.dup(fd))
        self.buffer = bytearray()
        self.has_begun = self.is_released = self.is_over = False
        self.below: int | None = None

    @property
    def waiting(self) -> int:
        """What no turn has written."""
        return len(self.buffer)

    def begin(self) -> None:
        """Once."""
        assert not self.has_begun
        self.has_begun = True

    def write(self, data: bytes | bytearray | memoryview, *, wakes: bool = True) -> int | None:
        """Not behind a release."""
        if self.is_released or self.is_over:
            return None
        self.buffer += data
        return len(self.buffer)

    def notify(self, below: int) -> None:
        """Told by a turn."""
        self.below = below

    def release(self) -> None:
        """Once."""
        assert not self.is_released
        self.is_released = True

    def abort(self) -> None:
        """At once; told by a turn."""
        if not self.is_over:
            self.socket.shutdown(socket.SHUT_RDWR)
            self.end("aborted", 0)

    def end(self, why: str, code: int) -> None:
        """Over, and told by a turn."""
        self.is_over = True
        self.buffer.clear()
        self.socket.close()
        self.engine.over.append((self.connection, why, code))

    def turn(self, bytes_max: int) -> None:
        """Write what the socket takes."""
        while self.buffer and bytes_max > 0:
            try:
                taken = self.socket.send(self.buffer[:bytes_max])
            except BlockingIOError:
                break
            except OSError as error:
                self.end("broken", error.errno or 0)
                return
            del self.buffer[:taken]
            bytes_max -= taken
        if self.is_released and not self.buffer:
            self.end("released", 0)


class FakeEngine:
    """Hands them out."""

    def __init__(self) -> None:
        self.sockets: list[FakeAdopted] = []
        self.over: list[tuple[int, str, int]] = []

    def adopt(self, fd: int) -> FakeAdopted:
        """A duplicate of it."""
        self.sockets.append(FakeAdopted(self, fd, len(self.sockets) + 1))
        return self.sockets[-1]

    def turn(self, bytes_max: int = 1 << 30) -> tuple[list[int], list[tuple[int, str, int]]]:
        """Write; gives who has drained, and who is over, why, with which code."""
        drained = []
        for adopted in self.sockets:
            if adopted.has_begun and not adopted.is_over:
                adopted.turn(bytes_max)
            if adopted.below is not None and not adopted.is_over and adopted.waiting <= adopted.below:
                adopted.below = None
                drained.append(adopted.connection)
        over, self.over = self.over, []
        return drained, over
