"""Peer: Starlette with encode/broadcaster in memory, as its README has it, or with fanwire's; on uvicorn, uvloop."""

import asyncio
from argparse import Namespace
from typing import Any

import uvicorn
from driver import drive, options, run
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
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=arguments.port,
        ws=arguments.ws,
        log_level="warning",
        access_log=False,
        backlog=4096,
        ws_ping_interval=None,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    await drive(publish, lambda: len(here), arguments.port)
    serving.cancel()


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--library", choices=["own", "fanwire"], default="own", help="whose Broadcast")
    parser.add_argument("--ws", default="auto", help="uvicorn's --ws")
    run(main(parser.parse_args()))
