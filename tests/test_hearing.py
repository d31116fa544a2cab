"""``hub.listen``: what is published, heard by the program itself, as a client among the others."""

from collections.abc import AsyncIterator

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from support.clients import connected
from support.hubs import MakeHub
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


async def some(publications: AsyncIterator[fanwire.Heard], count: int) -> list[fanwire.Heard]:
    """The next so many."""
    with anyio.fail_after(60):
        return [await anext(publications) for _ in range(count)]


async def nothing(publications: AsyncIterator[fanwire.Heard]) -> None:
    """There is none now."""
    with anyio.move_on_after(0.05) as scope:
        await anext(publications)
    assert scope.cancelled_caught


async def test_channels_of_a_pattern_are_heard_also_those_that_are_made_later(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY):
        hub.publish("odds:1", "before")
        async with hub.listen("odds:*") as publications:
            first = hub.publish("odds:1", {"home": 1.5}, event="odds")
            hub.publish("goals", "not for it")
            second = await run_sync(hub.publish, "odds:2", b"\x00\xff")
            third = hub.publish("odds:2", "text", keyframe=True)
            assert await some(publications, 3) == [
                fanwire.Heard("odds:1", first.position, {"home": 1.5}, "odds", False),
                fanwire.Heard("odds:2", second.position, b"\x00\xff", None, False),
                fanwire.Heard("odds:2", third.position, "text", None, True),
            ]
            assert hub.occupancy("odds:1") == 0, "it is nobody's subscriber"
            for data, payload in (({"home": "ü"}, '{"home":"ü"}'), ("text", "text"), (b"\xff", b"\xff")):
                hub.publish("odds:1", data)
                [one] = await some(publications, 1)
                assert (one.payload, one.data, one.data) == (payload, data, data)
            hub.publish_many("odds:3", ["a", "b"])
            assert [one.data for one in await some(publications, 2)] == ["a", "b"]


async def test_several_listen_beside_clients_and_the_slow_one_hurts_nobody(make_hub: MakeHub) -> None:
    hub = make_hub({"c": fanwire.Channel(policy="drop", backlog_frames=10)})
    async with (
        hub.serve(ANY) as serving,
        connected(serving.address, "/ws?channel=c") as peer,
        hub.listen("c") as slow,
        hub.listen("*") as fast,
    ):
        await until(lambda: hub.occupancy("c") == 1)
        for number in range(200):
            hub.publish("c", str(number))
            assert (await some(fast, 1))[0].data == str(number)
            assert await peer.receive() == str(number)
        await nothing(slow)
        hub.publish("c", "last")
        assert [one.data for one in await some(slow, 1)] == ["last"], "the backlog went past it"


@pytest.mark.parametrize("policy", ["latest", "keyframe", "drop"])
async def test_what_a_policy_says_of_clients_it_says_of_listeners(make_hub: MakeHub, policy: str) -> None:
    promise = fanwire.Channel(policy=policy, backlog_frames=10)
    hub = make_hub({"c": promise})
    async with hub.serve(ANY), hub.listen("c") as publications:
        for number in range(100):
            hub.publish("c", number, key="even" if number % 2 == 0 else "odd", keyframe=number == 95)
        if policy == "drop":
            await nothing(publications)
        hub.publish("c", "end", key="end")
        seen: list[object] = []
        while "end" not in seen:
            seen += [one.data for one in await some(publications, 1)]
        if policy == "latest":
            assert seen == [98, 99, "end"]
        elif policy == "keyframe":
            assert seen == [95, 96, 97, 98, 99, "end"]
        else:
            assert seen == ["end"]


async def test_where_every_publication_is_promised_who_loses_one_is_told(make_hub: MakeHub) -> None:
    hub = make_hub({"c": fanwire.Channel(backlog_frames=10)})
    async with hub.serve(ANY), hub.listen("c") as publications:
        for number in range(100):
            hub.publish("c", number)
        with pytest.raises(fanwire.Overtaken, match="channel 'c' promises every publication"):
            await some(publications, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(publications)


async def test_it_ends_with_the_serving_and_with_its_context(hub: fanwire.Hub) -> None:
    heard: list[object] = []

    async def listen(ready: anyio.Event) -> None:
        async with hub.listen("c") as publications:
            ready.set()
            async for one in publications:
                heard.append(one.data)
        heard.append("over")

    async with anyio.create_task_group() as tasks:
        await hub.start(ANY)
        ready = anyio.Event()
        tasks.start_soon(listen, ready)
        await ready.wait()
        hub.publish("c", "x")
        await until(lambda: heard == ["x"])
        await hub.stop()
    assert heard == ["x", "over"]
    async with hub.serve(ANY):
        listening = hub.listen("c")
        with pytest.raises(RuntimeError, match=r"listening to 'c' is not entered: `async with hub\.listen"):
            await anext(listening)
        async with listening as publications:
            with pytest.raises(RuntimeError, match="is listening to 'c' already"):
                await listening.__aenter__()
            hub.publish("c", "y")
        with pytest.raises(StopAsyncIteration):
            await anext(publications)
        async with listening:
            hub.publish("c", "z")
            assert (await some(listening, 1))[0].data == "z"
    with pytest.raises(fanwire.HubStopped):
        hub.listen("c")


async def test_so_many_may_listen_and_leaving_makes_room(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY):
        listening = [hub.listen("c*") for _ in range(1_025)]
        for one in listening[:-1]:
            await one.__aenter__()
        with pytest.raises(fanwire.LimitReached, match="listeners: 1025 is over the bound of 1024"):
            await listening[-1].__aenter__()
        await listening[0].__aexit__(None, None, None)
        async with listening[-1] as publications, hub.listen("c") as by_name:
            hub.publish("c", "x")
            assert (await some(publications, 1))[0].data == "x"
            assert (await some(by_name, 1))[0].data == "x"
        for one in listening[1:-1]:
            await one.__aexit__(None, None, None)


async def test_a_key_that_ends_is_told_to_who_listens(make_hub: MakeHub) -> None:
    hub = make_hub({"c": fanwire.Channel(policy="latest")})
    async with hub.serve(ANY), hub.listen("c") as publications:
        hub.publish("c", 1, key="a")
        hub.remove("c", key="a")
        assert [one.data for one in await some(publications, 1)] == [{"removed": "a"}]
