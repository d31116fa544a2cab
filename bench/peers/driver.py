"""What every Python peer shares: the commands on stdin, the schedule of publications, the reports on stdout.

A peer gives :func:`drive` two functions and serves sockets; nothing here touches a socket. The text of the contract is
in README.md beside this file. Peers with a loop that is not asyncio use :class:`Schedule` and :class:`Reporter` alone.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Publish = Callable[[str, str], Awaitable[Any] | None]
"""Sends one text to all subscribers of a channel; gives None, or what must be awaited."""

START_DELAY_NS = 20_000_000
"""From the command to its first round, ns: time for the runner's own writes to settle."""


def options(description: str) -> argparse.ArgumentParser:
    """The options that all peers take; a peer adds its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True, help="TCP port to listen on, on 127.0.0.1")
    parser.add_argument("--redis", metavar="URL", help="be one of several servers on this Redis, where the peer can")
    return parser


def uvicorn_options(description: str) -> argparse.ArgumentParser:
    """Those, and what :func:`drive_on_uvicorn` takes besides."""
    parser = options(description)
    parser.add_argument("--ws", default="auto", help="uvicorn's --ws")
    return parser


def channels_of(target: str) -> list[str]:
    """The channels that a request's target asks for: every ``channel=`` of its query, ``c0`` when there is none."""
    return parse_qs(urlsplit(target).query).get("channel", ["c0"])


class Schedule:
    """One ``publish`` command: which texts are due when. Asks no clock; times are CLOCK_MONOTONIC in ns."""

    def __init__(self, command: dict[str, Any], sequences: dict[int, int], start_ns: int) -> None:
        """Read a command; `sequences` is the next number of each channel and is shared by the commands of a server."""
        self.rounds = int(command["rounds"])
        self.burst = int(command["burst"])
        self.interval_ns = int(float(command["interval_s"]) * 1e9)
        self.payload_bytes = int(command.get("bytes", 128))
        self.order: list[int] | None = command.get("sequence")
        self.feed = Path(command["feed"]).read_text().splitlines() if "feed" in command else []
        self.bytes_published = 0
        self.sequences = sequences
        self.start_ns = start_ns
        self.seconds_publishing = 0.0

    @property
    def count(self) -> int:
        """Publications in all."""
        return self.rounds * self.burst

    def due_ns(self, round_index: int) -> int:
        """The intended time of a round."""
        return self.start_ns + round_index * self.interval_ns

    def texts(self, round_index: int) -> list[tuple[str, str]]:
        """The round's publications as (channel, text), in order; advances the sequence numbers."""
        stamp = f"{self.due_ns(round_index):020d} "
        made = []
        for number in range(round_index * self.burst, (round_index + 1) * self.burst):
            channel = 0 if self.order is None else self.order[number]
            sequence = self.sequences.get(channel, 0)
            self.sequences[channel] = sequence + 1
            if self.feed:
                text = self.feed[sequence % len(self.feed)]
            else:
                text = f"{sequence:010d} {channel:06d} {stamp}".ljust(self.payload_bytes, "x")
            self.bytes_published += len(text.encode())
            made.append((f"c{channel}", text))
        return made

    def report(self, now_ns: int) -> dict[str, Any]:
        """The answer to the command: publications, wall seconds, seconds inside publish calls, bytes of payloads."""
        wall = (now_ns - self.start_ns) / 1e9
        times = {"seconds": wall, "publish_seconds": self.seconds_publishing}
        return {"published": self.count, **times, "payload_bytes": self.bytes_published}


class Reporter:
    """One JSON object a line on the real stdout; whatever else prints goes to stderr."""

    def __init__(self) -> None:
        """Take stdout away from print()."""
        self._out, sys.stdout = sys.stdout, sys.stderr

    def say(self, message: dict[str, Any]) -> None:
        """Write one line and flush it."""
        print(json.dumps(message), file=self._out, flush=True)


async def _publish_all(schedule: Schedule, publish: Publish) -> None:
    """Run a schedule: open loop, rounds at their absolute times, at once when late."""
    for index in range(schedule.rounds):
        wait_s = (schedule.due_ns(index) - time.monotonic_ns()) / 1e9
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        texts = schedule.texts(index)
        began = time.perf_counter()
        for channel, text in texts:
            if (rest := publish(channel, text)) is not None:
                await rest
        schedule.seconds_publishing += time.perf_counter() - began


async def drive(publish: Publish, connections: Callable[[], int], port: int) -> None:
    """Say ready, then obey stdin until ``quit`` or its end. The server listens before this is called.

    Args:
        publish: sends one text; where it returns None a burst runs without a turn of the loop.
        connections: clients connected now.
        port: what ``ready`` reports.
    """
    reporter = Reporter()
    sequences: dict[int, int] = {}
    lines = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    reporter.say({"ready": True, "port": port})
    while line := await lines.readline():
        command = json.loads(line)
        if "quit" in command:
            return
        if "connections" in command:
            reporter.say({"connections": connections()})
        elif "publish" in command:
            schedule = Schedule(command["publish"], sequences, time.monotonic_ns() + START_DELAY_NS)
            await _publish_all(schedule, publish)
            reporter.say(schedule.report(time.monotonic_ns()))


async def drive_on_uvicorn(
    app: Any, arguments: argparse.Namespace, publish: Publish, connections: Callable[[], int], **more: Any
) -> None:
    """Serve an application by uvicorn, with no pings and no access log, and :func:`drive` it.

    Args:
        app: what uvicorn serves.
        arguments: has `port`, and uvicorn's ``--ws`` as `ws`.
        publish: as for :func:`drive`, and so is `connections`.
        more: other settings of ``uvicorn.Config``.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=arguments.port,
        ws=arguments.ws,
        log_level="warning",
        access_log=False,
        backlog=4096,
        ws_ping_interval=None,
        **more,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    await drive(publish, connections, arguments.port)
    serving.cancel()


def run(main: Awaitable[None], *, uvloop: bool = True) -> None:
    """Run a peer to its end, on uvloop unless told otherwise, and leave without waiting for 10,000 clients."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if uvloop:
        from uvloop import new_event_loop

        factory = new_event_loop

    async def body() -> None:
        await main

    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(body())
        sys.stderr.flush()
        _leave()


def _leave() -> None:
    """End the process at once: closing every client politely would only make the runner wait."""
    import os

    os._exit(0)


class Watchers:
    """Who watches which channel, for libraries that have no topics of their own: a dict of ordered sets."""

    def __init__(self) -> None:
        """Nobody yet."""
        self._of: dict[str, dict[Any, None]] = {}
        self.count = 0

    def add(self, client: Any, channels: list[str]) -> None:
        """Subscribe a client."""
        self.count += 1
        for channel in channels:
            self._of.setdefault(channel, {})[client] = None

    def discard(self, client: Any, channels: list[str]) -> None:
        """Forget a client that :meth:`add` was told of."""
        self.count -= 1
        for channel in channels:
            self._of.get(channel, {}).pop(client, None)

    def of(self, channel: str) -> Any:
        """The clients of a channel: iterable and sized."""
        return self._of.get(channel, {}).keys()

    def __iter__(self) -> Iterator[str]:
        """The channels known."""
        return iter(self._of)
