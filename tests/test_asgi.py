"""A hub inside an ASGI application, on the application's port: stock servers and stock clients, both unmodified."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import fanwire
import httpx
import pytest
from httpx import Response
from starlette.applications import Starlette
from starlette.routing import Mount
from support.mounted import dial, hypercorn_of, left_alone, mounted, subscribed, uvicorn_of
from support.raw import read_head, request_text
from support.waiting import until_in_thread
from websockets.exceptions import ConnectionClosed, InvalidStatus


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
def test_messages_calls_and_closes_go_both_ways(ws: str) -> None:
    hub = fanwire.Hub(subprotocols=["chat"], message_bytes_max=1 << 20)
    seen: list[Any] = []

    @hub.authenticate
    def who(request: fanwire.Request) -> str:
        request.response_headers.add("X-Kind", "own")
        seen.append((request.path, request.peer, request.headers["x-token"], request.headers["x-forwarded-proto"]))
        return "ann"

    @hub.method("Add")
    def add(client: fanwire.Client, one: int, other: int) -> int:
        return one + other

    @hub.on_message
    def message(client: fanwire.Client, data: str | bytes) -> None:
        if data == "close":
            client.close(4001, "as you ask")
        else:
            client.send(data)

    @hub.on_disconnect
    def gone(client: fanwire.Client, why: fanwire.ClientGone) -> None:
        seen.append((why.close_code, why.reason))

    headers = {"X-Token": "t\xe4st".encode().decode("latin-1"), "X-Forwarded-Proto": "gopher"}
    with uvicorn_of(mounted(hub), ws=ws) as address:
        with dial(address, "/live/ws?channel=goals", subprotocols=["chat"], additional_headers=headers) as peer:
            where = "{}:{}".format(*peer.local_address[:2])
            assert seen.pop() == ("/ws", where, headers["X-Token"], "http")
            assert peer.response is not None
            assert (peer.subprotocol, peer.response.headers["X-Kind"]) == ("chat", "own")
            assert [extension.name for extension in peer.protocol.extensions] == ["permessage-deflate"]
            assert httpx.post(f"http://{address}/goals/1-0").json() == 1
            assert peer.recv(timeout=60) == "1-0"
            hub.publish("goals", b"\0\xff")
            assert peer.recv(timeout=60) == b"\0\xff"
            peer.send('{"call":"Add","args":[2,3],"id":1}')
            assert json.loads(peer.recv(timeout=60)) == {"id": 1, "result": 5}
            for data in ("", b"", "ä" * 70_000, b"x" * 200, "y" * 126, b"z" * 65_536):
                peer.send(data)
                assert peer.recv(timeout=60) == data
            peer.send("close")
            with pytest.raises(ConnectionClosed) as closed:
                peer.recv(timeout=60)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you ask")
        until_in_thread(lambda: seen == [(4001, "as you ask")])
        with dial(address, additional_headers=headers) as peer:
            peer.close(3005, "enough")
        until_in_thread(lambda: seen[2:] == [(3005, "enough")])
        with dial(address, additional_headers=headers) as peer:
            peer.socket.shutdown(socket.SHUT_RDWR)
        until_in_thread(lambda: len(seen) == 5)
        assert seen[4][0] in (1005, 1006)
        left_alone(hub)


def test_a_burst_comes_whole_and_in_order_in_both_directions() -> None:
    hub = fanwire.Hub()
    got: list[str | bytes] = []
    hub.on_message(lambda client, data: got.append(data))
    with uvicorn_of(mounted(hub)) as address, dial(address, "/live/ws?channel=a", compression=None) as peer:
        subscribed(hub, "a")
        texts = [f"{n}:{'x' * (n * 37 % 900)}" for n in range(2_000)]
        for text in texts:
            hub.publish("a", text)
            peer.send(text)
        assert [peer.recv(timeout=60) for _ in texts] == texts
        large = "y" * (1 << 20)
        hub.publish("a", large[: 1 << 19])
        assert peer.recv(timeout=60) == large[: 1 << 19]
        until_in_thread(lambda: len(got) == len(texts))
    assert got == texts


def test_pings_are_answered_and_publications_come_while_messages_wait() -> None:
    hub = fanwire.Hub(ping_interval=0.1, ping_timeout=3)
    got: list[str | bytes] = []
    begun, may_go_on = threading.Event(), threading.Event()

    @hub.on_message
    async def message(client: fanwire.Client, data: str | bytes) -> None:
        begun.set()
        await asyncio.to_thread(may_go_on.wait, 60)
        got.append(data)

    with uvicorn_of(mounted(hub)) as address, dial(address, "/live/ws?channel=a", compression=None) as peer:
        with pytest.raises(TimeoutError):
            peer.recv(timeout=4)  # longer than who does not answer stays
        messages = [f"{n}:{'x' * 4_000}" for n in range(400)]  # more than there is room for on the way
        sending = threading.Thread(target=lambda: [peer.send(one) for one in messages])
        sending.start()
        assert begun.wait(60)
        for n in range(100):
            hub.publish("a", f"{n}:{'y' * 30_000}")
            assert str(peer.recv(timeout=60)).startswith(f"{n}:")
        may_go_on.set()
        sending.join(60)
        until_in_thread(lambda: len(got) == len(messages))
    assert got == messages


def test_refusals_come_as_responses_or_as_403() -> None:
    hub = fanwire.Hub()

    @hub.authenticate
    def who(request: fanwire.Request) -> str:
        raise fanwire.Refused("sign in first", status=401)

    with uvicorn_of(mounted(hub)) as address:
        for target, status, text in [("/live/ws", 401, b"sign in first"), ("/live/nowhere", 404, b"no such path")]:
            with pytest.raises(InvalidStatus) as refused:
                dial(address, target)
            assert refused.value.response.status_code == status
            assert text in refused.value.response.body
        response = httpx.get(f"http://{address}/live/events?channel=a")
        assert (response.status_code, response.text) == (401, "sign in first\n")


def test_an_event_stream_and_what_is_plain() -> None:
    hub = fanwire.Hub({"a": fanwire.Channel(history=10)})
    with uvicorn_of(mounted(hub)) as address, httpx.Client(base_url=f"http://{address}/live") as http:
        assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
        assert "fanwire_connections" in http.get("/metrics").text
        head = http.head("/healthz")
        assert (head.status_code, head.content) == (200, b"")
        assert http.get("/nowhere").status_code == 404
        assert http.get("/", headers={"Accept": "text/html"}).headers["content-type"].startswith("text/html")
        with http.stream("GET", "/events?channel=a") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert "transfer-encoding" in response.headers  # the server's own
            subscribed(hub, "a")
            lines = response.iter_lines()
            hub.publish("a", "one")
            id = next(line for line in lines if line.startswith("id:"))[3:].strip()
            assert next(line for line in lines if line) == "data: one"
        left_alone(hub)
        hub.publish("a", "two")
        with http.stream("GET", "/events?channel=a", headers={"Last-Event-ID": id}) as response:
            assert "data: two" in response.iter_lines()
        left_alone(hub)


def test_bodies_of_posts_come_whole_and_who_leaves_in_the_midst_of_one_is_gone() -> None:
    hub = fanwire.Hub(signalr_paths=["/signalr"])
    said: list[int] = []

    @hub.method("Say")
    def say(client: fanwire.Client, text: str) -> None:
        said.append(len(text))

    with uvicorn_of(mounted(hub)) as address, httpx.Client(base_url=f"http://{address}/live") as http:
        token = http.post("/signalr/negotiate?negotiateVersion=1").json()["connectionToken"]
        target = f"/signalr?id={token}"
        assert http.get(target).status_code == 200  # the first poll, which begins it
        poll = threading.Thread(target=http.get, args=(target,))
        http.post(target, content=b'{"protocol":"json","version":1}\x1e')
        assert http.get(target).content == b"{}\x1e"
        poll.start()
        for size in (1, 10_000, 20_000):
            call = b'{"type":1,"target":"Say","arguments":["%b"]}\x1e' % (b"x" * size)
            parts = iter([call[:7], call[7:]])
            assert http.post(target, content=call).status_code == 200
            assert http.post(target, content=parts).status_code == 200  # in chunks
        until_in_thread(lambda: said == [1, 1, 10_000, 10_000, 20_000, 20_000])
        until_in_thread(lambda: hub.stats().connections == 1)  # the poll
        with socket.create_connection(address.split(":"), timeout=100) as connection:  # type: ignore[arg-type]
            connection.sendall(f"POST /live{target} HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nabc".encode())
            until_in_thread(lambda: hub.stats().connections == 2)
        until_in_thread(lambda: hub.stats().connections == 1)
        assert http.delete(target).status_code == 202
        poll.join(60)
        left_alone(hub)


def test_one_that_reads_nothing_costs_nobody_else_anything() -> None:
    hub = fanwire.Hub({"a": fanwire.Channel(policy="every", backlog_bytes=256 << 10)})
    with uvicorn_of(mounted(hub)) as address, ExitStack() as stack:
        stalled = []
        for target, head in (("/live/ws?channel=a", request_text), ("/live/events?channel=a", plain_text)):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", int(address.rpartition(":")[2])))
            connection.settimeout(60)
            connection.sendall(head(target))
            read_head(connection)
            stalled.append(connection)
        peer = stack.enter_context(dial(address, "/live/ws?channel=a", compression=None))
        subscribed(hub, "a", 3)
        count = 0
        while hub.stats().overtaken < 2:  # both are behind by more than the channel promises, and no memory was taken
            count += 1
            assert count < 2_000
            hub.publish("a", f"{count}:{'x' * 30_000}")
            assert str(peer.recv(timeout=60)).startswith(f"{count}:")


def plain_text(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


@pytest.mark.parametrize("phase", ["head", "asked", "asked for events", "open", "events"])
def test_who_leaves_in_any_phase_is_gone_for_the_hub(phase: str) -> None:
    hub = fanwire.Hub()
    asked, cancelled = threading.Event(), threading.Event()

    @hub.authenticate
    async def who(request: fanwire.Request) -> str:
        if "slow" not in request.query:
            return "ann"
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    with uvicorn_of(mounted(hub)) as address:
        with socket.create_connection(address.split(":"), timeout=100) as connection:  # type: ignore[arg-type]
            match phase:
                case "head":
                    connection.sendall(request_text("/live/ws")[:40])
                case "asked" | "asked for events":
                    text = request_text if phase == "asked" else plain_text
                    connection.sendall(text(f"/live/{'ws' if phase == 'asked' else 'events'}?channel=a&slow=1"))
                    assert asked.wait(60)
                case "open" | "events":
                    text = request_text if phase == "open" else plain_text
                    connection.sendall(text(f"/live/{'ws' if phase == 'open' else 'events'}?channel=a"))
                    assert " 200 " in (head := read_head(connection)) or " 101 " in head
                    subscribed(hub, "a")
        left_alone(hub)
        assert not asked.is_set() or cancelled.wait(60)


def test_it_ends_with_the_lifespan_and_begins_without_one() -> None:
    for has_lifespan in (True, False):
        hub = fanwire.Hub()
        with uvicorn_of(mounted(hub, has_lifespan=has_lifespan)) as address:
            if has_lifespan:
                hub.publish("a", "it serves before anybody comes")
            else:
                with pytest.raises(fanwire.HubStopped):
                    hub.publish("a", "x")
            with ExitStack() as stack:
                peers = [stack.enter_context(dial(address, "/live/ws?channel=a")) for _ in range(4)]
                subscribed(hub, "a", 4)
                hub.publish("a", "x")
                assert [peer.recv(timeout=60) for peer in peers] == ["x"] * 4
        with pytest.raises(fanwire.HubStopped):
            hub.publish("a", "y")


def test_first_requests_at_once_begin_one_hub() -> None:
    hub = fanwire.Hub()
    with uvicorn_of(mounted(hub, has_lifespan=False)) as address:
        answers: list[Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(httpx.get(f"http://{address}/live/healthz")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [answer.status_code for answer in answers] == [200] * 8


def test_a_handshake_at_a_path_that_answers_plainly_is_answered_at_once() -> None:
    hub = fanwire.Hub(handshake_timeout=60)
    with uvicorn_of(mounted(hub)) as address, pytest.raises(InvalidStatus) as answered:
        dial(address, "/live/healthz", open_timeout=60)
    assert (answered.value.response.status_code, answered.value.response.body) == (200, b"ok\n")


def test_clients_are_told_when_the_server_ends() -> None:
    hub = fanwire.Hub()
    codes: list[int] = []
    hub.on_disconnect(lambda client, why: codes.append(why.close_code))
    with ExitStack() as stack:
        with uvicorn_of(mounted(hub)) as address:
            peer = stack.enter_context(dial(address, "/live/ws?channel=a"))
            subscribed(hub, "a")
        with pytest.raises(ConnectionClosed) as closed:
            peer.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012  # it is the server that ends, and it says so
    assert codes == [1012]


@pytest.mark.parametrize("kind", ["a socket", "events"])
def test_who_is_asked_about_as_the_hub_ends_is_told(kind: str) -> None:
    hub = fanwire.Hub()
    asked = threading.Event()

    @hub.authenticate
    async def who(request: fanwire.Request) -> str:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    with uvicorn_of(mounted(hub)) as address:
        with socket.create_connection(address.split(":"), timeout=100) as connection:  # type: ignore[arg-type]
            connection.sendall(request_text("/live/ws") if kind == "a socket" else plain_text("/live/events?channel=a"))
            assert asked.wait(60)
            hub.stop_soon()
            assert read_head(connection).startswith("HTTP/1.1 503 ")
        with pytest.raises(fanwire.HubStopped):
            until_in_thread(lambda: hub.publish("a", "x") and False)


def test_two_hubs_and_one_twice_stand_side_by_side() -> None:
    one, other = fanwire.Hub(), fanwire.Hub()
    routes = [Mount("/a", one.asgi()), Mount("/deep/er", one.asgi()), Mount("/b", other.asgi())]
    with uvicorn_of(Starlette(routes=routes), root_path="") as address, ExitStack() as stack:
        peers = [stack.enter_context(dial(address, f"{path}/ws?channel=c")) for path in ("/a", "/deep/er", "/b")]
        subscribed(one, "c", 2)
        subscribed(other, "c")
        one.publish("c", "of one")
        other.publish("c", "of the other")
        assert [peer.recv(timeout=60) for peer in peers] == ["of one", "of one", "of the other"]


@pytest.mark.parametrize("serve", [uvicorn_of, hypercorn_of, partial(hypercorn_of, loop="trio")])
def test_it_may_be_the_whole_application_of_any_server(serve: Callable[[Any], Any]) -> None:
    hub = fanwire.Hub()
    with serve(hub.asgi()) as address:
        until_in_thread(lambda: hub._link.engine)  # its lifespan has begun it
        url = f"http://{address}/events?channel=a"
        with dial(address, "/ws?channel=a") as peer, httpx.stream("GET", url) as events:
            subscribed(hub, "a", 2)
            hub.publish("a", "x" * 100_000)
            assert peer.recv(timeout=60) == "x" * 100_000
            assert next(line for line in events.iter_lines() if line.startswith("data:")) == "data: " + "x" * 100_000
        if serve is not uvicorn_of:
            with httpx.Client(http1=False, http2=True) as http, http.stream("GET", url) as events:
                subscribed(hub, "a")
                hub.publish("a", "over HTTP/2")
                assert "data: over HTTP/2" in events.iter_lines()
        left_alone(hub)
    with pytest.raises(fanwire.HubStopped):
        hub.publish("a", "y")
