"""What can be published depends on the value and on the hub, whoever listens; and is the same on every way out."""

import collections
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import fanwire
import httpx
import msgpack
import msgspec
import pytest
from anyio import create_task_group
from anyio.to_thread import run_sync
from fanwire.errors import FanwireError, PayloadTooBig, UnsupportedType, UnsupportedValue
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clients import Peer, connected, refusal
from support.generated import COUNTS
from support.hub_client import hub_client
from support.waiting import until

pytestmark = pytest.mark.anyio

ANY = "127.0.0.1:0"
WAYS = ("json", "msgpack", "envelope", "sse", "hub", "hub-msgpack")
"""A subscriber of each kind."""
AUDIENCES = ("nobody", *WAYS, "all")
CHANNELS = [f"{kind}:{audience}" for kind in ("plain", "kept") for audience in AUDIENCES]


class Side(enum.Enum):
    HOME = "home"


@dataclass
class Odds:
    price: Any
    at: Any = None


class Match(msgspec.Struct, rename="camel"):
    match_id: Any


def packed(*members: object) -> bytes:
    """A record of SignalR's MessagePack protocol, of less than 128 bytes."""
    body = msgpack.packb(list(members))
    assert len(body) < 128
    return bytes([len(body)]) + body


def unpacked(frame: bytes) -> Any:
    """The first record of a frame that is no ping."""
    while True:
        length, at, shift = 0, 0, 0
        while True:
            length |= (frame[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not frame[at - 1] & 0x80:
                break
        record = msgpack.unpackb(frame[at : at + length], timestamp=3)
        if record != [6]:
            return record
        frame = frame[at + length :]


@asynccontextmanager
async def msgpack_hub_client(address: str) -> AsyncIterator[Peer]:
    """A client of SignalR's MessagePack protocol that has shaken hands."""
    async with connected(address, "/signalr") as peer:
        await peer.send(json.dumps({"protocol": "messagepack", "version": 1}) + "\x1e")
        assert await peer.receive() == b"{}\x1e"
        yield peer


async def subscribe(stack: AsyncExitStack, hub: fanwire.Hub, address: str, way: str, *channels: str) -> Any:
    """A client that watches `channels`."""
    query = "&".join(f"channel={channel}" for channel in channels)
    if way == "hub":
        client = await stack.enter_async_context(hub_client(address))
        await client.send({"type": 1, "target": "watch", "arguments": channels})
        return client
    if way == "hub-msgpack":
        peer = await stack.enter_async_context(msgpack_hub_client(address))
        for channel in channels:
            await peer.send(packed(1, {}, None, "watch", [channel], []))
        return peer
    if way == "sse":
        streaming = stack.enter_context(httpx.Client(trust_env=False))
        request = streaming.build_request("GET", f"http://{address}/events?{query}")
        response = await run_sync(partial(streaming.send, request, stream=True))
        return response.iter_lines()
    kind = {"json": "", "msgpack": "&format=msgpack", "envelope": "&envelope=1"}[way]
    return await stack.enter_async_context(connected(address, f"/ws?{query}{kind}"))


def watching(hub: fanwire.Hub) -> fanwire.Hub:
    """A hub whose SignalR clients may watch channels."""

    @hub.method
    def watch(client: fanwire.Client, *channels: str) -> None:
        for channel in channels:
            hub.subscribe(client, channel)

    return hub


@asynccontextmanager
async def audiences(**options: Any) -> AsyncIterator[fanwire.Hub]:
    """A hub with channels that nobody, each kind of subscriber alone, or all of them watch."""
    kept = fanwire.Channel(history=3)
    hub = watching(fanwire.Hub({"kept:*": kept}, **options))
    hub.authenticate(lambda request: None)  # else nobody can be published to as a user
    async with hub.serve(ANY, drain_timeout=0.1) as serving, AsyncExitStack() as stack:
        ways = [way for way in WAYS if "msgpack" in options.get("formats", ("msgpack",)) or "msgpack" not in way]
        for way in ways:
            watched = [f"{kind}:{audience}" for kind in ("plain", "kept") for audience in (way, "all")]
            client = await subscribe(stack, hub, serving.address, way, *watched)
            if way != "sse":  # who has not read all is long in closing
                stack.callback(getattr(client, "peer", client).break_off)
        await until(lambda: hub.occupancy("plain:all") == len(ways))
        yield hub


def outcome(hub: fanwire.Hub, channel: str, value: object) -> tuple[str, str] | None:
    """What publishing raised, if it did."""
    try:
        hub.publish(channel, value)
    except Exception as error:
        assert isinstance(error, FanwireError), error
        return type(error).__name__, str(error)
    return None


text = st.text(max_size=8)  # lone surrogates, too
zones = st.none() | st.just(dt.UTC) | st.just(dt.timezone(dt.timedelta(hours=-3, minutes=30)))
special = st.sampled_from(
    [Side.HOME, object(), 1j, b"\xff", bytearray(b"a"), range(3), collections.deque(), decimal.Decimal("NaN"), Odds]
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | text | st.binary(max_size=8) | special
    | st.datetimes(timezones=zones) | st.dates() | st.times() | st.timedeltas() | st.decimals() | st.uuids()
)  # fmt: skip


def is_hashable(value: object) -> bool:
    """A ``bytearray`` or a signalling NaN is no key."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(scalars.filter(is_hashable) | st.tuples(st.integers()), inner, max_size=4)
        | st.builds(Odds, inner, inner)
        | st.builds(Match, inner)
        | st.lists(inner, max_size=3).map(lambda items: fanwire.Arguments(*items))
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    "options", [{}, {"formats": ("json",)}, {"duration": "iso8601", "decimal": "string"}], ids=["", "json", "forms"]
)
async def test_publish_raises_or_not_and_the_same_whoever_listens(options: Any, count: int) -> None:
    async with audiences(**options) as hub:

        @settings(max_examples=count, deadline=None)
        @given(values)
        def same_for_all(value: object) -> None:
            outcomes = {channel: outcome(hub, channel, value) for channel in CHANNELS}
            assert len(set(outcomes.values())) == 1, outcomes

        same_for_all()


BAD = [
    ({"n": [2**64]}, UnsupportedValue, "$.n[0]"),
    ({"n": [-(2**63) - 1]}, UnsupportedValue, "$.n[0]"),
    ({5: {"x": math.nan}}, UnsupportedValue, '$["5"].x'),
    ([Odds(math.inf)], UnsupportedValue, "$[0].price"),
    ({"name": ["\ud83d"]}, UnsupportedValue, "$.name[0]"),
    ({"\ud83d": 1}, UnsupportedValue, "$"),
    (Match({None: object()}), UnsupportedType, "$.matchId.null"),
    ({dt.date(2026, 1, 1): [dt.timedelta.max]}, UnsupportedValue, '$["2026-01-01"][0]'),
    ({(1,): 1}, UnsupportedType, "$"),
    (fanwire.Arguments(1, {"x": object}), UnsupportedType, "$[1].x"),
    ("a\ud83d", UnsupportedValue, "$"),
]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_cannot_be_published_is_refused_everywhere_with_its_path() -> None:
    async with audiences() as hub:
        for value, error, path in BAD:
            for channel in CHANNELS:
                with pytest.raises(error) as raised:
                    hub.publish(channel, value)
                assert raised.value.path == path
                with pytest.raises(error):
                    hub.publish_many(channel, [value])
            for publish in (hub.publish_to_all, lambda value: hub.publish_to_user("ann", value)):
                with pytest.raises(error) as raised:
                    publish(value)  # type: ignore[operator]
                assert raised.value.path == path


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_visit_of_a_stranger_changes_nothing() -> None:
    """The faults of issue 13, as they were found."""
    hub = fanwire.Hub({"kept": fanwire.Channel(history=3)})
    async with hub.serve(ANY, drain_timeout=0.1) as serving:
        now = {"at": dt.datetime.now(dt.UTC)}
        for query in ("channel=odds", "channel=odds&format=msgpack", "channel=kept&format=msgpack"):
            hub.publish("odds", now)
            hub.publish("kept", now)
            with pytest.raises(UnsupportedValue):
                hub.publish("kept", {"n": 2**70})
            async with connected(serving.address, f"/ws?{query}"):
                await until(lambda: hub.stats().connections == 1)
                hub.publish("odds", now)
                hub.publish("kept", now)
            await until(lambda: hub.stats().connections == 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_is_too_big_is_so_whoever_listens() -> None:
    """Half a million bytes of JSON are more than a million of MessagePack, and the other way about."""
    floats, controls = [0.5] * 150_000, ["\x01" * 200_000]
    sizes = {}
    async with audiences() as hub:
        for name, value in (("floats", floats), ("controls", controls)):
            for channel in CHANNELS:
                with pytest.raises(PayloadTooBig) as raised:
                    hub.publish(channel, value)
                sizes.setdefault(name, set()).add(raised.value.payload_bytes)
            for channel in CHANNELS:
                hub.publish(channel, value[: len(value) // 2])
    assert sizes == {"floats": {150_000 * 9 + 5}, "controls": {200_000 * 6 + 4}}


VALUE = {
    "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    "price": decimal.Decimal("1.50"),
    "pause": dt.timedelta(seconds=90),
    "id": uuid.UUID(int=5),
    "side": Side.HOME,
    "odds": [Odds(b"\xff"), Match({dt.date(2026, 1, 1)})],
}
PLAIN = {
    "at": "2026-01-01T00:00:00Z",
    "price": "1.50",
    "pause": "PT90S",
    "id": str(uuid.UUID(int=5)),
    "side": "home",
    "odds": [{"price": "/w==", "at": None}, {"matchId": ["2026-01-01"]}],
}
DOTNET = PLAIN | {"price": 1.5, "pause": "00:01:30"}
PACKED = PLAIN | {
    "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    "odds": [{"price": b"\xff", "at": None}, {"matchId": ["2026-01-01"]}],
}
PACKED_DOTNET = PACKED | {"pause": 900_000_000}


async def received(way: str, client: Any) -> Any:
    """What the client got of a publication."""
    if way == "hub":
        return (await client.receive())["arguments"][0]
    if way == "hub-msgpack":
        return unpacked(await client.receive())[4][0]
    if way == "sse":
        lines = (line.removeprefix("data: ") for line in client if line.startswith("data: "))
        return json.loads(await run_sync(next, lines))
    if way == "msgpack":
        return msgpack.unpackb(await client.receive(), timestamp=3)
    data = await client.receive_json()
    return data["data"] if way == "envelope" else data


EXPECTED = dict(zip(WAYS, (PLAIN, PACKED, PLAIN, PLAIN, DOTNET, PACKED_DOTNET), strict=True))


@pytest.mark.parametrize("is_there", [True, False], ids=["live", "kept"])
async def test_every_subscriber_gets_the_forms_of_its_format(poller: str, is_there: bool) -> None:
    """Live, all at once; and from the history, each the first of its format that ever came."""
    hub = watching(fanwire.Hub({"kept": fanwire.Channel(history=3, start="history")}, poller=poller))
    async with hub.serve(ANY, drain_timeout=0.1) as serving, AsyncExitStack() as stack:
        ways = WAYS if is_there else tuple(way for way in WAYS if "msgpack" not in way)
        if not is_there:
            hub.publish("kept", VALUE)
        clients = {way: await subscribe(stack, hub, serving.address, way, "kept") for way in ways}
        if is_there:
            await until(lambda: hub.occupancy("kept") == len(ways))
            hub.publish("kept", VALUE)
        for way, client in clients.items():
            assert await received(way, client) == EXPECTED[way], way


async def test_results_snapshots_sends_and_stream_items_have_the_same_types(poller: str) -> None:
    hub = fanwire.Hub(poller=poller, encode=lambda value: {"hooked": type(value).__name__})
    heard: list[Any] = []

    @hub.snapshot("state*")
    def snapshot(channel: str) -> Any:
        return [VALUE, object()]

    @hub.method
    def give(client: fanwire.Client) -> Any:
        return [VALUE, object()]

    @hub.method
    async def stream(client: fanwire.Client) -> Any:
        yield [VALUE, object()]

    @hub.on_message
    def on_message(client: fanwire.Client, data: object) -> None:
        client.send([VALUE, object()])

    @hub.method
    async def ask(client: fanwire.Client) -> None:
        heard.append(await client.invoke("answer", VALUE, object()))

    hooked = {"hooked": "object"}
    async with hub.serve(ANY, drain_timeout=0.1) as serving:
        for query, expected in (("", PLAIN), ("&format=msgpack", PACKED)):
            async with connected(serving.address, f"/ws?channel=state{query}") as peer:
                got = await received("msgpack" if query else "json", peer)
                assert got == [expected, hooked]
                await peer.send("hello")
                assert await received("msgpack" if query else "json", peer) == [expected, hooked]
                await peer.send_json(call="give", id=1)
                assert await peer.receive_json() == {"id": 1, "result": [PLAIN, hooked]}
        async with hub_client(serving.address) as client, create_task_group() as tasks:
            assert await client.invoke("give") == {"result": [DOTNET, hooked]}
            await client.send({"type": 4, "invocationId": "2", "target": "stream", "arguments": []})
            assert (await client.receive())["item"] == [DOTNET, hooked]
            assert (await client.receive())["type"] == 3
            tasks.start_soon(client.send, {"type": 1, "target": "ask", "arguments": []})
            asked = await client.receive()
            assert asked["arguments"] == [DOTNET, hooked]
            await client.send({"type": 3, "invocationId": asked["invocationId"], "result": 7})
            await until(lambda: heard == [7])
        async with msgpack_hub_client(serving.address) as packed_client:
            await packed_client.send(packed(1, {}, "1", "give", [], []))
            assert unpacked(await packed_client.receive()) == [3, {}, "1", 3, [PACKED_DOTNET, hooked]]  # type: ignore[arg-type]


async def test_a_hub_of_json_alone_says_so_and_has_no_bounds_of_msgpack(poller: str) -> None:
    hub = fanwire.Hub(poller=poller, formats=("json",))
    async with hub.serve(ANY, drain_timeout=0.1) as serving:
        hub.publish("odds", {"n": 2**70, -(2**70): 1})
        for target, options, asked_by in (
            ("/ws?format=msgpack", {}, "format"),
            ("/ws", {"subprotocols": ["msgpack"]}, "subprotocol"),
        ):
            told = await refusal(serving.address, target, **options)
            assert told == (400, f'{asked_by} "msgpack": this hub has json alone')
        async with connected(serving.address, "/signalr") as peer:
            await peer.send(json.dumps({"protocol": "messagepack", "version": 1}) + "\x1e")
            assert json.loads((await peer.receive())[:-1]) == {  # type: ignore[arg-type]
                "error": "The protocol 'messagepack' is not supported."
            }
        async with connected(serving.address, "/ws?channel=odds") as peer:
            await until(lambda: hub.occupancy("odds") == 1)
            hub.publish("odds", {"n": 2**70})
            assert await peer.receive_json() == {"n": 2**70}
