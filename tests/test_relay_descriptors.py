"""Connections to backends have half of the process's descriptors, clients the rest; a forked child has none of them."""

import gc
import os
import resource
import traceback
from contextlib import AsyncExitStack

import fanwire
import pytest
from anyio.to_thread import run_sync
from fanwire._engine import Engine
from fanwire.relay import MessageShare, RelayConfig
from support.clients import connected
from support.loops import without_uvloop
from support.plain_backend import PlainBackend
from support.relaying import relayed

pytestmark = pytest.mark.anyio
anyio_backend = without_uvloop
BY_MESSAGE = MessageShare(subscribe="/watch", unsubscribe="/unwatch")


def config(upstream: str) -> RelayConfig:
    """A plain relay whose lanes do not linger for long."""
    url = f"ws://{upstream}/plain"
    return RelayConfig(path="/p", upstream=(url,), protocol="websocket", share=(BY_MESSAGE,), linger=0.05)


async def test_connections_to_backends_leave_half_of_the_descriptors(
    hub: fanwire.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (9, 20))
    shortage = "5 connections to backends are over the bound of 4, half of the process's descriptors"
    with PlainBackend().serving() as upstream:
        async with relayed(hub, config(upstream)) as address, AsyncExitStack() as stack:
            greedy, second, third = [await stack.enter_async_context(connected(address, "/p")) for _ in range(3)]
            for match in range(4):
                await greedy.send(f'{{"watch":"{match}"}}')
            await greedy.send('{"watch":"4"}')
            assert await greedy.receive_json() == {"error": shortage}
            await second.send('{"watch":"3"}')
            await second.send('{"watch":"4"}')
            assert await second.receive_json() == {"error": shortage}
            await third.send("its own")
            assert await third.closed() == (1008, shortage)


async def test_a_child_that_was_forked_has_no_thread_to_backends_to_end(hub: fanwire.Hub) -> None:
    with PlainBackend().serving() as upstream:
        async with relayed(hub, config(upstream)) as address, connected(address, "/p") as client:
            await client.send("its own")
            assert await client.receive() == "its own"
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                os.write(writing, what_stopping_says().encode())
                os._exit(0)
            os.close(writing)
            with os.fdopen(reading) as pipe:
                assert await run_sync(pipe.read) == "stopped"
            os.waitpid(child, 0)
            await client.send("the parent goes on")
            assert await client.receive() == "the parent goes on"


def what_stopping_says() -> str:
    """What comes of ending every engine that this process knows."""
    try:
        for engine in [one for one in gc.get_objects() if type(one) is Engine]:
            engine.stop()
    except BaseException:  # a panic is none that `Exception` catches
        return traceback.format_exc()
    return "stopped"
