"""Litestar's channels on a hub: what its own tests ask of a backend, and the plugin with real sockets."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from fanwire.compat.litestar import HubChannelsBackend
from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from support.uvicorns import served
from support.waiting import until
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio


@pytest.fixture
async def backend() -> AsyncIterator[HubChannelsBackend]:
    """One on a hub of its own, for the length of a test."""
    backend = HubChannelsBackend(history=10)
    await backend.on_startup()
    yield backend
    await backend.on_shutdown()


async def some(events: Any, count: int) -> list[tuple[str, bytes]]:
    """The next so many."""
    with anyio.fail_after(60):
        return [await anext(events) for _ in range(count)]


async def nothing(events: Any) -> None:
    """There is none now; a generator that was cancelled is over."""
    with anyio.move_on_after(0.05) as scope:
        await anext(events)
    assert scope.cancelled_caught


async def test_what_is_subscribed_to_is_streamed_and_nothing_else(backend: HubChannelsBackend) -> None:
    await backend.publish(b"before", ["foo"])
    await backend.subscribe(["foo", "bar", "foo"])
    await backend.publish(b"something", {"foo", "bar"})
    await backend.publish(b"\xff", ["foo", "elsewhere"])
    events = backend.stream_events()
    heard = await some(events, 3)  # each channel in its order
    assert [data for channel, data in heard if channel == "foo"] == [b"something", b"\xff"]
    assert [data for channel, data in heard if channel == "bar"] == [b"something"]
    await backend.publish(b"late", ["foo"])
    await backend.unsubscribe(["foo", "never"])
    await backend.publish(b"after", ["foo", "bar"])
    assert await some(events, 1) == [("bar", b"after")]
    await nothing(events)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_name_that_a_client_makes_up_leaves_the_others_their_events(caplog: pytest.LogCaptureFixture) -> None:
    plugin = ChannelsPlugin(backend=HubChannelsBackend(), arbitrary_channels_allowed=True)
    async with plugin:
        await plugin.subscribe(["line\nend", "good", "x" * 5_000])
        second = await plugin.subscribe("good")
        plugin.publish("too much", ["line\nend"])
        plugin.publish(b"x" * (64 << 20), "good")
        plugin.publish("hello", ["line\nend", "good"])
        with anyio.fail_after(60):
            assert await anext(second.iter_events()) == b"hello"
    assert caplog.text.count("is left out") == 3


async def test_history_is_the_newest_and_ends_with_the_subscription(backend: HubChannelsBackend) -> None:
    messages = [str(number).encode() for number in range(30)]
    for message in messages:
        await backend.publish(message, {"something"})
    for limit, count in ((None, 10), (1, 1), (5, 5), (10, 10), (50, 10)):
        assert await backend.get_history("something", limit) == messages[-count:]
    await backend.unsubscribe(["never", "something"])
    assert await backend.get_history("something") == []
    assert await backend.get_history("never") == []


async def test_before_it_begins_it_says_so_and_it_begins_again() -> None:
    backend = HubChannelsBackend()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="Did you forget to call on_startup"):
            await backend.publish(b"foo", ["something"])
        with pytest.raises(RuntimeError, match="Did you forget to call on_startup"):
            await backend.subscribe(["something"])
        with pytest.raises(RuntimeError, match="Did you forget to call on_startup"):
            await anext(backend.stream_events())
        await backend.on_startup()
        await backend.subscribe(["c"])
        await backend.publish(b"x", ["c"])
        events = backend.stream_events()
        assert await some(events, 1) == [("c", b"x")]
        await backend.publish(b"left over", ["c"])
        await backend.on_shutdown()
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    await backend.on_shutdown()


async def test_what_the_hub_publishes_is_streamed_and_its_end_is_told(hub: fanwire.Hub) -> None:
    await hub.start()
    backend = HubChannelsBackend(hub)
    await backend.on_startup()
    await backend.subscribe(["c"])
    hub.publish("c", "text")
    hub.publish("c", {"an": "object"})
    events = backend.stream_events()
    assert await some(events, 2) == [("c", b"text"), ("c", b'{"an":"object"}')]
    await hub.stop()
    with pytest.raises(fanwire.HubStopped), anyio.fail_after(60):
        await anext(events)
    await backend.on_shutdown()


async def test_a_backlog_that_went_past_is_logged_and_the_stream_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    hub = fanwire.Hub({"c": fanwire.Channel(backlog_frames=2)})
    async with hub.serve():
        backend = HubChannelsBackend(hub)
        await backend.on_startup()
        await backend.subscribe(["c"])
        events = backend.stream_events()
        heard = []
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                async for event in events:
                    heard.append(event)

            tasks.start_soon(read)
            hub.publish_many("c", [str(number) for number in range(500)])
            await until(lambda: "messages were missed" in caplog.text)
            await backend.publish(b"after", ["c"])
            await until(lambda: ("c", b"after") in heard)
            await backend.on_shutdown()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_plugin_serves_sockets_and_the_hub_s_publications_reach_them() -> None:
    backend = HubChannelsBackend(history=5)
    plugin = ChannelsPlugin(
        backend=backend, channels=["foo"], create_ws_route_handlers=True, ws_handler_send_history=-1
    )
    app = Litestar([], plugins=[plugin], logging_config=None)  # its own sets the root logger for all tests
    async with served(app, "auto", lifespan="on") as address:
        plugin.publish("kept", "foo")
        await until(lambda: backend._history.last("foo"))
        async with connect(f"ws://{address}/foo") as ann, connect(f"ws://{address}/foo") as bob:
            with anyio.fail_after(60):
                assert [await ann.recv(), await bob.recv()] == ["kept", "kept"]
                await run_sync(backend.hub.publish, "foo", "from any thread")
                plugin.publish({"a": 1}, ["foo"])
                for client in (ann, bob):
                    assert [await client.recv(), await client.recv()] == ["from any thread", '{"a":1}']


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_the_plugin_publishes_reaches_a_socket_that_its_route_attaches() -> None:
    backend = HubChannelsBackend()
    plugin = ChannelsPlugin(backend=backend, channels=["odds"])
    here: list[Any] = []

    @websocket("/odds")
    async def odds(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        socket.scope["extensions"]["fanwire"]["attach"](["odds"])  # type: ignore[typeddict-item]
        here.append(socket)
        while (message := await socket.receive())["type"] == "websocket.receive":
            await socket.send_text(message["text"])
        here.remove(socket)

    async with served(Litestar([odds], plugins=[plugin]), "fanwire.uvicorn:Protocol", lifespan="on") as address:
        async with connect(f"ws://{address}/odds") as ann, connect(f"ws://{address}/odds") as bob:
            await until(lambda: len(here) == 2)
            for number in range(20):
                plugin.publish({"home": number}, "odds")
            for client in (ann, bob):
                assert [await client.recv() for _ in range(20)] == [f'{{"home":{number}}}' for number in range(20)]
            await bob.send("and its own")
            assert await bob.recv() == "and its own"
        await until(lambda: not here)
