"""The response of an application that does not accept a WebSocket: ASGI's extension ``websocket.http.response``."""

from collections.abc import Iterable, Sequence
from typing import Any

from fanwire._engine import response_head

NO_BODY = {204, 304}
Headers = Sequence[tuple[bytes, bytes]]


class Denial:
    """One response, written as it comes; the head goes out with the first part of the body.

    Args:
        headers: the application's; names in any case.
        defaults: the server's, for what the application does not say.
    """

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]], defaults: Headers) -> None:
        if not 100 <= status < 600:
            raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
        self.status = status
        self.headers = [(bytes(name).lower(), bytes(value)) for name, value in headers]
        self._add(defaults)
        self.is_begun = False
        self.is_chunked = False

    def _add(self, defaults: Headers) -> None:
        names = {name for name, _ in self.headers}
        self.headers += [(name, value) for name, value in defaults if name not in names]

    @property
    def promises_body(self) -> bool:
        """Whether the application has said how long its body is, and that there is one."""
        return any(name == b"content-length" and value.strip() != b"0" for name, value in self.headers)

    def write(self, message: dict[str, Any]) -> bytes:
        """The bytes of a part of the body, with what has to stand before and behind it."""
        body = bytes(message.get("body", b""))
        goes_on = bool(message.get("more_body", False))
        out = b"" if self.is_begun else self.begin(None if goes_on else len(body))
        if not self.is_chunked:
            return out + body
        if body:
            out += b"%x\r\n%b\r\n" % (len(body), body)
        return out if goes_on else out + b"0\r\n\r\n"

    def begin(self, body_bytes: int | None) -> bytes:
        """The head; None for a body whose length is not known yet."""
        self.is_begun = True
        names = {name for name, _ in self.headers}
        if self.status >= 200 and self.status not in NO_BODY:
            self._add([(b"content-type", b"text/plain; charset=utf-8")])
            if b"transfer-encoding" in names:
                self.is_chunked = True
            elif b"content-length" not in names and body_bytes is None:
                self.is_chunked = True
                self.headers.append((b"transfer-encoding", b"chunked"))
            elif b"content-length" not in names:
                self.headers.append((b"content-length", str(body_bytes).encode()))
        self._add([(b"connection", b"close")])
        return response_head(self.status, self.headers)
