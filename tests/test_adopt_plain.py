"""``Hub.attach``, ``adopt`` and ``detach`` by the framework's own send: real servers, stock clients."""

import asyncio
import gc
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from support.frameworks import SERVERS, by_uvicorn, client, received, send_text
from support.loops import with_transports
from support.waiting import until

pytestmark = pytest.mark.anyio
anyio_backend = with_transports


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """One of the servers."""
    return SERVERS[request.param]


async def receive(connection: Any, count: int) -> list[Any]:
    """So many messages."""
    async with asyncio.timeout(60):
        return [await connection.recv() for _ in range(count)]


async def test_what_is_published_reaches_the_attached_and_the_route_goes_on_receiving(served: Any) -> None:
    hub = fanwire.Hub()
    attached = asyncio.Event()

    async def route(connection: Any) -> None:
        hub.attach(connection, ["a", "b"])
        attached.set()
        while (message := await received(connection)) is not None:
            await send_text(connection, f"echo {message!r}")

    async with hub.serve(), served(route) as url, client(url) as peer:
        await attached.wait()
        hub.publish("a", "text")
        hub.publish("a", b"\x00\xff")
        hub.publish("a", {"home": 1.5, "team": "Ä"})
        hub.publish("c", "not for it")
        assert await receive(peer, 2) == ["text", b"\x00\xff"]
        assert json.loads(await peer.recv()) == {"home": 1.5, "team": "Ä"}
        hub.publish_many("b", [str(number) for number in range(200)])
        assert await receive(peer, 200) == [str(number) for number in range(200)]
        await peer.send("hello")
        assert await receive(peer, 1) == ["echo 'hello'"]


async def test_adopt_receives_until_the_client_leaves_and_gives_its_code(served: Any) -> None:
    hub = fanwire.Hub()
    codes: list[int] = []
    seen: list[str | bytes] = []

    async def route(connection: Any) -> None:
        def note(message: str | bytes) -> object:
            seen.append(message)
            return fanwire.Publication()  # which can be awaited, and here would raise

        codes.append(await hub.adopt(connection, ["a"], on_message=note))

    async with hub.serve(), served(route) as url:
        async with client(url) as peer:
            await peer.send("one")
            await peer.send(b"two")
            await until(lambda: len(seen) == 2)
            hub.publish("a", "published")
            assert await receive(peer, 1) == ["published"]
            await peer.close(4001, "bye")
        async with client(url) as peer:
            await peer.send("three")
            await until(lambda: len(seen) == 3)
            peer.transport.abort()
        await until(lambda: len(codes) == 2)
    assert seen == ["one", b"two", "three"]
    assert codes[0] == 4001
    assert codes[1] in (1005, 1006)


async def test_who_is_detached_gets_what_was_published_before_and_nothing_else(served: Any) -> None:
    hub = fanwire.Hub()
    begun: list[Any] = []

    async def route(connection: Any) -> None:
        begun.append(connection)
        while await received(connection) is not None:
            pass

    async with hub.serve(), served(route) as url, client(url) as peer:
        await until(lambda: begun)
        (connection,) = begun
        hub.attach(connection, ["a"])
        hub.attach(connection, ["b"])
        hub.attach(connection, ["a"])  # changes nothing
        hub.publish("a", "one")
        hub.publish("b", "two")
        hub.detach(connection, ["a"])
        hub.publish("a", "not for it")
        hub.publish("b", "three")
        hub.detach(connection)
        hub.publish("b", "not for it")
        hub.detach(connection)  # does nothing
        got = await receive(peer, 3)
        assert sorted(got) == ["one", "three", "two"] and got.index("two") < got.index("three")
        await send_text(connection, "its own")
        assert await receive(peer, 1) == ["its own"]
        hub.attach(connection, ["a"])
        hub.publish("a", "again")
        assert await receive(peer, 1) == ["again"]
        begun.clear()


async def test_one_that_is_stalled_and_one_that_is_dead_hurt_nobody(served: Any) -> None:
    promise = {"a": fanwire.Channel(policy="drop", backlog_frames=20)}
    hub = fanwire.Hub(promise)
    attached: list[Any] = []

    async def route(connection: Any) -> None:
        hub.attach(connection, ["a"])
        attached.append(None)
        while await received(connection) is not None:
            pass

    # A window that is small, and a client that does not read: what is not taken is the server's to keep.
    async with (
        hub.serve(),
        served(route) as url,
        client(url, max_queue=1, compression=None) as stalled,
        client(url) as dead,
        client(url) as peer,
    ):
        await until(lambda: len(attached) == 3)
        dead.transport.abort()
        text = "x" * 60_000
        for number in range(300):
            hub.publish("a", f"{number:03}{text}")
            assert (await receive(peer, 1))[0].startswith(f"{number:03}")
        first = [message[:3] for message in await receive(stalled, 1)]
        assert first == ["000"]
        hub.publish("a", "end")
        seen: list[str] = []
        while seen[-1:] != ["end"]:
            seen += [str(await stalled.recv())[:3]]
        assert seen == sorted(seen) and len(seen) < 280, "the backlog went past it"


async def test_who_is_promised_all_and_falls_behind_is_closed_with_1013(served: Any) -> None:
    hub = fanwire.Hub({"a": fanwire.Channel(backlog_frames=20)})
    codes: list[int] = []

    async def route(connection: Any) -> None:
        codes.append(await hub.adopt(connection, ["a"]))

    async with hub.serve(), served(route) as url, client(url, max_queue=1, compression=None) as slow:
        await until(lambda: hub.occupancy("a") == 1)
        text = "x" * 60_000
        for number in range(1_500):  # more than the kernel takes, whatever it does
            hub.publish("a", f"{number:03}{text}")
            await checkpoint()
        with pytest.raises(Exception, match="1013") as closed:
            while True:
                await receive(slow, 1)
        assert "channel a" in str(closed.value)
        await until(lambda: codes == [1013])


async def test_what_nobody_holds_any_more_is_let_go(served: Any) -> None:
    hub = fanwire.Hub()
    count = 0

    async def route(connection: Any) -> None:
        nonlocal count
        hub.attach(connection, ["a"])
        count += 1
        while await received(connection) is not None:
            pass

    async with hub.serve(), served(route) as url:
        for _ in range(3):
            async with client(url):
                pass
        await until(lambda: count == 3)
        await until(lambda: gc.collect() is not None and not hub.occupancy("a"))


async def test_serving_ends_and_the_connection_stays(served: Any) -> None:
    hub = fanwire.Hub()
    begun: list[Any] = []

    async def route(connection: Any) -> None:
        hub.attach(connection, ["a"])
        begun.append(connection)
        while await received(connection) is not None:
            pass

    async with served(route) as url:
        await hub.start()
        async with client(url) as peer:
            await until(lambda: begun)
            hub.publish("a", "one")
            assert await receive(peer, 1) == ["one"]
            await hub.stop()
            hub.detach(begun[0])  # does nothing
            with pytest.raises(fanwire.HubStopped):
                hub.attach(begun[0], ["a"])
            await send_text(begun[0], "still here")
            assert await receive(peer, 1) == ["still here"]
            other = fanwire.Hub()
            async with other.serve():
                other.attach(begun[0], ["a"])
                other.publish("a", "by another")
                assert await receive(peer, 1) == ["by another"]
        begun.clear()


async def test_it_is_told_once_why_a_transport_cannot_be_had(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fanwire.hub")
    hub = fanwire.Hub()
    count = 0

    async def route(connection: Any) -> None:
        nonlocal count
        hub.attach(connection, ["a"])
        count += 1
        while await received(connection) is not None:
            pass

    async with hub.serve(), by_uvicorn(route) as url, client(url), client(url):
        await until(lambda: count == 2)
    assert len([line for line in caplog.messages if "by its own send" in line]) == 1


async def test_what_cannot_be_attached_is_refused(served: Any) -> None:
    hub, other = fanwire.Hub(), fanwire.Hub()
    begun: list[Any] = []

    async def route(connection: Any) -> None:
        begun.append(connection)
        while await received(connection) is not None:
            pass

    async with hub.serve(), other.serve(), served(route) as url, client(url) as peer:
        await until(lambda: begun)
        (connection,) = begun
        for foreign in (None, object(), peer.transport, asyncio.current_task()):
            with pytest.raises(fanwire.AdoptionError, match="must be one of these"):
                hub.attach(foreign, ["a"])
        for channels, kind in [("a", TypeError), ([1], TypeError), (["a*"], fanwire.InvalidChannel), (None, TypeError)]:
            with pytest.raises(kind):
                hub.attach(connection, channels)
        hub.attach(connection, ["a"])
        with pytest.raises(fanwire.AdoptionError, match="attached to another hub"):
            other.attach(connection, ["a"])
        with pytest.raises(RuntimeError, match="another one"):
            await anyio.to_thread.run_sync(hub.attach, connection, ["a"])
        hub.detach(connection)
        other.attach(connection, ["a"])
        other.publish("a", "by the other")
        assert await receive(peer, 1) == ["by the other"]
        await peer.close()
        other.detach(connection)
        await until(lambda: not is_open(connection))
        with pytest.raises(fanwire.AdoptionError, match="closed"):
            hub.attach(connection, ["a"])
        begun.clear()


def is_open(connection: Any) -> bool:
    """Whether its framework knows that it is closed."""
    foreign = fanwire.adapters.foreign_of(connection)
    assert foreign is not None
    return foreign.is_open


async def test_what_is_not_accepted_yet_is_refused() -> None:
    hub = fanwire.Hub()

    async def never() -> Any:
        raise AssertionError

    async with hub.serve():
        scope = {"type": "websocket", "headers": [], "path": "/"}
        with pytest.raises(fanwire.AdoptionError, match=r"await websocket\.accept\(\)"):
            hub.attach(WebSocket(scope, never, never), ["a"])  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tests_with_starlette_s_client_pass_as_they_are(backend: Any) -> None:
    hub = fanwire.Hub()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        hub.attach(websocket, ["room"])
        try:
            while True:
                hub.publish("room", f"said: {await websocket.receive_text()}")
        except WebSocketDisconnect:
            hub.publish("room", "somebody left")

    async def adopted(websocket: WebSocket) -> None:
        await websocket.accept()
        code = await hub.adopt(websocket, ["room"])
        hub.publish("room", f"left with {code}")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with hub.serve():
            yield

    routes = [WebSocketRoute("/", endpoint), WebSocketRoute("/adopted", adopted)]
    app = Starlette(routes=routes, lifespan=lifespan)
    with TestClient(app, backend=backend) as tests, tests.websocket_connect("/") as one:
        with tests.websocket_connect("/adopted") as other:
            one.send_text("hello")
            assert one.receive_text() == other.receive_text() == "said: hello"
            other.close(4002)
        assert one.receive_text() == "left with 4002"


def test_the_program_of_the_docs() -> None:
    page = (Path(__file__).parent.parent / "docs" / "dropin.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    with TestClient(names["app"]) as tests, tests.websocket_connect("/rooms/7") as one:
        with tests.websocket_connect("/rooms/7") as other:
            other.send_text("hello")
            assert one.receive_text() == other.receive_text() == "hello"
        assert one.receive_text() == "somebody left"
