"""Real NATS servers with JetStream, each with a folder of its own."""

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.raw import free_port

PORTS = range(26_000, 28_000)
VERSION_MIN = (2, 12)


def _server() -> str | None:
    """The program: one that ``make`` has put beside Python, or the machine's, if it is new enough."""
    for found in (shutil.which("nats-server", path=str(Path(sys.executable).parent)), shutil.which("nats-server")):
        if found is None:
            continue
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"v(\d+)\.(\d+)", said)
        if version and (int(version[1]), int(version[2])) >= VERSION_MIN:
            return found
    return None


SERVER = _server()

needs_nats = pytest.mark.skipif(
    SERVER is None, reason="there is no nats-server 2.12 or later (make .venv/bin/nats-server, which needs Go)"
)


class Nats:
    """One that runs, or is started again on the same port."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.port = free_port(PORTS)
        self._folder = folder
        self._more = more
        self.process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Have it run; returns when it answers."""
        assert SERVER is not None
        config = self._folder / "nats.conf"
        store = f'jetstream {{ store_dir: "{self._folder}" }}'
        config.write_text(f'listen: "127.0.0.1:{self.port}"\n{store}\n{self._more}\n')
        with (self._folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen([SERVER, "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self._answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.kill()
                raise TimeoutError((self._folder / "nats.log").read_text())

    def kill(self) -> None:
        """As kill -9."""
        self.process.kill()
        self.process.wait()

    def do(self, subject: str, payload: str = "") -> str:
        """What is answered to a request."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=100) as connection,
            connection.makefile("rb") as said,
        ):
            hello = 'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB answer 1\r\n'
            connection.sendall(f"{hello}PUB {subject} answer {len(payload.encode())}\r\n{payload}\r\n".encode())
            for line in said:
                if b"MSG " in line:
                    return said.read(int(line.split()[-1])).decode()
        raise EOFError(subject)

    def publish(self, subject: str, payload: bytes) -> None:
        """A message there; returns when the server has it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            hello = b'CONNECT {"verbose":false}\r\n'
            connection.sendall(hello + f"PUB {subject} {len(payload)}\r\n".encode() + payload + b"\r\nPING\r\n")
            with connection.makefile("rb") as said:
                for line in said:
                    if line.startswith(b"PONG"):
                        return
        raise EOFError(subject)

    def streams(self) -> list[str]:
        """Their names."""
        return re.findall(r'"([^"]+)"', self.do("$JS.API.STREAM.NAMES").partition('"streams":[')[2].partition("]")[0])

    def _answers(self) -> bool:
        try:
            return '"error":' not in self.do("$JS.API.INFO")
        except OSError:
            return False


@contextmanager
def nats_server(folder: Path, more: str = "") -> Iterator[Nats]:
    """One, for as long as the context lasts; `more` stands in its file besides."""
    one = Nats(folder, more)
    try:
        yield one
    finally:
        one.kill()
