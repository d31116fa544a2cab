"""A real Chromium, driven over its DevTools protocol; tests that need it are skipped where there is none."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from support.waiting import until_in_thread

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in BROWSERS if (found := shutil.which(name))), "")


class Tab:
    """A page in Chromium, driven over its DevTools protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._count = 0
        self._session: dict[str, str] = {}

    def open(self, url: str) -> None:
        """Make a tab of its own for `url`."""
        target = self.call("Target.createTarget", url=url)["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression gives there."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def call(self, method: str, **params: Any) -> Any:
        """One command and its result; events are dropped."""
        self._count += 1
        self._connection.send(json.dumps({"id": self._count, "method": method, "params": params, **self._session}))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == self._count:
                return answer["result"]


@contextmanager
def chromium(profile: Path) -> Iterator[Tab]:
    """A browser of its own, with an empty profile."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [CHROMIUM, *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        told = profile / "DevToolsActivePort"
        until_in_thread(lambda: told.exists() and "/devtools/" in told.read_text())
        port, path = told.read_text().split()
        with connect(f"ws://127.0.0.1:{port}{path}", proxy=None) as connection:
            yield Tab(connection)
    finally:
        process.terminate()
        process.wait(60)
