"""A program with its test, on a machine that has no more than macOS or Windows: run with the platform's name."""

import importlib
import os
import pkgutil
import select
import selectors
import signal
import socket
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import fastapi
from fastapi.testclient import TestClient

FOREIGN = """
aiohttp.web broadcaster channels.layers daphne.server litestar.channels prometheus_client psycopg redis.asyncio socketio
uvicorn.protocols.websockets.websockets_sansio_impl websockets.asyncio.server
"""
"""Imported before anything is hidden: their own looks at the platform are not what is tried here."""
MODULES = {"win32": {"fcntl", "resource", "termios", "pwd", "grp", "syslog"}, "darwin": set[str]()}
NAMES: dict[str, dict[Any, str]] = {
    "darwin": {
        select: "epoll EPOLLIN EPOLLOUT EPOLLET",
        os: "eventfd eventfd_read eventfd_write memfd_create sched_getaffinity sched_setaffinity splice",
        socket: "TCP_CONGESTION SO_PEERCRED SOCK_CLOEXEC SOCK_NONBLOCK TCP_USER_TIMEOUT",
    },
    "win32": {
        os: "fork register_at_fork getuid geteuid getgid uname killpg setsid waitid",
        signal: "SIGUSR1 SIGUSR2 SIGHUP SIGPIPE SIGKILL SIGCHLD SIGALRM SIGQUIT pthread_sigmask setitimer",
        socket: "AF_UNIX SO_REUSEPORT CMSG_LEN",
    },
}
NAMES["win32"] = {module: f"{names} {NAMES['darwin'].get(module, '')}" for module, names in NAMES["win32"].items()} | {
    select: "epoll EPOLLIN EPOLLOUT EPOLLET poll kqueue"
}
LINUX_ALONE = {"fanwire.cli", "fanwire.demo", "fanwire.metrics"}
"""The command line, which says what is missing."""


class Hidden(MetaPathFinder):
    """Has modules not be there."""

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def tcp_pair(*kinds: int) -> tuple[socket.socket, socket.socket]:
    """What Python makes of a pair of sockets on Windows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def hide(platform: str) -> None:
    """Have this process be one of another system, as far as fanwire can see."""
    for name in MODULES[platform]:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Hidden(MODULES[platform]))
    if platform == "win32":
        socket.socketpair = tcp_pair  # type: ignore[assignment]
    selectors.DefaultSelector = selectors.SelectSelector  # type: ignore[misc, assignment]
    for module, names in NAMES[platform].items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "fanwire"]:
        del sys.modules[name]
    sys.platform = platform  # type: ignore[misc]


def import_all() -> None:
    """Every module of the library."""
    package = importlib.import_module("fanwire")
    for found in pkgutil.walk_packages([str(Path(package.__file__ or "").parent)], "fanwire."):
        if not any(f"{found.name}.".startswith(f"{name}.") for name in LINUX_ALONE):
            importlib.import_module(found.name)


def try_program() -> None:
    """A chat, as a team would write and test it."""
    import fanwire
    import fanwire.fastapi

    hub = fanwire.Hub({"room": fanwire.Channel(history=10)}, congestion_control="cubic")
    app = fastapi.FastAPI(lifespan=hub.lifespan)
    manager = fanwire.fastapi.ConnectionManager()

    @app.websocket("/ws")
    async def chat(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        await hub.adopt(websocket, ["room"], start="history", on_message=lambda text: hub.publish("room", text))

    @app.websocket("/all")
    async def everyone(websocket: fastapi.WebSocket) -> None:
        await manager.connect(websocket)
        try:
            while True:
                await manager.broadcast(await websocket.receive_text())
        except fastapi.WebSocketDisconnect:
            manager.disconnect(websocket)

    with TestClient(app) as client, client.websocket_connect("/ws") as ann, client.websocket_connect("/all") as cid:
        ann.send_text("hello")
        assert ann.receive_text() == "hello"
        with client.websocket_connect("/ws") as bob:
            assert bob.receive_text() == "hello"
            ann.send_text("hi bob")
            assert [one.receive_text() for one in (ann, bob)] == ["hi bob"] * 2
        cid.send_text("all")
        assert cid.receive_text() == "all"


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))  # redis.py stands there, too
    for name in FOREIGN.split():
        importlib.import_module(name)
    hide(sys.argv[1])
    import_all()
    try_program()
    sys.stdout.write(f"{sys.argv[1]}: all is well\n")
