"""The hub: registering, serving, publishing."""

import gc
import json
import os
import threading
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from support.clients import connected
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


def descriptors() -> int:
    """How many descriptors this process has open."""
    gc.collect()  # an engine's eventfds go with its object, which a traceback may hold for a while
    return len(list(Path("/proc/self/fd").iterdir()))


def engine_threads() -> int:
    """How many threads of engines this process has."""
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
            names.append(path.read_text())
    return sum(name.startswith("fanwire-") for name in names)


class TestRegistering:
    def test_each_callback_may_be_registered_once(self) -> None:
        hub = fanwire.Hub()
        for decorator in (hub.authenticate, hub.authorize, hub.on_message, hub.method("x")):
            decorator(lambda *_: None)
            with pytest.raises(ValueError, match="is registered already"):
                decorator(lambda *_: None)

    def test_decorators_give_the_function_back(self) -> None:
        hub = fanwire.Hub()

        def function(client: object) -> None: ...

        assert hub.on_connect(function) is function
        assert hub.method("x")(function) is function
        assert hub.method(function) is function

    def test_a_callback_must_be_callable(self) -> None:
        with pytest.raises(TypeError, match="must be a function, not int"):
            fanwire.Hub().on_message(3)  # type: ignore[type-var]

    async def test_registering_while_serving_is_an_error(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY):
            with pytest.raises(RuntimeError, match="before the hub serves"):
                hub.on_message(print)
            with pytest.raises(RuntimeError, match="before the hub serves"):
                hub.method("x")(print)

    def test_an_unknown_option_names_the_nearest(self) -> None:
        with pytest.raises(TypeError, match="'ping_intervall'; the nearest known one is 'ping_interval'"):
            fanwire.Hub(ping_intervall=3)  # type: ignore[call-arg]


class TestServing:
    async def test_port_0_is_resolved(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY) as serving:
            host, _, port = serving.address.rpartition(":")
            assert host == "127.0.0.1"
            assert int(port) > 0
            assert serving.poller in ("epoll", "uring")

    async def test_a_port_in_use_is_listen_failed_and_leaves_nothing(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY) as serving:
            other = fanwire.Hub()
            before = descriptors()
            with pytest.raises(fanwire.ListenFailed):
                async with other.serve(serving.address):
                    raise AssertionError
            await until(lambda: descriptors() == before)
            with pytest.raises(fanwire.HubStopped):
                other.publish("a", "x")

    async def test_serving_twice_at_once_is_an_error(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY):
            with pytest.raises(RuntimeError, match="serving already"):
                async with hub.serve(ANY):
                    raise AssertionError
            hub.publish("a", "x")

    async def test_serving_again_is_a_new_life(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY):
            first = hub.publish("a", "x")
        async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
            second = hub.publish("a", "y")
            assert await peer.receive() == "y"
        assert first.offset == second.offset == 1
        assert first.epoch != second.epoch

    async def test_no_thread_and_no_descriptor_is_left(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY) as serving, connected(serving.address):
            pass
        before, threads = descriptors(), engine_threads()
        async with hub.serve(ANY, shards=2) as serving, connected(serving.address):
            assert descriptors() > before
            await until(lambda: engine_threads() >= threads + 2)  # a thread gives itself its name
        # One that has ended may be in the list for a moment.
        await until(lambda: (descriptors(), engine_threads()) == (before, threads))

    async def test_what_the_body_raises_comes_out_as_it_is(self, hub: fanwire.Hub) -> None:
        with pytest.raises(KeyError, match="mine"):
            async with hub.serve(ANY):
                raise KeyError("mine")
        with pytest.raises(fanwire.HubStopped):
            hub.stats()

    async def test_the_end_closes_clients_with_1001(self, hub: fanwire.Hub) -> None:
        async with anyio.create_task_group() as tasks:
            codes: list[int] = []
            leave = anyio.Event()

            async def client(address: str) -> None:
                async with connected(address) as peer:
                    leave.set()
                    codes.append((await peer.closed())[0])

            async with hub.serve(ANY) as serving:
                tasks.start_soon(client, serving.address)
                await leave.wait()
        assert codes == [1001]

    async def test_the_end_waits_no_longer_than_drain_timeout_for_a_client_that_never_answers(
        self, hub: fanwire.Hub
    ) -> None:
        from support.raw import upgraded

        with anyio.fail_after(50):
            async with hub.serve(ANY, drain_timeout=0.2, close_timeout=60) as serving:
                silent = await run_sync(upgraded, serving.address)
        silent.close()

    @pytest.mark.parametrize("place", ["start", "body", "drain"])
    async def test_cancelled_anywhere_it_leaves_nothing(self, hub: fanwire.Hub, place: str) -> None:
        from support.raw import upgraded

        async with hub.serve(ANY):  # worker threads and the like are there before counting
            pass
        before = descriptors()
        silent = None
        with anyio.CancelScope() as scope:
            if place == "start":
                scope.cancel()
            async with hub.serve(ANY, drain_timeout=60, close_timeout=60) as serving:
                assert place != "start"
                if place == "drain":
                    silent = await run_sync(upgraded, serving.address)
                    scope.deadline = anyio.current_time() + 0.1
                else:
                    scope.cancel()
                    await anyio.Event().wait()
        assert scope.cancelled_caught
        if silent is not None:
            silent.close()
        await until(lambda: descriptors() == before)
        with pytest.raises(fanwire.HubStopped):
            hub.publish("a", "x")

    async def test_stopping_while_clients_connect(self, hub: fanwire.Hub) -> None:
        from support.raw import open_socket, request_text

        sockets = []
        async with hub.serve(ANY, drain_timeout=0.5) as serving:

            def connect_many() -> None:
                for number in range(200):
                    connection = open_socket(serving.address)
                    sockets.append(connection)
                    if number % 3:
                        connection.sendall(request_text("/ws?channel=a")[: 40 if number % 3 == 1 else None])

            await run_sync(connect_many)
        for connection in sockets:
            connection.close()


class TestPublishing:
    def test_before_serving_it_says_so(self) -> None:
        hub = fanwire.Hub()
        with pytest.raises(fanwire.HubStopped, match="not serving yet"):
            hub.publish("a", "x")
        with pytest.raises(fanwire.HubStopped, match="not serving yet"):
            hub.publish_many("a", ["x"])
        with pytest.raises(fanwire.HubStopped, match="not serving yet"):
            hub.occupancy("a")

    async def test_after_serving_it_says_so(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY):
            pass
        for verb in (partial(hub.publish, "a", "x"), partial(hub.publish_many, "a", ["x"]), hub.stats):
            with pytest.raises(fanwire.HubStopped, match="was stopped"):
                verb()

    async def test_text_bytes_and_json_arrive_as_such(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
            hub.publish("a", "tëxt")
            hub.publish("a", b"\x00\xff")
            hub.publish("a", {"home": 1.85, "name": "Å"})
            hub.publish("other", "not for us")
            hub.publish("a", "")
            texts = await peer.receive_all(4)
            assert texts[:2] == ["tëxt", b"\x00\xff"]
            assert json.loads(texts[2]) == {"home": 1.85, "name": "Å"}
            assert texts[3] == ""

    async def test_positions_count_up_in_each_channel(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY):
            first = hub.publish("a", "x")
            assert [hub.publish("a", "x").offset for _ in range(3)] == [2, 3, 4]
            assert hub.publish("b", "x").offset == 1
            assert (await run_sync(hub.publish, "a", "x")) == fanwire.Position(first.epoch, 5)

    async def test_publications_of_each_thread_arrive_in_their_order(self, hub: fanwire.Hub) -> None:
        count = 500

        def publish(thread: int) -> None:
            for number in range(count):
                hub.publish("a", f"{thread} {number}")

        async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
            threads = [threading.Thread(target=publish, args=(thread,)) for thread in range(4)]
            for thread in threads:
                thread.start()
            for number in range(count):
                hub.publish("a", f"loop {number}")
            texts = [str(text).split() for text in await peer.receive_all(5 * count)]
            await run_sync(lambda: [thread.join() for thread in threads])
        for thread in ("0", "1", "2", "3", "loop"):
            assert [int(number) for name, number in texts if name == thread] == list(range(count))

    async def test_a_burst_from_the_loop_is_one_write(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
            for number in range(20):
                hub.publish("a", str(number))
            assert await peer.receive_all(20) == [str(number) for number in range(20)]
            await until(lambda: hub.stats().deliveries == 20)
            assert hub.stats().writes == 1

    @pytest.mark.parametrize("from_thread", [False, True])
    async def test_publish_many_gives_a_position_for_each(self, hub: fanwire.Hub, from_thread: bool) -> None:
        async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
            items = ["x", b"y", {"z": 1}]
            publish = partial(hub.publish_many, "a", items)
            positions = await run_sync(publish) if from_thread else publish()
            assert [position.offset for position in positions] == [1, 2, 3]
            assert await peer.receive_all(3) == ["x", b"y", '{"z":1}']
            assert hub.publish_many("a", []) == []

    async def test_publish_many_tells_which_item_was_bad(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
            with pytest.raises(fanwire.UnsupportedType) as caught:
                hub.publish_many("a", ["x", "y", object(), "z"])
            assert "item 2" in caught.value.__notes__[0]
            hub.publish("a", "after")
            assert await peer.receive_all(3) == ["x", "y", "after"]

    @pytest.mark.parametrize("channel", ["", "x" * 256, "a\nb", "\x00"])
    async def test_a_bad_channel_is_refused(self, hub: fanwire.Hub, channel: str) -> None:
        async with hub.serve(ANY):
            with pytest.raises(fanwire.InvalidChannel):
                hub.publish(channel, "x")
            hub.publish("x" * 255, "x")

    async def test_a_payload_over_the_bound_is_refused(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY, publication_bytes_max=100):
            with pytest.raises(fanwire.PayloadTooBig) as caught:
                hub.publish("a", "x" * 101)
            assert (caught.value.payload_bytes, caught.value.bytes_max) == (101, 100)
            assert str(caught.value) == "payload of 101 bytes is over publication_bytes_max, which is 100"
            assert hub.publish("a", "x" * 100).offset == 1

    @pytest.mark.parametrize(
        ("terms", "error"),
        [
            ({"key": "k" * 256}, "key of 256 bytes is over the bound of 255"),
            ({"event": "a\nb"}, "event must be the name of an event, a str without line breaks, or None, not 'a.*b'"),
            ({"ttl": 0}, "ttl must be a number of seconds over 0, or None, not 0"),
        ],
        ids=["key", "event", "ttl"],
    )
    async def test_terms_beyond_their_bounds_are_refused(
        self, hub: fanwire.Hub, terms: dict[str, Any], error: str
    ) -> None:
        async with hub.serve(ANY):
            with pytest.raises(ValueError, match=error):
                hub.publish("a", "x", **terms)
            assert hub.publish("a", "x", key="k" * 255, event="b", ttl=0.1).offset == 1

    async def test_occupancy_and_stats_follow_the_clients(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY) as serving:
            assert hub.occupancy("a") == 0
            async with connected(serving.address, "/ws?channel=a&channel=b"):
                await until(lambda: hub.occupancy("a") == hub.occupancy("b") == 1)
                assert hub.stats().connections == 1
                await until(lambda: hub.stats().subscriptions == 2)  # counted once its shard has joined it
            await until(lambda: hub.stats().connections == 0)
            assert hub.occupancy("a") == 0
            assert hub.stats().closes == {1000: 1}


class TestStalledReader:
    async def test_one_that_does_not_read_is_closed_with_1013_while_others_go_on(self, poller: str) -> None:
        from support.raw import read_close, upgraded

        hub = fanwire.Hub({"a": fanwire.Channel(backlog_bytes=262_144)}, poller=poller)
        text = "x" * 16_384
        async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a", max_size=None) as peer:
            stalled = await run_sync(partial(upgraded, serving.address, "/ws?channel=a", receive_buffer=4_096))
            await until(lambda: hub.occupancy("a") == 2)
            for _ in range(2_000):
                hub.publish("a", text)
                assert await peer.receive() == text
                if hub.stats().overtaken:
                    break
            assert hub.stats().overtaken == 1
            code, reason = await run_sync(read_close, stalled)
            stalled.close()
            assert code == 1013
            assert "'a'" in reason or '"a"' in reason or " a" in reason
            hub.publish("a", "still here")
            assert await peer.receive() == "still here"


class TestFork:
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_an_inherited_hub_refuses_and_says_what_to_do_and_a_new_one_works(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                os.write(writing, _what_a_child_sees(hub).encode())
                os._exit(0)
            os.close(writing)
            with os.fdopen(reading) as pipe:
                said = await run_sync(pipe.read)
            os.waitpid(child, 0)
            assert said.startswith("HubStopped: this hub serves in process"), said
            assert "make a new Hub here" in said
            assert said.endswith("new hub: 1")
            hub.publish("a", "the parent goes on")
            assert await peer.receive() == "the parent goes on"


def _what_a_child_sees(hub: fanwire.Hub) -> str:
    try:
        hub.publish("a", "from the child")
        said = "published"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"

    hub.stop_soon()  # would wake the loop of the parent

    def serve_anew() -> None:
        nonlocal said

        async def main() -> None:
            nonlocal said
            await hub.stop()
            new = fanwire.Hub()
            async with new.serve(ANY):
                said += f" new hub: {new.publish('a', 'x').offset}"

        anyio.run(main)

    thread = threading.Thread(target=serve_anew)  # the forked thread believes that it runs a loop
    thread.start()
    thread.join(60)
    return said


async def test_a_drain_is_spread_and_who_is_not_closed_yet_is_served(hub: fanwire.Hub) -> None:
    hub.on_message(lambda client, data: client.send(data))
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        leave = anyio.Event()

        async def serve(*, task_status: anyio.abc.TaskStatus[str]) -> None:
            async with hub.serve(ANY, drain_spread=40.0, drain_code=1012) as serving:
                task_status.started(serving.address)
                await leave.wait()

        address = await tasks.start(serve)
        peers = [await stack.enter_async_context(connected(address)) for _ in range(4)]
        leave.set()
        assert await peers[0].closed() == (1012, "")
        await peers[3].send("still here")
        assert await peers[3].receive() == "still here"
        for peer in peers[1:]:
            await peer.close()  # so that the others' turns need not come
