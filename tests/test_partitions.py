"""A machine that is cut off from the others, and comes back: what its clients and theirs have seen is what is promised.

Each machine, and each server, is in a network namespace of its own; clients come to a machine by a Unix socket.
"""

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.callers import Caller
from support.clients import connected
from support.nats import SERVER as NATS
from support.nats import needs_nats
from support.networks import Network, network, why_not
from support.redis import SERVER as REDIS
from support.redis import needs_redis
from support.waiting import until_in_thread
from support.workers import Program, started
from websockets.exceptions import ConnectionClosed

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.timeout(120)]

SOURCE = """
import logging, sys
import fanwire

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
channels = {"kept": fanwire.Channel(history=1_000, presence=True, presence_linger=0.2)}
channels |= {"lost": fanwire.Channel(), "new": fanwire.Channel()}
hub = fanwire.Hub(channels, backbone=sys.argv[1], drain_timeout=1)

@hub.authenticate
async def who(request):
    return request.query.get("user") or None

@hub.method
async def members(client):
    return hub.presence("kept")

@hub.method
async def publish(client, channel, data):
    hub.publish(channel, data)

@hub.method
async def place(client, channel, data):
    return (await hub.publish(channel, data)).offset

@hub.method
async def fate(client, channel, data):
    try:
        return (await hub.publish(channel, data)).offset
    except RuntimeError as error:
        return str(error)

hub.run(f"unix:{sys.argv[2]}")
"""


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


@pytest.fixture
def net() -> Iterator[Network]:
    """A network."""
    if why := why_not():
        pytest.skip(why)
    with network() as one:
        yield one


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[Program]:
    """A program that is killed at the end."""
    one = Program(started(command, folder))
    try:
        yield one
    finally:
        one.end()


class Machine:
    """One that serves at a Unix socket."""

    def __init__(self, program: Program, path: Path) -> None:
        self.program, self._path = program, path

    @asynccontextmanager
    async def client(self, query: str = "") -> AsyncIterator[Caller]:
        """One of its clients."""
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(str(self._path))
        async with connected("hub", f"/ws?{query}", sock=channel) as peer:
            yield Caller(peer)


def machine(stack: ExitStack, net: Network, number: int, url: str, folder: Path) -> Machine:
    """One, which serves and has reached the backbone."""
    own = folder / f"m{number}"
    own.mkdir()
    (own / "app.py").write_text(SOURCE)
    path = own / "s"
    command = [*net.on(number), sys.executable, "-u", "-W", "ignore", "app.py", url, str(path)]
    one = Machine(stack.enter_context(running(command, own)), path)
    one.program.until("^serving on unix")
    one.program.until("the backbone is reached")
    return one


async def becomes(caller: Caller, wanted: list[str]) -> None:
    """Wait until these are there, as that machine knows it."""
    found = None
    with anyio.move_on_after(30):
        while (found := await caller.call("members")) != wanted:
            pass
    assert found == wanted


async def all_until(caller: Caller, last: Any) -> list[Any]:
    """What a client gets up to this."""
    got = []
    while not got or got[-1] != last:
        got.append(await caller.receive())
    return got


@needs_redis
async def test_a_machine_that_is_cut_off_for_longer_than_its_lease(net: Network, tmp_path: Path) -> None:
    assert REDIS is not None
    with ExitStack() as processes:
        server = net.machine(9)
        for number in (1, 2):
            net.machine(number)
        command = [*net.on(9), REDIS, "--bind", server, "--protected-mode", "no", "--save", "", "--dir", str(tmp_path)]
        processes.enter_context(running(command, tmp_path)).until("Ready to accept connections")
        cut, other = (machine(processes, net, number, f"redis://{server}", tmp_path) for number in (1, 2))
        async with AsyncExitStack() as stack:
            ann = await stack.enter_async_context(cut.client("user=ann&channel=kept"))
            bob = await stack.enter_async_context(other.client("user=bob&channel=kept"))
            deaf = await stack.enter_async_context(cut.client("channel=lost"))
            first_of_all = await stack.enter_async_context(cut.client("channel=new"))
            for caller in (ann, bob):
                await becomes(caller, ["ann", "bob"])
            first = await bob.call("place", "kept", ["before"])
            for caller in (ann, bob):
                await all_until(caller, ["before"])
            await bob.call("publish", "lost", ["first"])
            assert await deaf.receive() == ["first"]
            net.pull(1)
            under_way = await ann.call("fate", "kept", ["under way"])
            for number in range(20):
                await bob.call("publish", "kept", ["there", number])
                await bob.call("publish", "lost", number)
                await bob.call("publish", "new", number)
            other.program.until("is silent for 5 s: its clients have gone")
            await becomes(bob, ["bob"])
            cut.program.until("the backbone is out of reach")
            assert "whether it was published is not known" in under_way
            for number in range(20):
                await ann.call("publish", "kept", ["here", number])
            cut.program.until("is silent for 5 s: its clients have gone")
            await becomes(ann, ["ann"])
            late = await stack.enter_async_context(cut.client("user=late&channel=kept"))
            assert await late.call("members")
            net.plug(1)
            for caller in (ann, bob):
                await becomes(caller, ["ann", "bob", "late"])
            await ann.call("publish", "kept", ["after"])
            seen = [await all_until(caller, ["after"]) for caller in (ann, bob)]
            there, here = [["there", number] for number in range(20)], [["here", number] for number in range(20)]
            known = [[one for one in each if one != ["under way"]] for each in seen]
            assert known[0] == known[1] == [*there, *here, ["after"]], "one order, nothing is missing or comes twice"
            assert seen[0] == seen[1] and len(seen[0]) <= len(known[0]) + 1
            assert (await all_until(late, ["after"]))[-1] == ["after"]
            assert await bob.call("place", "kept", ["end"]) in (first + 42, first + 43)
            # What was not kept is lost to them, and a client is told with the next one, also where nothing was before.
            for channel, caller in (("lost", deaf), ("new", first_of_all)):
                await bob.call("publish", channel, ["next"])
                with pytest.raises(ConnectionClosed, match=f"publications are missing in channel {channel}"):
                    await all_until(caller, ["next"])
    assert not cut.program.said("Traceback") and not other.program.said("Traceback")


def cluster(stack: ExitStack, net: Network, folder: Path) -> dict[int, str]:
    """Three servers of NATS, by their machines; gives their addresses."""
    assert NATS is not None
    addresses = {number: net.machine(number) for number in (11, 12, 13)}
    routes = ", ".join(f'"nats://{address}:6222"' for address in addresses.values())
    for number, address in addresses.items():
        own = folder / f"n{number}"
        own.mkdir()
        config = f"""
            listen: "{address}:4222"
            server_name: n{number}
            http: "{address}:8222"
            jetstream {{ store_dir: "{own}" }}
            ping_interval: "1s"
            cluster {{ name: c, listen: "{address}:6222", routes: [{routes}], ping_interval: "1s" }}
        """
        (own / "nats.conf").write_text(config)
        stack.enter_context(running([*net.on(number), NATS, "-c", "nats.conf"], own))
    until_in_thread(lambda: all(healthy(net, *one) for one in addresses.items()), 30)
    return addresses


def healthy(net: Network, number: int, address: str) -> bool:
    """Whether a server says that it knows the leader, and its streams are well; asked from its machine."""
    asking = f"import urllib.request as u; print(u.urlopen('http://{address}:8222/healthz', timeout=2).read().decode())"
    command = [*net.on(number), sys.executable, "-c", asking]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return bool(said) and json.loads(said)["status"] == "ok"


@needs_nats
async def test_a_server_of_a_cluster_that_is_cut_off_costs_nobody_anything(net: Network, tmp_path: Path) -> None:
    with ExitStack() as processes:
        addresses = cluster(processes, net, tmp_path)
        for number in (1, 2):
            net.machine(number)
        # Each begins with a server of its own, which names the others; that of the first is cut off.
        one, two = (
            machine(processes, net, number, f"nats://{addresses[own]}:4222", tmp_path)
            for number, own in ((1, 11), (2, 12))
        )
        async with AsyncExitStack() as stack:
            callers = [
                await stack.enter_async_context(each.client(f"user={name}&channel=kept"))
                for each, name in ((one, "ann"), (two, "bob"))
            ]
            for caller in callers:
                await becomes(caller, ["ann", "bob"])
            await callers[0].call("place", "kept", ["before"])
            for caller in callers:
                await all_until(caller, ["before"])
            net.pull(11)
            fates = {number: await callers[1].call("fate", "kept", number) for number in range(10)}
            one.program.until("the backbone is out of reach")
            one.program.until("the backbone is reached", 2)
            fates |= {number: await callers[number % 2].call("fate", "kept", number) for number in range(10, 20)}
            net.plug(11)
            while isinstance(await callers[1].call("fate", "kept", ["after"]), str):
                pass  # nobody knows whether that stands
            seen = [await all_until(caller, ["after"]) for caller in callers]
            assert seen[0] == seen[1], "one order, and nothing is missing to one of them"
            assert len({str(one) for one in seen[0]}) == len(seen[0]), "none comes twice"
            placed = [number for number, fate in fates.items() if isinstance(fate, int)]
            assert [one for one in seen[0] if one in placed] == placed, "in its order, and what has a place is there"
            await becomes(callers[0], ["ann", "bob"])
            await callers[0].call("publish", "kept", ["the end"])
            for caller in callers:
                assert set(map(str, await all_until(caller, ["the end"]))) <= {"['after']", "['the end']"}
