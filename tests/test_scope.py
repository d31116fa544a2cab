"""The calls of the scope's extension: applications without a framework, under both protocols for uvicorn."""

import asyncio
import re
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from fanwire.adopt.proxy import Proxy
from starlette.websockets import WebSocket
from support.certificates import authority, signed_by
from support.frameworks import client
from support.loops import with_transports
from support.uvicorns import served
from support.waiting import until

pytestmark = pytest.mark.anyio
anyio_backend = with_transports


@pytest.fixture(params=["Sansio", "Protocol"])
def ws(request: pytest.FixtureRequest) -> str:
    """Both protocols."""
    return f"fanwire.uvicorn:{request.param}"


async def room(scope: Any, receive: Any, send: Any) -> None:
    """A chat room, by the scope alone."""
    calls = scope["extensions"]["fanwire"]
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    calls["attach"]([scope["path"]])
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "/leave":
            calls["detach"]()
            await send({"type": "websocket.send", "text": "left"})
        else:
            calls["publish"](scope["path"], message["text"])


async def receive(peer: Any, count: int) -> list[Any]:
    """So many messages."""
    async with asyncio.timeout(8):
        return [await peer.recv() for _ in range(count)]


async def test_a_room_without_a_framework(ws: str) -> None:
    async with fanwire.Hub().serve(), served(room, ws) as address:
        url = f"ws://{address}"
        async with client(f"{url}/a") as one, client(f"{url}/a") as two, client(f"{url}/b") as other:
            await one.send("/leave")
            assert await receive(one, 1) == ["left"]
            await two.send("hello")
            await other.send("elsewhere")
            assert await receive(two, 1) == ["hello"]
            assert await receive(other, 1) == ["elsewhere"]
            await one.send("and I am there")
            assert await receive(two, 1) == ["and I am there"]


async def test_the_programs_of_the_page(ws: str) -> None:
    page = await anyio.Path(__file__).parent.parent.joinpath("docs", "scope.md").read_text()
    program, servers = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    async with served(names["app"], ws, lifespan="on") as address:
        url = f"ws://{address}/rooms/7"
        async with client(url) as one, client(url) as two:
            await until(lambda: names["hub"].occupancy("/rooms/7") == 2)
            await one.send("hello")
            assert await receive(one, 1) == await receive(two, 1) == ["hello"]
    scope: dict[str, Any] = {"extensions": None}
    exec(servers, {"scope": scope, "protocol": Calls(), "receive": None, "send": None})
    assert scope["extensions"]["fanwire"]["version"] == "1"


class Calls:
    """An application that keeps what it was given, for a test that does the rest."""

    def __init__(self) -> None:
        self.sockets: list[tuple[Any, Any, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        self.sockets.append((scope, receive, send))
        while (await receive())["type"] != "websocket.disconnect":
            pass


async def test_the_engine_writes_in_the_order_of_the_calls(ws: str) -> None:
    app, hub = Calls(), fanwire.Hub({"a": fanwire.Channel(history=10)})
    async with hub.serve(), served(app, ws) as address, AsyncExitStack() as stack:
        connecting = asyncio.create_task(stack.enter_async_context(client(f"ws://{address}/")))
        await until(lambda: app.sockets)
        [(scope, _, send)] = app.sockets
        calls = scope["extensions"]["fanwire"]
        with pytest.raises(fanwire.AdoptionError, match=r"websocket\.accept"):
            calls["attach"](["a"])
        await send({"type": "websocket.accept"})
        peer = await connecting
        positions = [calls["publish"]("a", str(number)).position for number in range(4)]
        calls["attach"](["a"], since={"a": positions[1]})
        assert isinstance(calls["holder"].transport, Proxy)
        for number in range(50):
            calls["publish"]("a", {"n": number}, event="e")
            await send({"type": "websocket.send", "text": f"own {number}"})
        wanted = ["2", "3"] + [text for number in range(50) for text in (f'{{"n":{number}}}', f"own {number}")]
        assert await receive(peer, len(wanted)) == wanted
        await send({"type": "websocket.close", "code": 4001})
        with pytest.raises(fanwire.AdoptionError, match="closed"):
            calls["attach"](["b"])
        await peer.wait_closed()
        assert peer.close_code == 4001


async def test_which_hub_is_meant(ws: str) -> None:
    app, one, two = Calls(), fanwire.Hub(), fanwire.Hub()
    async with served(app, ws) as address, AsyncExitStack() as stack:
        connecting = asyncio.create_task(stack.enter_async_context(client(f"ws://{address}/")))
        await until(lambda: app.sockets)
        [(scope, _, send)] = app.sockets
        await send({"type": "websocket.accept"})
        peer, calls = await connecting, scope["extensions"]["fanwire"]
        with pytest.raises(fanwire.HubStopped, match="no hub serves in this event loop"):
            calls["attach"](["a"])
        with pytest.raises(fanwire.HubStopped, match="not serving yet"):
            calls["attach"](["a"], hub=one)
        async with one.serve():
            calls["attach"](["a"])
            async with two.serve():
                for refused in (calls["attach"], calls["detach"]):
                    with pytest.raises(LookupError, match="2 hubs serve"):
                        refused(["b"])
                with pytest.raises(LookupError, match="2 hubs serve"):
                    calls["publish"]("a", "x")
                with pytest.raises(fanwire.AdoptionError, match="another hub"):
                    calls["attach"](["a"], hub=two)
                calls["publish"]("a", "of one", hub=one)
                calls["publish"]("a", "of two", hub=two)
            calls["publish"]("a", "of one again")
            assert await receive(peer, 2) == ["of one", "of one again"]
            for wrong, kind in (("a", TypeError), ([""], fanwire.InvalidChannel)):
                with pytest.raises(kind):
                    calls["attach"](wrong)
            await asyncio.to_thread(elsewhere, calls)


def elsewhere(calls: Any) -> None:
    """In another thread no hub serves."""
    with pytest.raises(fanwire.HubStopped, match="no hub serves"):
        calls["publish"]("a", "x")


async def test_under_python_s_tls_the_server_sends_and_a_framework_above_is_the_same_connection(
    ws: str, tmp_path: Path
) -> None:
    hub = fanwire.Hub()
    trusted = authority(tmp_path)
    await anyio.to_thread.run_sync(signed_by, trusted)
    files = {"ssl_keyfile": tmp_path / "localhost.key", "ssl_certfile": tmp_path / "localhost.pem"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        scope["extensions"]["fanwire"]["attach"](["a"])
        hub.attach(websocket, ["a", "b"])
        async for _ in websocket.iter_text():
            hub.detach(websocket, ["b"])
            await websocket.send_text("detached")

    trust = ssl.create_default_context(cafile=str(trusted))
    async with hub.serve(), served(app, ws, **files) as address:
        port = address.rpartition(":")[2]
        async with client(f"wss://localhost:{port}/", host="127.0.0.1", ssl=trust) as peer:
            await until(lambda: hub.occupancy("b") == 1)
            assert hub.occupancy("a") == 1, "it is attached once"
            wanted = [f"{number} {'x' * 1_000}" for number in range(200)]
            hub.publish_many("a", wanted)
            assert await receive(peer, 200) == wanted
            await peer.send("x")
            assert await receive(peer, 1) == ["detached"]
            hub.publish("b", "no")
            hub.publish("a", "yes")
            assert await receive(peer, 1) == ["yes"]
