"""Hubs for the stock clients: the real one, and the one that is measured by it."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for this folder's modules, in importlib mode

from clients import ORIGIN
from stage import Hub

READY_WITHIN_S = 20
REFERENCE_PORT = int(os.environ.get("SIGNALR_REFERENCE_PORT", "24101"))
TARGET_PORT = int(os.environ.get("SIGNALR_TARGET_PORT", "24102"))


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


@pytest.fixture(scope="session")
def target_hub() -> Iterator[Hub]:
    """What is compared with it; for now the same program once more, which shows that the comparison is steady."""
    with origin(TARGET_PORT) as hub:
        yield hub
