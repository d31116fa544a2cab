"""A mounted hub without a server: Starlette's test client, and an ASGI application as servers call it."""

import asyncio
import re
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import fanwire
import httpx
import pytest
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from support.mounted import mounted, subscribed


def test_a_burst_for_one_leaves_the_others_of_the_loop_their_turns() -> None:
    hub = fanwire.Hub()
    sent: list[Any] = []
    turns: list[int] = []  # how many messages there were at each

    async def receive() -> dict[str, Any]:
        if sent or turns:
            await asyncio.Event().wait()
        turns.append(0)
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:  # as those of servers, which wait only where a buffer is full
        sent.append(message)

    async def main() -> None:
        async with hub.lifespan():
            scope = {"type": "websocket", "path": "/ws", "query_string": b"channel=a", "headers": [], "client": None}
            serving = asyncio.create_task(hub.asgi()(scope, receive, send))  # type: ignore[arg-type]
            while hub.occupancy("a") != 1 or not sent:
                await checkpoint()
            for n in range(2_000):
                hub.publish("a", str(n))
            while len(sent) <= 2_000:
                turns.append(len(sent))
                await checkpoint()
            turns.append(len(sent))
            serving.cancel()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert [message["text"] for message in sent[1:]] == [str(n) for n in range(2_000)]
    assert max(later - earlier for earlier, later in pairwise(turns)) <= 100


def test_a_server_without_denials_closes_which_is_403() -> None:
    hub = fanwire.Hub()
    sent: list[Any] = []

    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        async with hub.lifespan():
            for path, headers in (("/nowhere", []), ("/ws", [(b"x", b"a\r\nb")])):
                messages.append({"type": "websocket.connect"})
                scope = {"type": "websocket", "path": path, "headers": headers, "client": None}
                await hub.asgi()(scope, receive, send)

    asyncio.run(main())
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)] * 2
    assert sent[0]["reason"].startswith("no such path: /nowhere")


def test_without_descriptors_it_answers_503_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = fanwire.Hub()

    def exhausted() -> None:
        raise OSError(24, "Too many open files")

    with TestClient(mounted(hub)) as client:
        with monkeypatch.context() as patch:
            patch.setattr(fanwire.asgi.pair.socket, "socketpair", exhausted)
            assert [client.get("/live/healthz").status_code for _ in range(5)] == [503] * 5
            with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/live/ws"):
                raise AssertionError
            assert (denied.value.status_code, denied.value.text) == (503, "the hub does not serve now")
        assert [record.message for record in caplog.records if record.name.startswith("fanwire")] == [
            "requests to the mounted hub are refused: [Errno 24] Too many open files"
        ]
        assert client.get("/live/healthz").status_code == 200


def test_what_stands_in_the_way_of_a_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANWIRE_POLLER", "select")
    hub = fanwire.Hub()
    with pytest.raises(ValueError, match="FANWIRE_POLLER must be"), TestClient(hub.asgi()):
        raise AssertionError
    with pytest.raises(ValueError, match="FANWIRE_POLLER must be"):
        TestClient(Starlette(routes=[Mount("/live", hub.asgi())])).get("/live/healthz")


@pytest.mark.parametrize("index", range(3))
def test_programs_of_the_page_run_as_they_stand(index: int) -> None:
    page = Path(__file__).parent.parent / "docs" / "asgi.md"
    source = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)[index]
    names: dict[str, Any] = {}
    exec(compile(source, f"{page.name}, {index}", "exec", dont_inherit=True), names)
    if "test_what_is_published_arrives" in names:
        names["test_what_is_published_arrives"]()
        return
    with TestClient(names["app"]) as client, client.websocket_connect("/live/ws?channel=goals") as peer:
        subscribed(names["hub"], "goals")
        if index == 0:
            assert client.post("/goals/1-0").status_code == 200
            assert peer.receive_json() == {"match": "1-0"}
        else:
            assert names["hub"].position("news").offset == 1


class TestWithoutAServer:
    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    @pytest.mark.parametrize("has_lifespan", [True, False])
    def test_starlette_s_own_client_connects(self, backend: Any, has_lifespan: bool) -> None:
        hub = fanwire.Hub()
        hub.on_message(lambda client, data: client.send(data))
        seen: list[str] = []

        @hub.authenticate
        def who(request: fanwire.Request) -> str:
            seen.append(request.peer)
            if "out" in request.query:
                raise fanwire.Refused("not you")
            return "ann"

        client = TestClient(mounted(hub, has_lifespan=has_lifespan), backend=backend)
        with ExitStack() as stack:
            if has_lifespan:
                stack.enter_context(client)
            assert client.get("/live/healthz").status_code == 200
            with client.websocket_connect("/live/ws?channel=goals") as peer:
                subscribed(hub, "goals")
                if has_lifespan:
                    client.post("/goals/1-0")
                else:
                    hub.publish("goals", "1-0")
                assert peer.receive_text() == "1-0"
                peer.send_bytes(b"\1")
                assert peer.receive_bytes() == b"\1"
            with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/live/ws?out=1"):
                raise AssertionError
            assert (denied.value.status_code, denied.value.text) == (401, "not you\n")
            with client.websocket_connect("/live/ws") as peer, pytest.raises(WebSocketDisconnect) as closed:
                hub.disconnect_user("ann", 4002, "out")
                peer.receive_text()
            assert (closed.value.code, closed.value.reason) == (4002, "out")
        assert set(seen) == {"testclient:50000"}

    def test_the_hub_may_serve_elsewhere_as_well(self) -> None:
        hub = fanwire.Hub()

        async def main() -> None:
            async with hub.serve("127.0.0.1:0") as serving:
                transport = httpx.ASGITransport(hub.asgi())
                async with httpx.AsyncClient(transport=transport, base_url="http://hub") as http:
                    assert (await http.get("/readyz")).status_code == 200
                async with httpx.AsyncClient() as http:
                    assert (await http.get(f"http://{serving.address}/readyz")).status_code == 200

        asyncio.run(main())
