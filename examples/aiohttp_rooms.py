"""Rooms in an aiohttp program: `python examples/aiohttp_rooms.py`, then connect to ws://127.0.0.1:8080/rooms/7."""

import socket
import sys
from collections.abc import AsyncIterator

import fanwire
from aiohttp import web

hub = fanwire.Hub()


async def rooms(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(heartbeat=20)
    await websocket.prepare(request)
    room = request.match_info["room"]
    hub.attach(websocket, channels=[room])
    async for message in websocket:
        hub.publish(room, message.data)
    return websocket


async def with_hub(app: web.Application) -> AsyncIterator[None]:
    async with hub.serve():
        yield


def main(address: str = "127.0.0.1:8080") -> None:
    app = web.Application()
    app.add_routes([web.get("/rooms/{room}", rooms)])
    app.cleanup_ctx.append(with_hub)
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))) as listening:
        print(f"ws://{host}:{listening.getsockname()[1]}/rooms/7", flush=True)
        web.run_app(app, sock=listening, print=None)


main(*sys.argv[1:])
