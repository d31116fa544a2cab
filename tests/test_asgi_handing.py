"""A mounted hub under fanwire's protocols for uvicorn: the engine serves its WebSockets, from the handshake on."""

import json
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fanwire
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from support.certificates import authority, signed_by
from support.mounted import dial, left_alone, mounted, subscribed, uvicorn_of
from support.raw import open_socket, read_head, request_text
from support.waiting import until_in_thread
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


@pytest.fixture(params=["Sansio", "Protocol"])
def ws(request: pytest.FixtureRequest) -> str:
    """Both protocols."""
    return f"fanwire.uvicorn:{request.param}"


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """Both loops of uvicorn's."""
    return str(request.param)


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The pairs of sockets through which Python passes messages, as they are made."""
    made: list[Any] = []
    kind = fanwire.asgi.Pair
    monkeypatch.setattr(fanwire.asgi, "Pair", lambda *arguments: made.append(kind(*arguments)) or made[-1])
    return made


def test_the_engine_has_the_socket_and_all_is_as_it_was(ws: str, loop: str, pairs: list[Any]) -> None:
    hub = fanwire.Hub(subprotocols=["chat"], message_bytes_max=1 << 20)
    seen: list[Any] = []

    @hub.authenticate
    def who(request: fanwire.Request) -> str:
        if "x-token" not in request.headers:
            raise fanwire.Refused("no token", status=401)
        request.response_headers.add("X-Kind", "own")
        seen.append((request.path, request.peer, request.headers["x-token"], request.headers["x-forwarded-proto"]))
        return "ann"

    hub.on_message(lambda client, data: client.send(data))
    hub.on_disconnect(lambda client, why: seen.append(why.close_code))
    headers = {"X-Token": "secret", "X-Forwarded-Proto": "gopher"}
    with uvicorn_of(mounted(hub), ws=ws, loop=loop) as address:
        with dial(address, "/live/ws?channel=a", subprotocols=["chat"], additional_headers=headers) as peer:
            where = "{}:{}".format(*peer.local_address[:2])
            assert seen.pop() == ("/ws", where, "secret", "http")
            assert peer.response is not None
            assert (peer.subprotocol, peer.response.headers["X-Kind"]) == ("chat", "own")
            texts = [f"{number} {'x' * (number * 37 % 900)}" for number in range(500)]
            hub.publish_many("a", texts)
            assert [peer.recv(timeout=60) for _ in texts] == texts
            for data in ("", b"", "ä" * 70_000):
                peer.send(data)
                assert peer.recv(timeout=60) == data
            assert peer.ping().wait(60)
            peer.close(3005, "enough")
        until_in_thread(lambda: seen == [3005])
        with pytest.raises(InvalidStatus) as refused:
            dial(address)
        assert refused.value.response.status_code == 401
        with pytest.raises(InvalidStatus) as missing:
            dial(address, "/live/nowhere", additional_headers=headers)
        assert missing.value.response.status_code == 404
        with open_socket(address) as raw:
            raw.sendall(request_text("/live/healthz"))
            assert "200 OK" in read_head(raw)
            while raw.recv(100):  # its one request was answered
                pass
        left_alone(hub)
    assert pairs == []


def test_a_signalr_client_calls(ws: str, pairs: list[Any]) -> None:
    hub = fanwire.Hub()

    @hub.method
    def add(client: fanwire.Client, one: int, other: int) -> int:
        return one + other

    with uvicorn_of(mounted(hub), ws=ws) as address, dial(address, "/live/signalr") as peer:
        peer.send('{"protocol":"json","version":1}\x1e')
        assert peer.recv(timeout=60) == "{}\x1e"
        peer.send('{"type":1,"invocationId":"1","target":"add","arguments":[2,3]}\x1e')
        records = iter(lambda: json.loads(str(peer.recv(timeout=60)).rstrip("\x1e")), None)
        assert next(record for record in records if record["type"] == 3)["result"] == 5
    assert pairs == []


def test_clients_are_told_when_the_server_ends(ws: str) -> None:
    codes = {}
    for has_lifespan in (True, False):
        hub = fanwire.Hub()
        with ExitStack() as stack:
            with uvicorn_of(mounted(hub, has_lifespan=has_lifespan), ws=ws) as address:
                peer = stack.enter_context(dial(address, "/live/ws?channel=a"))
                subscribed(hub, "a")
            with pytest.raises(ConnectionClosed) as closed:
                peer.recv(timeout=60)
        assert closed.value.rcvd is not None
        codes[has_lifespan] = closed.value.rcvd.code
    assert codes == {True: 1001, False: 1012}  # by the hub, which ends with the application; by uvicorn


class Watching:
    """Somebody's middleware, which sees each message."""

    def __init__(self, app: Any, sent: list[Any]) -> None:
        self.app = app
        self.sent = sent

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            self.sent.append(message["type"])
            await send(message)

        await self.app(scope, receive, sending)


@pytest.mark.parametrize("is_watched", [True, False])
def test_who_stands_between_goes_on_seeing_all(ws: str, is_watched: bool, pairs: list[Any]) -> None:
    hub, sent = fanwire.Hub(), []
    middleware = [Middleware(Watching, sent=sent)] if is_watched else []
    app = Starlette(lifespan=hub.lifespan, middleware=middleware)
    app.mount("/live", hub.asgi())
    with uvicorn_of(app, ws=ws) as address, dial(address, "/live/ws?channel=a") as peer:
        subscribed(hub, "a")
        hub.publish("a", "x")
        assert peer.recv(timeout=60) == "x"
    assert [one for one in sent if one.startswith("websocket")] == ["websocket.accept", "websocket.send"] * is_watched
    assert len(pairs) == is_watched


def test_under_tls_python_passes_messages(ws: str, tmp_path: Path, pairs: list[Any]) -> None:
    hub, trusted = fanwire.Hub(), authority(tmp_path)
    signed_by(trusted)
    files = {"ssl_keyfile": tmp_path / "localhost.key", "ssl_certfile": tmp_path / "localhost.pem"}
    with uvicorn_of(mounted(hub), ws=ws, **files) as address:
        trust = ssl.create_default_context(cafile=str(trusted))
        url = "wss://localhost/live/ws?channel=a"
        with connect(url, ssl=trust, sock=open_socket(address), proxy=None) as peer:
            subscribed(hub, "a")
            hub.publish("a", "x")
            assert peer.recv(timeout=60) == "x"
    assert len(pairs) == 1
