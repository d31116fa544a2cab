"""Peer: aiohttp on uvloop; a publication is ``gather`` over ``send_str``, as its chat examples and most programs do.

Or each connection is attached to a hub, which publishes.
"""

import asyncio
from argparse import Namespace
from typing import Any

from aiohttp import web
from driver import Watchers, channels_of, drive, options, run


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    watchers = Watchers()
    hub: Any = None
    if arguments.send == "attach":
        import fanwire

        hub = fanwire.Hub()
        await hub.start()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        channels = channels_of(request.path_qs)
        websocket = web.WebSocketResponse(compress=False)
        await websocket.prepare(request)
        watchers.add(websocket, channels)
        if hub is not None:
            hub.attach(websocket, channels)
        try:
            async for _ in websocket:
                pass
        finally:
            watchers.discard(websocket, channels)
        return websocket

    async def send_to_each(channel: str, text: str) -> None:
        await asyncio.gather(*(websocket.send_str(text) for websocket in watchers.of(channel)))

    def publish(channel: str, text: str) -> None:
        hub.publish(channel, text)

    app = web.Application()
    app.router.add_get("/ws", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", arguments.port, backlog=4096).start()
    await drive(send_to_each if hub is None else publish, lambda: watchers.count, arguments.port)


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--send", choices=["each", "attach"], default="each", help="how a text is sent")
    run(main(parser.parse_args()))
