"""Stock clients of a compressed feed, each behind a proxy that counts what comes: for compression.py."""

import json
import selectors
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from process import Child, ChildFailed, free_port, wait_until
from session import CLIENT_CORE
from workloads import HERE, PEERS_DIR, Peer

SETTLE_ROUNDS = 120
"""As many messages as come before bytes count."""
INTERVAL_S = 1 / 20
WITHIN_S = 30.0
EVENTS = "aiohttp, event stream", "Chromium, event stream"
SHARES_MAX = {"Node ws": 0.10, "aiohttp": 0.10, "Chromium": 0.10, "websockets": 0.13} | dict.fromkeys(EVENTS, 0.10)
"""What the bytes on the wire may be of the messages'; Python's websockets asks for a window of 12 bits."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
PAGE = """<!doctype html><title>listens</title><script>
const heard = { messages: 0, bytes: 0 };
const url = location.hash.slice(1);
const socket = url.startsWith("ws") ? new WebSocket(url) : new EventSource(url);
socket.onmessage = ({ data }) => { heard.messages += 1; heard.bytes += data.length; };
setInterval(() => fetch("/heard", { method: "POST", body: JSON.stringify(heard) }), 200);
</script>"""

Heard = Callable[[], dict[str, Any]]


class Proxy:
    """Passes one connection on to a port of this machine; `bytes_down` counts what came from there."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.bytes_down = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        client = self._listener.accept()[0]
        server = socket.create_connection(("127.0.0.1", self._server_port))
        with selectors.DefaultSelector() as select, client, server, suppress(OSError):
            select.register(client, selectors.EVENT_READ, server)
            select.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in select.select():
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        return
                    self.bytes_down += len(data) if key.data is client else 0
                    key.data.sendall(data)


@contextmanager
def _program(name: str, command: list[str]) -> Iterator[Heard]:
    """A client that answers on stdout."""
    with Child(name, command, [CLIENT_CORE]) as child:

        def heard() -> dict[str, Any]:
            child.send({"tell": True})
            found: dict[str, Any] = child.wait_for("heard", WITHIN_S)
            return found

        yield heard


@contextmanager
def _chromium(browser: str, url: str, folder: Path) -> Iterator[Heard]:
    """A page in a browser, which tells the server of the page."""
    told: dict[str, Any] = {"messages": 0, "bytes": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(PAGE.encode())

        def do_POST(self) -> None:
            told.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        port = pages.server_address[1]
        page, profile = f"http://127.0.0.1:{port}/#{url}", folder / f"profile-{port}"
        command = [browser, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", page]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield lambda: dict(told)
        finally:
            process.terminate()
            process.wait(WITHIN_S)
            pages.shutdown()


def _clients(port: int, folder: Path, stack: ExitStack) -> dict[str, tuple[Proxy, Heard]]:
    """One of each kind that this machine has."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    listen = [sys.executable, str(HERE / "listen.py")]
    commands = {"websockets": [*listen, "websockets"], "aiohttp": [*listen, "aiohttp"]}
    if shutil.which("node") and (PEERS_DIR / "node/node_modules/ws").is_dir():
        commands["Node ws"] = ["node", str(PEERS_DIR / "node/listen.js")]
    made: dict[str, tuple[Proxy, Heard]] = {}
    for name, command in commands.items():
        proxy = Proxy(port)
        url = f"ws://127.0.0.1:{proxy.port}/ws?channel=c0"
        made[name] = (proxy, stack.enter_context(_program(name, [*command, url])))
    if browser:
        proxy = Proxy(port)
        url = f"ws://127.0.0.1:{proxy.port}/ws?channel=c0"
        made["Chromium"] = (proxy, stack.enter_context(_chromium(browser, url, folder)))
    for name in EVENTS if browser else EVENTS[:1]:
        proxy = Proxy(port)
        url = f"http://127.0.0.1:{proxy.port}/events?channel=c0"
        command = [*listen, "events", url]
        opening = _chromium(browser, url, folder) if browser and name in EVENTS[1:] else _program(name, command)
        made[name] = (proxy, stack.enter_context(opening))
    return made


def stock_clients(
    peer: Peer, feed: Path, seconds: float, folder: Path, say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """For each kind of client that there is: bytes on its wire as a share of the messages', once it has the context.

    Each has to have heard every message whole; else it is left out, and why is said.
    """
    port = free_port()
    found: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        try:
            server = stack.enter_context(Child(peer.name, [*peer.command, "--port", str(port)], peer.cores))
            server.wait_for("ready", WITHIN_S)
            clients = _clients(port, folder, stack)
            everyone = {"connections": len(clients)}
            wait_until("stock", lambda: _asked(server), "connect", lambda told: told == everyone, WITHIN_S, 0.1)
            published = 0
            before: dict[str, int] = {}
            for rounds in (SETTLE_ROUNDS, round(seconds / INTERVAL_S)):
                before = {name: proxy.bytes_down for name, (proxy, _) in clients.items()}
                server.send({"publish": {"rounds": rounds, "burst": 1, "interval_s": INTERVAL_S, "feed": str(feed)}})
                told = server.wait_for("published", WITHIN_S + seconds * 2)
                published += rounds
                for name, (_, heard) in clients.items():
                    wait_until(name, heard, "hear", lambda one, all=published: one["messages"] == all, WITHIN_S, 0.1)
        except ChildFailed as error:
            say(f"stock clients: {str(error).splitlines()[-1]}")
            return {}
        for name, (proxy, _) in clients.items():
            share = (proxy.bytes_down - before[name]) / told["payload_bytes"]
            found[name] = {"share": share, "at_most": SHARES_MAX[name]}
            say(f"stock {name:<22} {share:.4f} of raw, at most {SHARES_MAX[name]}")
    return found


def _asked(server: Child) -> dict[str, Any]:
    server.send({"connections": True})
    told: dict[str, Any] = server.wait_for("connections", WITHIN_S)
    return told
