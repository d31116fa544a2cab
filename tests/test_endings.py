"""Whatever goes wrong with what one client sends or shows, that client is told or out, and the others are served."""

import json
import logging
import socket
import struct
from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio
import fanwire
import fanwire.serving
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.to_thread import run_sync
from fanwire.relay.config import Everyone, MessageShare, RelayConfig
from support.clients import Peer, connected
from support.hub_client import SEPARATOR, hub_client
from support.injection import FaultyEngine, Panic
from support.plain_backend import PlainBackend
from support.raw import request_text
from support.relaying import PATH, config, relayed, watch
from support.scripted_backend import ScriptedBackend, Session, hang
from support.waiting import until
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
POST = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


def reset(stream: SocketStream) -> None:
    """Have it end, when it is closed, as by a program that dies: without waiting for an answer."""
    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def loud(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What stands in fanwire's log for an operator to look at; the client in a test has one of its own."""
    ours = (record for record in caplog.records if record.name.startswith("fanwire"))
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


async def test_a_refusal_with_a_lone_surrogate_is_told_and_the_client_is_out(hub: fanwire.Hub) -> None:
    @hub.on_connect
    def refuse(client: fanwire.Client) -> None:
        raise fanwire.Refused("no \ud800 place" + "ü" * 200)

    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
        code, reason = await peer.closed()
        assert (code, reason[:10], len(reason.encode())) == (1008, "no ? place", 122)
        await until(lambda: hub.occupancy("a") == 0)


async def test_a_signalr_client_is_turned_away_with_a_text_that_can_be_sent(hub: fanwire.Hub) -> None:
    @hub.on_connect
    def refuse(client: fanwire.Client) -> None:
        raise fanwire.HubError("\udfff")

    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        assert (await client.receive())["error"].endswith("HubException: ?")


@pytest.mark.parametrize("path", ["/ws", "/signalr/negotiate"])
async def test_who_leaves_while_authenticate_is_slow_frees_its_place_and_fills_no_log(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    asked: list[str] = []

    @hub.authenticate
    async def slow(request: fanwire.Request) -> str:
        asked.append(request.path)
        if len(asked) == 1:
            await anyio.sleep_forever()
        return "ada"

    async with hub.serve(ANY, openings_max=1) as serving:
        host, _, port = serving.address.rpartition(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            head = request_text(path) if path == "/ws" else POST.format(path).encode()
            await stream.send(head)
            await until(lambda: asked)
            reset(stream)
        async with connected(serving.address, "/ws?channel=a"):
            await until(lambda: hub.occupancy("a") == 1)
    assert len(asked) == 2
    assert loud(caplog) == []


async def test_who_leaves_while_the_backend_is_asked_fills_no_log(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedBackend() as backend:
        backend.negotiate = hang
        async with relayed(hub, config(backend, admit="negotiate")) as address:
            host, _, port = address.rpartition(":")
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(POST.format(f"{PATH}/negotiate").encode())
                await until(lambda: backend.heads)
                reset(stream)
            await until(lambda: hub.stats().connections == 0)
            await until(lambda: not backend.sessions)  # the question ends with the last who asked
        assert loud(caplog) == []


async def test_more_watches_than_channels_max_are_an_error_of_who_asks(hub: fanwire.Hub) -> None:
    with PlainBackend().serving() as upstream:
        share = MessageShare(subscribe="/watch", unsubscribe="/unwatch")
        urls = (f"ws://{upstream}/plain",)
        hub.relay(RelayConfig(path="/plain", upstream=urls, protocol="websocket", share=(share,), admit="anyone"))
        async with hub.serve(ANY, channels_max=2, drain_timeout=0.2) as serving:
            async with connected(serving.address, "/plain") as greedy, connected(serving.address, "/plain") as other:
                for number in range(4):
                    await greedy.send_json(watch=f"m{number}")
                for _ in range(2):
                    assert "over the bound of 2" in (await greedy.receive_json())["error"]
                for peer in (greedy, other):
                    await peer.send("echo")
                    assert await peer.receive() == "echo"
                await greedy.send_json(unwatch="m0")
            await until(lambda: not any(lane.clients for relay in hub.relay_stats() for lane in relay.lanes))


async def test_welcomes_that_together_exceed_the_outbox_reach_each_client(hub: fanwire.Hub) -> None:
    def greet(session: Session) -> None:
        targets = [{"type": 1, "target": f"Hello{number}", "arguments": ["x" * 3_000]} for number in range(3)]
        session.say({}, *targets)

    with ScriptedBackend() as backend:
        backend.shake_hands = greet
        names = ("Hello0", "Hello1", "Hello2")
        hub.relay(config(backend, everyone=Everyone(welcome=names)))
        async with hub.serve(ANY, signalr_paths=(), outbox_bytes_max=8_000, drain_timeout=0.2) as serving:
            for _ in range(3):
                async with hub_client(serving.address, PATH) as client:
                    targets = [(await client.receive())["target"] for _ in names]
                    assert sorted(targets) == list(names)
                    assert await watch(client) == "m"


@pytest.mark.parametrize(("id_bytes", "outbox_bytes_max"), [(3_000_000, 1 << 20), (8_000, 4_096)])
async def test_an_id_that_leaves_no_room_for_an_answer_ends_its_connection_alone(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture, id_bytes: int, outbox_bytes_max: int
) -> None:
    bounds: dict[str, Any] = {"outbox_bytes_max": outbox_bytes_max, "signalr_message_bytes_max": 4_000_000}
    hub.method("fails")(lambda client: 1 / 0)
    with ScriptedBackend() as backend:
        hub.relay(config(backend))
        async with hub.serve(ANY, drain_timeout=0.2, client_bytes_max=1 << 24, **bounds) as serving:
            for path in (PATH, "/signalr"):
                async with hub_client(serving.address, path) as other:
                    async with hub_client(serving.address, path, max_size=None) as client:
                        target = "Watch" if path == PATH else "none"
                        call = {"type": 1, "invocationId": "i" * id_bytes, "target": target, "arguments": ["m"]}
                        with suppress(ConnectionClosed):  # it may end in the midst of it
                            await client.send(call)
                            assert await closing(client.peer)  # with an error
                        assert (await client.peer.closed())[0] in (1000, 1006)
                    target = "Call" if path == PATH else "none"
                    assert await other.invoke(target, "x")
    ours = [record for record in caplog.records if record.name.startswith("fanwire")]
    assert not [record for record in ours if record.levelno >= logging.ERROR]


async def closing(peer: Peer) -> str:
    """The error of the Close message with which a SignalR connection ends."""
    while True:
        frame = await peer.receive()
        assert isinstance(frame, str)
        for record in frame.split(SEPARATOR)[:-1]:
            message = json.loads(record)
            if message["type"] == 7:
                return str(message.get("error", ""))


async def test_a_flush_that_fails_ends_no_loop(hub: fanwire.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FaultyEngine] = []

    def make(*arguments: Any) -> Any:
        made.append(FaultyEngine(*arguments))
        return made[-1]

    monkeypatch.setattr(fanwire.serving, "Engine", make)
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
        await until(lambda: hub.occupancy("a") == 1)
        made[0].fail("flush", 1, Panic("flush"))
        hub.publish("a", "one")
        await until(lambda: made[0].hits)
        hub.publish("a", "two")
        assert await peer.receive_all(2) == ["one", "two"]


async def test_a_dead_thread_of_the_engine_ends_serving_with_its_name(
    hub: fanwire.Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[FaultyEngine] = []

    def make(*arguments: Any) -> Any:
        made.append(FaultyEngine(*arguments))
        return made[-1]

    monkeypatch.setattr(fanwire.serving, "Engine", make)
    hub.on_message(lambda client, data: None)
    with pytest.raises(fanwire.EngineFailed, match="thread fanwire-0 has died: out of its mind"):
        async with AsyncExitStack() as stack:
            serving = await stack.enter_async_context(hub.serve(ANY))
            peer = await stack.enter_async_context(connected(serving.address, "/ws?channel=a"))
            made[0].always_fail("take_events", fanwire.EngineFailed("fanwire-0", "out of its mind"))
            await peer.send("wakes the pump")
            assert (await peer.closed())[0] == 1001
            await anyio.sleep_forever()
    assert sum("out of its mind" in line for line in loud(caplog)) == 1
    with pytest.raises(fanwire.HubStopped):
        hub.publish("a", 1)
    async with hub.serve(ANY) as serving:  # and again
        answer = await run_sync(lambda: httpx.get(f"http://{serving.address}/readyz", trust_env=False))
        assert answer.status_code == 200
