"""A hub inside an ASGI application, and servers of other people's for it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import fanwire
import uvicorn
from fastapi import FastAPI
from websockets.sync.client import ClientConnection, connect

from support.waiting import until_in_thread


@contextmanager
def uvicorn_of(app: Any, **options: Any) -> Iterator[str]:
    """Its address, while uvicorn serves `app` in a thread; it has ended afterwards."""
    listener = socket.create_server(("127.0.0.1", 0))
    options = {"log_config": None, "timeout_graceful_shutdown": 1, **options}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        until_in_thread(lambda: server.started or not thread.is_alive())
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
        assert not thread.is_alive()


@contextmanager
def hypercorn_of(app: Any, loop: str = "asyncio") -> Iterator[str]:
    """The same by hypercorn."""
    from hypercorn.config import Config

    if loop == "trio":
        from hypercorn.trio import serve
    else:
        from hypercorn.asyncio import serve
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    config = Config()
    config.bind, config.graceful_timeout = [f"fd://{listener.detach()}"], 0.2
    ended = threading.Event()

    async def main() -> None:
        # The thread's wait is let go when the loop ends by an error.
        wait = partial(anyio.to_thread.run_sync, ended.wait, abandon_on_cancel=True)
        await serve(app, config, shutdown_trigger=wait)

    thread = threading.Thread(target=anyio.run, args=(main,), kwargs={"backend": loop})
    thread.start()
    try:
        yield address
    finally:
        ended.set()
        thread.join(60)
        assert not thread.is_alive()


def mounted(hub: fanwire.Hub, *, has_lifespan: bool = True) -> FastAPI:
    """An application with a route of its own and the hub."""
    app = FastAPI(lifespan=hub.lifespan if has_lifespan else None)

    @app.post("/goals/{text}")
    def goal(text: str) -> int:
        return hub.publish("goals", text).offset

    app.mount("/live", hub.asgi())
    return app


def dial(address: str, target: str = "/live/ws", **options: Any) -> ClientConnection:
    return connect(f"ws://{address}{target}", proxy=None, **options)


def subscribed(hub: fanwire.Hub, channel: str, count: int = 1) -> None:
    until_in_thread(lambda: hub.occupancy(channel) == count)


def left_alone(hub: fanwire.Hub) -> None:
    until_in_thread(lambda: not hub.stats().connections)
