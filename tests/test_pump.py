"""Messages of clients: order, concurrency, flow control, callbacks that raise."""

import asyncio
import logging
from functools import partial
from typing import Literal

import anyio
import fanwire
import pytest
from fanwire.pump import Pump
from fanwire.relay import RelayConfig
from support.clients import connected, refusal
from support.raw import open_socket
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Whether the callback under test is ``async def``."""
    return bool(request.param == "async")


def echo(hub: fanwire.Hub, is_async: bool) -> None:
    """Register an echo."""
    if is_async:

        async def echo_async(client: fanwire.Client, data: str | bytes) -> None:
            await anyio.lowlevel.checkpoint()
            client.send(data)

        hub.on_message(echo_async)
    else:
        hub.on_message(lambda client, data: client.send(data))


async def test_messages_come_whole_and_in_order(hub: fanwire.Hub, is_async: bool) -> None:
    echo(hub, is_async)
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        sent: list[str | bytes] = [f"{number} ü" if number % 2 else bytes([number]) for number in range(200)]
        async with anyio.create_task_group() as tasks:

            async def send_all() -> None:
                for data in sent:
                    await peer.send(data)

            tasks.start_soon(send_all)
            assert await peer.receive_all(len(sent)) == sent


async def test_a_slow_handler_of_one_client_holds_up_no_other(hub: fanwire.Hub) -> None:
    free = anyio.Event()

    @hub.on_message
    async def wait(client: fanwire.Client, data: str) -> None:
        if data == "slow":
            await free.wait()
        client.send(data)

    async with (
        hub.serve(ANY) as serving,
        connected(serving.address) as slow,
        connected(serving.address) as quick,
    ):
        await slow.send("slow")
        await slow.send("after")
        await quick.send("quick")
        assert await quick.receive() == "quick"
        free.set()
        assert await slow.receive_all(2) == ["slow", "after"]


async def test_unhandled_messages_are_bounded_and_none_is_lost(hub: fanwire.Hub) -> None:
    free = anyio.Event()
    seen: list[str] = []

    @hub.on_message
    async def wait(client: fanwire.Client, data: str) -> None:
        seen.append(data)
        await free.wait()

    async with hub.serve(ANY, messages_pending_max=4) as serving, connected(serving.address) as peer:
        for number in range(100):
            await peer.send(str(number))
        await until(lambda: seen)
        client = next(iter(hub_clients(hub)))
        assert len(client._waiting or ()) <= 4
        free.set()
        await until(lambda: len(seen) == 100)
        assert seen == [str(number) for number in range(100)]


def hub_clients(hub: fanwire.Hub) -> list[fanwire.Client]:
    """The clients that the serving hub remembers."""
    import gc

    return [object for object in gc.get_objects() if type(object) is fanwire.Client and object._link is hub._link]


async def test_without_on_message_messages_are_dropped_and_the_first_is_told_so(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        for _ in range(100):
            await peer.send("nobody listens")
        await peer.send_json(call="x", id=1)
        error = (await peer.receive_json())["error"]
        assert "this is no request" in error
        assert '{"call":"METHOD","args":[],"id":1} calls a method' in error
        assert await peer.receive_json() == {"id": 1, "error": "no method 'x'"}


@pytest.mark.parametrize("protocol", ["signalr", "websocket"])
async def test_an_idle_client_beside_a_relay_costs_no_object_and_no_event(
    hub: fanwire.Hub, protocol: Literal["signalr", "websocket"], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.relay(RelayConfig(path="/feed", upstream=("http://127.0.0.1:1",), protocol=protocol, ready="ignore"))
    seen: list[str] = []
    taken = Pump._take_events
    monkeypatch.setattr(
        Pump, "_take_events", lambda pump: [seen.append(type(one).__name__) or one for one in taken(pump)]
    )
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
        with open_socket(serving.address) as stream:
            stream.sendall(b"GET /events?channel=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await until(lambda: hub.occupancy("a") == 2)
        await until(lambda: hub.occupancy("a") == 1)
        hub.publish("a", "x")
        assert await peer.receive() == "x"
        await peer.close()
        await until(lambda: hub.occupancy("a") == 0)
        assert (hub_clients(hub), seen) == ([], [])


async def test_idle_clients_leave_no_object_in_python(hub: fanwire.Hub) -> None:
    hub.on_message(lambda client, data: None)
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
        await until(lambda: hub.occupancy("a") == 1)
        assert hub_clients(hub) == []
        await peer.send("now it is known")
        await until(lambda: len(hub_clients(hub)) == 1)
        await peer.close()
        await until(lambda: not hub_clients(hub))


async def test_on_message_that_raises_is_logged_and_told_and_the_hub_lives(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.on_message
    async def fail(client: fanwire.Client, data: str) -> None:
        if data == "told":
            raise fanwire.CallFailed("not like that")
        raise ZeroDivisionError("secret detail")

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        with caplog.at_level(logging.ERROR, "fanwire"):
            await peer.send("x")
            assert await peer.receive_json() == {"error": "internal error"}
        assert "ZeroDivisionError: secret detail" in caplog.text
        await peer.send("told")
        assert await peer.receive_json() == {"error": "not like that"}
        await peer.send_json(call="x", id=1)
        assert "error" in await peer.receive_json()


async def test_a_sync_callback_that_returns_an_awaitable_is_told_of(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    async def later() -> None: ...

    hub.on_message(lambda client, data: later())
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send("x")
        assert await peer.receive_json() == {"error": "internal error"}
    assert "define it with `async def`" in caplog.text


async def test_a_sync_callback_may_return_what_publish_gives(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.on_message(lambda client, data: hub.publish("c", data))
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=c") as peer:
        await peer.send("x")
        assert await peer.receive() == "x"
    assert not caplog.records


async def test_a_client_that_leaves_drops_what_waits_and_lets_the_running_handler_finish(hub: fanwire.Hub) -> None:
    free = anyio.Event()
    started: list[str] = []
    finished: list[str] = []

    @hub.on_message
    async def wait(client: fanwire.Client, data: str) -> None:
        started.append(data)
        await free.wait()
        client.send("nobody there")
        finished.append(data)

    async with hub.serve(ANY) as serving:
        async with connected(serving.address) as peer:
            for data in ("1", "2", "3"):
                await peer.send(data)
            await until(lambda: started)
            await until(lambda: any(len(client._waiting or ()) == 2 for client in hub_clients(hub)))
        await until(lambda: hub.stats().connections == 0)
        await until(lambda: not any(client._waiting for client in hub_clients(hub)))
        free.set()
        await until(lambda: finished == ["1"])
    assert started == ["1"]


async def test_handlers_at_work_are_cancelled_when_serving_ends(hub: fanwire.Hub) -> None:
    begun = anyio.Event()
    ended: list[str] = []

    @hub.on_message
    async def wait(client: fanwire.Client, data: str) -> None:
        begun.set()
        try:
            await anyio.Event().wait()
        finally:
            ended.append(data)

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send("x")
        await begun.wait()
        await peer.close()
    assert ended == ["x"]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"])
async def test_a_handler_that_lets_cancelled_error_escape_costs_only_its_own_work(hub: fanwire.Hub) -> None:
    @hub.on_message
    async def fail(client: fanwire.Client, data: str) -> None:
        await anyio.lowlevel.checkpoint()
        if data == "cancel":
            raise asyncio.CancelledError
        client.send(data)

    async with hub.serve(ANY, messages_pending_max=2) as serving, connected(serving.address) as peer:
        for _ in range(5):
            await peer.send("cancel")
            await peer.send_json(call="x", id=1)
        await until(lambda: all(client._waiting is None for client in hub_clients(hub)))
        await peer.send("echo")
        while await peer.receive() != "echo":
            pass


async def test_a_client_whose_id_leaves_no_room_for_an_answer_is_closed_and_fills_no_log(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    async with hub.serve(ANY, outbox_bytes_max=1_024) as serving:
        async with connected(serving.address) as peer:
            await peer.send_json(call="x", id="i" * 2_000)
            assert await peer.closed() == (1009, "a message with an id of 2002 characters cannot be answered")
        async with connected(serving.address) as peer:
            await peer.send_json(call="x", id=1)
            assert "error" in await peer.receive_json()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_subscription_too_many_is_an_error_also_where_authorize_allows_it(hub: fanwire.Hub) -> None:
    hub.authorize(lambda client, channel: channel != "secret")
    async with hub.serve(ANY, subscriptions_max=2) as serving, connected(serving.address) as peer:
        await peer.send_json(subscribe=["a", "a", "secret", "b", "c"], id=1)
        bound = "subscriptions_max: 3 is over the bound of 2"
        assert await peer.receive_json() == {"id": 1, "error": f"not authorized for channel 'secret'; {bound}"}
        await peer.send_json(subscribe=["b", "a"], id=2)
        assert await peer.receive_json() == {"id": 2, "result": {"subscribed": ["b", "a"]}}


async def test_a_channel_too_many_in_the_query_is_503_whoever_decides(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY, channels_max=1) as serving:
        assert (await refusal(serving.address, "/ws?channel=a&channel=b"))[0] == 503
    hub.authenticate(lambda request: None)
    async with hub.serve(ANY, channels_max=1) as serving:
        assert (await refusal(serving.address, "/ws?channel=a&channel=b"))[0] == 503


async def test_clients_subscribe_and_unsubscribe_by_message(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send_json(subscribe=["a", "b"], id=1)
        assert await peer.receive_json() == {"id": 1, "result": {"subscribed": ["a", "b"]}}
        hub.publish("b", "x")
        assert await peer.receive() == "x"
        await peer.send_json(unsubscribe=["b"])
        await until(lambda: hub.occupancy("b") == 0)
        hub.publish("b", "not any more")
        hub.publish("a", "y")
        assert await peer.receive() == "y"


async def test_many_clients_at_once_under_async_authenticate(hub: fanwire.Hub) -> None:
    at_work = highest = 0

    @hub.authenticate
    async def who(request: fanwire.Request) -> str:
        nonlocal at_work, highest
        at_work += 1
        highest = max(highest, at_work)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        at_work -= 1
        return request.query["user"]

    async def one(number: int) -> None:
        async with connected(serving.address, f"/ws?channel=a&user={number}"):
            seen.add(number)
            await until(lambda: len(seen) == 24)

    seen: set[int] = set()
    async with hub.serve(ANY, openings_max=3) as serving, anyio.create_task_group() as tasks:
        for number in range(24):
            tasks.start_soon(partial(one, number))
    assert highest <= 3
