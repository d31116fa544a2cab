"""aiohttp's WebSocket client; asyncio only, which is where it runs."""

import aiohttp
import fanwire
import pytest
from support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def test_it_subscribes_receives_and_calls(hub: fanwire.Hub) -> None:
    @hub.method
    async def twice(client: fanwire.Client, text: str) -> str:
        return text * 2

    async with (
        hub.serve("127.0.0.1:0") as serving,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://{serving.address}/ws?channel=a") as websocket,
    ):
        await until(lambda: hub.occupancy("a") == 1)
        hub.publish("a", "text")
        hub.publish("a", b"bytes")
        assert await websocket.receive_str(timeout=5) == "text"
        assert await websocket.receive_bytes(timeout=5) == b"bytes"
        await websocket.send_json({"call": "twice", "args": ["ab"], "id": 1})
        assert await websocket.receive_json(timeout=5) == {"id": 1, "result": "abab"}
        await websocket.close(code=4000, message=b"done")
        assert websocket.close_code == 4000
        await until(lambda: hub.stats().closes == {4000: 1})
