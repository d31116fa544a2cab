"""A real WebSocket client (``websockets``, in worker threads), awaited alike under asyncio, uvloop and trio."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from socket import SHUT_RDWR
from typing import Any

import fanwire
from anyio import CancelScope
from anyio.to_thread import run_sync
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_sync

RECEIVE_WITHIN_S = 60.0


class Peer:
    """One client's end of a connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @property
    def subprotocol(self) -> str | None:
        """What the server chose."""
        return self._connection.subprotocol

    async def send(self, data: str | bytes) -> None:
        """Send one message: text or binary."""
        await run_sync(self._connection.send, data)

    async def send_json(self, **message: Any) -> None:
        """Send the keyword arguments as a JSON object."""
        await self.send(json.dumps(message))

    async def receive(self) -> str | bytes:
        """The next message."""
        return await run_sync(partial(self._connection.recv, timeout=RECEIVE_WITHIN_S))

    async def receive_json(self) -> Any:
        """The next message, parsed."""
        return json.loads(await self.receive())

    async def receive_all(self, count: int) -> list[str | bytes]:
        """The next `count` messages."""

        def receive() -> list[str | bytes]:
            return [self._connection.recv(timeout=RECEIVE_WITHIN_S) for _ in range(count)]

        return await run_sync(receive)

    async def closed(self) -> tuple[int, str]:
        """The close code and reason with which the server ends the connection; what arrives before is dropped."""

        def wait() -> tuple[int, str]:
            try:
                while True:
                    self._connection.recv(timeout=RECEIVE_WITHIN_S)
            except ConnectionClosed as closed:
                return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")

        return await run_sync(wait)

    def break_off(self) -> None:
        """End the socket without a close; blocks."""
        self._connection.socket.shutdown(SHUT_RDWR)

    async def close(self) -> None:
        """The close handshake, from this side."""
        await run_sync(self._connection.close)


@asynccontextmanager
async def connected(address: str, target: str = "/ws", **options: Any) -> AsyncIterator[Peer]:
    """A client that is connected to `target` for as long as the context lasts."""

    def enter() -> tuple[Any, ClientConnection]:
        manager = connect_sync(
            f"ws://{address}{target}", open_timeout=RECEIVE_WITHIN_S, close_timeout=2, proxy=None, **options
        )
        return manager, manager.__enter__()

    manager, connection = await run_sync(enter)
    try:
        yield Peer(connection)
    finally:
        with CancelScope(shield=True):
            await run_sync(manager.__exit__, None, None, None)


async def settle(hub: fanwire.Hub, address: str) -> None:
    """Return once the shard has fanned out all that was published."""
    async with connected(address, "/ws?channel=clock") as peer:
        hub.publish("clock", "")
        await peer.receive()


async def refusal(address: str, target: str = "/ws", **options: Any) -> tuple[int, str]:
    """The status and text with which the upgrade is refused."""
    try:
        async with connected(address, target, **options):
            raise AssertionError("the server accepted the upgrade")
    except InvalidStatus as error:
        return error.response.status_code, (error.response.body or b"").decode().removesuffix("\n")
