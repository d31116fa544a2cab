"""For files whose subject does not depend on every loop and poller: they take these instead of conftest's fixtures.

``poller = epoll_alone`` and ``anyio_backend = without_uvloop`` in a file are fixtures of that file, by those names.
"""

from typing import Any

import pytest


@pytest.fixture
def epoll_alone() -> str:
    """What is tested is so beside the poller, in Python and at the upstream thread."""
    return "epoll"


@pytest.fixture(params=[("asyncio", {"use_uvloop": False}), ("trio", {})], ids=["asyncio", "trio"])
def without_uvloop(request: pytest.FixtureRequest) -> Any:
    """What waits, waits on uvloop as on asyncio."""
    return request.param


@pytest.fixture(params=["asyncio", "uvloop"])
def with_transports(request: pytest.FixtureRequest) -> Any:
    """What is tested is a matter of transports, which trio has not."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def asyncio_alone() -> Any:
    """What is tested is decided by what happened, in the order in which it did: nothing of it waits."""
    return "asyncio", {"use_uvloop": False}
