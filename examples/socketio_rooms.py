"""Rooms in a python-socketio program, with a page that has the stock JavaScript client.

`npm install socket.io-client`, then `python examples/socketio_rooms.py`, and open the page that it names in two tabs.
"""

import socket
import sys
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import socketio
import uvicorn
from fanwire.compat.socketio import AsyncFanwireManager

PAGE = Path(__file__).parent / "socketio_rooms" / "index.html"
CLIENT = "node_modules/socket.io-client/dist/socket.io.min.js"

sio = socketio.AsyncServer(async_mode="asgi", client_manager=AsyncFanwireManager())
said: defaultdict[str, deque[dict[str, str]]] = defaultdict(lambda: deque(maxlen=20))


@sio.event
async def join(sid: str, room: str, name: str) -> list[dict[str, str]]:
    await sio.save_session(sid, {"name": name})
    await sio.enter_room(sid, room)
    return list(said[room])  # which acknowledges it


@sio.event
async def say(sid: str, room: str, text: str) -> None:
    message = {"by": (await sio.get_session(sid))["name"], "text": text}
    said[room].append(message)
    await sio.emit("said", message, room=room)


@sio.event
async def show(sid: str, room: str, picture: bytes) -> None:
    await sio.emit("shown", {"picture": picture}, room=room, skip_sid=sid)


def main(address: str = "127.0.0.1:8000", client: str = CLIENT) -> None:
    files: dict[str, Any] = {"/": str(PAGE), "/socket.io.min.js": client}
    app = socketio.ASGIApp(sio, static_files=files)
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))) as listening:
        print(f"http://{host}:{listening.getsockname()[1]}/", flush=True)
        config = uvicorn.Config(app, ws="fanwire.uvicorn:Protocol", log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])


main(*sys.argv[1:])
