"""Loops, pollers and a backend: async tests run on asyncio, uvloop and trio, and those that serve on both pollers."""

import os
import sys
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("FANWIRE_VERIFY_COMPRESSION", "1")  # what an engine compresses it decodes again
sys.path.insert(0, str(Path(__file__).parent))  # for `support`, in importlib mode

import fanwire
import fanwire.serving
from fanwire._engine import Engine, Settings
from fanwire.logs import Sparing, SparingFilter, relay_log
from fanwire.stand_in import IS_STAND_IN
from hypothesis import HealthCheck, settings
from support.hubs import MakeHub
from support.injection import FaultyEngine
from support.redis import Redis, redis_server
from support.scripted_backend import ScriptedBackend

collect_ignore = [] if IS_STAND_IN else ["pure"]  # what the stand-in alone does
# The same examples each time, however long the machine takes for one; `make soak` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("same"), max_examples=10)  # of `make quick`
settings.register_profile("new", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

LOOPS = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
POLLERS = [os.environ["FANWIRE_POLLER"]] if os.environ.get("FANWIRE_POLLER") else ["epoll", "uring"]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop of an async test."""
    return LOOPS[request.param]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis server of the test's own, where there is one: ``needs_redis``."""
    with redis_server(tmp_path) as one:
        yield one


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FaultyEngine]:
    """Those that are made: they count what is called."""
    made: list[FaultyEngine] = []

    def make(*arguments: Any) -> FaultyEngine:
        made.append(FaultyEngine(*arguments))
        return made[-1]

    monkeypatch.setattr(fanwire.serving, "Engine", make)
    return made


@pytest.fixture(params=POLLERS)
def poller(request: pytest.FixtureRequest) -> str:
    """The engine's poller; skipped where the kernel has none such."""
    engine = Engine(Settings(poller=request.param))
    try:
        engine.start()
    except OSError as error:
        pytest.skip(f"this kernel gives no {request.param}: {error}")
    finally:
        engine.stop()
    return str(request.param)


@pytest.fixture(autouse=True)
def _own_log() -> None:
    """A relay's lines of one test are not left out for those of the one before."""
    for filter in relay_log.filters:
        if isinstance(filter, SparingFilter):
            filter.sparing = Sparing()


@pytest.fixture
def make_hub(poller: str) -> MakeHub:
    """Makes hubs on one of the pollers, of channels and options as `Hub` takes them."""
    return partial(fanwire.Hub, poller=poller)


@pytest.fixture
def hub(make_hub: MakeHub) -> fanwire.Hub:
    """A hub without options, with nothing registered yet."""
    return make_hub()


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    """A SignalR backend that does as a hub does until it is told otherwise."""
    with ScriptedBackend() as backend:
        yield backend


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test has logged may hold a lone surrogate, which pytest-xdist cannot send from process to process."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report
