"""Fixtures for pytest: a hub, and the hub served, under anyio's plugin, pytest-asyncio and pytest-trio.

Found by itself where fanwire is installed; ``-p no:fanwire`` turns it off. See docs/testing.md.
"""

from collections.abc import AsyncIterator
from importlib.util import find_spec
from inspect import iscoroutinefunction
from typing import Any

import pytest

from fanwire.hub import Hub


@pytest.fixture
def hub() -> Hub:
    """A hub with nothing registered. Define a fixture of this name that returns your own."""
    return Hub()


@pytest.fixture
def hub_address() -> str:
    """Where ``hub_server`` serves: any free port of 127.0.0.1. Define your own for another address."""
    return "127.0.0.1:0"


@pytest.fixture
def hub_server(request: pytest.FixtureRequest) -> Any:
    """The hub of the fixture ``hub``, served while the test runs: a ``fanwire.testing.HubServer``. For async tests."""
    is_asyncios = request.node.get_closest_marker("asyncio") is not None
    check_is_run(request)
    return request.getfixturevalue("_hub_server_of_pytest_asyncio" if is_asyncios else "_hub_server_of_any")


def check_is_run(request: pytest.FixtureRequest) -> None:
    """Raises UsageError for a test in which nothing can be served, since it has no event loop."""
    name, test = request.node.name, request.function
    marks = "@pytest.mark.anyio, or asyncio or trio where pytest-asyncio or pytest-trio is installed"
    # Those of hypothesis are plain functions around an async one.
    if not (iscoroutinefunction(test) or hasattr(test, "hypothesis")):
        raise pytest.UsageError(f"{name} uses hub_server, which needs an event loop: make it `async def` with {marks}")
    is_anyios = "anyio_backend" in request.fixturenames
    if not (is_anyios or any(request.node.get_closest_marker(one) for one in ("asyncio", "trio"))):
        raise pytest.UsageError(f"{name} uses hub_server, and no plugin runs it in an event loop: mark it with {marks}")


async def _served(hub: Hub, hub_address: str) -> AsyncIterator[Any]:
    from fanwire.testing import serving  # not before it is used: it needs websockets

    async with serving(hub, hub_address) as server:
        yield server


@pytest.fixture
async def _hub_server_of_any(hub: Hub, hub_address: str) -> AsyncIterator[Any]:
    async for server in _served(hub, hub_address):
        yield server


if find_spec("pytest_asyncio") is not None:
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def _hub_server_of_pytest_asyncio(hub: Hub, hub_address: str) -> AsyncIterator[Any]:
        async for server in _served(hub, hub_address):
            yield server
