"""Hubs that a backbone makes one: what is published at one, what a client of another is told."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import fanwire

from support.clients import Peer, connected


@asynccontextmanager
async def two_hubs(
    url: str, channels: Mapping[str, fanwire.Channel], **options: Any
) -> AsyncIterator[tuple[list[fanwire.Hub], list[str]]]:
    """Two hubs that serve, and where."""
    hubs = [fanwire.Hub(channels, backbone=url, **options) for _ in range(2)]
    async with AsyncExitStack() as stack:
        yield hubs, [(await stack.enter_async_context(hub.serve("127.0.0.1:0"))).address for hub in hubs]


async def published(hub: fanwire.Hub, channel: str, data: Any) -> fanwire.Position:
    """Publish, and give the place, once that is to be had: it may take until the server is reached."""
    with anyio.fail_after(60):
        while True:
            try:
                return await hub.publish(channel, data)
            except RuntimeError:  # it was under way when a connection broke
                continue


@asynccontextmanager
async def watching(address: str, *channels: str, query: str = "", **more: Any) -> AsyncIterator[Peer]:
    """A client that watches channels, ``odds`` if none is named, from the moment at which it is told so."""
    wanted = list(channels or ("odds",))
    async with connected(address, f"/ws{query}") as peer:
        await peer.send_json(subscribe=wanted, id=1, **more)
        assert (await peer.receive_json())["result"]["subscribed"] == wanted
        yield peer


async def told(peer: Peer, count: int) -> list[Any]:
    """The next publications of a client."""
    return [await peer.receive_json() for _ in range(count)]
