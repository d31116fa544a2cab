"""Peer: python-socketio, with its own client manager or with fanwire's, on uvicorn or aiohttp, on uvloop.

A publication is one ``emit`` of a text to a room, which is what its documentation has for it.
"""

from argparse import Namespace
from typing import Any

import socketio
from aiohttp import web
from driver import drive, drive_on_uvicorn, run, uvicorn_options

ROOM = "c0"
EVENT = "m"


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    chosen: dict[str, Any] = {}
    if arguments.manager == "fanwire":
        from fanwire.compat.socketio import AsyncFanwireManager

        chosen["client_manager"] = AsyncFanwireManager()
    elif arguments.redis:
        chosen["client_manager"] = socketio.AsyncRedisManager(arguments.redis)
    mode = "asgi" if arguments.server == "uvicorn" else "aiohttp"
    sio = socketio.AsyncServer(async_mode=mode, cors_allowed_origins="*", ping_interval=3600, **chosen)
    here: set[str] = set()

    @sio.event
    async def connect(sid: str, environ: dict[str, Any]) -> None:
        await sio.enter_room(sid, ROOM)
        here.add(sid)

    @sio.event
    def disconnect(sid: str, reason: str) -> None:
        here.discard(sid)

    async def publish(channel: str, text: str) -> None:
        await sio.emit(EVENT, text, room=channel)

    if arguments.server == "uvicorn":
        await drive_on_uvicorn(socketio.ASGIApp(sio), arguments, publish, lambda: len(here))
    else:
        app = web.Application()
        sio.attach(app)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", arguments.port, backlog=4096).start()
        await drive(publish, lambda: len(here), arguments.port)


if __name__ == "__main__":
    parser = uvicorn_options(__doc__ or "")
    parser.add_argument("--manager", choices=["own", "fanwire"], default="own", help="whose client manager")
    parser.add_argument("--server", choices=["uvicorn", "aiohttp"], default="uvicorn")
    run(main(parser.parse_args()))
