"""Peer: fanwire itself, through nothing but its public surface: ``Hub``, ``serve``, ``publish``, on uvloop."""

import os
from argparse import Namespace

from driver import drive, options, run


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    import fanwire

    channels = {"*": fanwire.Channel(compression=True)} if arguments.deflate else {}
    hub = fanwire.Hub(channels, backbone=arguments.redis)

    def publish(channel: str, text: str) -> None:
        hub.publish(channel, text)

    def count() -> int:
        return int(hub.stats().connections)

    async with hub.serve(f"127.0.0.1:{arguments.port}", shards=arguments.shards):
        await drive(publish, count, arguments.port)


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--shards", type=int, default=1, help="engine threads")
    parser.add_argument("--poller", choices=["epoll", "uring"], help="default: the engine's own choice")
    parser.add_argument("--deflate", action="store_true", help="compress for who offers it")
    chosen = parser.parse_args()
    if chosen.poller is not None:
        os.environ["FANWIRE_POLLER"] = chosen.poller
    run(main(chosen))
