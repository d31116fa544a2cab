"""What a mounted hub writes to the engine, and reads from it: heads and frames, without a socket."""

from typing import Any

import pytest
from fanwire.asgi.heads import BadRequest, client_of, request_head, target_of, upgrade_head
from fanwire.frames import BINARY, TEXT, Frames

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": "/live/a b/ä",
    "root_path": "/live",
    "query_string": b"x=%20",
    "headers": [
        (b"Host", b"a"),
        (b"X-One", b"\xe4"),
        (b"TE", b"x"),
        (b"Connection", b"x-two, close"),
        (b"x-two", b"2"),
    ],
    "scheme": "https",
    "client": ("::1", 5),
}


class TestHeads:
    def test_a_request_is_written_without_what_is_for_one_hop(self) -> None:
        assert request_head(SCOPE, None).split(b"\r\n") == [
            b"GET /a%20b/%C3%A4?x=%20 HTTP/1.1",
            b"Connection: close",
            b"host: a",
            b"x-one: \xe4",
            b"x-forwarded-proto: https",
            b"",
            b"",
        ]
        assert b"\r\nTransfer-Encoding: chunked\r\n" in request_head(SCOPE, b"")
        assert b"\r\nContent-Length: 5\r\n" in request_head(SCOPE, b"5")

    @pytest.mark.parametrize(
        ("path", "root", "target"),
        [
            ("/live", "/live", b"/"),
            ("/live/", "/live/", b"/"),
            ("/lively", "/live", b"/lively"),
            ("/ws", "/live", b"/ws"),  # servers that have taken it away
            ("/live/ws", None, b"/live/ws"),
            ("", "", b"/"),
        ],
    )
    def test_what_it_is_mounted_under_is_taken_away(self, path: str, root: str | None, target: bytes) -> None:
        assert target_of({"path": path, "root_path": root}) == target

    @pytest.mark.parametrize(
        "changes",
        [
            {"headers": [(b"x", b"a\r\nb: c")]},
            {"headers": [(b"x\r\ny", b"a")]},
            {"headers": [(b"x", b"\0")]},
            {"headers": [(b"", b"a")]},
            {"query_string": b"a b"},
            {"query_string": b"a\r\nX: y"},
            {"method": "GET /x HTTP/1.1\r\n"},
        ],
    )
    def test_what_would_be_read_as_something_else_is_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(BadRequest):
            request_head({**SCOPE, **changes}, None)
        if "method" not in changes:
            with pytest.raises(BadRequest):
                upgrade_head({**SCOPE, **changes})
        with pytest.raises(BadRequest):
            upgrade_head({**SCOPE, "subprotocols": ["a", "b\r\n"]})

    def test_a_client_is_told_as_the_hub_tells_it(self) -> None:
        told = [
            client_of({"client": client})
            for client in (("1.2.3.4", 5), ("::1", 0), None, ("", 0), ("a b", 1), ("é", None))
        ]
        assert told == ["1.2.3.4:5", "[::1]:0", "unix:", "unix:", "unknown:1", "unknown:0"]


def test_frames_come_whole_however_their_bytes_are_cut() -> None:
    data = b"\x81\x02ab" + b"\x82\x7e\x01\x00" + b"x" * 256 + b"\x82\x7f" + (70_000).to_bytes(8, "big") + b"y" * 70_000
    data += b"\x01\x01c\x89\x00\x00\x01d\x80\x01e"  # a ping in the midst of a message in three frames
    for size in (1, 2, 3, 7, 100, 65_536, len(data)):
        frames = Frames()
        found = [one for at in range(0, len(data), size) for one in frames.take(data[at : at + size])]
        assert found == [(TEXT, b"ab"), (BINARY, b"x" * 256), (BINARY, b"y" * 70_000), (9, b""), (TEXT, b"cde")]
