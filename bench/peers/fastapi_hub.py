"""Peer: FastAPI on uvicorn with uvloop, as FastAPI's guide does it: ``await send_text`` to one client after another.

Uvicorn's WebSocket implementation is its default (``--ws auto``); only keepalive and, without ``--deflate``,
compression are off, as for all peers. With ``--send manager`` the program has fanwire's ``ConnectionManager``; with
``--send attach`` connections are attached to a channel of a hub. The route goes on as before.
"""

from argparse import Namespace
from typing import Any

from driver import Watchers, channels_of, drive_on_uvicorn, run, uvicorn_options
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

    await drive_on_uvicorn(
        app,
        arguments,
        ways[arguments.send],
        lambda: watchers.count,
        ws_per_message_deflate=arguments.deflate,
        ws_ping_timeout=None,
    )


if __name__ == "__main__":
    parser = uvicorn_options(__doc__ or "")
    parser.add_argument("--deflate", action="store_true", help="negotiate permessage-deflate with who offers it")
    parser.add_argument("--send", choices=["each", "manager", "attach"], default="each", help="how a text is sent")
    run(main(parser.parse_args()))
