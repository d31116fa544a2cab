"""Stock clients that listen until a last message, each in its own way, and say what they heard.

What is heard is ``t`` or ``b``, for text and binary, and the message's SHA-256.
"""

import asyncio
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any

import aiohttp
import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from support.chromium import CHROMIUM, Tab, chromium
from support.node import NODE, node_with
from support.waiting import until_in_thread

INTEROP = Path(__file__).parents[1] / "interop"
JAVA_LIBRARIES = INTEROP / "signalr/drivers/java/target/lib"
MESSAGE_BYTES_MAX = 1 << 23
WITHIN_S = 60

Heard = list[str]
Open = Callable[[str], Callable[[], Heard]]
"""Connects one more client to a URL; what it gives waits for what that one has heard."""


def digest(message: str | bytes) -> str:
    """A message, as it is heard."""
    if isinstance(message, str):
        return "t" + hashlib.sha256(message.encode()).hexdigest()
    return "b" + hashlib.sha256(message).hexdigest()


@dataclass(frozen=True)
class Kind:
    """A kind of client. `listening` makes what opens clients until `last` is heard, in a folder of its own."""

    name: str
    listening: Callable[[str, Path], Any]
    asks_to_forget: bool = False
    """It offers ``server_no_context_takeover``."""


@contextmanager
def _threads(listen: Callable[[str, str], Heard], last: str, _folder: Path) -> Iterator[Open]:
    """Clients of Python, a thread for each."""
    with ThreadPoolExecutor(4) as pool:

        def open_one(url: str) -> Callable[[], Heard]:
            one: Future[Heard] = pool.submit(listen, url, last)
            return partial(one.result, WITHIN_S)

        yield open_one


def _websockets(options: dict[str, Any] | None, url: str, last: str) -> Heard:
    """Python's ``websockets``, with its own offer (12 bits) or another."""
    offer: dict[str, Any] = {}
    if options is not None:
        offer = {"compression": None, "extensions": [ClientPerMessageDeflateFactory(**options)]}
    heard: Heard = []
    with connect(url, proxy=None, max_size=MESSAGE_BYTES_MAX, close_timeout=1, **offer) as connection:
        while last not in heard[-1:]:
            heard.append(digest(connection.recv(timeout=WITHIN_S)))
    return heard


def _aiohttp(bits: int, url: str, last: str) -> Heard:
    """aiohttp's client, in a loop of its own."""

    async def listen() -> Heard:
        heard: Heard = []
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, compress=bits, max_msg_size=MESSAGE_BYTES_MAX) as websocket,
        ):
            while last not in heard[-1:]:
                message = await websocket.receive(timeout=WITHIN_S)
                assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), (message, heard)
                heard.append(digest(message.data))
        return heard

    return asyncio.run(listen())


@contextmanager
def _program(command: Callable[[], list[str]], options: Any, last: str, _folder: Path) -> Iterator[Open]:
    """A process that is told URLs on stdin."""
    with (
        subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        assert process.stdin is not None and process.stdout is not None
        says: dict[int, Heard] = {}
        opened = 0

        def hear(number: int) -> Heard:
            while number not in says:
                line = process.stdout.readline()
                assert line, "it ended"
                said = json.loads(line)
                assert "failed" not in said, (said["failed"], said["heard"][-3:])
                says[said["number"]] = said["heard"]
            return says[number]

        def open_one(url: str) -> Callable[[], Heard]:
            nonlocal opened
            opened += 1
            asked = {"number": opened, "url": url, "last": last, "options": options}
            process.stdin.write(json.dumps(asked) + "\n")
            return partial(pool.submit(hear, opened).result, WITHIN_S)

        try:
            yield open_one
        finally:
            process.kill()


def _node() -> list[str]:
    return [node_with("ws"), str(NODE / "deflate.js")]


def _java() -> list[str]:
    java = which("java")
    if java is None or which("javac") is None:
        pytest.skip("no Java that compiles is installed")
    if not list(JAVA_LIBRARIES.glob("okhttp-*.jar")):
        pytest.skip("no OkHttp: run `make tests/interop/signalr/drivers/java/target/.stamp`")
    return [java, "-XX:TieredStopAtLevel=1", "-cp", f"{JAVA_LIBRARIES}/*", str(INTEROP / "java/Listener.java")]


LISTEN = """
window.listen = (url, last) => {
  const one = { heard: [], failed: "" };
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  let before = Promise.resolve();
  const hear = async (data) => {
    const isText = typeof data === "string";
    const bytes = isText ? new TextEncoder().encode(data) : data;
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return (isText ? "t" : "b") + Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
  };
  socket.onmessage = ({ data }) => {
    before = before.then(() => hear(data)).then((text) => {
      one.heard.push(text);
      if (text === last) { one.isOver = true; socket.close(); }
    });
  };
  socket.onclose = ({ code, reason }) => before.then(() => { if (!one.isOver) one.failed = `${code} ${reason}`; });
  window.listening = [...(window.listening ?? []), one];
}; true
"""


@contextmanager
def _chromium(last: str, folder: Path) -> Iterator[Open]:
    """A page in Chromium."""
    if not CHROMIUM:
        pytest.skip("Chromium is not installed")
    with ExitStack() as stack:
        tab: Tab = stack.enter_context(chromium(folder))
        opened = 0

        def open_one(url: str) -> Callable[[], Heard]:
            nonlocal opened
            if not opened:
                tab.open(url.replace("ws://", "http://").partition("?")[0].replace("/ws", "/"))
                until_in_thread(lambda: tab.evaluate("document.readyState === 'complete' && location.port !== ''"))
                tab.evaluate(LISTEN)
            tab.evaluate(f"window.listen({json.dumps(url)}, {json.dumps(last)}); true")
            opened += 1
            return partial(hear, opened - 1)

        def hear(index: int) -> Heard:
            one = f"window.listening[{index}]"
            until_in_thread(lambda: tab.evaluate(f"!!({one}.isOver || {one}.failed)"))
            assert not (failed := tab.evaluate(f"{one}.failed")), failed
            heard: Heard = tab.evaluate(f"{one}.heard")
            return heard

        yield open_one


def _python(name: str, listen: Callable[..., Heard], first: Any, *, asks_to_forget: bool = False) -> Kind:
    return Kind(name, partial(_threads, partial(listen, first)), asks_to_forget)


def _of_node(name: str, options: dict[str, Any] | None, *, asks_to_forget: bool = False) -> Kind:
    return Kind(name, partial(_program, _node, options), asks_to_forget)


FORGETS_NODE = {"serverNoContextTakeover": True, "clientNoContextTakeover": True}
KINDS = [
    _python("websockets-as-it-comes", _websockets, None),
    _python("websockets-15", _websockets, {"client_max_window_bits": True}),
    _python("websockets-10", _websockets, {"server_max_window_bits": 10}),
    _python("websockets-forgets", _websockets, {"server_no_context_takeover": True}, asks_to_forget=True),
    _python("websockets-is-forgotten", _websockets, {"client_no_context_takeover": True}),
    _python("aiohttp-15", _aiohttp, 15),
    _python("aiohttp-9", _aiohttp, 9),
    _of_node("node-as-it-comes", None),
    _of_node("node-9", {"serverMaxWindowBits": 9, "clientMaxWindowBits": 9}),
    _of_node("node-forgets", FORGETS_NODE, asks_to_forget=True),
    Kind("java-okhttp", partial(_program, _java, None)),
    Kind("chromium", _chromium),
]
