"""Several broadcasts in one turn of the event loop: from the second on each socket is written to once, at its end."""

import logging
import threading
from collections.abc import Sequence
from typing import Any

from fanwire.adapters.foreign import Foreign
from fanwire.adopt.proxy import Proxy


class JoinedPipe:
    """What stands before a transport until the loop turns, and keeps messages for it.

    Whatever else is called comes behind them: they go out first.
    """

    __slots__ = ("_frames", "_holders", "_kept_bytes", "_log", "real")

    def __init__(self, real: Any, foreign: Foreign) -> None:
        self.real = real
        """The transport."""
        self._frames: list[bytes] = []
        self._kept_bytes = 0
        self._log = foreign.log
        self._holders: Sequence[tuple[Any, str]] = foreign.holders
        for holder, name in self._holders:
            setattr(holder, name, self)

    def push(self, frame: bytes) -> None:
        """Write it when the loop turns."""
        self._frames.append(frame)
        self._kept_bytes += len(frame)

    def flush(self) -> None:
        """Write what was kept."""
        if self._frames:
            frames, self._frames, self._kept_bytes = self._frames, [], 0
            self.real.write(b"".join(frames))

    def leave(self) -> None:
        """Write what was kept, and have the transport stand where it stood. Raises nothing."""
        try:
            self.flush()
        except Exception as error:
            self._log.log(logging.WARNING, "skipped broadcast: failed to write messages: %r", error)
        for holder, name in self._holders:
            if getattr(holder, name) is self:
                setattr(holder, name, self.real)

    # A transport's methods

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Behind what was kept."""
        self.flush()
        self.real.write(data)

    def writelines(self, lines: Sequence[bytes | bytearray | memoryview]) -> None:
        """Behind what was kept."""
        self.flush()
        self.real.writelines(lines)

    def write_eof(self) -> None:
        """Behind what was kept."""
        self.flush()
        self.real.write_eof()

    def close(self) -> None:
        """Behind what was kept."""
        self.flush()
        self.real.close()

    def abort(self) -> None:
        """At once."""
        self._frames.clear()
        self._kept_bytes = 0
        self.real.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken, with those that are kept."""
        return self._kept_bytes + int(self.real.get_write_buffer_size())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


JOINED_BYTES_MAX = 4096
"""Behind a longer message a task lets the loop turn, so that clients can take it."""
BROADCASTS_MAX = 64
"""After so many in one turn a task that goes on should let the loop turn: until then nothing is read."""


class Turn(threading.local):
    """The turn that the loop of this thread is in."""

    def __init__(self) -> None:
        self._loop: Any = None
        self._joined: list[JoinedPipe] = []
        self._begun = 0

    @property
    def is_long(self) -> bool:
        """Whether it is time that the loop turns."""
        return self._begun >= BROADCASTS_MAX

    def begin(self, loop: Any) -> bool:
        """Whether there was a broadcast in this turn before."""
        if self._loop is loop:
            self._begun += 1
            return True
        self._begun = 1
        for joined in self._joined:  # of a loop that was closed in its last turn
            joined.leave()
        self._joined = []
        call_soon = getattr(loop, "call_soon", None)
        if call_soon is not None:
            self._loop = loop
            call_soon(self._end)
        return False

    def push(self, pipe: Any, foreign: Foreign, frame: bytes) -> None:
        """Write a message by a transport when the turn ends."""
        if type(pipe) is JoinedPipe:
            pipe.push(frame)
        elif type(pipe) is Proxy:  # whose engine does the same
            pipe.write(frame)
        else:
            joined = JoinedPipe(pipe, foreign)
            joined.push(frame)
            self._joined.append(joined)

    def _end(self) -> None:
        self._loop = None
        ended, self._joined = self._joined, []
        for joined in ended:
            joined.leave()
