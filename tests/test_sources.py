"""Sources: what is written elsewhere is published, in its order, once, and goes on where it was left."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from fanwire.sources.source import Entry, NoEntry, Source, entry_of
from support.clients import connected
from support.postgres import Postgres, needs_postgres, postgres_server
from support.redis import Redis, needs_redis, redis_server
from support.waiting import until

redis_stream = pytest.importorskip("fanwire.sources.redis_stream")
pytestmark = [
    pytest.mark.anyio,
    # One that is cancelled while it connects is psycopg's own to close, which it leaves to the collector.
    pytest.mark.filterwarnings("ignore:.*AsyncConnection.*:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*AsyncConnection.*deleted while still open:ResourceWarning"),
]

KEEPS = {"*": fanwire.Channel(history=1_000)}


@pytest.fixture
def anyio_backend() -> str:
    """The clients of databases are asyncio's."""
    return "asyncio"


async def kept(redis: Redis, channel: str, epoch: int) -> list[Any]:
    """What a client gets that comes back to a channel from its beginning."""
    hub = fanwire.Hub(KEEPS, backbone=redis.url)
    async with hub.serve("127.0.0.1:0") as serving, connected(serving.address, "/ws") as peer:
        await peer.send_json(subscribe=[channel], since={channel: [epoch, 0]}, id=1)
        answer = await peer.receive_json()
        assert answer["result"]["subscribed"] == [channel]
        got = []
        while not got or got[-1] != ["last"]:
            got.append(await peer.receive_json())
        return got


def add(redis: Redis, **fields: str) -> None:
    """One more entry in the stream."""
    redis.do("XADD", "events", "*", *(word for pair in fields.items() for word in pair))


@asynccontextmanager
async def running(source: Source, to: Any) -> AsyncIterator[None]:
    """While it reads."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, to)
        yield
        tasks.cancel_scope.cancel()


@needs_redis
async def test_a_stream_is_published_in_its_order_and_read_on_where_it_was_left(redis: Redis) -> None:
    for number in range(600):
        add(redis, channel="odds", data=str(number))
    async with fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        source = redis_stream.RedisStream(redis.url, "events")
        async with running(source, publisher):
            await until(lambda: source.stats().published == 600)
        again = redis_stream.RedisStream(redis.url, "events")
        add(redis, channel="odds", data='["the next"]')
        async with running(again, publisher):
            await until(lambda: again.stats().published == 1)
        last = await publisher.apublish("odds", ["last"])
    assert last.offset == 602
    assert await kept(redis, "odds", last.epoch) == [*range(600), ["the next"], ["last"]]


@needs_redis
async def test_what_is_read_twice_is_published_once(redis: Redis) -> None:
    add(redis, channel="odds", data="1")
    async with fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        for _ in range(2):
            source = redis_stream.RedisStream(redis.url, "events")
            async with running(source, publisher):
                await until(lambda source=source: source.stats().published == 1)
            redis.do("DEL", "fanwire:source:events")  # its place was not kept
        assert (await publisher.apublish("odds", "last")).offset == 2


@needs_redis
async def test_each_field_is_what_publish_has_and_what_is_none_is_left_out(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    add(redis, data='{"home":1.85}', event="price", key="1x2", ttl="30", keyframe="true")
    add(redis, dta="1")
    add(redis, data="{")
    add(redis, data="1", channel="other")
    add(redis, text="plain")
    hub = fanwire.Hub(KEEPS)
    async with hub.serve("127.0.0.1:0"), hub.listen("odds") as publications:
        source = redis_stream.RedisStream(redis.url, "events", channel="odds")
        async with running(source, hub):
            first, second = [await anext(publications), await anext(publications)]
            assert (first.data, first.event, first.keyframe) == ({"home": 1.85}, "price", True)
            assert second.data == "plain"
            await until(lambda: source.stats().skipped == 3)
    assert "has 'dta'" in caplog.text and "no JSON" in caplog.text and "names the channel 'other'" in caplog.text


@needs_redis
async def test_a_server_that_goes_and_comes_costs_nothing(redis: Redis) -> None:
    async with fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        source = redis_stream.RedisStream(redis.url, "events")
        async with running(source, publisher):
            add(redis, channel="odds", data="1")
            await until(lambda: source.stats().published == 1)
            redis.kill()
            await until(lambda: source.stats().failures > 0)
            redis.start()
            add(redis, channel="odds", data="2")
            await until(lambda: source.stats().published == 2)


async def test_what_another_attempt_cannot_help_is_raised(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        redis.do("SET", "events", "no stream")
        with anyio.fail_after(60), pytest.raises(Exception, match="WRONGTYPE"):
            await redis_stream.RedisStream(redis.url, "events").run(fanwire.Publisher(redis.url, channels={}))
    with pytest.raises(TypeError, match="a Publisher or a Hub"):
        await redis_stream.RedisStream("redis://127.0.0.1:1", "events").run("hub")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"data": 1}, "names no channel"),
        ({"channel": "a*", "data": 1}, "must not hold"),
        ({"channel": "a"}, "one of data"),
        ({"channel": "a", "data": 1, "text": "x"}, "one of data"),
        ({"channel": "a", "data": 1, "event": "a\nb"}, "event must be"),
        ({"channel": "a", "data": 1, "ttl": -1}, "ttl must be"),
        ({"channel": "a", "data": 1, "keyframe": "perhaps"}, "keyframe"),
        ({"channel": "a", "remove": True}, "names none"),
        ({"channel": "a", "bytes": "text"}, "bytes"),
        ({"channel": "a", "text": 5}, "text must be"),
    ],
)
def test_what_is_no_entry_is_named(values: dict[str, Any], why: str) -> None:
    with pytest.raises(NoEntry, match=why):
        entry_of("1", values, None)


def test_an_entry_has_what_it_says() -> None:
    removal = entry_of("7", {"channel": "a", "key": "k", "remove": "1"}, None)
    assert removal == Entry("7", "a", None, key="k", is_removal=True)
    assert entry_of("7", {"text": "x"}, "a") == Entry("7", "a", "x")


# PostgreSQL


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server with the outbox's tables."""
    outbox = pytest.importorskip("fanwire.sources.postgres")
    psycopg = pytest.importorskip("psycopg")
    with postgres_server() as one:
        with psycopg.connect(one.url) as connection:
            connection.execute(outbox.SCHEMA)
        yield one


@pytest.fixture
def rows(postgres: Postgres) -> Iterator[Any]:
    """A connection to it; the tables are empty."""
    import psycopg

    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("TRUNCATE fanwire_outbox, fanwire_places")
        yield connection


def outbox_of(postgres: Postgres, **options: Any) -> Any:
    """A source."""
    from fanwire.sources.postgres import PostgresOutbox

    return PostgresOutbox(postgres.url, channel="odds", **options)


def insert(connection: Any, *data: Any) -> None:
    """Rows."""
    connection.cursor().executemany("INSERT INTO fanwire_outbox (data) VALUES (%s)", [[str(one)] for one in data])


@asynccontextmanager
async def heard_by_a_hub() -> AsyncIterator[tuple[fanwire.Hub, Any]]:
    """A hub, and what it hears of ``odds``."""
    hub = fanwire.Hub(KEEPS)
    async with hub.serve("127.0.0.1:0"), hub.listen("odds") as publications:
        yield hub, publications


async def next_of(publications: Any, count: int) -> list[Any]:
    """The data of the next."""
    with anyio.fail_after(60):
        return [(await anext(publications)).data for _ in range(count)]


@needs_postgres
async def test_rows_are_published_in_their_order_and_deleted(postgres: Postgres, rows: Any) -> None:
    insert(rows, *range(600))
    async with heard_by_a_hub() as (hub, publications):
        source = outbox_of(postgres)
        async with running(source, hub):
            assert await next_of(publications, 600) == list(range(600))
            insert(rows, 600)
            assert await next_of(publications, 1) == [600]
            await until(lambda: rows.execute("SELECT count(*) FROM fanwire_outbox").fetchone() == (0,))
        again = outbox_of(postgres)
        async with running(again, hub):
            insert(rows, 601)
            assert await next_of(publications, 1) == [601]


@needs_postgres
async def test_what_commits_later_is_not_passed_by_though_it_began_earlier(postgres: Postgres, rows: Any) -> None:
    """By ``id`` alone the row of the slow transaction would be lost: a later one was read before it was there."""
    import psycopg

    async with heard_by_a_hub() as (hub, publications), running(outbox_of(postgres, deletes=False), hub):
        with psycopg.connect(postgres.url) as slow:
            insert(slow, 1)
            insert(rows, 2)
            with anyio.move_on_after(1.5) as scope:  # it is not read: one before it may come
                await anext(publications)
            assert scope.cancelled_caught
            slow.commit()
        assert await next_of(publications, 2) == [1, 2]
        with psycopg.connect(postgres.url) as other:
            insert(other, 3)
            other.rollback()
        insert(rows, 4)
        assert await next_of(publications, 1) == [4]
        assert rows.execute("SELECT count(*) FROM fanwire_outbox").fetchone() == (3,)


@needs_postgres
async def test_of_two_that_run_one_reads_and_the_other_takes_over(postgres: Postgres, rows: Any) -> None:
    one, other = outbox_of(postgres), outbox_of(postgres)
    async with heard_by_a_hub() as (hub, publications), running(other, hub):
        insert(rows, 1)
        assert await next_of(publications, 1) == [1]
        async with running(one, hub):
            insert(rows, 2)
            assert await next_of(publications, 1) == [2]
            await until(lambda: other.stats().published == 2)
            rows.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
            insert(rows, 3)
            assert await next_of(publications, 1) == [3]
            await until(lambda: one.stats().published + other.stats().published == 3)


@needs_postgres
async def test_a_table_that_is_not_there_is_raised(postgres: Postgres) -> None:
    source = outbox_of(postgres)
    source._url = source._url.replace("/postgres?", "/template1?")
    with anyio.fail_after(60), pytest.raises(Exception, match="fanwire_places"):
        await source.run(fanwire.Hub())
