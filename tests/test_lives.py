"""Lives of a hub in programs that use it wrongly: what is late, in the wrong loop, or left behind."""

import ast
import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import fanwire
import pytest
from support.clients import connected
from support.hub_client import hub_client
from support.hubs import MakeHub
from support.raw import free_port, upgraded
from support.waiting import until

ANY = "127.0.0.1:0"


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


REGISTERING: dict[str, Callable[[fanwire.Hub], object]] = {
    "authenticate": lambda hub: hub.authenticate(lambda request: None),
    "authorize": lambda hub: hub.authorize(lambda client, channel: True),
    "on_connect": lambda hub: hub.on_connect(lambda client: None),
    "on_disconnect": lambda hub: hub.on_disconnect(lambda client, gone: None),
    "on_message": lambda hub: hub.on_message(lambda client, data: None),
    "on_presence": lambda hub: hub.on_presence(lambda change: None),
    "method": lambda hub: hub.method("name")(lambda client: None),
    "snapshot": lambda hub: hub.snapshot("a*")(lambda channel: None),
    "endpoint": lambda hub: hub.endpoint("/other"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_nothing_is_registered_from_the_call_of_start_on() -> None:
    hubs = {what: fanwire.Hub() for what in REGISTERING}
    refused: list[str] = []

    async def late(what: str) -> None:
        with pytest.raises(RuntimeError, match="before the hub serves"):
            REGISTERING[what](hubs[what])
        refused.append(what)

    async def start(what: str) -> None:
        starting = hubs[what].start(ANY)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(late, what)
            await starting

    for what in REGISTERING:
        await start(what)
        await hubs[what].stop()
        REGISTERING[what](hubs[what])  # and now it counts
    assert refused == [*REGISTERING]


@pytest.mark.anyio
async def test_a_decorator_that_was_made_before_registers_nothing_while_the_hub_serves(hub: fanwire.Hub) -> None:
    registers = hub.snapshot("a*")
    async with hub.serve(ANY):
        with pytest.raises(RuntimeError, match="before the hub serves"):
            registers(lambda channel: None)


@pytest.mark.anyio
async def test_who_starts_while_a_start_is_under_way_is_told_so(hub: fanwire.Hub) -> None:
    errors: list[str] = []

    async def start() -> None:
        try:
            await hub.start(ANY)
        except RuntimeError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        tasks.start_soon(start)
    assert errors == ["another start or stop of this hub is under way: wait until it has returned"]
    await hub.stop()


class TestLoops:
    """Several of one thread, one after another, as scripts make them."""

    @pytest.fixture
    def loops(self) -> Iterator[list[asyncio.AbstractEventLoop]]:
        """Two, closed at the end."""
        made = [asyncio.new_event_loop(), asyncio.new_event_loop()]
        yield made
        for one in made:
            one.close()

    def test_what_waits_is_for_the_loop_that_serves(
        self, make_hub: MakeHub, loops: list[asyncio.AbstractEventLoop]
    ) -> None:
        hub, (right, wrong) = make_hub(), loops
        right.run_until_complete(hub.start(ANY))
        position = hub.publish("a", "x").position

        async def deliver() -> None:
            await hub.delivered(position)

        async def listen() -> None:
            async with hub.listen("a"):
                raise AssertionError("it is entered")

        for function in (hub.stop, deliver, listen):
            with pytest.raises(RuntimeError, match="for the event loop that serves"):
                wrong.run_until_complete(asyncio.wait_for(function(), 60))
        hub.publish("a", "y")  # it serves as before
        right.run_until_complete(asyncio.wait_for(hub.stop(), 60))
        wrong.run_until_complete(asyncio.wait_for(hub.start(ANY), 60))
        wrong.run_until_complete(asyncio.wait_for(hub.stop(), 60))

    @pytest.mark.parametrize("first", ["publish", "publish_many", "thread", "start", "stop", "stop_soon"])
    def test_one_that_is_closed_ends_what_it_served(
        self, make_hub: MakeHub, loops: list[asyncio.AbstractEventLoop], first: str
    ) -> None:
        hub, (closed, other), port = make_hub(), loops, free_port()
        closed.run_until_complete(hub.start(port))
        peer = upgraded(f"127.0.0.1:{port}")
        closed.close()
        if first == "publish":
            for _ in range(2):
                with pytest.raises(fanwire.HubStopped, match="loop was closed while the hub served"):
                    hub.publish("a", "x")
        elif first == "publish_many":
            with pytest.raises(fanwire.HubStopped, match="loop was closed while the hub served"):
                hub.publish_many("a", ["x"])
        elif first == "thread":
            with ThreadPoolExecutor(1) as thread:
                for call in (partial(hub.publish, "a", "x"), partial(hub.publish_to_all, "x"), hub.stats):
                    with pytest.raises(fanwire.HubStopped, match="loop was closed while the hub served"):
                        thread.submit(call).result()
        elif first == "stop_soon":
            hub.stop_soon()
        elif first == "stop":
            other.run_until_complete(asyncio.wait_for(hub.stop(), 60))
        other.run_until_complete(asyncio.wait_for(hub.start(port), 60))
        assert peer.recv(1) == b""
        peer.close()
        other.run_until_complete(asyncio.wait_for(hub.stop(), 60))


def test_stop_soon_counts_from_the_call_of_run_on(make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, begun, may_go_on = make_hub(), threading.Event(), threading.Event()
    plan = fanwire.hub.plan

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert may_go_on.wait(60)
        return plan(*arguments)

    monkeypatch.setattr("fanwire.hub.plan", slow)
    thread = threading.Thread(target=hub.run, args=(ANY,))
    thread.start()
    assert begun.wait(60)
    hub.stop_soon()
    may_go_on.set()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.anyio
async def test_who_keeps_a_client_keeps_no_engine(hub: fanwire.Hub) -> None:
    kept: list[fanwire.Client] = []
    hub.on_connect(kept.append)
    hub.method("me")(lambda client: 1)

    async def live() -> None:
        async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
            assert await client.invoke("me") == {"result": 1}

    await live()
    gc.collect()
    before = descriptors()
    for _ in range(5):
        await live()
    gc.collect()
    await until(lambda: descriptors() <= before)
    assert len(kept) == 6


@pytest.mark.anyio
async def test_what_has_ended_keeps_no_descriptors_until_the_garbage_collector_comes(hub: fanwire.Hub) -> None:
    async def live() -> None:
        async with hub.serve(ANY):
            pass

    await live()
    gc.collect()
    before = descriptors()
    gc.disable()
    try:
        for _ in range(10):
            await live()
        await until(lambda: descriptors() <= before + 2)  # of the last one, which a task that is ending may hold
    finally:
        gc.enable()


RELAYING = """
import asyncio, gc, os, sys, warnings
warnings.simplefilter("ignore")
gc.disable()
import fanwire
from fanwire.relay import RelayConfig
from support.hub_client import hub_client
from support.relaying import config, watch
from support.scripted_backend import ScriptedBackend

async def live(backend):
    hub = fanwire.Hub()
    hub.relay(config(backend))
    plain = RelayConfig(path="/feed", upstream=f"ws://{backend.address}/", protocol="websocket", ready="ignore")
    hub.relay(plain)
    serving = await hub.start("127.0.0.1:0", signalr_paths=(), drain_timeout=0.2)
    async with hub_client(serving.address, "/live") as client:
        await watch(client)
        hub.remove_path("/feed")  # one that has gone keeps none either
    await hub.stop()

counts = []
for _ in range(4):
    with ScriptedBackend() as backend:
        asyncio.run(live(backend))
    counts.append(len(os.listdir("/proc/self/fd")))
print(counts)
"""


def test_a_relay_that_has_ended_keeps_no_descriptors_until_the_garbage_collector_comes() -> None:
    run = [sys.executable, "-W", "ignore", "-c", RELAYING]
    done = subprocess.run(run, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=100, check=False)
    counts = ast.literal_eval(done.stdout or f"[{done.stderr!r}]")
    assert len(counts) == 4
    assert counts[-1] <= counts[0], counts


def test_a_user_s_id_is_text() -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        fanwire.Identity("a\ud800")
    assert fanwire.Identity("a\0\U0001f600").id == "a\0\U0001f600"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("half", [ModuleType("trio"), SimpleNamespace(lowlevel=ModuleType("trio.lowlevel"))])
async def test_a_thread_that_imports_trio_just_now_disturbs_nobody(
    hub: fanwire.Hub, monkeypatch: pytest.MonkeyPatch, half: Any
) -> None:
    monkeypatch.setitem(sys.modules, "trio", half)
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
        hub.publish("a", "x")
        assert await peer.receive() == "x"


INTERRUPTED = """
import asyncio, sys, threading
import fanwire
sys.path.insert(0, {tests!r})
from support.raw import frame, upgraded
hub = fanwire.Hub(drain_timeout=0.1)

@hub.on_message
def interrupt(client, data):
    raise KeyboardInterrupt

async def main():
    serving = await hub.start("127.0.0.1:0")
    peers = []
    def go():
        peers.append(upgraded(serving.address))
        peers[0].sendall(frame(1, b"x"))
    threading.Thread(target=go, daemon=True).start()
    try:
        await asyncio.Event().wait()
    finally:
        await hub.stop()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_a_program_that_is_interrupted_in_a_callback_ends() -> None:
    program = INTERRUPTED.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-W", "ignore", "-c", program]
    ended = subprocess.run(command, capture_output=True, timeout=100, text=True, check=False)
    assert ended.stdout == "interrupted\n", ended.stderr
