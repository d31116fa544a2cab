"""What programs on FastAPI use: the tutorial's rooms, a hub as a dependency, routes and event streams that it feeds."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import anyio
import fanwire
import httpx
import pytest
from anyio.lowlevel import checkpoint
from fanwire.adapters.starlette import StarletteSocket
from fanwire.fastapi import Broadcaster, ConnectionManager, EventSourceResponse, record, websocket_channel
from fanwire.hub import Hub
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect, WebSocketException
from starlette.testclient import TestClient
from support.certificates import authority, signed_by
from support.frameworks import stalled_client
from support.uvicorns import served
from support.waiting import until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = pytest.mark.anyio
PROTOCOLS = ["auto", "fanwire.uvicorn:Sansio", "fanwire.uvicorn:Protocol"]
"""Of uvicorn: one that hides its transport, and those that offer it."""


@pytest.fixture
def anyio_backend() -> str:
    """uvicorn is asyncio's."""
    return "asyncio"


def chat(manager: Any) -> FastAPI:
    """The program of FastAPI's tutorial, with its connection manager or another."""
    app = FastAPI()

    @app.websocket("/ws/{client_id}")
    async def websocket_endpoint(websocket: WebSocket, client_id: int) -> None:
        await manager.connect(websocket)
        try:
            while True:
                data = await websocket.receive_text()
                await manager.send_personal_message(f"You wrote: {data}", websocket)
                await manager.broadcast(f"Client #{client_id} says: {data}")
        except WebSocketDisconnect:
            manager.disconnect(websocket)
            await manager.broadcast(f"Client #{client_id} left the chat")

    return app


@asynccontextmanager
async def joined(address: str, *numbers: int) -> AsyncIterator[list[Any]]:
    """Clients of the chat."""
    async with anyio.create_task_group():
        clients = [await connect(f"ws://{address}/ws/{number}") for number in numbers]
        try:
            yield clients
        finally:
            for client in clients:
                await client.close()


async def said(client: Any, count: int) -> list[Any]:
    """The next so many messages."""
    with anyio.fail_after(60):
        return [await client.recv() for _ in range(count)]


def test_fastapi_s_own_test_of_its_tutorial_passes() -> None:
    client = TestClient(chat(manager := ConnectionManager()))
    for _ in range(20):
        with client.websocket_connect("/ws/1234") as one, client.websocket_connect("/ws/5678") as two:
            one.send_text("Hello from 1234")
            assert one.receive_text() == "You wrote: Hello from 1234"
            assert two.receive_text() == "Client #1234 says: Hello from 1234"
            assert one.receive_text() == "Client #1234 says: Hello from 1234"
            two.send_text("Hello from 5678")
            assert two.receive_text() == "You wrote: Hello from 5678"
            assert one.receive_text() == "Client #5678 says: Hello from 5678"
            assert two.receive_text() == "Client #5678 says: Hello from 5678"
            one.close(1000)
            assert two.receive_text() == "Client #1234 left the chat"
        assert manager.active_connections == []


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_the_tutorial_s_chat_works_over_real_sockets(ws: str) -> None:
    manager = ConnectionManager()
    async with served(chat(manager), ws) as address, joined(address, 1, 2) as (ann, bob):
        await until(lambda: len(manager.active_connections) == 2)
        for number in range(20):
            await ann.send(f"x{number}")
        expected = [text for n in range(20) for text in (f"You wrote: x{n}", f"Client #1 says: x{n}")]
        assert await said(ann, 40) == expected
        assert await said(bob, 20) == expected[1::2]
        await ann.close()
        assert await said(bob, 1) == ["Client #1 left the chat"]
        await manager.broadcast_json({"a": [1, "ü"]})
        await manager.broadcast_bytes(b"\xff")
        await manager.broadcast("last")
        await manager.send_personal_message("personal", manager.active_connections[0])
        assert await said(bob, 4) == ['{"a":[1,"ü"]}', b"\xff", "last", "personal"]


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_one_who_does_not_read_is_closed_and_one_who_is_gone_is_forgotten(
    ws: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.adopt.local.CLOSE_TIMEOUT_S", 0.2)
    manager = ConnectionManager(waiting_bytes_max=300_000)
    settings = {"ws_ping_interval": None, "ws_per_message_deflate": False}
    async with served(chat(manager), ws, **settings) as address, joined(address, 1) as (ann,):
        await until(lambda: manager.active_connections)
        host, _, port = address.partition(":")
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await anyio.to_thread.run_sync(stalled.connect, (host, int(port)))
        stalled.sendall(
            f"GET /ws/2 HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await until(lambda: len(manager.active_connections) == 2)
        slow = manager.active_connections[1]
        text = "x" * 100_000
        for _ in range(100):
            await manager.broadcast(text)
            assert await said(ann, 1) == [text]
        await until(lambda: len(manager.active_connections) == 1)
        assert "a client of ConnectionManager is closed with 1013" in caplog.text
        assert slow not in manager.active_connections
        stalled.close()
        manager.disconnect(slow)  # by its route, later
        await ann.send("x")
        assert await said(ann, 2) == ["You wrote: x", "Client #1 says: x"]


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_the_route_of_one_who_is_closed_receives_the_end(ws: str) -> None:
    manager = ConnectionManager(waiting_bytes_max=1)
    app = FastAPI()
    ended: list[int] = []

    @app.websocket("/ws/{client_id}")
    async def route(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        while manager.active_connections:  # it has work of its own, and does not receive meanwhile
            await manager.broadcast("x" * 100_000)
            await checkpoint()
        await until(lambda: StarletteSocket(websocket).is_open is False)
        with pytest.raises(WebSocketDisconnect) as end:
            while True:
                await websocket.receive_text()
        ended.append(end.value.code)
        fanwire.broadcast([websocket], "behind the end")

    async with served(app, ws, ws_ping_interval=None, ws_per_message_deflate=False) as address:
        async with connect(f"ws://{address}/ws/1", max_queue=1) as client:
            await client.recv()
            await until(lambda: not manager.active_connections)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await client.recv()
        await until(lambda: ended)
    assert ended == [1013] and closed.value.rcvd is not None and closed.value.rcvd.code == 1013


@pytest.mark.parametrize("ws", PROTOCOLS[1:])
async def test_one_whose_route_failed_under_tls_hurts_nobody(ws: str, tmp_path: Path) -> None:
    manager, app = ConnectionManager(), FastAPI()

    @app.websocket("/")
    async def fail(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        await websocket.receive_text()
        raise ValueError("and it is never disconnected")

    trusted = authority(tmp_path)
    signed_by(trusted)
    files = {"ssl_keyfile": tmp_path / "localhost.key", "ssl_certfile": tmp_path / "localhost.pem"}
    trust: dict[str, Any] = {"ssl": ssl.create_default_context(cafile=str(trusted)), "host": "127.0.0.1", "proxy": None}
    async with served(app, ws, **files) as address:
        url = f"wss://localhost:{address.rpartition(':')[2]}/"
        async with connect(url, **trust) as failing, connect(url, **trust) as other:
            await until(lambda: len(manager.active_connections) == 2)
            await failing.send("x")
            await failing.wait_closed()
            await manager.broadcast("still there")
            assert await said(other, 1) == ["still there"]
            assert len(manager.active_connections) == 1


def test_what_is_no_bound_is_refused_and_connecting_twice_is_once() -> None:
    with pytest.raises((TypeError, ValueError), match="waiting_bytes_max must be"):
        ConnectionManager(waiting_bytes_max=0)
    app, manager = FastAPI(), ConnectionManager()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await manager.connect(websocket)
        await manager.connect(websocket)
        await manager.broadcast("once")
        await websocket.close()
        await manager.broadcast("nobody")
        assert manager.active_connections == []

    with TestClient(app).websocket_connect("/") as client:
        assert client.receive_text() == "once"
        with pytest.raises(WebSocketDisconnect):
            client.receive_text()


def odds_program() -> tuple[FastAPI, Broadcaster]:
    """A hub as a dependency: routes that publish, that are a subscription, and that stream."""
    broadcaster = Broadcaster(Hub({"odds:*": fanwire.Channel(history=5)}))
    app = FastAPI(lifespan=broadcaster.lifespan)

    def who(token: str = "") -> str:
        if token != "t1":
            raise WebSocketException(1008, "sign in first")
        return "ann"

    @app.post("/odds/{match}")
    async def change(match: str, odds: dict[str, float], hub: Annotated[Hub, Depends(broadcaster)]) -> None:
        if not odds:
            raise HTTPException(422)
        hub.publish(f"odds:{match}", odds, event="odds")

    app.add_api_websocket_route(
        "/odds/{match}", websocket_channel(broadcaster, "odds:{match}", "all"), dependencies=[Depends(who)]
    )

    @app.get("/events/{match}")
    async def events(match: str) -> EventSourceResponse:
        return EventSourceResponse(broadcaster, [f"odds:{match}", "all"], ping=0.05)

    return app, broadcaster


def test_a_route_that_is_a_subscription_works_under_the_test_client() -> None:
    app, _ = odds_program()
    for _ in range(2):
        with TestClient(app) as client, client.websocket_connect("/odds/7?token=t1") as websocket:
            assert client.post("/odds/7", json={"home": 1.85}).status_code == 200
            assert websocket.receive_json() == {"home": 1.85}
        refusing = pytest.raises(WebSocketDisconnect)
        with TestClient(app) as client, refusing as refused, client.websocket_connect("/odds/7"):
            pass
        assert refused.value.code == 1008


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_a_route_that_is_a_subscription_works_over_real_sockets(ws: str) -> None:
    app, broadcaster = odds_program()
    async with served(app, ws, lifespan="on") as address:
        with pytest.raises(InvalidStatus, match="403"):
            await connect(f"ws://{address}/odds/7")
        with pytest.raises(InvalidStatus, match="403"):
            await connect(f"ws://{address}/odds/7*?token=t1")
        async with connect(f"ws://{address}/odds/7?token=t1") as client, httpx.AsyncClient(trust_env=False) as http:
            await client.send("dropped")
            await until(lambda: broadcaster.hub.occupancy("all"))
            assert (await http.post(f"http://{address}/odds/7", json={"home": 1.5})).status_code == 200
            broadcaster.hub.publish("all", "to all")
            assert set(await said(client, 2)) == {'{"home":1.5}', "to all"}


async def test_an_event_stream_has_what_is_published_and_ends_with_its_client_and_the_hub() -> None:
    app, broadcaster = odds_program()
    async with served(app, "auto", lifespan="on") as address, httpx.AsyncClient(trust_env=False) as http:
        async with http.stream("GET", f"http://{address}/events/7") as response:
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-store", "no")
            lines = response.aiter_lines()
            with anyio.fail_after(60):
                assert [await anext(lines), await anext(lines)] == [": begins", ""]
                broadcaster.hub.publish("odds:7", {"home": 1.85}, event="odds")
                got = [line async for line in take(lines, until_line='data: {"home":1.85}')]
                assert got[-1] == "event: odds"
                broadcaster.hub.publish("all", "two\nlines")
                got = [line async for line in take(lines, until_line="data: lines")]
                assert got[-1] == "data: two"
                async for _ in take(lines, until_line=": ping"):
                    pass
        async with http.stream("GET", f"http://{address}/events/7") as response:
            lines = response.aiter_lines()
            with anyio.fail_after(60):
                assert await anext(lines) == ": begins"
                await broadcaster.hub.stop()
                async for _ in lines:
                    pass
        await broadcaster.hub.start()  # the lifespan stops it


async def take(lines: AsyncIterator[str], until_line: str) -> AsyncIterator[str]:
    """What is not empty and no ping before a line."""
    async for line in lines:
        if line == until_line:
            return
        if line and line != ": ping":
            yield line


def test_a_record_is_what_an_event_source_reads() -> None:
    position = fanwire.Position(1, 1)
    for data, event, expected in (
        ("x", None, b"data: x\n\n"),
        ("a\r\nb\rc\n", "e", b"event: e\ndata: a\ndata: b\ndata: c\ndata: \n\n"),
        (b"\xff", None, "data: \ufffd\n\n".encode()),
        ({"a": "ü"}, None, 'data: {"a":"ü"}\n\n'.encode()),
    ):
        assert record(fanwire.Heard("c", position, data, event, False)) == expected


async def test_what_is_wrong_with_a_route_is_said_when_it_is_made() -> None:
    hub = Hub()
    with pytest.raises(ValueError, match="websocket_channel needs a channel"):
        websocket_channel(hub)
    with pytest.raises(TypeError, match="a channel must be a str"):
        websocket_channel(hub, 7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected '}'"):
        websocket_channel(hub, "odds:{match")
    with pytest.raises(ValueError, match="needs a channel"):
        EventSourceResponse(hub, [])
    with pytest.raises(TypeError, match="a list of names"):
        EventSourceResponse(hub, "odds")
    with pytest.raises(ValueError, match="ping must be"):
        EventSourceResponse(hub, ["odds"], ping=0)
    with pytest.raises(fanwire.HubStopped):
        await EventSourceResponse(hub, ["odds"]).stream_response(pytest.fail)  # type: ignore[arg-type]


async def test_a_client_that_sends_nothing_and_leaves_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    manager = ConnectionManager()
    async with served(chat(manager), "auto") as address:
        client = await connect(f"ws://{address}/ws/1")
        await until(lambda: manager.active_connections)
        client.transport.abort()
        await until(lambda: not manager.active_connections)
        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert "Exception" not in caplog.text


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_what_is_broadcast_in_one_turn_is_for_who_is_there_then(ws: str) -> None:
    manager = ConnectionManager()
    async with served(chat(manager), ws) as address, joined(address, 1, 2) as (ann, bob):
        await until(lambda: len(manager.active_connections) == 2)
        first, second = manager.active_connections
        await manager.broadcast("0")
        await manager.broadcast("1")
        await manager.broadcast_bytes(b"2")
        manager.disconnect(second)
        await manager.broadcast("without bob")
        await manager.connect(second)
        await manager.broadcast("3")
        await manager.send_personal_message("personal", first)
        await manager.broadcast("4" * 10_000)
        assert await said(ann, 7) == ["0", "1", b"2", "without bob", "3", "personal", "4" * 10_000]
        assert await said(bob, 5) == ["0", "1", b"2", "3", "4" * 10_000]
        turned: list[bool] = []
        asyncio.get_running_loop().call_soon(turned.append, True)
        for number in range(200):
            await manager.broadcast(f"{number}")
        assert turned, "a task that broadcasts without a pause lets the loop turn"
        for client in (ann, bob):
            assert await said(client, 200) == [f"{number}" for number in range(200)]


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_a_program_may_change_the_list_itself(ws: str) -> None:
    manager = ConnectionManager()
    async with served(chat(manager), ws) as address, joined(address, 1, 2) as (ann, bob):
        await until(lambda: len(manager.active_connections) == 2)
        first, second = manager.active_connections
        manager.active_connections.remove(first)
        await manager.broadcast("to bob")
        manager.active_connections.append(first)
        await manager.broadcast("to both")
        manager.active_connections = [first]
        await manager.broadcast("to ann")
        del manager.active_connections[:]
        await manager.broadcast("to nobody")
        manager.active_connections += [second, first]
        await manager.broadcast("the end")
        assert await said(ann, 3) == ["to both", "to ann", "the end"]
        assert await said(bob, 3) == ["to bob", "to both", "the end"]


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_a_client_of_several_rooms_and_of_a_hub_gets_all_in_the_order_of_the_calls(ws: str) -> None:
    hub, managers = Hub(), [ConnectionManager() for _ in range(3)]
    app = FastAPI()

    @app.websocket("/ws/{client_id}")
    async def endpoint(websocket: WebSocket) -> None:
        for manager in managers:
            await manager.connect(websocket)
        with suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
        for manager in managers:
            manager.disconnect(websocket)

    async with hub.serve(), served(app, ws) as address, joined(address, 1, 2) as (ann, bob):
        await until(lambda: len(managers[2].active_connections) == 2)
        first = managers[0].active_connections[0]
        wanted: list[Any] = []
        for number in range(60):
            await managers[number % 3].broadcast(f"{number}")
            wanted.append(f"{number}")
            if number == 20:
                hub.attach(first, ["news"])
            elif number == 40:
                hub.detach(first)
            if 20 <= number < 40 and ws != PROTOCOLS[0]:
                hub.publish("news", f"news {number}")
                wanted.append(f"news {number}")
        assert await said(bob, 60) == [text for text in wanted if not text.startswith("news")]
        assert await said(ann, len(wanted)) == wanted
        await ann.close()
        await until(lambda: not managers[0]._homes.keys() & {first})
        await managers[0].broadcast("still")
        assert await said(bob, 1) == ["still"]


async def test_a_client_that_reads_nothing_hurts_none_of_fifty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanwire.adopt.local.CLOSE_TIMEOUT_S", 0.2)
    manager = ConnectionManager(waiting_bytes_max=100_000)
    settings = {"ws_ping_interval": None, "ws_per_message_deflate": False}
    async with (
        served(chat(manager), PROTOCOLS[2], **settings) as address,
        joined(address, *range(50)) as clients,
        stalled_client(f"ws://{address}/ws/50"),
    ):
        await until(lambda: len(manager.active_connections) == 51)
        for number in range(85):  # a kernel takes 4 MiB of it
            await manager.broadcast(f"{number}".ljust(60_000))
            for one in clients:
                assert int((await said(one, 1))[0]) == number
        await until(lambda: len(manager.active_connections) == 50)
        manager.active_connections.clear()  # that one leaves is told to nobody
