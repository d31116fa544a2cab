"""SignalR where two things meet: cancellation and calls, the end of a client and what waits for it, odd signatures."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from select import select
from typing import TYPE_CHECKING, Any

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from support.clients import connected
from support.hub_client import hub_client, negotiate
from support.hubs import MakeHub
from support.raw import frame, open_socket, read_frame, read_head, upgraded
from support.waiting import until

if TYPE_CHECKING:
    from decimal import Decimal

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
NO_NUMBERS: AsyncIterator[int] = iter(())  # type: ignore[assignment]  # a default that no call needs
HANDSHAKE = '{"protocol":"json","version":1}\x1e'


def call(target: str, *arguments: object, id: str = "1", **more: object) -> dict[str, Any]:
    """An invocation."""
    return {"type": 1, "invocationId": id, "target": target, "arguments": arguments, **more}


async def strayed() -> None:
    """What a library may do that cancels a task of its own."""
    inner = asyncio.get_running_loop().create_future()
    inner.cancel()
    await inner


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_strays_costs_its_own_call(
    make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make_hub({"board": fanwire.Channel(presence=True)})
    done = asyncio.get_running_loop().create_future()
    done.cancel()

    @hub.method
    async def waits(client: fanwire.Client) -> None:
        await strayed()

    @hub.method
    def asks(client: fanwire.Client) -> None:
        done.result()

    @hub.method
    async def streams(client: fanwire.Client) -> AsyncIterator[int]:
        yield 1
        await strayed()

    @hub.on_message
    async def message(client: fanwire.Client, data: str | bytes) -> None:
        await strayed()

    @hub.on_disconnect
    async def part(client: fanwire.Client, gone: fanwire.ClientGone) -> None:
        await strayed()

    @hub.on_presence
    async def presence(change: fanwire.PresenceChange) -> None:
        await strayed()

    @hub.snapshot("board")
    async def board(channel: str) -> None:
        await strayed()

    async with hub.serve(ANY) as serving:
        async with connected(serving.address, "/ws?channel=board") as peer:
            assert "no snapshot" in (await peer.receive_json())["error"]
            await peer.send("anything")
            assert await peer.receive_json() == {"error": "internal error"}
            await until(lambda: "presence of channel 'board' could not be told" in caplog.text)
        async with hub_client(serving.address) as client:
            for method in ("waits", "asks"):
                error = f"An unexpected error occurred invoking '{method}' on the server."
                assert await client.invoke(method) == {"error": error}
            await client.send({"type": 4, "invocationId": "s", "target": "streams", "arguments": []})
            assert (await client.receive())["item"] == 1
            assert "while streaming results" in (await client.receive())["error"]
        await until(lambda: caplog.text.count("on_disconnect 'part', for client") == 2)
    assert "Strayed: CancelledError came out of the application's code" in caplog.text


async def test_a_stream_ends_though_its_end_comes_with_it(hub: fanwire.Hub) -> None:
    alive = 0

    @hub.method
    async def count(client: fanwire.Client) -> AsyncIterator[int]:
        nonlocal alive
        alive += 1
        try:
            for number in range(1_000_000):
                yield number
        finally:
            alive -= 1

    stream = {"type": 4, "invocationId": "s", "target": "count", "arguments": []}
    async with hub.serve(ANY) as serving:
        async with hub_client(serving.address) as client:
            await client.send(stream, {"type": 5, "invocationId": "s"})
            items = 0
            while (message := await client.receive())["type"] == 2:
                items += 1
            assert message == {"type": 3, "invocationId": "s"}
            assert 1 <= items <= 32  # it never waits, so nothing stops it before the hub waits for the client
            await client.send(stream, {"type": 7})
            await until(lambda: hub.stats().connections == 0)
        await until(lambda: alive == 0)


async def test_who_asks_a_client_that_is_gone_is_told(hub: fanwire.Hub) -> None:
    clients: list[fanwire.Client] = []
    errors: list[Exception] = []

    @hub.method
    async def ask_me(client: fanwire.Client) -> None:
        clients.append(client)
        try:
            await client.invoke("Answer")
        except fanwire.FanwireError as error:
            errors.append(error)

    async with hub.serve(ANY) as serving:
        async with hub_client(serving.address) as client:
            await client.send(call("ask_me"), {"type": 7})
            await until(lambda: len(errors) == 1)
        with pytest.raises(fanwire.ClientGone):
            await clients[0].invoke("Answer")
    assert isinstance(errors[0], fanwire.ClientGone)


async def test_who_asks_a_client_when_the_hub_stops_is_told(hub: fanwire.Hub) -> None:
    clients: list[fanwire.Client] = []
    hub.on_connect(clients.append)
    errors: list[Exception] = []

    async def ask() -> None:
        try:
            await clients[0].invoke("Answer")
        except fanwire.FanwireError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        async with (
            hub.serve(ANY, drain_timeout=0.1, close_timeout=0.1) as serving,
            hub_client(serving.address) as client,
        ):
            await until(lambda: clients)
            tasks.start_soon(ask)
            assert (await client.receive())["target"] == "Answer"
        await until(lambda: errors)
    assert isinstance(errors[0], (fanwire.HubStopped, fanwire.ClientGone))


async def test_each_who_asks_a_client_that_is_gone_is_told_by_an_exception_of_their_own(hub: fanwire.Hub) -> None:
    clients: list[fanwire.Client] = []
    hub.on_connect(clients.append)
    left: list[fanwire.Client] = []
    hub.on_disconnect(lambda client, gone: left.append(client))
    async with hub.serve(ANY) as serving:
        async with hub_client(serving.address):
            await until(lambda: clients)
        await until(lambda: left)
        errors, lengths = [], []
        for _ in range(3):
            with pytest.raises(fanwire.ClientGone) as told:
                await clients[0].invoke("Answer")
            errors.append(told.value)
            lengths.append(len(told.traceback))
    assert len({*map(id, errors)}) == 3
    assert len({*lengths}) == 1  # nobody's traceback holds the frames of who asked before
    assert len({*map(str, errors)}) == 1


async def test_the_end_of_serving_is_no_fault_of_the_methods_that_wait_for_clients(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[fanwire.Client] = []
    errors: list[Exception] = []

    @hub.method
    async def ask(client: fanwire.Client) -> None:
        asked.append(client)
        try:
            await client.invoke("Answer")
        except fanwire.FanwireError as error:
            errors.append(error)
            raise

    def ask_me(address: str) -> socket.socket:
        silent = upgraded(address, "/signalr")
        invocation = json.dumps(call("ask")) + "\x1e"
        silent.sendall(frame(1, HANDSHAKE.encode()) + frame(1, invocation.encode()))
        return silent

    serving = await hub.start(ANY, drain_timeout=0.1, close_timeout=60)
    silent = [await run_sync(ask_me, serving.address) for _ in range(3)]
    await until(lambda: len(asked) == 3)
    await hub.stop()
    await until(lambda: len(errors) == 3)
    assert {*map(type, errors)} == {fanwire.HubStopped}
    assert len({*map(id, errors)}) == 3
    assert caplog.records == []
    for one in silent:
        one.close()


@pytest.mark.parametrize("is_async", [False, True])
async def test_nothing_is_done_for_whom_on_connect_turns_away(hub: fanwire.Hub, is_async: bool) -> None:
    done: list[str] = []
    hub.method("sync")(lambda client: done.append("sync"))

    @hub.method("async")
    async def later(client: fanwire.Client) -> None:
        done.append("async")

    @hub.method
    async def items(client: fanwire.Client) -> AsyncIterator[int]:
        done.append("items")
        yield 1

    hub.on_message(lambda client, data: done.append("message"))
    if is_async:

        @hub.on_connect
        async def refuse_later(client: fanwire.Client) -> None:
            await anyio.lowlevel.checkpoint()
            raise fanwire.Refused("banned")
    else:

        @hub.on_connect
        def refuse(client: fanwire.Client) -> None:
            raise fanwire.Refused("banned")

    stream = '{"type":4,"invocationId":"s","target":"items","arguments":[]}\x1e'
    calls = "".join(
        f'{{"type":1,"invocationId":"{name}","target":"{name}","arguments":[]}}\x1e' for name in ("sync", "async")
    )
    async with hub.serve(ANY) as serving:
        async with connected(serving.address, "/signalr") as peer:
            await peer.send(HANDSHAKE + calls + stream)
            assert (await peer.closed())[0] == 1000
        async with connected(serving.address) as peer:
            assert (await peer.closed()) == (1008, "banned")
        await until(lambda: hub.stats().connections == 0)
    assert done == []


async def test_many_calls_that_each_ask_the_caller_are_all_answered(hub: fanwire.Hub) -> None:
    @hub.method("AskMe")
    async def ask_me(client: fanwire.Client, number: int) -> Any:
        return await client.invoke("Answer", number)

    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        await client.send(*(call("AskMe", number, id=str(number)) for number in range(60)))
        results: list[int] = []
        while len(results) < 60:
            message = await client.receive()
            if message["type"] == 1:
                await client.send(
                    {"type": 3, "invocationId": message["invocationId"], "result": message["arguments"][0]}
                )
            else:
                results.append(message["result"])
        assert results == list(range(60))


async def test_a_path_may_end_in_a_slash(hub: fanwire.Hub) -> None:
    hub.method("echo")(lambda client, value: value)
    async with hub.serve(ANY) as serving, hub_client(serving.address, "/signalr/") as client:
        assert await client.invoke("echo", 1) == {"result": 1}


async def test_errors_name_the_method_as_it_is_registered(hub: fanwire.Hub) -> None:
    @hub.method("Add")
    def add(client: fanwire.Client, number: int) -> int:
        raise ValueError("secret")

    @hub.method("Sum")
    async def total(client: fanwire.Client, numbers: AsyncIterator[int]) -> int:
        return 0

    unexpected = "An unexpected error occurred invoking '{}' on the server."
    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        assert await client.invoke("aDD", "x") == {"error": "Failed to invoke 'Add' due to an error on the server."}
        assert await client.invoke("aDD", 1, id="2") == {"error": unexpected.format("Add")}
        streams = unexpected.format("Sum") + " HubException: Client sent 0 stream(s), Hub method expects 1."
        assert await client.invoke("sUM", id="3") == {"error": streams}


async def test_what_cannot_be_told_whole_is_cut_and_a_surrogate_replaced(hub: fanwire.Hub) -> None:
    @hub.method
    def fail(client: fanwire.Client, size: int) -> None:
        raise fanwire.HubError("x" * size if size else "a\ud800b")

    told = "An unexpected error occurred invoking 'fail' on the server. HubException: "
    async with hub.serve(ANY, outbox_bytes_max=1_024) as serving, hub_client(serving.address) as client:
        assert await client.invoke("fail", 0) == {"error": told + "a?b"}
        assert await client.invoke("fail", 10_000, id="2") == {"error": told + "x" * (512 - len(told))}


async def test_streams_find_their_calls_and_their_places(hub: fanwire.Hub) -> None:
    @hub.method
    async def total(client: fanwire.Client, base: int = 100, numbers: AsyncIterator[int] = NO_NUMBERS) -> int:
        return base + sum([number async for number in numbers])

    def upload(*numbers: int) -> list[dict[str, Any]]:
        items = [{"type": 2, "invocationId": "u", "item": number} for number in numbers]
        return [*items, {"type": 3, "invocationId": "u"}]

    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        await client.send(call("total", streamIds=["u"]), *upload(1, 2))
        assert (await client.receive())["result"] == 103
        await client.send(
            call("total", 0, id="2", streamIds=["u"]), call("total", 0, id="3", streamIds=["u"]), *upload(5)
        )
        first, second = await client.receive(), await client.receive()
        assert "The stream 'u' was begun again by a later call." in first["error"]
        assert (second["invocationId"], second["result"]) == ("3", 5)


def unresolvable(client: "Decimal", n: int, other: str) -> "Decimal":
    """Two annotations are names that only a type checker knows."""
    return n  # type: ignore[return-value]


async def test_an_annotation_of_the_client_that_cannot_be_resolved_costs_nothing(hub: fanwire.Hub) -> None:
    hub.method(unresolvable)
    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        assert "Failed to invoke" in (await client.invoke("unresolvable", "x", 1))["error"]
        assert await client.invoke("unresolvable", 1, "anything", id="2") == {"result": 1}


@pytest.mark.parametrize("paths", [("/a", "/A"), ("/a", "/a/negotiate"), ("/a/Negotiate", "/A"), ("/chat",)])
async def test_hubs_that_would_hide_each_other_are_an_error(hub: fanwire.Hub, paths: tuple[str, ...]) -> None:
    hub.endpoint("/Chat")
    with pytest.raises(ValueError, match="would hide each other"):
        async with hub.serve(ANY, signalr_paths=paths):
            pass


def read_to_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65_536), b""))


async def test_a_post_for_a_connection_that_its_beginning_ended_is_read_and_answered(hub: fanwire.Hub) -> None:
    page = "http://page.example"
    async with hub.serve(ANY, origins=[page]) as serving:
        token = (await run_sync(negotiate, serving.address))["connectionToken"]
        lines = f" /signalr?id={token} HTTP/1.1\r\nHost: a\r\nOrigin: {page}\r\n"

        def post(connection: socket.socket, length: int, body: bytes) -> None:
            connection.sendall(f"POST{lines}Content-Length: {length}\r\n\r\n".encode() + body)

        def play() -> tuple[bytes, str, str]:
            with open_socket(serving.address) as stream, open_socket(serving.address) as poster:
                stream.sendall(f"GET{lines}Accept: text/event-stream\r\n\r\n".encode())
                read_head(stream)
                post(poster, len(HANDSHAKE), HANDSHAKE.encode())
                read_head(poster)
                post(poster, 40_000, b"x" * 35_000)
                said = read_to_end(stream)
                stream.close()
                poster.sendall(b"x" * 5_000)
                answer = read_head(poster)
                post(poster, 0, b"")
                while (head := read_head(poster)).split()[1] == "200":
                    post(poster, 0, b"")  # the end of the stream is on another socket: it may come to the shard later
                return said, answer, head

        said, answer, next_answer = await run_sync(play)
        assert said.endswith(b'{"type":7,"error":"Connection closed with an error.","allowReconnect":true}\x1e\r\n\r\n')
        assert answer.split()[1] == "200"
        assert f"Access-Control-Allow-Origin: {page}" in answer
        assert next_answer.split()[1] == "404"


async def test_the_end_of_a_poll_is_not_that_of_who_came_over_its_connection_later(make_hub: MakeHub) -> None:
    """A session polls once over a proxy's connection and never shakes hands; a WebSocket is opened over the same."""
    hub = make_hub(handshake_timeout=4.0)
    hub.authenticate(lambda request: request.headers["x-user"])
    hub.method("WhoAmI")(lambda client: client.identity.id)
    gone: list[fanwire.Client] = []
    hub.on_disconnect(lambda client, why: gone.append(client))
    async with hub.serve(ANY) as serving:

        def ask(peer: socket.socket, method: str, query: str, user: str, *more: str) -> str:
            lines = (f"{method} /signalr{query} HTTP/1.1", "Host: a", f"X-User: {user}", *more, "", "")
            peer.sendall("\r\n".join(lines).encode())
            return read_head(peer)

        def opened(peer: socket.socket, user: str) -> str:
            head = ask(peer, "POST", "/negotiate?negotiateVersion=1", user, "Content-Length: 0")
            length = int(head.lower().partition("content-length: ")[2].split()[0])
            body = b""
            while len(body) < length:
                body += peer.recv(length - len(body))
            return str(json.loads(body)["connectionToken"])

        def begin(peer: socket.socket) -> None:
            first, second = opened(peer, "eve"), opened(peer, "alice")
            assert ask(peer, "GET", f"?id={first}", "eve").split()[1] == "200"
            key = ("Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 13")
            head = ask(peer, "GET", f"?id={second}", "alice", *key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
            assert head.split()[1] == "101"
            peer.sendall(frame(1, HANDSHAKE.encode()))
            assert read_frame(peer).payload == b"{}\x1e"

        def call_it(peer: socket.socket) -> bytes:
            peer.sendall(frame(1, json.dumps(call("WhoAmI")).encode() + b"\x1e"))
            return read_frame(peer).payload

        with open_socket(serving.address) as peer:
            await run_sync(begin, peer)
            with anyio.fail_after(60):
                await until(lambda: hub.stats().connections == 1)  # eve's time to shake hands is over
            assert json.loads((await run_sync(call_it, peer))[:-1])["result"] == "alice"
            assert not gone


async def test_a_post_that_waits_behind_a_slow_one_blames_that_and_not_the_application(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY, handshake_timeout=0.5) as serving:

        def play() -> bytes | None:
            """What the one behind is answered; None where this test was slower than the slow one may be."""
            lines = f" /signalr?id={negotiate(serving.address)['connectionToken']} HTTP/1.1\r\nHost: a\r\n"
            with (
                open_socket(serving.address) as stream,
                open_socket(serving.address) as slow,
                open_socket(serving.address) as behind,
            ):
                stream.sendall(f"GET{lines}Accept: text/event-stream\r\n\r\n".encode())
                read_head(stream)
                slow.sendall(f"POST{lines}Content-Length: 40000\r\n\r\n".encode() + HANDSHAKE.encode())
                said = b""
                while b"{}\x1e" not in said:  # the handshake's answer: the slow one is being read
                    said += stream.recv(100)
                behind.sendall(f"POST{lines}Content-Length: 2\r\n\r\n{{}}".encode())
                while not select([slow, behind], [], [], 0.05)[0]:
                    slow.sendall(b"x")
                answer = read_to_end(behind)
                return None if select([slow], [], [], 0)[0] else answer

        while (answer := await run_sync(play)) is None:
            pass
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"a post of this connection that came before was not over within 0.5 s")
