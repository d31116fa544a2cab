"""A pytest plugin: WebSocket sessions of Starlette's test client go over a real socket, to uvicorn with our protocol.

So Starlette's and FastAPI's own tests are tests of that protocol. The session is theirs, and so is the application. In
between there is a client of `websockets` here, in the place of their application, and uvicorn, in the same event loop.
FANWIRE_WS names the protocol. Each WebSocket is attached to a hub as soon as it is accepted, so that what the
application sends goes through the engine. Told past the wire is what it cannot say: what the application raised, and
the code of a close before the accept, which is a 403 there.
"""

import os
from typing import Any

import anyio
import fanwire
from starlette.testclient import WebSocketTestSession
from support.uvicorns import served
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

WS = f"fanwire.uvicorn:{os.environ['FANWIRE_WS']}"
NO_CODE = 1005
PATIENCE_S = 10
WRITTEN_BY_CLIENT = {"host", "connection", "upgrade", "user-agent"}


class Watched:
    """The application, as uvicorn runs it."""

    def __init__(self, app: Any, state: Any) -> None:
        self.app = app
        self.state = state
        """What the lifespan left, which is the test client's."""
        self.refusal: Any = None
        """Its close, where that was its first event."""
        self.failure: BaseException | None = None
        self.ended = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        first: list[Any] = []

        async def sending(message: Any) -> None:
            if not first and message["type"] == "websocket.close":
                self.refusal = dict(message)
            first.append(message)
            await send(message)
            if message["type"] == "websocket.accept":
                scope["extensions"]["fanwire"]["attach"](["peers"])

        try:
            await self.app(scope if self.state is None else {**scope, "state": self.state}, receive, sending)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.ended.set()


class OverASocket:
    """In the place of an application: what talks to it over a socket."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        watched = Watched(self.app, scope.get("state"))
        # The session cancels what it runs once it has left; on a wire that takes longer to be known.
        with anyio.CancelScope(shield=True), anyio.move_on_after(PATIENCE_S):
            async with fanwire.Hub().serve(), served(watched, WS, timeout_graceful_shutdown=1) as address:
                await receive()
                await talk(watched, address, scope, receive, send)
                with anyio.move_on_after(1):
                    await watched.ended.wait()
        if watched.failure is not None:
            raise watched.failure


async def talk(watched: Watched, address: str, scope: Any, receive: Any, send: Any) -> None:
    """Pass on what both say."""
    headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    named = dict(headers)
    target = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
    kept = [pair for pair in headers if pair[0] not in WRITTEN_BY_CLIENT and not pair[0].startswith("sec-websocket-")]
    options: dict[str, Any] = {"host": address.partition(":")[0], "port": int(address.partition(":")[2])}
    options |= {"subprotocols": scope["subprotocols"] or None, "user_agent_header": named.get("user-agent")}
    try:
        connection = await connect(f"ws://{named['host']}{target}", additional_headers=kept, proxy=None, **options)
    except InvalidStatus as refused:
        await refuse(watched, refused.response, send)
        return
    except InvalidMessage:  # uvicorn's own protocol answers nothing where an application fails in its own answer
        await watched.ended.wait()
        return
    assert connection.response is not None
    given = [
        (name.lower().encode(), value.encode("latin-1")) for name, value in connection.response.headers.raw_items()
    ]
    own = {b"upgrade", b"connection", b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"}
    extra = [pair for pair in given if pair[0].lower() not in own | {b"date", b"server"}]
    await send({"type": "websocket.accept", "subprotocol": connection.subprotocol, "headers": extra})
    async with connection, anyio.create_task_group() as tasks:
        tasks.start_soon(pass_on, connection, receive)
        try:
            async for data in connection:
                await send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})
        except ConnectionClosed:
            pass
        closed = connection.protocol.close_rcvd
        if closed is not None and connection.protocol.close_rcvd_then_sent:
            await send({"type": "websocket.close", "code": closed.code, "reason": closed.reason})
        tasks.cancel_scope.cancel()


def written(response: Any) -> list[tuple[bytes, bytes]]:
    """Its headers, as ASGI has them."""
    return [(name.encode(), value.encode("latin-1")) for name, value in response.headers.raw_items()]


async def pass_on(connection: ClientConnection, receive: Any) -> None:
    """What the test's session sends."""
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        await connection.send(message["bytes"] if text is None else text)
    code = message.get("code", 1000)
    await connection.close(1000 if code == NO_CODE else code, message.get("reason") or "")


async def refuse(watched: Watched, response: Any, send: Any) -> None:
    """What the application said before it accepted."""
    await watched.ended.wait()
    if watched.failure is not None:
        assert response.status_code == 500 or watched.refusal, response
        if watched.refusal is None:
            return
    if watched.refusal is not None:
        assert response.status_code == 403, response
        await send(watched.refusal)
        return
    start = {"status": response.status_code, "headers": written(response)}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": response.body or b""})


begin = WebSocketTestSession.__init__


def begin_over_a_socket(self: Any, app: Any, *arguments: Any, **options: Any) -> None:
    """A session whose application is elsewhere."""
    begin(self, OverASocket(app), *arguments, **options)


WebSocketTestSession.__init__ = begin_over_a_socket  # type: ignore[method-assign]
