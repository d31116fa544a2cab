"""``Publisher`` over NATS: what serves nobody publishes, and hubs pass it on; a real server."""

import logging
import multiprocessing
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import fanwire
import pytest
from fanwire import to
from support.backbones import told, watching
from support.clients import connected
from support.nats import Nats, nats_server, needs_nats

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), needs_nats]
KEEPS = {"*": fanwire.Channel(history=100, policy="latest")}


@pytest.fixture
def anyio_backend() -> str:
    """One loop, where none is named: what is tried is elsewhere."""
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A server for all tests that do it no harm."""
    with nats_server(tmp_path_factory.mktemp("nats")) as one:
        yield one


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """What a test's names begin with: they have nothing in common."""
    return f"t{abs(hash(request.node.nodeid)) % 10**9}"


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_hubs_pass_on_what_is_published_and_positions_are_one_order(server: Nats, prefix: str) -> None:
    hub = fanwire.Hub(KEEPS, backbone=server.url, backbone_prefix=prefix)
    async with hub.serve("127.0.0.1:0") as serving, watching(serving.address, query="?envelope=1") as peer:
        async with fanwire.Publisher(server.url, prefix=prefix) as publisher:
            first = await publisher.apublish("odds", {"home": 1.5}, event="price", key="1x2")
            second = await hub.publish("odds", "from the hub")
            third = await anyio.to_thread.run_sync(publisher.publish, "odds", {"away": 2.5})
            several = await publisher.apublish_many("odds", [1, 2, 3])
        places = [first, second, third, *several]
        assert places == sorted(places) and len({one.epoch for one in places}) == 1
        got = await told(peer, 6)
        assert [one["position"][1] for one in got] == [one.offset for one in places]
        assert [one["data"] for one in got] == [{"home": 1.5}, "from the hub", {"away": 2.5}, 1, 2, 3]
        assert got[0]["event"] == "price"


def test_nobody_has_to_run_and_what_is_kept_waits_for_who_comes(server: Nats, prefix: str) -> None:
    with fanwire.Publisher(server.url, prefix=prefix, channels=KEEPS) as publisher:
        before = publisher.publish("odds", 0)
        publisher.publish_many("odds", [1, 2, 3])

    async def come() -> None:
        hub = fanwire.Hub(KEEPS, backbone=server.url, backbone_prefix=prefix)
        since = {"odds": [before.epoch, before.offset]}
        async with hub.serve("127.0.0.1:0") as serving, watching(serving.address, since=since) as peer:
            assert await told(peer, 3) == [1, 2, 3]

    anyio.run(come)


async def test_the_same_idempotency_key_is_published_once(server: Nats, prefix: str) -> None:
    with fanwire.Publisher(server.url, prefix=prefix, channels=KEEPS) as publisher:
        publish = publisher.publish
        first = await anyio.to_thread.run_sync(lambda: publish("odds", 1, idempotency_key="order-7"))
        assert await publisher.apublish("odds", 1, idempotency_key="order-7") == first
        assert await publisher.apublish("odds", 1, idempotency_key="order-8") > first


async def test_what_hubs_keep_a_publisher_is_told_by_the_backbone(
    server: Nats, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with fanwire.Publisher(server.url, prefix=prefix) as publisher:
        await publisher.apublish("odds", 1)
    assert "no hub has said" in caplog.text
    caplog.clear()
    hub = fanwire.Hub(KEEPS, backbone=server.url, backbone_prefix=prefix)
    async with hub.serve("127.0.0.1:0") as serving:
        await hub.publish("other", 0)  # so that it has been there
        async with fanwire.Publisher(server.url, prefix=prefix) as publisher:
            place = await publisher.apublish("odds", 2, key="k")
            await publisher.aremove("odds", key="other")
        since = {"odds": [place.epoch, 0]}  # its beginning
        async with watching(serving.address, since=since) as peer:
            assert await told(peer, 2) == [2, {"removed": "other"}]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_users_are_reached(server: Nats, prefix: str) -> None:
    hub = fanwire.Hub(backbone=server.url, backbone_prefix=prefix)
    hub.authenticate(lambda request: fanwire.Identity(request.query["user"]))
    async with (
        hub.serve("127.0.0.1:0") as serving,
        connected(serving.address, "/ws?user=ann&channel=x") as peer,
        fanwire.Publisher(server.url, prefix=prefix, channels={}) as publisher,
    ):
        await publisher.apublish(to.user("ann"), "yours")
        assert await peer.receive() == "yours"


def test_threads_and_a_fork(server: Nats, prefix: str) -> None:
    with fanwire.Publisher(server.url, prefix=prefix, channels=KEEPS) as publisher:
        found: list[list[fanwire.Position]] = []
        threads = [
            threading.Thread(target=lambda: found.append(publisher.publish_many("odds", range(500)))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [positions == sorted(positions) for positions in found] == [True] * 4
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        child = multiprocessing.get_context("fork").Process(target=publish_in_child, args=(publisher, theirs))
        child.start()
        assert ours.poll(30) and ours.recv() > max(one for positions in found for one in positions).offset
        child.join()
        assert child.exitcode == 0


def publish_in_child(publisher: fanwire.Publisher, pipe: Any) -> None:
    """Tells where it stands."""
    pipe.send(publisher.publish("odds", "from the child").offset)


def test_without_the_server_it_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with nats_server(tmp_path_factory.mktemp("nats")) as one, fanwire.Publisher(one.url, channels=KEEPS) as publisher:
        publisher.publish("odds", 1)
        one.kill()
        with pytest.raises(fanwire.NotPublished):
            publisher.publish("odds", 2)
        one.start()
        while True:
            try:
                assert publisher.publish("odds", 3).offset > 1
            except fanwire.NotPublished:
                continue
            break
