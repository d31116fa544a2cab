"""``fanwire.broadcast``: the semantics of ``websockets.broadcast``, for connections of several frameworks."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import fanwire
import pytest
from fanwire.adapters import foreign_of
from fanwire.adopt.joining import JoinedPipe
from fanwire.adopt.proxy import Proxy
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket
from support.frameworks import SERVERS, by_aiohttp, by_sansio, by_uvicorn, by_websockets, client, received, send_text
from support.loops import with_transports
from support.waiting import until
from websockets.asyncio.client import connect
from websockets.exceptions import ConcurrencyError, ConnectionClosed

pytestmark = pytest.mark.anyio
anyio_backend = with_transports


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """One of the servers."""
    return SERVERS[request.param]


class Room:
    """Connections, as a program keeps them."""

    def __init__(self) -> None:
        self.connections: list[Any] = []
        self.heard: list[Any] = []

    async def route(self, connection: Any) -> None:
        """Until the client leaves."""
        self.connections.append(connection)
        while (message := await received(connection)) is not None:
            self.heard.append(message)


async def receive(peer: Any, count: int) -> list[Any]:
    """So many messages."""
    async with asyncio.timeout(60):
        return [await peer.recv() for _ in range(count)]


async def test_all_that_are_open_get_it_and_in_order_with_what_is_sent(served: Any) -> None:
    room = Room()
    async with (
        served(room.route) as url,
        client(url) as one,
        client(url, compression=None) as other,
        client(url) as gone,
    ):
        await until(lambda: len(room.connections) == 3)
        await gone.close()
        fanwire.broadcast(room.connections, "Ä")
        fanwire.broadcast(iter(room.connections), b"\x00\xff")
        fanwire.broadcast(set(room.connections), "Ä".encode(), text=True)
        fanwire.broadcast(room.connections, "text", text=False, raise_exceptions=True)
        fanwire.broadcast(room.connections, memoryview(bytearray(b"view")))
        fanwire.broadcast([], "nobody")
        long, longer = "x" * 200, "y" * 70_000
        fanwire.broadcast(room.connections, long)
        fanwire.broadcast(room.connections, longer)
        wanted = ["Ä", b"\x00\xff", "Ä", b"text", b"view", long, longer]
        assert await receive(one, 7) == wanted and await receive(other, 7) == wanted


@pytest.mark.parametrize("served", [by_aiohttp, by_websockets, by_sansio])
async def test_it_stands_between_what_the_connection_sends_itself(served: Any) -> None:
    room = Room()
    async with served(room.route) as url, client(url) as one:
        await until(lambda: room.connections)
        wanted = []
        for number in range(50):
            await send_text(room.connections[0], f"own {number} " * 50)
            fanwire.broadcast(room.connections, f"all {number} " * 50)
            wanted += [f"own {number} " * 50, f"all {number} " * 50]
        assert await receive(one, 100) == wanted


@pytest.fixture(params=["engine", "alone"])
def writer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who writes: the engine of the loop's own, or transports where there can be none."""
    if request.param == "alone":
        monkeypatch.setattr("fanwire.adopt.broadcast.obtain", lambda loop: None)
    return str(request.param)


@pytest.mark.parametrize("served", [by_aiohttp, by_websockets, by_sansio])
async def test_broadcasts_of_one_turn_are_one_write_in_their_order(served: Any, writer: str) -> None:
    room = Room()
    async with served(room.route) as url, client(url) as one, client(url) as other:
        await until(lambda: len(room.connections) == 2)
        fanwire.broadcast(room.connections, "0")
        real = pipe_of(room.connections[0])
        for number in range(1, 20):
            fanwire.broadcast(room.connections, str(number))
        transport = pipe_of(room.connections[0])
        assert isinstance(transport, Proxy if writer == "engine" else JoinedPipe)
        # The engine may be awake, and write at once.
        assert writer == "engine" or transport.get_write_buffer_size() == 19 * 2 + 9 + 10 * 2
        await send_text(room.connections[0], "own")
        fanwire.broadcast(room.connections[:1], "behind it")
        wanted = [str(number) for number in range(20)]
        assert await receive(one, 22) == [*wanted, "own", "behind it"]
        assert await receive(other, 20) == wanted
        now = pipe_of(room.connections[0])
        assert now is (transport if writer == "engine" else real), "a joint stands there until the loop turns"


@pytest.mark.parametrize("served", [by_aiohttp, by_websockets, by_sansio])
async def test_a_close_in_the_same_turn_comes_behind_them(served: Any, writer: str) -> None:
    room = Room()
    async with served(room.route) as url, client(url) as one:
        await until(lambda: room.connections)
        for number in range(5):
            fanwire.broadcast(room.connections, str(number))
        pipe_of(room.connections[0]).close()
        got = [message async for message in quietly(one)]
        assert got == ["0", "1", "2", "3", "4"]


async def quietly(peer: Any) -> AsyncIterator[Any]:
    """What comes until the connection ends, in whatever way."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            yield await peer.recv()


def pipe_of(connection: Any) -> Any:
    """What stands for its transport."""
    foreign = foreign_of(connection)
    assert foreign is not None
    return foreign.pipe(connection)


async def test_what_is_in_the_middle_of_fragments_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    async with by_websockets(room.route) as url, client(url) as one, client(url) as other:
        await until(lambda: len(room.connections) == 2)
        gate, begun = asyncio.Event(), asyncio.Event()

        async def fragments() -> AsyncIterator[str]:
            yield "begun "
            begun.set()
            await gate.wait()
            yield "ended"

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(room.connections[0].send(fragments()))
            await begun.wait()
            fanwire.broadcast(room.connections, "all")
            assert [line for line in caplog.messages if "skipped" in line] == [
                "skipped broadcast: sending a fragmented message"
            ]
            with pytest.raises(ExceptionGroup, match="skipped broadcast") as raised:
                fanwire.broadcast(room.connections, "all", raise_exceptions=True)
            (error,) = raised.value.exceptions
            assert isinstance(error, ConcurrencyError) and str(error) == "sending a fragmented message"
            gate.set()
        first, last = (one, other) if room.connections[0].remote_address == one.local_address else (other, one)
        assert await receive(first, 1) == ["begun ended"]
        assert await receive(last, 2) == ["all", "all"]


async def test_what_cannot_be_written_to_is_told_and_the_others_get_it(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    async with by_websockets(room.route) as url, client(url), client(url) as other:
        await until(lambda: len(room.connections) == 2)
        broken = next(one for one in room.connections if one.remote_address != other.local_address)
        broken.transport.write_eof()
        fanwire.broadcast([broken, *(one for one in room.connections if one is not broken)], "all")
        (line,) = [line for line in caplog.messages if "skipped" in line]
        assert line.startswith("skipped broadcast: failed to write message: RuntimeError: Cannot call write() after")
        with pytest.raises(ExceptionGroup) as raised:
            fanwire.broadcast(room.connections, "all", raise_exceptions=True)
        (error,) = raised.value.exceptions
        assert isinstance(error, RuntimeError) and str(error) == "failed to write message"
        assert isinstance(error.__cause__, RuntimeError)
        assert await receive(other, 2) == ["all", "all"]


async def test_clients_of_websockets_mask_theirs() -> None:
    room = Room()
    async with by_websockets(room.route) as url, connect(url, proxy=None) as one:
        await until(lambda: room.connections)
        fanwire.broadcast([one], "from a client")
        await until(lambda: room.heard == ["from a client"])


async def test_what_is_wrong_is_said(served: Any) -> None:
    room = Room()
    async with served(room.route) as url, client(url) as one:
        await until(lambda: room.connections)
        for wrong in (None, ["a"], {"a": 1}, 7):
            with pytest.raises(TypeError, match="message must be"):
                fanwire.broadcast(room.connections, wrong)  # type: ignore[arg-type]
        with pytest.raises(fanwire.AdoptionError, match="must be one of these"):
            fanwire.broadcast([*room.connections, object()], "before it")
        assert await receive(one, 1) == ["before it"]
        with pytest.raises(RuntimeError):
            await anyio.to_thread.run_sync(fanwire.broadcast, room.connections, "from a thread")


@pytest.mark.parametrize("served", [by_aiohttp, by_websockets, by_sansio])
async def test_connections_of_another_loop_are_left_alone(served: Any) -> None:
    room = Room()
    async with served(room.route) as url, client(url) as one:
        await until(lambda: room.connections)

        async def elsewhere() -> None:
            with pytest.raises(ExceptionGroup) as raised:
                fanwire.broadcast(room.connections, "no", raise_exceptions=True)
            assert "another event loop" in str(raised.value.exceptions[0].__cause__)

        await asyncio.to_thread(asyncio.run, elsewhere())
        fanwire.broadcast(room.connections, "here")
        assert await receive(one, 1) == ["here"]


async def test_what_waits_for_a_stalled_one_is_bounded_where_its_framework_sends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    room = Room()
    async with by_uvicorn(room.route) as url, client(url, max_queue=1, compression=None), client(url) as other:
        await until(lambda: len(room.connections) == 2)
        for _ in range(120):
            fanwire.broadcast(room.connections, b"x" * 100_000)
            await receive(other, 1)
        (line,) = set(caplog.messages)
        assert (
            line
            == "skipped broadcast: failed to write message: BufferError: 1,100,110 bytes would wait, over 1,048,576"
        )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tests_with_starlette_s_client_pass_as_they_are(backend: Any) -> None:
    room: set[WebSocket] = set()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        room.add(websocket)
        async for text in websocket.iter_text():
            fanwire.broadcast(room, text)
        room.remove(websocket)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    with (
        TestClient(app, backend=backend) as tests,
        tests.websocket_connect("/") as one,
        tests.websocket_connect("/") as other,
    ):
        one.send_text("1")
        one.send_text("2")
        assert [one.receive_text(), one.receive_text()] == ["1", "2"]
        assert [other.receive_text(), other.receive_text()] == ["1", "2"]


def test_trio_s_connections_have_a_broadcast_of_their_own() -> None:
    from websockets.protocol import Protocol, Side
    from websockets.trio.connection import Connection

    connection = Connection.__new__(Connection)
    connection.protocol = Protocol(Side.SERVER)

    async def main() -> None:
        with pytest.raises(TypeError, match=r"websockets\.trio\.server\.broadcast"):
            fanwire.broadcast([connection], "no")

    anyio.run(main, backend="trio")
