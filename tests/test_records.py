"""What docs/records.md says: any program publishes by one call of a script; redis-cli, and each example as it is."""

import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import fanwire
import msgpack
import pytest
from fanwire._engine import PUBLISH_SCRIPT
from fanwire.cli.app import app
from support.clients import Peer, connected
from support.redis import Redis, needs_redis, redis_server
from support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "publishing"
PAGE = ROOT / "docs" / "records.md"
GO = shutil.which("go") or next((str(path) for path in [Path("/usr/local/go/bin/go")] if path.is_file()), None)
PROGRAMS = {
    "node": (shutil.which("node"), "publish.mjs", []),
    "go": (GO, "publish.go", ["run"]),
    "dotnet": (shutil.which("dotnet"), "publish.cs", ["run"]),
}
DATA = '{"home":1.85,"text":"ä"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A server for all of these."""
    with redis_server(tmp_path_factory.mktemp("redis")) as one:
        yield one


@pytest.fixture
def redis(server: Redis) -> Redis:
    """It, with nothing in it."""
    server.do("FLUSHALL")
    return server


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


@asynccontextmanager
async def watched(redis: Redis, query: str = "?envelope=1") -> AsyncIterator[Peer]:
    """A client of a hub at the backbone that watches ``odds:7``."""
    hub = fanwire.Hub({"odds:*": fanwire.Channel(history=100, policy="latest")}, backbone=redis.url)
    async with hub.serve("127.0.0.1:0") as serving, connected(serving.address, f"/ws{query}") as peer:
        await peer.send_json(subscribe=["odds:7"], id=1)
        await peer.receive()
        yield peer


def call_of(redis: Redis, record: str | bytes, name: str = "codds:7") -> list[str]:
    """The words of a call, as the page has them."""
    keys = ["2", f"fanwire:m:{name}", f"fanwire:s:{name}"]
    terms = [f"fanwire:c:{name}", "PUBLISH", "", "0", "0", "100", "300000", "604800000", "300000", "0"]
    return ["EVAL", PUBLISH_SCRIPT, *keys, *terms, record if isinstance(record, str) else record.decode()]


def redis_cli() -> str:
    """The program. Skips where there is none."""
    found = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if found is None:
        pytest.skip("there is no redis-cli or valkey-cli")
    return found


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    app("script", result_action="return_value")
    assert capsys.readouterr().out == PUBLISH_SCRIPT == (ROOT / "rust/backbone/src/publish.lua").read_text()


@needs_redis
async def test_redis_cli_alone_publishes_as_the_page_says(redis: Redis, tmp_path: Path) -> None:
    (command,) = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "publish.lua").write_text(PUBLISH_SCRIPT)
    command = command.replace("redis-cli", f"{redis_cli()} -p {redis.port}")
    async with watched(redis) as peer:
        ended = await anyio.run_process(command, cwd=tmp_path)
        epoch, offset = map(int, ended.stdout.split())
        told = await peer.receive_json()
        assert (told["data"], told["position"]) == ({"home": 1.85}, [epoch, offset])


@needs_redis
@pytest.mark.slow
@pytest.mark.parametrize("language", PROGRAMS)
async def test_the_examples_publish(redis: Redis, tmp_path: Path, language: str) -> None:
    program, file, words = PROGRAMS[language]
    if program is None:
        pytest.skip(f"there is no {language}")
    (tmp_path / "publish.lua").write_text(PUBLISH_SCRIPT)
    command = [program, *words, str(EXAMPLES / file), f"127.0.0.1:{redis.port}", "odds:7", DATA]
    async with watched(redis) as peer:
        ended = await anyio.run_process(command, cwd=tmp_path, check=False)
        assert ended.returncode == 0, ended.stderr.decode()
        told = await peer.receive_json()
        assert told["data"] == json.loads(DATA)
        assert "-".join(map(str, told["position"])) == ended.stdout.decode().strip()


@needs_redis
async def test_each_thing_that_a_record_may_say_reaches_clients(redis: Redis) -> None:
    async with watched(redis) as peer:
        for record, told in [
            ({"data": "text", "event": "e"}, {"data": "text", "event": "e"}),
            ({"data": None}, {"data": None}),
            ({"arguments": [1, "two"]}, {"data": [1, "two"]}),
            ({"base64": "AP8="}, {"base64": "AP8="}),
            ({"key": "1x2", "remove": True}, {"data": {"removed": "1x2"}}),
        ]:
            redis.do(*call_of(redis, json.dumps(record)))
            got: dict[str, Any] = await peer.receive_json()
            assert told.items() <= got.items(), (record, got)


@needs_redis
async def test_who_speaks_messagepack_gets_that(redis: Redis) -> None:
    async with watched(redis, "?format=msgpack") as peer:
        redis.do(*call_of(redis, '{"data":{"a":[1,2.5,null,true,"ä"],"b":-7}}'))
        told = await peer.receive()
        assert isinstance(told, bytes)
        assert msgpack.unpackb(told) == {"a": [1, 2.5, None, True, "ä"], "b": -7}


@needs_redis
async def test_what_is_no_record_is_named_in_the_log_and_the_next_one_comes(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(redis) as peer:
        for record, why in [('{"dta":1}', "unknown field `dta`"), ('{"data":1,"ttl":-1}', "has a ttl of -1")]:
            redis.do(*call_of(redis, record))
            redis.do(*call_of(redis, '{"data":"good"}'))
            assert (await peer.receive_json())["data"] == "good"
            await until(lambda why=why: why in caplog.text)  # lines come once a second
        assert "odds:7: the record at" in caplog.text


@needs_redis
async def test_who_subscribes_there_reads_what_the_page_says(redis: Redis) -> None:
    """A program that reads the heads by itself, as one in another language would."""
    redis.do(*call_of(redis, '{"data":1}'))
    answer = redis.do("XRANGE", "fanwire:s:codds:7", "-", "+")
    entry = rb"\$\d+\r\n(\d+-\d+)\r\n\*2\r\n\$1\r\nr\r\n\$(\d+)\r\n(.*)\r\n"
    ((place, length, record),) = re.findall(entry, answer, re.DOTALL)
    head, body = record[:40], record[40 : int(length)]
    numbers = [int.from_bytes(head[at : at + 8], "little") for at in (8, 16, 24, 32)]
    assert (head[:4], int.from_bytes(head[4:8], "little"), body) == (b"fw\x01\x00", len(body), b'{"data":1}')
    assert numbers[1:3] == [0, 1] and place.decode() == f"1-{numbers[3]}"
    assert numbers[0] % 2 == 0 and abs(numbers[0] // 2_000 - numbers[3]) <= 1, "twice the clock in microseconds"
    assert redis.do("HGET", "fanwire:m:codds:7", "e") == b"$16\r\n%d\r\n" % numbers[0]
