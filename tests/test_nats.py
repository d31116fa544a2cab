"""Hubs that name the same NATS server are one: real hubs, a real nats-server, clients of each."""

import re
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from fanwire import to
from support.backbones import published, told, two_hubs, watching
from support.nats import Nats, nats_server, needs_nats

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180), needs_nats]

CHANNELS = {"few": fanwire.Channel(history=2), "*": fanwire.Channel(history=100)}


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    """A server of its own."""
    with nats_server(tmp_path) as one:
        yield one


async def test_clients_of_each_get_what_is_published_at_either_in_one_order(nats: Nats) -> None:
    async with two_hubs(nats.url, CHANNELS) as (hubs, addresses), AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(watching(address, "odds")) for address in addresses]
        for number in range(20):
            hubs[number % 2].publish("odds", number)
        both = [await told(peer, 20) for peer in peers]
        assert both[0] == both[1] and sorted(both[0]) == list(range(20))
        assert [number for number in both[0] if number % 2] == list(range(1, 20, 2)), "each in its own order"


async def test_numbers_that_other_channels_have_had_are_no_gap(nats: Nats) -> None:
    async with two_hubs(nats.url, CHANNELS) as (hubs, addresses), watching(addresses[0], "odds") as peer:
        for number in range(5):
            await published(hubs[1], "odds", number)
            await published(hubs[0], "elsewhere", number)
        assert await told(peer, 5) == list(range(5))


async def test_a_client_goes_on_at_another_hub_where_it_left_the_first(nats: Nats) -> None:
    async with two_hubs(nats.url, CHANNELS) as (hubs, addresses):
        async with watching(addresses[0], "odds", query="?envelope=1") as peer:
            for number in range(3):
                await published(hubs[1], "odds", number)
                await published(hubs[1], "elsewhere", number)
            seen = await told(peer, 3)
        position = seen[-1]["position"]
        for number in range(3, 6):
            await published(hubs[0], "odds", number)
        async with watching(addresses[1], "odds", query="?envelope=1", since={"odds": position}) as peer:
            assert [message["data"] for message in await told(peer, 3)] == [3, 4, 5]


async def test_a_server_that_was_killed_costs_a_client_nothing(nats: Nats) -> None:
    async with two_hubs(nats.url, CHANNELS) as (hubs, addresses), AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(watching(address, "odds")) for address in addresses]
        await published(hubs[0], "odds", 1)
        nats.kill()
        held = hubs[0].publish("odds", 2)
        nats.start()
        with anyio.fail_after(60), suppress(RuntimeError):  # it was under way, perhaps, when the server was killed
            await held
        await published(hubs[1], "odds", 3)
        for peer in peers:
            assert await told(peer, 1) == [1]
            assert (await told(peer, 1))[0] in (2, 3)


async def test_a_stream_that_was_deleted_begins_a_new_life_and_clients_are_told(nats: Nats) -> None:
    async with two_hubs(nats.url, CHANNELS) as (hubs, addresses), AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(watching(address, "odds")) for address in addresses]
        first = await published(hubs[0], "odds", 1)
        (stream,) = [name for name in nats.streams() if "-100-" in name]
        nats.do(f"$JS.API.STREAM.DELETE.{stream}")
        second = await published(hubs[1], "odds", 2)
        while second.epoch == first.epoch:  # it was there before the stream was deleted
            second = await published(hubs[1], "odds", 2)
        assert second.epoch > first.epoch
        for peer in peers:
            assert await told(peer, 1) == [1]
            assert await peer.closed() == (1013, "publications are missing in channel odds")
        async with watching(addresses[0], "odds") as peer:
            await published(hubs[1], "odds", 4)
            assert await told(peer, 1) == [4]


async def test_users_are_reached_wherever_they_are(nats: Nats) -> None:
    async with AsyncExitStack() as stack:
        hubs = [fanwire.Hub(CHANNELS, backbone=nats.url) for _ in range(2)]
        for hub in hubs:
            hub.authenticate(lambda request: fanwire.Identity(request.query["user"]))
        served = [await stack.enter_async_context(hub.serve("127.0.0.1:0")) for hub in hubs]
        peers = [
            await stack.enter_async_context(watching(served[1].address, "odds", query=f"?user={name}"))
            for name in ("ann", "bob")
        ]
        await hubs[0].publish(to.user("ann"), 1)
        await published(hubs[0], "odds", 2)
        assert [await told(peers[0], 2), await told(peers[1], 1)] == [[1, 2], [2]]


async def test_what_a_channel_keeps_is_a_stream_s_and_others_have_theirs(nats: Nats) -> None:
    async with two_hubs(nats.url, CHANNELS) as (hubs, addresses):
        places = []
        for number in range(5):
            places.append(await published(hubs[0], "few", number))
            await published(hubs[0], "odds", number)
        # The others are of users, of whom nothing is kept, of the hubs' rules, and of which streams there are.
        assert {name.split("-")[1] for name in nats.streams()} == {"0", "1", "2", "100", "lives"}
        async with watching(addresses[1], "few", since={"few": [*places[2]]}) as peer:
            assert await told(peer, 2) == [3, 4]


async def test_the_hub_of_the_docs(nats: Nats) -> None:
    page = await anyio.Path(__file__).parent.parent.joinpath("docs", "machines.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    program = program.replace("redis://10.0.0.5:6379", nats.url)
    assert nats.url in program
    names: dict[str, Any] = {"fanwire": fanwire}
    exec(program, names)
    async with names["hub"].serve("127.0.0.1:0"):
        assert (await published(names["hub"], "odds:1", 1)).offset == 1
