"""HTTP as RFC 9110 and 9112 have it: whatever is asked where, nothing in a body is ever read as a head.

Each case sends its requests whole and byte by byte, and says how many answers there are and with which statuses.
"""

import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from support.chromium import CHROMIUM, chromium
from support.raw import open_socket, read_head, request_text
from support.waiting import until, until_in_thread

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
"""What a body holds: were it read as a head, there would be an answer too many, a 404 that names it."""
MARKER = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
"""What stands behind a request on a connection that may live on."""


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: what is tested is the engine's."""
    return "asyncio"


@pytest.fixture
async def address(hub: fanwire.Hub) -> AsyncIterator[str]:
    """A hub that asks nobody."""
    async with hub.serve(ANY, drain_timeout=0.5) as serving:
        yield serving.address


def with_length(head: str, body: bytes, *fields: str) -> bytes:
    """A request whose body has a length."""
    lines = [f"{head} HTTP/1.1", "Host: x", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def in_chunks(head: str, body: bytes, *fields: str) -> bytes:
    """A request whose body comes in chunks of 7 bytes, with extensions and a trailer."""
    lines = [f"{head} HTTP/1.1", "Host: x", *fields, "Transfer-Encoding: chunked"]
    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    chunks = b"".join(b"%x;note=1\r\n%s\r\n" % (len(part), part) for part in parts)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + chunks + b"0\r\nX-Trailer: 1\r\n\r\n"


FRAMINGS: list[Callable[..., bytes]] = [with_length, in_chunks]


def exchange(address: str, sent: bytes, *, by_byte: bool = False, ends: bool = False) -> list[tuple[int, bytes]]:
    """All answers on one connection until its end, or, where it lives on, until nothing is owed; status and body."""
    with open_socket(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pieces = [sent[at : at + 1] for at in range(len(sent))] if by_byte else [sent]
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR) if ends else None
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was answered before all of it came
        return answers(connection)


def answers(connection: socket.socket) -> list[tuple[int, bytes]]:
    """What comes until the end of the stream."""
    found = []
    connection.settimeout(60)
    while head := read_head(connection):
        status = int(head.split()[1])
        length = next(
            (int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-le")), 0
        )
        body = b""
        while len(body) < length and (piece := connection.recv(length - len(body))):
            body += piece
        if status != 100:
            found.append((status, body))
    return found


LAST = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""The last request of a connection that lives on: it ends the stream."""

UNWANTED = [
    ("GET /healthz", 200),
    ("HEAD /healthz", 200),
    ("GET /readyz", 200),
    ("GET /metrics", 200),
    ("POST /healthz", 405),
    ("OPTIONS /healthz", 405),
    ("GET /nowhere", 404),
    ("POST /nowhere", 404),
    ("POST /events?channel=a", 405),
    ("GET /ws", 426),
    ("PUT /ws", 426),
    ("GET /", 426),
    ("POST /signalr/negotiate?negotiateVersion=1", 200),
    ("GET /signalr/negotiate", 405),
    ("PUT /signalr", 405),
    ("GET /signalr", 400),
    ("DELETE /signalr?id=AAAAAAAAAAAAAAAAAAAAAA", 404),
    ("POST /signalr?id=AAAAAAAAAAAAAAAAAAAAAA", 404),
]
"""Requests whose body nobody wants, and their answers."""


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(("head", "status"), UNWANTED)
async def test_a_body_that_nobody_wants_is_no_request(
    address: str, framing: Callable[..., bytes], head: str, status: int
) -> None:
    for by_byte in (False, True):
        found = await run_sync(
            lambda by_byte=by_byte: exchange(address, framing(head, SMUGGLED) + LAST, by_byte=by_byte)
        )
        assert [one[0] for one in found] == [status], "one answer, then the end"
        assert b"smuggled" not in found[0][1]


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_the_body_of_a_preflight_is_no_request(address: str, framing: Callable[..., bytes]) -> None:
    asked = "Origin: https://a.example\r\nAccess-Control-Request-Method: GET"
    for path in ("/signalr", "/signalr/negotiate", "/events", "/healthz", "/metrics"):
        found = await run_sync(exchange, address, framing(f"OPTIONS {path}", SMUGGLED, asked) + LAST)
        assert [one[0] for one in found] == [204], path


@pytest.mark.parametrize("head", [one[0] for one in UNWANTED if one[1] < 300 and not one[0].startswith("GET /metrics")])
async def test_without_a_body_the_connection_lives_on(address: str, head: str) -> None:
    request = f"{head} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    for by_byte in (False, True):
        if head.startswith("HEAD"):
            continue  # its answer names a length that it has not
        sent = request + MARKER + LAST
        found = await run_sync(lambda sent=sent, by_byte=by_byte: exchange(address, sent, by_byte=by_byte))
        assert [one[0] for one in found] == [200, 200, 200]


# SignalR's own requests


def negotiated(address: str) -> str:
    """A token of a new connection."""
    url = f"http://{address}/signalr/negotiate?negotiateVersion=1"
    return str(httpx.post(url, trust_env=False).json()["connectionToken"])


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_polls_with_bodies_and_posts_in_any_framing(
    hub: fanwire.Hub, address: str, framing: Callable[..., bytes]
) -> None:
    def talk(by_byte: bool) -> None:
        target = f"/signalr?id={negotiated(address)}"
        first = exchange(address, framing(f"GET {target}", SMUGGLED) + LAST, by_byte=by_byte)
        assert [one[0] for one in first] == [200], "the first poll opens the connection, and ends with its body"
        hello = b'{"protocol":"json","version":1}\x1e'
        post = framing(f"POST {target}", hello, "Content-Type: text/plain")
        found = exchange(address, post + MARKER + LAST, by_byte=by_byte)
        assert [one[0] for one in found] == [200, 200, 200], "a post is read to its end, and no further"
        later = exchange(address, framing(f"GET {target}", SMUGGLED) + LAST, by_byte=by_byte)
        assert later == [(200, b"{}\x1e")], "the handshake's answer, and nothing of the body"
        ping = framing(f"POST {target}", b'{"type":6}\x1e')
        two = exchange(address, ping + ping + LAST, by_byte=by_byte)
        assert [one[0] for one in two] == [200, 200, 200]
        assert exchange(address, framing(f"DELETE {target}", SMUGGLED) + LAST)[0][0] == 202

    for by_byte in (False, True):
        await run_sync(talk, by_byte)


async def test_chunks_that_are_none_end_the_post_with_400(hub: fanwire.Hub, address: str) -> None:
    def talk() -> None:
        target = f"/signalr?id={negotiated(address)}"
        exchange(address, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head = f"POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        for body in (b"zz\r\n", b"5\r\nabcdefgh", b"1" * 17 + b"\r\n", b"5;" + b"x" * 2000 + b"\r\n"):
            assert [one[0] for one in exchange(address, head + body + LAST)] == [400]

    await run_sync(talk)


# Lengths, codings, expectations


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: 5, 6", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: 99999999999999999999", 413),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: chunked, chunked", 501),
        ("Transfer-Encoding: identity", 501),
        ("Expect: everything\r\nContent-Length: 5", 417),
    ],
)
@pytest.mark.parametrize(
    "head", ["GET /healthz", "POST /signalr/negotiate", "GET /events?channel=a", "OPTIONS /signalr"]
)
async def test_a_body_of_no_certain_length_is_refused_everywhere(
    address: str, head: str, fields: str, status: int
) -> None:
    sent = f"{head} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode() + SMUGGLED
    assert [one[0] for one in await run_sync(exchange, address, sent)] == [status]


async def test_who_waits_for_100_gets_it_where_the_body_is_wanted(hub: fanwire.Hub, address: str) -> None:
    def talk() -> None:
        target = f"/signalr?id={negotiated(address)}"
        exchange(address, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        hello = b'{"protocol":"json","version":1}\x1e'
        for framed in (with_length, in_chunks):
            head, _, body = framed(f"POST {target}", hello, "Expect: 100-continue").partition(b"\r\n\r\n")
            with open_socket(address) as connection:
                connection.sendall(head + b"\r\n\r\n")
                assert read_head(connection) == "HTTP/1.1 100 Continue\r\n\r\n"
                connection.sendall(body + LAST)
                assert [one[0] for one in answers(connection)] == [200, 200]
            hello = b'{"type":6}\x1e'

    await run_sync(talk)


async def test_who_waits_for_100_gets_the_answer_where_the_body_is_not_wanted(address: str) -> None:
    def talk(head: str) -> list[tuple[int, bytes]]:
        with open_socket(address) as connection:
            connection.sendall(
                f"{head} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n".encode()
            )
            return answers(connection)

    assert [one[0] for one in await run_sync(talk, "POST /nowhere")] == [404]
    assert [one[0] for one in await run_sync(talk, "POST /signalr/negotiate?negotiateVersion=1")] == [200]


# Ends


async def test_an_answer_is_not_reset_away_by_a_large_body(address: str) -> None:
    """RFC 9112 §9.6: what still comes is read, not answered with a reset that takes the answer along."""

    def talk() -> list[tuple[int, bytes]]:
        with open_socket(address) as connection:
            connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n")
            for _ in range(40):
                connection.sendall(b"x" * 100_000)
            return answers(connection)

    assert [one[0] for one in await run_sync(talk)] == [404]


@pytest.mark.parametrize(
    "head", ["GET /healthz", "GET /metrics", "POST /signalr/negotiate?negotiateVersion=1", "GET /x"]
)
async def test_who_ends_its_half_gets_its_answer(hub: fanwire.Hub, head: str) -> None:
    may_answer = anyio.Event()

    @hub.authenticate
    async def who(request: fanwire.Request) -> None:
        await may_answer.wait()

    async with hub.serve(ANY, drain_timeout=0.5) as serving, anyio.create_task_group() as tasks:
        found: list[list[tuple[int, bytes]]] = []

        async def talk() -> None:
            sent = f"{head} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            found.append(await run_sync(lambda: exchange(serving.address, sent, ends=True)))

        tasks.start_soon(talk)
        await until(lambda: hub.stats().connections == 1 or found)
        may_answer.set()
        await until(lambda: found)
        assert [one[0] for one in found[0]] == [404 if head.endswith("/x") else 200]
        await until(lambda: hub.stats().connections == 0)


@pytest.mark.parametrize("behind", [b"", MARKER, MARKER * 3000])
@pytest.mark.parametrize("head", [request_text("/ws?channel=a"), b"GET /events?channel=a HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_who_leaves_a_stream_that_is_being_opened_has_left(hub: fanwire.Hub, head: bytes, behind: bytes) -> None:
    """Its end of a WebSocket or a stream says that it does not want it any more, whatever it sent behind."""
    asked = anyio.Event()

    @hub.authenticate
    async def who(request: fanwire.Request) -> None:
        asked.set()
        await anyio.sleep_forever()

    async with hub.serve(ANY, drain_timeout=0.5) as serving:
        with await run_sync(open_socket, serving.address) as connection:
            connection.sendall(head + behind)
            await asked.wait()
            connection.shutdown(socket.SHUT_WR)
            await until(lambda: hub.stats().connections == 0)


async def test_who_leaves_a_poll_has_left_whatever_it_sent_behind(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY, drain_timeout=0.5, signalr_disconnect_timeout=3.0) as serving:
        token = await run_sync(negotiated, serving.address)
        poll = f"GET /signalr?id={token} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        with await run_sync(open_socket, serving.address) as connection:
            connection.sendall(poll)
            await run_sync(read_head, connection)
            post = with_length(f"POST /signalr?id={token}", b'{"protocol":"json","version":1}\x1e')
            connection.sendall(post + poll)
            await until(lambda: hub.stats().connections == 1)
            connection.sendall(poll + MARKER * 3000)
            connection.shutdown(socket.SHUT_WR)
            await until(lambda: hub.stats().connections == 0)


# Pages


PAGE = """
(async () => {
  const headers = {Authorization: "Bearer t1", "Cache-Control": "no-cache", "Last-Event-ID": "1-1"};
  const stream = await fetch("http://HUB/events?channel=a", {headers});
  const reader = stream.body.getReader();
  seen.push(["events", stream.status]);
  const ready = await fetch("http://HUB/readyz", {headers});
  seen.push(["ready", ready.status]);
  const {value} = await reader.read();
  seen.push(["first", new TextDecoder().decode(value).includes("subscribed")]);
})().catch((error) => seen.push(["error", String(error)]));
"""


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
@pytest.mark.parametrize("is_allowed", [True, False])
def test_in_a_browser_a_page_of_an_allowed_origin_may_fetch_with_headers(tmp_path: Path, is_allowed: bool) -> None:
    def look(address: str, page: str) -> list[list[object]]:
        with chromium(tmp_path) as tab:
            tab.open(page)
            until_in_thread(lambda: tab.evaluate("location.port") != "")
            tab.evaluate("window.seen = []")
            tab.evaluate(f"void {PAGE.strip().rstrip(';').replace('HUB', address)}")
            until_in_thread(lambda: tab.evaluate("seen.length") == (3 if is_allowed else 1))
            return list(tab.evaluate("seen"))

    async def main() -> list[list[object]]:
        pages = fanwire.Hub()  # serves the page at its root, on another port: another origin
        async with pages.serve(ANY, drain_timeout=0.5) as other:
            origin = f"http://{other.address}" if is_allowed else "https://elsewhere.example"
            hub = fanwire.Hub(channels={"a": fanwire.Channel(history=1)}, origins=[origin])
            async with hub.serve(ANY, drain_timeout=0.5) as serving:
                return await run_sync(look, serving.address, f"http://{other.address}/")

    seen = anyio.run(main)
    if is_allowed:
        assert seen == [["events", 200], ["ready", 200], ["first", True]]
    else:
        assert seen[0][0] == "error"
