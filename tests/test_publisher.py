"""``Publisher``: what serves nobody publishes into a backbone; a real Redis, and hubs that listen."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import fanwire
import pytest
from fanwire import to
from support.backbones import watching
from support.clients import connected
from support.redis import Redis, needs_redis, redis_server

pytestmark = [pytest.mark.anyio]

KEEPS = {"*": fanwire.Channel(history=100, policy="latest")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A server for all tests that do it no harm."""
    with redis_server(tmp_path_factory.mktemp("redis")) as one:
        yield one


@pytest.fixture
def redis(server: Redis) -> Redis:
    """It, with nothing in it."""
    server.do("FLUSHALL")
    return server


@asynccontextmanager
async def served(redis: Redis, **options: Any) -> AsyncIterator[tuple[fanwire.Hub, str]]:
    """A hub at the backbone, and where it serves."""
    hub = fanwire.Hub(KEEPS, backbone=redis.url, **options)
    async with hub.serve("127.0.0.1:0") as serving:
        yield hub, serving.address


@needs_redis
async def test_a_hub_passes_on_what_is_published_and_knows_its_place(redis: Redis) -> None:
    async with served(redis) as (hub, address), watching(address, query="?envelope=1") as peer:
        async with fanwire.Publisher(redis.url) as publisher:
            first = await publisher.apublish("odds", {"home": 1.5}, event="price", key="1x2")
            second = await hub.publish("odds", "from the hub")
            third = await publisher.apublish("odds", b"\x00")
        assert first.epoch == second.epoch == third.epoch and [first.offset, third.offset] == [1, 3]
        told = await peer.receive_json()
        assert (told["event"], told["data"]) == ("price", {"home": 1.5})
        assert told["position"] == [first.epoch, first.offset]
        assert (await peer.receive_json())["data"] == "from the hub"


@needs_redis
def test_nobody_has_to_run_and_what_is_kept_waits_for_who_comes(redis: Redis) -> None:
    with fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        positions = publisher.publish_many("odds", [1, 2, 3], key="k")
        assert [position.offset for position in positions] == [1, 2, 3]

    async def come() -> None:
        async with served(redis) as (_, address), watching(address, since={"odds": [positions[0].epoch, 0]}) as peer:
            assert [await peer.receive_json() for _ in range(3)] == [1, 2, 3]

    anyio.run(come)


@needs_redis
async def test_what_hubs_keep_a_publisher_is_told_by_the_backbone(redis: Redis) -> None:
    async with served(redis) as (hub, _):
        await hub.publish("other", 0)  # so that it has been there
    async with fanwire.Publisher(redis.url) as publisher:
        await publisher.apublish("odds", 1)
        assert redis.do("XLEN", "fanwire:s:codds") == b":1\r\n"
        with pytest.raises(ValueError, match="policy"):
            await fanwire.Publisher(redis.url, channels={}).aremove("odds", key="k")
        await publisher.aremove("odds", key="k")


@needs_redis
async def test_where_no_hub_ever_was_nothing_is_kept_and_that_is_said(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with fanwire.Publisher(redis.url) as publisher:
        await publisher.apublish("odds", 1)
    assert redis.do("EXISTS", "fanwire:s:codds") == b":0\r\n"
    assert "no hub has said" in caplog.text


@needs_redis
async def test_users_and_hubs_are_reached_and_single_clients_are_not(redis: Redis) -> None:
    hub = fanwire.Hub(backbone=redis.url)
    hub.authenticate(lambda request: fanwire.Identity(request.query["user"]))
    async with (
        hub.serve("127.0.0.1:0") as serving,
        connected(serving.address, "/ws?user=ann&channel=x") as peer,
        fanwire.Publisher(redis.url, channels={}) as publisher,
    ):
        await publisher.apublish(to.user("ann"), "yours")
        assert await peer.receive() == "yours"
        await publisher.apublish(to.all(), {"a": 1})
        with pytest.raises(ValueError, match="key means nothing"):
            publisher.publish(to.user("ann"), 1, key="k")
        with pytest.raises(ValueError, match="only that hub"):
            publisher.publish(to.client(next(iter(hub.clients()))), 1)


@needs_redis
def test_the_same_idempotency_key_is_published_once(redis: Redis) -> None:
    with fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        first = publisher.publish("odds", 1, idempotency_key="order-7")
        assert publisher.publish("odds", 1, idempotency_key="order-7") == first
        assert publisher.publish("odds", 1, idempotency_key="order-8").offset == first.offset + 1


@needs_redis
def test_threads_and_many_at_once(redis: Redis) -> None:
    with fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        found: list[list[fanwire.Position]] = []
        threads = [
            threading.Thread(target=lambda: found.append(publisher.publish_many("odds", range(2_000))))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [positions == sorted(positions) for positions in found] == [True] * 4
        assert {one.offset for positions in found for one in positions} == set(range(1, 8_001))


def publish_in_child(publisher: fanwire.Publisher, pipe: Any) -> None:
    """In a fork: it connects anew."""
    pipe.send(publisher.publish("odds", os.getpid()).offset)


@needs_redis
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_publishes_by_what_was_made_before_it(redis: Redis) -> None:
    forking = multiprocessing.get_context("fork")
    with fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        for is_connected in (False, True):
            here, there = forking.Pipe()
            child = forking.Process(target=publish_in_child, args=(publisher, there))
            child.start()
            assert here.poll(20)
            offset = here.recv()
            child.join()
            assert child.exitcode == 0
            assert publisher.publish("odds", 1).offset == offset + 1, is_connected


@needs_redis
async def test_a_publisher_may_be_used_in_one_loop_after_another_and_in_threads(redis: Redis) -> None:
    with fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        here = await publisher.apublish("odds", 1)
        there = await anyio.to_thread.run_sync(lambda: anyio.run(publisher.apublish, "odds", 2, backend="trio"))
        assert there.offset == here.offset + 1
        assert [one.offset for one in await publisher.apublish_many("odds", [3, 4])] == [3, 4]


def test_without_the_server_it_says_so_at_once() -> None:
    with fanwire.Publisher("redis://127.0.0.1:1", channels=KEEPS, timeout=20) as publisher:
        with pytest.raises(fanwire.NotPublished, match="the backbone is down") as found:
            publisher.publish("odds", 1)
        assert not found.value.may_stand
    with fanwire.Publisher("redis://127.0.0.1:1") as asking, pytest.raises(fanwire.NotPublished):
        asking.publish("odds", 1)


@needs_redis
async def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis, fanwire.Publisher(redis.url, channels=KEEPS, timeout=0.2) as publisher:
        with anyio.fail_after(60):
            while True:  # until it is connected: that may take longer
                with suppress(fanwire.NotPublished):
                    await publisher.apublish("odds", 1)
                    break
        redis.do("CLIENT", "PAUSE", "60000", "ALL")
        with pytest.raises(fanwire.NotPublished, match=r"not answered for 0\.2 s") as found:
            await publisher.apublish("odds", 2)
        assert found.value.may_stand
        with pytest.raises(fanwire.NotPublished, match="not answered"):
            publisher.publish("odds", 3)


@needs_redis
def test_a_full_server_is_named_and_the_next_one_is_published(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis, fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        publisher.publish("odds", 1)
        redis.do("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(fanwire.NotPublished, match="no memory left") as found:
            publisher.publish("odds", 2)
        assert not found.value.may_stand
        redis.do("CONFIG", "SET", "maxmemory", "0")
        assert publisher.publish("odds", 3).offset == 2


def test_what_was_closed_says_so() -> None:
    publisher = fanwire.Publisher("redis://127.0.0.1:1")
    publisher.close()
    publisher.close()
    with pytest.raises(fanwire.NotPublished, match="was closed"):
        publisher.publish("odds", 1)
    assert repr(publisher) == "<fanwire.Publisher closed>"


@pytest.mark.parametrize(
    ("arguments", "named", "kind", "says"),
    [
        (("http://u:secret@h",), {}, ValueError, "url must be"),
        ((None,), {}, TypeError, "url must be"),
        (("redis://h",), {"prefix": ""}, ValueError, "prefix must be"),
        (("redis://h",), {"timeout": 0}, ValueError, "timeout must be"),
        (("redis://h",), {"channels": 5}, TypeError, "channels must be"),
        (("redis://h",), {"formats": ["xml"]}, ValueError, "formats"),
        (("redis://h",), {"publication_bytes_max": 0}, ValueError, "publication_bytes_max"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(
    arguments: tuple[Any, ...], named: dict[str, Any], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says) as found:
        fanwire.Publisher(*arguments, **named)
    assert "secret" not in str(found.value)


@pytest.mark.parametrize(
    ("arguments", "named", "kind", "says"),
    [
        (("a*", 1), {}, fanwire.InvalidChannel, "must not hold"),
        ((5, 1), {}, TypeError, "channel must be"),
        (("odds", object()), {}, fanwire.UnsupportedType, "object"),
        (("odds", "x" * 2_000_000), {}, fanwire.PayloadTooBig, "publication_bytes_max"),
        (("odds", 1), {"event": "a\nb"}, ValueError, "event must be"),
        (("odds", 1), {"key": "k" * 256}, ValueError, "255"),
        (("odds", 1), {"ttl": 0}, ValueError, "ttl"),
        (("odds", 1), {"ttl": True}, TypeError, "ttl"),
        (("odds", 1), {"idempotency_key": ""}, ValueError, "idempotency_key must be"),
        (("odds", 1), {"idempotency_key": 5}, TypeError, "idempotency_key must be"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_published(
    arguments: tuple[Any, ...], named: dict[str, Any], kind: type[Exception], says: str
) -> None:
    with (
        fanwire.Publisher("redis://127.0.0.1:1", channels=KEEPS, publication_bytes_max=1_000_000) as publisher,
        pytest.raises(kind, match=says),
    ):
        publisher.publish(*arguments, **named)


@needs_redis
def test_of_several_the_one_that_is_wrong_is_named_and_those_before_it_stand(redis: Redis) -> None:
    with fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        with pytest.raises(fanwire.UnsupportedType) as found:
            publisher.publish_many("odds", [1, 2, object(), 4])
        assert "raised by item 2 of publish_many" in found.value.__notes__[0]
        assert publisher.publish("odds", 5).offset == 3
        with pytest.raises(TypeError, match="items must be"):
            publisher.publish_many("odds", "text")


@needs_redis
def test_a_script_ends_though_it_closes_nothing(redis: Redis) -> None:
    program = f"import fanwire; print(fanwire.Publisher({redis.url!r}, channels={{}}).publish('odds', 1).offset)"
    command = [sys.executable, "-W", "ignore", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1\n", "")
