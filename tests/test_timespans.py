"""Durations as .NET writes them, read as arguments; and strings that are none."""

import datetime as dt
import decimal
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import fanwire
import msgspec
import pytest
from fanwire._engine import Encoder
from fanwire.arguments import Decoder
from fanwire.timespans import lone_surrogate
from fanwire.wording import InvalidData
from hypothesis import given
from hypothesis import strategies as st
from support.clients import connected
from support.hub_client import hub_client

ANY = "127.0.0.1:0"
TIMESPAN_MAX = dt.timedelta(microseconds=(2**63 - 1) // 10)
S1, S2 = dt.timedelta(seconds=1), dt.timedelta(seconds=2)


@dataclass
class Node:
    pause: dt.timedelta
    name: str = ""
    below: "list[Node] | None" = None


class Listed(msgspec.Struct, array_like=True, tag=True):
    name: str
    pause: dt.timedelta


class Renamed(msgspec.Struct, rename="pascal"):
    long_pause: dt.timedelta
    price: decimal.Decimal = decimal.Decimal(0)


class Pair(NamedTuple):
    first: dt.timedelta
    second: str


class Row(TypedDict):
    pause: dt.timedelta


@given(st.timedeltas(-TIMESPAN_MAX, TIMESPAN_MAX))
def test_what_we_write_for_dotnet_we_read(pause: dt.timedelta) -> None:
    decoder = Decoder("x", Node)
    assert decoder.decode(Encoder().json(Node(pause), hub=True), True) == Node(pause)
    assert decoder.decode(Encoder().msgpack(Node(pause), hub=True), False) == Node(pause)


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (dt.timedelta, '"1.02:03:04.5000001"', dt.timedelta(days=1, seconds=7384.5)),
        (dt.timedelta, '"-00:00:01"', -S1),
        (dt.timedelta | None, '"00:00:01"', S1),
        (list[dt.timedelta], '["00:00:01","PT2S"]', [S1, S2]),
        (tuple[dt.timedelta, str], '["00:00:01","00:00:02"]', (S1, "00:00:02")),
        (dict[str, dt.timedelta], '{"00:00:01":"00:00:02"}', {"00:00:01": S2}),
        (dict[dt.timedelta, str], '{"00:00:01":"00:00:02"}', {S1: "00:00:02"}),
        (Node, '{"pause":"00:00:01","name":"00:00:02"}', Node(S1, "00:00:02")),
        (Node, '{"pause":"PT1S","below":[{"pause":"00:00:02"}]}', Node(S1, "", [Node(S2)])),
        (Listed, '["Listed","00:00:02","00:00:01"]', Listed("00:00:02", S1)),
        (Renamed, '{"LongPause":"00:00:01","Price":1.10}', Renamed(S1, decimal.Decimal("1.10"))),
        (Pair, '["00:00:01","00:00:02"]', Pair(S1, "00:00:02")),
        (Row, '{"pause":"00:00:01"}', Row(pause=S1)),
    ],
)
def test_a_timespan_is_read_wherever_a_timedelta_stands(type_: Any, text: str, value: Any) -> None:
    read = Decoder("x", type_).decode(text.encode(), True)
    assert read == value
    assert not isinstance(read, Renamed) or str(read.price) == "1.10"


def test_ticks_are_read_from_msgpack_alone() -> None:
    assert Decoder("x", dt.timedelta).decode(msgspec.msgpack.encode(-(10**7)), False) == -S1
    assert Decoder("x", dt.timedelta | None).decode(msgspec.msgpack.encode(10**7), False) == S1
    assert Decoder("x", dt.timedelta | int).decode(msgspec.msgpack.encode(10**7), False) == 10**7
    with pytest.raises(InvalidData, match="Expected `duration`, got `int`"):
        Decoder("x", dt.timedelta).decode(b"10000000", True)


@pytest.mark.parametrize(
    "text", ['"24:00:00"', '"00:60:00"', '"1:00:00"', '"00:00:01 "', '"99999999999.00:00:00"', "true"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidData, match=r"^x: "):
        Decoder("x", dt.timedelta).decode(text.encode(), True)


@pytest.mark.parametrize(
    ("text", "half"),
    [
        (r'"\ud83d"', r"\ud83d"),
        (r'"\ud83dxxxxxxxx"', r"\ud83d"),
        (r'"\ude00"', r"\ude00"),
        (r'"\ud83d\ud83d\ude00"', r"\ud83d"),
        (r'"\ud83dx\ude00"', r"\ud83d"),
        (r'"\ud83d\n"', r"\ud83d"),
        (r'"\uD83D\uDE00"', None),
        (r'"\\ud83d"', None),
        ('"a\\"b"', None),
    ],
)
def test_half_a_surrogate_pair_is_found(text: str, half: str | None) -> None:
    assert lone_surrogate(text.encode()) == half
    if half:
        with pytest.raises(InvalidData) as raised:
            Decoder("argument 'name'", str).decode(text.encode(), True)
        assert str(raised.value) == f"argument 'name': a string has {half}, half of a surrogate pair"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_call_with_half_a_surrogate_pair_is_told_what_is_wrong() -> None:
    """It was told "Input data was truncated"."""
    hub = fanwire.Hub()

    @hub.method
    def greet(client: fanwire.Client, name: str, pause: dt.timedelta = S1) -> Any:
        return [name, pause]

    async with hub.serve(ANY, drain_timeout=0.1) as serving:
        async with connected(serving.address) as peer:
            await peer.send(r'{"call":"greet","args":["\ud83d"],"id":1}')
            told = (await peer.receive_json())["error"]
            assert told.endswith(r"a string has \ud83d, half of a surrogate pair")
        async with hub_client(serving.address) as client:
            assert "Failed to invoke 'greet'" in (await client.invoke("greet", "\ud83d"))["error"]
            assert await client.invoke("greet", "ann", "00:01:30") == {"result": ["ann", "00:01:30"]}
