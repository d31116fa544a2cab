"""fanwire's protocols for uvicorn: real servers and clients, on asyncio and uvloop."""

import json
import signal
import socket
import subprocess
import sys
import zlib
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI, WebSocket
from support.raw import frame, free_port, open_socket, read_close, read_frame, read_head, request_text, upgraded
from support.uvicorns import echo, echoing, served
from support.waiting import until_in_thread
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

pytestmark = pytest.mark.anyio

SANSIO, PROTOCOL = "fanwire.uvicorn:Sansio", "fanwire.uvicorn:Protocol"


@pytest.fixture(params=[SANSIO, PROTOCOL], ids=["sansio", "protocol"])
def ws(request: pytest.FixtureRequest) -> str:
    """Both protocols."""
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The loops that uvicorn has."""
    return "asyncio", {"use_uvloop": request.param}


PROGRAM = """
import os

import fanwire

hub = fanwire.Hub()
mounted = hub.asgi()


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return await mounted(scope, receive, send)  # its lifespan
    calls = scope["extensions"]["fanwire"]
    await receive()
    await send({"type": "websocket.accept"})
    calls["attach"](["room"])
    await send({"type": "websocket.send", "text": f"hello from {os.getpid()}"})
    while (message := await receive())["type"] == "websocket.receive":
        calls["publish"]("room", message["text"])
"""
STARTS_WITHIN_S = 40
"""Three processes that import all of it, on a busy machine."""
ALONE = "what is published here reaches the clients of this process alone"


class Recording:
    """A transport that keeps what goes through it."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.written = b""

    def write(self, data: bytes) -> None:
        """As the real one does."""
        self.written += data
        self.real.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_the_scope_says_what_writes_and_whether_it_deflates(ws: str, compression: Any) -> None:
    app = FastAPI()
    seen: list[Any] = []

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        seen.append(websocket.scope["extensions"])
        await websocket.accept()
        await websocket.close()

    async with (
        served(app, ws) as address,
        connect(f"ws://{address}/live", compression=compression) as client,
    ):
        await client.wait_closed()
    [extensions] = seen
    holder = extensions["fanwire"].pop("holder")
    assert all(callable(extensions["fanwire"].pop(name)) for name in ("attach", "detach", "publish", "take"))
    assert holder.transport.get_extra_info("socket") is not None
    assert extensions == {
        "websocket.http.response": {},
        "fanwire": {"version": "1", "deflate": compression is not None},
    }


async def test_all_that_is_written_goes_through_the_holder_s_transport(ws: str) -> None:
    app = FastAPI()
    recording: list[Recording] = []

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        holder = websocket.scope["extensions"]["fanwire"]["holder"]
        await websocket.accept()
        recording.append(Recording(holder.transport))
        holder.transport = recording[0]
        await websocket.send_text(await websocket.receive_text())
        await websocket.close(4001, "enough")

    def talk(address: str) -> None:
        with upgraded(address, "/live") as client:
            client.sendall(frame(9, b"there?"))
            assert read_frame(client).payload == b"there?"
            client.sendall(frame(1, b"hello"))
            assert read_frame(client).payload == b"hello"
            assert read_close(client) == (4001, "enough")
            client.sendall(frame(8, b"\x0f\xa1"))

    async with served(app, ws) as address:
        await anyio.to_thread.run_sync(talk, address)
    assert recording[0].written == b"\x8a\x06there?\x81\x05hello\x88\x08\x0f\xa1enough"


async def test_a_stock_client_talks_to_a_route_as_under_uvicorn_s_own(ws: str) -> None:
    app = FastAPI()

    def named(name: str) -> str:
        return name.title()

    @app.websocket("/rooms/{room}")
    async def rooms(websocket: WebSocket, room: int, name: Annotated[str, Depends(named)]) -> None:
        await websocket.accept(subprotocol="chat", headers=[(b"x-room", b"caf\xe9")])
        await websocket.send_json({"room": room, "name": name, "path": websocket.url.path, "client": websocket.client})
        async for text in websocket.iter_text():
            await websocket.send_text(text)
        await websocket.send_text("never")

    headers = {"X-Forwarded-For": "192.0.2.7"}
    texts = ["", "short", json.dumps([{"price": n} for n in range(900)]), "ö" * 70_000]
    async with (
        served(app, ws, root_path="/api") as address,
        connect(
            f"ws://{address}/rooms/7?name=ann", subprotocols=[Subprotocol("chat")], additional_headers=headers
        ) as client,
    ):
        assert client.subprotocol == "chat"
        assert client.response is not None
        assert client.response.headers["x-room"] == "café"
        assert client.response.headers["server"] == "uvicorn"
        hello = json.loads(await client.recv())
        assert hello == {"room": 7, "name": "Ann", "path": "/api/rooms/7", "client": ["192.0.2.7", 0]}
        for text in texts * 2:
            await client.send(text)
            assert await client.recv() == text
        await client.send(["in ", "three ", "pieces"])
        assert await client.recv() == "in three pieces"
        await (await client.ping())


async def test_who_is_connected_when_the_server_stops_is_told(ws: str) -> None:
    async with AsyncExitStack() as stack:
        async with served(echo, ws) as address:
            client = await stack.enter_async_context(connect(f"ws://{address}/"))
            await client.send("still there?")
            assert await client.recv() == "still there?"
        await client.wait_closed()
        assert client.close_code == 1012


async def test_a_bomb_is_refused_with_1009(ws: str) -> None:
    def throw(address: str) -> tuple[int, str]:
        pack = zlib.compressobj(wbits=-15)
        bomb = pack.compress(bytes(1 << 24)) + pack.flush(zlib.Z_SYNC_FLUSH)[:-4]
        with open_socket(address) as client:
            client.sendall(request_text("/", sec_websocket_extensions="permessage-deflate"))
            assert "permessage-deflate" in read_head(client)
            client.sendall(frame(2, bomb, reserved=4))
            return read_close(client)

    seen: list[Any] = []
    async with served(echoing(seen), ws, ws_max_size=100_000) as address:
        code, _ = await anyio.to_thread.run_sync(throw, address)
    assert code == 1009
    assert seen[-1]["type"] == "websocket.disconnect"
    assert seen[-1]["code"] == 1009


async def test_what_comes_before_a_misdeed_is_answered() -> None:
    def misbehave(address: str) -> None:
        with upgraded(address, "/") as client:
            client.sendall(frame(1, b"one") + frame(1, b"two") + frame(3, b"none such") + frame(1, b"three"))
            assert [read_frame(client).payload, read_frame(client).payload] == [b"one", b"two"]
            assert read_close(client)[0] == 1002
            assert client.recv(1) == b""

    async with served(echo, PROTOCOL) as address:
        await anyio.to_thread.run_sync(misbehave, address)


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as made:
        return made.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=[["--workers", "2"], ["--reload"]], ids=["workers", "reload"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """uvicorn's processes: the first of them, its port, and the file of what they say."""
    (tmp_path / "program.py").write_text(PROGRAM)
    port, said = free_port(), tmp_path / "said"
    options = [f"--port={port}", f"--ws={PROTOCOL}", "--timeout-graceful-shutdown=5", *request.param]
    command = [sys.executable, "-W", "ignore", "-m", "uvicorn", "program:app", *options]
    with said.open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output)
    try:
        count = 2 if "2" in request.param else 1
        until_in_thread(lambda: said.read_text().count("Application startup complete") == count, STARTS_WITHIN_S)
        until_in_thread(lambda: listens(port))
        yield process, port, said, count
    finally:
        process.kill()
        process.wait(60)


def test_each_of_uvicorn_s_processes_has_a_hub_of_its_own_and_ends_in_order(running: Any) -> None:
    process, port, said, count = running
    clients: dict[bytes, list[socket.socket]] = {}
    with ExitStack() as stack:
        while len(clients) < count or not any(len(some) > 1 for some in clients.values()):
            client = stack.enter_context(upgraded(f"127.0.0.1:{port}", "/live"))
            clients.setdefault(read_frame(client).payload, []).append(client)
        for hello, some in clients.items():
            some[0].sendall(frame(1, hello + b" to all"))
        for hello, some in clients.items():
            assert [read_frame(client).payload for client in some] == [hello + b" to all"] * len(some)
        process.send_signal(signal.SIGTERM)
        for some in clients.values():
            assert [read_close(client)[0] for client in some] == [1012] * len(some)
            for client in some:
                client.sendall(frame(8, b"\x03\xf4"))
        assert process.wait(60) in (0, -signal.SIGTERM), said.read_text()
    log = said.read_text()
    assert log.count(ALONE) == (2 if count == 2 else 0)
    assert log.count("Application shutdown complete") == count, log
    assert "Traceback" not in log, log
