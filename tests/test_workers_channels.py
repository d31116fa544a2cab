"""What several workers share of channels, as whole programs: one order, recovery elsewhere, users, hubs, keyframes."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack

import anyio
import pytest
from support.callers import each
from support.hub_client import HubClient, hub_client
from support.waiting import until
from support.workers import Program, serving

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.timeout(120)]

SOURCE = """
import asyncio, logging, os, sys
import fanwire
from fanwire import to
from fanwire.workers.seat import seat_of_process

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
number = seat_of_process().number if seat_of_process() else -1
state = {"asked": 0, "heard": []}
may_answer = asyncio.Event()
hub = fanwire.Hub(channels={
    "kept:*": fanwire.Channel(history=100),
    "latest:*": fanwire.Channel(history=100, policy="latest"),
    "state:*": fanwire.Channel(),
})

@hub.authenticate
async def who(request):
    return request.query.get("user") or None

@hub.snapshot("state:*")
async def state_of(channel):
    state["asked"] += 1
    await may_answer.wait()
    return {"state of": channel, "by": number}

@hub.method
async def answer(client):
    may_answer.set()

@hub.method
async def where(client):
    return [number, os.getpid()]

@hub.method
async def say(client, channel, data, options):
    return list(await hub.publish(channel, data, **options))

@hub.method
async def user(client, name, data):
    hub.publish(to.user(name), data, event="told")

@hub.method
async def everyone(client, data):
    hub.publish(to.all(), data, event="told")

@hub.method
async def end(client, channel, key):
    await hub.remove(channel, key=key)

@hub.method
async def asked(client):
    return state["asked"]

@hub.method
async def listen(client, pattern):
    import anyio
    begun = anyio.Event()
    async def main():
        async with hub.listen(pattern) as heard:
            begun.set()
            async for publication in heard:
                state["heard"].append([publication.channel, publication.data, *publication.position])
    import asyncio
    state["task"] = asyncio.get_running_loop().create_task(main())
    await begun.wait()

@hub.method
async def heard(client):
    return state["heard"]

@hub.method
async def burst(client, channel, count):
    for index in range(count):
        publication = hub.publish(channel, {"by": number, "index": index})
    return list(await publication)

@hub.method
async def place(client, channel):
    return list(hub.position(channel))

hub.run("127.0.0.1:0", workers=3)
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Three workers, which all tests here share."""
    with serving(tmp_path_factory.mktemp("workers"), SOURCE) as running:
        yield running


async def test_all_publish_at_once_and_all_clients_get_it_in_one_order(running: Program) -> None:
    async with each(running, "?channel=order") as callers:
        async with anyio.create_task_group() as tasks:
            for caller in callers:
                tasks.start_soon(caller.call, "burst", "order", 300)
        everything = [[await caller.receive() for _ in range(900)] for caller in callers]
        assert everything[0] == everything[1] == everything[2]
        for number in {one["by"] for one in everything[0]}:
            assert [one["index"] for one in everything[0] if one["by"] == number] == list(range(300))
        places = [await caller.call("place", "order") for caller in callers]
        assert places[0] == places[1] == places[2] and places[0][1] == 900


async def test_a_client_goes_on_in_another_worker(running: Program) -> None:
    async with each(running) as (first, second, third):
        positions = [await first.call("say", "kept:a", {"n": n}, {}) for n in range(5)]
        answer = await second.subscribe("kept:a", since={"kept:a": positions[2]})
        assert answer["recovered"] == {"kept:a": True} and answer["positions"] == {"kept:a": positions[2]}
        assert [await second.receive() for _ in range(2)] == [{"n": 3}, {"n": 4}]
        await third.subscribe("kept:a", start="history")
        assert [await third.receive() for _ in range(5)] == [{"n": n} for n in range(5)]
        await first.call("say", "kept:a", {"n": 5}, {})
        assert await second.receive() == await third.receive() == {"n": 5}


async def test_the_newest_of_each_key_and_keys_that_end_are_the_same_everywhere(running: Program) -> None:
    async with each(running) as (first, second, third):
        for turn in range(3):
            for key in ("a", "b", "c"):
                await (first, second, third)[turn].call("say", "latest:m", {key: turn}, {"key": key})
        await first.call("end", "latest:m", "b")
        begin = (await first.call("place", "latest:m"))[0]
        await second.subscribe("latest:m", since={"latest:m": [begin, 3]})
        # What it missed, but for values of the key that has ended.
        assert [await second.receive() for _ in range(4)] == [{"a": 1}, {"c": 1}, {"a": 2}, {"c": 2}]


async def test_a_user_and_a_whole_hub_are_reached_in_every_worker(running: Program) -> None:
    async with each(running, "?user=ann") as callers, each(running, "?user=bob") as others:
        await others[0].call("user", "ann", {"for": "ann"})
        for caller in callers:
            assert await caller.receive() == {"for": "ann"}
        await callers[1].call("user", "bob", {"for": "bob"})
        for caller in others:
            assert await caller.receive() == {"for": "bob"}
    async with AsyncExitStack() as stack:
        clients: dict[int, HubClient] = {}
        while len(clients) < 3:
            client = await stack.enter_async_context(hub_client(running.address, query="?user=eve"))
            where = await client.invoke("where")
            clients.setdefault(where["result"][0], client)
        first, *rest = clients.values()
        await first.send({"type": 1, "target": "everyone", "arguments": [{"to": "all"}]})
        for client in (first, *rest):
            assert await client.receive() == {"type": 1, "target": "told", "arguments": [{"to": "all"}]}
        await rest[0].send({"type": 1, "target": "user", "arguments": ["eve", {"to": "eve"}]})
        for client in (first, *rest):
            assert await client.receive() == {"type": 1, "target": "told", "arguments": [{"to": "eve"}]}


async def test_one_application_is_asked_for_a_keyframe(running: Program) -> None:
    async with each(running) as callers:
        async with anyio.create_task_group() as tasks:
            for caller in callers:
                tasks.start_soon(caller.subscribe, "state:1")
        for caller in callers:
            await caller.call("say", "other", {}, {})  # the supervisor hears of it behind what each has asked for
        for caller in callers:
            await caller.call("answer")
        states = [await caller.receive() for caller in callers]
        assert states[0] == states[1] == states[2] and states[0]["state of"] == "state:1"
        counts = [await caller.call("asked") for caller in callers]
        assert sum(counts) == 1, counts


async def test_the_program_hears_what_is_published_in_other_workers(running: Program) -> None:
    async with each(running) as (first, second, third):
        await first.call("listen", "heard:*")
        await first.call("say", "other", "zero", {})  # it is told behind that, so the supervisor knows of it now
        await second.call("say", "heard:1", "one", {})
        await third.call("say", "heard:2", "two", {})
        await second.call("say", "other", "three", {})

        async def heard() -> bool:
            return len(await first.call("heard")) == 2

        with anyio.fail_after(60):
            while not await heard():
                pass
        texts = [(channel, data) for channel, data, *_ in await first.call("heard")]
        assert sorted(texts) == [("heard:1", "one"), ("heard:2", "two")]


async def test_who_leaves_before_its_channel_has_come_gets_nothing_of_it(running: Program) -> None:
    async with each(running) as (first, second, _):
        for n in range(20):
            name = f"left:{n}"
            await second.peer.send(json.dumps({"subscribe": [name]}))
            await second.peer.send(json.dumps({"unsubscribe": [name]}))
            await second.call("where")
            await first.call("say", name, {"n": n}, {})
        await second.subscribe("end")
        await first.call("say", "end", {"end": True}, {})
        assert await second.receive() == {"end": True}


async def test_a_worker_that_is_killed_takes_nothing_with_it(running: Program) -> None:
    async with each(running) as (first, second, third):
        positions = [await first.call("say", "kept:killed", {"n": n}, {}) for n in range(3)]
        await second.subscribe("kept:killed")
        _, process = await first.call("where")
        os.kill(process, signal.SIGKILL)
        await third.call("say", "kept:killed", {"n": 3}, {})
        assert await second.receive() == {"n": 3}
        await until(lambda: len(running.said("another is started")) >= 1, 30)
        async with each(running) as callers:
            for caller in callers:
                answer = await caller.subscribe("kept:killed", since={"kept:killed": positions[0]})
                assert answer["recovered"] == {"kept:killed": True}
                assert [await caller.receive() for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
