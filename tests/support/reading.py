"""Clients on sockets of their own, which read when they are told."""

import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress

READ_BYTES = 1 << 18


class Reading(ABC):
    """One of them."""

    socket: socket.socket

    @abstractmethod
    def read_more(self) -> None:
        """Take what comes next; blocks. EOFError where the server has ended."""

    def read_what_is_there(self) -> None:
        """Take all that has come; never waits. EOFError where the server has ended."""
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.read_more()

    def close(self) -> None:
        """Leave without a word."""
        self.socket.close()


@contextmanager
def leaving(*clients: Reading) -> Iterator[None]:
    """All are closed in the end."""
    try:
        yield
    finally:
        for one in clients:
            one.close()
