"""What machines of one backbone are together: hubs in processes of their own, a real Redis or NATS, clients of each."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import httpx
import pytest
from anyio.to_thread import run_sync
from support.callers import Caller
from support.clients import connected
from support.hub_client import hub_client, negotiate
from support.nats import Nats, nats_server, needs_nats
from support.redis import Redis, needs_redis, redis_server
from support.waiting import until_in_thread
from support.workers import Program, serving

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.timeout(120)]
REDIS = pytest.param(redis_server, marks=needs_redis, id="redis")
NATS = pytest.param(nats_server, marks=needs_nats, id="nats")
over_both = pytest.mark.parametrize("server", [REDIS, NATS], indirect=True)
over_redis = pytest.mark.parametrize("server", [REDIS], indirect=True)
"""What the backbone's server has no part in."""

SOURCE = """
import asyncio, logging, os, sys
import fanwire

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
changes, heard, tasks = [], [], []
channels = {"room": fanwire.Channel(presence=True, presence_linger=0.2), "kept:*": fanwire.Channel(history=10)}
channels |= {name: fanwire.Channel(history=5) for name in sys.argv[3:]}
hub = fanwire.Hub(channels, backbone=sys.argv[1], drain_timeout=1)

@hub.authenticate
async def who(request):
    return request.query.get("user") or None

@hub.on_presence
def change(change):
    changes.append([list(change.joined), list(change.left), change.occupancy])

@hub.method
async def where(client):
    return os.getpid()

@hub.method
async def told(client):
    return changes

@hub.method
async def members(client, channel):
    return [hub.presence(channel), hub.occupancy(channel)]

@hub.method
async def occupancy(client, channel):
    return await hub.occupancy_of_all(channel)

@hub.method
async def kick(client, user):
    return hub.disconnect_user(user, 4001, "signed out")

@hub.method
async def publish(client, channel, data):
    await hub.publish(channel, data)

@hub.method
async def publish_to(client, user, data):
    await hub.publish(fanwire.to.user(user), data)

@hub.method
async def delivered(client, channel, data):
    delivery = await hub.delivered(hub.publish(channel, data))
    return [delivery.subscribers, delivery.taken]

@hub.method
async def stats(client):
    stats = await hub.stats_of_all()
    return [len(stats.workers), len(stats.silent), stats.subscriptions, len(await hub.relay_stats_of_all())]

@hub.method
async def listen(client, pattern):
    ready = asyncio.Event()
    async def hear():
        async with hub.listen(pattern) as messages:
            ready.set()
            async for message in messages:
                heard.append([message.channel, message.data])
    tasks.append(asyncio.create_task(hear()))
    await ready.wait()

@hub.method
async def heard_so_far(client):
    return heard

hub.run("127.0.0.1:0", workers=int(sys.argv[2]))
"""


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


class Machines:
    """Programs that are one hub."""

    def __init__(self, stack: ExitStack, url: str) -> None:
        self._stack, self._url = stack, url
        self.running: list[Program] = []

    def start(self, workers: int = 0, *channels: str) -> Program:
        """One more; returns when it serves."""
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="fw")))
        arguments = (self._url, str(workers), *channels)
        running = self._stack.enter_context(serving(folder, SOURCE, *arguments))
        self.running.append(running)
        address_of(running)
        return running


def address_of(running: Program) -> str:
    found = re.search(r"serving on (127\S+?)(,| |$)", running.until(r"^serving on 127"))
    assert found is not None
    return found[1]


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis | Nats]:
    """The backbone's."""
    with request.param(tmp_path) as one:
        yield one


@pytest.fixture
def machines(server: Redis | Nats) -> Iterator[Machines]:
    """Of that backbone."""
    with ExitStack() as stack:
        yield Machines(stack, server.url)


async def client_of(stack: AsyncExitStack, running: Program, query: str = "") -> Caller:
    """A client of a machine."""
    return Caller(await stack.enter_async_context(connected(address_of(running), f"/ws?{query}")))


async def becomes(caller: Caller, wanted: Any, method: str, *arguments: Any, seconds: float = 60) -> None:
    """Wait until that is a method's answer."""
    answer = None
    with anyio.move_on_after(seconds):
        while (answer := await caller.call(method, *arguments)) != wanted:
            pass
    assert answer == wanted


async def until_told(callers: list[Caller], users: list[str]) -> None:
    """Wait until the application has been told that these have come, wherever it was; once each."""
    joined: list[str] = []
    with anyio.move_on_after(60):
        while joined != users:
            told = [await caller.call("told") for caller in callers]
            joined = sorted(user for one in told for change in one for user in change[0])
    assert joined == users


@over_both
async def test_presence_and_occupancy_are_those_of_all_and_are_told_once(machines: Machines) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = (machines.start() for _ in range(3))
        callers = [await client_of(stack, one) for one in (first, second, third)]
        ann = await client_of(stack, first, "user=ann&channel=room")
        bob = await client_of(stack, second, "user=bob&channel=room")
        await client_of(stack, second, "channel=room")
        for caller in callers:
            await becomes(caller, [["ann", "bob"], 3], "members", "room")
            await becomes(caller, 3, "occupancy", "room")
        await until_told(callers, ["ann", "bob"])
        watchers = [await client_of(stack, one, "channel=presence:room") for one in (first, second, third)]
        for watcher in watchers:
            snapshot = await watcher.receive()
            assert (sorted(snapshot["members"]), snapshot["occupancy"]) == (["ann", "bob"], 3)
        await bob.peer.close()
        for watcher in watchers:
            gone: list[str] = []
            while not gone:
                change = await watcher.receive()
                gone += change["left"]
            assert gone == ["bob"]
        for caller in callers:
            await becomes(caller, [["ann"], 2], "members", "room")
        await until_told(callers, ["ann", "bob"])
        await ann.peer.close()
        await becomes(callers[2], [[], 1], "members", "room")


@over_redis
async def test_a_machine_that_is_killed_takes_its_presence_with_it_and_another_tells(machines: Machines) -> None:
    async with AsyncExitStack() as stack:
        first, second = machines.start(), machines.start()
        caller = await client_of(stack, second)
        await client_of(stack, first, "user=ann&channel=room")
        await client_of(stack, second, "user=bob&channel=room")
        await becomes(caller, [["ann", "bob"], 2], "members", "room")
        await until_told([caller, await client_of(stack, first)], ["ann", "bob"])
        watcher = await client_of(stack, second, "channel=presence:room")
        assert sorted((await watcher.receive())["members"]) == ["ann", "bob"]
        os.kill(first.process.pid, signal.SIGKILL)
        while "ann" not in (await watcher.receive())["left"]:
            pass
        await becomes(caller, [["bob"], 1], "members", "room")
        second.until("is silent for 5 s: its clients have gone")
        third = machines.start()
        other = await client_of(stack, third, "user=eve&channel=room")
        await becomes(other, [["bob", "eve"], 2], "members", "room")
        await becomes(caller, [["bob", "eve"], 2], "members", "room")


@over_both
async def test_a_link_that_is_cut_costs_nobody_their_presence(machines: Machines, server: Redis | Nats) -> None:
    async with AsyncExitStack() as stack:
        first, second = machines.start(), machines.start()
        callers = [await client_of(stack, one) for one in (first, second)]
        await client_of(stack, first, "user=ann&channel=room")
        await client_of(stack, second, "user=bob&channel=room")
        for caller in callers:
            await becomes(caller, [["ann", "bob"], 2], "members", "room")
        for round in range(3):
            if isinstance(server, Redis):
                server.do("CLIENT", "KILL", "TYPE", "pubsub")
            else:
                server.kill()
                server.start()
            for one in (first, second):
                one.until("the backbone is reached", round + 2)
            guest = await client_of(stack, first, f"user=guest{round}&channel=room")
            await becomes(callers[1], [["ann", "bob", f"guest{round}"], 3], "members", "room")
            await guest.peer.close()
            await becomes(callers[1], [["ann", "bob"], 2], "members", "room")
        left = [user for caller in callers for change in await caller.call("told") for user in change[1]]
        assert not {"ann", "bob"} & set(left)
        for caller in callers:
            await becomes(caller, [2, 0, 4, 2], "stats")


@over_both
async def test_calls_that_concern_all_reach_all(machines: Machines) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = machines.start(), machines.start(2), machines.start()
        callers = [await client_of(stack, one) for one in (first, second, third)]
        for caller in callers:
            await becomes(caller, [4, 0, 0, 4], "stats")
        for one in (first, second, third):
            await client_of(stack, one, "channel=odds")
            await client_of(stack, one, "channel=odds&user=ann")
        for caller in callers:
            await becomes(caller, 6, "occupancy", "odds")
            assert await caller.call("delivered", "odds", 1) == [6, 6]
        await becomes(callers[1], [4, 0, 9, 4], "stats")
        ann = await client_of(stack, second, "user=ann")
        await callers[0].call("publish_to", "ann", {"for": "ann"})
        assert await ann.receive() == {"for": "ann"}
        await callers[2].call("kick", "ann")
        assert await ann.peer.closed() == (4001, "signed out")
        for caller in callers:
            await becomes(caller, 3, "occupancy", "odds")


@over_both
async def test_patterns_are_heard_from_the_first_publication_elsewhere(machines: Machines) -> None:
    async with AsyncExitStack() as stack:
        first, second = machines.start(), machines.start(2)
        here, there = await client_of(stack, first), await client_of(stack, second)
        await there.call("listen", "*:a*")
        while not await there.call("heard_so_far"):  # the server is asked for them, and it takes its time
            await here.call("publish", "lost:asks", 0)
        await here.call("publish", "kept:before", 0)
        for number in range(3):
            await here.call("publish", "kept:a", number)
            await here.call("publish", f"lost:a{number}", number)
            await there.call("publish", "kept:a", number + 10)
        wanted = [["kept:a", [0, 10, 1, 11, 2, 12]], *(([f"lost:a{number}", [number]]) for number in range(3))]

        async def sorted_by_channel() -> list[Any]:
            heard: dict[str, list[Any]] = {}
            for channel, data in await there.call("heard_so_far"):
                if channel != "lost:asks":
                    heard.setdefault(channel, []).append(data)
            return sorted([channel, data] for channel, data in heard.items())

        with anyio.move_on_after(60):
            while await sorted_by_channel() != wanted:
                pass
        assert await sorted_by_channel() == wanted


GARBAGE = ("", "garbage", "fwm", "fwm\x01", "fwm\x09" + "x" * 40, "fwm\x01" + "\xff" * 99)


def counted(running: Program) -> float | None:
    """Records that a machine has counted as foreign."""
    text = httpx.get(f"http://{address_of(running)}/metrics", trust_env=False).text
    found = re.search(r"^fanwire_backbone_foreign_records_total (\S+)$", text, re.MULTILINE)
    return found and float(found[1])


@over_both
async def test_a_foreign_word_is_counted_and_another_program_named(machines: Machines, server: Redis | Nats) -> None:
    async with AsyncExitStack() as stack:
        first = machines.start(2)
        caller, watcher = await client_of(stack, first), await client_of(stack, first, "channel=kept:a")
        first.until("the backbone is reached")
        await caller.call("publish", "kept:a", 1)
        assert await watcher.receive() == 1
        for word in GARBAGE:
            if isinstance(server, Redis):
                server.do("PUBLISH", "fanwire:n:all", word)
                server.do("PUBLISH", "fanwire:c:ckept:a", word)
            else:
                server.publish("fanwire.told.all", word.encode())
                server.publish("fanwire.in.10.ckept:a", word.encode())
        first.until("somebody else tells the machines of the backbone's prefix things, 1 so far")
        first.until("somebody else publishes on channels of the backbone's prefix, 1 so far")
        await run_sync(until_in_thread, lambda: counted(first) == 2 * len(GARBAGE))
        await caller.call("publish", "kept:a", 2)
        assert await watcher.receive() == 2
        assert await caller.call("delivered", "odds", 1) == [0, 0]
        assert not first.said("is out of reach")
        other = machines.start(0, "another:*")
        for one in (first, other):
            one.until("has the same prefix, and other channels or bounds")
        stranger = await client_of(stack, other)
        await client_of(stack, other, "channel=odds")
        await becomes(stranger, [1, 0, 1, 1], "stats")
        await becomes(caller, [2, 0, 1, 2], "stats")


@over_redis
async def test_what_one_machine_negotiated_another_takes_and_a_post_to_a_third_is_refused(machines: Machines) -> None:
    first, second, third = machines.start(), machines.start(2), machines.start()
    async with AsyncExitStack() as stack:
        caller = await client_of(stack, first)
        await becomes(caller, [4, 0, 0, 4], "stats")  # from then on their keys are known
        for here, there in ((first, second), (second, first), (second, third)):
            token = (await run_sync(negotiate, address_of(here)))["connectionToken"]
            async with hub_client(address_of(there), query=f"?id={token}") as client:
                assert await client.invoke("where")
        reply = await run_sync(negotiate, address_of(first))
        target = f"/signalr?id={reply['connectionToken']}"

        def request(method: str, running: Program, **options: Any) -> int:
            url = f"http://{address_of(running)}{target}"
            return httpx.request(method, url, trust_env=False, timeout=100, **options).status_code

        polled = partial(request, "GET", second)
        assert await run_sync(polled) == 200
        posted = {"content": b'{"protocol":"json","version":1}\x1e'}
        assert await run_sync(partial(request, "POST", second, **posted)) == 200
        assert await run_sync(partial(request, "POST", third, **posted)) == 404
        target = target[:-4] + ("AAAA" if target[-4:] != "AAAA" else "BBBB")
        assert await run_sync(polled) == 404
