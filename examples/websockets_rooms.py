"""Rooms in a program with websockets: `python examples/websockets_rooms.py`, then connect to ws://127.0.0.1:8080/7."""

import asyncio
import sys

import fanwire
from websockets.asyncio.server import ServerConnection, serve

hub = fanwire.Hub()


async def rooms(connection: ServerConnection) -> None:
    assert connection.request is not None
    room = connection.request.path
    await hub.adopt(connection, channels=[room], on_message=lambda message: hub.publish(room, message))


async def main(address: str = "127.0.0.1:8080") -> None:
    host, _, port = address.rpartition(":")
    async with hub.serve(), serve(rooms, host, int(port)) as server:
        print(f"ws://{host}:{server.sockets[0].getsockname()[1]}/7", flush=True)
        await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
