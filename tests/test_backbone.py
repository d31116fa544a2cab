"""Hubs that name the same server are one: real hubs, a real Redis, clients of each."""

import re
from contextlib import AsyncExitStack
from typing import Any

import anyio
import fanwire
import pytest
from fanwire import to
from support.backbones import published, told, two_hubs, watching
from support.redis import Redis, needs_redis

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

CHANNELS = {"*": fanwire.Channel(history=100)}


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


def hub_at(redis: Redis, **options: Any) -> fanwire.Hub:
    """One that others with the same server are one with."""
    return fanwire.Hub(CHANNELS, backbone=redis.url, **options)


@needs_redis
async def test_clients_of_each_get_what_is_published_at_either_in_one_order(redis: Redis) -> None:
    async with two_hubs(redis.url, CHANNELS) as (hubs, addresses), AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(watching(address)) for address in addresses]
        for number in range(20):
            hubs[number % 2].publish("odds", number)
        both = [await told(peer, 20) for peer in peers]
        assert both[0] == both[1] and sorted(both[0]) == list(range(20))
        assert [number for number in both[0] if number % 2] == list(range(1, 20, 2)), "each in its own order"
        last = await hubs[0].publish("odds", 99)
        assert last.offset == 21
        assert [await told(peer, 1) for peer in peers] == [[99], [99]]


@needs_redis
async def test_a_client_goes_on_at_another_hub_where_it_left_the_first(redis: Redis) -> None:
    async with two_hubs(redis.url, CHANNELS) as (hubs, addresses):
        async with watching(addresses[0], query="?envelope=1") as peer:
            for number in range(3):
                await published(hubs[1], "odds", number)
            seen = await told(peer, 3)
        position = seen[-1]["position"]
        for number in range(3, 6):
            await published(hubs[0], "odds", number)
        async with watching(addresses[1], query="?envelope=1", since={"odds": position}) as peer:
            assert [message["data"] for message in await told(peer, 3)] == [3, 4, 5]


@needs_redis
async def test_a_server_that_starts_anew_costs_no_client_anything(redis: Redis) -> None:
    """It leaves numbers out, to give none twice: that was taken for a gap, and clients were closed with 1013."""
    async with two_hubs(redis.url, CHANNELS) as (hubs, addresses), AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(watching(address, query="?envelope=1")) for address in addresses]
        before = await published(hubs[0], "odds", 1)
        for peer in peers:
            assert [message["data"] for message in await told(peer, 1)] == [1]
        redis.kill()
        redis.start()
        after = await published(hubs[1], "odds", 2)
        assert after.epoch == before.epoch and after.offset > before.offset + 1_000_000
        for peer in peers:
            (message,) = await told(peer, 1)
            assert (message["data"], message["position"]) == (2, [*after])
        async with watching(addresses[0], query="?envelope=1", since={"odds": [*before]}) as peer:
            assert [message["data"] for message in await told(peer, 1)] == [2]


@needs_redis
async def test_links_that_break_cost_a_client_nothing(redis: Redis) -> None:
    async with two_hubs(redis.url, CHANNELS) as (hubs, addresses), AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(watching(address)) for address in addresses]
        await published(hubs[0], "odds", 0)
        for number in range(1, 4):
            redis.do("CLIENT", "KILL", "TYPE", "pubsub")
            redis.do("CLIENT", "KILL", "TYPE", "normal")
            await published(hubs[number % 2], "odds", number)
        for peer in peers:
            assert await told(peer, 4) == [0, 1, 2, 3]


@needs_redis
async def test_users_are_reached_wherever_they_are(redis: Redis) -> None:
    async with AsyncExitStack() as stack:
        hubs = [hub_at(redis) for _ in range(2)]
        for hub in hubs:
            hub.authenticate(lambda request: fanwire.Identity(request.query["user"]))
        served = [await stack.enter_async_context(hub.serve("127.0.0.1:0")) for hub in hubs]
        peers = [
            await stack.enter_async_context(watching(served[1].address, query=f"?user={name}"))
            for name in ("ann", "bob")
        ]
        await hubs[0].publish(to.user("ann"), 1)
        await published(hubs[0], "odds", 2)
        assert [await told(peers[0], 2), await told(peers[1], 1)] == [[1, 2], [2]]


@needs_redis
async def test_hubs_of_another_prefix_have_nothing_in_common(redis: Redis) -> None:
    one, other = hub_at(redis), hub_at(redis, backbone_prefix="other")
    async with (
        one.serve("127.0.0.1:0"),
        other.serve("127.0.0.1:0") as serving,
        watching(serving.address) as peer,
    ):
        await published(one, "odds", 1)
        await published(other, "odds", 2)
        assert await told(peer, 1) == [2]


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        (5, TypeError, "not int"),
        ("http://h", ValueError, "its scheme may be"),
        ("kafka://user:secret@h", ValueError, "its scheme may be"),
    ],
)
def test_what_is_no_backbone_is_refused_at_once_and_no_password_is_shown(url: Any, kind: type, says: str) -> None:
    with pytest.raises(kind, match=says) as found:
        fanwire.Hub(backbone=url)
    assert "secret" not in str(found.value)


def test_a_prefix_that_cannot_be_is_refused() -> None:
    for prefix in ("", "a{b", "x" * 129, "\n"):
        with pytest.raises(ValueError, match="backbone_prefix must be"):
            fanwire.Hub(backbone="redis://127.0.0.1", backbone_prefix=prefix)


async def test_without_the_server_a_hub_serves_and_what_is_published_waits_for_it() -> None:
    hub = fanwire.Hub(backbone="redis://127.0.0.1:1")
    async with hub.serve("127.0.0.1:0") as serving, watching(serving.address):
        waits = hub.publish("odds", 1)
        with pytest.raises(LookupError):
            _ = waits.position


@needs_redis
async def test_the_hub_of_the_docs(redis: Redis) -> None:
    page = await anyio.Path(__file__).parent.parent.joinpath("docs", "machines.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert "redis://10.0.0.5:6379" in program
    names: dict[str, Any] = {"fanwire": fanwire}
    exec(program.replace("redis://10.0.0.5:6379", redis.url), names)
    async with names["hub"].serve("127.0.0.1:0"):
        assert (await published(names["hub"], "odds:1", 1)).offset == 1


def test_what_becomes_of_publications_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="backbone_on_down must be one of buffer, fail, local, not 'wait'"):
        fanwire.Hub(backbone="redis://127.0.0.1", backbone_on_down="wait")  # type: ignore[arg-type]
