"""The server of bench/late.py: fanwire's hub with one rule for its channel, told what to publish by lines on stdin.

Not a peer of run.py: it answers ``stats``, publishes with keys, and tells the position that its feed ended at. With
``--count`` it counts the events that Python takes from the engine, for which it looks behind the public surface.
SIGTERM, ``quit`` and the end of stdin end it in order: clients are closed, which may take half a second.
"""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from typing import Any

import fanwire
import fanwire.serving
from driver import START_DELAY_NS, Reporter, Schedule, options, run
from fanwire.pump import Pump

CHANNEL = "c0"
"""What the load client asks for."""
SILENCE_S = 3_600.0
"""Before a ping: none, as with every peer."""
DRAIN_S = 0.5


class CountedEngine:
    """An engine whose events are counted by kind; all else is the engine's own."""

    def __init__(self, engine: Any, counts: Counter[str]) -> None:
        """Count into `counts`."""
        self._engine = engine
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        """The engine's."""
        return getattr(self._engine, name)

    def take_events(self, most: int) -> list[Any]:
        """What came."""
        events: list[Any] = self._engine.take_events(most)
        self._counts.update(type(event).__name__ for event in events)
        return events


def count_events() -> Counter[str]:
    """Have all that Python hears of the engine counted, by kind."""
    counts: Counter[str] = Counter()

    class CountingPump(Pump):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._engine: Any = CountedEngine(self._engine, counts)

    vars(fanwire.serving)["Pump"] = CountingPump
    return counts


class Feed:
    """What is published, and what is known of it."""

    def __init__(self, hub: fanwire.Hub) -> None:
        """Nothing yet."""
        self._hub = hub
        self._sequences: dict[int, int] = {}

    async def publish(self, command: dict[str, Any]) -> dict[str, Any]:
        """Open loop, rounds at their absolute times, at once when late; publication n has the key n modulo `keys`."""
        keys = int(command.get("keys", 0))
        schedule = Schedule(command, self._sequences, time.monotonic_ns() + START_DELAY_NS)
        position = None
        for index in range(schedule.rounds):
            wait_s = (schedule.due_ns(index) - time.monotonic_ns()) / 1e9
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            for _, text in schedule.texts(index):
                key = str(int(text[:10]) % keys) if keys else None
                position = self._hub.publish(CHANNEL, text, key=key)
        return schedule.report(time.monotonic_ns()) | {"position": list(position or ())}


async def obey(hub: fanwire.Hub, port: int, openings: list[int], events: Counter[str]) -> None:
    """Say ready, then do as the lines say."""
    reporter = Reporter()
    feed = Feed(hub)
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    reporter.say({"ready": True, "port": port})
    while line := await lines.readline():
        command = json.loads(line)
        if "quit" in command:
            return
        if "publish" in command:
            reporter.say(await feed.publish(command["publish"]))
        elif "stats" in command:
            stats = hub.stats()
            found = {name: getattr(stats, name) for name in ("connections", "lagging", "overtaken", "closes")}
            found |= {"skipped": sum(stats.skipped.values()), "poller": stats.poller}
            reporter.say({"stats": found | {"openings": openings[0], "events": dict(events)}})


async def serve(hub: fanwire.Hub, port: int, openings: list[int], events: Counter[str]) -> None:
    """Serve until told to end, as the lines say; a line tells of the counts of openings and events."""
    async with hub.serve(f"127.0.0.1:{port}", ping_interval=SILENCE_S, drain_timeout=DRAIN_S):
        obeying = asyncio.create_task(obey(hub, port, openings, events))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, obeying.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await obeying


async def main(port: int, rule: dict[str, Any], *, is_counting: bool) -> None:
    """Make the hub and serve."""
    openings = [0]
    events = count_events() if is_counting else Counter[str]()
    hub = fanwire.Hub(channels={CHANNEL: fanwire.Channel(**rule)})
    if is_counting:

        @hub.authenticate
        def authenticate(request: fanwire.Request) -> None:
            openings[0] += 1

    await serve(hub, port, openings, events)


if __name__ == "__main__":
    parser = options((__doc__ or "").splitlines()[0])
    parser.add_argument("--rule", type=json.loads, default={}, help="arguments of Channel, as a JSON object")
    parser.add_argument("--count", action="store_true", help="authenticate clients, and count what Python hears")
    chosen = parser.parse_args()
    run(main(chosen.port, chosen.rule, is_counting=chosen.count))
