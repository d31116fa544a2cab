"""Peer: Starlette with encode/broadcaster in memory, as its README has it, or with fanwire's; on uvicorn, uvloop."""

import asyncio
from argparse import Namespace
from typing import Any

from driver import drive_on_uvicorn, run, uvicorn_options
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    library: Any
    if arguments.library == "fanwire":
        import fanwire.compat.broadcaster as library
    else:
        import broadcaster as library
    broadcast = library.Broadcast("memory://")
    await broadcast.connect()
    here: set[WebSocket] = set()

    async def send(websocket: WebSocket) -> None:
        async with broadcast.subscribe("c0") as subscriber:
            here.add(websocket)
            if arguments.library == "fanwire":
                await subscriber.send_to(websocket)
                return
            async for event in subscriber:
                await websocket.send_text(event.message)

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        sending = asyncio.create_task(send(websocket))
        async for _ in websocket.iter_text():
            pass
        sending.cancel()
        here.discard(websocket)

    async def publish(channel: str, text: str) -> None:
        await broadcast.publish(channel, text)

    app = Starlette(routes=[WebSocketRoute("/ws", endpoint)])
    await drive_on_uvicorn(app, arguments, publish, lambda: len(here))


if __name__ == "__main__":
    parser = uvicorn_options(__doc__ or "")
    parser.add_argument("--library", choices=["own", "fanwire"], default="own", help="whose Broadcast")
    run(main(parser.parse_args()))
