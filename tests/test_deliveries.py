"""How far a publication has come, as ``Hub.delivered`` tells it."""

import socket
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from support.clients import connected, settle
from support.hubs import MakeHub
from support.raw import MORE_THAN_A_SOCKET_TAKES, read_frame, upgraded
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
PAD = "x" * 20_000


def roomy(make_hub: MakeHub, **settings: Any) -> fanwire.Hub:
    """A hub with settings for all its channels, and room for ``MORE_THAN_A_SOCKET_TAKES``."""
    return make_hub({"*": fanwire.Channel(**settings)}, publication_bytes_max=64 << 20)


async def stall(hub: fanwire.Hub, address: str, clients: int, stack: AsyncExitStack) -> list[socket.socket]:
    """Clients that do not read, with a publication that they will never have."""
    join = partial(upgraded, address, "/ws?channel=a", receive_buffer=4_096)
    stuck = [stack.enter_context(await run_sync(join)) for _ in range(clients)]
    await until(lambda: hub.occupancy("a") == clients)
    hub.publish("a", MORE_THAN_A_SOCKET_TAKES)
    await until(lambda: hub.stats().lagging == clients)
    return stuck


async def test_everyone_who_keeps_pace_has_it_in_every_format(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY, shards=2) as serving, AsyncExitStack() as stack:
        for target in ["/ws?channel=a"] * 6 + ["/ws?channel=a&format=msgpack"] * 2 + ["/ws?channel=a&envelope=1"]:
            await stack.enter_async_context(connected(serving.address, target))
        await until(lambda: hub.occupancy("a") == 9)
        first = hub.publish("a", 1)
        delivery = await hub.delivered(first, 1.0)
        assert (delivery.subscribers, delivery.taken, delivery.skipped) == (9, 9, 0)
        assert delivery.seconds >= 0
        hub.publish("a", 2)
        assert (await hub.delivered(first)).taken == 9, "long ago is no error"


async def test_nobody_has_it_where_nobody_is(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY):
        position = hub.publish("a", "x")
        for known in (position, fanwire.Position(1, 1)):
            delivery = await hub.delivered(known)
            assert (delivery.subscribers, delivery.taken, delivery.skipped) == (0, 0, 0)


async def test_a_laggard_holds_back_only_the_fraction_that_includes_it(make_hub: MakeHub) -> None:
    hub = roomy(make_hub, backlog_bytes=1 << 30)
    async with hub.serve(ANY) as serving, AsyncExitStack() as stack:
        (stuck,) = await stall(hub, serving.address, 1, stack)
        for _ in range(3):
            await stack.enter_async_context(connected(serving.address, "/ws?channel=a"))
        await until(lambda: hub.occupancy("a") == 4)
        position = hub.publish("a", "last")
        delivery = await hub.delivered(position, 0.75)
        assert (delivery.subscribers, delivery.taken) == (4, 3)
        with anyio.move_on_after(0.05):
            await hub.delivered(position, 0.76)
            raise AssertionError("one of four has not read")
        async with anyio.create_task_group() as tasks:

            def read() -> None:
                while read_frame(stuck).payload != b"last":
                    pass

            tasks.start_soon(run_sync, read)
            assert (await hub.delivered(position, 1.0)).taken == 4


async def test_who_goes_past_it_is_counted_and_who_leaves_is_not_waited_for(make_hub: MakeHub) -> None:
    hub = roomy(make_hub, policy="drop", backlog_bytes=100_000)
    async with hub.serve(ANY) as serving, AsyncExitStack() as stack:
        stuck = await stall(hub, serving.address, 2, stack)
        position = hub.publish("a", PAD)
        async with anyio.create_task_group() as tasks:

            async def skip() -> None:
                while True:
                    hub.publish("a", PAD)
                    await settle(hub, serving.address)

            tasks.start_soon(skip)
            delivery = await hub.delivered(position, 1.0)
            tasks.cancel_scope.cancel()
        assert (delivery.taken, delivery.skipped) == (0, 2)
        position = hub.publish("a", PAD)
        async with anyio.create_task_group() as tasks:
            for connection in stuck:
                tasks.start_soon(run_sync, connection.close)
            assert (await hub.delivered(position, 1.0)).taken == 0


async def test_bad_arguments_say_what_is_wrong(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY):
        position = hub.publish("a", "x")
        for fraction in (0, -1, 1.01, float("nan")):
            with pytest.raises(ValueError, match="fraction must be a number, > 0 and <= 1, not"):
                await hub.delivered(position, fraction)
        with pytest.raises(ValueError, match=f"position {position.epoch}-2: nothing was published there yet"):
            await hub.delivered(fanwire.Position(position.epoch, 2))
    with pytest.raises(fanwire.HubStopped):
        await hub.delivered(position)


async def test_the_end_of_the_hub_ends_waiting(make_hub: MakeHub) -> None:
    hub = roomy(make_hub, backlog_bytes=1 << 30)
    async with (
        AsyncExitStack() as stack,
        anyio.create_task_group() as tasks,
        hub.serve(ANY, drain_timeout=0.1, close_timeout=0.1) as serving,
    ):
        await stall(hub, serving.address, 1, stack)
        position = hub.publish("a", "x")

        async def wait() -> None:
            with suppress(fanwire.HubStopped):
                assert (await hub.delivered(position, 1.0)).taken == 0, "it was closed before it had it"

        tasks.start_soon(wait)
        await anyio.lowlevel.checkpoint()
