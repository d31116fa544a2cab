"""A subject of NATS as a source: what a stream keeps of it, in its order, or what is published while it is heard."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from fanwire.sources.source import NoEntry
from support.nats import Nats, nats_server, needs_nats
from support.redis import Redis, needs_redis
from support.waiting import until

nats = pytest.importorskip("nats")
from fanwire.sources.nats import NatsSubject, key_of  # noqa: E402

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
KEEPS = {"*": fanwire.Channel(history=1_000)}


@pytest.fixture
def anyio_backend() -> str:
    """The client of NATS is asyncio's."""
    return "asyncio"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nats]:
    """A server."""
    folder = tmp_path / "nats"
    folder.mkdir()
    with nats_server(folder) as one:
        yield one


@asynccontextmanager
async def jetstream_of(server: Nats, **stream: Any) -> AsyncIterator[Any]:
    """A client of it, and a stream for ``odds.>``."""
    client = await nats.connect(server.url, allow_reconnect=False, error_cb=ignore)
    try:
        jetstream = client.jetstream()
        await jetstream.add_stream(name="events", subjects=["odds.>"], **stream)
        yield jetstream
    finally:
        await client.close()


async def ignore(error: Exception) -> None:
    """A connection that is lost here is meant to be."""


@asynccontextmanager
async def heard(channel: str, hub: fanwire.Hub | None = None) -> AsyncIterator[tuple[fanwire.Hub, Any]]:
    """A hub, and what it hears of a channel."""
    hub = hub or fanwire.Hub(KEEPS)
    async with hub.serve("127.0.0.1:0"), hub.listen(channel) as publications:
        yield hub, publications


@asynccontextmanager
async def running(source: NatsSubject, to: Any) -> AsyncIterator[None]:
    """While it reads."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, to)
        yield
        tasks.cancel_scope.cancel()


async def data_of(publications: Any, count: int) -> list[Any]:
    """The data of the next ones."""
    return [(await anext(publications)).data for _ in range(count)]


@needs_nats
async def test_a_stream_is_published_in_its_order_and_read_on_where_it_was_left(server: Nats) -> None:
    async with jetstream_of(server) as jetstream, heard("match") as (hub, publications):
        for number in range(600):
            await jetstream.publish("odds.7", b'{"channel":"match","data":%d}' % number)
        source = NatsSubject(server.url, "odds.>", stream="events")
        async with running(source, hub):
            assert await data_of(publications, 600) == [*range(600)]
            await until(lambda: source.stats().published == 600)
        assert source.stats().place is not None and source.number_of(source.stats().place) == 600
        await jetstream.publish("odds.7", b'{"channel":"match","data":"next"}')
        again = NatsSubject(server.url, "odds.>", stream="events")
        async with running(again, hub):
            assert await data_of(publications, 1) == ["next"]
        await jetstream.publish("odds.7", b'{"channel":"match","data":"all"}')
        other = NatsSubject(server.url, "odds.>", stream="events", name="other hub's")
        async with running(other, hub):
            assert await data_of(publications, 602) == [*range(600), "next", "all"]


@needs_nats
@needs_redis
async def test_what_is_read_twice_is_published_once(server: Nats, redis: Redis) -> None:
    async with jetstream_of(server) as jetstream, fanwire.Publisher(redis.url, channels=KEEPS) as publisher:
        await jetstream.publish("odds.7", b'{"channel":"match","data":1}')
        for _ in range(2):
            source = NatsSubject(server.url, "odds.>", stream="events")
            async with running(source, publisher):
                await until(lambda source=source: source.stats().published == 1)
            await (await jetstream.key_value("fanwire_places")).purge(key_of("odds.>"))  # its place was not kept
        assert (await publisher.apublish("match", "last")).offset == 2


@needs_nats
async def test_a_server_that_goes_and_comes_costs_nothing(server: Nats) -> None:
    async with heard("match") as (hub, publications):
        source = NatsSubject(server.url, "odds.>", stream="events")
        async with jetstream_of(server) as jetstream:
            await jetstream.publish("odds.7", b'{"channel":"match","data":1}')
            async with running(source, hub):
                assert await data_of(publications, 1) == [1]
                await until(lambda: source.stats().published == 1)
                server.kill()
                await until(lambda: source.stats().failures > 0 and not source.stats().is_reading)
                server.start()
                async with jetstream_of(server) as back:
                    await back.publish("odds.7", b'{"channel":"match","data":2}')
                    assert await data_of(publications, 1) == [2]


@needs_nats
async def test_a_stream_that_was_made_anew_is_read_from_its_beginning(
    server: Nats, caplog: pytest.LogCaptureFixture
) -> None:
    async with jetstream_of(server) as jetstream, heard("match") as (hub, publications):
        for number in range(3):
            await jetstream.publish("odds.7", b'{"channel":"match","data":%d}' % number)
        source = NatsSubject(server.url, "odds.>", stream="events")
        async with running(source, hub):
            await until(lambda: source.stats().published == 3)
        await data_of(publications, 3)
        await jetstream.delete_stream("events")
        async with jetstream_of(server) as new:
            await new.publish("odds.7", b'{"channel":"match","data":"first"}')
            again = NatsSubject(server.url, "odds.>", stream="events")
            async with running(again, hub):
                assert await data_of(publications, 1) == ["first"]
    assert "was made anew: it begins at 0" in caplog.text


@needs_nats
async def test_a_stream_that_is_deleted_while_it_is_read_is_raised(server: Nats) -> None:
    async with jetstream_of(server) as jetstream, heard("match") as (hub, publications):
        source = NatsSubject(server.url, "odds.>", stream="events")
        await jetstream.publish("odds.7", b'{"channel":"match","data":1}')
        with anyio.fail_after(30), pytest.raises(ExceptionGroup) as raised:
            async with running(source, hub):
                await data_of(publications, 1)
                await jetstream.delete_stream("events")
                await anyio.sleep_forever()
        assert "stream not found" in str(raised.value.exceptions[0])


@needs_nats
async def test_without_a_stream_it_is_what_is_published_while_it_is_heard(server: Nats) -> None:
    client = await nats.connect(server.url)
    async with heard("odds.7") as (hub, publications):
        source = NatsSubject(server.url, "odds.>", payload="data")
        async with running(source, hub):
            await until(lambda: source.stats().is_reading)
            for number in range(300):
                await client.publish("odds.7", b"%d" % number)
            assert await data_of(publications, 300) == [*range(300)]
    await client.close()


def test_a_message_is_an_entry_or_one_of_its_names() -> None:
    url = "nats://127.0.0.1:1"
    whole = NatsSubject(url, "odds.>")
    assert whole.entry("1-1", "odds.7", b'{"channel":"a","text":"x","key":"k"}').key == "k"
    text = NatsSubject(url, "odds.>", payload="text").entry("1-1", "odds.7", b"1.85")
    assert (text.channel, text.data) == ("odds.7", "1.85")
    raw = NatsSubject(url, "odds.>", payload="bytes", channel="all").entry("1-1", "odds.7", b"\xff")
    assert (raw.channel, raw.data) == ("all", b"\xff")
    for source, data, why in (
        (whole, b"[]", "no object"),
        (whole, b"{", "no JSON"),
        (whole, b'{"text":"x"}', "names no channel"),
        (NatsSubject(url, "odds.>", payload="text"), b"\xff", "no text"),
        (NatsSubject(url, "odds.>", payload="data"), b"x", "no JSON"),
    ):
        with pytest.raises(NoEntry, match=why):
            source.entry("1-1", "odds.7", data)
    with pytest.raises(ValueError, match="payload must be one of entry, data, text, bytes"):
        NatsSubject(url, "odds.>", payload="json")  # type: ignore[arg-type]


@needs_nats
async def test_a_wrong_password_is_raised_and_no_server_is_tried_again(tmp_path: Path) -> None:
    one = Nats(
        tmp_path, 'no_auth_user: anyone\nauthorization { users: [{user: anyone}, {user: app, password: "right"}] }'
    )
    try:
        async with heard("match") as (hub, _):
            wrong = NatsSubject(f"nats://app:wrong@127.0.0.1:{one.port}", "odds.>")
            with anyio.fail_after(20), pytest.raises(Exception, match=r"(?i)authorization"):
                await wrong.run(hub)
            one.kill()
            gone = NatsSubject(one.url, "odds.>")
            async with running(gone, hub):
                await until(lambda: gone.stats().failures > 1)
    finally:
        one.kill()
