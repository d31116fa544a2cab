"""Peer: Django Channels, with its in-memory layer or with fanwire's, on uvicorn with uvloop, or on Daphne.

A publication is one ``group_send``: of a message that each consumer handles, or of fanwire's reserved type.
"""

import asyncio
import os
from argparse import Namespace
from typing import Any

from django.conf import settings
from driver import drive, drive_on_uvicorn, run, uvicorn_options

GROUP = "c0"
LAYERS = {
    "own": "channels.layers.InMemoryChannelLayer",
    "redis": "channels_redis.pubsub.RedisPubSubChannelLayer",
    "fanwire": "fanwire.compat.django_channels.ChannelLayer",
}


def application(layer: str, here: set[str], redis: str | None) -> Any:
    """The consumer of Channels' tutorial, without what a client says; `here` has the names of who is there."""
    more = {"CONFIG": {"hosts": [redis]}} if layer == "redis" else {}
    settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": LAYERS[layer]} | more})
    from channels.generic.websocket import AsyncWebsocketConsumer

    bases: tuple[type, ...] = (AsyncWebsocketConsumer,)
    if layer == "fanwire":
        from fanwire.compat.django_channels import FanwireConsumer

        bases = (FanwireConsumer, AsyncWebsocketConsumer)

    class Consumer(*bases):  # type: ignore[misc]
        async def connect(self) -> None:
            await self.channel_layer.group_add(GROUP, self.channel_name)
            await self.accept()
            here.add(self.channel_name)

        async def disconnect(self, code: int) -> None:
            here.discard(self.channel_name)
            await self.channel_layer.group_discard(GROUP, self.channel_name)

        async def chat_message(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["text"])

    return Consumer.as_asgi()


def publisher(layer: str) -> Any:
    """Sends one text to the group."""
    from channels.layers import get_channel_layer

    kind = "fanwire.send" if layer == "fanwire" else "chat.message"
    channels = get_channel_layer()

    async def publish(channel: str, text: str) -> None:
        await channels.group_send(channel, {"type": kind, "text": text})

    return publish


async def on_uvicorn(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    here: set[str] = set()
    served = application(arguments.layer, here, arguments.redis)
    await drive_on_uvicorn(served, arguments, publisher(arguments.layer), lambda: len(here), lifespan="off")


def on_daphne(arguments: Namespace) -> None:
    """Serve until stdin ends: Twisted's reactor runs asyncio's loop, which is not uvloop."""
    if arguments.layer == "fanwire":
        from fanwire.daphne import DaphneServer as Server
    else:
        from daphne.server import Server
    from twisted.internet import reactor

    here: set[str] = set()
    endpoint = f"tcp:port={arguments.port}:interface=127.0.0.1:backlog=4096"

    async def driven() -> None:
        await drive(publisher(arguments.layer), lambda: len(here), arguments.port)
        os._exit(0)

    served = application(arguments.layer, here, arguments.redis)
    server = Server(served, endpoints=[endpoint], signal_handlers=False, ping_interval=3600, verbosity=0)
    tasks: list[Any] = []
    reactor.callWhenRunning(lambda: tasks.append(asyncio.get_event_loop().create_task(driven())))  # type: ignore[attr-defined]
    server.run()


if __name__ == "__main__":
    parser = uvicorn_options(__doc__ or "")
    parser.add_argument("--layer", choices=list(LAYERS), default="own", help="whose layer")
    parser.add_argument("--server", choices=["uvicorn", "daphne"], default="uvicorn")
    chosen = parser.parse_args()
    if chosen.server == "daphne":
        on_daphne(chosen)
    else:
        run(on_uvicorn(chosen))
