"""The demo's processes: started, told, heard, and all killed at the end. Not here: what they say."""

import os
import shutil
import sys
import sysconfig
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import TypeAlias

import anyio
import msgspec
from anyio.abc import ByteReceiveStream, Process, TaskGroup
from anyio.streams.text import TextReceiveStream

PYTHON = [sys.executable, "-m"]
SAID_MAX = 20
"""Last lines of a process's stderr that are kept, for when it fails."""
GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError)
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
Hear: TypeAlias = Callable[[str], None]


def ignore(line: str) -> None:
    """Nobody listens."""


class ChildEnded(Exception):
    """A process ended before its time."""


class Child:
    """One process, and what it says line by line: JSON on stdout, anything on stderr."""

    def __init__(self, name: str, process: Process, tasks: TaskGroup, hear: Hear, hear_error: Hear) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._hear = hear
        self._hear_error = hear_error
        self._said: deque[str] = deque(maxlen=SAID_MAX)
        self._is_killed = False
        assert process.stdout is not None and process.stderr is not None
        tasks.start_soon(self._read, process.stdout)
        tasks.start_soon(self._read_errors, process.stderr)

    async def tell(self, command: object) -> None:
        """Send it a command."""
        assert self._process.stdin is not None
        with suppress(*GONE):  # that it has ended is noticed by whoever reads it
            await self._process.stdin.send(msgspec.json.encode(command) + b"\n")

    async def kill(self) -> None:
        """Kill it with -9, and wait for its end."""
        self._is_killed = True
        with anyio.CancelScope(shield=True):
            if self._process.returncode is None:
                with suppress(ProcessLookupError):  # it has just ended
                    self._process.kill()
            await self._process.aclose()

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all its threads, 0 once it is gone (proc(5), ``stat``)."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND

    async def _read(self, stream: ByteReceiveStream) -> None:
        await self._lines(stream, self._hear)
        if not self._is_killed:
            await self._process.wait()
            await anyio.sleep(0.1)  # for what it says last
            raise ChildEnded(f"the {self.name} ended: {self._said[-1] if self._said else 'it said nothing'}")

    async def _read_errors(self, stream: ByteReceiveStream) -> None:
        def keep(line: str) -> None:
            self._said.append(line)
            self._hear_error(line)

        await self._lines(stream, keep)

    async def _lines(self, stream: ByteReceiveStream, hear: Hear) -> None:
        rest = ""
        with suppress(*GONE):
            async for text in TextReceiveStream(stream, errors="replace"):
                *lines, rest = (rest + text).split("\n")
                for line in filter(None, lines):
                    hear(line)


class Children:
    """All processes of the demo."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._all: list[Child] = []

    async def start(self, name: str, command: list[str], hear: Hear = ignore, hear_error: Hear = ignore) -> Child:
        """Start one, in a session of its own: Ctrl-C reaches it through us."""
        process = await anyio.open_process(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)
        child = Child(name, process, self._tasks, hear, hear_error)
        self._all.append(child)
        return child

    async def kill(self) -> None:
        """Kill all that are left."""
        with anyio.CancelScope(shield=True):
            for child in self._all:
                await child.kill()


NAME = "fanwire-load"


class LoadClientMissing(Exception):
    """The program cannot be found."""

    def __init__(self) -> None:
        super().__init__(f"the program {NAME} is not there: install the package {NAME} (make wheel builds it)")


def load_client() -> str:
    """The program's path: beside the interpreter's scripts, or on PATH. Raises LoadClientMissing."""
    folders = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    found = shutil.which(NAME, path=folders)
    if found is None:
        raise LoadClientMissing
    return found
