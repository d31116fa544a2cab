"""What a message costs in a hub that is mounted in an application: ``python bench/mounted.py``.

One uvicorn process for each protocol, with uvloop, and 300 clients of one channel: one message at a time, or 20. Under
fanwire's protocol the engine serves the sockets itself; under uvicorn's own, Python passes each message on. The figure
is the server's processor time for a message and a client, which a busy machine changes less than the rate. Clients do
not negotiate compression. Prints a table in Markdown.
"""

import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROTOCOLS = ("fanwire.uvicorn:Protocol", "websockets-sansio")
ROWS = ((1, 60), (20, 12))
"""Messages at a time, and how often."""
CLIENTS, START_S, TURN_S = 300, 20.0, 0.05
MESSAGE = "x" * 200
FRAME_BYTES = 4 + len(MESSAGE)
REQUEST = (
    b"GET /live/ws?channel=a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def application() -> Any:
    """The server's."""
    import fanwire
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    async def publish(request: Request) -> Response:
        for _ in range(int(request.path_params["count"])):
            hub.publish("a", MESSAGE)
        return Response()

    hub = fanwire.Hub()
    app = Starlette(lifespan=hub.lifespan)
    app.add_route("/publish/{count}", publish)
    app.mount("/live", hub.asgi())
    return app


def processor_s(process: int) -> float:
    """What a process has used, user and system."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def dial(port: int, until: float) -> socket.socket:
    """A connected socket."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def subscribed(port: int) -> socket.socket:
    """One client of the channel."""
    client = dial(port, time.monotonic() + START_S)
    client.sendall(REQUEST)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert b" 101 " in head, head
    client.setblocking(False)
    return client


def publish(port: int, count: int) -> None:
    """Have so many messages published at once."""
    with dial(port, time.monotonic()) as asking:
        asking.sendall(b"GET /publish/%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % count)
        while asking.recv(4096):
            pass


def measure(port: int, process: int, clients: list[socket.socket], at_a_time: int, turns: int) -> float:
    """Microseconds of the server's for a message and a client, publishing left out as nothing beside it."""
    begin = processor_s(process)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        for _ in range(turns):
            publish(port, at_a_time)
            missing = len(clients) * at_a_time * FRAME_BYTES
            while missing > 0:
                for key, _ in selector.select(5):
                    missing -= len(key.fileobj.recv(1 << 18))  # type: ignore[union-attr]
            time.sleep(TURN_S)
    return (processor_s(process) - begin) / (len(clients) * at_a_time * turns) * 1e6


def main() -> None:
    """Print the table."""
    print("| `--ws` | 1 at a time | 20 at a time |\n|---|---|---|")
    for protocol in PROTOCOLS:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = [f"--ws={protocol}", f"--port={port}", "--loop=uvloop", "--log-level=error", "--factory"]
        command = [sys.executable, "-m", "uvicorn", *options, "mounted:application"]
        process = subprocess.Popen(command, cwd=Path(__file__).parent)
        try:
            clients = [subscribed(port) for _ in range(CLIENTS)]
            figures = [measure(port, process.pid, clients, *row) for row in ROWS]
            print(f"| `{protocol}` | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |", flush=True)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
