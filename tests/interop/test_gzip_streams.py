"""Event streams that are gzip: each client reads exactly what it is promised, and each event when it is published."""

import base64
import random
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from itertools import islice
from typing import Any

import fanwire
import pytest
from anyio.to_thread import run_sync
from support.clients import settle
from support.gunzipping import Gunzipping, odds
from support.hubs import MakeHub
from support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
ANY = "127.0.0.1:0"
LAST = "the end"
TARGET = "/events?channel=odds"
COMPANY = 3


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """One loop: what the clients hear is the engine's affair."""
    return str(request.param)


def channel(**options: Any) -> fanwire.Channel:
    """A channel that is compressed for one reader, with room for all who are slow."""
    room = {"backlog_bytes": 64 << 20, "backlog_frames": 100_000, "compression_readers": 1}
    return fanwire.Channel(**(room | options))


class Table:
    """A hub that serves, and who listens."""

    def __init__(self, hub: fanwire.Hub, address: str, beside: ExitStack) -> None:
        self.hub, self.address, self.beside = hub, address, beside
        self.told: list[str] = []
        self.feed = odds()

    async def come(self, target: str = TARGET, *, name: str | None = "odds", **options: Any) -> Gunzipping:
        """One more client, which the channel of this name has."""
        before = self.hub.occupancy(name) if name else 0
        client = await run_sync(lambda: Gunzipping(self.address, target, **options))
        self.beside.enter_context(closing(client))
        await until(lambda: name is None or self.hub.occupancy(name) > before)
        return client

    async def tell(self, messages: Iterator[str] | list[str], **options: Any) -> None:
        """Publish, a few before the shard has fanned them out."""
        for number, message in enumerate(messages):
            self.hub.publish("odds", message, **options)
            self.told.append(message)
            if number % 7 == 6:
                await settle(self.hub, self.address)
        await settle(self.hub, self.address)


ACCEPTED = [
    ("gzip", True),
    ("gzip, deflate, br, zstd", True),
    ("GZIP;q=0.001", True),
    ("br;q=1.0, x-gzip;q=0.2", True),
    ("*", True),
    ("*;q=0.5, identity;q=0.5", True),
    ("identity;q=0.3 , gzip ; q=0.3", True),
    (None, False),
    ("", False),
    ("br", False),
    ("identity", False),
    ("gzip;q=0", False),
    ("gzip;q=0.000, *", False),
    ("*;q=0", False),
    ("gzip;q=0.4, identity;q=0.5", False),
    ("gzip;q=none", False),
    ("gzip;q=1.0001", False),
    ("gzip;level=9", False),
]


async def test_who_accepts_it_gets_it(make_hub: MakeHub) -> None:
    """q-values are obeyed, and the answer says what it is."""
    hub = make_hub({"odds": channel(), "plain": channel(compression=False), "kept:*": channel(history=5)})
    async with hub.serve(ANY, shards=1) as serving:
        with ExitStack() as beside:
            table = Table(hub, serving.address, beside)
            clients = [(await table.come(accepts=accepts), is_gzip) for accepts, is_gzip in ACCEPTED]
            await table.tell([LAST])
            for client, is_gzip in clients:
                assert client.is_gzip == is_gzip, client.head
                assert ("no-transform" in client.head) == ("\r\nVary: Accept-Encoding\r\n" in client.head) == is_gzip
                assert await run_sync(client.read_to, LAST) == [LAST]
            others = ["/events?channel=plain", "/events?channel=kept:1&channel=kept:2"]
            others.append("/events?channel=odds&filter=league%3D%22seriea%22")
            for target in others:
                assert not (await table.come(target, name=None)).is_gzip, target


async def test_a_hub_may_want_none(make_hub: MakeHub) -> None:
    hub = make_hub({"odds": channel()}, gzip=False)
    async with hub.serve(ANY, shards=1) as serving:
        with ExitStack() as beside:
            assert not (await Table(hub, serving.address, beside).come()).is_gzip


async def test_all_hear_the_same_from_where_they_came_and_hardly_any_bytes(make_hub: MakeHub) -> None:
    """Newcomers go on to what all share; at last a tenth of the bytes is left."""
    hub = make_hub({"odds": channel()})
    async with hub.serve(ANY, shards=1) as serving:
        with ExitStack() as beside:
            table = Table(hub, serving.address, beside)
            clients: list[tuple[int, Gunzipping]] = []
            for _ in range(5):
                clients.append((len(table.told), await table.come()))
                await table.tell(islice(table.feed, 60))
            plain = await table.come(accepts="identity")
            await table.tell(["small", "", *islice(table.feed, 150), "x" * (300 << 10), *islice(table.feed, 200)])
            for first, client in clients:
                await run_sync(client.read_to, table.told[-1])
                assert client.data == table.told[first:]
            await run_sync(plain.read_to, table.told[-1])
            before = [client.wire_bytes for _, client in clients], plain.wire_bytes
            await table.tell([*islice(table.feed, 100), LAST])
            for (first, client), begun in zip(clients, before[0], strict=True):
                assert await run_sync(client.read_to, LAST) == table.told[first:]
                share = (client.wire_bytes - begun) / (sum(map(len, table.told[-101:])) + 101 * len("data: \n\n"))
                assert share < 0.25, share


async def test_what_a_client_gets_alone_disturbs_nobody(make_hub: MakeHub) -> None:
    """Private messages, comments, excluded clients, publications whose time is over."""
    hub = make_hub({"odds": channel()}, ping_interval=0.2)
    chance = random.Random(5)
    clients: list[fanwire.Client] = []
    hub.on_connect(lambda client: clients.append(client) if client.request.path == "/events" else None)
    async with hub.serve(ANY, shards=1) as serving:
        with ExitStack() as beside:
            table = Table(hub, serving.address, beside)
            streams = []
            for number in range(COMPANY):
                streams.append(await table.come())
                await until(lambda: len(clients) == number + 1)  # noqa: B023
            heard: list[list[str]] = [[] for _ in streams]
            private: list[list[str]] = [[] for _ in streams]
            for turn in range(300):
                text = next(table.feed) if turn % 20 else chance.randbytes(700).hex()
                left_out = turn % COMPANY if turn % 9 == 0 else None
                excluded = [] if left_out is None else [clients[left_out]]
                hub.publish("odds", text, exclude=excluded, ttl=60 if turn % 25 == 0 else None)
                for place, one in enumerate(heard):
                    if place != left_out:
                        one.append(text)
                if turn % 31 == 0:
                    place = turn % COMPANY
                    private[place].append(f"private {turn} {text}")
                    clients[place].send(private[place][-1])
                if turn % 5 == 0:
                    await settle(hub, serving.address)
            for stream in streams:  # silent for so long that there are comments
                before = stream.comments
                await run_sync(stream.read_until, lambda: stream.comments > before + 1)  # noqa: B023
            hub.publish("odds", LAST)
            for stream, one, own in zip(streams, heard, private, strict=True):
                await run_sync(stream.read_to, LAST)
                assert [text for text in stream.data if not text.startswith("private")] == [*one, LAST]
                assert [text for text in stream.data if text.startswith("private")] == own


@pytest.mark.parametrize("history", [0, 50])
async def test_a_stream_of_several_channels_reads_each(make_hub: MakeHub, history: int) -> None:
    """The application adds channels while it is under way; where events have ids, the last says where it is in all."""
    hub = make_hub({"*": channel(history=history)})
    clients: list[fanwire.Client] = []
    hub.on_connect(lambda client: clients.append(client) if client.request.path == "/events" else None)
    async with hub.serve(ANY, shards=1) as serving:
        with ExitStack() as beside:
            table = Table(hub, serving.address, beside)
            stream, other = await table.come(), await table.come()
            await until(lambda: len(clients) == 2)
            await table.tell(islice(table.feed, 40))
            names = ["odds"]
            heard = {"odds": list(table.told)}
            for name in ("scores", "cards"):
                hub.subscribe(clients[0], name)
                names.append(name)
                heard[name] = []
                for text in islice(table.feed, 60):
                    for one in names:
                        hub.publish(one, f"{one} {text}")
                        heard[one].append(f"{one} {text}")
                    await settle(hub, serving.address)
            hub.publish("cards", LAST)
            hub.publish("odds", LAST)
            await run_sync(stream.read_until, lambda: stream.data.count(LAST) == 2)
            for name in names[1:]:
                assert [text for text in stream.data if text.startswith(name)] == heard[name]
            assert [text for text in stream.data if text in set(heard["odds"])] == heard["odds"]
            assert await run_sync(other.read_to, LAST) == [*heard["odds"], LAST]
            if history:
                ids = stream.events[-1]["id"][-1]
                assert ids.count(",") == 2
                returning = {"Last-Event-ID": ids}
                target = "/events?" + "&".join(f"channel={name}" for name in names)
                back = await table.come(target, **returning)
                hub.publish("scores", "behind it")
                await run_sync(back.read_to, "behind it")
                assert back.data == ["behind it"]


@pytest.mark.parametrize("start", ["history", "keyframe"])
async def test_who_begins_with_what_is_kept_reads_it_and_what_follows(make_hub: MakeHub, start: str) -> None:
    hub = make_hub({"odds": channel(start=start, history=100)})
    async with hub.serve(ANY, shards=1) as serving:
        with ExitStack() as beside:
            table = Table(hub, serving.address, beside)
            clients = []
            for _ in range(4):
                await table.tell(islice(table.feed, 10))
                await table.tell([next(table.feed)], keyframe=True)
                await table.tell(islice(table.feed, 60))
                clients.append(await table.come())
            await table.tell([*islice(table.feed, 120), LAST])
            for client in clients:
                data = await run_sync(client.read_to, LAST)
                assert data == table.told[-len(data) :]
                assert len(data) > 121
                position = client.events[-20]["id"][-1]
                back = await table.come(**{"Last-Event-ID": position})
                await run_sync(back.read_to, LAST)
                assert back.data == table.told[-19:]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["every", "latest", "keyframe", "drop"])
async def test_who_stalls_and_comes_back_reads_what_its_policy_promises(make_hub: MakeHub, policy: str) -> None:
    hub = make_hub({"odds": channel(policy=policy, backlog_bytes=(64 if policy == "every" else 2) << 20)})
    chance = random.Random(3)
    async with hub.serve(ANY, shards=1) as serving:
        with ExitStack() as beside:
            table = Table(hub, serving.address, beside)
            for _ in range(COMPANY):
                await table.come(receive_buffer=1 << 22)
            stalled = await table.come(receive_buffer=8_192)
            await table.tell(islice(table.feed, 100))
            for turn in range(2):
                for number in range(80):
                    noise = base64.b64encode(chance.randbytes(90_000)).decode()
                    for text, key in ((noise, number % 7), (next(table.feed), number % 5)):
                        hub.publish("odds", text, key=f"{key}", keyframe=policy == "keyframe")
                        table.told.append(text)
                    if number % 10 == 9:
                        await settle(hub, serving.address)
                marks = [f"turn {turn}"]
                reading = Reading(stalled, marks)
                while not await run_sync(reading.has_come):
                    await table.tell(marks, key="mark", keyframe=policy == "keyframe")
                await table.tell(islice(table.feed, 100), key="feed")
            left = iter(table.told)
            assert all(text in left for text in stalled.data), "each once, in order"
            if policy == "every":
                assert stalled.data == table.told[: len(stalled.data)]


class Reading:
    """A client that reads what is there until one of these messages has come."""

    def __init__(self, client: Gunzipping, marks: list[str]) -> None:
        self._client, self._marks = client, set(marks)

    def has_come(self) -> bool:
        """Reads, for a moment."""
        self._client.socket.settimeout(0.2)
        with suppress(TimeoutError):
            self._client.read_more()
        return any(text in self._marks for text in self._client.data[-3:])


async def test_what_goes_to_a_user_disturbs_nobody(make_hub: MakeHub) -> None:
    """Who is known has a channel of its own beside: what comes there parts it from others, for a while."""
    hub = make_hub({"odds": channel()})

    @hub.authenticate
    def who(request: fanwire.Request) -> fanwire.Identity:
        return fanwire.Identity(request.query.get("user", "nobody"))

    async with hub.serve(ANY, shards=1) as serving:
        with ExitStack() as beside:
            table = Table(hub, serving.address, beside)
            streams = [await table.come(f"{TARGET}&user=u{number}") for number in range(COMPANY)]
            own: list[list[str]] = [[] for _ in streams]
            for turn in range(200):
                hub.publish("odds", next(table.feed))
                if turn % 67 == 50:
                    place = turn % COMPANY
                    own[place].append(f"own {turn} {table.told[-1:]}")
                    hub.publish_to_user(f"u{place}", own[place][-1])
                if turn % 4:
                    await settle(hub, serving.address)
            hub.publish("odds", LAST)
            every = list(islice(odds(), 200))
            for stream, texts in zip(streams, own, strict=True):
                await run_sync(stream.read_until, lambda: stream.data[-1:] and LAST in stream.data)  # noqa: B023
                await run_sync(stream.read_until, lambda: len(stream.data) == 201 + len(texts))  # noqa: B023
                assert [text for text in stream.data if not text.startswith("own")] == [*every, LAST]
                assert [text for text in stream.data if text.startswith("own")] == texts
                assert stream.wire_bytes < 0.35 * sum(map(len, every)), "they share a window in between"
