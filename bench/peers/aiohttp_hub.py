"""Peer: aiohttp on uvloop; a publication is ``gather`` over ``send_str``, as its chat examples and most programs do."""

import asyncio
from argparse import Namespace

from aiohttp import web
from driver import Watchers, channels_of, drive, options, run


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    watchers = Watchers()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        channels = channels_of(request.path_qs)
        websocket = web.WebSocketResponse(compress=False)
        await websocket.prepare(request)
        watchers.add(websocket, channels)
        try:
            async for _ in websocket:
                pass
        finally:
            watchers.discard(websocket, channels)
        return websocket

    async def publish(channel: str, text: str) -> None:
        await asyncio.gather(*(websocket.send_str(text) for websocket in watchers.of(channel)))

    app = web.Application()
    app.router.add_get("/ws", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", arguments.port, backlog=4096).start()
    await drive(publish, lambda: watchers.count, arguments.port)


if __name__ == "__main__":
    run(main(options(__doc__ or "").parse_args()))
