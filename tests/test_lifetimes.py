"""Start and stop: from different tasks, in other people's programs, and when something ends the serving first."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import fanwire
import fanwire.pump
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from anyio.to_thread import run_sync
from support.clients import connected
from support.waiting import until, until_in_thread

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


def threads_of_engines() -> list[str]:
    """Names of the engines' threads of this process; one that has ended may be listed for a moment."""
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
            names.append(path.read_text().strip())
    return [name for name in names if name.startswith("fanwire-")]


async def in_a_task_of_its_own(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What `function` returns, called in a task that has ended then."""
    results = []

    async def call() -> None:
        results.append(await function())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
    return results[0]


async def test_start_and_stop_may_be_different_tasks(hub: fanwire.Hub) -> None:
    serving = await in_a_task_of_its_own(partial(hub.start, ANY))
    async with connected(serving.address, "/ws?channel=a") as peer:
        hub.publish("a", "x")
        assert await peer.receive() == "x"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.stop)
            assert (await peer.closed())[0] == 1001
    with pytest.raises(fanwire.HubStopped):
        hub.publish("a", "y")
    until_in_thread(lambda: not threads_of_engines())
    await hub.stop()  # there is nothing to stop, and that is no error
    async with hub.serve(ANY):  # a new life
        hub.publish("a", "z")


async def test_callbacks_see_the_context_variables_of_who_began(hub: fanwire.Hub) -> None:
    from contextvars import ContextVar

    whose: ContextVar[str] = ContextVar("whose", default="nobody's")
    seen = []
    hub.on_message(lambda client, data: seen.append(whose.get()))
    whose.set("mine")
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send("x")
        await until(lambda: seen)
    assert seen == ["mine"]


async def test_what_cannot_listen_leaves_nothing_and_the_hub_may_try_again(hub: fanwire.Hub) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        await hub.start("nowhere")
    until_in_thread(lambda: not threads_of_engines())
    await hub.start(ANY)
    with pytest.raises(RuntimeError, match="serving already"):
        await hub.start(ANY)
    await hub.stop()


def ignore(client: fanwire.Client, data: str | bytes) -> None:
    """Takes messages, so that they come to Python."""


class TestAFailure:
    """Of the serving itself: the pump is made to fail, as an engine that cannot be read would have it fail."""

    @pytest.fixture
    def fail(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """Have the hub's pump fail from now on."""

        def fail() -> None:
            def raise_(*_: object) -> None:
                raise SystemError("the engine cannot be read")

            monkeypatch.setattr(fanwire.pump.Pump, "_acknowledge", raise_)

        return fail

    async def test_ends_the_body_of_serve_with_the_error(self, hub: fanwire.Hub, fail: Callable[[], None]) -> None:
        hub.on_message(ignore)
        with pytest.raises(SystemError, match="cannot be read"):
            async with hub.serve(ANY) as serving, connected(serving.address) as peer:
                fail()
                await peer.send("x")
                await anyio.Event().wait()
        until_in_thread(lambda: not threads_of_engines())
        with anyio.move_on_after(5) as scope:  # the task is as good as new
            await anyio.lowlevel.checkpoint()
        assert not scope.cancelled_caught

    async def test_is_logged_and_raised_by_stop(
        self, hub: fanwire.Hub, fail: Callable[[], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        hub.on_message(ignore)
        serving = await hub.start(ANY)
        async with connected(serving.address) as peer:
            fail()
            await peer.send("x")
            await until(lambda: not threads_of_engines())
        with pytest.raises(fanwire.HubStopped):
            hub.publish("a", "x")
        with pytest.raises(SystemError, match="cannot be read"):
            await hub.stop()
        await hub.stop()  # it was told
        assert f"serving on {serving.address} ended: the engine cannot be read" in caplog.text


class TestStopping:
    async def test_cancelled_it_waits_for_nobody_and_the_serving_ends_by_itself(self, hub: fanwire.Hub) -> None:
        from support.raw import upgraded

        serving = await hub.start(ANY, drain_timeout=60, close_timeout=60)
        silent = await run_sync(upgraded, serving.address)
        with anyio.move_on_after(0.05) as scope:
            await hub.stop()
        assert scope.cancelled_caught
        await until(lambda: not threads_of_engines())
        silent.close()

    async def test_a_callback_that_stops_the_hub_is_cut_short(self, hub: fanwire.Hub) -> None:
        after: list[str] = []

        @hub.on_message
        async def stop(client: fanwire.Client, data: str | bytes) -> None:
            await hub.stop()
            after.append("it went on")

        serving = await hub.start(ANY, drain_timeout=1)
        async with connected(serving.address) as peer:
            await peer.send("x")
            assert (await peer.closed())[0] == 1001
        await until(lambda: not threads_of_engines())
        assert after == []

    async def test_another_thread_stops_it_with_stop_soon(self, hub: fanwire.Hub) -> None:
        serving = await hub.start(ANY)

        def stop_here() -> None:
            with pytest.raises(RuntimeError, match="another thread calls stop_soon"):
                anyio.run(hub.stop)
            hub.stop_soon()

        async with connected(serving.address) as peer:
            await run_sync(stop_here)
            assert (await peer.closed())[0] == 1001
        await hub.stop()
        hub.stop_soon()  # nothing is there to be stopped

    async def test_two_may_stop_it_at_once(self, hub: fanwire.Hub) -> None:
        await hub.start(ANY)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.stop)
            tasks.start_soon(hub.stop)
        until_in_thread(lambda: not threads_of_engines())


def test_a_loop_that_ends_first_ends_the_serving(anyio_backend: tuple[str, dict[str, Any]], hub: fanwire.Hub) -> None:
    async def main() -> None:
        await hub.start(ANY, drain_timeout=60)

    anyio.run(main, backend=anyio_backend[0], backend_options=anyio_backend[1])
    until_in_thread(lambda: not threads_of_engines())
    with pytest.raises(fanwire.HubStopped):
        hub.publish("a", "x")


def test_run_in_another_thread_serves_without_signals(hub: fanwire.Hub, caplog: pytest.LogCaptureFixture) -> None:
    raised: list[BaseException] = []

    def serve() -> None:
        try:
            hub.run(ANY)
        except BaseException as error:
            raised.append(error)
            raise

    with caplog.at_level(logging.INFO, "fanwire.hub"):
        thread = threading.Thread(target=serve)
        thread.start()
        until_in_thread(lambda: "serving on 127.0.0.1:" in caplog.text or raised)
        hub.publish("a", "x")
        hub.stop_soon()
        thread.join(60)
    assert not thread.is_alive()
    assert raised == []
    until_in_thread(lambda: not threads_of_engines())


class TestOtherPeoplesPrograms:
    """Each enters and leaves in its own way."""

    @pytest.fixture(params=["asyncio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        """These frameworks are asyncio's."""
        return str(request.param)

    async def test_serve_is_left_in_another_task_with_asyncio(self, hub: fanwire.Hub) -> None:
        context = hub.serve(ANY)
        await asyncio.create_task(context.__aenter__())
        hub.publish("a", "x")
        await asyncio.create_task(context.__aexit__(None, None, None))
        until_in_thread(lambda: not threads_of_engines())

    async def test_a_cleanup_context_of_aiohttp(self, hub: fanwire.Hub) -> None:
        async def serving(app: web.Application) -> AsyncIterator[None]:
            async with hub.serve(ANY):
                yield

        app = web.Application()
        app.cleanup_ctx.append(serving)
        server = TestServer(app)
        await asyncio.create_task(server.start_server())  # a fixture's setup
        hub.publish("a", "x")
        await asyncio.create_task(server.close())  # and its teardown
        until_in_thread(lambda: not threads_of_engines())

    async def test_a_lifespan_of_starlette(self, hub: fanwire.Hub) -> None:
        from starlette.applications import Starlette

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            async with hub.serve(ANY):
                yield

        to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        from_app: asyncio.Queue[Any] = asyncio.Queue()
        app = Starlette(lifespan=lifespan)
        running = asyncio.create_task(
            app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, to_app.get, from_app.put)
        )  # as a server of ASGI does it
        await to_app.put({"type": "lifespan.startup"})
        assert (await from_app.get())["type"] == "lifespan.startup.complete"
        hub.publish("a", "x")
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
        await running
        until_in_thread(lambda: not threads_of_engines())

    async def test_hooks_that_know_nothing_of_each_other(self, hub: fanwire.Hub) -> None:
        app = web.Application()

        async def begin(app: web.Application) -> None:
            await hub.start(ANY)

        async def end(app: web.Application) -> None:
            await hub.stop()

        app.on_startup.append(begin)
        app.on_cleanup.append(end)
        runner = web.AppRunner(app)
        await asyncio.create_task(runner.setup())
        hub.publish("a", "x")
        await asyncio.create_task(runner.cleanup())
        until_in_thread(lambda: not threads_of_engines())
