"""Fixtures for pytest: a hub, and the hub served, under anyio's plugin, pytest-asyncio and pytest-trio.

Found by itself where fanwire is installed; ``-p no:fanwire`` turns it off. See docs/testing.md.
"""

from collections.abc import AsyncIterator
from importlib.util import find_spec
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
    return request.getfixturevalue("_hub_server_of_pytest_asyncio" if is_asyncios else "_hub_server_of_any")


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
