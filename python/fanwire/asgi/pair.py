"""Our end of a pair of sockets whose other end the engine serves, awaited under asyncio, uvloop and trio alike."""

import socket
from contextlib import suppress
from types import TracebackType
from typing import Protocol

import anyio
from anyio.lowlevel import checkpoint

RECEIVED_BYTES_MAX = 64 << 10
"""Of one read. What waits in the pair itself is the kernel's to bound, some 200 KiB each way."""


class Welcoming(Protocol):
    """What serves the other end: an ``Engine``."""

    def welcome(self, fd: int, client: str = "") -> None:
        """Serve that socket, whose client is there."""


class Pair:
    """One such end; a context manager, which closes it: the engine then sees that its client has left."""

    def __init__(self, engine: Welcoming, client: str) -> None:
        """Hands the other end in.

        Args:
            client: the address that the application is told.

        Raises:
            OSError: there are no descriptors left.
            HubStopped: the engine has ended.
        """
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            engine.welcome(theirs.fileno(), client)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        theirs.detach()
        self._socket = ours

    def __enter__(self) -> "Pair":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._socket.close()

    async def receive(self) -> bytes:
        """Some bytes, or none at the end. Others have their turn even where there are always some."""
        has_waited = False
        while True:
            try:
                data = self._socket.recv(RECEIVED_BYTES_MAX)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
                has_waited = True
                continue
            except ConnectionResetError:  # it left something of ours unread
                return b""
            if not has_waited:
                await checkpoint()
            return data

    async def send(self, data: bytes) -> None:
        """Send all of it, as fast as the engine reads. Raises OSError where that has ended."""
        view = memoryview(data)
        while True:
            view = view[self.send_now(view) :]
            if not view:
                return
            await anyio.wait_writable(self._socket)

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what there is room for; gives how many bytes that was. Raises OSError as ``send``."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def break_off(self) -> None:
        """The client is gone without a word: both ends see the end."""
        with suppress(OSError):  # the engine's end is gone
            self._socket.shutdown(socket.SHUT_RDWR)
