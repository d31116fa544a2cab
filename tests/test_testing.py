"""fanwire.testing: its client, its fixtures under each plugin, and the examples of docs/testing.md."""

import os
import re
import subprocess
import sys
from pathlib import Path

import anyio
import fanwire
import pytest
from fanwire.testing import NotAccepted, serving
from support.descriptors import all_listening_inodes, held_inodes

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parent.parent / "docs" / "testing.md"
INI = "[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n    ignore:fanwire was built\n"


def examples() -> list[str]:
    """The Python of the page, block by block."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def pytest_run(folder: Path, *arguments: str) -> str:
    """What pytest says of a folder of its own, where all plugins are found as users have them."""
    (folder / "pytest.ini").write_text(INI)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    run = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        *arguments,
        str(folder),
    ]
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False)
    return done.stdout + done.stderr


FIXTURES = """
import fanwire, pytest, pytest_asyncio

hub = fanwire.Hub()

@pytest_asyncio.fixture
async def served():
    async with hub.serve("127.0.0.1:0") as serving:
        yield serving

@pytest_asyncio.fixture
async def started():
    yield await hub.start("127.0.0.1:0")
    await hub.stop()

@pytest.mark.asyncio
async def test_serve_in_a_fixture(served):
    hub.publish("a", "x")

@pytest.mark.asyncio
async def test_start_in_a_fixture(started):
    hub.publish("a", "x")
"""


@pytest.mark.timeout(120)
def test_the_examples_of_the_page_run_and_fixtures_serve(tmp_path: Path) -> None:
    found = examples()
    assert len(found) == 5
    for number, source in enumerate(found):
        (tmp_path / f"test_example_{number}.py").write_text(source)
    (tmp_path / "test_fixtures.py").write_text(FIXTURES)
    said = pytest_run(tmp_path)
    assert re.search(r"^14 passed", said, re.MULTILINE), said  # those of anyio under both of its backends


@pytest.mark.timeout(120)
def test_they_serve_in_the_auto_mode_of_pytest_asyncio(tmp_path: Path) -> None:
    (tmp_path / "test_fixtures.py").write_text(FIXTURES)
    (tmp_path / "test_hub_server.py").write_text(examples()[2])
    said = pytest_run(tmp_path, "--asyncio-mode=auto")
    assert re.search(r"^3 passed", said, re.MULTILINE), said


@pytest.mark.anyio
class TestTheClient:
    async def test_it_needs_nothing_that_listens_and_is_there_wherever_the_hub_serves(self, tmp_path: Path) -> None:
        peers: list[str] = []
        hub = fanwire.Hub()
        hub.authenticate(lambda request: peers.append(request.peer))
        for address, why in ((None, "a hub that listens nowhere has"), (f"unix:{tmp_path}/hub", "a Unix socket has")):
            before = held_inodes()
            async with serving(hub, address) as server:
                assert bool((held_inodes() - before) & all_listening_inodes()) == bool(address)
                with pytest.raises(ValueError, match=f"{why} no URL: serve on TCP"):
                    server.url()
                async with server.connect() as client:
                    await client.subscribe("a")
            with pytest.raises(fanwire.HubStopped):
                async with server.connect():
                    raise AssertionError
        assert peers == ["unix:", "unix:"]

    async def test_what_is_said_before_an_answer_stays_to_be_received(self) -> None:
        hub = fanwire.Hub()

        @hub.method
        def shout(client: fanwire.Client, word: str) -> int:
            client.send(f"{word}!")
            return len(word)

        async with serving(hub) as server, server.connect() as client:
            assert await client.call("shout", "tor") == 3
            assert await client.receive_raw() == "tor!"
            await client.subscribe("a", "b")
            hub.publish("b", {"x": 1})
            hub.publish("b", b"\x00")
            assert [await client.receive(), await client.receive()] == [{"x": 1}, b"\x00"]
            with pytest.raises(TimeoutError):
                await client.receive(timeout=0.01)

    async def test_it_hears_how_the_connection_ends(self) -> None:
        hub = fanwire.Hub()

        @hub.on_message
        def leave(client: fanwire.Client, data: str | bytes) -> None:
            client.send("last words")
            client.close(4000, "enough")

        async with serving(hub) as server:
            async with server.connect() as client:
                await client.send("go")
                assert await client.receive() == "last words"
                with pytest.raises(EOFError, match="4000 enough"):
                    await client.receive()
                assert await client.closed() == (4000, "enough")
            with pytest.raises(NotAccepted, match="the hub answered 404"):
                async with server.connect("/nowhere"):
                    raise AssertionError

    async def test_a_large_message_comes_whole(self) -> None:
        hub = fanwire.Hub()
        async with serving(hub) as server, server.connect("/ws?channel=a") as client:
            hub.publish("a", "x" * 900_000)
            assert len(await client.receive_raw()) == 900_000

    async def test_a_body_that_raises_ends_all(self) -> None:
        hub = fanwire.Hub()
        with pytest.raises(KeyError):
            async with serving(hub) as server, server.connect():
                raise KeyError
        async with serving(hub, "127.0.0.1:0") as server, server.connect() as client:
            with anyio.fail_after(60):
                await client.close(1000, "bye")


@pytest.mark.anyio
class TestWhatIsWaitedFor:
    async def test_a_timeout_says_what_did_not_come_and_what_came(self) -> None:
        hub = fanwire.Hub()
        forever = anyio.Event()

        @hub.method
        async def late(client: fanwire.Client) -> None:
            client.send("first")
            client.send({"then": 1})
            await forever.wait()

        async with serving(hub, drain_timeout=0) as server, server.connect() as client:
            with pytest.raises(TimeoutError, match=r"^a message did not come within 0.01 s; nothing came instead$"):
                await client.receive(0.01)
            with pytest.raises(TimeoutError) as raised:
                await client.call("late", timeout=2.5)
            assert str(raised.value) == (
                """an answer to '{"call": "late", "args": []}' did not come within 2.5 s; """
                """'first', '{"then":1}' came instead"""
            )
            assert await client.receive() == "first", "what came stays to be received"
            with pytest.raises(TimeoutError, match="the end of the connection did not come within"):
                await client.closed(0.01)
            await client.close()
            with pytest.raises(EOFError, match="the connection has ended: 1000"):
                await client.send("x")


@pytest.mark.timeout(120)
def test_a_test_without_an_event_loop_is_told_what_to_do(tmp_path: Path) -> None:
    source = "def test_sync(hub_server): pass\nasync def test_nobodys(hub_server): pass\n"
    (tmp_path / "test_wrong.py").write_text(source)
    said = pytest_run(tmp_path)
    wanted = "make it `async def` with @pytest.mark.anyio"
    assert f"pytest.UsageError: test_sync uses hub_server, which needs an event loop: {wanted}" in said
    assert "pytest.UsageError: test_nobodys uses hub_server, and no plugin runs it in an event loop: mark it" in said
    assert "_hub_server_of_any" not in said
