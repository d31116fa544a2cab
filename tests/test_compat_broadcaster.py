"""encode/broadcaster's interface on ours: its semantics, and what is better."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import fanwire
import pytest
from fanwire.compat import broadcaster, recent
from fanwire.compat.broadcaster import Broadcast, BroadcastBackend, Event, HubBackend, Subscriber, Unsubscribed
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from support.hubs import MakeHub
from support.uvicorns import served
from support.waiting import until
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio


async def some(subscriber: Subscriber, count: int) -> list[Any]:
    """The next so many messages."""
    with anyio.fail_after(60):
        return [(await subscriber.get()).message for _ in range(count)]


async def nothing(subscriber: Subscriber) -> None:
    """There is none now."""
    with anyio.move_on_after(0.02) as scope:
        await subscriber.get()
    assert scope.cancelled_caught


class Scripted(BroadcastBackend):
    """A backend of a program's own, which notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.coming: deque[Any] = deque()
        self.arrived = anyio.Event()
        self.gate = anyio.Event()
        self.gate.set()

    def come(self, event: Any) -> None:
        """An event, or an exception to raise."""
        self.coming.append(event)
        self.arrived.set()

    async def connect(self) -> None:
        self.calls.append(("connect",))

    async def disconnect(self) -> None:
        self.calls.append(("disconnect",))

    async def subscribe(self, channel: str) -> None:
        self.calls.append(("subscribe", channel))
        await self.gate.wait()

    async def unsubscribe(self, channel: str) -> None:
        await self.gate.wait()
        await anyio.lowlevel.checkpoint()
        self.calls.append(("unsubscribe", channel))

    async def publish(self, channel: str, message: Any) -> None:
        self.come(Event(channel, message))

    async def next_published(self) -> Any:
        while not self.coming:
            await self.arrived.wait()
            self.arrived = anyio.Event()
        event = self.coming.popleft()
        if isinstance(event, BaseException):
            raise event
        return event


async def open_gate(backend: Scripted) -> None:
    """Let its calls through."""
    backend.gate.set()


async def test_each_subscriber_gets_the_very_object_in_order_and_nothing_from_before() -> None:
    async with Broadcast("memory://") as broadcast:
        await broadcast.publish("chatroom", "before")
        async with broadcast.subscribe(channel="chatroom") as one, broadcast.subscribe("chatroom") as other:
            thing = {"a": object()}
            await broadcast.publish(channel="chatroom", message=thing)
            await broadcast.publish("elsewhere", "not for them")
            await broadcast.publish("chatroom", b"\xff")
            event = await one.get()
            assert event.channel == "chatroom"
            assert event.message is thing
            assert event == Event("chatroom", thing)
            assert repr(Event("c", 1)) == "Event(channel='c', message=1)"
            assert await some(one, 1) == [b"\xff"]
            assert await some(other, 2) == [thing, b"\xff"]
            await nothing(one)


async def test_who_has_left_is_told_and_an_iteration_ends_silently() -> None:
    async with Broadcast("memory://") as broadcast:
        async with broadcast.subscribe("c") as subscriber:
            await broadcast.publish("c", 1)
            await until(lambda: subscriber._waiting)
        assert [event.message async for event in subscriber] == [1]
        with pytest.raises(Unsubscribed):
            await subscriber.get()
        assert "c" not in broadcast._subscribers
        with pytest.raises(RuntimeError, match="mine"):
            async with broadcast.subscribe("c"):
                raise RuntimeError("mine")
        assert "c" not in broadcast._subscribers


async def test_disconnecting_ends_who_iterates_and_connecting_again_works() -> None:
    broadcast = Broadcast("memory://")
    heard = []

    async def hear() -> None:
        async with broadcast.subscribe("c") as subscriber:
            async for event in subscriber:
                heard.append(event.message)

    for number in range(2):
        async with anyio.create_task_group() as tasks:
            await broadcast.connect()
            with pytest.raises(RuntimeError, match="connected already"):
                await broadcast.connect()
            tasks.start_soon(hear)
            await until(lambda: "c" in broadcast._subscribers and broadcast._subscribers["c"].subscribers)
            await broadcast.publish("c", number)
            await until(lambda number=number: len(heard) > number)
            await broadcast.disconnect()
    await broadcast.disconnect()
    assert heard == [0, 1]
    with pytest.raises(RuntimeError, match="not connected"):
        await broadcast.publish("c", 2)


async def test_one_who_falls_behind_is_ended_and_the_others_lose_nothing() -> None:
    async with (
        Broadcast("memory://", waiting_max=3) as broadcast,
        broadcast.subscribe("c") as slow,
        broadcast.subscribe("c") as fast,
    ):
        for number in range(10):
            await broadcast.publish("c", number)
            assert await some(fast, 1) == [number]
        assert await some(slow, 3) == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(fanwire.Overtaken, match="'c' promises every publication"):
                await slow.get()


async def test_a_publisher_that_never_pauses_is_held_back_by_the_listener() -> None:
    async with (
        Broadcast("memory://") as broadcast,
        broadcast.subscribe("c") as subscriber,
        anyio.create_task_group() as tasks,
    ):

        async def publish() -> None:
            for number in range(5000):
                await broadcast.publish("c", number)

        tasks.start_soon(publish)
        assert await some(subscriber, 5000) == list(range(5000))


async def test_publish_waits_for_room_and_disconnecting_tells_it() -> None:
    backend = broadcaster.MemoryBackend()
    await backend.connect()
    for _ in range(broadcaster.PUBLISHED_MAX):
        await backend.publish("c", 0)
    async with anyio.create_task_group() as tasks:
        told = []

        async def publish() -> None:
            for _ in range(2):
                try:
                    await backend.publish("c", 1)
                except RuntimeError as error:
                    told.append(str(error))

        tasks.start_soon(publish)
        await anyio.wait_all_tasks_blocked()
        await backend.next_published()
        await anyio.wait_all_tasks_blocked()
        assert told == []
        await backend.disconnect()
    assert len(told) == 1


async def test_history_comes_first_and_nothing_twice() -> None:
    async with Broadcast("memory://", history=3) as broadcast:
        for number in range(5):
            await broadcast.publish("c", number)
        await broadcast.publish("d", "d")
        async with (
            broadcast.subscribe("c") as heard,
            broadcast.subscribe("c", history=2) as two,
            broadcast.subscribe(["c", "d"], history=9) as all_of,
        ):
            await broadcast.publish("c", 5)
            assert await some(heard, 1) == [5]
            assert await some(two, 3) == [3, 4, 5]
            assert await some(all_of, 5) == [2, 3, 4, "d", 5]


async def test_several_channels_and_patterns_come_through_one_subscriber() -> None:
    async with (
        Broadcast("memory://") as broadcast,
        broadcast.subscribe(["a", "b", "a"]) as both,
        broadcast.subscribe("a", pattern="*") as everything,
        broadcast.subscribe(pattern="odds:*:h") as odds,
    ):
        for channel in ("a", "b", "odds:1:h", "odds::h", "odds:1:hh"):
            await broadcast.publish(channel, channel)
        assert await some(both, 2) == ["a", "b"]
        assert await some(everything, 5) == ["a", "b", "odds:1:h", "odds::h", "odds:1:hh"]
        assert await some(odds, 2) == ["odds:1:h", "odds::h"]
        await nothing(odds)


async def test_a_backend_of_ones_own_is_told_of_the_first_and_the_last() -> None:
    backend = Scripted()
    async with Broadcast(backend=backend) as broadcast:
        async with broadcast.subscribe("c"):
            async with broadcast.subscribe("c") as subscriber:
                await broadcast.publish("c", "x")
                assert await some(subscriber, 1) == ["x"]
            assert backend.calls == [("connect",), ("subscribe", "c")]
        assert backend.calls[2:] == [("unsubscribe", "c")]
        with pytest.raises(ValueError, match="Scripted cannot do patterns"):
            broadcast.subscribe(pattern="*")
    assert backend.calls[3:] == [("disconnect",)]


async def test_two_who_come_at_once_are_both_subscribed_and_one_cancelled_leaves_the_backend_clean() -> None:
    backend = Scripted()
    async with Broadcast(backend=backend) as broadcast:
        backend.gate = anyio.Event()
        ready: list[Subscriber] = []

        async def hear() -> None:
            async with broadcast.subscribe("c") as subscriber:
                ready.append(subscriber)
                await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear)
            tasks.start_soon(hear)
            await anyio.wait_all_tasks_blocked()
            backend.gate.set()
            await until(lambda: len(ready) == 2)
            await broadcast.publish("c", "x")
            assert [await some(one, 1) for one in ready] == [["x"], ["x"]]
            tasks.cancel_scope.cancel()
        assert backend.calls == [("connect",), ("subscribe", "c"), ("unsubscribe", "c")]
        assert broadcast._subscribers == {}


async def test_one_who_comes_while_the_last_leaves_stays_subscribed() -> None:
    backend = Scripted()
    async with Broadcast(backend=backend) as broadcast, anyio.create_task_group() as tasks:
        leave = anyio.Event()

        async def hear_until() -> None:
            async with broadcast.subscribe("c"):
                await leave.wait()

        tasks.start_soon(hear_until)
        await until(lambda: ("subscribe", "c") in backend.calls)
        await anyio.wait_all_tasks_blocked()
        backend.gate = anyio.Event()
        leave.set()
        await anyio.wait_all_tasks_blocked()  # it is at `unsubscribe`
        tasks.start_soon(open_gate, backend)
        async with broadcast.subscribe("c") as subscriber:
            assert backend.calls[1:] == [("subscribe", "c"), ("unsubscribe", "c"), ("subscribe", "c")]
            await broadcast.publish("c", "x")
            assert await some(subscriber, 1) == ["x"]


async def test_a_listener_that_dies_is_told_to_subscribers_and_by_disconnect() -> None:
    backend = Scripted()
    broadcast = Broadcast(backend=backend)
    await broadcast.connect()
    async with broadcast.subscribe("c") as subscriber:
        backend.come(ConnectionError("the backend is gone"))
        with pytest.raises(ConnectionError, match="the backend is gone"):
            with anyio.fail_after(60):
                await subscriber.get()
    with pytest.raises(ConnectionError, match="the backend is gone"):
        async with broadcast.subscribe("d"):
            pass
    with pytest.raises(ConnectionError, match="the backend is gone"):
        await broadcast.disconnect()
    assert backend.calls[-1] == ("disconnect",)
    assert broadcast._subscribers == {}


async def test_a_hub_s_clients_and_subscribers_have_the_same(hub: fanwire.Hub) -> None:
    async with (
        hub.serve(),
        Broadcast(backend=HubBackend(hub)) as broadcast,
        broadcast.subscribe("c") as subscriber,
        hub.listen("c") as publications,
    ):
        await broadcast.publish("c", "text")
        hub.publish("c", {"by": ("the", "hub")})
        assert await some(subscriber, 2) == ["text", {"by": ["the", "hub"]}]
        with anyio.fail_after(60):
            assert [(await anext(publications)).data for _ in range(2)] == ["text", {"by": ["the", "hub"]}]
        with pytest.raises(fanwire.UnsupportedType):
            await broadcast.publish("c", object())


async def test_a_hub_that_ends_ends_its_subscribers(make_hub: MakeHub) -> None:
    hub = make_hub()
    await hub.start()
    broadcast = Broadcast(backend=HubBackend(hub, "odds:*"))
    await broadcast.connect()
    with pytest.raises(ValueError, match="channel 'c' is not heard: the pattern of this HubBackend is 'odds:\\*'"):
        async with broadcast.subscribe("c"):
            pass
    async with broadcast.subscribe("odds:1") as subscriber:
        await hub.stop()
        with pytest.raises(fanwire.HubStopped), anyio.fail_after(60):
            await subscriber.get()
    with pytest.raises(fanwire.HubStopped):
        await broadcast.disconnect()


async def test_a_hub_s_backlog_that_went_past_is_logged_and_the_broadcast_goes_on(
    make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make_hub({"c": fanwire.Channel(backlog_frames=2)})
    async with (
        hub.serve(),
        Broadcast(backend=HubBackend(hub)) as broadcast,
        broadcast.subscribe("c") as subscriber,
    ):
        hub.publish_many("c", [str(number) for number in range(500)])  # at once: the loop cannot keep up
        await until(lambda: "messages were missed" in caplog.text)
        await broadcast.publish("c", "after")
        with anyio.fail_after(60):
            while (await subscriber.get()).message != "after":
                pass


async def test_a_name_that_is_none_hurts_its_publisher_alone() -> None:
    async with Broadcast("memory://") as broadcast, broadcast.subscribe(["c"], pattern="*") as subscriber:
        for name in (["c"], 7):
            with pytest.raises(TypeError, match="a channel must be a str"):
                await broadcast.publish(name, "x")  # type: ignore[arg-type]
        await broadcast.publish("c", "goes on")
        assert (await subscriber.get()).message == "goes on"


def test_what_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match=r"Either `url` or `backend` must be provided\."):
        Broadcast()
    with pytest.raises(ValueError, match="Unsupported backend: mqtt"):
        Broadcast("mqtt://user:secret@host")
    for name, value in (("history", -1), ("history", True), ("waiting_max", 0), ("waiting_max", 1.5)):
        with pytest.raises((TypeError, ValueError), match=f"{name} must be a whole number"):
            Broadcast("memory://", **{name: value})  # type: ignore[arg-type]
    broadcast = Broadcast("memory://")
    with pytest.raises(ValueError, match="needs a channel, several, or a pattern"):
        broadcast.subscribe()
    with pytest.raises(TypeError, match="a channel must be a str, not 7"):
        broadcast.subscribe([7])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="history must be a whole number"):
        broadcast.subscribe("c", history=-1)
    for module in ("broadcaster._backends.redis", "broadcaster.backends.redis"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'fanwire\[broadcaster\]' 'broadcaster\[redis\]'") as told:
        Broadcast("redis://user:secret@host")
    assert "secret" not in str(told.value)


def test_other_schemes_are_the_backends_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class RedisBackend(Scripted):
        def __init__(self, url: str) -> None:
            super().__init__()
            self.url = url

    module = type(sys)("redis")
    module.RedisBackend = RedisBackend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broadcaster._backends.redis", module)

    async def main() -> None:
        from broadcaster import Event as TheirEvent

        async with Broadcast("rediss://host") as broadcast:
            assert broadcast._backend.url == "rediss://host"
            async with broadcast.subscribe("c") as subscriber:
                broadcast._backend.come(TheirEvent("c", "x"))
                assert await subscriber.get() == Event("c", "x")

    asyncio.run(main())


def test_what_is_kept_is_bounded() -> None:
    kept: recent.Recent[int] = recent.Recent(2)
    for number in range(recent.CHANNELS_MAX + 1):
        kept.add(f"c{number}", number)
        kept.add("always", number)
    assert len(kept.channels()) == recent.CHANNELS_MAX
    assert kept.last("c0") == []
    assert kept.last("always") == [recent.CHANNELS_MAX - 1, recent.CHANNELS_MAX]
    assert kept.last("always", 1) == [recent.CHANNELS_MAX]
    assert kept.last("always", 0) == []
    nothing_kept: recent.Recent[int] = recent.Recent(0)
    nothing_kept.add("c", 1)
    assert nothing_kept.channels() == []


def pushing(broadcast: Broadcast, ends: list[Any]) -> Starlette:
    """A program whose sockets get a channel by ``send_to``."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async with broadcast.subscribe("c", history=1) as subscriber:
            try:
                await subscriber.send_to(websocket)
                ends.append(None)
            except Exception as error:
                ends.append(error)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with broadcast:
            await broadcast.publish("c", "kept")
            yield

    return Starlette(routes=[WebSocketRoute("/", endpoint)], lifespan=lifespan)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("ws", ["auto", "fanwire.uvicorn:Sansio"])
async def test_a_websocket_gets_what_its_subscriber_would(ws: str) -> None:
    broadcast, ends = Broadcast("memory://", history=1), []
    async with (
        served(pushing(broadcast, ends), ws, lifespan="on", ws_ping_interval=None) as address,
        connect(f"ws://{address}/") as ann,
        connect(f"ws://{address}/") as bob,
    ):
        with anyio.fail_after(60):
            assert [await ann.recv(), await bob.recv()] == ["kept", "kept"]
            sent = ["text", b"\xff", {"a": (1, "ü")}, *map(str, range(50))]
            for message in sent:
                await broadcast.publish("c", message)
                await broadcast.publish("c", "\ud800")  # such as a client may write in JSON
                await broadcast.publish("c", ["\ud800"])
            for client in (ann, bob):
                got = [await client.recv() for _ in sent]
                assert got == ["text", b"\xff", '{"a":[1,"ü"]}', *map(str, range(50))]
            ann.transport.abort()
            if ws != "auto":  # uvicorn's own protocol tells nobody who does not receive
                while not ends:
                    await broadcast.publish("c", "x")
                    assert await bob.recv() == "x"
                assert ends == [None]
            await broadcast.publish("c", object())
            await until(lambda: any(isinstance(error, TypeError) for error in ends))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("ws", ["auto", "fanwire.uvicorn:Sansio"])
async def test_a_websocket_that_is_not_read_ends_its_subscription_alone(ws: str) -> None:
    broadcast, ends = Broadcast("memory://", history=1), []
    app = pushing(broadcast, ends)
    settings = {"ws_ping_interval": None, "ws_per_message_deflate": False, "timeout_graceful_shutdown": 1}
    async with (
        served(app, ws, lifespan="on", **settings) as address,
        connect(f"ws://{address}/", max_queue=1) as slow,
        connect(f"ws://{address}/") as fast,
    ):
        with anyio.fail_after(60):
            assert await fast.recv() == "kept"
            await until(lambda: len(broadcast._subscribers["c"].subscribers) == 2)
            slow.transport.pause_reading()
            text = "x" * 200_000
            while not ends:
                await broadcast.publish("c", text)
                assert await fast.recv() == text
            assert isinstance(ends[0], fanwire.Overtaken)
            await broadcast.publish("c", "after")
            assert await fast.recv() == "after"
        slow.transport.abort()


async def test_what_can_be_sent_to_is_said() -> None:
    async with Broadcast("memory://") as broadcast, broadcast.subscribe("c") as subscriber:
        with pytest.raises(fanwire.AdoptionError):
            await subscriber.send_to(object())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_its_chat_works_unchanged_under_uvicorn() -> None:
    """The program of broadcaster's README, with one import of ours."""
    broadcast = Broadcast("memory://")

    async def chatroom_ws(websocket: WebSocket) -> None:
        await websocket.accept()
        async with anyio.create_task_group() as task_group:

            async def receive() -> None:
                async for message in websocket.iter_text():
                    await broadcast.publish(channel="chatroom", message=message)
                task_group.cancel_scope.cancel()

            task_group.start_soon(receive)
            async with broadcast.subscribe(channel="chatroom") as subscriber:
                await websocket.send_text("ready")
                async for event in subscriber:
                    await websocket.send_text(event.message)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with broadcast:
            yield

    app = Starlette(routes=[WebSocketRoute("/", chatroom_ws)], lifespan=lifespan)
    async with served(app, "auto", lifespan="on") as address:
        async with connect(f"ws://{address}/") as ann, connect(f"ws://{address}/") as bob:
            with anyio.fail_after(60):
                assert [await ann.recv(), await bob.recv()] == ["ready", "ready"]
                await ann.send("hello")
                assert [await ann.recv(), await bob.recv()] == ["hello", "hello"]
        await until(lambda: not broadcast._subscribers)
