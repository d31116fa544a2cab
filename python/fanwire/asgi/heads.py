"""Heads of HTTP/1.1, from an ASGI scope to the engine and back (asgiref, specs/www.rst). Not here: sockets."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
"""What is said to the next hop alone (RFC 9110 §7.6.1)."""
WRITTEN_HERE = {b"expect", b"x-forwarded-proto"}
"""The server has answered the one, and the other says what the server knows."""
OF_HANDSHAKES = b"sec-websocket-"
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(rb"[^\r\n\0]*")
TARGET = re.compile(rb"/[!-\xff]*")
HOST = re.compile(r"[!-~]{1,255}")
KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="
"""Sixteen bytes (RFC 6455 §4.1): no cache or proxy stands between, which a random one would tell from a server."""


class BadRequest(ValueError):
    """What stands in a scope cannot be written as a head: it would be read as something else."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response of the engine's."""

    status: int
    headers: Headers
    """Those that are the client's, names in lower case."""
    length: int | None
    """Of its body, in bytes; None: until the end."""
    subprotocol: str | None


def request_head(scope: Mapping[str, Any], length: bytes | None) -> bytes:
    """The head of a plain request, which is the only one of its connection.

    Args:
        scope: of type ``http``.
        length: what ``Content-Length`` says, b"" where the body comes in chunks, None where there is none.

    Raises:
        BadRequest: a name, a value or the target breaks the rules of HTTP.
    """
    fields = [b"Connection: close"]
    if length is not None:
        fields.append(b"Content-Length: " + length if length else b"Transfer-Encoding: chunked")
    named = [(name, value) for name, value in passed_on(scope) if name != b"content-length"]
    return _head(scope["method"].encode("latin-1"), scope, named, fields)


def upgrade_head(scope: Mapping[str, Any], *, is_clients: bool = False) -> bytes:
    """The head of a handshake (RFC 6455 §4.1), the only request of its connection: any other answer than 101 ends that.

    Args:
        scope: of type ``websocket``.
        is_clients: it is the client's own, whom the engine answers; else ours, and compression stays the server's.

    Raises:
        BadRequest: a name, a value or the target breaks the rules of HTTP.
    """
    fields = [b"Connection: Upgrade, close", b"Upgrade: websocket"]
    without = [b"content-length", b"content-type"]
    named = [(name, value) for name, value in passed_on(scope) if name not in without]
    if is_clients:
        return _head(b"GET", scope, named, fields)
    fields += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + KEY]
    offered = scope.get("subprotocols") or ()
    if offered:
        names = [_encoded(name) for name in offered]
        if not all(map(NAME.fullmatch, names)):
            raise BadRequest("a subprotocol is no token")
        fields.append(b"Sec-WebSocket-Protocol: " + b", ".join(names))
    named = [(name, value) for name, value in named if not name.startswith(OF_HANDSHAKES)]
    return _head(b"GET", scope, named, fields)


def passed_on(scope: Mapping[str, Any]) -> Headers:
    """The end-to-end fields of a request, names in lower case; with the scheme as a proxy would say it."""
    headers = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
    named = {
        name.strip().lower() for field, value in headers if field == b"connection" for name in value.split(b",")
    } - {b"host", b"content-length"}
    unwanted = HOP_BY_HOP | WRITTEN_HERE | named
    kept = [(name, value) for name, value in headers if name not in unwanted]
    if not any(name == b"host" for name, _ in kept):
        kept.insert(0, (b"host", _host_of(scope.get("server"))))
    is_safe = scope.get("scheme") in ("https", "wss")
    return [*kept, (b"x-forwarded-proto", b"https" if is_safe else b"http")]


def target_of(scope: Mapping[str, Any]) -> bytes:
    """The path without what it is mounted under, and the query. Raises BadRequest."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    target = quote(path or "/", safe="/:@!$&'()*+,;=~").encode()
    query = bytes(scope.get("query_string") or b"")
    target += b"?" + query if query else b""
    if not TARGET.fullmatch(target) or b"\x7f" in target:
        raise BadRequest("the target has white space or control characters")
    return target


def client_of(scope: Mapping[str, Any]) -> str:
    """Where the client is, as ``Request.peer`` says it."""
    client = scope.get("client")
    if not client or not client[0]:  # servers say either of a Unix socket
        return "unix:"
    host, port = str(client[0]), client[1]
    host = host.strip("[]") if HOST.fullmatch(host) else "unknown"  # a proxy may say anything
    return f"[{host}]:{port or 0}" if ":" in host else f"{host}:{port or 0}"


def response_head(text: bytes) -> ResponseHead:
    """Reads a head of the engine's, without the blank line that ends it."""
    line, *fields = text.split(b"\r\n")
    pairs = [field.partition(b":") for field in fields]
    headers = [(name.lower(), value.strip()) for name, _, value in pairs]
    lengths = [int(value) for name, value in headers if name == b"content-length"]
    chosen = [value.decode("latin-1") for name, value in headers if name == b"sec-websocket-protocol"]
    status = int(line.split(b" ", 2)[1])
    kept = [pair for pair in headers if pair[0] not in HOP_BY_HOP and not pair[0].startswith(OF_HANDSHAKES)]
    return ResponseHead(status, kept, lengths[0] if lengths else None, chosen[0] if chosen else None)


def _head(method: bytes, scope: Mapping[str, Any], headers: Headers, fields: Iterable[bytes]) -> bytes:
    if not NAME.fullmatch(method):
        raise BadRequest("the method is no token")
    for name, value in headers:
        if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
            raise BadRequest("a header field has a name that is no token, or a line break in its value")
    lines = [method + b" " + target_of(scope) + b" HTTP/1.1", *fields]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _host_of(server: Any) -> bytes:
    """Of a request of HTTP/1.0, which may name none."""
    host = str(server[0]) if server and HOST.fullmatch(str(server[0])) else "localhost"
    port = f":{server[1]}" if server and isinstance(server[1], int) else ""
    return (f"[{host}]{port}" if ":" in host else f"{host}{port}").encode()


def _encoded(name: object) -> bytes:
    return str(name).encode("latin-1", "replace")
