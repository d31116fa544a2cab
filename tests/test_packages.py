"""What the library needs, and what it says where an extra is missing: in processes that cannot import anything else."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest

pytestmark = pytest.mark.slow

NAME = re.compile(r"[A-Za-z0-9._-]+")
HIDING = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def normal(name: str) -> str:
    """A distribution's name in the one form of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(names: Iterable[str]) -> set[str]:
    """These distributions and all that they need without any extra."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = normal(waiting.pop())
        if name in found:
            continue
        try:
            required = requires(name) or []
        except PackageNotFoundError:  # for another Python or system
            continue
        found.add(name)
        waiting += [NAME.match(one).group() for one in required if "extra ==" not in one]  # type: ignore[union-attr]
    return found


def run(program: str, allowed: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run a program that can import fanwire, the standard library and what those distributions bring."""
    kept = needed(["fanwire", *allowed])
    tops = packages_distributions().items()
    hidden = {top for top, owners in tops if not kept.intersection(map(normal, owners))} - {"fanwire"}
    assert "uvloop" in hidden
    text = f"HIDDEN = frozenset({sorted(hidden)!r})\n{HIDING}\nsys.path[:0] = {[p for p in sys.path if p]!r}\n{program}"
    return subprocess.run([sys.executable, "-W", "ignore", "-c", text], capture_output=True, text=True, check=False)


SERVE = """
import asyncio, json, urllib.error, urllib.request
import fanwire

async def main():
    hub = fanwire.Hub(channels={"a": fanwire.Channel(history=2)})
    async with hub.serve("127.0.0.1:0") as serving:
        hub.publish("a", {"at": 1})
        url = f"http://{serving.address}/metrics"
        try:
            answer = await asyncio.to_thread(urllib.request.urlopen, url)
            print(json.dumps([answer.status, answer.read().decode()[:2000]]))
        except urllib.error.HTTPError as error:
            print(json.dumps([error.code, error.read().decode()]))

asyncio.run(main())
"""


def test_the_library_needs_msgspec_and_anyio() -> None:
    bare = {normal(NAME.match(one).group()) for one in requires("fanwire") or [] if "extra ==" not in one}  # type: ignore[union-attr]
    assert bare == {"anyio", "msgspec"}


def test_without_extras_it_serves_and_says_what_metrics_need() -> None:
    done = run(SERVE, [])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        501,
        "metrics need the package prometheus-client: pip install 'fanwire[metrics]'\n",
    ]
    assert done.stderr == ""


def test_with_the_metrics_extra_it_has_them() -> None:
    done = run(SERVE, ["prometheus-client"])
    status, text = json.loads(done.stdout)
    assert status == 200
    assert "# TYPE fanwire_connections gauge" in text


@pytest.mark.parametrize("missing", ["cyclopts", "rich"])
def test_without_its_extra_the_command_line_names_it(missing: str) -> None:
    there = {"cyclopts", "rich"} - {missing}
    program = f"import runpy, sys\nsys.argv = ['fanwire', '--version']\nHIDDEN |= {{{missing!r}}}\n"
    done = run(program + "runpy.run_module('fanwire', run_name='__main__')", there)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"fanwire: the command line needs {missing}: pip install 'fanwire[cli]'\n"


@pytest.mark.parametrize("missing", ["uvicorn", "websockets"])
def test_without_its_extra_the_protocol_for_uvicorn_names_it(missing: str) -> None:
    there = {"uvicorn", "websockets"} - {missing}
    name = {"uvicorn": "Protocol", "websockets": "Sansio"}[missing]
    done = run(f"HIDDEN |= {{{missing!r}}}\nfrom fanwire.uvicorn import {name}", there)
    assert f"ImportError: fanwire.uvicorn needs {missing}: pip install 'fanwire[uvicorn]'" in done.stderr


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("compat.django_channels", "channels"),
        ("compat.litestar", "litestar"),
        ("compat.socketio", "socketio"),
        ("fastapi", "fastapi"),
        ("otel", "otel"),
        ("sources.nats", "nats"),
        ("sources.postgres", "postgres"),
        ("sources.redis_stream", "redis"),
    ],
)
def test_without_its_extra_what_is_for_another_library_names_it(module: str, extra: str) -> None:
    done = run(f"import fanwire.{module}", [])
    assert f"pip install 'fanwire[{extra}]'" in done.stderr.splitlines()[-1]


def test_without_its_extra_broadcaster_s_interface_has_what_needs_nothing() -> None:
    done = run("from fanwire.compat.broadcaster import Broadcast\nBroadcast('memory://')\nBroadcast('redis://h')", [])
    assert "pip install 'fanwire[broadcaster]' 'broadcaster[redis]'" in done.stderr.splitlines()[-1]


def test_the_protocol_in_rust_needs_no_websockets() -> None:
    done = run("from fanwire.uvicorn import Protocol\nprint(Protocol.__name__)", ["uvicorn"])
    assert done.stdout == "Protocol\n", done.stderr


@pytest.mark.parametrize("command", ["load", "demo"])
def test_without_the_load_client_its_commands_name_its_package(command: str) -> None:
    hiding = "import shutil\nshutil.which = lambda *_, **__: None\nimport sys\nfrom fanwire.__main__ import main\n"
    done = run(f"{hiding}sys.argv = ['fanwire', {command!r}]\nmain()", ["cyclopts", "rich", "prometheus-client"])
    assert done.returncode == 1
    assert done.stderr == (
        f"fanwire {command}: the program fanwire-load is not there: "
        "install the package fanwire-load (make wheel builds it)\n"
    )
