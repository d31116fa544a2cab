"""``[[source]]`` in the file of ``fanwire serve``: read once for the whole server, beside it, and it ends nobody."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from support.backbones import told, watching
from support.redis import Redis, needs_redis
from support.waiting import until, until_in_thread
from support.workers import Program, started

pytest.importorskip("redis")
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

FILE = """
[listen]
address = "127.0.0.1:0"
workers = {workers}
{more}
[log]
level = "debug"
[[channel]]
pattern = "odds"
history = 100
[[source]]
kind = "redis-stream"
url = {{ env = "EVENTS" }}
stream = "events"
"""
BACKBONE = '[backbone]\nurl = { env = "EVENTS" }'


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


@contextmanager
def command(folder: Path, redis: Redis, *arguments: str, workers: int = 0, more: str = "") -> Iterator[Program]:
    """``fanwire serve`` or another of such a file."""
    (folder / "fanwire.toml").write_text(FILE.format(workers=workers, more=more))
    os.environ["EVENTS"] = redis.url
    try:
        running = Program(started([sys.executable, "-W", "ignore", "-m", "fanwire", *arguments], folder))
    finally:
        del os.environ["EVENTS"]
    try:
        yield running
    finally:
        running.end()


@contextmanager
def served(folder: Path, redis: Redis, **how: Any) -> Iterator[tuple[Program, str]]:
    """It, and where it serves."""
    with command(folder, redis, "serve", "fanwire.toml", **how) as running:
        found = re.search(r"serving on (127\S+) with (\d workers|\w+)", running.until(r"[^:] ?\"?serving on 127"))
        assert found is not None
        yield running, found[1]


def add(redis: Redis, data: str, **fields: str) -> None:
    """One more entry in the stream."""
    redis.do(
        "XADD", "events", "*", "channel", "odds", "data", data, *(word for pair in fields.items() for word in pair)
    )


def measured(address: str) -> dict[str, float]:
    """Samples of the source, by their names."""
    text = httpx.get(f"http://{address}/metrics", trust_env=False).text
    return {name: float(value) for name, value in re.findall(r"^fanwire_source_(\w+)\{.*\} (\S+)$", text, re.MULTILINE)}


@needs_redis
async def test_its_entries_come_to_clients_and_how_it_stands_is_measured(tmp_path: Path, redis: Redis) -> None:
    add(redis, "1")
    add(redis, "2", colour="red")
    with served(tmp_path, redis) as (running, address):
        async with watching(address, since={"odds": [1, 0]}) as peer:
            running.until("is left out")
            add(redis, "3")
            while (await peer.receive_json()) != 3:
                pass
        wanted = {"read_total": 3, "skipped_total": 1, "up": 1, "lag_seconds": 0}
        await until(lambda: measured(address).items() >= wanted.items())
        assert measured(address)["place"] > 1e12  # milliseconds, of Redis
        assert httpx.get(f"http://{address}/readyz", trust_env=False).status_code == 200
        assert "redis://" not in "\n".join(running.lines)


@needs_redis
async def test_what_ends_it_is_told_and_it_begins_anew_and_the_server_goes_on(tmp_path: Path, redis: Redis) -> None:
    redis.do("SET", "events", "no stream")
    with served(tmp_path, redis) as (running, address):
        async with watching(address) as peer:
            running.until("source events: ResponseError: WRONGTYPE .* it begins anew in")
            await until(lambda: measured(address)["failures_total"] >= 1)
            redis.do("DEL", "events")
            add(redis, "1")
            assert await told(peer, 1) == [1]


@needs_redis
@pytest.mark.slow
@pytest.mark.parametrize("more", ["", BACKBONE], ids=["hub", "backbone"])
async def test_one_worker_reads_it_and_another_when_that_one_is_killed(tmp_path: Path, redis: Redis, more: str) -> None:
    with served(tmp_path, redis, workers=2, more=more) as (running, address):
        async with watching(address) as one, watching(address) as two:
            running.until("is read")
            for number in range(50):
                add(redis, str(number))
            first = [await told(peer, 50) for peer in (one, two)]
            assert first == [[*range(50)]] * 2
        reader = re.search(r"worker (\d+): source", running.said("is read")[0])
        assert reader is not None
        process = re.search(r"process (\d+)", running.until(rf"worker {reader[1]} \(process \d+\) serves"))
        assert process is not None
        os.kill(int(process[1]), signal.SIGKILL)
        running.until("is read", 2)
        async with watching(address) as peer:
            add(redis, '["after"]')
            with anyio.fail_after(60):
                while (await peer.receive_json()) != ["after"]:
                    pass


@needs_redis
async def test_without_a_server_it_publishes_into_the_backbone(tmp_path: Path, redis: Redis) -> None:
    with command(tmp_path, redis, "sources", "fanwire.toml", more=BACKBONE) as running:
        running.until("source events: a stream of Redis is read")
        add(redis, "1")
        await until(lambda: redis.do("GET", "fanwire:source:events") != b"$-1\r\n")
        running.process.send_signal(signal.SIGTERM)
        running.until("ending")
        until_in_thread(lambda: running.process.poll() == 0)
    with command(tmp_path, redis, "sources", "fanwire.toml") as running:
        running.until(r"fanwire.toml has no \[backbone\]")
