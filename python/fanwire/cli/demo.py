"""``fanwire demo``: a hub and thousands of real clients on this machine, live in the terminal."""

import json
import random
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from subprocess import PIPE
from typing import Annotated

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.live import Live

from fanwire._loop import background_tasks, run, watch_signals
from fanwire.cli.demo_figures import Figures, Match
from fanwire.cli.demo_screen import line, screen, summary
from fanwire.cli.load import AGAIN
from fanwire.hub import Hub

CHANNEL = "c0"
PAYLOAD_BYTES = 128
GOAL_EVERY_S = 4.0
GOAL_BURST = 20
TICK_S_PER_CLIENT = 25e-6
"""Calm ticks are this far apart for each client, so that half a core keeps up with them."""
DESCRIPTORS_SPARE = 256
"""Descriptors that the process needs besides its clients'."""
REPORT_WITHIN_S = 5.0
"""How long the load client may take to say its last word."""


def demo(
    *,
    clients: Annotated[int, Parameter(validator=Number(gte=1))] = 10_000,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 30.0,
    shards: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    poller: str | None = None,
) -> None:
    """Show a hub with thousands of real clients: a football match, its odds, and goals.

    Args:
        clients: WebSocket clients to connect.
        seconds: how long to publish once they are connected.
        shards: threads of the hub that own the connections.
        poller: epoll or uring; the better one that the kernel allows when left out.
    """
    possible = _raise_descriptors(clients)
    figures = Figures(clients=possible, seconds=seconds)
    if possible < clients:
        figures.note = f"{possible:,} of {clients:,} clients: the descriptor limit (ulimit -n) allows no more"
    console = Console()
    run(_Demo(figures, console, shards, poller).main)
    if figures.publications:
        console.print(summary(figures))
    if figures.phase == "failed":
        print(f"fanwire demo: {figures.note}", file=sys.stderr)
        raise SystemExit(1)


@dataclass
class _Demo:
    figures: Figures
    console: Console
    shards: int
    poller: str | None

    async def main(self) -> None:
        """From the first connection to the last; ends at once on SIGINT or SIGTERM."""
        self.hub = Hub(poller=self.poller)
        self.is_connected = anyio.Event()
        self.is_complete = anyio.Event()
        async with background_tasks() as tasks:
            await tasks.start(watch_signals, tasks.cancel_scope.cancel)
            await self._play()

    async def _play(self) -> None:
        figures = self.figures
        async with self.hub.serve("127.0.0.1:0", shards=self.shards) as serving:
            figures.address, figures.poller = serving.address, serving.poller
            async with self._load_client() as client, background_tasks() as tasks:
                tasks.start_soon(self._read_reports, client)
                tasks.start_soon(self._show)
                await self.is_connected.wait()
                if figures.phase == "connecting":
                    await self._publish_all(client)
                if figures.phase == "playing":
                    figures.sample(self.hub.stats())
                    figures.phase = "done"

    async def _publish_all(self, client: Process) -> None:
        """Play the match, then wait for the load client's last word."""
        figures = self.figures
        rhythm = plan(figures.seconds, figures.clients)
        expected = sum(count for _, count in rhythm) * int(figures.connected.get("connected", figures.clients))
        assert client.stdin is not None
        await client.stdin.send(json.dumps({"expect": expected}).encode() + b"\n")
        figures.start(self.hub.stats())
        dice = random.Random(7)
        started = time.monotonic()
        sequence = 0
        for at, count in rhythm:
            await anyio.sleep(max(0.0, started + at - time.monotonic()))
            move(figures.match, at / figures.seconds, dice, is_goal=count > 1)
            now = time.monotonic_ns()
            for _ in range(count):
                self.hub.publish(CHANNEL, payload(sequence, now))
                sequence += 1
        with anyio.move_on_after(REPORT_WITHIN_S):
            await self.is_complete.wait()

    @asynccontextmanager
    async def _load_client(self) -> AsyncIterator[Process]:
        """The load client, a child in a session of its own: Ctrl-C reaches it through us. Its end is waited for."""
        url = f"ws://{self.figures.address}/ws"
        command = [*AGAIN, "--url", url, "--connections", str(self.figures.clients)]
        process = await anyio.open_process(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(2):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                await process.aclose()

    async def _read_reports(self, client: Process) -> None:
        assert client.stdout is not None and client.stderr is not None
        rest = ""
        async for text in TextReceiveStream(client.stdout):
            *lines, rest = (rest + text).split("\n")
            for report in lines:
                if report.startswith("{"):
                    self._take(json.loads(report))
        if not self.is_complete.is_set():  # it ended before its time
            said = "".join([text async for text in TextReceiveStream(client.stderr)]).strip()
            self._fail(f"the load client ended: {said.splitlines()[-1] if said else 'it said nothing'}")

    def _take(self, report: dict[str, dict[str, int]]) -> None:
        figures = self.figures
        if "connected" in report:
            figures.connected = report
            if report.get("failed"):
                figures.note = f"{report['failed']:,} clients could not connect"
            if report["connected"]:
                self.is_connected.set()
            else:
                self._fail("no client could connect")
        figures.tick = report.get("tick", figures.tick)
        if "complete" in report:
            figures.complete = report["complete"]
            self.is_complete.set()

    def _fail(self, why: str) -> None:
        self.figures.phase = "failed"
        self.figures.note = why
        self.is_connected.set()
        self.is_complete.set()

    async def _show(self) -> None:
        if not self.console.is_terminal:
            while True:
                self.figures.sample(self.hub.stats())
                print(line(self.figures), flush=True)
                await anyio.sleep(1.0)
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                stats = self.hub.stats()
                self.figures.sample(stats)
                completion = (self.figures.completion_s(0.5, stats), self.figures.completion_s(0.99, stats))
                live.update(screen(self.figures, completion), refresh=True)
                await anyio.sleep(0.2)


def plan(seconds: float, clients: int) -> list[tuple[float, int]]:
    """When to publish and how many at once: calm ticks, and a goal every few seconds."""
    interval = min(1.0, max(0.1, clients * TICK_S_PER_CLIENT))
    rhythm: list[tuple[float, int]] = []
    goal_at = min(GOAL_EVERY_S, seconds) / 2
    for number in range(max(1, int(seconds / interval))):
        at = number * interval
        is_goal = at >= goal_at
        if is_goal:
            goal_at += GOAL_EVERY_S
        rhythm.append((at, GOAL_BURST if is_goal else 1))
    return rhythm


def move(match: Match, share: float, dice: random.Random, *, is_goal: bool) -> None:
    """Let the match go on: `share` of it is over."""
    match.minute = 90 * share
    if is_goal:
        side = dice.randrange(2)
        match.goals[side] += 1
        match.goal_at = time.monotonic()
        match.odds[2 * side] = max(1.02, match.odds[2 * side] * 0.6)
        match.odds[2 - 2 * side] = min(51.0, match.odds[2 - 2 * side] * 1.7)
    else:
        match.odds = [max(1.02, odds * dice.uniform(0.97, 1.03)) for odds in match.odds]


def payload(sequence: int, now_ns: int) -> str:
    """One publication as the load client checks it: number, channel and time, padded to ``PAYLOAD_BYTES``."""
    return f"{sequence:010d} {0:06d} {now_ns:020d} ".ljust(PAYLOAD_BYTES, "x")


def _raise_descriptors(clients: int) -> int:
    """Raise this process's soft limit as far as it needs and may; how many clients it then can hold, of `clients`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + DESCRIPTORS_SPARE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(1, min(clients, wanted - DESCRIPTORS_SPARE))
