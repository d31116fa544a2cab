"""Hubs over Redis with sentinels and as a cluster, and a client that comes back after long; real servers."""

import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from support.backbones import published, told, two_hubs, watching
from support.clients import Peer, connected
from support.raw import free_port
from support.redis import PORTS, SERVER, Redis, needs_redis, redis_server
from support.waiting import until_in_thread

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.timeout(180), needs_redis]

CHANNELS = {"few": fanwire.Channel(history=5), "*": fanwire.Channel(history=100)}


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


def says(redis: Redis, wanted: str, *words: str) -> None:
    """Wait until a server's answer has this."""

    def is_said() -> bool:
        try:
            return wanted.encode() in redis.do(*words)
        except OSError:  # it does not listen yet
            return False

    until_in_thread(is_said, 30)


def subfolder(folder: Path, name: str) -> Path:
    """One of a server's own."""
    (folder / name).mkdir()
    return folder / name


@contextmanager
def sentinel(folder: Path, master: Redis) -> Iterator[int]:
    """One that watches a server as ``mymaster``; gives its port."""
    assert SERVER is not None
    port = free_port(PORTS)
    times = "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000"
    config = f"port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {master.port} 1\n{times}\n"
    (folder / "sentinel.conf").write_text(config)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([SERVER, "sentinel.conf", "--sentinel"], cwd=folder, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


async def places(peer: Peer, count: int) -> list[tuple[Any, tuple[int, int]]]:
    """The next publications of a client, each with its position."""
    return [(one["data"], tuple(one["position"])) for one in await told(peer, count)]


async def test_a_promoted_replica_that_lost_writes_gives_no_position_twice_and_that_is_told(tmp_path: Path) -> None:
    with ExitStack() as servers:
        login = ("--masteruser", "copies", "--masterauth", "hush")
        master = servers.enter_context(redis_server(subfolder(tmp_path, "one"), "--repl-diskless-sync-delay", "0"))
        master.do("ACL", "SETUSER", "copies", "on", ">hush", "+psync", "+replconf", "+ping")
        source = ("--replicaof", f"127.0.0.1 {master.port}")
        replica = servers.enter_context(redis_server(subfolder(tmp_path, "two"), *source, *login))
        says(replica, "master_link_status:up", "INFO", "replication")
        port = servers.enter_context(sentinel(subfolder(tmp_path, "three"), master))
        watch = Redis.__new__(Redis)
        watch.port = port
        says(watch, str(replica.port), "SENTINEL", "REPLICAS", "mymaster")
        url = f"redis+sentinel://127.0.0.1:{port}/mymaster"
        async with two_hubs(url, CHANNELS) as (hubs, addresses), AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(watching(each, query="?envelope=1")) for each in addresses]
            kept = [await published(hubs[number % 2], "odds", number) for number in range(3)]
            says(replica, f"${len(str(kept[-1].offset))}\r\n{kept[-1].offset}", "HGET", "fanwire:m:codds", "o")
            # From now on the replica gets nothing more; the server goes on for a while.
            master.do("ACL", "SETUSER", "copies", "off")
            master.do("CLIENT", "KILL", "TYPE", "replica")
            lost = [await published(hubs[number % 2], "odds", number) for number in (3, 4)]
            seen = [await places(peer, 5) for peer in peers]
            master.kill()
            new = [await published(hubs[number % 2], "odds", number) for number in (5, 6)]
            given = [(one.epoch, one.offset) for one in (*kept, *lost, *new)]
            assert given == sorted(set(given)), "none is given twice"
            for had, peer in zip(seen, peers, strict=True):
                assert had == [*zip(range(5), given, strict=False)], "who had the lost ones has them"
                # Both machines knew of them, so the channel has begun anew, and that is told.
                assert await peer.closed() == (1013, "publications are missing in channel odds")
            assert new[0].epoch > lost[-1].epoch
            late = fanwire.Hub(CHANNELS, backbone=url)
            async with late.serve("127.0.0.1:0") as serving:
                for address in (*addresses, serving.address):
                    since = {"odds": [lost[-1].epoch, lost[-1].offset]}
                    assert await recovered(address, since) == (False, [])
                    since = {"odds": [new[0].epoch, new[0].offset]}
                    assert await recovered(address, since) == (True, [6])


async def recovered(address: str, since: dict[str, list[int]]) -> tuple[bool, list[Any]]:
    """Whether a client that returns is, and what it gets up to the last one."""
    (channel,) = since
    async with connected(address, "/ws") as peer:
        await peer.send_json(subscribe=[channel], since=since, id=1)
        is_recovered: bool = (await peer.receive_json())["result"]["recovered"][channel]
        got: list[Any] = []
        while is_recovered and (not got or got[-1] != 6):
            got.append(await peer.receive_json())
        return is_recovered, got


@contextmanager
def cluster(folder: Path) -> Iterator[list[Redis]]:
    """Three nodes with all slots."""
    with ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--cluster-port")
        nodes = [
            stack.enter_context(redis_server(subfolder(folder, str(number)), *options, str(free_port(PORTS))))
            for number in range(3)
        ]
        for node, (first, last) in zip(nodes, ((0, 5460), (5461, 10922), (10923, 16383)), strict=True):
            node.do("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for other in nodes[1:]:
            bus = other.do("CONFIG", "GET", "cluster-port").decode().split("\r\n")[4]
            nodes[0].do("CLUSTER", "MEET", "127.0.0.1", str(other.port), bus)
        for node in nodes:
            says(node, "cluster_known_nodes:3", "CLUSTER", "INFO")
            says(node, "cluster_state:ok", "CLUSTER", "INFO")
        yield nodes


async def test_a_slot_that_moves_takes_its_channel_along(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        url = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        async with two_hubs(f"redis+cluster://{url}", CHANNELS) as (hubs, addresses), AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(watching(each, query="?envelope=1")) for each in addresses]
            before = [await published(hubs[number % 2], "odds", number) for number in range(3)]
            stands = [(node, node.do("KEYS", "fanwire:s:*:codds").decode().split("\r\n")) for node in nodes]
            (holder, found) = next((node, found) for node, found in stands if found[0] == "*1")
            key = found[2]
            taker = next(node for node in nodes if node is not holder)
            slot = holder.do("CLUSTER", "KEYSLOT", key).decode()[1:-2]
            names = {id(node): node.do("CLUSTER", "MYID").decode().split("\r\n")[1] for node in nodes}
            taker.do("CLUSTER", "SETSLOT", slot, "IMPORTING", names[id(holder)])
            holder.do("CLUSTER", "SETSLOT", slot, "MIGRATING", names[id(taker)])
            there = holder.do("CLUSTER", "GETKEYSINSLOT", slot, "100").decode().split("\r\n")[2::2]
            moved = holder.do("MIGRATE", "127.0.0.1", str(taker.port), "", "0", "5000", "KEYS", *there)
            assert moved == b"+OK\r\n"
            under_way = [hubs[number % 2].publish("odds", number) for number in (3, 4)]
            for node in (taker, holder, *nodes):
                node.do("CLUSTER", "SETSLOT", slot, "NODE", names[id(taker)])
            fates = [await fate(one) for one in under_way]
            after = [await published(hubs[number % 2], "odds", number) for number in (5, 6)]
            for peer in peers:
                had = await places(peer, 3)
                while had[-1][0] != 6:
                    had += await places(peer, 1)
                numbers = [data for data, _ in had]
                assert len(numbers) == len(set(numbers)), "none comes twice"
                assert [number for number in numbers if number not in (3, 4)] == [0, 1, 2, 5, 6], "in order"
                placed = {number for number, is_known in zip((3, 4), fates, strict=True) if is_known}
                assert placed <= set(numbers), "nothing that has its place is missing"
                assert [place for _, place in had] == sorted({place for _, place in had})
            assert before[0].epoch == after[-1].epoch
            assert taker.do("EXISTS", key) == b":1\r\n"


async def fate(publication: Any) -> bool:
    """Whether it has its place; else nobody knows."""
    try:
        await publication
    except RuntimeError:
        return False
    return True


async def test_who_comes_back_after_far_more_than_is_kept_is_told_and_one_within_it_misses_nothing(
    redis: Redis,
) -> None:
    """As after an hour: the channel keeps five, and has had a hundred more."""
    async with two_hubs(redis.url, CHANNELS) as (hubs, addresses):
        async with watching(addresses[0], "few", query="?envelope=1") as peer:
            first = await published(hubs[0], "few", "first")
            assert await places(peer, 1) == [("first", (first.epoch, first.offset))]
        places_of = [await published(hubs[number % 2], "few", number) for number in range(100)]
        # A machine that has been away as long as its clients have, and has nothing of it.
        back = fanwire.Hub(CHANNELS, backbone=redis.url)
        async with back.serve("127.0.0.1:0") as serving:
            for address in (*addresses, serving.address):
                await returns(address, first, [False, []])
                await returns(address, places_of[-4], [True, [97, 98, 99]])
                await returns(address, places_of[-1], [True, []])
        assert redis.do("XLEN", "fanwire:s:cfew") <= b":6"


async def returns(address: str, place: fanwire.Position, wanted: list[Any]) -> None:
    """A client that brings this is answered so, and gets so much."""
    since = {"few": [place.epoch, place.offset]}
    async with connected(address, "/ws") as peer:
        await peer.send_json(subscribe=["few"], since=since, id=1)
        answer = await peer.receive_json()
        got = [await peer.receive_json() for _ in wanted[1]]
        with anyio.fail_after(20):
            await peer.send_json(subscribe=[], id=2)
            assert "id" in await peer.receive_json(), "nothing comes behind it"
        assert [answer["result"]["recovered"]["few"], got] == wanted
