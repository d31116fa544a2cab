"""Peer: FastAPI on uvicorn with uvloop, as FastAPI's guide does it: ``await send_text`` to one client after another.

Uvicorn's WebSocket implementation is its default (``--ws auto``); only keepalive and, without ``--deflate``,
compression are off, as for all peers. With ``--send manager`` the program has fanwire's ``ConnectionManager``; with
``--send attach`` connections are attached to a channel of a hub. The route goes on as before.
"""

import asyncio
from argparse import Namespace
from typing import Any

import uvicorn
from driver import Watchers, channels_of, drive, options, run
from fastapi import FastAPI, WebSocket, WebSocketDisconnect


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    watchers = Watchers()
    app = FastAPI()
    hub: Any = None
    manager: Any = None
    if arguments.send == "attach":
        import fanwire

        hub = fanwire.Hub()
        await hub.start()
    elif arguments.send == "manager":
        from fanwire.fastapi import ConnectionManager

        manager = ConnectionManager()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        channels = channels_of(str(websocket.url))
        if manager is not None:
            await manager.connect(websocket)
        else:
            await websocket.accept()
        watchers.add(websocket, channels)
        if hub is not None:
            hub.attach(websocket, channels)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            pass
        finally:
            watchers.discard(websocket, channels)
            if manager is not None:
                manager.disconnect(websocket)

    async def send_to_each(channel: str, text: str) -> None:
        for websocket in list(watchers.of(channel)):
            await websocket.send_text(text)

    async def send_through(channel: str, text: str) -> None:
        await manager.broadcast(text)

    def publish(channel: str, text: str) -> None:
        hub.publish(channel, text)

    ways = {"each": send_to_each, "manager": send_through, "attach": publish}

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=arguments.port,
            ws=arguments.ws,
            log_level="warning",
            access_log=False,
            backlog=4096,
            ws_per_message_deflate=arguments.deflate,
            ws_ping_interval=None,
            ws_ping_timeout=None,
        )
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    await drive(ways[arguments.send], lambda: watchers.count, arguments.port)
    serving.cancel()


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--ws", default="auto", help="uvicorn's --ws")
    parser.add_argument("--deflate", action="store_true", help="negotiate permessage-deflate with who offers it")
    parser.add_argument("--send", choices=["each", "manager", "attach"], default="each", help="how a text is sent")
    run(main(parser.parse_args()))
