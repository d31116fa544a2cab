"""The tests of frameworks and libraries, run with ours in the place of theirs.

Each class of theirs is replaced before their tests import it; nothing of them is copied into this repository. Left out
is what needs a server of its own (Redis, PostgreSQL, Kafka), and, with its reason beside it, what looks into their
insides.
"""

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One library's tests."""

    ours: str
    """What replaces its class by ours."""
    tests: Sequence[str]
    sources: str = "."
    """Where in the checkout the library is."""
    chosen: str = ""
    """Which of them, for ``pytest -k``; all where it is empty."""
    fixtures: str = ""
    """Those of ours, in the place of ``tests/unit/test_channels/conftest.py``."""
    beside: Sequence[str] = ()
    """Folders of the checkout that its tests read, besides them."""


OVER_SOCKETS = "import over_sockets\n"
"""Sessions of their test client go over a socket, to uvicorn with our protocol, and are attached to a hub there."""
NOT_ON_A_WIRE = {
    "trio": "uvicorn is asyncio's",
    "test_websocket_headers": "the client's key is random",
    "test_receive_wrong_message_type": "no client can send an event of ASGI",
    "test_websocket_route_middleware": "names of headers are in lower case, as ASGI has them; uvicorn's own do so",
    "test_websocket_concurrency_pattern": "it closes behind the client's close, which raises; under uvicorn's own, too",
}
"""Tests of Starlette that are left out, and why."""

SUITES = {
    "starlette": Suite(  # the files with WebSockets, but for those of the test client itself
        ours=OVER_SOCKETS,
        tests=[
            *(f"tests/test_{name}.py" for name in ("websockets", "routing", "applications", "authentication")),
            *("tests/test_exceptions.py", "tests/test_endpoints.py", "tests/middleware/test_base.py"),
            "tests/middleware/test_errors.py",
        ],
        chosen=" and ".join(f"not {name}" for name in NOT_ON_A_WIRE),
    ),
    "fastapi": Suite(
        ours=OVER_SOCKETS,
        tests=[
            *("tests/test_ws_router.py", "tests/test_ws_dependencies.py", "tests/test_route_scope.py"),
            *("tests/test_dependency_yield_scope_websockets.py", "tests/test_dependency_after_yield_websockets.py"),
            *("tests/test_http_connection_injection.py", "tests/test_validation_error_context.py"),
            "tests/test_tutorial/test_websockets",
        ],
        beside=["docs_src"],
    ),
    "broadcaster": Suite(
        ours="import broadcaster, fanwire.compat.broadcaster as ours\nbroadcaster.Broadcast = ours.Broadcast\n",
        tests=["tests"],
        chosen="memory or custom or unknown or needs or unsubscribe",
    ),
    "litestar": Suite(
        ours=(
            "import litestar.channels.backends.memory as theirs\n"
            "from fanwire.compat.litestar import HubChannelsBackend\n"
            "theirs.MemoryChannelsBackend = HubChannelsBackend\n"
        ),
        fixtures=(
            "import pytest\n"
            "from fanwire.compat.litestar import HubChannelsBackend\n"
            "@pytest.fixture\ndef memory_backend(): return HubChannelsBackend()\n"
            "@pytest.fixture\ndef memory_backend_with_history(): return HubChannelsBackend(history=10)\n"
        ),
        tests=["-o", "asyncio_mode=auto", "tests/unit/test_channels/test_backends.py"],
        chosen="memory and not clears_all_history",  # which reads the dict that theirs keeps history in
    ),
    "channels": Suite(
        ours=(
            "import channels.layers\nfrom fanwire.compat.django_channels import ChannelLayer\n"
            "channels.layers.InMemoryChannelLayer = ChannelLayer\n"
        ),
        tests=["-o", "asyncio_mode=auto", "tests/test_inmemorychannel.py", "tests/test_layers.py"],
    ),
    "python-socketio": Suite(
        ours=(
            "import socketio.async_manager\nfrom fanwire.compat.socketio import AsyncFanwireManager\n"
            "socketio.async_manager.AsyncManager = AsyncFanwireManager\n"
        ),
        sources="src",
        tests=["-o", "asyncio_mode=auto", "tests/async/test_manager.py"],
    ),
}


PROTOCOLS = ("Protocol", "Sansio")


def drop_in(name: str, folder: Path, run: Callable[..., bool]) -> bool:
    """Run one suite of the checkouts in `folder`, that of a framework with both protocols; whether it passed."""
    suite = SUITES[name]
    protocols = PROTOCOLS if suite.ours == OVER_SOCKETS else ("",)
    results = [_run(f"{name}, {protocol}".strip(", "), folder / name, suite, protocol, run) for protocol in protocols]
    return all(results)


def _run(name: str, checkout: Path, suite: Suite, protocol: str, run: Callable[..., bool]) -> bool:
    with tempfile.TemporaryDirectory() as room:
        for copied in ("tests", *suite.beside):
            subprocess.run(["cp", "-rL", str(checkout / copied), str(Path(room, copied))], check=True)
        Path(room, "ours_in_place.py").write_text(suite.ours)
        if suite.fixtures:
            for stale in ("tests/conftest.py", "tests/unit/conftest.py"):
                Path(room, stale).unlink(missing_ok=True)
            Path(room, "tests/unit/test_channels/conftest.py").write_text(suite.fixtures)
        sources = f"{room}:{checkout / suite.sources}:{Path(__file__).parent}"
        chosen = ["-k", suite.chosen] if suite.chosen else []
        # Before their conftest.py, and with asyncio's plugin, which some of them name in their own configuration.
        arguments = ["-p", "ours_in_place", *chosen, *suite.tests]
        return run(name, Path(room), *arguments, PYTHONPATH=sources, FANWIRE_WS=protocol)
