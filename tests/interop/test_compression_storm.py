"""Clients of every window come, go, stall and come back by chance, and each inflates exactly what it was promised."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import fanwire
import pytest
from anyio.to_thread import run_sync
from support.clients import settle
from support.deflating import COMPRESSES, Deflating, Message
from support.hubs import MakeHub
from support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120), pytest.mark.slow]
STEPS = 150
CLIENTS_MAX = 10
WORDS = [f"{name} {price / 20:.2f}" for name in ("home", "draw", "away", "over", "under") for price in range(20, 60)]
PARAMETERS = ["server_no_context_takeover", "client_no_context_takeover", "client_max_window_bits"]


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """One loop: what the clients hear is the engine's affair."""
    return str(request.param)


@dataclass(eq=False)
class Listener:
    """A client, and what it has to hear."""

    client: Deflating
    handle: fanwire.Client
    expected: list[Message] = field(default_factory=list)
    whispered: list[Message] = field(default_factory=list)
    is_stalled: bool = False

    def heard(self) -> tuple[list[Message], list[Message]]:
        """Publications, and what was for it alone."""
        everything = self.client.stream.messages
        private = [message for message in everything if str(message).startswith("only you: ")]
        return [message for message in everything if not str(message).startswith("only you: ")], private

    def check(self) -> None:
        """What it has heard is right as far as it goes."""
        published, private = self.heard()
        assert published == self.expected[: len(published)], self.client.stream.head
        assert private == self.whispered[: len(private)]

    def has_all(self) -> bool:
        """Whether nothing is missing."""
        self.client.read_what_is_there()
        return tuple(map(len, self.heard())) == (len(self.expected), len(self.whispered))


class Storm:
    """One run."""

    def __init__(self, hub: fanwire.Hub, seed: int) -> None:
        self.hub, self.chance = hub, random.Random(seed)
        self.address = ""
        self.arrived: list[fanwire.Client] = []
        self.listeners: list[Listener] = []
        self.numbers = 0
        hub.on_connect(self.arrived.append)

    def offer(self) -> str:
        """What a client may say; one in eight offers nothing."""
        if self.chance.random() < 1 / 8:
            return ""
        parts = ["permessage-deflate", *(one for one in PARAMETERS if self.chance.random() < 1 / 4)]
        if self.chance.random() < 2 / 3:
            parts.append(f"server_max_window_bits={self.chance.randint(9, 15)}")
        return "; ".join(parts)

    def message(self) -> Message:
        """Mostly words that come again and again; sometimes what is large, tiny or cannot be compressed."""
        self.numbers += 1
        kind = self.chance.random()
        if kind < 0.02:
            return self.chance.randbytes(self.chance.choice([0, 1, 100, 20_000, 120_000]))
        if kind < 0.04:
            return f"{self.numbers} " * self.chance.choice([100, 10_000, 40_000])
        return " ".join([f"{self.numbers}", *self.chance.choices(WORDS, k=self.chance.choice([0, 3, 40, 100]))])

    async def step(self) -> None:
        """Something happens."""
        what = self.chance.random()
        if not self.listeners or (what < 0.06 and len(self.listeners) < CLIENTS_MAX):
            await self.come()
        elif what < 0.09:
            await self.leave(self.chance.choice(self.listeners))
        elif what < 0.16:
            one = self.chance.choice(self.listeners)
            one.is_stalled = not one.is_stalled
        elif what < 0.24:
            one = self.chance.choice(self.listeners)
            one.whispered.append(f"only you: {self.message()!r}")
            one.handle.send(one.whispered[-1])
        elif what < 0.5:
            await settle(self.hub, self.address)
        else:
            for _ in range(self.chance.choice([1, 1, 2, 12])):
                self.publish()
        for one in self.listeners:
            if not one.is_stalled:
                one.client.read_what_is_there()

    def publish(self) -> None:
        """One more, now and then not for everybody."""
        message = self.message()
        left_out = [self.chance.choice(self.listeners)] if self.chance.random() < 0.05 else []
        self.hub.publish("odds", message, exclude=[one.handle for one in left_out])
        for one in self.listeners:
            if one not in left_out:
                one.expected.append(message)

    async def come(self) -> None:
        """Somebody more; some have a socket that holds little."""
        count, offer = len(self.arrived), self.offer()
        buffer = self.chance.choice([None, 4_096])
        client = await run_sync(lambda: Deflating(self.address, "/ws?channel=odds", offer, receive_buffer=buffer))
        await until(lambda: len(self.arrived) > count and self.hub.occupancy("odds") == len(self.listeners) + 1)
        assert client.stream.agreement is not None or not (COMPRESSES and offer), (offer, client.stream.head)
        self.listeners.append(Listener(client, self.arrived[-1]))

    async def leave(self, one: Listener) -> None:
        """Somebody less."""
        self.listeners.remove(one)
        one.client.close()
        await until(lambda: self.hub.occupancy("odds") == len(self.listeners))

    async def calm(self) -> None:
        """Everybody reads on, and has all in the end."""
        for one in self.listeners:
            await until(one.has_all)
            one.check()


@contextmanager
def storm(hub: fanwire.Hub, seed: int) -> Iterator[Storm]:
    """A run whose sockets are closed in the end."""
    made = Storm(hub, seed)
    try:
        yield made
    finally:
        for one in made.listeners:
            one.client.close()


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(3, 60))])
async def test_everybody_inflates_what_was_promised(make_hub: MakeHub, seed: int) -> None:
    compression = {"compression": True, "compression_readers": 1} if COMPRESSES else {}
    hub = make_hub({"odds": fanwire.Channel(backlog_bytes=256 << 20, backlog_frames=100_000, **compression)})
    with storm(hub, seed) as run:
        async with hub.serve("127.0.0.1:0", shards=1) as serving:
            run.address = serving.address
            for number in range(STEPS):
                await run.step()
                if number % 50 == 49:
                    await run.calm()
            await run.calm()
