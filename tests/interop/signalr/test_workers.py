"""Stock clients before four workers, behind an nginx that keeps its connections: they see what the real hub shows."""

import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from clients import Mode, missing, modes
from conftest import token_of
from stage import Hub, Seen, play
from support.nginx import NGINX, keeping_nginx
from support.workers import Program, started

pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.skipif(NGINX is None, reason="there is no nginx"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make a certificate"),
]
KINDS = {"dotnet", "node", "java"}
"""A browser has the same library as Node; the Python ones have WebSockets alone."""
LEFT_OUT = {"unwatch 1"}
"""Over workers a subscription begins once what others have published is here: the next call may come before that."""
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def workers_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The hub of four workers, behind nginx."""
    folder = tmp_path_factory.mktemp("w")
    running = Program(
        started([sys.executable, "-u", "-W", "ignore", str(HERE / "workers_hub.py"), "127.0.0.1:0"], folder)
    )
    try:
        with keeping_nginx(folder, running.address) as address:
            yield Hub(f"http://{address}", token_of("alice"))
    finally:
        running.end()


@pytest.mark.parametrize("mode", [mode for mode in modes() if mode.kind.name in KINDS], ids=str)
def test_a_story_looks_the_same(mode: Mode, reference_hub: Hub, workers_hub: Hub) -> None:
    if reason := missing(mode.kind):
        pytest.skip(reason)

    def look(hub: Hub) -> Seen:
        seen = play("scenario", mode, f"{hub.url}/live")
        return replace(seen, by_id={id: told for id, told in seen.by_id.items() if id not in LEFT_OUT})

    for turn in range(3):  # a client that races with itself may try again
        with ThreadPoolExecutor(2) as pool:
            expected, got = pool.map(look, (reference_hub, workers_hub))
        if got == expected or (mode.kind.name != "java" and turn == 0):
            break
    assert got == expected
