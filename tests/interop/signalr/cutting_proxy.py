"""A TCP proxy before a hub, in a thread of its own, that loses connections when it is told to."""

import asyncio
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import cast
from urllib.parse import urlsplit

from anyio.from_thread import BlockingPortal, start_blocking_portal

WITHIN_S = 10
PIECE_BYTES = 64 << 10
RESET_AT_CLOSE = struct.pack("ii", 1, 0)
REQUEST = re.compile(rb"([A-Z]+ /\w*(?:/\w+)?)[? ]")


class Loss(Enum):
    """How a connection gets lost."""

    RESET = "both ends get a reset"
    CLOSED = "both ends get an orderly end"
    UNNOTICED = "the client gets a reset, the hub nothing"


@dataclass(eq=False)
class Pair:
    """A client's connection and the one to the hub that belongs to it."""

    client: asyncio.StreamWriter
    hub: asyncio.StreamWriter
    is_lost: bool = False

    def lose(self, loss: Loss) -> None:
        """End it; nothing is passed on any more."""
        self.is_lost = True
        for writer in (self.client,) if loss is Loss.UNNOTICED else (self.client, self.hub):
            if loss is not Loss.CLOSED and not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            writer.transport.abort()


async def ended(writer: asyncio.StreamWriter) -> None:
    """Close it, and wait until it is."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


class CuttingProxy:
    """Passes on what comes, and notes each request and connection.

    While it is mute, what the hub says is swallowed. While it holds, a new connection is accepted and waits.
    """

    def __init__(self, hub: str) -> None:
        self.url = ""
        self.requests: list[str] = []
        self._hub = urlsplit(hub)
        self._accepted = 0
        self._swallowed = b""
        self._pairs: list[Pair] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._is_mute = False
        self._may_pass = asyncio.Event()
        self._may_pass.set()
        self._portal: BlockingPortal

    @classmethod
    @contextmanager
    def before(cls, hub: str) -> Iterator["CuttingProxy"]:
        """A proxy before the hub at this address."""
        with start_blocking_portal("asyncio") as portal:
            proxy = portal.call(cls, hub)
            proxy._portal = portal
            server = portal.call(proxy._listen)
            try:
                yield proxy
            finally:
                portal.call(proxy._close, server)

    @property
    def accepted(self) -> int:
        """Connections up to now."""
        return self._accepted

    def mute(self) -> None:
        """From now on, and until the cut, clients hear nothing."""
        self._portal.call(setattr, self, "_is_mute", True)

    def cut(self, loss: Loss, *, is_holding: bool = False) -> None:
        """Lose every connection; with `is_holding` new ones wait for `release`."""
        self._portal.call(self._cut, loss, is_holding)

    def release(self) -> None:
        """What waits is passed on."""
        self._portal.call(self._may_pass.set)

    def wait_for_connections(self, count: int) -> None:
        """Until there have been so many."""
        self._portal.call(self._until, lambda: self._accepted >= count)

    def wait_for_swallowed(self, text: bytes) -> None:
        """Until the hub has said this to a client that does not hear it."""
        self._portal.call(self._until, lambda: text in self._swallowed)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S), self._changed:
            await self._changed.wait_for(is_so)

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _cut(self, loss: Loss, is_holding: bool) -> None:
        if is_holding:
            self._may_pass.clear()
        self._is_mute = False
        for pair in self._pairs:
            if not pair.is_lost:
                pair.lose(loss)

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(cast("asyncio.Task[None]", asyncio.current_task()))
        self._accepted += 1
        await self._note()
        with suppress(asyncio.CancelledError, OSError):
            await self._connect(reader, writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with AsyncExitStack() as open_ones:
            open_ones.push_async_callback(ended, writer)
            await self._may_pass.wait()
            hub_reader, hub_writer = await asyncio.open_connection(self._hub.hostname, self._hub.port)
            open_ones.push_async_callback(ended, hub_writer)
            self._pairs.append(pair := Pair(writer, hub_writer))
            await asyncio.gather(self._pass_up(pair, reader), self._pass_down(pair, hub_reader))

    async def _pass_up(self, pair: Pair, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                if request := REQUEST.match(piece):
                    self.requests.append(request[1].decode())
                pair.hub.write(piece)
                await pair.hub.drain()
            if not pair.is_lost:
                pair.hub.write_eof()

    async def _pass_down(self, pair: Pair, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                if self._is_mute:
                    self._swallowed += piece
                    await self._note()
                elif not pair.is_lost:
                    pair.client.write(piece)
                    await pair.client.drain()
            if not pair.is_lost:
                pair.client.write_eof()
