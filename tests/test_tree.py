"""A tree: hubs that are edges of another, the origin; real sockets, clients of each, a way there that breaks."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from anyio.abc import SocketStream
from support.backbones import told, watching
from support.clients import Peer, connected
from support.raw import free_port
from support.waiting import until
from support.ways import way
from support.workers import Program, serving
from test_backbone_away import address_in, answers, asked
from websockets.asyncio.server import ServerConnection, serve

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

CHANNELS = {
    "odds:*": fanwire.Channel(history=100),
    "latest:*": fanwire.Channel(policy="latest", history=10),
    "state:*": fanwire.Channel(start="keyframe"),
}
NOWHERE = "127.0.0.1:1"
ENVELOPE = "?envelope=1"

SOURCE = """
import asyncio, logging, sys
import fanwire

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
hub = fanwire.Hub({"odds:*": fanwire.Channel(history=100)})

@hub.method
async def publish(client, channel, data):
    return list(hub.publish(channel, data).position)

async def main():
    async with hub.serve(sys.argv[1]) as serving:
        print("serving on", serving.address, "with 1 workers")
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


def edge_of(*addresses: str, **options: Any) -> fanwire.Hub:
    """A hub that passes on what one of these has."""
    return fanwire.Hub(CHANNELS, backbone=f"fanwire://{','.join(addresses)}", **options)


@asynccontextmanager
async def tree(edges: int = 1, **options: Any) -> AsyncIterator[tuple[fanwire.Hub, str, list[fanwire.Hub], list[str]]]:
    """An origin and edges of it, and where each serves."""
    origin = fanwire.Hub(CHANNELS, **options)
    async with AsyncExitStack() as stack:
        address = (await stack.enter_async_context(origin.serve("127.0.0.1:0"))).address
        hubs = [edge_of(address) for _ in range(edges)]
        addresses = [(await stack.enter_async_context(hub.serve("127.0.0.1:0"))).address for hub in hubs]
        yield origin, address, hubs, addresses


async def offsets(peer: Peer, count: int) -> list[int]:
    """Those of the next publications."""
    return [message["position"][1] for message in await told(peer, count)]


async def test_what_is_published_at_the_origin_comes_with_the_same_position_in_the_same_order() -> None:
    async with tree() as (origin, address, _, [edge]), AsyncExitStack() as stack:
        for number in range(3):
            origin.publish("odds:1", {"n": number})
        query = f"{ENVELOPE}&start=history&channel=odds:1"
        peers = [await stack.enter_async_context(connected(one, f"/ws{query}")) for one in (address, edge)]
        first = [await told(peer, 3) for peer in peers]
        assert first[0] == first[1] and [message["data"]["n"] for message in first[0]] == [0, 1, 2]
        origin.publish("odds:1", "täxt", event="said")
        origin.publish("odds:1", b"\0\xff")
        origin.publish("odds:1", [1, {"a": None}], keyframe=True)
        for number in range(200):
            origin.publish("odds:1", number)
        both = [await told(peer, 203) for peer in peers]
        assert both[0] == both[1]
        assert [message["position"][1] for message in both[0]] == list(range(4, 207))


async def test_objects_come_as_messagepack_also_those_of_before_anybody_spoke_it() -> None:
    async with tree() as (origin, address, _, [edge]), AsyncExitStack() as stack:
        origin.publish("odds:1", {"at": 1.5})
        query = "?format=msgpack&envelope=1&channel=odds:1"
        first = await stack.enter_async_context(connected(edge, f"/ws{query}&start=history"))
        message = await first.receive()
        assert isinstance(message, bytes) and b"at" in message
        second = await stack.enter_async_context(connected(address, f"/ws{query}"))
        origin.publish("odds:1", {"at": 1.5, "raw": b"\1"})
        assert await first.receive() == await second.receive()


async def test_a_channel_is_subscribed_once_for_all_clients_of_an_edge() -> None:
    async with tree() as (origin, _, _, [edge]), AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(watching(edge, "odds:1")) for _ in range(20)]
        assert (origin.stats().connections, origin.occupancy("odds:1")) == (1, 1)
        origin.publish("odds:1", "all")
        assert [await told_text(peer) for peer in peers] == ["all"] * 20


async def told_text(peer: Peer) -> str | bytes:
    """The next message."""
    return await peer.receive()


async def test_a_client_moves_between_edges_and_the_origin_without_a_hole_or_a_double() -> None:
    async with tree(2) as (origin, address, _, edges):
        seen: list[int] = []
        position: list[int] | None = None
        for turn in range(9):
            for number in range(5):
                origin.publish("odds:1", number)
            since = {"odds:1": position} if position else {"odds:1": [1, 0]}
            where = [*edges, address][turn % 3]
            async with watching(where, "odds:1", query=ENVELOPE, since=since, start="history") as peer:
                messages = await told(peer, 5)
                position = messages[-1]["position"]
                seen += [message["position"][1] for message in messages]
        assert seen == list(range(1, 46))


async def test_of_policy_latest_an_edge_has_the_newest_of_each_key() -> None:
    async with tree() as (origin, address, _, [edge]):
        for number in range(50):
            origin.publish("latest:1", number, key=f"k{number % 3}")
        async with connected(edge, "/ws?channel=latest:1&start=history") as peer:
            assert await told(peer, 3) == [47, 48, 49]
            origin.remove("latest:1", key="k0")
            origin.publish("latest:1", 50, key="k1")
            assert (await told(peer, 2))[1] == 50
        for where in (address, edge):
            async with connected(where, f"/ws{ENVELOPE}&channel=latest:1&start=history") as peer:
                seen = await told(peer, 3)
            assert [message["data"] for message in seen] == [47, {"removed": "k0"}, 50], where


async def test_who_comes_late_begins_with_the_keyframe_that_the_origin_has() -> None:
    async with tree() as (origin, _, _, [edge]):
        origin.publish("state:1", "old")
        origin.publish("state:1", "all of it", keyframe=True)
        origin.publish("state:1", "a change")
        async with connected(edge, "/ws?channel=state:1") as peer:
            assert [await peer.receive() for _ in range(2)] == ["all of it", "a change"]


async def test_a_newcomer_of_an_edge_begins_with_the_snapshot_of_the_origin_s_application() -> None:
    origin, counted = fanwire.Hub(CHANNELS), {"n": 0}

    @origin.snapshot("state:*", interval=0.001)
    def state(channel: str) -> dict[str, int]:
        return dict(counted)

    async with origin.serve("127.0.0.1:0") as serving_:
        edge = edge_of(serving_.address)

        @edge.snapshot("state:*", interval=0.001)
        def never(channel: str) -> None:
            raise AssertionError("the origin's application is asked")

        async with edge.serve("127.0.0.1:0") as at, connected(at.address, f"/ws{ENVELOPE}&channel=state:1") as first:
            (message,) = await told(first, 1)
            assert (message["keyframe"], message["data"]) == (True, {"n": 0})
            for number in range(1, 4):
                counted["n"] = number
                position = origin.publish("state:1", number).position
                assert [one["position"] for one in await told(first, 1)] == [[*position]]
                async with connected(at.address, f"/ws{ENVELOPE}&channel=state:1") as late:
                    seen = await told(late, 1)
                    while seen[-1]["position"] != [*position]:  # an earlier one is still young, and what follows comes
                        seen += await told(late, 1)
                    assert seen[0]["keyframe"] and seen[-1]["data"] in ({"n": number}, number)


async def test_what_nobody_is_sent_any_more_is_no_hole() -> None:
    async with tree() as (origin, _, _, [edge]):
        origin.publish("odds:1", 1)
        origin.publish("odds:1", 2, ttl=0.001)
        origin.publish("odds:1", 3)
        over = time.monotonic() + 0.01
        await until(lambda: time.monotonic() > over)  # its time, and that is all that can tell
        async with connected(edge, f"/ws{ENVELOPE}&channel=odds:1&start=history") as peer:
            assert [message["data"] for message in await told(peer, 2)] == [1, 3]


class Way:
    """A way to an origin that can break."""

    def __init__(self, port: int) -> None:
        self._port, self.url, self.connections = port, "", 0
        self.breaks_after: list[int] = []
        """So many bytes of the origin's come through on each of the next connections."""
        self._broken = anyio.Event()

    def cut(self) -> None:
        """Every connection is over."""
        self._broken.set()
        self._broken = anyio.Event()

    async def pass_on(self, client: SocketStream) -> None:
        """One connection, both ways."""
        left, broken = self.breaks_after.pop() if self.breaks_after else None, self._broken
        self.connections += 1

        async def there(server: SocketStream) -> None:
            async for data in client:
                await server.send(data)

        async def here(server: SocketStream) -> None:
            nonlocal left
            async for data in server:
                if left is not None:
                    data, left = data[:left], left - len(data[:left])
                await client.send(data)
                if left == 0:
                    return both.cancel_scope.cancel()
            return None

        async def until_broken() -> None:
            await broken.wait()
            both.cancel_scope.cancel()

        async with (
            client,
            await anyio.connect_tcp("127.0.0.1", self._port) as server,
            anyio.create_task_group() as both,
        ):
            both.start_soon(there, server)
            both.start_soon(until_broken)
            await here(server)
            both.cancel_scope.cancel()


@asynccontextmanager
async def way_to(address: str) -> AsyncIterator[Way]:
    """One that is whole."""
    it = Way(int(address.rpartition(":")[2]))
    async with way(it.pass_on) as it.url:
        yield it


async def test_a_way_that_breaks_in_the_middle_of_a_frame_costs_a_client_nothing() -> None:
    origin = fanwire.Hub(CHANNELS)
    async with origin.serve("127.0.0.1:0") as serving_, way_to(serving_.address) as way:
        way.breaks_after = [3_001, 2_000, 999]
        edge = edge_of(way.url)
        async with edge.serve("127.0.0.1:0") as at, watching(at.address, "odds:1", query=ENVELOPE) as peer:
            for number in range(60):
                origin.publish("odds:1", f"{number} {'x' * 100}")
            assert await offsets(peer, 60) == list(range(1, 61))
            assert (way.connections, way.breaks_after) == (4, [])
            for number in range(5):
                way.cut()
                origin.publish("odds:1", number)
            assert await offsets(peer, 5) == list(range(61, 66))


@contextmanager
def origin_process(folder: Path, port: int) -> Iterator[Program]:
    """An origin in a process of its own."""
    with serving(folder, SOURCE, f"127.0.0.1:{port}") as running:
        assert running.address == f"127.0.0.1:{port}"
        yield running


async def call(address: str, method: str, *arguments: Any) -> Any:
    """What a method of a hub answers."""
    async with connected(address, "/ws") as peer:
        await peer.send_json(call=method, args=list(arguments), id=1)
        return (await peer.receive_json())["result"]


async def test_an_origin_that_is_killed_and_comes_back_goes_on_in_a_new_life(tmp_path: Path) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    edge = edge_of(address)
    async with edge.serve("127.0.0.1:0") as at, AsyncExitStack() as stack:
        with origin_process(tmp_path, port) as running:
            await answers(at.address, "/readyz", 200, "")
            peer = await stack.enter_async_context(watching(at.address, "odds:1", query=ENVELOPE))
            before = await call(address, "publish", "odds:1", 1)
            assert [message["position"] for message in await told(peer, 1)] == [before]
            os.kill(running.process.pid, signal.SIGKILL)
        await answers(at.address, "/readyz", 503, "backbone: it is out of reach")
        with origin_process(tmp_path, port):
            await answers(at.address, "/readyz", 200, "")
            after = await call(address, "publish", "odds:1", 2)
            assert after[0] > before[0] and after[1] == 1
            assert await peer.closed() == (1013, "publications are missing in channel odds:1")
            async with connected(at.address, "/ws") as back:
                await back.send_json(subscribe=["odds:1"], since={"odds:1": [before[0], before[1] + 7]}, id=1)
                assert (await back.receive_json())["result"]["recovered"] == {"odds:1": False}


@pytest.mark.slow
async def test_an_origin_that_stands_still_is_noticed_and_nothing_is_lost(tmp_path: Path) -> None:
    port = free_port()
    edge = edge_of(f"127.0.0.1:{port}")
    with origin_process(tmp_path, port) as running:
        async with edge.serve("127.0.0.1:0") as at, watching(at.address, "odds:1", query=ENVELOPE) as peer:
            first = await call(f"127.0.0.1:{port}", "publish", "odds:1", 1)
            assert await offsets(peer, 1) == [first[1]]
            os.kill(running.process.pid, signal.SIGSTOP)
            try:
                await answers(at.address, "/readyz", 503, "nothing was heard for 3s|no connection within 3s")
            finally:
                os.kill(running.process.pid, signal.SIGCONT)
            for number in range(3):
                await call(f"127.0.0.1:{port}", "publish", "odds:1", number)
            assert await offsets(peer, 3) == [2, 3, 4]
            await answers(at.address, "/readyz", 200, "")


async def why_not(url: str, says: str) -> None:
    """An edge with this origin says why there is nothing."""
    hub = fanwire.Hub(backbone=url)
    async with hub.serve("127.0.0.1:0") as at:
        await answers(at.address, "/readyz", 503, says)
        assert "s3cret" not in (await asked(at.address, "/readyz"))[1]


async def test_a_token_that_the_origin_does_not_take_is_told() -> None:
    origin = fanwire.Hub(CHANNELS)

    @origin.authenticate
    async def who(request: fanwire.Request) -> str:
        token = request.headers.get("authorization") or f"Bearer {request.query.get('token')}"
        if token != "Bearer right":
            raise fanwire.Refused("no such token", status=401)
        return "edge"

    async with origin.serve("127.0.0.1:0") as serving_:
        for url in (f"fanwire://s3cret@{serving_.address}", f"fanwire://{serving_.address}/ws?token=s3cret"):
            await why_not(url, "the origin refused this edge with 401 Unauthorized: no such token")
        for url in (f"fanwire://right@{serving_.address}", f"fanwire://{serving_.address}/ws?token=right"):
            edge = fanwire.Hub(CHANNELS, backbone=url)
            async with edge.serve("127.0.0.1:0") as at, watching(at.address, "odds:1") as peer:
                origin.publish("odds:1", url[-5:])
                assert await peer.receive() == url[-5:]


async def test_what_is_no_origin_is_named(tmp_path: Path) -> None:
    async def garbage(client: SocketStream) -> None:
        async with client:
            await client.receive()
            await client.send(b"\0\1nonsense\r\n\r\n" * 100)

    async with way(garbage) as address:
        await why_not(f"fanwire://{address}", "what answers there is no fanwire")

    async def older(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(older, "127.0.0.1", 0) as server:
        (socket,) = server.sockets
        address = f"127.0.0.1:{socket.getsockname()[1]}"
        await why_not(f"fanwire://{address}", r"does not speak fanwire\.edge\.1\.msgpack: it is an older fanwire")
    hub = fanwire.Hub(formats=["json"], edge_subscriptions_max=0)
    async with hub.serve("127.0.0.1:0") as at:
        await why_not(f"fanwire://{at.address}", "this hub has json alone")
        await why_not(f"fanwire://{at.address}/nowhere", "the origin has no such path, 404")


async def test_an_origin_bounds_what_an_edge_may_watch() -> None:
    async with tree(edge_subscriptions_max=2) as (_, _, _, [edge]), connected(edge, "/ws") as peer:
        for number, says in ((1, ""), (2, ""), (3, "edge_subscriptions_max")):
            await peer.send_json(subscribe=[f"odds:{number}"], id=number)
            assert says in str(await peer.receive_json())
    origin = fanwire.Hub(edge_subscriptions_max=0)
    async with origin.serve("127.0.0.1:0") as at:
        await why_not(f"fanwire://{at.address}", "takes no edges: its edge_subscriptions_max is 0")


async def test_a_channel_that_the_origin_forbids_is_forbidden_at_the_edge() -> None:
    origin = fanwire.Hub(CHANNELS)

    @origin.authorize
    async def may(client: fanwire.Client, channel: str) -> bool:
        return "secret" not in channel

    async with origin.serve("127.0.0.1:0") as serving_:
        edge = edge_of(serving_.address)
        async with edge.serve("127.0.0.1:0") as at, connected(at.address, "/ws") as peer:
            await peer.send_json(subscribe=["odds:1", "odds:secret"], id=1)
            assert "odds:secret" in (await peer.receive_json())["error"]
            async with watching(at.address, "odds:1") as other:
                origin.publish("odds:1", "hi")
                assert await other.receive() == "hi"


async def test_the_next_host_is_tried_where_one_does_not_answer() -> None:
    origin = fanwire.Hub(CHANNELS)
    async with origin.serve("127.0.0.1:0") as serving_:
        edge = edge_of(NOWHERE, serving_.address)
        async with edge.serve("127.0.0.1:0") as at, watching(at.address, "odds:1") as peer:
            origin.publish("odds:1", "hi")
            assert await peer.receive() == "hi"


async def test_what_an_edge_cannot_do_is_named() -> None:
    async with tree() as (_, address, [edge], _):
        with anyio.fail_after(20), pytest.raises(RuntimeError, match=f"this is an edge of {address}: publish there"):
            await edge.publish("odds:1", 1)
    with pytest.raises(ValueError, match=r"channels: an edge tells no presence, and 'room' has presence"):
        fanwire.Hub({"room": fanwire.Channel(presence=True)}, backbone="fanwire://origin:8000")
    with pytest.raises(ValueError, match=r"backbone_on_down is 'local', and an edge publishes nothing"):
        fanwire.Hub(backbone="fanwire://origin:8000", backbone_on_down="local")
    with pytest.raises(ValueError, match=r"url is that of an origin, and only hubs are edges"):
        fanwire.Publisher("fanwire://origin:8000")
    for url in ("fanwire://", "fanwire://s3cret@", "fanwire://host:x", "fanwire://host/ws#s3cret"):
        hub = fanwire.Hub(backbone=url)
        with pytest.raises(ValueError, match="backbone's URL") as raised:
            async with hub.serve("127.0.0.1:0"):
                pass
        assert "s3cret" not in str(raised.value)


async def test_an_edge_of_an_edge_passes_on_what_it_has() -> None:
    async with tree() as (origin, _, _, [edge]):
        leaf = edge_of(edge)
        async with leaf.serve("127.0.0.1:0") as at, watching(at.address, "odds:1", query=ENVELOPE) as peer:
            position = origin.publish("odds:1", 1).position
            assert [message["position"] for message in await told(peer, 1)] == [[*position]]


COMMAND = [sys.executable, "-W", "ignore", "-m", "fanwire", "serve"]


@pytest.mark.slow
async def test_the_command_is_an_edge_with_one_connection_for_all_its_workers() -> None:
    origin = fanwire.Hub(CHANNELS)
    async with origin.serve("127.0.0.1:0") as serving_:
        words = ["--listen", "127.0.0.1:0", "--workers", "2", "--upstream", f"fanwire://{serving_.address}"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment["FANWIRE_PUBLIC"] = "odds:*,other"
        with subprocess.Popen([*COMMAND, *words], env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                address = await anyio.to_thread.run_sync(address_in, process.stderr)
                for number in range(4):  # whichever worker has it
                    async with connected(address, f"/ws?channel=odds:{number}") as peer:
                        origin.publish(f"odds:{number}", f"hi {number}")
                        assert await peer.receive() == f"hi {number}"
                assert origin.stats().connections == 1
                status, body = await asked(address, "/events?channel=secret")
                assert status == 403 and "secret" in body
            finally:
                process.terminate()


@pytest.mark.slow
def test_the_command_says_what_to_write_instead(tmp_path: Path) -> None:
    for words, says in (
        (["--backbone", "fanwire://origin:8000"], r"backbone\.public.*is missing"),
        (["--upstream", "fanwire://origin:8000"], r"backbone\.public.*is missing"),
        (["--upstream", "http://a/b"], None),
    ):
        if says is None:
            words, says = (
                [*words, "--backbone", "redis://a"],
                "FANWIRE_PUBLIC is for an edge, whose url is that of an origin",
            )
            environment = {**os.environ, "FANWIRE_PUBLIC": "odds:*"}
        else:
            environment = {**os.environ}
        done = subprocess.run(
            [*COMMAND, *words], env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=60
        )
        assert done.returncode != 0 and re.search(says, done.stderr, re.DOTALL), (words, done.stderr)
