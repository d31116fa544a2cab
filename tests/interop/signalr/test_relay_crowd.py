"""A crowd at a relay before the real hub: everyone does as it likes, and sees what it would see at the hub itself."""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import BACKEND_PORT, origin
from crowd import CallFailed, Control, Member, until
from relaying import relay

pytestmark = pytest.mark.timeout(90)
SEED = int(os.environ.get("FANWIRE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
PROTOCOLS = ("json", "messagepack")
MATCHES = [f"m{number}" for number in range(1, 7)]
CLIENTS = 40
STEPS = 20
SHORT_LINGER = 'linger = "300ms"'
S = {"json": "s", "messagepack": "S"}
MATCH = {"json": "match", "messagepack": "Match"}
LATE_AT_MOST = 3
"""A hub that subscribes joins the group, reads the state, sends the Snapshot: so many publications may come between."""


class Visitor:
    """A client that does one thing after the other, and checks all that it sees."""

    def __init__(self, url: str, name: str, protocol: str, rng: random.Random) -> None:
        self._url = url
        self._rng = rng
        self.name = name
        self.protocol = protocol
        self.asked: set[str] = set()
        """What it watches, or has asked to watch or not to."""
        self.watching: set[str] = set()
        self.newest: dict[str, int] = {}
        self.has_called = False
        self._is_first: set[str] = set()
        self._bets: Counter[float] = Counter()
        self._announced: set[str] = set()
        self.faults: list[str] = []
        self.life = 0

    async def enter(self) -> None:
        """Come, and come again as somebody new."""
        self.life += 1
        for kept in (self.asked, self.watching, self.newest, self._is_first, self._bets, self._announced):
            kept.clear()
        self.has_called = False
        self._member = await Member(f"{self.name}.{self.life}", self.protocol, self._hear).enter(self._url)

    async def leave(self, *, is_rude: bool = False) -> None:
        """Go, with a word or without."""
        if self._member.is_closed:
            self.faults.append(f"{self.name} was closed: {self._member.close_message}")
        await self._member.leave(is_rude=is_rude)

    def _hear(self, member: Member, target: str, arguments: list[Any]) -> None:
        if member is not self._member:
            return
        if target in ("Snapshot", "Odds"):
            self._watch(target, arguments[0])
        elif target == "BetSettled":
            stake = arguments[0]["stake" if self.protocol == "json" else "Stake"]
            self._bets[stake] -= 1
            if self._bets[stake] < 0:
                self.faults.append(f"{self.name} hears of a bet of {stake} that it has not placed")
        elif target == "Announcement":
            if arguments[0] in self._announced:
                self.faults.append(f"{self.name} hears {arguments[0]} twice")
            self._announced.add(arguments[0])
        else:
            self.faults.append(f"{self.name} hears {target} {arguments}")

    def _watch(self, target: str, odds: dict[str, Any]) -> None:
        match, s = odds[MATCH[self.protocol]], odds[S[self.protocol]]
        if match not in self.asked:
            self.faults.append(f"{self.name} hears of {match}, which it does not watch")
        elif target == "Snapshot":
            self.newest[match] = s
            self._is_first.add(match)
        elif match in self._is_first:
            if not self.newest[match] <= s <= self.newest[match] + LATE_AT_MOST:
                self.faults.append(f"{self.name} of {match}: {s} behind the Snapshot {self.newest[match]}")
            self._is_first.discard(match)
            self.newest[match] = s
        elif match in self.newest:
            if s != self.newest[match] + 1:
                self.faults.append(f"{self.name} of {match}: {s} behind {self.newest[match]}")
            self.newest[match] = s

    async def step(self) -> None:
        """One thing, at random."""
        things = [self._subscribe] * 5 + [self._unsubscribe] * 3 + [self._cross, self._call, self._call, self._stream]
        things += [self._bet, self._ask, self._refused, self._come_again]
        await self._rng.choice(things)()

    async def _subscribe(self) -> None:
        match = self._rng.choice(MATCHES)
        self.asked.add(match)
        state = await self._member.invoke("Subscribe", match)
        self.watching.add(match)
        if state[MATCH[self.protocol]] != match:
            self.faults.append(f"{self.name} subscribed to {match} and got {state}")
        if match not in self.newest:
            self.faults.append(f"{self.name} has no Snapshot of {match}")

    async def _unsubscribe(self) -> None:
        match = self._rng.choice(MATCHES)
        is_watching = match in self.watching
        was = await self._member.invoke("Unsubscribe", match)
        self.has_called |= not is_watching
        if was != is_watching:
            self.faults.append(f"{self.name} unsubscribed from {match}: {was}")
        self._forget(match)

    def _forget(self, match: str) -> None:
        for kept in (self.asked, self.watching, self._is_first):
            kept.discard(match)
        self.newest.pop(match, None)

    async def _cross(self) -> None:
        """Subscribe, unsubscribe and subscribe, without waiting for an answer."""
        match = self._rng.choice(MATCHES)
        self.asked.add(match)
        calls = [self._member.begin(1, method, match)[1] for method in ("Subscribe", "Unsubscribe", "Subscribe")]
        await asyncio.gather(*calls)
        self.watching.add(match)

    async def _call(self) -> None:
        self.has_called = True
        text = f"{self.name} {self._rng.random()}"
        a, b = self._rng.randrange(1_000), self._rng.randrange(1_000)
        got = await asyncio.gather(self._member.invoke("EchoText", text), self._member.invoke("Add", a, b))
        if got != [text, a + b]:
            self.faults.append(f"{self.name} said {text}, {a} + {b} and got {got}")

    async def _stream(self) -> None:
        self.has_called = True
        count = self._rng.randrange(1, 6)
        if (got := await self._member.stream("Count", count, 1)) != list(range(count)):
            self.faults.append(f"{self.name} counted {got}")

    async def _bet(self) -> None:
        self.has_called = True
        stake = self._rng.random() + 1
        self._bets[stake] += 1
        keys = ("match", "stake", "pick") if self.protocol == "json" else ("Match", "Stake", "Pick")
        receipt = await self._member.invoke("PlaceBet", dict(zip(keys, ("m1", stake, "1"), strict=True)))
        if stake not in receipt.values():
            self.faults.append(f"{self.name} bet {stake} and got {receipt}")

    async def _ask(self) -> None:
        self.has_called = True
        answer = await self._member.invoke("AskMe", self.name)
        if answer != f"you said {self._member.name} to {self.name}":
            self.faults.append(f"{self.name} was told {answer}")

    async def _refused(self) -> None:
        try:
            await self._member.invoke("Subscribe", f"closed {self.name}")
        except CallFailed as error:
            if not str(error).endswith(f"HubException: no such match: closed {self.name}"):
                self.faults.append(f"{self.name} was refused with {error}")
        else:
            self.faults.append(f"{self.name} was not refused")

    async def _come_again(self) -> None:
        if self._rng.random() < 0.5:  # in the middle of something
            self._member.begin(1, "Subscribe", self._rng.choice(MATCHES))
            self._member.begin(1, "Slow", 20)
        await self.leave(is_rude=self._rng.random() < 0.5)
        await self.enter()

    async def play(self) -> None:
        """A whole visit."""
        await self.enter()
        for _ in range(STEPS):
            await self.step()


def test_everyone_sees_what_it_would_see_at_the_hub(tmp_path: Path) -> None:
    print(f"FANWIRE_SEED={SEED}")
    with origin(BACKEND_PORT) as hub, relay(hub.url, tmp_path, paths=("/live",), more=SHORT_LINGER) as address:
        asyncio.run(mingle(hub.url, f"http://{address}/live"))


async def mingle(hub: str, url: str) -> None:
    """The crowd, and somebody who publishes all the while."""
    rng = random.Random(SEED)
    crowd = [Visitor(url, f"v{index}", PROTOCOLS[index % 2], random.Random(rng.random())) for index in range(CLIENTS)]
    async with Control(hub) as control:
        is_over = asyncio.Event()

        async def publish() -> None:
            while not is_over.is_set():
                await control.publish(rng.choice(MATCHES), count=rng.randrange(1, 8), size=rng.choice((0, 400)))

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(publish())
            await asyncio.gather(*(visitor.play() for visitor in crowd))
            is_over.set()
        await control.publish(*MATCHES)  # the last of all
        newest = {match: await newest_of(url, match) for match in MATCHES}
        await until(
            lambda: all(visitor.newest[match] == newest[match] for visitor in crowd for match in visitor.watching),
            lambda: [(one.name, {m: (one.newest[m], newest[m]) for m in one.watching}, one.faults) for one in crowd],
        )
        watched = {(visitor.protocol, match) for visitor in crowd for match in visitor.watching}
        private = sum(visitor.has_called for visitor in crowd)
        stats = await control.until_stats(connected=len(watched) + len(PROTOCOLS) + private)
        assert stats["watchers"] == dict(sorted(Counter(match for _, match in watched).items()))
        faults = [fault for visitor in crowd for fault in visitor.faults]
        assert not faults, "\n".join(faults)
        await asyncio.gather(*(visitor.leave(is_rude=index % 2 == 0) for index, visitor in enumerate(crowd)))
        await control.until_stats(connected=len(PROTOCOLS))
        faults = [fault for visitor in crowd for fault in visitor.faults]
        assert not faults, "\n".join(faults)


async def newest_of(url: str, match: str) -> int:
    """What a newcomer is told of a match, behind all that was published: the Snapshot and what follows it."""
    told: list[int] = []
    member = await Member("newcomer", "json", lambda member, target, arguments: told.append(arguments[0]["s"])).enter(
        url
    )
    await member.invoke("Subscribe", match)
    await member.leave()
    return told[-1]
