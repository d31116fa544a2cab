"""Peer: ``websockets`` with its own ``broadcast``, on asyncio or uvloop.

Compression and keepalive are off, as for all peers; its guide on broadcasting advises the first as well.
"""

import asyncio
from argparse import Namespace

from driver import Watchers, channels_of, drive, options, run
from websockets.asyncio.server import ServerConnection, broadcast, serve


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    watchers = Watchers()

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        channels = channels_of(connection.request.path)
        watchers.add(connection, channels)
        try:
            await connection.wait_closed()
        finally:
            watchers.discard(connection, channels)

    def publish(channel: str, text: str) -> None:
        broadcast(watchers.of(channel), text)

    async with serve(
        handler, "127.0.0.1", arguments.port, compression=None, ping_interval=None, open_timeout=60, backlog=4096
    ):
        await drive(publish, lambda: watchers.count, arguments.port)
        await asyncio.sleep(0)


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    chosen = parser.parse_args()
    run(main(chosen), uvloop=chosen.uvloop)
