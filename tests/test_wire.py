"""Bytes that a careful client never sends, and what they are answered with."""

import json
import socket
from collections.abc import AsyncIterator
from functools import partial

import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from support.clients import connected
from support.raw import frame, open_socket, read_close, read_frame, read_head, request_text, upgraded
from support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)]
ANY = "127.0.0.1:0"


@pytest.fixture
async def address(hub: fanwire.Hub) -> AsyncIterator[str]:
    """Where an echo listens; what it takes is small."""
    hub.on_message(lambda client, data: client.send(data))
    async with hub.serve(ANY, message_bytes_max=1_000, head_bytes_max=4_096, drain_timeout=0.5) as serving:
        yield serving.address


def answer_to(address: str, request: bytes) -> str:
    """The status line that `request` is answered with; empty when the socket is closed without."""
    with open_socket(address) as connection:
        connection.sendall(request)
        try:
            return read_head(connection).split("\r\n")[0]
        except ConnectionResetError:
            return ""


class TestOpening:
    @pytest.mark.parametrize(
        ("request_bytes", "statuses"),
        [
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {"400"}),
            (b"garbage\r\n\r\n", {"400"}),
            (b"GET /ws HTTP/1.1\r\nHost : x\r\n\r\n", {"400"}),
            (b"GET /ws HTTP/1.1\r\n\r\n", {"400"}),
            (b"BREW /ws HTTP/1.1\r\nHost: x\r\n\r\n", {"405", "400", "426", "501"}),
            (request_text("/nowhere"), {"404"}),
            (request_text(sec_websocket_version="12"), {"426"}),
            (request_text(sec_websocket_key=""), {"400"}),
            (request_text(sec_websocket_key="c2hvcnQ="), {"400"}),
            (request_text(upgrade=""), {"426", "400"}),
            (request_text(connection="keep-alive"), {"426", "400"}),
            (request_text(x_long="x" * 5_000), {"431", "400"}),
            (request_text("/ws?channel=" + "x" * 300), {"400"}),
            (request_text("/ws?channel=%00"), {"400"}),
        ],
    )
    async def test_a_bad_request_has_its_status(self, address: str, request_bytes: bytes, statuses: set[str]) -> None:
        line = await run_sync(answer_to, address, request_bytes)
        assert line.startswith("HTTP/1.1 "), line
        assert line.split()[1] in statuses

    async def test_byte_by_byte_is_a_request_too(self, address: str) -> None:
        def drip() -> str:
            with open_socket(address) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in request_text():
                    connection.sendall(bytes([byte]))
                return read_head(connection)

        assert (await run_sync(drip)).startswith("HTTP/1.1 101")

    async def test_frames_in_the_same_segment_as_the_request_are_read(self, address: str) -> None:
        def talk() -> bytes:
            with open_socket(address) as connection:
                connection.sendall(request_text() + frame(1, b"early"))
                assert "101" in read_head(connection)
                return read_frame(connection).payload

        assert await run_sync(talk) == b"early"

    async def test_a_request_that_never_ends_is_closed(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY, handshake_timeout=0.2) as serving:

            def wait() -> bytes:
                with open_socket(serving.address) as connection:
                    connection.sendall(b"GET /ws HTTP/1.1\r\n")
                    return b"".join(iter(partial(connection.recv, 1_000), b""))

            assert (await run_sync(wait)) == b"" or b" 408 " in await run_sync(wait)


def close_after(address: str, *frames: bytes) -> tuple[int, str]:
    """Code and reason that `frames` are closed with."""
    with upgraded(address) as connection:
        connection.sendall(b"".join(frames))
        return read_close(connection)


class TestFraming:
    @pytest.mark.parametrize(
        ("frames", "code"),
        [
            ([frame(1, b"unmasked", is_masked=False)], 1002),
            ([frame(1, b"x", reserved=4)], 1002),
            ([frame(3, b"reserved opcode")], 1002),
            ([frame(11, b"reserved opcode")], 1002),
            ([frame(0, b"continues nothing")], 1002),
            ([frame(1, b"a", is_final=False), frame(1, b"b")], 1002),
            ([frame(9, b"x" * 126)], 1002),
            ([frame(9, b"x", is_final=False)], 1002),
            ([frame(8, b"\x03")], 1002),
            ([frame(8, b"\x03\xed")], 1002),
            ([frame(8, b"\x03\xe8\xff")], 1007),
            ([frame(1, b"\xff\xfe")], 1007),
            ([frame(1, b"\xc3", is_final=False), frame(0, b"\x28")], 1007),
            ([frame(2, b"x" * 1_001)], 1009),
            ([frame(2, b"x" * 600, is_final=False), frame(0, b"x" * 600)], 1009),
            ([b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + b"mask"], 1009),
            ([b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" + b"mask"], 1002),
        ],
    )
    async def test_a_misdeed_has_its_close_code(self, address: str, frames: list[bytes], code: int) -> None:
        assert (await run_sync(close_after, address, *frames))[0] == code

    @pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
    async def test_a_close_is_answered_with_its_code(self, address: str, code: int) -> None:
        assert (await run_sync(close_after, address, frame(8, code.to_bytes(2) + b"bye")))[0] == code

    async def test_a_ping_is_answered_between_fragments(self, address: str) -> None:
        def talk() -> list[tuple[int, bytes]]:
            with upgraded(address) as connection:
                parts = [frame(1, b"he", is_final=False), frame(9, b"ping"), frame(0, b"llo")]
                connection.sendall(b"".join(parts))
                return [(got.opcode, got.payload) for got in (read_frame(connection), read_frame(connection))]

        assert await run_sync(talk) == [(10, b"ping"), (1, b"hello")]

    async def test_a_silent_client_is_pinged_and_then_let_go(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY, ping_interval=0.1, ping_timeout=0.2) as serving:

            def wait() -> tuple[int, int]:
                with upgraded(serving.address) as connection:
                    return read_frame(connection).opcode, read_close(connection)[0]

            assert await run_sync(wait) == (9, 1011)

    async def test_a_socket_that_breaks_is_1006(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY) as serving:
            connection = await run_sync(upgraded, serving.address)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            connection.close()
            await until(lambda: hub.stats().closes == {1006: 1})


class TestServerSentEvents:
    async def test_publications_are_events(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY, drain_timeout=0.5) as serving:

            def listen() -> list[str]:
                with httpx.stream("GET", f"http://{serving.address}/events?channel=a", trust_env=False) as response:
                    assert response.status_code == 200
                    assert response.headers["content-type"].startswith("text/event-stream")
                    lines = response.iter_lines()
                    until_in_thread(lambda: hub.occupancy("a") == 1)
                    hub.publish("a", {"home": 1.85})
                    hub.publish("a", "two\nlines", event="note")
                    found: list[str] = []
                    while sum(line.startswith("data") for line in found) < 3:
                        found.append(next(lines))
                    return found

            from support.waiting import until_in_thread

            found = await run_sync(listen)
            data = [line for line in found if line.startswith("data")]
            assert json.loads(data[0].partition(":")[2]) == {"home": 1.85}
            assert [line.partition(":")[2].strip() for line in data[1:]] == ["two", "lines"]
            assert any(line.replace(" ", "") == "event:note" for line in found)


class TestOrigins:
    async def test_another_origin_is_403(self, poller: str) -> None:
        hub = fanwire.Hub(poller=poller, origins=["https://good.example"])
        async with hub.serve(ANY) as serving:
            line = await run_sync(answer_to, serving.address, request_text(origin="https://evil.example"))
            assert line.split()[1] == "403"
            async with connected(serving.address, origin="https://good.example"):
                await until(lambda: hub.stats().connections == 1)

    @pytest.mark.parametrize(
        ("origins", "expected"),
        [
            (None, {"access-control-allow-origin": "*"}),
            (
                ["https://good.example"],
                {
                    "access-control-allow-origin": "https://good.example",
                    "access-control-allow-credentials": "true",
                    "vary": "Origin",
                },
            ),
        ],
    )
    async def test_a_page_of_an_allowed_origin_may_read_an_event_stream(
        self, poller: str, origins: list[str] | None, expected: dict[str, str]
    ) -> None:
        hub = fanwire.Hub(poller=poller, origins=origins)
        async with hub.serve(ANY) as serving, httpx.AsyncClient(trust_env=False) as http:
            headers = {"Origin": "https://good.example"}
            async with http.stream("GET", f"http://{serving.address}/events?channel=a", headers=headers) as answer:
                about_origins = {name: value for name, value in answer.headers.items() if name in expected}
                varies = about_origins.get("vary", "").removesuffix(", Accept-Encoding")  # it may be a gzip stream
                assert about_origins | ({"vary": varies} if varies else {}) == expected
            async with http.stream("GET", f"http://{serving.address}/events?channel=a") as answer:
                assert ("access-control-allow-origin" in answer.headers) == (origins is None)
            for target in ("?channel=", "?format=xml"):
                refused = await http.get(f"http://{serving.address}/events{target}", headers=headers)
                assert refused.status_code == 400
                assert {name: value for name, value in refused.headers.items() if name in expected} == expected

    @pytest.mark.parametrize("target", ["/events", "/signalr/negotiate"])
    @pytest.mark.parametrize("is_refused", [False, True])
    async def test_what_the_application_says_of_origins_takes_the_place_of_the_engine_s(
        self, poller: str, target: str, is_refused: bool
    ) -> None:
        hub = fanwire.Hub(poller=poller)

        @hub.authenticate
        def who(request: fanwire.Request) -> None:
            request.response_headers["access-control-allow-origin"] = "https://mine.example"
            if is_refused:
                raise fanwire.Refused("no")

        async with hub.serve(ANY) as serving, httpx.AsyncClient(trust_env=False) as http:
            url, method = f"http://{serving.address}{target}", "POST" if "negotiate" in target else "GET"
            async with http.stream(method, url, headers={"Origin": "https://good.example"}) as answer:
                assert answer.status_code == (401 if is_refused else 200)
                assert answer.headers.get_list("access-control-allow-origin") == ["https://mine.example"]

    @pytest.mark.parametrize(
        ("target", "says"),
        [
            ("/event", "no such path: /event; the nearest is /events"),
            ("/singalr", "no such path: /singalr; the nearest is /signalr"),
            ("/stream", "no such path: /stream; WebSockets connect at /ws, event streams at /events"),
        ],
    )
    async def test_a_path_that_there_is_not_is_answered_with_the_nearest(
        self, hub: fanwire.Hub, target: str, says: str
    ) -> None:
        async with hub.serve(ANY) as serving, httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://{serving.address}{target}")
            assert (answer.status_code, answer.text) == (404, f"{says}\n")
