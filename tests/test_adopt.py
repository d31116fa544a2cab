"""Adopted sockets, which the engine writes to: real servers, stock clients."""

import asyncio
import random
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import fanwire
import pytest
from fanwire.adopt.proxy import Proxy
from support.frameworks import ADOPTED, by_websockets, client, received, send_text
from support.loops import with_transports
from support.waiting import until
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.anyio
anyio_backend = with_transports
CLOSE_S = 8
"""What ``websockets`` waits for one that has yet to read what was sent before the close."""


@pytest.fixture(params=ADOPTED)
def served(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """One of the servers."""
    return partial(by_websockets, close_timeout=CLOSE_S) if request.param == "websockets" else ADOPTED[request.param]


def transport_of(connection: Any) -> Any:
    """What the framework writes to."""
    (holder, name), *_ = fanwire.adapters.foreign_of(connection).holders  # type: ignore[union-attr]
    return getattr(holder, name)


class Reader:
    """A client that reads slowly, or not at all for a while."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.got: list[Any] = []
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.task = asyncio.create_task(self.read())

    async def read(self) -> None:
        """Until the connection is closed."""
        with suppress(ConnectionClosed):  # of one that left without a word
            async for message in self.connection:
                self.got.append(message[:7])
                await self.may_read.wait()


def is_held_up(connection: Any) -> bool:
    """Whether its framework waits before it writes the next message."""
    (holder, _), *_ = fanwire.adapters.foreign_of(connection).holders  # type: ignore[union-attr]
    writable = getattr(holder, "writable", None)
    return writable is not None and not writable.is_set()


async def turned() -> None:
    """The loop has turned, and the engine had a moment."""
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.001)


async def narrow(clients: AsyncExitStack, url: str, compression: Any) -> Any:
    """A client whose kernel takes little before it reads."""
    ours = socket.socket()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    ours.setblocking(False)
    host, _, port = url.removeprefix("ws://").strip("/").rpartition(":")
    await asyncio.get_running_loop().sock_connect(ours, (host, int(port)))
    options = {"sock": ours, "max_queue": 1, "compression": compression, "ping_interval": None}
    return await clients.enter_async_context(client(url, **options))


class World:
    """Three clients, the calls so far, and what each client is to see of them."""

    def __init__(self, hub: fanwire.Hub, connections: list[Any], readers: list[Reader], seed: int) -> None:
        self.hub, self.connections, self.readers = hub, connections, readers
        self.draw = random.Random(seed)
        self.wanted: list[list[str]] = [[] for _ in readers]
        self.attached: list[set[str]] = [set() for _ in readers]
        self.sending: dict[int, asyncio.Task[None]] = {}
        self.sure: dict[int, int] = {}
        """Of who is closed or has left: so many of what is wanted come for sure."""
        self.closing: list[asyncio.Task[Any]] = []

    async def act(self, number: int) -> None:
        """One call."""
        who = self.draw.randrange(3)
        fill = "x" * self.draw.choice([1, 100, 3_000, 15_000])  # aiohttp compresses more in a thread
        calls = ["publish", "publish", "publish", "send", "send", "attach", "detach", "stall", "turn"]
        call = "publish" if who in self.sure else self.draw.choice(calls)
        if number in (120, 160) and len(self.sure) < 2:
            call = self.draw.choice(["close", "leave"])
        match call:
            case "publish":
                channel = self.draw.choice("ab")
                self.hub.publish(channel, f"{channel}{number:05} {fill}")
                for wanted, attached in zip(self.wanted, self.attached, strict=True):
                    if channel in attached:
                        wanted.append(f"{channel}{number:05} ")
            case "send" if who not in self.sending and not is_held_up(self.connections[who]):
                self.wanted[who].append(f"s{number:05} ")
                task = asyncio.create_task(send_text(self.connections[who], f"s{number:05} {fill}"))
                await asyncio.wait([task], timeout=0)  # the framework has written, and may wait for the client
                if not task.done():
                    self.sending[who] = task
                    task.add_done_callback(lambda _: self.sending.pop(who))
            case "attach":
                channels = self.draw.sample("ab", self.draw.randint(1, 2))
                self.hub.attach(self.connections[who], channels)
                self.attached[who] |= set(channels)
            case "detach":
                self.hub.detach(self.connections[who])
                self.attached[who] = set()
            case "stall":
                may_read = self.readers[who].may_read
                (may_read.clear if may_read.is_set() else may_read.set)()
            case "turn":
                await turned()
            case "close" if who not in self.sure and who not in self.sending and not is_held_up(self.connections[who]):
                self.sure[who] = len(self.wanted[who])
                self.readers[who].may_read.set()
                self.closing.append(asyncio.create_task(self.connections[who].close()))
                await asyncio.wait(self.closing, timeout=0)
            case "leave" if who not in self.sure and who not in self.sending:
                self.sure[who] = 0
                self.readers[who].may_read.set()
                self.readers[who].connection.transport.abort()

    async def check(self, who: int) -> None:
        """What a client saw is what it was to see."""
        reader, wanted = self.readers[who], self.wanted[who]
        reader.may_read.set()
        if who in self.sure:
            await until(reader.task.done)
            assert set(wanted[: self.sure[who]]) <= set(reader.got), "what was called before the close comes"
        else:
            await until(lambda: len(reader.got) >= len(wanted))
            assert sorted(reader.got) == sorted(wanted), "nothing is lost, and nothing comes twice"
        for channel in "ab":
            seen, of_one = ([one for one in some if one[0] in (channel, "s")] for some in (reader.got, wanted))
            assert seen == of_one[: len(seen)]


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(4, 60))])
async def test_each_client_sees_the_order_of_the_calls(served: Any, seed: int, compression: Any) -> None:
    hub = fanwire.Hub({"*": fanwire.Channel(backlog_bytes=1 << 26, backlog_frames=100_000)})
    connections: list[Any] = []

    async def route(connection: Any) -> None:
        connections.append(connection)
        while await received(connection) is not None:
            pass

    async with hub.serve(), served(route) as url, AsyncExitStack() as clients:
        readers: list[Reader] = []
        for count in range(1, 4):
            readers.append(Reader(await narrow(clients, url, compression)))
            await until(lambda count=count: len(connections) == count)
        world = World(hub, connections, readers, seed)
        for number in range(200):
            await world.act(number)
        for who in range(3):
            await world.check(who)
        await asyncio.gather(*world.sending.values(), *world.closing)


class Room:
    """A hub, and connections that its program keeps."""

    def __init__(self, **channels: fanwire.Channel) -> None:
        self.hub = fanwire.Hub(channels)
        self.connections: list[Any] = []

    async def route(self, connection: Any) -> None:
        """Until the client leaves."""
        self.connections.append(connection)
        while await received(connection) is not None:
            pass


async def receive(peer: Any, count: int) -> list[Any]:
    """So many messages."""
    async with asyncio.timeout(60):
        return [await peer.recv() for _ in range(count)]


async def test_the_engine_stands_there_while_it_is_attached(served: Any) -> None:
    room = Room()
    async with room.hub.serve(), served(room.route) as url, client(url) as peer:
        await until(lambda: room.connections)
        (connection,) = room.connections
        real = transport_of(connection)
        room.hub.attach(connection, ["a"])
        standing = transport_of(connection)
        assert isinstance(standing, Proxy) and standing.get_extra_info("peername") == real.get_extra_info("peername")
        assert standing.get_protocol() is real.get_protocol().original
        await asyncio.to_thread(room.hub.publish, "a", "from a thread")
        assert await receive(peer, 1) == ["from a thread"]
        assert room.hub.occupancy("a") == 1
        room.hub.detach(connection)
        room.hub.attach(connection, ["b"])  # in one turn
        assert transport_of(connection) is standing
        room.hub.publish("a", "no")
        room.hub.publish("b", "yes")
        assert await receive(peer, 1) == ["yes"]
        room.hub.detach(connection)
        await until(lambda: transport_of(connection) is real)
        assert room.hub.occupancy("b") == 0
        await send_text(connection, "its own")
        assert await receive(peer, 1) == ["its own"]
        room.connections.clear()


async def test_where_a_client_begins(served: Any) -> None:
    room = Room(a=fanwire.Channel(history=10))
    async with room.hub.serve(), served(room.route) as url, client(url) as peer, client(url) as other:
        await until(lambda: len(room.connections) == 2)
        positions = [room.hub.publish("a", str(number)).position for number in range(5)]
        one, two = room.connections
        if transport_of(one).get_extra_info("peername")[:2] != peer.local_address[:2]:
            one, two = two, one
        room.hub.attach(one, ["a"], start="history")
        room.hub.attach(two, ["a"], since={"a": positions[2]})
        assert await receive(peer, 5) == ["0", "1", "2", "3", "4"]
        assert await receive(other, 2) == ["3", "4"]
        for wrong, kind in [({"start": "never"}, ValueError), ({"since": positions[0]}, TypeError)]:
            with pytest.raises(kind):
                room.hub.attach(one, ["b"], **wrong)
        room.connections.clear()


async def test_broadcasts_stand_in_their_place(served: Any) -> None:
    room = Room()
    async with room.hub.serve(), served(room.route) as url, client(url) as peer:
        await until(lambda: room.connections)
        wanted = []
        for number in range(30):
            if number == 10:
                room.hub.attach(room.connections[0], ["a"])
            if number >= 10:
                room.hub.publish("a", f"published {number}")
                wanted.append(f"published {number}")
            fanwire.broadcast(room.connections, f"broadcast {number}")
            fanwire.broadcast(room.connections, f"and {number}")
            await send_text(room.connections[0], f"own {number}")
            wanted += [f"broadcast {number}", f"and {number}", f"own {number}"]
        assert await receive(peer, len(wanted)) == wanted
        room.connections.clear()


async def test_a_close_comes_behind_what_was_published(served: Any) -> None:
    room = Room()
    async with room.hub.serve(), served(room.route) as url, client(url) as peer:
        await until(lambda: room.connections)
        room.hub.attach(room.connections[0], ["a"])
        wanted = [f"{number} {'x' * 5_000}" for number in range(100)]
        room.hub.publish_many("a", wanted)
        closing = asyncio.create_task(room.connections.pop().close())
        assert [message async for message in peer] == wanted
        assert peer.close_code == 1000
        await closing
        await until(lambda: room.hub.occupancy("a") == 0)


async def test_pings_of_client_and_server_go_on(served: Any) -> None:
    room = Room()
    async with room.hub.serve(), served(room.route) as url, client(url, ping_interval=None) as peer:
        await until(lambda: room.connections)
        room.hub.attach(room.connections[0], ["a"])
        for number in range(20):
            room.hub.publish("a", str(number))
            async with asyncio.timeout(60):
                await (await peer.ping())
            assert await receive(peer, 1) == [str(number)]
        room.connections.clear()
