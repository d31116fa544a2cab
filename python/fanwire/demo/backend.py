"""The demo's SignalR backend, a process of its own: a hub with matches to watch, odds that change, and goals.

``python -m fanwire.demo.backend ADDRESS MATCHES`` takes commands on stdin, a JSON object a line, and ends with it:
``{"rate": N}`` so many changes of odds a second, over all matches in turn; 0 for none. ``{"goal": K, "text": …}`` a
goal in match K, from 0. What it has done goes to stdout, a few times a second. Nothing here knows of a relay.
"""

import os
import random
import sys
import time
from collections.abc import AsyncIterator

import anyio
import msgspec

from fanwire import to
from fanwire._loop import background_tasks, readable, run
from fanwire.client import Client
from fanwire.hub import Hub

PATH = "/live"
GOAL_BURST = 20
"""Changes of odds that follow a goal at once."""
TELL_EVERY_S = 0.1
MARKETS = {"over": 1.9, "under": 1.95, "both": 1.72, "neither": 2.1, "next": 1.88}


class OddsBackend:
    """The hub, its matches, and how much of each was published."""

    def __init__(self, matches: int) -> None:
        self.hub = hub = Hub(signalr_paths=(PATH,))
        self.odds = [0] * matches
        self.announcements = 0
        self.rate = 0.0
        self.dice = random.Random(7)

        @hub.method("Subscribe")
        def subscribe(client: Client, match: str) -> bool:
            hub.subscribe(client, match)
            client.send(self.state(int(match[1:]) - 1), event="Snapshot")
            return True

        @hub.method("Unsubscribe")
        def unsubscribe(client: Client, match: str) -> bool:
            hub.unsubscribe(client, match)
            return True

    def state(self, match: int) -> dict[str, object]:
        """What is known of a match now: its odds, how often they changed (``s``), and the time (``t``)."""
        markets = {name: round(odds * self.dice.uniform(0.97, 1.03), 2) for name, odds in MARKETS.items()}
        main = {"home": 2.1, "draw": 3.4, "away": 3.25}
        return {"match": f"m{match + 1}", "s": self.odds[match], "t": time.time_ns(), **main, **markets}

    def change(self, match: int) -> None:
        """Publish new odds."""
        self.odds[match] += 1
        self.hub.publish(f"m{match + 1}", self.state(match), event="Odds")

    def goal(self, match: int, text: str) -> None:
        """Tell all clients of a goal, and those who watch the match its new odds, again and again."""
        self.announcements += 1
        self.hub.publish(to.all(), {"text": text, "t": time.time_ns()}, event="Announcement")
        for _ in range(GOAL_BURST):
            self.change(match)

    async def feed(self) -> None:
        """Change the odds of all matches in turn, at the steady rate."""
        due, match = time.monotonic(), 0
        while True:
            if self.rate == 0:
                await anyio.sleep(0.01)
                due = time.monotonic()
                continue
            due += 1 / self.rate
            await anyio.sleep(max(0.0, due - time.monotonic()))
            if self.rate:
                self.change(match)
                match = (match + 1) % len(self.odds)

    async def tell(self) -> None:
        """Say what was done, a few times a second."""
        while True:
            stats = self.hub.stats()
            told = {
                "connections": stats.connections,
                "messages": stats.deliveries,
                "bytes": stats.bytes_out,
                "cpu_s": time.process_time(),
                "odds": self.odds,
                "announcements": self.announcements,
                "rate": self.rate,
            }
            print(msgspec.json.encode(told).decode(), flush=True)
            await anyio.sleep(TELL_EVERY_S)

    async def serve(self, address: str) -> None:
        """Serve until stdin ends."""
        async with self.hub.serve(address), background_tasks() as tasks:
            tasks.start_soon(self.feed)
            tasks.start_soon(self.tell)
            async for line in _lines(sys.stdin.fileno()):
                command = msgspec.json.decode(line)
                if "goal" in command:
                    self.goal(command["goal"], command["text"])
                else:
                    self.rate = float(command["rate"])


async def _lines(descriptor: int) -> AsyncIterator[bytes]:
    rest = b""
    while True:
        await readable(descriptor)
        read = os.read(descriptor, 65_536)
        if not read:
            return
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            yield line


if __name__ == "__main__":
    run(OddsBackend(int(sys.argv[2])).serve, sys.argv[1])
