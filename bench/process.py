"""Child processes that talk JSON lines: servers and the load client, each pinned to its cores."""

import json
import os
import queue
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO, Any, Self

CORES = os.sched_getaffinity(0)
"""What this machine lets us use, before anybody is pinned."""


class ChildFailed(RuntimeError):
    """A child ended, refused or said nothing in time; carries the tail of its stderr."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    who: str,
    look: Callable[[], dict[str, Any]],
    what: str,
    holds: Callable[[dict[str, Any]], bool],
    within_s: float,
    poll_s: float,
) -> None:
    """Look at counters, every `poll_s` seconds, until that holds. Raises ChildFailed after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not holds(found := look()):
        if time.monotonic() > deadline:
            raise ChildFailed(f"{who}: {what}: {found}")
        time.sleep(poll_s)


class Child:
    """One process, its commands and its answers. A thread reads stdout, so that it never blocks on a full pipe."""

    def __init__(self, name: str, command: Sequence[str], cores: Sequence[int]) -> None:
        """Remember what to start; ``with`` starts it and ends it."""
        self.name = name
        self.command = list(command)
        self.cores = set(cores)
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start it, on its cores from its first instruction."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores & CORES or CORES)  # inherited by the child and all it starts
        try:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, bufsize=1
            )
        except OSError as error:
            raise ChildFailed(f"{self.name} does not start: {error}") from error
        finally:
            os.sched_setaffinity(0, before)
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its stdin, which is its order to quit; kill it when it stays."""
        if self._process is not None:
            try:
                if self._process.stdin is not None:
                    self._process.stdin.close()
                self._process.wait(timeout=10)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
        self._errors.close()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process is not None and self._process.poll() is not None

    def send(self, command: dict[str, Any]) -> None:
        """Write one command."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ChildFailed(f"{self.name} is gone\n{self.complaints()}") from error

    def wait_for(self, key: str, timeout_s: float) -> Any:
        """The next answer that has `key`: the whole object when its value is a bare flag or number, else the value.

        Answers without `key` (ticks) are skipped. Raises ChildFailed after `timeout_s` seconds or at its end.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise ChildFailed(f"{self.name}: no {key!r} in {timeout_s:.0f} s\n{self.complaints()}") from None
            if answer is None:
                self._answers.put(None)
                raise ChildFailed(f"{self.name} ended before it said {key!r}\n{self.complaints()}")
            if key in answer:
                return answer[key] if isinstance(answer[key], dict) else answer

    def complaints(self) -> str:
        """The last 1,500 characters of its stderr."""
        return self.errors()[-1500:].strip()

    def errors(self) -> str:
        """Its stderr so far."""
        with open(f"/proc/self/fd/{self._errors.fileno()}", errors="replace") as copy:  # noqa: PTH123 (a descriptor)
            return copy.read()

    def wait_until_logged(self, text: str, timeout_s: float) -> None:
        """Wait until its stderr has that. Raises ChildFailed after `timeout_s` seconds or at its end."""
        deadline = time.monotonic() + timeout_s
        while text not in self.errors():
            if time.monotonic() > deadline or self.is_over:
                raise ChildFailed(f"{self.name} never said {text!r}\n{self.complaints()}")
            time.sleep(0.05)

    def hears(self, answer: dict[str, Any]) -> bool:
        """Told of each answer, in the thread that reads; whether nobody is to wait for it."""
        return False

    def _read(self) -> None:
        """Body of the reading thread."""
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            if isinstance(answer, dict) and not self.hears(answer):
                self._answers.put(answer)
        self._answers.put(None)
