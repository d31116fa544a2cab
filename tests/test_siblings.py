"""Hubs of processes that another server has started, and that meet at a Unix socket: ``Hub(workers="unix:PATH")``."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from fanwire.workers.siblings import Sibling
from support.clients import Peer, connected
from support.raw import free_port
from support.waiting import until
from support.workers import Program, serving, started

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SOURCE = """
import logging, os, sys
import anyio, fanwire

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
history = int(sys.argv[2]) if len(sys.argv) > 2 else 100
hub = fanwire.Hub(channels={"*": fanwire.Channel(history=history)}, workers=f"unix:{sys.argv[1]}")

@hub.method
async def say(client, channel, data):
    return list(await hub.publish(channel, data))

async def main():
    async with hub.serve("127.0.0.1:0") as serving:
        print("at", serving.address, os.getpid(), flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""

UVICORN = """
import os
import fanwire
from fastapi import FastAPI

hub = fanwire.Hub(workers="unix:" + os.environ["MEET_AT"])
app = FastAPI(lifespan=hub.lifespan)
app.mount("/live", hub.asgi())

@app.get("/process")
def process():
    return os.getpid()

@app.post("/goal")
async def goal(text: str):
    await hub.publish("goals", text)
    return os.getpid()
"""


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


@contextmanager
def several(folder: Path, count: int, *more: str) -> Iterator[list[Program]]:
    """Processes that meet at one socket."""
    with ExitStack() as stack:
        yield [stack.enter_context(one(folder, *more)) for _ in range(count)]


@contextmanager
def one(folder: Path, *more: str) -> Iterator[Program]:
    """A process that meets others."""
    with serving(folder, SOURCE, str(folder / "meet"), *more) as running:
        yield running


def address(running: Program) -> str:
    """Where it serves."""
    return running.until("^at ").split()[1]


async def call(peer: Peer, method: str, *arguments: object) -> Any:
    """Call a method, and give its answer; publications that come before it are not looked at."""
    await peer.send(json.dumps({"call": method, "args": arguments, "id": 1}))
    while True:
        answer = json.loads(await peer.receive())
        if isinstance(answer, dict) and answer.get("id") == 1:
            return answer


@asynccontextmanager
async def each(running: list[Program], query: str = "") -> AsyncIterator[list[Peer]]:
    """A client of each."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(address(one), f"/ws{query}")) for one in running]


@pytest.mark.slow
async def test_hubs_that_meet_are_one_and_another_orders_when_one_is_killed(tmp_path: Path) -> None:
    with several(tmp_path, 3) as running:
        async with each(running, "?channel=a") as peers:
            answer = await call(peers[1], "say", "a", {"n": 1})
            assert answer["result"][1] == 1
            for peer in (peers[0], peers[2]):
                assert json.loads(await peer.receive()) == {"n": 1}
        await until(lambda: any(one.said("this process orders") for one in running))  # it is read by a thread
        (orders,) = [one for one in running if one.said("this process orders")]
        left = [one for one in running if one is not orders]
        orders.process.kill()
        await until(lambda: any(one.said("this process orders") for one in left), 60)
        async with each(left) as (first, second):

            async def reaches_all(peer: Peer) -> bool:
                return "result" in await call(peer, "say", "c", {})

            with anyio.fail_after(60):
                while not (await reaches_all(first) and await reaches_all(second)):
                    pass
            await call(first, "say", "b", {"n": 2})
            await second.send(json.dumps({"subscribe": ["b"], "start": "history", "id": 2}))
            assert (await call(second, "say", "b", {"n": 3}))["result"][1] == 2
        with one(tmp_path) as newcomer:
            async with connected(address(newcomer), "/ws?channel=b&start=history") as peer:
                assert [json.loads(await peer.receive()) for _ in range(2)] == [{"n": 2}, {"n": 3}]


@pytest.mark.slow
async def test_one_that_is_set_to_something_else_says_so_and_ends(tmp_path: Path) -> None:
    with several(tmp_path, 1) as (first,):
        address(first)
        with one(tmp_path, "7") as other:
            other.until("has other channels or bounds than its supervisor")
            assert other.process.wait(60) != 0


@pytest.mark.slow
async def test_uvicorn_s_workers_are_one_hub(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    httpx = pytest.importorskip("httpx")
    (tmp_path / "site_of.py").write_text(UVICORN)
    os.environ["MEET_AT"] = str(tmp_path / "meet")
    port = free_port()
    try:
        options = ["--workers", "3", "--port", str(port)]
        command = [sys.executable, "-W", "ignore", "-m", "uvicorn", "site_of:app", *options]
        running = Program(started(command, tmp_path))
    finally:
        del os.environ["MEET_AT"]
    try:
        running.until("Application startup complete", 3)
        async with AsyncExitStack() as stack:
            peers = [
                await stack.enter_async_context(connected(f"127.0.0.1:{port}", "/live/ws?channel=goals"))
                for _ in range(12)
            ]
            by = set()
            for number in range(12):  # uvicorn's workers take connections as they like
                async with httpx.AsyncClient() as client:
                    by.add((await client.post(f"http://127.0.0.1:{port}/goal?text={number}")).json())
            for peer in peers:
                assert [await peer.receive() for _ in range(12)] == [str(number) for number in range(12)]
        assert not running.said("reaches the clients of this process alone"), running.lines
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(60)
        running.end()


async def test_numbers_are_of_one_process_each_and_given_out_in_turn(tmp_path: Path) -> None:
    code = (
        "import sys; from fanwire.workers.siblings import Sibling; one = Sibling(sys.argv[1]); "
        "print(one.number, one.key, flush=True); sys.stdin.read()"
    )
    path = str(tmp_path / "meet")

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-c", code, path]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    first, second = start(), start()
    try:
        said = [one.stdout.readline().split() for one in (first, second) if one.stdout]
        assert sorted(number for number, _ in said) == ["0", "1"]
        assert said[0][1] == said[1][1] and len(said[0][1]) == 64
        gone = first if said[0][0] == "0" else second
        gone.kill()
        gone.wait()
        third = Sibling(path)
        assert (third.number, third.key) == (2, said[0][1])
        third.close()
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


async def test_what_names_no_socket_or_one_of_others_is_refused(tmp_path: Path) -> None:
    for given, error in [("meet", ValueError), ("unix:", ValueError), (4, TypeError)]:
        with pytest.raises(error, match="workers must be unix:PATH"):
            fanwire.Hub(workers=given)  # type: ignore[arg-type]
    folder = tmp_path / "meet.d"
    folder.mkdir()
    folder.chmod(0o777)
    hub = fanwire.Hub(workers=f"unix:{tmp_path}/meet")
    with pytest.raises(PermissionError, match="nobody else may write to"):
        await hub.start()
