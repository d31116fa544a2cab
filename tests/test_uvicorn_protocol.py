"""The life of one connection of `fanwire.uvicorn.Protocol`, over a transport that only writes down what it is told."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from fanwire._engine import WebSocketHandshake, read_handshake, response_head
from fanwire.uvicorn import Protocol
from support.raw import frame, request_text
from support.uvicorns import echoing
from uvicorn.server import ServerState

pytestmark = pytest.mark.anyio
TURNS = 20
"""So often the loop turns until all that can go on has gone on."""


@pytest.fixture
def anyio_backend() -> Any:
    """The only one: nothing here waits for a socket."""
    return "asyncio", {"use_uvloop": False}


class Transport:
    """What a protocol sees of a socket."""

    def __init__(self) -> None:
        self.written = b""
        self.is_read, self.is_closed = True, False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """No socket."""
        return default

    def write(self, data: bytes) -> None:
        """Kept."""
        self.written += data

    def pause_reading(self) -> None:
        """Once; twice is a mistake."""
        assert self.is_read
        self.is_read = False

    def resume_reading(self) -> None:
        """The same."""
        assert not self.is_read
        self.is_read = True

    def close(self) -> None:
        """Kept."""
        self.is_closed = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.is_closed

    def frames(self) -> bytes:
        """What was written behind the answer to the handshake."""
        return self.written.partition(b"\r\n\r\n")[2]


async def turn() -> None:
    """Let everything go on that can."""
    for _ in range(TURNS):
        turned = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turned.set_result, None)
        await turned


@contextmanager
def connected(app: Any, **settings: Any) -> Iterator[tuple[Protocol, Transport]]:
    """A protocol whose request has come, and its transport."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, **settings)
    config.load()
    state = ServerState()
    transport = Transport()
    protocol = Protocol(config, state, {})
    protocol.connection_made(transport)  # type: ignore[arg-type]
    protocol.data_received(request_text("/", sec_websocket_extensions="permessage-deflate"))
    try:
        yield protocol, transport
    finally:
        protocol.connection_lost(None)
        assert not state.connections
        for task in state.tasks:
            task.cancel()


class Slow:
    """An application that receives when it is told to."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.may_receive = asyncio.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await self.may_receive.acquire()
            self.seen.append(await receive())


async def test_no_more_messages_wait_than_the_queue_takes() -> None:
    app = Slow()
    with connected(app, ws_max_queue=3) as (protocol, transport):
        await turn()
        protocol.data_received(frame(1, b"x") * 10 + frame(8, b"\x03\xe8bye"))
        assert len(protocol.mailbox.events) == 3
        assert not transport.is_read
        for _ in range(12):
            app.may_receive.release()
            await turn()
            assert len(protocol.mailbox.events) <= 3
        assert app.seen[:10] == [{"type": "websocket.receive", "text": "x"}] * 10
        end = {"type": "websocket.disconnect", "code": 1000, "reason": "bye"}
        assert app.seen[10:] == [end, end]  # who receives once more gets it again
        assert transport.frames() == b"\x88\x05\x03\xe8bye"
        assert transport.is_closed


async def test_who_takes_messages_at_once_is_read_without_pause() -> None:
    seen: list[Any] = []
    with connected(echoing(seen)) as (protocol, transport):
        await turn()
        protocol.data_received(frame(1, b"one"))
        assert transport.is_read
        await turn()
        protocol.data_received(frame(2, b"two") + frame(1, b"three"))
        assert not transport.is_read
        await turn()
        assert transport.is_read
        assert transport.frames() == b"\x81\x03one\x82\x03two\x81\x05three"


async def test_who_does_not_read_pongs_is_read_no_further() -> None:
    with connected(echoing([])) as (protocol, transport):
        await turn()
        protocol.pause_writing()
        protocol.data_received(frame(9, b"1"))
        assert not transport.is_read
        protocol.resume_writing()
        assert transport.is_read
        assert transport.frames() == b"\x8a\x011"


async def test_pings_of_one_who_has_reset_the_connection_are_not_answered() -> None:
    with connected(echoing([])) as (protocol, transport):
        await turn()
        write = transport.write

        def breaks(data: bytes) -> None:
            """As asyncio's: the first write that fails closes it, and each further one is a warning."""
            assert not transport.is_closed
            write(data)
            transport.close()

        transport.write = breaks  # type: ignore[method-assign]
        protocol.data_received(frame(9, b"ping") * 20)
        assert transport.frames().endswith(b"\x8a\x04ping")


async def test_frames_before_the_acceptance_wait_for_it() -> None:
    may_accept = asyncio.Event()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await may_accept.wait()
        await echoing(seen)(scope, receive, send)

    with connected(app) as (protocol, transport):
        protocol.data_received(frame(1, b"early"))
        assert not transport.is_read
        may_accept.set()
        await turn()
        assert transport.is_read
        assert transport.frames() == b"\x81\x05early"


@pytest.mark.parametrize("early", [b"", frame(1, b"x"), b"\x81"], ids=["nothing", "a frame", "a byte"])
async def test_a_connection_is_given_away_while_nothing_but_its_request_was_read(
    early: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.uvicorn.protocol.give_away", lambda transport, to: True)
    given: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def between(message: Any) -> None:
            await send(message)

        take = scope["extensions"]["fanwire"]["take"]
        given.append(take(print, receive=receive, send=between))
        given.append(take(print, receive=receive, send=send))
        given.append(take(print, receive=receive, send=send))

    with connected(app) as (protocol, transport):
        protocol.data_received(early)
        await turn()
        assert given == [False, not early, False]
        assert bool(transport.written) is bool(early), "what is given away is not answered here"


async def test_a_pong_that_nobody_reads_is_not_missed() -> None:
    app = Slow()
    with connected(app, ws_ping_interval=1_000, ws_ping_timeout=1_000) as (protocol, transport):
        await turn()
        protocol.send_ping()
        ping = transport.frames()
        protocol.data_received(frame(1, b"x"))
        protocol.miss_pong()
        assert not transport.is_closed
        app.may_receive.release()
        await turn()
        protocol.data_received(frame(10, ping[2:]))
        assert protocol.pong_timer is None
        protocol.send_ping()
        protocol.miss_pong()
        assert transport.is_closed
        assert transport.frames().endswith(b"\x88\x18\x03\xf3keepalive ping timeout")


async def test_a_lost_connection_is_1006_and_ends_sends() -> None:
    raised: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raised.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "x"})
        except OSError as error:
            raised.append(error)

    with connected(app) as (protocol, _):
        await turn()
        protocol.connection_lost(ConnectionResetError())
        await turn()
    assert raised[0] == {"type": "websocket.disconnect", "code": 1006}
    assert isinstance(raised[1], OSError)


async def test_nobody_writes_behind_the_close_that_answers_a_misdeed() -> None:
    with connected(echoing([])) as (protocol, transport):
        await turn()
        protocol.data_received(frame(3, b"none such"))
        end = transport.frames()
        assert end[:4] == bytes([0x88, len(end) - 2]) + b"\x03\xea"
        assert protocol.transport.is_closing()
        protocol.transport.write(b"\x81\x01x")
        protocol.data_received(frame(1, b"more"))
        await turn()
        assert transport.frames() == end
        assert transport.is_read
        assert not transport.is_closed
        protocol.give_up()
        assert transport.is_closed


async def test_a_receive_that_is_cancelled_takes_nothing() -> None:
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        first, second = (asyncio.create_task(receive()) for _ in range(2))
        await turn()
        protocol.data_received(frame(1, b"x"))
        first.cancel()
        got.append(await second)

    with connected(app) as (protocol, _):
        await turn()
        await turn()
        await turn()
    assert got == [{"type": "websocket.receive", "text": "x"}]


@pytest.mark.parametrize(
    "headers",
    [[(b"x", b"a\r\nset-cookie: b")], [(b"x y", b"a")], [(b"Connection", b"close")]],
    ids=["line end", "no token", "the handshake's own"],
)
async def test_no_header_of_the_application_forges_another(headers: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "headers": headers})

    with connected(app) as (_, transport):
        await turn()
        assert transport.written.startswith(b"HTTP/1.1 500 ")
        assert b"cookie" not in transport.written


async def test_a_response_of_unknown_length_is_chunked() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 404, "headers": [(b"X-Why", b"gone")]})
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"thing"})

    with connected(app) as (_, transport):
        await turn()
        head, _, body = transport.written.partition(b"\r\n\r\n")
        assert head.split(b"\r\n")[0] == b"HTTP/1.1 404 Not Found"
        assert {b"x-why: gone", b"transfer-encoding: chunked", b"connection: close"} <= set(head.split(b"\r\n"))
        assert body == b"2\r\nno\r\n5\r\nthing\r\n0\r\n\r\n"
        assert transport.is_closed


async def test_an_application_that_fails_in_its_own_answer_is_a_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 404, "headers": [(b"Content-Length", b"3")]})
        raise ValueError("before the body")

    with connected(app) as (_, transport):
        await turn()
        assert transport.written.startswith(b"HTTP/1.1 500 ")
        assert b"content-length: 21" in transport.written
        assert transport.is_closed


async def test_no_subprotocol_may_be_said_as_an_empty_one() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "subprotocol": ""})

    with connected(app) as (_, transport):
        await turn()
        assert transport.written.startswith(b"HTTP/1.1 101 ")
        assert b"protocol" not in transport.written.lower().partition(b"\r\n")[2]


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"sec_websocket_version": "11"}, b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\n"),
        ({"cookie": "c" * 65_536}, b"HTTP/1.1 431 Request Header Fields Too Large\r\n"),
    ],
)
async def test_a_request_that_asks_wrongly_is_refused_and_starts_nothing(fields: dict[str, str], answer: bytes) -> None:
    config = uvicorn.Config(echoing([]), lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    transport = Transport()
    protocol = Protocol(config, state, {})
    protocol.connection_made(transport)  # type: ignore[arg-type]
    protocol.data_received(request_text("/", **fields))
    assert not state.tasks
    assert transport.written.startswith(answer)
    assert transport.is_closed


def test_a_handshake_is_read_with_what_was_agreed() -> None:
    head = request_text("/a%20b?c=d", sec_websocket_extensions="permessage-deflate", sec_websocket_protocol="x, y")
    read = read_handshake(head, deflates=True)
    assert isinstance(read, WebSocketHandshake)
    assert (read.raw_path, read.query, read.subprotocols, read.deflates) == (b"/a%20b", b"c=d", ["x", "y"], True)
    assert (b"sec-websocket-protocol", b"x, y") in read.headers
    assert b"\r\nSec-WebSocket-Protocol: y\r\n" in read.accept("y", [])
    plain = read_handshake(head, deflates=False)
    assert isinstance(plain, WebSocketHandshake)
    assert not plain.deflates
    assert b"extensions" not in plain.accept(None, []).lower()
    with pytest.raises(ValueError, match="subprotocol"):
        read.accept("no token", [])
    with pytest.raises(ValueError, match='header "x" has a value with a line end'):
        response_head(200, [(b"x", b"a\nb")])


def test_a_codec_takes_any_buffer_and_names_what_it_refuses() -> None:
    read = read_handshake(request_text("/"), deflates=True)
    assert isinstance(read, WebSocketHandshake)
    codec = read.codec(10)
    assert codec.receive(memoryview(frame(2, b"abc")), 1) == [b"abc"]
    assert codec.receive(bytearray(frame(1, b"abc")), 0) == []
    assert codec.has_rest
    assert codec.receive(b"", 1) == ["abc"]
    assert codec.binary(memoryview(b"abc")) == codec.binary(bytearray(b"abc")) == b"\x82\x03abc"
    assert (codec.close(None), codec.close(1000, "é" * 100)[:2]) == (b"\x88\x00", b"\x88\x7c")
    with pytest.raises(ValueError, match="close code 1006 is not"):
        codec.close(1006)
    with pytest.raises(UnicodeEncodeError):
        codec.text("\ud800")
    [misdeed] = codec.receive(frame(2, b"x" * 11), 1)
    assert (misdeed.code, misdeed.reason) == (1009, "message has at least 11 bytes, at most 10 are taken")
    assert codec.receive(frame(2, b"abc"), 1) == []
