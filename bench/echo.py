"""What an echoed message costs a uvicorn server, by WebSocket protocol: ``python bench/echo.py``.

One server process for each row, with uvloop and httptools, and 20 connections that send again what has come back: one
message or 32 at a time. The figure is the server's processor time for a message, which a busy machine changes less
than the rate. Prints a table in Markdown.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

PROTOCOLS = ("fanwire.uvicorn:Protocol", "websockets-sansio", "wsproto", "websockets")
ROWS = ((20, 1), (20, 32), (1_000, 1), (1_000, 32))
CONNECTIONS, WARM_S, MEASURED_S, START_S = 20, 0.5, 3.0, 20.0
MASK = b"\x01\x02\x03\x04"
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The server's application."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


class Connection(asyncio.Protocol):
    """One client: sends a frame for each that came back."""

    def __init__(self, payload_bytes: int, depth: int) -> None:
        size = bytes([payload_bytes]) if payload_bytes < 126 else b"\x7e" + payload_bytes.to_bytes(2)
        masked = bytes(ord("x") ^ MASK[index % 4] for index in range(payload_bytes))
        self.frame = b"\x81" + bytes([size[0] | 0x80]) + size[1:] + MASK + masked
        self.echo_bytes = 1 + len(size) + payload_bytes
        self.depth = depth
        self.head = b""
        self.waiting_bytes = self.count = 0
        self.is_open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Asks for a WebSocket."""
        self.transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Counts what came back."""
        if not self.is_open.done():
            self.head += data
            if self.head.endswith(b"\r\n\r\n"):
                self.is_open.set_result(None)
                self.transport.write(self.frame * self.depth)
            return
        whole, self.waiting_bytes = divmod(self.waiting_bytes + len(data), self.echo_bytes)
        self.count += whole
        self.transport.write(self.frame * whole)


def processor_s(process: int) -> float:
    """What a process has used, user and system."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(port: int, process: int, payload_bytes: int, depth: int) -> tuple[float, float]:
    """Messages a second, and microseconds of the server's for each."""
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Connection(payload_bytes, depth), "127.0.0.1", port)
        for _ in range(CONNECTIONS)
    ]
    clients = [client for _, client in made]
    await asyncio.gather(*(client.is_open for client in clients))
    await asyncio.sleep(WARM_S)
    begin = sum(client.count for client in clients), processor_s(process), time.monotonic()
    await asyncio.sleep(MEASURED_S)
    end = sum(client.count for client in clients), processor_s(process), time.monotonic()
    for client in clients:
        client.transport.abort()
    count = end[0] - begin[0]
    return count / (end[2] - begin[2]), (end[1] - begin[1]) / count * 1e6


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as made:
        return made.connect_ex(("127.0.0.1", port)) == 0


def row(protocol: str, payload_bytes: int, depth: int) -> tuple[float, float]:
    """The same of a server of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = ["--port", str(port), "--ws", protocol, "--lifespan", "off", "--log-level", "error"]
    command = [sys.executable, "-W", "ignore", "-m", "uvicorn", "echo:app", *options]
    with subprocess.Popen(command, cwd=Path(__file__).parent) as process:
        try:
            deadline = time.monotonic() + START_S
            while not listens(port):
                assert time.monotonic() < deadline and process.poll() is None, "the server does not start"
                time.sleep(0.05)
            return uvloop.run(measure(port, process.pid, payload_bytes, depth))
        finally:
            process.kill()


def main() -> None:
    """All rows."""
    print("| protocol | bytes | at a time | µs of the server | messages a second |\n|---|---|---|---|---|")
    for payload_bytes, depth in ROWS:
        for protocol in PROTOCOLS:
            rate, cost_us = row(protocol, payload_bytes, depth)
            print(f"| `{protocol}` | {payload_bytes:,} | {depth} | {cost_us:.1f} | {rate:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
