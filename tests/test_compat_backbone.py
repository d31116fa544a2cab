"""Other libraries' programs over several processes: the layer for Channels and the manager for python-socketio."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
import socketio
from aiohttp import ClientSession
from django.conf import settings

if not settings.configured:
    settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "fanwire.compat.django_channels.ChannelLayer"}})

from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import channel_layers
from fanwire import NotPublished
from fanwire.compat.django_channels import ChannelLayer, FanwireConsumer
from fanwire.compat.socketio import AsyncBackboneManager, BackboneManager
from support.redis import Redis, needs_redis
from support.uvicorns import served
from support.waiting import until
from websockets.asyncio.client import connect

pytestmark = [pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    """python-socketio's server is asyncio's alone."""
    return "asyncio"


@asynccontextmanager
async def layers(redis: Redis, count: int = 2, **options: Any) -> AsyncIterator[list[ChannelLayer]]:
    """Layers as so many processes would have them."""
    several = [ChannelLayer(backbone=redis.url, **options) for _ in range(count)]
    try:
        yield several
    finally:
        for layer in several:
            await layer.close()


async def received(layer: ChannelLayer, channel: str) -> dict[str, Any]:
    """The next message."""
    with anyio.fail_after(60):
        return await layer.receive(channel)


# Django Channels


@needs_redis
async def test_a_group_has_members_in_several_processes_and_all_have_one_order(redis: Redis) -> None:
    async with layers(redis) as (one, other):
        channels = [await one.new_channel(), await other.new_channel()]
        await one.group_add("room", channels[0])
        await other.group_add("room", channels[1])
        for number in range(20):
            await (one, other)[number % 2].group_send("room", {"type": "say", "number": number, "raw": b"\x00"})
        heard = [
            [(await received(layer, channel))["number"] for _ in range(20)]
            for layer, channel in zip((one, other), channels, strict=True)
        ]
        assert heard[0] == heard[1] == list(range(20)), "each send was awaited before the next"
        await one.group_discard("room", channels[0])
        await other.group_send("room", {"type": "last"})
        assert (await received(other, channels[1]))["type"] == "last"
        assert not one.channels


@needs_redis
async def test_a_channel_of_another_process_is_sent_to_and_so_is_one_by_name(redis: Redis) -> None:
    async with layers(redis) as (one, other):
        channel = await one.new_channel()
        await other.send(channel, {"type": "private", "list": [1, None, 2.5, True]})
        assert await received(one, channel) == {"type": "private", "list": [1, None, 2.5, True]}
        async with anyio.create_task_group() as tasks:
            heard: list[Any] = []

            async def work() -> None:
                heard.append(await received(one, "thumbnails"))

            tasks.start_soon(work)
            await until(lambda: "thumbnails" in one.channels)
            await other.send("thumbnails", {"type": "make"})
        assert heard == [{"type": "make"}]


@needs_redis
def test_sync_code_of_another_loop_sends_to_consumers_of_any(redis: Redis) -> None:
    """``async_to_sync(layer.group_send)`` in a view: a loop for each call."""

    async def main() -> None:
        async with layers(redis) as (one, other):
            channel = await one.new_channel()
            await one.group_add("room", channel)
            await anyio.to_thread.run_sync(lambda: async_to_sync(other.group_send)("room", {"type": "from a view"}))
            assert (await received(one, channel))["type"] == "from a view"

    anyio.run(main)


@needs_redis
async def test_consumers_are_told_that_the_backbone_was_lost_and_is_back(redis: Redis) -> None:
    async with layers(redis, 1, on_disconnect="lost", on_reconnect="back") as (layer,):
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        redis.kill()
        assert (await received(layer, channel))["type"] == "lost"
        with pytest.raises(NotPublished):
            await layer.group_send("room", {"type": "say"})
        redis.start()
        assert (await received(layer, channel))["type"] == "back"
        with anyio.fail_after(60):
            while True:
                await layer.group_send("room", {"type": "say"})
                with anyio.move_on_after(0.2):
                    assert (await layer.receive(channel))["type"] == "say"
                    break


@needs_redis
async def test_messages_over_a_capacity_are_dropped_where_they_come_and_nobody_else_misses_one(redis: Redis) -> None:
    async with layers(redis, capacity=3) as (one, other):
        slow, quick = await one.new_channel(), await other.new_channel()
        await one.group_add("room", slow)
        await other.group_add("room", quick)
        for number in range(6):
            await one.group_send("room", {"type": "say", "number": number})
            assert (await received(other, quick))["number"] == number
        await until(lambda: len(one.channels.get(slow, ())) == 3)


@pytest.fixture
def layers_of_the_process() -> Iterator[dict[str, Any]]:
    """Those that Channels has, which are as before afterwards: other tests have their own."""
    backends = channel_layers.backends
    before = dict(backends)
    yield backends
    backends.clear()
    backends.update(before)


class Room(FanwireConsumer, AsyncJsonWebsocketConsumer):
    """Adds each WebSocket to one group."""

    async def connect(self) -> None:
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()


@needs_redis
async def test_websockets_of_two_servers_are_written_to_by_either(
    redis: Redis, layers_of_the_process: dict[str, Any]
) -> None:
    async with layers(redis) as both, AsyncExitStack() as stack:
        peers = []
        for layer in both:
            kind = type("At", (Room,), {"channel_layer": layer})
            kind.channel_layer_alias = "default"  # type: ignore[attr-defined]

            async def app(scope: Any, receive: Any, send: Any, layer: Any = layer, kind: Any = kind) -> None:
                if scope["type"] == "websocket":
                    layers_of_the_process["default"] = layer  # Channels has one for the whole process
                    await kind()(scope, receive, send)

            address = await stack.enter_async_context(served(app, "fanwire.uvicorn:Protocol"))
            peers.append(await stack.enter_async_context(connect(f"ws://{address}", proxy=None)))
        for number, layer in enumerate(both):
            await layer.group_send("room", {"type": "fanwire.send", "json": {"number": number}})
            for peer in peers:
                with anyio.fail_after(60):
                    assert await peer.recv() == f'{{"number": {number}}}'


@pytest.mark.parametrize(("backbone", "kind"), [("http://h", ValueError), (5, TypeError)])
def test_a_backbone_that_cannot_be_is_refused_at_once(backbone: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        ChannelLayer(backbone=backbone)
    with pytest.raises(kind):
        AsyncBackboneManager(backbone)


# python-socketio


@asynccontextmanager
async def socketio_server(redis: Redis) -> AsyncIterator[tuple[socketio.AsyncServer, str]]:
    """One of several."""
    sio = socketio.AsyncServer(async_mode="asgi", client_manager=AsyncBackboneManager(redis.url))

    @sio.event
    async def join(sid: str, room: str) -> str:
        await sio.enter_room(sid, room)
        return "joined"

    async with served(socketio.ASGIApp(sio), "fanwire.uvicorn:Protocol") as address:
        yield sio, f"http://{address}"
        await sio.shutdown()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[tuple[socketio.AsyncClient, list[Any]]]:
    """A stock client, and what it heard."""
    async with ClientSession() as http:
        sio, heard = socketio.AsyncClient(reconnection=False, http_session=http), []

        @sio.on("*")
        def hear(event: str, *arguments: Any) -> str:
            heard.append((event, *arguments))
            return f"had {event}"

        await sio.connect(url, transports=["websocket"], wait_timeout=60)
        try:
            yield sio, heard
        finally:
            await sio.disconnect()


@needs_redis
async def test_servers_emit_to_one_anothers_clients_and_so_does_who_serves_nobody(redis: Redis) -> None:
    async with (
        socketio_server(redis) as (one, first),
        socketio_server(redis) as (_two, second),
        client(first) as (_, anns),
        client(second) as (bob, bobs),
    ):
        assert await bob.call("join", "room") == "joined"
        await heard_by(one, bobs)
        await one.emit("goal", {"to": "bob"}, room="room")
        await one.emit("binary", b"\x00\xff")
        await until(lambda: all(("binary", b"\x00\xff") in heard for heard in (anns, bobs)))
        assert ("goal", {"to": "bob"}) in bobs and ("goal", {"to": "bob"}) not in anns

        outside = AsyncBackboneManager(redis.url, write_only=True)
        await outside.emit("from outside", 1)
        await outside.aclose()
        plain = BackboneManager(redis.url)
        await anyio.to_thread.run_sync(lambda: plain.emit("from a task", ("a", 2), room="room"))
        plain.close()
        await until(lambda: ("from a task", "a", 2) in bobs and ("from outside", 1) in anns)
        assert ("from a task", "a", 2) not in anns

        answered = asyncio.get_running_loop().create_future()
        await one.emit("asks", 3, room=bob.get_sid(), callback=answered.set_result)
        with anyio.fail_after(60):
            assert await answered == "had asks"


async def heard_by(sio: socketio.AsyncServer, heard: list[Any]) -> None:
    """Emit until a client of another server hears it: its subscription has no other sign."""
    with anyio.fail_after(60):
        while not any(event == "probe" for event, *_ in heard):
            await sio.emit("probe")
            with anyio.move_on_after(0.05):
                await anyio.Event().wait()


@needs_redis
def test_a_script_emits_without_a_server(redis: Redis) -> None:
    program = f"from fanwire.compat.socketio import BackboneManager; BackboneManager({redis.url!r}).emit('goal', 1)"
    command = [sys.executable, "-W", "ignore", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_while_the_backbone_is_away_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    manager = BackboneManager("redis://127.0.0.1:1")
    manager.emit("goal", 1)
    manager.close()
    assert "cannot publish to the backbone" in caplog.text
    with pytest.raises(ValueError, match="write_only must be True"):
        BackboneManager(write_only=False)
