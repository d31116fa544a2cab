"""The engine of an event loop's own: what it writes for ``fanwire.broadcast``, whom it gives way to, and its end."""

import asyncio
import gc
import os
import random
import resource
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fanwire
import pytest
from anyio.lowlevel import checkpoint
from fanwire.adapters import foreign_of
from fanwire.adopt.local import local_of
from fanwire.adopt.proxy import Proxy, Writing
from support.frameworks import by_aiohttp, by_sansio, by_websockets, client, received, send_text, stalled_client
from support.loops import with_transports
from support.waiting import until, until_in_thread
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

pytestmark = pytest.mark.anyio
anyio_backend = with_transports
SHOWN = {"sansio": by_sansio, "aiohttp": by_aiohttp, "websockets": by_websockets}
"""Servers whose transports can be had."""


@pytest.fixture(params=SHOWN)
def served(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """One of the servers."""
    return SHOWN[request.param]


class Room:
    """Connections, as a program keeps them."""

    def __init__(self) -> None:
        self.connections: list[Any] = []

    async def route(self, connection: Any) -> None:
        """Until the client leaves."""
        self.connections.append(connection)
        while await received(connection) is not None:
            pass
        self.connections.remove(connection)


async def receive(peer: Any, count: int) -> list[Any]:
    """So many messages."""
    async with asyncio.timeout(60):
        return [await peer.recv() for _ in range(count)]


def proxy_of(connection: Any) -> Any:
    """What stands for its transport."""
    foreign = foreign_of(connection)
    assert foreign is not None
    return getattr(*foreign.holders[0])


def is_ours(connection: Any) -> bool:
    """Whether the loop's own engine writes to it."""
    proxy = proxy_of(connection)
    local = local_of(asyncio.get_running_loop())
    return isinstance(proxy, Proxy) and proxy.owner is local and proxy.state == Writing.ENGINE


async def test_all_that_is_sent_to_a_client_comes_in_the_order_of_the_calls(served: Any) -> None:
    hub, room, chances = fanwire.Hub(), Room(), random.Random(7)
    async with hub.serve(), served(room.route) as url, client(url) as one, client(url, compression=None) as other:
        await until(lambda: len(room.connections) == 2)
        wanted: dict[Any, list[str]] = {connection: [] for connection in room.connections}
        attached: set[Any] = set()
        for number in range(400):
            connection, text = chances.choice(room.connections), f"{number} " + "x" * chances.choice([1, 200, 3_000])
            match chances.randrange(6):
                case 0:
                    await send_text(connection, text)
                    wanted[connection].append(text)
                case 1:
                    hub.publish("a", text)
                    for each in attached:
                        wanted[each].append(text)
                case 2 if chances.random() < 0.2:
                    if connection in attached:
                        hub.detach(connection)
                    else:
                        hub.attach(connection, ["a"])
                    attached ^= {connection}
                case 3 if chances.random() < 0.3:
                    await checkpoint()
                case _:
                    fanwire.broadcast(room.connections, text)
                    for each in wanted.values():
                        each.append(text)
        addresses = {peer_of(connection): texts for connection, texts in wanted.items()}
        for peer in (one, other):
            texts = addresses[peer.local_address[1]]
            assert await receive(peer, len(texts)) == texts


def peer_of(connection: Any) -> int:
    """The client's port."""
    port: int = proxy_of(connection).get_extra_info("peername")[1]
    return port


async def test_a_hub_gets_whom_it_asks_for_and_gives_it_back(served: Any) -> None:
    hub, room = fanwire.Hub(), Room()
    async with hub.serve(), served(room.route) as url, client(url) as one:
        await until(lambda: room.connections)
        (connection,) = room.connections
        fanwire.broadcast([connection], "0")
        assert not is_ours(connection), "what is sent once needs no engine"
        fanwire.broadcast([connection], "1")
        assert is_ours(connection)
        hub.detach(connection)
        assert is_ours(connection), "it is not this hub's"
        for number in range(5):
            hub.attach(connection, ["a"])
            assert not is_ours(connection)
            hub.publish("a", f"{number} published")
            fanwire.broadcast([connection], f"{number} broadcast")
            hub.detach(connection)
            fanwire.broadcast([connection], f"{number} once more")
            await until(lambda: not isinstance(proxy_of(connection), Proxy) or is_ours(connection))
            fanwire.broadcast([connection], f"{number} by the engine")
            assert is_ours(connection)
        wanted = ["published", "broadcast", "once more", "by the engine"]
        assert await receive(one, 22) == ["0", "1", *(f"{number} {text}" for number in range(5) for text in wanted)]


async def test_a_client_that_reads_nothing_hurts_none_of_fifty_and_its_framework_waits() -> None:
    room = Room()
    async with by_websockets(room.route, compression=None, ping_interval=None) as url:
        peers = [await connect(url, proxy=None, compression=None) for _ in range(50)]
        async with stalled_client(url) as stalled:
            await until(lambda: len(room.connections) == 51)
            slow = next(one for one in room.connections if peer_of(one) == stalled.local_address[1])
            for number in range(100):
                fanwire.broadcast(room.connections, f"{number}".ljust(30_000))
                if number % 10 == 9:
                    for peer in peers:
                        got = await receive(peer, 10)
                        assert [int(text) for text in got] == list(range(number - 9, number + 1))
            assert is_ours(slow) and slow.transport.get_write_buffer_size() > 100_000
            sending = asyncio.create_task(slow.send("by itself"))
            await checkpoint()
            assert not sending.done(), "it is asked to pause"
            stalled.transport.resume_reading()
            got = await receive(stalled, 101)
            assert [int(text) for text in got[:-1]] == list(range(100)) and got[-1] == "by itself"
            await sending
        for peer in peers:
            await peer.close()


async def test_what_finds_no_descriptor_is_written_to_by_its_framework() -> None:
    room = Room()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with by_websockets(room.route) as url, client(url) as one, client(url) as other:
        await until(lambda: len(room.connections) == 2)
        fanwire.broadcast(room.connections[:1], "0")
        fanwire.broadcast(room.connections[:1], "1")
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            for number in range(10):
                fanwire.broadcast(room.connections, f"{number}")
                await checkpoint()
            ours = [is_ours(connection) for connection in room.connections]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert ours == [True, False]
        first, last = (one, other) if one.local_address[1] == peer_of(room.connections[0]) else (other, one)
        wanted = [f"{number}" for number in range(10)]
        assert await receive(first, 12) == ["0", "1", *wanted] and await receive(last, 10) == wanted


def shards() -> int:
    """Threads of engines."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it is over
            names.append((task / "comm").read_text())
    return sum(name.startswith("fanwire-") for name in names)


async def broadcasting(*, is_left_open: bool = False) -> None:
    """A program that broadcasts, and ends; or ends in the middle of it."""
    room = Room()
    async with serve(room.route, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        peer = await connect(f"ws://127.0.0.1:{port}/", proxy=None)
        await until(lambda: room.connections)
        for number in range(5):
            fanwire.broadcast(room.connections, f"{number}")
        assert is_ours(room.connections[0]) and shards() > 0
        assert await receive(peer, 5) == ["0", "1", "2", "3", "4"]
        if not is_left_open:
            await peer.close()


@pytest.mark.parametrize("times", [1, 3])
def test_the_end_of_a_loop_leaves_nothing(times: int) -> None:
    for _ in range(times):
        asyncio.run(broadcasting())
        until_in_thread(lambda: shards() == 0)  # one that has ended may be listed for a moment
        asyncio.run(broadcasting(is_left_open=True))
        until_in_thread(lambda: shards() == 0)


def test_a_loop_that_is_closed_without_a_word_leaves_nothing_once_it_is_gone() -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(broadcasting())
    loop.close()
    del loop
    gc.collect()
    until_in_thread(lambda: shards() == 0)


def test_each_loop_has_its_own(served: Any) -> None:
    gate = threading.Barrier(2)
    results: list[list[Any]] = []

    async def program() -> None:
        room = Room()
        async with served(room.route) as url, client(url) as one:
            await until(lambda: room.connections)
            for number in range(10):
                fanwire.broadcast(room.connections, f"{number}")
            await asyncio.to_thread(gate.wait, 60)
            assert is_ours(room.connections[0])
            results.append(await receive(one, 10))

    threads = [threading.Thread(target=lambda: asyncio.run(program())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[f"{number}" for number in range(10)]] * 2


def test_in_a_process_that_was_forked_a_new_loop_has_an_engine_of_its_own() -> None:
    async def outer() -> None:
        await broadcasting()
        pid = os.fork()
        if pid == 0:
            asyncio._set_running_loop(None)  # type: ignore[attr-defined]
            thread = threading.Thread(target=lambda: result.append(asyncio.run(broadcasting())))
            result: list[None] = []
            thread.start()
            thread.join()
            os._exit(0 if result else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    asyncio.run(outer())
