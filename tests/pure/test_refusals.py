"""What the pure-Python wheel does not have says so, each in one sentence: tests/test_pure.py runs this by it."""

import logging
import pickle
import socket
import subprocess
import sys
from typing import Any

import fanwire
import pytest
from fanwire import uvicorn
from fanwire._engine import WebSocketCodec, build_info, encode_json, read_handshake
from fanwire.relay import RelayConfig
from fanwire.stand_in import IS_STAND_IN
from fanwire.testing import serving
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

pytestmark = pytest.mark.anyio
WHY = "needs fanwire's engine, which the pure-Python wheel does not have"
HOW = "run it on Linux, x86-64 or aarch64"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_it_is_the_stand_in() -> None:
    assert IS_STAND_IN and build_info()["profile"] == "pure" and build_info()["version"] == fanwire.__version__
    assert encode_json({"a": [1, None]}) == b'{"a":[1,null]}'


async def test_serving_on_an_address_is_refused_and_the_hub_may_start_without_one() -> None:
    hub = fanwire.Hub()
    with pytest.raises(fanwire.EngineMissing, match=f"^serving on 127.0.0.1:0 {WHY}.*{HOW}") as caught:
        await hub.start("127.0.0.1:0")
    assert sys.platform in caught.value.where and str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(fanwire.EngineMissing):
        async with hub.serve("127.0.0.1:0"):
            pass
    async with hub.serve():
        assert hub.publish("a", "text").offset == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_running_is_refused_before_anything_is_begun(workers: int) -> None:
    with pytest.raises(fanwire.EngineMissing, match=f"^serving on :0 {WHY}"):
        fanwire.Hub().run(":0", workers=workers)


async def test_relays_are_refused_before_and_while_the_hub_serves() -> None:
    hub = fanwire.Hub()
    hub.relay(RelayConfig(path="/live", upstream="http://127.0.0.1:1/live"))
    with pytest.raises(fanwire.EngineMissing, match=f"^a relay {WHY}"):
        await hub.start()


async def test_a_client_of_the_hub_s_own_is_refused() -> None:
    async with serving(fanwire.Hub()) as server:
        with pytest.raises(fanwire.EngineMissing, match=f"^a client of the hub's own {WHY}"):
            async with server.connect():
                pass


def test_a_mounted_hub_answers_what_is_missing_and_the_program_around_it_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = fanwire.Hub()
    program = Starlette(routes=[Mount("/live", hub.asgi())], lifespan=hub.lifespan)
    with TestClient(program) as client:
        answer = client.get("/live/healthz")
        assert answer.status_code == 503 and WHY in answer.text
    assert [WHY in record.getMessage() for record in caplog.records].count(True) == 1


def test_the_codec_is_refused() -> None:
    for call in (lambda: read_handshake(b"", deflates=True), WebSocketCodec):
        with pytest.raises(fanwire.EngineMissing, match=f"^fanwire.uvicorn:Protocol {WHY}"):
            call()


def test_protocol_is_sansio_and_says_so_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(uvicorn), "Protocol", raising=False)
    assert uvicorn.Protocol is uvicorn.Protocol is uvicorn.Sansio
    assert caplog.text.count("fanwire.uvicorn:Protocol needs fanwire's engine") == 1


def test_the_command_line_says_what_is_missing() -> None:
    run = [sys.executable, "-m", "fanwire", "serve", "fanwire.toml"]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1 and ended.stderr.startswith(f"fanwire: the command line {WHY}")
    assert ended.stderr.count("\n") == 1


async def test_a_hub_that_begins_tells_once_that_it_is_a_stand_in(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.stand_in._told", [])
    for _ in range(2):
        async with fanwire.Hub().lifespan():
            pass
    told = [record for record in caplog.records if "pure-Python stand-in" in record.getMessage()]
    assert len(told) == 1 and told[0].levelno == logging.WARNING and sys.platform in told[0].getMessage()


async def test_an_adopted_connection_is_given_up_with_the_last_reference() -> None:
    from fanwire._engine import Engine, Settings

    engine = Engine(Settings())
    engine.start()
    ours, theirs = socket.socketpair()
    adopted: Any = engine.adopt(theirs.fileno())
    adopted.begin()
    adopted.subscribe("a")
    with pytest.raises(fanwire.EngineMissing, match=r"^writing in the place of a framework's transport"):
        adopted.write(b"")
    with pytest.raises(fanwire.EngineMissing):
        adopted.notify(0)
    with pytest.raises(fanwire.EngineMissing):
        engine.broadcast([adopted], b"", above=0)
    del adopted
    (released,) = engine.take_events()
    assert (released.why, engine.occupancy("a"), engine.stats().connections) == ("aborted", 0, 0)
    engine.publish("a", "nobody gets it")
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ours.recv(1)
    engine.stop()
    for end in (ours, theirs):
        end.close()
