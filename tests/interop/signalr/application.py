"""A client whose application does one thing after the other, as a test tells it."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clients import Mode
from stage import STORY_WITHIN_S, Seen, driver, seen
from websockets.sync.client import connect

WITHIN_S = 15


class Application:
    """The commands of a driver, one at a time, and the events that come of them."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _hear(self) -> bool:
        """Take one more event; false at the end."""
        line = self._lines.get(timeout=WITHIN_S)
        if line:
            self.events.append(json.loads(line))
            assert self.events[-1]["ev"] not in ("failed", "timeout"), self.events
        return bool(line)

    def do(self, op: str, **members: Any) -> None:
        """Give a command; it is carried out when those before it are."""
        self._process.stdin.write(json.dumps({"op": op, **members}) + "\n")
        self._process.stdin.flush()

    def until(self, ev: str, *, count: int = 1, **members: Any) -> dict[str, Any]:
        """The event of this kind that makes them `count` since the start."""
        wanted = {"ev": ev, **members}.items()
        try:
            while len(found := [event for event in self.events if wanted <= event.items()]) < count:
                assert self._hear(), f"it is over without {count} of {dict(wanted)}: {self.events}"
        except queue.Empty:
            raise AssertionError(f"there are not {count} of {dict(wanted)}: {self.events}") from None
        return found[count - 1]

    def start(self, *targets: str) -> None:
        """Listen to these targets, which have one argument, and connect."""
        for target in targets:
            self.do("on", target=target)
        self.do("start")
        self.until("started")

    def call(self, id: str, method: str, *args: Any) -> Any:
        """What a method answers, or the error's text."""
        self.do("invoke", id=id, method=method, args=args)
        while not (about := [event for event in self.events if event.get("id") == id]):
            assert self._hear(), f"it is over without an answer to {id}: {self.events}"
        return about[0].get("value", about[0].get("message"))

    def finish(self) -> Seen:
        """All that was seen, once the application is over."""
        self._process.stdin.close()
        while self._hear():
            pass
        status = self._process.wait(STORY_WITHIN_S)
        assert status == 0, (status, self.events[-3:], self._process.stderr.read()[-2000:])
        return seen(self.events, status)


@contextmanager
def application(mode: Mode, url: str, *features: str) -> Iterator[Application]:
    """A client with these features switched on."""
    with driver(mode, url, None, *features) as process:
        try:
            yield Application(process)
        finally:
            process.kill()


def announce(hub: str, *texts: str) -> None:
    """Have the hub tell everybody, and return once it has: a client of its own, without a library."""
    with connect(f"{hub.replace('http', 'ws', 1)}/live", compression=None, proxy=None) as connection:
        connection.send('{"protocol":"json","version":1}\x1e')
        assert connection.recv(WITHIN_S) == "{}\x1e"
        for text in texts:
            call = {"type": 1, "invocationId": text, "target": "Announce", "arguments": [text]}
            connection.send(json.dumps(call) + "\x1e")
            while f'{{"type":3,"invocationId":"{text}"' not in str(connection.recv(WITHIN_S)):
                pass
