"""What goes wrong with attached connections: half closed ones, TLS, loops that are closed, processes that fork."""

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from support.certificates import authority, signed_by
from support.frameworks import SERVERS, client, received, send_text
from support.loops import with_transports
from support.waiting import until
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

pytestmark = pytest.mark.anyio
anyio_backend = with_transports


class Room:
    """A hub and what is attached to it."""

    def __init__(self) -> None:
        self.hub = fanwire.Hub()
        self.connections: list[Any] = []

    async def route(self, connection: Any) -> None:
        """Until the client leaves."""
        self.hub.attach(connection, ["a"])
        self.connections.append(connection)
        while await received(connection) is not None:
            pass


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest) -> Any:
    """One of the servers."""
    return SERVERS[request.param]


async def receive(peer: Any, count: int) -> list[Any]:
    """So many messages."""
    async with asyncio.timeout(8):
        return [await peer.recv() for _ in range(count)]


async def test_one_that_is_half_closed_hurts_nobody(served: Any) -> None:
    room = Room()
    async with room.hub.serve(), served(room.route) as url, client(url) as half, client(url) as other:
        await until(lambda: len(room.connections) == 2)
        half.transport.write_eof()
        for number in range(100):
            room.hub.publish("a", str(number))
        assert await receive(other, 100) == [str(number) for number in range(100)]
        room.connections.clear()


async def test_one_that_its_framework_closes_in_the_same_turn_gets_no_more(served: Any) -> None:
    hub = fanwire.Hub()
    closed: list[Any] = []

    async def route(connection: Any) -> None:
        hub.attach(connection, ["a"])
        closing = asyncio.create_task(connection.close())
        await asyncio.wait([closing], timeout=0)
        hub.publish("a", "too late")
        await closing
        closed.append(connection)
        hub.detach(connection)

    async with hub.serve(), served(route) as url, client(url) as peer:
        assert [message async for message in peer] == []
        assert peer.close_code == 1000
        await until(lambda: closed)
        with pytest.raises(fanwire.AdoptionError, match="closed"):
            hub.attach(closed.pop(), ["a"])


async def test_tls_in_python(tmp_path: Path) -> None:
    room = Room()
    trusted = authority(tmp_path)
    context = await anyio.to_thread.run_sync(signed_by, trusted)
    async with room.hub.serve(), serve(room.route, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        trust = ssl.create_default_context(cafile=str(trusted))
        async with connect(f"wss://localhost:{port}", host="127.0.0.1", ssl=trust, proxy=None) as peer:
            await until(lambda: room.connections)
            wanted = []
            for number in range(300):
                room.hub.publish("a", f"{number} {'x' * 1_000}")
                wanted.append(f"{number} {'x' * 1_000}")
            assert await receive(peer, 300) == wanted
            await send_text(room.connections[0], "its own")
            assert await receive(peer, 1) == ["its own"]
        room.connections.clear()


async def test_another_loop_of_the_same_thread(served: Any) -> None:
    room = Room()
    async with served(room.route) as url:
        await room.hub.start()
        async with client(url) as peer:
            await until(lambda: room.connections)
            (connection,) = room.connections

            async def elsewhere() -> None:
                for call in (room.hub.attach, room.hub.detach):
                    with pytest.raises(RuntimeError, match="another"):
                        call(connection, ["a"])

            await asyncio.to_thread(asyncio.run, elsewhere())
            room.hub.publish("a", "still")
            assert await receive(peer, 1) == ["still"]
        room.connections.clear()
        await room.hub.stop()


async def test_a_child_that_was_forked_refuses_and_the_parent_goes_on(served: Any) -> None:
    room = Room()
    async with room.hub.serve(), served(room.route) as url, client(url) as peer:
        await until(lambda: room.connections)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                said = "attached"
                try:
                    room.hub.attach(room.connections[0], ["b"])
                except fanwire.HubStopped as error:
                    said = str(error)
                room.hub.detach(room.connections[0])
                os.write(writing, said.encode())
            finally:
                os._exit(0)
        os.close(writing)
        assert b"is a fork" in await anyio.to_thread.run_sync(os.read, reading, 1_000)
        os.close(reading)
        os.waitpid(child, 0)
        room.hub.publish("a", "in the parent")
        assert await receive(peer, 1) == ["in the parent"]
        room.connections.clear()
