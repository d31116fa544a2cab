"""Peer: ``websockets``, on asyncio or uvloop, with its own ``broadcast``, with fanwire's, or with fanwire's channels.

Keepalive and, without ``--deflate``, compression are off, as for all peers; its guide on broadcasting advises the
second as well.
"""

import asyncio
from argparse import Namespace
from contextlib import AsyncExitStack
from typing import Any

from driver import Publish, Watchers, channels_of, drive, options, run
from websockets.asyncio.server import ServerConnection, broadcast, serve


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    watchers = Watchers()
    send = broadcast
    if arguments.send == "broadcast":
        import fanwire

        send = fanwire.broadcast

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        channels = channels_of(connection.request.path)
        watchers.add(connection, channels)
        try:
            await connection.wait_closed()
        finally:
            watchers.discard(connection, channels)

    def publish(channel: str, text: str) -> None:
        send(watchers.of(channel), text)

    async with AsyncExitStack() as stack:
        if arguments.send == "attach":
            handler, publish = await attaching(stack, watchers)
        await stack.enter_async_context(
            serve(
                handler,
                "127.0.0.1",
                arguments.port,
                compression="deflate" if arguments.deflate else None,
                ping_interval=None,
                open_timeout=60,
                backlog=4096,
            )
        )
        await drive(publish, lambda: watchers.count, arguments.port)
        await asyncio.sleep(0)


async def attaching(stack: AsyncExitStack, watchers: Watchers) -> tuple[Any, Publish]:
    """The handler and ``publish`` of connections that fanwire's engine writes to."""
    import fanwire

    hub = fanwire.Hub()
    await stack.enter_async_context(hub.serve())

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        watchers.count += 1
        try:
            await hub.adopt(connection, channels_of(connection.request.path))
        finally:
            watchers.count -= 1

    def publish(channel: str, text: str) -> None:
        hub.publish(channel, text)

    return handler, publish


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--deflate", action="store_true", help="negotiate permessage-deflate with who offers it")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    parser.add_argument(
        "--send",
        choices=["own", "broadcast", "attach"],
        default="own",
        help="websockets' broadcast, fanwire's, or a channel that each connection is attached to",
    )
    chosen = parser.parse_args()
    run(main(chosen), uvloop=chosen.uvloop)
