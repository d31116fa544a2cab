"""fanwire's protocols for uvicorn: real servers and clients, on asyncio and uvloop."""

from typing import Any

import anyio
import pytest
from fastapi import FastAPI, WebSocket
from support.raw import frame, read_close, read_frame, upgraded
from support.uvicorns import served
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio

SANSIO = "fanwire.uvicorn:Sansio"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The loops that uvicorn has."""
    return "asyncio", {"use_uvloop": request.param}


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
async def test_the_scope_says_what_writes_and_whether_it_deflates(compression: Any) -> None:
    app = FastAPI()
    seen: list[Any] = []

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        seen.append(websocket.scope["extensions"])
        await websocket.accept()
        await websocket.close()

    async with (
        served(app, SANSIO) as address,
        connect(f"ws://{address}/live", compression=compression) as client,
    ):
        await client.wait_closed()
    [extensions] = seen
    holder = extensions["fanwire"].pop("holder")
    assert holder.transport.get_extra_info("socket") is not None
    assert extensions == {
        "websocket.http.response": {},
        "fanwire": {"version": "1", "deflate": compression is not None},
    }


async def test_all_that_is_written_goes_through_the_holder_s_transport() -> None:
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

    async with served(app, SANSIO) as address:
        await anyio.to_thread.run_sync(talk, address)
    assert recording[0].written == b"\x8a\x06there?\x81\x05hello\x88\x08\x0f\xa1enough"
