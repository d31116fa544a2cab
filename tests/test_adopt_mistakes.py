"""What goes wrong with attached connections: half closed ones, TLS, loops that are closed, processes that fork."""

import asyncio
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from fanwire.adapters import foreign_of
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
    async with asyncio.timeout(60):
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
                for holder, name in foreign_of(room.connections[0]).holders:  # type: ignore[union-attr]
                    getattr(holder, name).write(b"\x81\x05never")
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


CLOSED_LOOP = """
import asyncio, gc, sys, warnings

import fanwire
from support.descriptors import held_inodes, sockets
from support.frameworks import SERVERS, client, received
from support.waiting import until

warnings.simplefilter("ignore")


async def begin(hub, connections, name):
    async def route(connection):
        hub.attach(connection, ["a"])
        connections.append(connection)
        while await received(connection) is not None:
            pass

    await hub.start()
    serving = SERVERS[name](route)
    connecting = client(await serving.__aenter__())
    peer = await connecting.__aenter__()
    await until(lambda: connections)
    hub.publish("a", "x")
    assert await peer.recv() == "x"
    return serving, connecting, peer.transport.get_extra_info("socket").dup()


async def elsewhere(hub, connection):
    hub.detach(connection)
    try:
        hub.attach(connection, ["b"])
    except fanwire.HubStopped as error:
        print(error)
    async with hub.serve():
        try:
            hub.attach(connection, ["b"])
        except fanwire.AdoptionError as error:
            print(error)


connections = []
loop, hub = asyncio.new_event_loop(), fanwire.Hub()
serving, connecting, copy = loop.run_until_complete(begin(hub, connections, sys.argv[1]))
loop.close()
try:
    hub.publish("a", "too late")
except fanwire.HubStopped as error:
    print(error)
asyncio.run(elsewhere(hub, connections[0]))
copy.setblocking(False)
try:
    assert copy.recv(100) in (b"", b"\\x81\\x08too late")
except BlockingIOError:
    pass
copy.close()
gc.collect()
print("duplicates of the engine's:", sockets() - len(held_inodes()))
"""


async def of_program(program: str, *arguments: str) -> list[str]:
    """What a process of its own says, line by line."""
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = await anyio.run_process(command, env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("name", ["uvicorn", "protocol"])  # by its send, and by the engine
async def test_a_loop_that_is_closed_ends_what_is_attached(name: str) -> None:
    closed = "the event loop was closed while the hub served: stop the hub first"
    said = await of_program(CLOSED_LOOP, name)
    assert said[:2] == [closed] * 2
    assert "cannot be attached" in said[2]
    assert said[3:] == ["duplicates of the engine's: 0"]


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
if sys.argv[1:]:
    import fanwire
made = interpreters.create()
program = f'''
import sys
sys.path[:] = {sys.path!r}
try:
    import fanwire
except ImportError as error:
    print(error, flush=True)
'''
interpreters.run_string(made, program)
interpreters.destroy(made)
import fanwire
print(fanwire.Hub())
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second"])
async def test_a_subinterpreter_is_refused_and_the_main_one_goes_on(is_second: bool) -> None:
    refused, hub = await of_program(SUBINTERPRETER, *["second"] * is_second)
    assert refused.startswith("fanwire cannot be used in a subinterpreter (this is number 1)")
    assert hub == "<fanwire.Hub not serving>"
