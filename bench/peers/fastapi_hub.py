"""Peer: FastAPI on uvicorn with uvloop, as FastAPI's guide does it: ``await send_text`` to one client after another.

Uvicorn's WebSocket implementation is its default (``--ws auto``); only compression and keepalive are off, as for all
peers.
"""

import asyncio
from argparse import Namespace

import uvicorn
from driver import Watchers, channels_of, drive, options, run
from fastapi import FastAPI, WebSocket, WebSocketDisconnect


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    watchers = Watchers()
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        channels = channels_of(str(websocket.url))
        await websocket.accept()
        watchers.add(websocket, channels)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            pass
        finally:
            watchers.discard(websocket, channels)

    async def publish(channel: str, text: str) -> None:
        for websocket in list(watchers.of(channel)):
            await websocket.send_text(text)

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=arguments.port,
            log_level="warning",
            access_log=False,
            backlog=4096,
            ws_per_message_deflate=False,
            ws_ping_interval=None,
            ws_ping_timeout=None,
        )
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    await drive(publish, lambda: watchers.count, arguments.port)
    serving.cancel()


if __name__ == "__main__":
    run(main(options(__doc__ or "").parse_args()))
