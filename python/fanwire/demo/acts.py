"""The demo, act by act: logins, odds, goals, the backend's death, and all of it once more without the relay."""

import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import msgspec
from anyio.abc import TaskGroup

from fanwire.demo.backends import DemoBackend, OtherBackend, OwnBackend
from fanwire.demo.figures import Course, Figures, Outage, expected_of
from fanwire.demo.processes import PYTHON, Child, Children, load_client

ACTS = ("logins", "odds", "goals", "backend killed", "without the relay")
CLIENTS_EACH_MAX = 5_000
"""Clients of one load process."""
CHANGES_A_MATCH = 2.0
"""Changes of odds a second."""
GOAL_EVERY_S = 2.0
PROGRESS_S = 0.2
DOWN_S = 3.0
WITHIN_S = 20.0
"""How long a process may take to be ready, lanes to come back, and messages to arrive."""
TOWNS = [
    "Ashford",
    "Benton",
    "Calder",
    "Denby",
    "Elmsley",
    "Fenwick",
    "Garsdale",
    "Holt",
    "Irby",
    "Jarrow",
    "Kelso",
    "Langley",
    "Marlow",
    "Norwell",
    "Oakham",
    "Penrith",
    "Quorn",
    "Ripley",
    "Selby",
    "Thirsk",
    "Ulverston",
    "Verwood",
    "Wells",
    "Yarm",
]
RELAY = """\
[listen]
address = "{address}"

[[relay]]
path = "{path}"
upstream = "{upstream}"

[[relay.share]]
subscribe = "Subscribe"
unsubscribe = "Unsubscribe"
snapshot = "Snapshot"

[relay.everyone]
targets = ["Announcement"]

[relay.lanes]
backoff_max = "1s"
"""


class DemoFailed(Exception):
    """It cannot go on, and why."""


@dataclass
class DemoPlan:
    """How much of everything."""

    clients: int
    matches: int
    seconds: float
    backend: str | None = None
    """The URL of a backend that is running already."""

    @property
    def act_s(self) -> float:
        """How long odds, and odds with goals, go on."""
        return self.seconds / 5

    @property
    def crowds(self) -> list[int]:
        """Clients of each load process."""
        count = min(self.clients, max(2, -(-self.clients // CLIENTS_EACH_MAX)))
        return [self.clients // count + (index < self.clients % count) for index in range(count)]


@dataclass
class Show:
    """What the screen shows."""

    plan: DemoPlan
    figures: Figures = field(default_factory=Figures)
    act: int = 0
    started: float = field(default_factory=time.monotonic)
    note: str = ""
    is_loud: bool = False
    """The note is a goal's, or a death's."""
    is_relayed: bool = True
    is_down: bool = False
    relayed: Course = field(default_factory=lambda: Course(has_relay=True))
    direct: Course = field(default_factory=lambda: Course(has_relay=False))
    outage: Outage | None = None
    is_over: bool = False

    @property
    def course(self) -> Course:
        """The one that is under way."""
        return self.relayed if self.is_relayed else self.direct

    def say(self, note: str, *, is_loud: bool = False) -> None:
        """Tell what is happening."""
        self.note, self.is_loud = note, is_loud


class Play:
    """Plays the acts, in processes of its own."""

    def __init__(self, show: Show, children: Children, tasks: TaskGroup, directory: Path) -> None:
        self.show = show
        self.figures = show.figures
        self._children = children
        self._tasks = tasks
        self._directory = directory
        matches, url = show.plan.matches, show.plan.backend
        self._backend: DemoBackend = (
            OwnBackend(children, show.figures, free_address(), matches)
            if url is None
            else OtherBackend(url, show.figures, matches, tasks)
        )
        self._relay: Child | None = None
        self._crowds: list[Child] = []
        self._score: Counter[tuple[int, int]] = Counter()
        """Goals by match and side."""

    async def play(self) -> None:
        """From the first login to the last message.

        Raises:
            DemoFailed: something did not come in time.
            ExceptionGroup: of ChildEnded.
        """
        await self._start_backend()
        await self._log_in(await self._start_relay())
        await self._work()
        if self._backend.can_die:
            await self._die_and_return()
        await self._leave_relay()
        self.show.act, self.show.is_relayed = 4, False
        await self._log_in(self._backend.url)
        await self._work()
        self.show.is_over = True

    # Processes

    async def _start_backend(self) -> None:
        await self._backend.start()
        await self._until(lambda: bool(self.figures.backend), "the backend did not start")

    async def _start_relay(self) -> str:
        is_serving = anyio.Event()

        def hear(line: str) -> None:
            if "serving on" in line:
                is_serving.set()

        file, address = self._directory / "fanwire.toml", free_address()
        path = urlsplit(self._backend.url).path
        file.write_text(RELAY.format(address=address, upstream=self._backend.url, path=path))
        self._relay = await self._children.start("relay", [*PYTHON, "fanwire", "serve", str(file)], hear_error=hear)
        self._tasks.start_soon(self._watch_relay, self._relay)
        await self._until(is_serving.is_set, "the relay did not start")
        return f"http://{address}{path}"

    async def _watch_relay(self, relay: Child) -> None:
        while self._relay is relay:
            self.figures.relay_cpu_s = relay.cpu_s
            await anyio.sleep(PROGRESS_S)

    async def _leave_relay(self) -> None:
        """End the relay and its clients."""
        assert self._relay is not None
        relay, self._relay = self._relay, None
        for child in [*self._crowds, relay]:
            await child.kill()
        self.figures.end_clients()
        await self._until(lambda: self.figures.connections == 0, "the backend kept its connections")

    # Acts

    async def _log_in(self, url: str) -> None:
        plan, figures, course = self.show.plan, self.figures, self.show.course
        course.begin, began = figures.now(), time.monotonic()
        what = "to the relay" if course.has_relay else "straight to the backend"
        self.show.say(f"{plan.clients:,} SignalR clients log in at once, {what}, for a match each")
        options = ["--subscribe", "Subscribe", "--matches", str(plan.matches), "--target", "Odds,Announcement"]
        options += ["--progress", str(PROGRESS_S), "--sources", "4", "--url", url.replace("http:", "ws:")]
        self._crowds = []
        client = load_client()
        for index, clients in enumerate(plan.crowds):
            command = [client, "signalr", *options, "--connections", str(clients)]
            crowd = await self._children.start("load client", command, partial(self._hear_crowd, index))
            await crowd.tell({"idle": {"ping_every_s": 15}})  # as stock clients do
            self._crowds.append(crowd)
        await self._until(self._are_connected, "not all clients were connected", within_s=60)
        course.login_s = time.monotonic() - began
        await self._until(lambda: figures.connections >= self._wanted(), "not all lanes were opened")
        course.clients, course.connections = figures.clients, figures.connections
        await anyio.sleep(PROGRESS_S)  # what was sent last is told by then
        course.login = figures.now().minus(course.begin)

    def _hear_crowd(self, index: int, line: str) -> None:
        if line.startswith('{"tick"'):
            self.figures.take_tick(index, msgspec.json.decode(line)["tick"])

    def _are_connected(self) -> bool:
        failures = self.figures.failures
        if failures:
            why, count = failures.most_common(1)[0]
            raise DemoFailed(f"{count:,} clients could not connect: {why}")
        return self.figures.clients == self.show.plan.clients

    def _wanted(self) -> int:
        """Connections that the backend has when all are there."""
        plan = self.show.plan
        watched = min(plan.matches, max(plan.crowds))
        return watched + 1 if self.show.is_relayed else plan.clients

    async def _work(self) -> None:
        """Odds, then odds and goals; then nothing until all has arrived."""
        show, figures, course, plan = self.show, self.figures, self.show.course, self.show.plan
        before, published_before = figures.now(), self._published()
        figures.ages_us.clear()
        show.act = max(show.act, 1)
        show.say(
            f"{plan.matches * CHANGES_A_MATCH:,.0f} changes of odds a second; each goes to all who watch that match"
        )
        await self._backend.feed(CHANGES_A_MATCH)
        await anyio.sleep(plan.act_s)
        show.act = max(show.act, 2)
        await self._score_goals()
        await self._pause()
        odds = [now - then for now, then in zip(figures.backend["odds"], published_before[0], strict=True)]
        announcements = figures.backend["announcements"] - published_before[1]
        course.published = sum(odds) + announcements
        course.expected = expected_of(odds, announcements, plan.crowds)
        show.say("a pause, until all messages have arrived")
        with anyio.move_on_after(WITHIN_S):
            while figures.now().minus(before).received < course.expected:
                await anyio.sleep(0.05)
        await anyio.sleep(2 * PROGRESS_S)
        course.work = figures.now().minus(before)
        course.received, course.ages_us = course.work.received, Counter(figures.ages_us)

    def _published(self) -> tuple[list[int], int]:
        return list(self.figures.backend["odds"]), int(self.figures.backend["announcements"])

    async def _score_goals(self) -> None:
        plan, dice = self.show.plan, random.Random(11)
        every = min(GOAL_EVERY_S, plan.act_s / 2)
        due = time.monotonic()
        for _ in range(int(plan.act_s / every)):
            match = dice.randrange(plan.matches)
            text = self._goal(match, dice.randrange(2))
            self.show.say(f"GOAL   {text}", is_loud=True)
            await self._backend.goal(match, text)
            due += every
            await anyio.sleep(max(0.0, due - time.monotonic()))

    def _goal(self, match: int, side: int) -> str:
        towns = len(TOWNS)
        home, away = TOWNS[2 * match % towns], TOWNS[(2 * match + 2 * (2 * match // towns) + 1) % towns]
        self._score[match, side] += 1
        return f"{home} {self._score[match, 0]} : {self._score[match, 1]} {away}"

    async def _die_and_return(self) -> None:
        """Kill the backend, start it again, and see who is still there."""
        show, figures, plan = self.show, self.figures, self.show.plan
        show.act = 3
        await self._backend.feed(CHANGES_A_MATCH)
        await anyio.sleep(min(1.0, plan.act_s / 4))
        outage = show.outage = Outage(time.monotonic(), figures.connections, clients=figures.clients)
        await self._backend.kill()
        show.is_down = True
        show.say("the backend is killed with -9; its clients stay where they are")
        await anyio.sleep(min(DOWN_S, plan.act_s))
        outage.started_s = time.monotonic() - outage.killed_at
        received = figures.now().received
        await self._start_backend()
        show.is_down = False
        await self._backend.feed(CHANGES_A_MATCH)
        show.say("the backend is started again, and the relay's lanes come back by themselves")
        await self._until(lambda: figures.connections >= outage.lanes, "not all lanes came back")
        outage.lanes_back_s = time.monotonic() - outage.killed_at
        await self._until(lambda: figures.now().received > received, "no client heard anything again")
        outage.heard_s = time.monotonic() - outage.killed_at
        show.say(f"{figures.clients:,} of {outage.clients:,} clients stayed; the gap was {outage.heard_s:.1f} s")
        await anyio.sleep(plan.act_s / 2)
        outage.stayed = figures.clients
        await self._pause()

    async def _pause(self) -> None:
        """Have the backend publish nothing, and say how much it was."""
        await self._backend.feed(0)
        await self._until(lambda: self.figures.backend["rate"] == 0, "the backend did not pause")
        await anyio.sleep(2 * PROGRESS_S)  # what it says now was said after its last message

    async def _until(self, is_so: Callable[[], bool], otherwise: str, *, within_s: float = WITHIN_S) -> None:
        with anyio.move_on_after(within_s):
            while not is_so():
                await anyio.sleep(0.02)
            return
        raise DemoFailed(f"{otherwise} within {within_s:.0f} s")


@asynccontextmanager
async def played(show: Show, directory: Path, tasks: TaskGroup) -> AsyncIterator[Play]:
    """A play whose processes are all killed at the end."""
    children = Children(tasks)
    try:
        yield Play(show, children, tasks, directory)
    finally:
        await children.kill()


def free_address() -> str:
    """An address to listen on, whose port no outgoing connection takes while nobody listens there."""
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(20_001, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return f"127.0.0.1:{port}"
