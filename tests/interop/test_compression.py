"""Stock clients that offer permessage-deflate (RFC 7692) hear exactly what is published, in order.

That holds whether fanwire compresses or not. Where it agrees to, messages have to come compressed as well.
"""

import base64
import itertools
import json
import random
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from support.clients import settle
from support.deflating import COMPANY, COMPRESSES, TAIL, Deflating, Inflater, Message, Stream, Undecodable, company, tap
from support.hubs import MakeHub
from support.jdk import JAVA, NO_JAVA, jdk
from support.listeners import KINDS, Kind, digest
from support.reading import leaving
from support.waiting import until

try:
    from zlib_ng import zlib_ng
except ImportError:
    zlib_ng = None

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """One loop: what the clients hear is the engine's affair."""
    return str(request.param)


ANY = "127.0.0.1:0"
LAST = "the end"
LARGE = 1 << 20
TOGETHER = 10
"""So many are published before the shard has fanned them out."""
ROOM: dict[str, Any] = {"backlog_bytes": 64 << 20, "backlog_frames": 100_000}


def odds(seed: int = 7) -> Iterator[str]:
    """Messages of some 300 bytes, for ever, of which much stands in those before; the same for a seed."""
    chance = random.Random(seed)
    for number in itertools.count():
        prices = {name: round(1 + chance.random() * 8, 2) for name in ("home", "draw", "away", "over", "under")}
        match = {
            "id": f"BR-2026-{9_000 + number % 20}",
            "minute": number % 90,
            "prices": prices,
            "market": "Match Result",
        }
        yield json.dumps({"target": "OddsChanged", "arguments": [match], "sender": "a bookmaker's back office"})


def is_last(message: Message) -> bool:
    """Whether nothing follows."""
    return message == LAST


def channel(**options: Any) -> fanwire.Channel:
    """A channel whose messages are compressed where the engine knows how, with room for all who are slow."""
    compression = {"compression": True, "compression_readers": 1} if COMPRESSES else {}
    return fanwire.Channel(**(ROOM | compression | options))


def extremes() -> list[Message]:
    """Empty ones, tiny ones, what cannot be compressed, and what is as large as may be."""
    chance = random.Random(3)
    repeated, large = b"\x00\x01" * (LARGE // 2), chance.randbytes(LARGE)
    return ["", b"", "a", b"\x00", chance.randbytes(40), chance.randbytes(5_000), "ë" * 3_000, repeated, large, b"", ""]


def story(length: int) -> list[Message]:
    """`length` changed odds with all extremes among them, the last of them 80 before the end."""
    found: list[Message] = list(islice(odds(), length))
    for place, message in enumerate(extremes()):
        found.insert(length // 3 + place * 7, message)
    return found


class Telling:
    """Publishes and counts; what was published until now is what somebody who comes will not hear."""

    def __init__(self, hub: fanwire.Hub, name: str = "odds") -> None:
        self.hub, self.name = hub, name
        self.company = 0
        self.told: list[Message] = []
        self.clients: list[fanwire.Client] = []
        hub.on_connect(self.clients.append)

    async def joined(self, count: int) -> int:
        """Wait for so many clients; gives how many publications the newest will not hear."""
        count += self.company
        await until(lambda: self.hub.occupancy(self.name) == count <= len(self.clients))
        return len(self.told)

    async def tell(self, address: str, messages: list[Message]) -> None:
        """Publish, a few at a time."""
        for place in range(0, len(messages), TOGETHER):
            for message in messages[place : place + TOGETHER]:
                self.hub.publish(self.name, message)
                self.told.append(message)
            await settle(self.hub, address)

    def whisper(self, text: str) -> str:
        """Send each client a message of its own."""
        for client in self.clients:
            client.send(text)
        return text


def check(streams: list[Stream], *, asks_to_forget: bool) -> None:
    """Each has agreed where it must, and then had compressed messages: hardly any after the first was not."""
    for stream in streams:
        assert stream.agreement is not None or not COMPRESSES, stream.head
        assert stream.agreement is None or any(stream.compressed)
        assert not asks_to_forget or not stream.agreement or "server_no_context_takeover" in stream.agreement


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
async def test_a_stock_client_hears_all_from_where_it_came(make_hub: MakeHub, kind: Kind, tmp_path: Path) -> None:
    """Early, late, and as one of two channels on one connection; with private messages in between."""
    hub = make_hub({"odds": channel(), "scores": channel()})
    messages, scores = story(240), [f"score {number}" for number in range(40)]
    private: list[str] = []
    telling = Telling(hub)
    # Leaving a listener of threads or processes may wait, so all of it is entered and left beside the loop.
    with ExitStack() as stack:
        async with hub.serve(ANY, shards=1) as serving:
            await run_sync(stack.enter_context, company(serving.address, "/ws?channel=odds"))
            telling.company = COMPANY
            tapped = stack.enter_context(tap(serving.address))
            listening = kind.listening(digest(LAST), tmp_path)
            open_one = await run_sync(stack.enter_context, listening)
            url = f"ws://{tapped.address}/ws?channel=odds"
            early = await run_sync(open_one, url)
            assert await telling.joined(1) == 0
            await telling.tell(serving.address, messages[:15])
            private.append(telling.whisper("private: early"))
            late = await run_sync(open_one, url)
            await telling.joined(2)
            both = await run_sync(open_one, f"{url}&channel=scores")
            missed = await telling.joined(3)
            for place in range(15, len(messages), 25):
                await telling.tell(serving.address, messages[place : place + 25])
                hub.publish("scores", scores[len(private)])
                private.append(telling.whisper(f"private: {place} " + "x" * place))
            # The last that is published may overtake what is private, and nobody listens after it.
            await until(lambda: all(private[-1] in stream.messages for stream in tapped.streams()))
            await telling.tell(serving.address, [LAST])
            heard = [await run_sync(wait) for wait in (early, late, both)]
    scored = [digest(text) for text in scores[1 : len(private)]]
    whispered = [digest(text) for text in private]
    published = [digest(message) for message in telling.told]
    for one, first, of_its_own, beside in zip(
        heard, (0, missed, missed), (whispered, whispered[1:], whispered[1:]), ([], [], scored), strict=True
    ):
        assert [text for text in one if text not in {*whispered, *scored}] == published[first:]
        assert [text for text in one if text in set(whispered)] == of_its_own
        assert [text for text in one if text in set(scored)] == beside
    check(tapped.streams(), asks_to_forget=kind.asks_to_forget)
    for stream, one in zip(tapped.streams(), heard, strict=True):
        assert [digest(message) for message in stream.messages][: len(one)] == one


MODULES = [
    pytest.param(zlib, id="zlib"),
    pytest.param(zlib_ng, id="zlib-ng", marks=pytest.mark.skipif(zlib_ng is None, reason="zlib-ng is not installed")),
]


@pytest.mark.parametrize("module", MODULES)
def test_the_inflater_of_these_tests_is_strict(module: ModuleType) -> None:
    """A distance beyond the window, the end of a stream and bytes that are none of deflate's are seen."""
    data = random.Random(1).randbytes(1_500)

    def deflated(bits: int, mode: int) -> bytes:
        stream = zlib.compressobj(9, zlib.DEFLATED, -bits)
        return (stream.compress(data * 2) + stream.flush(mode)).removesuffix(TAIL)

    for bits in range(9, 16):
        within = Inflater(bits, takes_over=True, module=module)
        assert [within.inflate(deflated(bits, zlib.Z_FULL_FLUSH)) for _ in range(2)] == [data * 2] * 2
    for wrong, bits in ((deflated(11, zlib.Z_SYNC_FLUSH), 10), (deflated(9, zlib.Z_FINISH), 9), (b"\xff" * 9, 15)):
        with pytest.raises(Undecodable):
            Inflater(bits, takes_over=True, module=module).inflate(wrong)


OFFERS = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; server_no_context_takeover; client_max_window_bits=9",
    *(f"permessage-deflate; server_max_window_bits={bits}" for bits in range(9, 16)),
    *(f"permessage-deflate; server_no_context_takeover; server_max_window_bits={bits}" for bits in range(9, 16)),
    "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=11",
    'x-unknown; a=1, permessage-deflate; server_max_window_bits="14"; client_max_window_bits=8',
]
NOT_AGREED = [
    "",
    "x-webkit-deflate-frame",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; client_max_window_bits=16",
    "permessage-deflate; unknown",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover=1",
]


def asked_for(offer: str, name: str) -> bool:
    """Whether the offer that was taken has that parameter: of several the last is the one that can be."""
    return name in offer.rpartition(",")[2]


@pytest.fixture(params=[*MODULES, pytest.param(None, id="jdk", marks=pytest.mark.skipif(JAVA is None, reason=NO_JAVA))])
def inflating(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """What inflates: zlib, zlib-ng, or the JDK, which keeps no smaller window than of 15 bits."""
    if request.param is not None:
        yield request.param
        return
    with jdk() as module:
        yield module


async def test_each_window_is_kept_to(make_hub: MakeHub, inflating: ModuleType) -> None:
    """Of every size, from the beginning and from the middle; no distance is longer than was agreed."""
    hub = make_hub({"odds": channel()})
    messages, telling = story(300), Telling(hub)
    async with hub.serve(ANY, shards=1) as serving:

        def come(offers: list[str]) -> list[Deflating]:
            return [Deflating(serving.address, "/ws?channel=odds", offer, module=inflating) for offer in offers]

        early = await run_sync(come, [*OFFERS, *NOT_AGREED])
        await telling.joined(len(early))
        await telling.tell(serving.address, messages[:40])
        late = await run_sync(come, OFFERS)
        missed = await telling.joined(len(early) + len(late))
        await telling.tell(serving.address, [*messages[40:], LAST])
        for one in (*early, *late):
            stream = await run_sync(one.read_until, is_last)
            one.close()
            assert stream.messages == telling.told[missed if one in late else 0 :], one.offer
            if one.offer not in OFFERS:
                assert stream.agreement is None, (one.offer, stream.head)
                continue
            check([stream], asks_to_forget=asked_for(one.offer, "server_no_context_takeover"))
            keeps_to(one.offer, stream)


def keeps_to(offer: str, stream: Stream) -> None:
    """What is granted is what was asked for (RFC 7692 §7.1)."""
    if stream.agreement is None:
        return
    granted = stream.agreement
    assert ("client_max_window_bits" in granted) <= asked_for(offer, "client_max_window_bits"), (offer, granted)
    if "server_max_window_bits=" in (taken := offer.rpartition(",")[2]):
        bits = int(taken.partition("server_max_window_bits=")[2].partition(";")[0].strip('"'))
        assert (granted["server_max_window_bits"] or 15) <= bits, (offer, granted)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [9, 12, 15])
@pytest.mark.parametrize("policy", ["every", "latest", "keyframe", "drop"])
async def test_who_stalls_and_comes_back_decodes_what_its_policy_promises(
    make_hub: MakeHub, policy: str, bits: int
) -> None:
    hub = make_hub({"odds": channel(policy=policy, backlog_bytes=(64 if policy == "every" else 2) << 20)})
    chance, feed, told = random.Random(bits), odds(), list[Message]()
    offer = f"permessage-deflate; server_max_window_bits={bits}"

    async def tell(message: Message, key: int = 0) -> None:
        hub.publish("odds", message, key=f"{key}", keyframe=policy == "keyframe")
        told.append(message)

    async with hub.serve(ANY, shards=1) as serving:
        stalled = await run_sync(slow(serving.address, offer, 8_192))
        await until(lambda: hub.occupancy("odds") == 1)
        with ExitStack() as beside, leaving(stalled):
            await run_sync(beside.enter_context, company(serving.address, "/ws?channel=odds"))
            await until(lambda: hub.occupancy("odds") == 1 + COMPANY)
            for message in islice(feed, 100):
                await tell(message)
                await settle(hub, serving.address)
            for turn in range(3):
                for number in range(80):  # 7 MB when compressed, more than its socket takes
                    await tell(base64.b64encode(chance.randbytes(90_000)), number % 7)
                    await tell(next(feed), number % 5)
                    if number % 10 == 9:
                        await settle(hub, serving.address)
                await caught_up(stalled, f"{turn} ", tell, partial(settle, hub, serving.address))
                for message in islice(feed, 100):
                    await tell(message)
                await settle(hub, serving.address)
    stream = stalled.stream
    check([stream], asks_to_forget=False)
    left = iter(told)
    assert all(message in left for message in stream.messages), "each once, in order"
    if policy == "every":
        assert stream.messages == told[: len(stream.messages)]


async def caught_up(
    client: Deflating, mark: str, tell: Callable[[str], Awaitable[None]], settled: Callable[[], Awaitable[None]]
) -> None:
    """Have the client read on; while it is behind, its policy may leave out what is published: so until it is not."""
    is_read = anyio.Event()

    async def read() -> None:
        await run_sync(client.read_until, lambda message: str(message).startswith(mark))
        is_read.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        number = 0
        while not is_read.is_set():
            await tell(f"{mark}{number}")
            await settled()
            number += 1


def slow(address: str, offer: str, receive_buffer: int | None) -> Callable[[], Deflating]:
    """What makes a client with a socket that takes so much."""
    return lambda: Deflating(address, "/ws?channel=odds", offer, receive_buffer=receive_buffer)


async def test_what_is_not_for_everyone_disturbs_nobody(make_hub: MakeHub) -> None:
    """Excluded clients, publications whose time is over, and several channels with more and less in common."""
    names = ["odds", "scores", "cards"]
    hub = make_hub({name: channel() for name in names})
    feeds = {name: odds(seed) for seed, name in enumerate(names)}
    telling = Telling(hub)
    async with hub.serve(ANY, shards=1) as serving:
        wanted = [names[:1], names, names[1:], [names[2], names[0]]]

        def come(some: list[str]) -> Deflating:
            return Deflating(serving.address, "/ws?channel=" + "&channel=".join(some), "permessage-deflate")

        clients = []
        for some in wanted:  # one after the other, so that it is known which is which
            clients.append(await run_sync(come, some))
            await until(lambda: len(telling.clients) == len(clients))
        await until(lambda: [hub.occupancy(name) for name in names] == [3, 2, 3])
        expected: list[dict[str, list[Message]]] = [{name: [] for name in some} for some in wanted]
        with ExitStack() as beside, leaving(*clients):
            target = "/ws?channel=" + "&channel=".join(names)
            await run_sync(beside.enter_context, company(serving.address, target))
            await until(lambda: [hub.occupancy(name) - COMPANY for name in names] == [3, 2, 3])
            for turn in range(150):
                for name in names[: 1 + turn % 3]:
                    text = f"{name} {next(feeds[name])}"
                    left_out = turn % len(wanted) if turn % 7 == 0 else None
                    excluded = [] if left_out is None else [telling.clients[left_out]]
                    hub.publish(name, text, exclude=excluded, ttl=60 if turn % 5 == 0 else None)
                    for place, one in enumerate(expected):
                        if name in one and place != left_out:
                            one[name].append(text)
                if turn % 4 == 0:
                    await settle(hub, serving.address)
            for name in names:
                hub.publish(name, f"{name} {LAST}")
            for client, one in zip(clients, expected, strict=True):
                for name, texts in one.items():
                    texts.append(f"{name} {LAST}")
                stream = client.stream
                while sum(map(len, one.values())) > len(stream.messages):
                    await run_sync(client.read_more)
                heard = {name: [text for text in stream.messages if str(text).startswith(name)] for name in one}
                assert heard == one
                check([stream], asks_to_forget=False)


@pytest.mark.skipif(not COMPRESSES, reason="the engine does not compress")
async def test_of_two_channels_the_one_that_brings_more_is_compressed(make_hub: MakeHub) -> None:
    """The first that was watched is silent: the window goes to the other, and back where that changes."""
    hub = make_hub({"*": channel()})
    feed = odds()
    async with hub.serve(ANY, shards=1) as serving:
        target = "/ws?channel=first&channel=second"
        client = await run_sync(Deflating, serving.address, target, "permessage-deflate")
        with leaving(client):
            await until(lambda: hub.occupancy("second") == 1)
            for busy in ("second", "first", "second"):
                begun = len(client.stream.compressed)
                while not any(client.stream.compressed[begun:]):
                    hub.publish(busy, next(feed))
                    await run_sync(client.read_more)


@pytest.mark.parametrize("start", ["history", "keyframe"])
async def test_who_begins_with_what_is_kept_decodes_it_and_what_follows(make_hub: MakeHub, start: str) -> None:
    hub = make_hub({"odds": channel(start=start, history=100)})
    offers = [
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; server_max_window_bits=12",
        OFFERS[1],
    ]
    feed = odds()
    async with hub.serve(ANY, shards=1) as serving:
        told: list[Message] = []

        async def tell(count: int) -> None:
            for place, message in enumerate(islice(feed, count)):
                hub.publish("odds", message, keyframe=place == 10)
                told.append(message)
            await settle(hub, serving.address)

        clients: list[Deflating] = []
        with ExitStack() as stack:
            for offer in offers * 2:
                await tell(60)
                clients.append(await run_sync(slow(serving.address, offer, None)))
                stack.enter_context(leaving(clients[-1]))
                await until(lambda: hub.occupancy("odds") == len(clients))
                await settle(hub, serving.address)  # it counts before it has begun
            await tell(120)
            hub.publish("odds", LAST)
            told.append(LAST)
            for client in clients:
                stream = await run_sync(client.read_until, is_last)
                assert stream.messages == told[-len(stream.messages) :]
                assert len(stream.messages) > 121
                check([stream], asks_to_forget=False)


TWELVE = "permessage-deflate; server_max_window_bits=12"
FORGETS = "permessage-deflate; server_no_context_takeover"


async def test_who_has_missed_some_has_to_get_as_much_again(make_hub: MakeHub) -> None:
    """Who leaves a channel and comes back has no window from before, and gets nothing that refers to what it missed."""
    hub = make_hub({"odds": channel()})
    feed, chance, telling = odds(), random.Random(11), Telling(hub)
    target = "/ws?channel=odds"
    async with hub.serve(ANY, shards=1) as serving:
        with ExitStack() as beside:
            for offer in (OFFERS[0], TWELVE, FORGETS):  # each kind of log has a reader all the while
                beside.enter_context(leaving(await run_sync(Deflating, serving.address, target, offer)))
                telling.company += 1
            await telling.joined(0)
            await telling.tell(serving.address, list(islice(feed, 20)))
            client = await run_sync(Deflating, serving.address, f"{target}&late", "permessage-deflate")
            beside.enter_context(leaving(client))
            begun = await telling.joined(1)
            await until(lambda: any("late" in one.request.query for one in telling.clients))
            (late,) = (one for one in telling.clients if "late" in one.request.query)
            await telling.tell(serving.address, list(islice(feed, 10)))  # 3,000 bytes: it needs 4,096
            hub.unsubscribe(late, "odds")
            await telling.joined(0)
            missed = [chance.randbytes(150).hex() for _ in range(3)]
            await telling.tell(serving.address, missed)
            hub.subscribe(late, "odds")
            await telling.joined(1)
            for text in (next(feed), next(feed), *(text + " again" for text in missed), *islice(feed, 40), LAST):
                await telling.tell(serving.address, [text])
            stream = await run_sync(client.read_until, is_last)
            assert stream.messages == [text for text in telling.told[begun:] if text not in missed]
            check([stream], asks_to_forget=False)
