"""uvicorn in the event loop of a test, on a port of its own."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


class Server(uvicorn.Server):
    """One that says when it has started, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As ever."""
        await super().startup(sockets)
        self.has_started.set()


@asynccontextmanager
async def served(app: Any, ws: Any, **settings: Any) -> AsyncIterator[str]:
    """The address ``127.0.0.1:PORT`` at which uvicorn serves `app` with a protocol, a class or its import string."""
    settings = {"lifespan": "off", "log_config": None, "timeout_graceful_shutdown": 5, **settings}
    server = Server(uvicorn.Config(app, ws=ws, **settings))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        serving = asyncio.create_task(server._serve([listener]))
        started = asyncio.create_task(server.has_started.wait())
        try:
            await asyncio.wait([serving, started], return_when=asyncio.FIRST_COMPLETED)
            yield f"127.0.0.1:{port}"
        finally:
            started.cancel()
            server.should_exit = True
            await serving


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that sends back what comes."""
    await echoing([])(scope, receive, send)


def echoing(seen: list[Any]) -> Any:
    """The same; what is received is kept."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        await send({"type": "websocket.accept"})
        while seen[-1]["type"] != "websocket.disconnect":
            seen.append(await receive())
            if seen[-1]["type"] == "websocket.receive":
                await send({**seen[-1], "type": "websocket.send"})

    return app
