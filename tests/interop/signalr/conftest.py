"""Hubs for the stock clients: the real one, and the one that is measured by it."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for this folder's modules, in importlib mode

from clients import ORIGIN
from stage import Hub

READY_WITHIN_S = 20
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST_PORT = int(os.environ.get("SIGNALR_FIRST_PORT", "24101")) + 3 * WORKER
"""Of three for each worker of pytest-xdist."""
REFERENCE_PORT, TARGET_PORT, BACKEND_PORT = range(FIRST_PORT, FIRST_PORT + 3)
IMPATIENCE = ("--keepalive", "1", "--client-timeout", "2", "--handshake-timeout", "1")
"""Options, in seconds, that both hubs' programs understand."""


@contextmanager
def origin(port: int) -> Iterator[Hub]:
    """A process of the real hub on a port of its own."""
    if not ORIGIN.is_file():
        pytest.skip(f"there is no {ORIGIN.name}: SIGNALR_ORIGIN names it, else ../shared/tools has it")
    url = f"http://127.0.0.1:{port}"
    token = subprocess.run([str(ORIGIN), "token", "alice"], capture_output=True, encoding="ascii", check=True).stdout
    with subprocess.Popen([str(ORIGIN), "serve", "--url", url], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert select.select([process.stdout], [], [], READY_WITHIN_S)[0], "it never listened"
            assert json.loads(process.stdout.readline())["ev"] == "listening"
            yield Hub(url, token.strip())
        finally:
            process.kill()


@pytest.fixture(scope="session")
def reference_hub() -> Iterator[Hub]:
    """ASP.NET Core's own."""
    with origin(REFERENCE_PORT) as hub:
        yield hub


@contextmanager
def fanwire_hub(port: int, *times: str, program: str = "live_hub.py", under: str = "") -> Iterator[Hub]:
    """A process of the hub that is measured, on a port of its own."""
    address = f"127.0.0.1:{port}"
    # What its methods raise is logged, as it should be; nobody reads it here.
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / program), address, *times],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            assert process.stdout
            assert select.select([process.stdout], [], [], READY_WITHIN_S)[0], "it never listened"
            yield Hub(f"http://{process.stdout.readline().decode().strip()}{under}", token_of("alice"))
        finally:
            process.kill()


@pytest.fixture(scope="session")
def target_hub() -> Iterator[Hub]:
    """A fanwire hub with the same methods."""
    with fanwire_hub(TARGET_PORT) as hub:
        yield hub


@pytest.fixture(scope="module")  # its port is a backend's elsewhere
def mounted_hub() -> Iterator[Hub]:
    """The same inside an ASGI application, on the application's port."""
    with fanwire_hub(BACKEND_PORT, program="mounted_hub.py", under="/app") as hub:
        yield hub


@pytest.fixture(scope="session")
def impatient_hub() -> Iterator[Hub]:
    """The same, with pings and patience counted in single seconds."""
    with fanwire_hub(0, *IMPATIENCE) as hub:
        yield hub


def token_of(user: str) -> str:
    """A token as the real hub gives it."""
    claims = {"nameid": user, "unique_name": user, "exp": time.time() + 3_600}
    return jwt.encode(claims, "a key for tests, known to everyone, 32+ bytes", algorithm="HS256")
