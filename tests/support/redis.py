"""A real Redis server with a folder of its own."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.raw import free_port

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
PORTS = range(24_000, 26_000)

needs_redis = pytest.mark.skipif(SERVER is None, reason="there is no redis-server or valkey-server")


class Redis:
    """One that runs, or is started again on the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port(PORTS)
        self._folder, self._options = folder, options
        self.process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Have it run; returns when it answers."""
        assert SERVER is not None
        arguments = ["--port", str(self.port), "--dir", str(self._folder), "--appendonly", "yes", "--save", ""]
        # What it has acknowledged is written when it is killed; by default a write waits for a slow disk.
        arguments += ["--appendfsync", "no", *self._options]
        with (self._folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([SERVER, *arguments, "--bind", "127.0.0.1"], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self._answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise TimeoutError((self._folder / "redis.log").read_text())

    def kill(self) -> None:
        """As kill -9."""
        self.process.kill()
        self.process.wait()

    def do(self, *words: str) -> bytes:
        """What it answers to a command, as it comes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=100) as connection:
            said = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
            connection.sendall(f"*{len(words)}\r\n{said}".encode())
            return connection.recv(65_536)

    def _answers(self) -> bool:
        try:
            is_this = f"process_id:{self.process.pid}\r\n".encode() in self.do("INFO", "server")
            return is_this and self.do("PING").startswith(b"+PONG")  # which it answers once it has loaded
        except OSError:
            return False


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[Redis]:
    """One with these options, for as long as the context lasts."""
    one = Redis(folder, *options)
    try:
        yield one
    finally:
        one.kill()
