"""The tests of the libraries that fanwire.compat stands in for, run with ours in the place of theirs.

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


SUITES = {
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


def drop_ins(folder: Path, run: Callable[..., bool]) -> list[bool]:
    """Run each suite of the checkouts in `folder`; whether each passed."""
    results = []
    for name, suite in SUITES.items():
        with tempfile.TemporaryDirectory() as room:
            subprocess.run(["cp", "-rL", str(folder / name / "tests"), str(Path(room, "tests"))], check=True)
            Path(room, "ours_in_place.py").write_text(suite.ours)
            if suite.fixtures:
                for stale in ("tests/conftest.py", "tests/unit/conftest.py"):
                    Path(room, stale).unlink(missing_ok=True)
                Path(room, "tests/unit/test_channels/conftest.py").write_text(suite.fixtures)
            sources = f"{room}:{folder / name / suite.sources}"
            chosen = ["-k", suite.chosen] if suite.chosen else []
            # Before their conftest.py, and with asyncio's plugin, which some of them name in their own configuration.
            arguments = ["-p", "ours_in_place", *chosen, *suite.tests]
            results.append(run(name, Path(room), *arguments, PYTHONPATH=sources))
    return results
