"""``fanwire top`` as a process at a real hub: lines, and what it says where there is nothing to see."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import fanwire
import pytest
from anyio.to_thread import run_sync
from fanwire.admin import AdminConfig
from support.clients import connected
from support.stand_in_admin import StandInAdmin

pytestmark = pytest.mark.anyio
TOKEN = "a-token-of-20-letters"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def top(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with no terminal."""
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "fanwire", "top", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**inherited, **environment}, timeout=100, check=False
    )


async def test_lines_of_a_hub_that_serves(tmp_path: Path) -> None:
    admin = f"unix:{tmp_path}/admin.sock"
    hub = fanwire.Hub(admin=AdminConfig(listen=admin, local=False))
    async with hub.serve("127.0.0.1:0") as serving, connected(serving.address, "/ws?channel=odds:7"):
        asked = ("--admin", admin, "--interval", "0.6", "--count", "2")
        done = await run_sync(partial(top, *asked))
        assert (done.stderr, done.returncode) == ("", 0)
        head, first, second = done.stdout.splitlines()
        assert head.split()[:4] == ["time", "clients", "lag", "pub/s"]
        assert first.split()[1:3] == second.split()[1:3] == ["1", "0"]
        done = await run_sync(partial(top, *asked, "--json"))
        for line in done.stdout.splitlines():
            one = json.loads(line)
            assert (one["connections"], one["channels"], one["lagging"], one["lags_most"]) == (1, 1, 0, None)
            assert one["per_second"]["connections_total"] == 0


async def test_a_token_that_is_wrong_or_missing_ends_it(tmp_path: Path) -> None:
    admin = f"unix:{tmp_path}/admin.sock"
    hub = fanwire.Hub(admin=AdminConfig(listen=admin, token=TOKEN, local=False))
    async with hub.serve("127.0.0.1:0"):
        asked = ("--admin", admin, "--interval", "0.2", "--count", "1")
        missing = await run_sync(partial(top, *asked))
        assert (missing.returncode, missing.stdout) == (1, "")
        assert missing.stderr == "fanwire: it wants its token, in the variable FANWIRE_ADMIN__TOKEN\n"
        wrong = await run_sync(partial(top, *asked, FANWIRE_ADMIN__TOKEN="x" * 20))
        assert (wrong.returncode, wrong.stderr) == (1, "fanwire: that is not the token\n")
        right = await run_sync(partial(top, *asked, FANWIRE_ADMIN__TOKEN=TOKEN))
        assert right.returncode == 0


async def test_the_stand_in_of_these_tests_answers_as_a_real_one_does(tmp_path: Path) -> None:
    """What is made in them has each key of the real thing that is looked at."""
    import httpx

    admin = f"{tmp_path}/admin.sock"
    made = StandInAdmin()
    hub = fanwire.Hub({"odds:*": fanwire.Channel(history=2)}, admin=AdminConfig(listen=f"unix:{admin}", local=False))
    transport = httpx.AsyncHTTPTransport(uds=admin)
    async with (
        hub.serve("127.0.0.1:0") as serving,
        connected(serving.address, "/ws?channel=odds:7"),
        httpx.AsyncClient(base_url="http://localhost", transport=transport) as client,
    ):
        for path, key, query in (
            ("/api/stats", None, {}),
            ("/api/channels", "channels", {"sort": "deliveries", "limit": "100"}),
            ("/api/clients", "clients", {"limit": "100"}),
            ("/api/workers", "workers", {}),
        ):
            real, stood_in = (await client.get(path, params=query)).json(), made.get(path, **query)
            if key is not None:
                assert stood_in.keys() <= real.keys()
                real, stood_in = real[key][0], stood_in[key][0]
            assert stood_in.keys() <= real.keys(), path


def test_what_is_no_interval_and_no_count_is_said() -> None:
    done = top("--interval", "0")
    assert (done.returncode, done.stderr) == (1, "fanwire: --interval 0 is not between 0.2 and 3,600 seconds\n")
    done = top("--count", "0")
    assert (done.returncode, done.stderr) == (1, "fanwire: --count 0 is no number of lines: 1 at least\n")


def test_a_hub_that_is_not_there_is_waited_for_in_lines(tmp_path: Path) -> None:
    done = top("--admin", f"unix:{tmp_path}/none.sock", "--interval", "0.2", "--count", "1")
    assert done.returncode == 0
    assert "No such file or directory" in done.stdout.splitlines()[1]


def test_without_textual_the_screen_names_its_extra_and_lines_are_told() -> None:
    hidden = "import sys\nsys.modules['textual'] = None\n"
    screen = "from fanwire.cli.top import _screen\n_screen(None, '', 1.0)\n"
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", hidden + screen]
    done = subprocess.run(command, capture_output=True, text=True, env=inherited, timeout=100, check=False)
    told = "fanwire: the screen of top needs textual: pip install 'fanwire[top]'; --lines does without\n"
    assert (done.returncode, done.stderr) == (1, told)
    lines = "sys.argv = ['fanwire', 'top', '--count', '1', '--interval', '0.2', '--admin', 'unix:/nowhere']\n"
    command[-1] = f"{hidden}{lines}from fanwire.__main__ import main\nmain()\n"
    done = subprocess.run(command, capture_output=True, text=True, env=inherited, timeout=100, check=False)
    assert done.returncode == 0 and "No such file" in done.stdout
