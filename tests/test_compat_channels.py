"""The layer for Django Channels: its specification, several event loops, and consumers over real sockets."""

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from django.conf import settings

if not settings.configured:
    settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "fanwire.compat.django_channels.ChannelLayer"}})

from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from channels.layers import get_channel_layer
from fanwire.compat import django_channels
from fanwire.compat.django_channels import ChannelLayer, FanwireConsumer
from hypothesis import given
from hypothesis import strategies as st
from support.uvicorns import served
from support.waiting import until, until_in_thread
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio


class Clock:
    """The layer's time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Stands until it is set."""
    clock = Clock()
    monkeypatch.setattr(django_channels, "monotonic", clock)
    return clock


async def received(layer: ChannelLayer, channel: str) -> Any:
    """The next message's type."""
    with anyio.fail_after(60):
        return (await layer.receive(channel))["type"]


async def nothing(layer: ChannelLayer, channel: str) -> None:
    """No message waits."""
    with anyio.move_on_after(0.02) as scope:
        await layer.receive(channel)
    assert scope.cancelled_caught


async def test_messages_come_once_in_order_and_the_sender_s_changes_do_not_show() -> None:
    layer = ChannelLayer()
    message = {"type": "a", "list": [1, {"b": b"\xff"}], "none": None, "float": 1.5, "set": {1}}
    await layer.send("test-channel", message)
    message["list"][1]["b"] = b"changed"  # type: ignore[index]
    await layer.send("test-channel", {"type": "b"})
    assert "test-channel" in layer.channels
    with anyio.fail_after(60):
        expected = {"type": "a", "list": [1, {"b": b"\xff"}], "none": None, "float": 1.5, "set": {1}}
        assert await layer.receive("test-channel") == expected
    assert await received(layer, "test-channel") == "b"
    assert layer.channels == {}
    await layer.send("big", {"type": "big", "text": "x" * (2 << 20)})
    assert await received(layer, "big") == "big"


async def test_a_full_channel_refuses_and_a_group_passes_it_by(caplog: pytest.LogCaptureFixture) -> None:
    layer = ChannelLayer(capacity=3, channel_capacity={"one.*": 1, re.compile("two"): 2})
    for channel, capacity in (("test", 3), ("one.x", 1), ("two", 2), (await layer.new_channel(), 3)):
        for _ in range(capacity):
            await layer.send(channel, {"type": "a"})
        with pytest.raises(ChannelFull):
            await layer.send(channel, {"type": "a"})
        with pytest.raises(layer.ChannelFull):
            await layer.send(channel, {"type": "a"})
    await layer.group_add("group", "test")
    await layer.group_add("group", "free")
    caplog.set_level("INFO", "fanwire.channels")
    await layer.group_send("group", {"type": "b"})
    assert await received(layer, "free") == "b"
    assert "1 of 2 channels of group group were over capacity and missed a message" in caplog.text


async def test_names_with_one_part_before_the_mark_share_its_capacity() -> None:
    layer = ChannelLayer(capacity=2)
    await layer.send("worker!a", {"type": "a"})
    await layer.send("worker!b", {"type": "b"})
    with pytest.raises(ChannelFull):
        await layer.send("worker!c", {"type": "c"})
    assert await received(layer, "worker!a") == "a"
    await layer.send("worker!c", {"type": "c"})
    assert await received(layer, "worker!c") == "c"
    assert await received(layer, "worker!b") == "b"
    assert layer._taken == {}


async def test_new_channels_are_ones_own_and_may_be_received_from() -> None:
    layer = ChannelLayer()
    names = {await layer.new_channel() for _ in range(100)} | {await layer.new_channel("specific.")}
    assert len(names) == 101
    for name in names:
        assert re.fullmatch(r"specific\.[0-9a-f]{16}!", name)
        assert layer.require_valid_channel_name(name, receive=True)


async def test_each_member_of_a_group_gets_its_own_message() -> None:
    layer = ChannelLayer()
    for channel in ("one", "two", "three", "two"):
        await layer.group_add("group", channel)
    await layer.group_discard("group", "three")
    await layer.group_discard("group", "three")
    await layer.group_discard("nobody", "three")
    await layer.group_send("nobody", {"type": "a"})
    await layer.group_send("group", {"type": "a", "list": []})
    with anyio.fail_after(60):
        first = await layer.receive("one")
        first["list"].append("mine")
        assert await layer.receive("two") == {"type": "a", "list": []}
    await nothing(layer, "three")
    await layer.group_discard("group", "one")
    await layer.group_discard("group", "two")
    assert (layer.groups, layer._groups_of) == ({}, {})


async def test_a_message_that_expires_is_dropped_with_its_channel_s_memberships(clock: Clock) -> None:
    layer = ChannelLayer(expiry=10)
    await layer.group_add("group", "idle")
    await layer.group_add("group", "read")
    await layer.group_send("group", {"type": "a"})
    assert await received(layer, "read") == "a"
    clock.now += 5
    await layer.send("idle", {"type": "b"})
    clock.now += 5
    await layer.group_send("group", {"type": "c"})
    assert list(layer.groups["group"]) == ["read"]
    assert await received(layer, "read") == "c"
    assert await received(layer, "idle") == "b"
    await layer.send("other", {"type": "d"})
    clock.now += 10
    await nothing(layer, "idle")
    assert layer.channels == {}
    assert layer._due == []


async def test_room_that_expired_messages_take_is_free(clock: Clock) -> None:
    layer = ChannelLayer(expiry=10, capacity=1)
    for channel in ("c", "worker!a"):
        await layer.send(channel, {"type": "old"})
    clock.now += 10
    await layer.send("worker!b", {"type": "new"})
    await layer.send("c", {"type": "new"})
    assert await received(layer, "c") == "new"


async def test_channels_that_nobody_reads_are_swept_by_those_who_send(clock: Clock) -> None:
    layer = ChannelLayer(expiry=10)
    for number in range(1024):
        await layer.send(f"c{number}", {"type": "a"})
    clock.now += 10
    await layer.send("new", {"type": "a"})
    assert list(layer.channels) == ["new"]


async def test_memberships_end_with_time_also_where_nobody_sends(clock: Clock) -> None:
    layer = ChannelLayer(group_expiry=100)
    assert ChannelLayer(expiry=100_500).group_expiry == 86_400
    await layer.group_add("group", "old")
    await layer.group_add("group", "again")
    await layer.group_add("quiet", "old")
    clock.now += 70
    await layer.group_add("group", "again")
    clock.now += 30
    await layer.group_send("group", {"type": "a"})
    assert list(layer.groups["group"]) == ["again"]
    clock.now += 40
    await layer.group_add("group", "new")
    assert "quiet" not in layer.groups


async def test_several_who_receive_get_each_message_once_and_one_who_is_cancelled_takes_none() -> None:
    layer = ChannelLayer()
    got: list[str] = []

    async def receive(scope: anyio.CancelScope) -> None:
        with scope:
            got.append((await layer.receive("c"))["type"])

    async with anyio.create_task_group() as tasks:
        scopes = [anyio.CancelScope() for _ in range(4)]
        for scope in scopes:
            tasks.start_soon(receive, scope)
            await anyio.wait_all_tasks_blocked()
        scopes[1].cancel()
        await anyio.wait_all_tasks_blocked()
        await layer.send("c", {"type": "a"})
        scopes[0].cancel()  # it is woken for `a` already
        await layer.send("c", {"type": "b"})
        await until(lambda: len(got) == 2)
        tasks.cancel_scope.cancel()  # where the first took one after all, another still waits
    assert sorted(got) == ["a", "b"]
    assert layer.channels == {}


async def test_flush_forgets_all_and_who_waits_goes_on() -> None:
    layer = ChannelLayer()
    await layer.group_add("group", "c")
    await layer.send("other!x", {"type": "a"})
    async with anyio.create_task_group() as tasks:
        got = []

        async def receive() -> None:
            got.append(await layer.receive("c"))

        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await layer.flush()
        assert (list(layer.channels), layer.groups, layer._taken, layer._due) == (["c"], {}, {}, [])
        await layer.send("c", {"type": "b"})
    assert got == [{"type": "b"}]
    await layer.close()


@pytest.mark.parametrize("name", ["¯\\_(ツ)_/¯", "", "a b", "x" * 100, 7, None, "a!b!c"])
async def test_a_bad_name_is_a_type_error_everywhere(name: Any) -> None:
    layer = ChannelLayer()
    calls = [
        layer.send(name, {}),
        layer.receive(name),
        layer.group_add("group", name),
        layer.group_discard("group", name),
        layer.group_add(name, "channel"),
        layer.group_discard(name, "channel"),
        layer.group_send(name, {}),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="name must be a valid unicode string"):
            await call


async def test_what_is_no_message_and_what_is_no_capacity_is_refused() -> None:
    layer = ChannelLayer()
    for message, error in (("text", TypeError), ({"__asgi_channel__": "x"}, ValueError)):
        for call in (layer.send("c", message), layer.group_send("g", message)):  # type: ignore[arg-type]
            with pytest.raises(error, match="a message must"):
                await call
    for options in ({"capacity": 0}, {"expiry": "x"}, {"group_expiry": 0}, {"channel_capacity": {"x": 0.5}}):
        with pytest.raises((TypeError, ValueError), match=next(iter(options))):
            ChannelLayer(**options)  # type: ignore[arg-type]


def test_loops_of_several_threads_use_it_at_once() -> None:
    layer = ChannelLayer(capacity=10_000)
    got: dict[int, list[int]] = {}

    def consume(number: int) -> None:
        async def main() -> None:
            channel = f"c{number}"
            await layer.group_add("group", channel)
            got[number] = []
            while len(got[number]) < 300:
                got[number].append((await layer.receive(channel))["n"])

        asyncio.run(main())

    threads = [threading.Thread(target=consume, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    until_in_thread(lambda: len(got) == 3)
    for number in range(300):
        async_to_sync(layer.group_send)("group", {"type": "n", "n": number})
    for thread in threads:
        thread.join(60)
    assert got == {number: list(range(300)) for number in range(3)}


def test_a_loop_that_has_ended_is_passed_by() -> None:
    layer = ChannelLayer()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(layer.receive("c"))
    loop.run_until_complete(asyncio.wait([waiting], timeout=0.01))
    loop.close()  # with a task that waits: it never goes on

    async def main() -> None:
        await layer.send("c", {"type": "a"})
        assert await received(layer, "c") == "a"

    asyncio.run(main())
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    waiting.get_coro().close()  # type: ignore[union-attr]


@given(st.lists(st.sampled_from(["send", "receive", "cancel", "flush"]), max_size=40))
def test_each_message_goes_to_one_receiver_or_none(steps: list[str]) -> None:
    """Against a list: what was received is what was sent, in order, and nothing of it twice."""

    async def main() -> None:
        layer = ChannelLayer(capacity=5)
        sent: list[int] = []
        flushed: set[int] = set()
        got: list[int] = []
        tasks: list[asyncio.Task[None]] = []

        async def receive() -> None:
            got.append((await layer.receive("c"))["n"])

        for number, step in enumerate(steps):
            if step == "send":
                try:
                    await layer.send("c", {"n": number})
                except ChannelFull:
                    assert len(layer.channels["c"]) == 5
                else:
                    sent.append(number)
            elif step == "receive":
                tasks.append(asyncio.create_task(receive()))
            elif step == "cancel" and tasks:
                tasks.pop(0).cancel()
            elif step == "flush":
                await anyio.wait_all_tasks_blocked()
                flushed |= set(sent) - set(got)
                await layer.flush()
        await anyio.wait_all_tasks_blocked()
        waiting = [message.content["n"] for message in layer.channels["c"].messages] if "c" in layer.channels else []
        assert got + waiting == [number for number in sent if number not in flushed]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert ("c" in layer.channels) == bool(waiting)

    asyncio.run(main())


class Direct(FanwireConsumer, AsyncJsonWebsocketConsumer):
    """One whose group is sent to directly, and that does as its client says."""

    async def connect(self) -> None:
        await self.channel_layer.group_add("direct", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("direct", self.channel_name)

    async def receive_json(self, content: Any, **_: Any) -> None:
        await self.send_json(content)

    async def chat_message(self, event: dict[str, Any]) -> None:
        """One message to this client."""
        await self.send_json(event["message"])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("ws", ["auto", "fanwire.uvicorn:Protocol", "fanwire.uvicorn:Sansio"])
async def test_what_is_sent_directly_keeps_its_order_with_all_else(ws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, direct = get_channel_layer(), []
    write_frames = django_channels.write_frames
    monkeypatch.setattr(django_channels, "write_frames", lambda *a: (direct.append(len(a[0])), write_frames(*a)))
    async with served(Direct.as_asgi(), ws) as address:
        async with connect(f"ws://{address}/") as ann, connect(f"ws://{address}/") as bob:
            with anyio.fail_after(60):
                await until(lambda: len(layer.groups.get("direct", ())) == 2)
                await anyio.wait_all_tasks_blocked()
                for number in range(60):
                    await layer.group_send("direct", {"type": "fanwire.send", "json": number})
                    if number % 7 == 3:
                        await layer.group_send("direct", {"type": "chat.message", "message": number})
                await layer.group_send("direct", {"type": "fanwire.send", "bytes": b"\xff"})
                expected = [str(n) for number in range(60) for n in [number] * (1 + (number % 7 == 3))]
                expected += [b"\xff"]
                for client in (ann, bob):
                    assert [await client.recv() for _ in expected] == expected
                send = async_to_sync(layer.group_send)
                for number in range(20):  # of a view, in another thread
                    kind = {"type": "fanwire.send", "text": f"{number}"}
                    await anyio.to_thread.run_sync(send, "direct", kind)
                for client in (ann, bob):
                    assert [await client.recv() for _ in range(20)] == [f"{number}" for number in range(20)]
                await ann.send("7")
                assert await ann.recv() == "7"
        await until(lambda: not layer.channels)
        assert layer._seats == {}
    assert (len(direct) > 20) == (ws != "auto")
    assert layer.groups == {}


async def test_what_cannot_be_sent_directly_is_said() -> None:
    layer = ChannelLayer()
    bad = {"data": "x"}, {"text": b"x"}, {"text": "\ud800"}, {"bytes": "x"}, {"json": {1}}
    for message in ({}, {"text": "a", "bytes": b"b"}, *bad):
        with pytest.raises((TypeError, ValueError)):
            await layer.group_send("group", {"type": "fanwire.send", **message})
    with pytest.raises(TypeError, match="Sync: FanwireConsumer goes before an asynchronous consumer"):
        type("Sync", (FanwireConsumer, WebsocketConsumer), {})


class Chat(AsyncJsonWebsocketConsumer):
    """The consumer of Channels' tutorial."""

    async def connect(self) -> None:
        await self.channel_layer.group_add("chat", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("chat", self.channel_name)

    async def receive_json(self, content: Any, **_: Any) -> None:
        await self.channel_layer.group_send("chat", {"type": "chat.message", "message": content})

    async def chat_message(self, event: dict[str, Any]) -> None:
        """One message to this client."""
        await self.send_json(event["message"])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_tutorial_s_chat_works_and_leaves_nothing() -> None:
    layer = get_channel_layer()
    assert type(layer) is ChannelLayer
    async with served(Chat.as_asgi(), "auto") as address:
        async with connect(f"ws://{address}/") as ann, connect(f"ws://{address}/") as bob:
            with anyio.fail_after(60):
                await until(lambda: len(layer.groups.get("chat", ())) == 2)
                await ann.send('"hello"')
                assert [await ann.recv(), await bob.recv()] == ['"hello"', '"hello"']
                await anyio.to_thread.run_sync(
                    async_to_sync(layer.group_send), "chat", {"type": "chat.message", "message": "from a view"}
                )
                assert [await ann.recv(), await bob.recv()] == ['"from a view"', '"from a view"']
        await until(lambda: not layer.channels)
    assert layer.groups == {}
