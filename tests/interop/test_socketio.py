"""The stock JavaScript client of Socket.IO and the example for python-socketio, as it is and as it was before."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.chromium import CHROMIUM, Tab, chromium
from support.examples import EXAMPLES, before, example
from support.node import NODE, node_with
from support.waiting import until_in_thread

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]
CLIENT = NODE / "node_modules/socket.io-client/dist/socket.io.min.js"


@pytest.fixture
def node() -> str:
    """The path of node."""
    return node_with("socket.io-client")


@pytest.fixture(params=["before", "after"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The example, and what the page of the docs says that it was."""
    if request.param == "after":
        return Path("socketio_rooms.py")
    was = before("socketio_rooms.py", "socketio.md")
    assert "fanwire" not in was
    path = tmp_path / "was.py"
    path.write_text(was)
    (tmp_path / "socketio_rooms").symlink_to(EXAMPLES / "socketio_rooms")
    return path


class Talker:
    """One client."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def hears(self) -> Any:
        """The next that it prints."""
        assert self._process.stdout is not None
        return tuple(json.loads(self._process.stdout.readline()))

    def says(self, event: str, value: str) -> None:
        """Have it emit."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([event, value]) + "\n")
        self._process.stdin.flush()


@contextmanager
def talker(node: str, address: str, name: str, transports: str) -> Iterator[Talker]:
    """One client, until it has heard "bye"."""
    command = [node, str(NODE / "socketio.js"), address, name, transports]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env={**os.environ, "NO_PROXY": "*"}, **pipes) as process:
        try:
            yield Talker(process)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_what_is_said_and_shown_reaches_the_stock_client_over_all_its_transports(program: Path, node: str) -> None:
    with (
        example(str(program), "127.0.0.1:0", str(CLIENT)) as address,
        talker(node, address, "ann", "websocket") as ann,
        talker(node, address, "bob", "polling") as bob,
        talker(node, address, "cleo", "polling,websocket") as cleo,
    ):
        clients = (ann, bob, cleo)
        assert [client.hears() for client in clients] == [("joined", [])] * 3
        for number, client in enumerate(clients * 5):
            client.says("say", f"{number}")
            by = ("ann", "bob", "cleo")[number % 3]
            assert [one.hears() for one in clients] == [("said", {"by": by, "text": f"{number}"})] * 3
        if program.name == "socketio_rooms.py":  # theirs has one form for those who poll and the others
            ann.says("show", "00ff")
            assert [client.hears() for client in (bob, cleo)] == [("shown", "00ff")] * 2
        bob.says("say", "bye")
        bye = ("said", {"by": "bob", "text": "bye"})
        assert [client.hears() for client in clients] == [bye] * 3, "who shows a picture does not get it"


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_in_a_browser_the_page_joins_says_and_shows(program: Path, node: str, tmp_path: Path) -> None:
    with (
        example(str(program), "127.0.0.1:0", str(CLIENT)) as address,
        chromium(tmp_path / "profile") as tab,
        talker(node, address, "bob", "websocket") as bob,
    ):
        assert bob.hears() == ("joined", [])
        bob.says("say", "before")
        assert bob.hears() == ("said", {"by": "bob", "text": "before"})
        tab.open(f"{address}?name=ann")
        until_in_thread(lambda: lines(tab) == ["bob before"])
        tab.evaluate("byId('text').value = 'hello'; byId('say').requestSubmit()")
        assert bob.hears() == ("said", {"by": "ann", "text": "hello"})
        bob.says("show", "00ff")
        until_in_thread(lambda: lines(tab) == ["a picture ", "ann hello", "bob before"])
        assert tab.evaluate("document.querySelector('img').src").startswith("blob:")
        bob.says("say", "bye")
        assert bob.hears() == ("said", {"by": "bob", "text": "bye"})


def lines(tab: Tab) -> Any:
    """What the page shows, the newest first."""
    return tab.evaluate("[...document.querySelectorAll('#said li')].map(line => line.textContent)")
