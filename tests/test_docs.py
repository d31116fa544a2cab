"""Every snippet of the documentation is run as it stands, or read as what it is: none is left out.

A Python snippet is a program, run as one of its own on a port of this test's, and a check talks to it; or it is part of
one, and runs inside a hub that serves.
"""

import ast
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from fanwire.cli.options import settings
from support.raw import ACCEPT, frame, free_port, open_socket, read_frame, read_head, request_text, upgraded
from support.redis import SERVER, redis_server

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = "127.0.0.1:8000"
"""Where the pages serve."""


def blocks(page: Path, language: str) -> list[str]:
    """The page's snippets in a language, in order."""
    return [text for found, text in BLOCK.findall(page.read_text()) if found == language]


def numbered(language: str) -> list[tuple[str, int]]:
    """All snippets in a language: the page's name, and the number among those of the page."""
    return [(page.name, index) for page in PAGES for index in range(len(blocks(page, language)))]


def snippet(name: str, language: str, index: int) -> str:
    """One of them."""
    return blocks(next(page for page in PAGES if page.name == name), language)[index]


# Programs


@contextmanager
def running(program: str, folder: Path) -> Iterator[str]:
    """The address of a snippet that serves, while it runs; then Ctrl-C, which it has to obey."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    assert PORT in program
    file = folder / "snippet.py"
    file.write_text(program.replace(PORT, address))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # A background job of a shell ignores Ctrl-C, and its children would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    said = folder / "stderr"
    with said.open("w") as stderr:
        process = subprocess.Popen([sys.executable, str(file)], stderr=stderr, env=environment)
    try:
        while True:
            assert process.poll() is None, said.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 8).close()
                break
            except ConnectionRefusedError:
                continue
        yield address
        assert process.poll() is None, said.read_text()
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
        process.wait(60)


def received(connection: socket.socket) -> Any:
    """The next message, parsed."""
    return json.loads(read_frame(connection).payload)


def watched(address: str, target: str, **fields: str) -> Any:
    """The first message that who connects gets."""
    with open_socket(address) as connection:
        connection.sendall(request_text(target, **fields))
        head = read_head(connection)
        assert ACCEPT in head, head
        return received(connection)


def check_signalr(address: str) -> None:
    """The page on SignalR: negotiation, a call that subscribes, what is published then."""
    negotiated = httpx.post(f"http://{address}/signalr/negotiate?negotiateVersion=1", trust_env=False).json()
    with upgraded(address, f"/signalr?id={negotiated['connectionToken']}") as connection:
        for record in ({"protocol": "json", "version": 1}, {"type": 1, "target": "watch", "arguments": ["7"]}):
            connection.sendall(frame(1, f"{json.dumps(record)}\x1e".encode()))
        text = b""
        while b'"target":"odds"' not in text:
            text += read_frame(connection).payload
        assert b'"arguments":[{"home":1.85}]' in text


def check_clock(address: str) -> None:
    """The quickstart."""
    assert "now" in watched(address, "/ws?channel=time")


PROGRAMS: dict[tuple[str, int], Callable[[str], None]] = {
    ("README.md", 0): check_clock,
    ("signalr.md", 0): check_signalr,
}
"""What is a program, and what is looked at while it runs."""


@pytest.mark.parametrize(("page", "index"), PROGRAMS, ids=lambda value: str(value))
@pytest.mark.slow
def test_a_program_of_the_docs_runs_as_it_stands(page: str, index: int, tmp_path: Path) -> None:
    with running(snippet(page, "python", index), tmp_path) as address:
        PROGRAMS[page, index](address)


# Parts of programs


class Database:
    """What a page's snippet asks."""

    async def board(self, match: str) -> dict[str, str]:
        """The state of a match."""
        return {"match": match}


PARTS: dict[tuple[str, int], tuple[bool, str]] = {
    ("broadcaster.md", 0): (False, "assert repr(broadcast._backend).startswith('<fanwire.compat.broadcaster')"),
    ("channels.md", 0): (False, "assert callable(Odds.fanwire_send)"),
    ("filters.md", 0): (False, "assert callable(price)"),
    ("filters.md", 1): (False, "assert callable(may_watch)"),
    ("fastapi.md", 0): (False, "assert manager.active_connections == []"),
    ("fastapi.md", 1): (False, "assert app.url_path_for('events', match='7') == '/events/7'"),
    ("litestar.md", 0): (False, "assert plugin._backend.hub"),
    ("socketio.md", 0): (False, "assert isinstance(sio.manager, AsyncFanwireManager)"),
    ("monitoring.md", 1): (False, "assert hub._callbacks.tracing"),
    ("monitoring.md", 0): (False, "logging.root.removeHandler(handler)\nassert handler.formatter"),
    ("records.md", 0): (False, "assert position"),
    ("records.md", 1): (False, "settle('7')"),
    ("socketio.md", 1): (False, "assert sio.manager is manager"),
    ("socketio.md", 2): (False, "assert outside.write_only"),
    ("socketio.md", 3): (False, "assert AsyncFanwireManager in Clients.mro()[2:-1]"),
    ("sources.md", 0): (False, "assert callable(main)"),
    ("sources.md", 1): (False, "assert callable(place_bet)"),
    ("promises.md", 0): (False, "assert hub is not given"),
    ("promises.md", 1): (True, "assert (await page('7'))['since'][1] == 0"),
    ("promises.md", 2): (False, "assert await board('board:7') == {'match': '7'}"),
    ("promises.md", 3): (True, "assert heard.data == {'home': 1.85}"),
    ("promises.md", 4): (True, "assert delivery.subscribers == 0"),
}
"""What is part of a program: whether the hub serves by then, and what is true behind it."""


@pytest.fixture
def backbone(tmp_path: Path) -> Iterator[str]:
    """The URL of a server that pages name by another address. Skips where there is none."""
    if SERVER is None:
        pytest.skip("there is no redis-server or valkey-server")
    with redis_server(tmp_path) as one:
        yield one.url


@pytest.mark.parametrize(("page", "index"), PARTS, ids=lambda value: str(value))
def test_a_part_of_a_program_runs_as_it_stands(page: str, index: int, request: pytest.FixtureRequest) -> None:
    serves, claim = PARTS[page, index]
    text = f"{snippet(page, 'python', index)}\n{claim}"
    if "redis://10.0.0.5:6379" in text:
        text = text.replace("redis://10.0.0.5:6379", request.getfixturevalue("backbone"))
    code = compile(text, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    hub = fanwire.Hub()

    async def main() -> None:
        names = {"fanwire": fanwire, "hub": hub, "given": hub, "database": Database()}
        async with hub.serve("127.0.0.1:0") if serves else nullcontext():
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result

    anyio.run(main)


def test_no_snippet_in_python_is_left_out() -> None:
    # Each page has a file of its own: test_admin_docs.py, test_asgi_direct.py, test_scope.py, test_siblings.py …
    pages = (
        "admin.md",
        "asgi.md",
        "dropin.md",
        "machines.md",
        "scope.md",
        "testing.md",
        "tutorial.md",
        "types.md",
        "workers.md",
    )
    tested_elsewhere = {(page, index) for page, index in numbered("python") if page in pages}
    assert PROGRAMS.keys() | PARTS.keys() | tested_elsewhere == set(numbered("python"))


# Frameworks

FRAMEWORKS = {
    "aiohttp": ("aiohttp-attached",),
    "broadcaster": ("broadcaster-fanwire",),
    "channels": ("channels-fanwire", "channels-daphne-fanwire"),
    "litestar": ("litestar-attached",),
    "socketio": ("socketio-fanwire", "socketio-aiohttp-fanwire"),
    "websockets": ("websockets-attached", "websockets-broadcast"),
}
"""The pages that say which lines differ, and the rows of bench/results that say what it gains."""


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_page_of_a_framework_has_its_difference_and_names_what_is_measured(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text()
    measured = ROOT / "bench" / ("dropin.py" if name == "websockets" else "dropin_rooms.py")
    assert f"(../bench/results/{measured.stem}.md)" in page
    rows = re.findall(r'python_peer\(\s*"([\w-]+)"', measured.read_text())
    for row in FRAMEWORKS[name]:
        assert f"`{row}`" in page
        assert row in rows
    added = [line for line in blocks(ROOT / "docs" / f"{name}.md", "diff")[0].splitlines() if line.startswith("+")]
    told = re.search(rf'"{FRAMEWORKS[name][0]}": "(\d+) line', measured.read_text())
    assert added and (told is None or len(added) == int(told[1]))


# Settings, scripts, shells


@pytest.mark.parametrize(("page", "index"), numbered("toml"), ids=lambda value: str(value))
def test_a_file_of_settings_is_accepted(page: str, index: int, tmp_path: Path) -> None:
    text = snippet(page, "toml", index)
    if "[[relay]]" not in text:
        text = f'[[relay]]\npath = "/live"\nupstream = "http://127.0.0.1:5000/live"\n{text}'
    file = tmp_path / "fanwire.toml"
    file.write_text(text)
    secrets = re.findall(r'env = "(\w+)"', text)
    given = {name: "redis://127.0.0.1" if name.endswith("_URL") else 20 * "x" for name in secrets}
    assert settings(file, given, {}).relay


@pytest.mark.skipif(not shutil.which("node"), reason="there is no node")
@pytest.mark.parametrize(("page", "index"), numbered("js"), ids=lambda value: str(value))
def test_a_script_can_be_read(page: str, index: int) -> None:
    """Those of the tutorial and the README are run in Chromium by test_welcome.py, where the page shows them."""
    command = ["node", "--check", "--input-type=module", "-"]
    done = subprocess.run(command, input=snippet(page, "js", index), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_of_a_shell_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [line for page in PAGES for text in blocks(page, "sh") for line in text.splitlines()]
    asked = {match[1] for line in commands if (match := re.match(r"make ([a-z]+)", line))}
    assert asked and asked <= targets
    subcommands = {match[1] for line in commands if (match := re.match(r"fanwire ([a-z]+)", line))}
    assert subcommands <= {
        "serve",
        "check",
        "demo",
        "load",
        "script",
        "publish",
        "tail",
        "clients",
        "channels",
        "disconnect",
        "stats",
    }


def test_there_is_no_snippet_of_a_kind_that_nothing_looks_at() -> None:
    looked_at = {
        "python",
        "toml",
        "js",
        "sh",
        "",
        "nginx",
        "caddy",
        "diff",
        "json",
    }  # those by test_examples.py, test_admin_docs.py
    assert {language for page in PAGES for language, _ in BLOCK.findall(page.read_text())} <= looked_at
