"""What workers answer together, as whole programs: metrics, readiness, presence, users, deliveries."""

import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import httpx
import pytest
from anyio.to_thread import run_sync
from prometheus_client.parser import text_string_to_metric_families
from support.callers import Caller, each
from support.clients import connected
from support.raw import free_port
from support.workers import serving

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.timeout(120)]

SOURCE = """
import logging, os, sys
import fanwire
from fanwire.relay.config import RelayConfig
from fanwire.workers.seat import seat_of_process

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
number = seat_of_process().number if seat_of_process() else -1
changes = []
channels = {"room": fanwire.Channel(presence=True, presence_linger=0.2), "kept": fanwire.Channel(history=10)}
hub = fanwire.Hub(channels, drain_timeout=1)
if len(sys.argv) > 1:
    hub.relay(RelayConfig(path="/live", upstream=sys.argv[1]))

@hub.authenticate
async def who(request):
    return request.query.get("user") or None

@hub.on_presence
def change(change):
    changes.append([list(change.joined), list(change.left), change.occupancy])

@hub.method
async def where(client):
    return [number, os.getpid()]

@hub.method
async def told(client):
    return changes

@hub.method
async def newest(client):
    return changes[-1][2] if changes else None

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
async def publish(client, channel, data, fraction):
    delivery = await hub.delivered(hub.publish(channel, data), fraction)
    return [delivery.subscribers, delivery.taken]

@hub.method
async def stats(client):
    stats = await hub.stats_of_all()
    return [stats.subscriptions, list(stats.workers), list(stats.silent), sorted(await hub.relay_stats_of_all())]

@hub.method
async def places(client):
    first, second = hub.publish("a", "x"), hub.publish("a", "y")
    await second
    place = first.position
    return [place == first, first == place, first != second, first < second, second > place, {place: 1}[first]]

@hub.method
async def goes_on(client):
    first = hub.publish("kept", {"n": "a"})
    await hub.publish("kept", {"n": "b"})
    hub.subscribe(client, "kept", since=first)

@hub.method
async def another(client):
    "A hub of the worker's own."
    other = fanwire.Hub()
    async with other.serve("127.0.0.1:0"):
        other.publish("a", "x")
        return [other.position("a").offset, hub.position("a").offset, other.stats().publications]

hub.run("127.0.0.1:0", workers=3)
"""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for Unix sockets, whose paths are short."""
    with TemporaryDirectory(prefix="fw") as folder:
        yield Path(folder)


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


async def get(address: str, path: str) -> httpx.Response:
    """A request over a connection of its own."""
    return await run_sync(partial(httpx.get, f"http://{address}{path}", trust_env=False, timeout=40))


async def scrape(address: str) -> dict[tuple[str, str], float]:
    """Every sample by its name and its labels."""
    response = await get(address, "/metrics")
    assert response.status_code == 200, response.text
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def becomes(ask: Any, wanted: Any, seconds: float = 60) -> None:
    """Wait until that is the answer."""
    answer = None
    with anyio.move_on_after(seconds):
        while (answer := await ask()) != wanted:
            pass
    assert answer == wanted


async def test_metrics_are_sums_and_do_not_fall_when_a_worker_is_killed(short_path: Path) -> None:
    with serving(short_path, SOURCE) as running:
        address = running.address
        async with each(running, "?channel=a") as callers:
            await becomes(partial(callers[0].call, "occupancy", "a"), 3)
            assert await callers[0].call("publish", "a", {"n": 1}, 1.0) == [3, 3]

            async def sums() -> list[float]:
                samples = await scrape(address)
                names = ("fanwire_workers", "fanwire_subscriptions", "fanwire_deliveries_total")
                return [samples[name, ""] for name in names]

            for _ in range(4):
                await becomes(sums, [3, 3, 3])
            victim, *others = callers
            os.kill(victim.process, signal.SIGKILL)
            running.until("worker 3: serving on")
            for _ in range(4):
                await becomes(sums, [3, 2, 3])
            await becomes(partial(others[0].call, "stats"), [2, [1, 2, 3], [], [1, 2, 3]])


async def test_no_sum_falls_while_workers_are_replaced(short_path: Path) -> None:
    with serving(short_path, SOURCE) as running:
        async with each(running, "?channel=a") as callers:
            await becomes(partial(callers[0].call, "occupancy", "a"), 3)

            async def deliveries() -> float:
                return (await scrape(running.address))["fanwire_deliveries_total", ""]

            await callers[0].call("publish", "a", {"n": 1}, 1.0)
            await becomes(deliveries, 3)
            await callers[0].call("publish", "a", {"n": 2}, 1.0)  # of this nobody asks
            seen = [3.0]
            running.process.send_signal(signal.SIGUSR2)
            while not running.said("restarted: 3 workers serve"):
                with anyio.move_on_after(1.1):  # an answer is good for a second
                    await anyio.Event().wait()
                seen.append(await deliveries())
            assert seen == sorted(seen)
        async with each(running) as callers:
            await becomes(deliveries, 6)
            await becomes(partial(callers[0].call, "stats"), [0, [3, 4, 5], [], [3, 4, 5]])


async def test_a_worker_that_stands_still_is_named(short_path: Path) -> None:
    with serving(short_path, SOURCE) as running:
        async with each(running, "?channel=a") as callers:
            await scrape(running.address)
            os.kill(callers[2].process, signal.SIGSTOP)
            try:

                async def seen() -> tuple[float | None, float]:
                    with anyio.move_on_after(2):  # the one that is stopped may have taken it
                        samples = await scrape(running.address)
                        return samples.get(("fanwire_workers_silent", "2")), samples["fanwire_subscriptions", ""]
                    return None, 0

                await becomes(seen, (1.0, 3.0))
                await becomes(partial(callers[0].call, "stats"), [2, [0, 1], [2], [0, 1]])
            finally:
                os.kill(callers[2].process, signal.SIGCONT)


async def the_one_that_tells(callers: list[Caller]) -> Caller:
    """The eldest, once it has told anything."""
    with anyio.fail_after(60):
        while True:
            found = [caller for caller in callers if await caller.call("told")]
            if found:
                assert len(found) == 1
                return found[0]


async def test_presence_is_that_of_all_and_who_came_by_a_killed_worker_leaves(short_path: Path) -> None:
    with serving(short_path, SOURCE) as running:
        address = running.address
        async with each(running, "?channel=room&user=ann") as anns, each(running) as others, AsyncExitStack() as stack:
            for caller in others:
                await becomes(partial(caller.call, "members", "room"), [["ann"], 3])
                await becomes(partial(caller.call, "occupancy", "room"), 3)
            eldest = await the_one_that_tells(others)
            await becomes(partial(eldest.call, "newest"), 3)
            assert [joined for joined, _, _ in await eldest.call("told") if joined] == [["ann"]], "once"
            watchers = []
            for _ in range(6):
                watchers.append(await stack.enter_async_context(connected(address, "/ws?channel=presence:room")))
                assert await watchers[-1].receive_json() == {"channel": "room", "members": ["ann"], "occupancy": 3}
            cids = await stack.enter_async_context(each(running, "?channel=room&user=cid"))
            for caller in others:
                await becomes(partial(caller.call, "members", "room"), [["ann", "cid"], 6])
            for caller in cids:
                if caller.number != eldest.number:
                    await caller.peer.close()
            os.kill(eldest.process, signal.SIGKILL)
            left = [caller for caller in others if caller is not eldest]
            for caller in left:
                await becomes(partial(caller.call, "members", "room"), [["ann"], 2])
            next_one = await the_one_that_tells(left)
            await becomes(partial(next_one.call, "newest"), 2)

            async def left_users() -> list[str]:
                return [user for _, gone, _ in await next_one.call("told") for user in gone]

            await becomes(left_users, ["cid"])
            gone: list[str] = []
            for watcher in watchers:  # some were clients of the one that was killed
                with suppress(Exception):
                    while "cid" not in gone:
                        gone += (await watcher.receive_json()).get("left", [])
            assert gone == ["cid"]
            assert len(anns) == 3


async def test_a_user_is_disconnected_in_every_worker(short_path: Path) -> None:
    with serving(short_path, SOURCE) as running:
        async with each(running, "?user=ann") as anns, each(running, "?user=bob") as bobs:
            assert await bobs[0].call("kick", "ann") == 1
            for ann in anns:
                assert await ann.peer.closed() == (4001, "signed out")
            for bob in bobs:
                assert await bob.call("another") == [1, 0, 1]


async def test_a_publication_is_its_position_once_that_is_known(short_path: Path) -> None:
    with serving(short_path, SOURCE) as running:
        async with each(running) as callers:
            assert await callers[0].call("places") == [True, True, True, True, True, 1]
            await callers[1].call("goes_on")
            assert await callers[1].receive() == {"n": "b"}


async def test_a_worker_without_its_backend_makes_all_unready(short_path: Path) -> None:
    with serving(short_path, SOURCE, f"http://127.0.0.1:{free_port()}/live") as running:
        address = running.address
        assert (await get(address, "/readyz")).status_code == 200
        await run_sync(partial(httpx.post, f"http://{address}/live/negotiate?negotiateVersion=1", trust_env=False))

        async def statuses() -> set[int]:
            return {(await get(address, "/readyz")).status_code for _ in range(12)}

        await becomes(statuses, {503})
        assert "/live: no upstream is up" in (await get(address, "/readyz")).text
        assert (await get(address, "/healthz")).status_code == 200
