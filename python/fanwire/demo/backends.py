"""The backend of the demo as its acts see it: our own, which can be killed, or another that is running already."""

import json
from typing import Protocol
from urllib.error import URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import anyio
import msgspec
from anyio.abc import TaskGroup

from fanwire.demo.backend import GOAL_BURST, PATH
from fanwire.demo.figures import Figures
from fanwire.demo.processes import PYTHON, Child, Children

POLLED_EVERY_S = 0.5
ANSWERS_WITHIN_S = 5.0
PAYLOAD_BYTES = 200
"""Of another backend's odds."""


class BackendFailed(Exception):
    """Another backend does not do what the demo needs."""


class DemoBackend(Protocol):
    """What the acts ask for; what it says goes into the figures."""

    url: str
    can_die: bool

    async def start(self) -> None:
        """Begin; it is there once the figures know of it."""

    async def feed(self, changes: float) -> None:
        """Change the odds of each match so often a second from now on; 0 for not at all."""

    async def goal(self, match: int, text: str) -> None:
        """Tell all of a goal, and change the odds of its match again and again."""

    async def kill(self) -> None:
        """Kill it with -9."""


class OwnBackend:
    """A process of ours; see ``backend``."""

    can_die = True

    def __init__(self, children: Children, figures: Figures, address: str, matches: int) -> None:
        self.url = f"http://{address}{PATH}"
        self._children = children
        self._figures = figures
        self._address = address
        self._matches = matches
        self._child: Child | None = None

    async def start(self) -> None:
        """Begin, or begin anew."""

        def hear(line: str) -> None:
            self._figures.take_backend(msgspec.json.decode(line))

        command = [*PYTHON, "fanwire.demo.backend", self._address, str(self._matches)]
        self._child = await self._children.start("backend", command, hear)

    async def feed(self, changes: float) -> None:
        """Change the odds of each match so often a second from now on; 0 for not at all."""
        await self._tell({"rate": changes * self._matches})

    async def goal(self, match: int, text: str) -> None:
        """Tell all of a goal, and change the odds of its match again and again."""
        await self._tell({"goal": match, "text": text})

    async def kill(self) -> None:
        """Kill it with -9."""
        if self._child is not None:
            await self._child.kill()
            self._figures.end_backend()

    async def _tell(self, command: object) -> None:
        assert self._child is not None
        await self._child.tell(command)


class OtherBackend:
    """A backend that is running already, told what to publish over HTTP, at its root.

    Posts to ``/feed?count=N&rate=R`` (``Odds`` to m1 … mN), ``/feed/stop``, ``/publish?matches=m1&count=C`` (at once),
    ``/publish-all?target=Announcement&text=T`` (to all), ``/stats/reset``; and ``GET /stats`` gives ``connected``,
    ``bytesOut``, ``cpuMs``, ``published`` and ``publishedToAll``.
    """

    can_die = False

    def __init__(self, url: str, figures: Figures, matches: int, tasks: TaskGroup) -> None:
        self.url = url
        parts = urlsplit(url)
        self._root = f"{parts.scheme}://{parts.netloc}"
        self._figures = figures
        self._tasks = tasks
        self._rate = 0.0
        self._matches = matches
        self._bursts = [0] * matches

    async def start(self) -> None:
        """Count from here."""
        await self._call("/feed/stop")
        await self._call("/stats/reset")
        self._tasks.start_soon(self._poll)

    async def feed(self, changes: float) -> None:
        """Change the odds of each match so often a second from now on; 0 for not at all."""
        if changes:
            feed = f"count={self._matches}&rate={changes:g}&size={PAYLOAD_BYTES}&seconds=3600"
            await self._call(f"/feed?{feed}")
        else:
            await self._call("/feed/stop")
        self._rate = changes

    async def goal(self, match: int, text: str) -> None:
        """Tell all of a goal, and change the odds of its match again and again."""
        await self._call(f"/publish-all?target=Announcement&text={quote(text)}")
        await self._call(f"/publish?matches=m{match + 1}&count={GOAL_BURST}&size={PAYLOAD_BYTES}")
        self._bursts[match] += GOAL_BURST

    async def kill(self) -> None:
        """It is not ours."""
        raise AssertionError("only a backend that can die is killed")

    async def _poll(self) -> None:
        while True:
            rate, bursts = self._rate, list(self._bursts)
            stats = json.loads(await self._call("/stats", "GET"))
            steady = (int(stats["published"]) - sum(bursts)) // self._matches
            self._figures.take_backend(
                {
                    "connections": stats["connected"],
                    "bytes": stats["bytesOut"],
                    "cpu_s": stats["cpuMs"] / 1e3,
                    "odds": [steady + burst for burst in bursts],
                    "announcements": stats["publishedToAll"],
                    "rate": rate,
                }
            )
            await anyio.sleep(POLLED_EVERY_S)

    async def _call(self, path: str, method: str = "POST") -> bytes:
        def call() -> bytes:
            with urlopen(Request(self._root + path, method=method), timeout=ANSWERS_WITHIN_S) as answer:
                return bytes(answer.read())

        try:
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
        except (URLError, OSError) as error:
            raise BackendFailed(f"{method} {self._root}{path.partition('?')[0]}: {error}") from error
