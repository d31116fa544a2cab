"""Real servers of the frameworks whose WebSockets can be attached, on a free port, each with one route."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiohttp import web
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from support.uvicorns import served

Route: TypeAlias = Callable[[Any], Awaitable[None]]
"""What is done with each accepted connection."""


def bound() -> socket.socket:
    """A listening socket on a free port."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return listening


@asynccontextmanager
async def by_uvicorn(route: Route, **options: Any) -> AsyncIterator[str]:
    """Starlette under uvicorn."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await route(websocket)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    async with served(app, **{"ws": "websockets-sansio", "timeout_graceful_shutdown": 1, **options}) as address:
        yield f"ws://{address}/"


@asynccontextmanager
async def by_aiohttp(route: Route, **options: Any) -> AsyncIterator[str]:
    """``aiohttp.web``."""

    async def endpoint(request: web.Request) -> web.StreamResponse:
        connection = web.WebSocketResponse(**options)
        await connection.prepare(request)
        await route(connection)
        return connection

    app = web.Application()
    app.add_routes([web.get("/", endpoint)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    with bound() as listening:
        await web.SockSite(runner, listening).start()
        try:
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def by_websockets(route: Route, **options: Any) -> AsyncIterator[str]:
    """``websockets.serve``."""

    async def endpoint(connection: ServerConnection) -> None:
        await route(connection)

    with bound() as listening:
        async with serve(endpoint, sock=listening, **{"close_timeout": 0.2, **options}):
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}/"


@asynccontextmanager
async def by_sansio(route: Route) -> AsyncIterator[str]:
    """Starlette under uvicorn, with the protocol that offers its transport."""
    async with by_uvicorn(route, ws="fanwire.uvicorn:Sansio") as url:
        yield url


@asynccontextmanager
async def by_protocol(route: Route) -> AsyncIterator[str]:
    """The same with the protocol that reads and frames in Rust."""
    async with by_uvicorn(route, ws="fanwire.uvicorn:Protocol") as url:
        yield url


ADOPTED: dict[str, Callable[..., Any]] = {
    "sansio": by_sansio,
    "protocol": by_protocol,
    "aiohttp": by_aiohttp,
    "websockets": by_websockets,
}
"""Those whose sockets the engine writes to; each takes a route and is a context that gives the URL."""
SERVERS: dict[str, Callable[..., Any]] = {"uvicorn": by_uvicorn, **ADOPTED}
"""Those, and one whose own ``send`` is called."""


async def received(connection: Any) -> str | bytes | None:
    """The next message as the framework's own users get it; None once the client has left."""
    if isinstance(connection, WebSocket):
        try:
            return await connection.receive_text()
        except WebSocketDisconnect:
            return None
    if isinstance(connection, web.WebSocketResponse):
        message = await connection.receive()
        return message.data if message.type in (web.WSMsgType.TEXT, web.WSMsgType.BINARY) else None
    try:
        data: str | bytes = await connection.recv()
    except ConnectionClosed:
        return None
    return data


async def send_text(connection: Any, text: str) -> None:
    """Send as the framework's own users do."""
    if isinstance(connection, WebSocket):
        await connection.send_text(text)
    elif isinstance(connection, web.WebSocketResponse):
        await connection.send_str(text)
    else:
        await connection.send(text)


@asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A stock client."""
    async with connect(url, proxy=None, **{"close_timeout": 0.5, **options}) as connection:
        yield connection


@asynccontextmanager
async def stalled_client(url: str) -> AsyncIterator[ClientConnection]:
    """One that reads nothing, until its transport does so again; its kernel takes little."""
    host, _, port = url.removeprefix("ws://").partition("/")[0].partition(":")
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
    async with client(url, sock=small, compression=None, ping_interval=None) as connection:
        connection.transport.pause_reading()
        yield connection
        connection.transport.abort()
