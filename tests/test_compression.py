"""What compression saves is counted, and where it saves nothing it rests; interop/test_compression.py has clients."""

import itertools
import random
from collections.abc import Callable
from functools import partial

import fanwire
import pytest
from anyio.to_thread import run_sync
from fanwire._engine import Stats
from support.clients import settle
from support.deflating import Deflating, Message
from support.hubs import MakeHub
from support.reading import leaving
from support.waiting import until
from test_metrics import scrape

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
ANY = "127.0.0.1:0"


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """One loop: what is counted is the engine's affair."""
    return str(request.param)


BROWSERS = "permessage-deflate; client_max_window_bits"
WINDOW_BYTES = 1 << 15


def odds(number: int) -> str:
    """A message of about 200 bytes, much like that before it."""
    prices = random.Random(number).choices(range(110, 900), k=5)
    names = zip(("home", "draw", "away", "over", "under"), prices, strict=True)
    return f'{{"market":"Match Result","number":{number},' + ",".join(
        f'"{name}":{price / 100}' for name, price in names
    )


def plain_bytes(message: Message) -> int:
    """Bytes of the frame that such a message would be."""
    length = len(message.encode() if isinstance(message, str) else message)
    return length + (2 if length < 126 else 4 if length < 1 << 16 else 10)


def channel(policy: str = "every", **options: int) -> fanwire.Channel:
    """One that is compressed for a single reader."""
    return fanwire.Channel(policy=policy, compression_readers=1, **options)  # type: ignore[arg-type]


def saved(stats: Stats) -> int:
    """By how much less was sent than without compression."""
    return sum(stats.compression_plain_bytes.values()) - sum(stats.compression_sent_bytes.values())


def saved_of(client: Deflating) -> int:
    """The same, as the client has it."""
    return sum(map(plain_bytes, client.stream.messages)) - sum(client.stream.sizes)


def come(address: str, offer: str, **options: int) -> Callable[[], Deflating]:
    """What makes a client of the channel."""
    return partial(Deflating, address, "/ws?channel=odds", offer, **options)  # type: ignore[arg-type]


async def test_bytes_before_and_after_are_those_that_clients_have(make_hub: MakeHub) -> None:
    """Of all that is sent to any reader, what is not compressed among it, and whether it keeps pace or lags."""
    hub = make_hub({"odds": channel(backlog_bytes=64 << 20)})
    async with hub.serve(ANY, shards=1) as serving:
        first = await run_sync(come(serving.address, BROWSERS))
        with leaving(first):
            await until(lambda: hub.stats().compression_readers["shared15"] == 1)
            for number in range(30):
                hub.publish("odds", odds(number))
            await settle(hub, serving.address)
            others = [
                await run_sync(come(serving.address, offer, **options))
                for offer, options in (
                    ("permessage-deflate; server_max_window_bits=12", {}),
                    ("permessage-deflate; server_max_window_bits=9; server_no_context_takeover", {}),
                    (BROWSERS, {"receive_buffer": 4_096}),
                )
            ]
            with leaving(*others):
                await until(lambda: sum(hub.stats().compression_readers.values()) == 4)
                chance = random.Random(1)
                for number in range(30, 130):
                    hub.publish(
                        "odds", chance.randbytes(60_000) if number % 3 else odds(number)
                    )  # more than sockets take
                    hub.publish("odds", "short")
                    hub.publish("odds", odds(number), ttl=60)
                    await settle(hub, serving.address) if number % 10 == 0 else None
                hub.publish("odds", "the end")
                for one in (first, *others):
                    await run_sync(one.read_until, lambda message: message == "the end")
                stats = hub.stats()
                assert saved(stats) == sum(map(saved_of, (first, *others))) != 0
                assert stats.compression_seconds > 0
                assert all(stats.compression_sent_bytes[coding] for coding in ("shared15", "shared12", "alone9"))
                samples = await scrape(serving.address)
                for coding, count in stats.compression_plain_bytes.items():
                    assert samples["fanwire_compression_plain_bytes_total", coding] == count
                    assert samples["fanwire_compression_readers", coding] == stats.compression_readers[coding]
                assert samples["fanwire_compression_joins_total", "at_once"] == stats.compression_joins["at_once"] >= 1
                everywhere = await hub.stats_of_all()
                assert everywhere.compression_joins == stats.compression_joins
                assert everywhere.compression_plain_bytes == stats.compression_plain_bytes
        await until(lambda: sum(hub.stats().compression_readers.values()) == 0)


async def test_who_comes_later_is_seen_to_climb(make_hub: MakeHub) -> None:
    hub = make_hub({"odds": channel()})
    async with hub.serve(ANY, shards=1) as serving:
        clients = []
        for coding in ("shared15", "shared12", "alone12"):  # what others share already has begun without the next one
            clients.append(await run_sync(come(serving.address, BROWSERS)))
            await until(lambda coding=coding: hub.stats().compression_readers[coding] == 1)
            hub.publish("odds", odds(0))
            await settle(hub, serving.address)
        with leaving(*clients):
            went_in = 0
            while hub.stats().compression_readers["shared15"] < 3:
                assert went_in < 3 * WINDOW_BYTES
                hub.publish("odds", odds(went_in))
                went_in += len(odds(went_in))
                await settle(hub, serving.address)
            assert went_in >= WINDOW_BYTES - 500
            assert hub.stats().compression_joins == {"at_once": 2, "alone": 1, "climbed": 3}
            assert sum(hub.stats().compression_fallbacks.values()) == 0


async def test_why_somebody_goes_back_is_told(make_hub: MakeHub) -> None:
    """Overtaken; behind what was replaced; and where another channel brings more."""
    for policy, reason in (("drop", "overtaken"), ("latest", "replaced")):
        hub = make_hub({"odds": channel(policy, backlog_bytes=(1 if policy == "drop" else 64) << 20)})
        async with hub.serve(ANY, shards=1) as serving:
            client = await run_sync(come(serving.address, BROWSERS, receive_buffer=4_096))
            with leaving(client):
                await until(lambda hub=hub: hub.stats().compression_readers["shared15"] == 1)
                chance, more = random.Random(2), 5
                while more and not hub.stats().compression_fallbacks[reason]:
                    hub.publish("odds", chance.randbytes(60_000), key="one")
                    await settle(hub, serving.address)
                    more -= bool(hub.stats().lagging and policy == "latest")
                while not hub.stats().compression_fallbacks[reason]:
                    await run_sync(client.read_more)
    hub = make_hub({"*": channel()})
    async with hub.serve(ANY, shards=1) as serving:
        client = await run_sync(Deflating, serving.address, "/ws?channel=first&channel=second", BROWSERS)
        with leaving(client):
            await until(lambda: hub.occupancy("second") == 1)
            for busy in ("first", "second"):  # whichever of them has the window, the other one takes it
                for number in itertools.count():
                    hub.publish(busy, odds(number))
                    await run_sync(client.read_more)
                    if client.stream.compressed[-1]:
                        break
            assert hub.stats().compression_fallbacks["moved"] >= 1
            assert sum(hub.stats().compression_readers.values()) == 1


@pytest.mark.parametrize("kind", ["random", "compressed"])
async def test_what_cannot_be_compressed_goes_out_as_it_is_and_is_tried_again(make_hub: MakeHub, kind: str) -> None:
    hub = make_hub({"odds": channel(backlog_bytes=64 << 20)})
    chance = random.Random(3)
    async with hub.serve(ANY, shards=1) as serving:
        client = await run_sync(come(serving.address, BROWSERS))
        with leaving(client):
            await until(lambda: hub.stats().compression_readers["shared15"] == 1)

            async def tell(message: Message) -> bool:
                hub.publish("odds", message)
                told = len(client.stream.compressed) + 1
                while len(client.stream.compressed) < told:
                    await run_sync(client.read_more)
                assert client.stream.messages[-1] == message
                return client.stream.compressed[-1]

            def image() -> bytes:
                """As random as a picture's data, with a head that all have in common."""
                return b"\xff\xd8\xff\xe0\0\x10JFIF" * (kind == "compressed") + chance.randbytes(8_000)

            tried = 0
            while await tell(image()):
                tried += 1
                assert tried <= 20
            assert hub.stats().compression_rests == 1
            rested = 0
            while not await tell(image()):
                rested += 1
                assert rested <= 200
            assert rested * 8_000 > 900_000 > 10 * tried * 8_000
            while await tell(image()):
                pass
            assert hub.stats().compression_rests == 2, "it was tried again, and does not pay still"
            text = odds(1) * 40
            while not await tell(text):
                pass
            before = hub.stats()
            for _ in range(50):
                assert await tell(text)
            assert hub.stats().compression_rests == before.compression_rests
            assert (await scrape(serving.address))["fanwire_compression_rests_total", ""] == 2
