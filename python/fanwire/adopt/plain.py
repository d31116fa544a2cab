"""A connection that is written to in the event loop, where the engine cannot write to its socket.

To the engine it is a client as any other: it writes to one end of a pair of sockets, and a task here reads the other
and sends. So what waits for it waits in the channels' logs, and their policies say what becomes of it.
"""

import logging
import socket
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from fanwire._engine import Adopted
from fanwire._loop import readable
from fanwire.adapters.foreign import Foreign
from fanwire.adopt.proxy import ask
from fanwire.faults import Faults
from fanwire.frames import CLOSE, Framed, Frames, server_frame
from fanwire.logs import hub_log

BUFFER_BYTES = 16_384
"""So much of the pair's is between the engine and the framework; the kernel counts it double."""
READ_BYTES = 65_536


def joined(waiting: deque[Framed]) -> Iterator[bytes]:
    """Takes the messages that are there, up to a close."""
    while waiting and waiting[0].opcode != CLOSE:
        yield server_frame(*waiting.popleft())


class Plain:
    """One of them, in a task of its own: who is stalled holds up nobody.

    The connection is held weakly: one that its program has forgotten ends here as well.
    """

    __slots__ = (
        "__weakref__",
        "_ended",
        "_faults",
        "_kind",
        "_ours",
        "adopted",
        "channels",
        "closed_with",
        "foreign",
        "identity",
    )

    def __init__(
        self, adopt: Callable[[int], Adopted], foreign: Foreign, faults: Faults, ended: Callable[["Plain"], None]
    ) -> None:
        self.channels: set[str] = set()
        """What it is subscribed to."""
        self._kind = type(foreign)
        self._faults = faults
        self._ended = ended
        self.closed_with: int | None = None
        """The code with which it was closed here."""
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            try:
                self.adopted = adopt(theirs.fileno())
                """The engine's end."""
            except BaseException:
                self._ours.close()
                raise
        self.adopted.begin()
        forget = weakref.WeakMethod(self.release)

        def collected(_: object) -> None:
            release = forget()
            if release is not None:
                release()

        self.foreign: weakref.ref[Any] = weakref.ref(foreign.connection, collected)
        """Whose it is."""
        self.identity: weakref.ref[Any] = weakref.ref(foreign.identity)
        """What else stands for that connection has the same."""

    def release(self) -> None:
        """Have nothing more come, once what was published until now has come."""
        ask(self.adopted.release)

    async def run(self) -> None:
        """Send until the connection is closed, or nothing more comes."""
        frames = Frames()
        try:
            while True:
                try:
                    data = self._ours.recv(READ_BYTES)
                except BlockingIOError:
                    await readable(self._ours.fileno())
                    continue
                if not data:
                    break
                if not await self._send(deque(frames.take(data))):
                    break
        finally:
            self._ours.close()
            ask(self.adopted.abort)
            self._ended(self)

    async def _send(self, waiting: deque[Framed]) -> bool:
        """Whether it can go on.

        As long as the client keeps up, all that is there is one write to its transport. Where that cannot be had, or
        something waits in it, the framework sends one message, and waits as it does.
        """
        while waiting:
            connection = self.foreign()
            if connection is None:
                return False
            foreign = self._kind(connection)
            del connection
            if not foreign.is_open:
                return False
            try:
                pipe = foreign.pipe(foreign.connection)
                frame = waiting[0]
                if frame.opcode == CLOSE:
                    self.closed_with = int.from_bytes(frame.payload[:2])
                    await foreign.close(self.closed_with, frame.payload[2:].decode())
                    return False
                if pipe is None or pipe.get_write_buffer_size():
                    waiting.popleft()
                    await foreign.send(frame.data)
                else:
                    pipe.write(b"".join(joined(waiting)))
            except Exception as error:
                # That clients leave is no news, whatever their framework raises then.
                level = logging.WARNING if foreign.is_open and not isinstance(error, OSError) else logging.DEBUG
                text = "a publication could not be sent"
                self._faults.tell(hub_log, level, f"{foreign.what}: {text}", "%s: %s: %r", foreign.what, text, error)
                return False
        return True
