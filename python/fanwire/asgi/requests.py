"""A plain request of an ASGI server, answered by the engine: event streams and long polls as well."""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from fanwire._loop import background_tasks
from fanwire.asgi.heads import BadRequest, Headers, ResponseHead, request_head, response_head
from fanwire.asgi.pair import Pair

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HEAD_BYTES_MAX = 64 << 10
"""Of an answer; the application's part is at most 16 KiB of it."""
HEAD_END = b"\r\n\r\n"
TEXT: Headers = [(b"content-type", b"text/plain; charset=utf-8")]


class EngineGone(Exception):
    """The engine ended the connection where it owed an answer: it is about to stop."""


async def serve_request(pair: Pair, scope: Scope, receive: Receive, send: Send) -> None:
    """Ask, and pass the answer on as it comes; returns at its end, or when the client has left.

    The client's server takes what it can and no more is read meanwhile, in both directions.

    Raises:
        BadRequest: the request cannot be written; nothing was answered.
        EngineGone: the engine ended; nothing was answered.
    """
    first = await receive()
    if first["type"] != "http.request":
        return
    length = _length_of(scope, first)
    await _sent(pair, request_head(scope, length))
    with suppress(OSError):  # by which the server says that the client has left
        async with background_tasks() as tasks:
            tasks.start_soon(_pass_body, pair, first, receive, length == b"", tasks.cancel_scope.cancel)
            await _pass_answer(pair, scope["method"] == "HEAD", send)


async def answer_text(send: Send, status: int, text: str) -> None:
    """One whole answer that is not the engine's."""
    body = text.encode()
    headers = [*TEXT, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_head(pair: Pair) -> tuple[ResponseHead, bytes]:
    """The head of the engine's answer, and what came behind it. Raises EngineGone."""
    text = b""
    while HEAD_END not in text:
        data = await pair.receive()
        if not data or len(text) > HEAD_BYTES_MAX:
            raise EngineGone
        text += data
    head, _, rest = text.partition(HEAD_END)
    return response_head(head), rest


def _length_of(scope: Scope, first: MutableMapping[str, Any]) -> bytes | None:
    """What ``Content-Length`` says; b"": there is a body, of whatever length; None: there is none."""
    for name, value in scope["headers"]:
        if bytes(name).lower() == b"content-length":
            if not bytes(value).isdigit():
                raise BadRequest("Content-Length is no number")
            return bytes(value)
    return b"" if first.get("body") or first.get("more_body") else None


async def _pass_body(
    pair: Pair, message: MutableMapping[str, Any], receive: Receive, is_chunked: bool, left: Callable[[], object]
) -> None:
    """Send the body as it comes, then wait until the client leaves."""
    while message["type"] == "http.request":
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if is_chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"0\r\n\r\n" if is_last else b"")
        await _sent(pair, body)
        message = await receive()
    left()


async def _sent(pair: Pair, data: bytes) -> None:
    try:
        await pair.send(data)
    except OSError:  # the engine has read enough: its answer says so
        return


async def _pass_answer(pair: Pair, is_head: bool, send: Send) -> None:
    head, body = await read_head(pair)
    await send({"type": "http.response.start", "status": head.status, "headers": head.headers})
    left = 0 if is_head or head.status in (204, 304) else head.length
    while left is None or left > 0:
        if body:
            left = None if left is None else left - len(body)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if left == 0:
            break
        body = await pair.receive()
        if not body:
            break
    await send({"type": "http.response.body", "body": b"", "more_body": False})
