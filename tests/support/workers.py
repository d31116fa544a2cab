"""Programs whose hub several workers serve, as a test starts them."""

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path

from support.waiting import until_in_thread


class Program:
    """A supervisor that runs, and what it and its workers have said."""

    patience_s = 80.0
    """So long it may take for a line, and until all have ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def said(self, pattern: str) -> list[str]:
        """Lines in which it is found."""
        return [line for line in self.lines if re.search(pattern, line)]

    def until(self, pattern: str, count: int = 1) -> str:
        """The last of so many lines."""
        until_in_thread(lambda: len(self.said(pattern)) >= count or not self._reader.is_alive(), self.patience_s)
        assert len(self.said(pattern)) >= count, (pattern, self.process.poll(), self.lines)
        return self.said(pattern)[count - 1]

    @property
    def address(self) -> str:
        """Where it serves, once all its workers do."""
        return self.until("^serving on .* with . workers$").split()[2]

    def end(self) -> None:
        """Kill it; its workers end by themselves."""
        self.process.kill()
        self.process.wait()
        self._reader.join(self.patience_s)  # each worker has the pipe, too
        assert not self._reader.is_alive(), self.lines
        assert self.process.stdout is not None
        self.process.stdout.close()


@cache
def runtime_of(folder: Path) -> str:
    """Where the sockets of a program stand that is started in this folder: a socket's path has 107 bytes at most."""
    runtime = Path(tempfile.gettempdir(), f"fw-{sha256(os.fsencode(folder)).hexdigest()[:10]}")
    if not runtime.exists():
        runtime.mkdir(mode=0o700)
        atexit.register(shutil.rmtree, runtime, ignore_errors=True)
    return str(runtime)


@contextmanager
def serving(folder: Path, source: str, *arguments: str) -> Iterator[Program]:
    """A program, from its text, with these arguments. Another process of the same folder may be about to read it."""
    written = folder / "app.py.new"
    written.write_text(source)
    written.replace(folder / "app.py")
    running = Program(started([sys.executable, "-u", "-W", "ignore", "app.py", *arguments], folder))
    try:
        yield running
    finally:
        running.end()


def started(command: list[str], folder: Path, *modules: Path, **options: object) -> subprocess.Popen[str]:
    """A process in a folder; modules are looked for in `modules` first."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [*map(str, modules), *sys.path])),
        "XDG_RUNTIME_DIR": runtime_of(folder),
    }
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=folder,
        **options,  # type: ignore[call-overload]
    )
