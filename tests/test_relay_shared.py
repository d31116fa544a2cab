"""What goes upstream for many is written by fanwire: nobody's bytes, and nobody's mishap, are others'."""

import json
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import fanwire
import msgpack
import pytest
from fanwire._engine import canonical
from fanwire.errors import LimitReached
from fanwire.relay.config import CallShare, Lanes, Private
from fanwire.relay.shared import call_of, message_of
from hypothesis import given, settings
from hypothesis import strategies as st
from support.generated import COUNTS
from support.hub_client import HubClient, hub_client
from support.loops import asyncio_alone, epoll_alone
from support.relaying import PATH, config, numbers, odds, relayed, watch
from support.scripted_backend import ScriptedBackend, Session, answer
from support.waiting import until

poller = epoll_alone
anyio_backend = asyncio_alone
FAILED = "Failed to invoke 'Watch' due to an error on the server. HubException: "
LOST = "The connection to the backend was lost before it answered."
CLOSE = {"type": 7, "error": "Connection closed with an error."}
"""What ASP.NET Core says to a connection whose message it cannot take."""

# The one form

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES
)


def nested(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of the kinds that both hub protocols have."""
    names = st.dictionaries(NAMES, scalars, max_size=3)
    return st.recursive(
        scalars | names, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
    )


ARGUMENTS = st.lists(nested(SCALARS), max_size=3)
BINARY_ARGUMENTS = st.lists(nested(SCALARS | st.binary(max_size=4) | st.just(float("inf"))), max_size=3)
FREEDOM = st.randoms(use_true_random=False)
"""How a client writes what it means."""


def strict(value: Any) -> Any:
    """A value that equals another only if a backend can tell no difference: not 1 and 1.0, not 0.0 and -0.0."""
    if isinstance(value, dict):
        return "map", frozenset((name, strict(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return "array", tuple(map(strict, value))
    return type(value), repr(value)


def is_foldable(value: Any) -> bool:
    """Whether it holds names that differ in case only, which the one form is not for."""
    if isinstance(value, dict):
        folded = {name.upper().lower() for name in value}
        return len(folded) < len(value) or any(map(is_foldable, value.values()))
    return isinstance(value, list) and any(map(is_foldable, value))


def written_json(value: Any, random: Any) -> str:
    """JSON as any client may write it: white space, order, escapes, forms of numbers."""
    space = random.choice(["", " ", "\n\t "])
    if isinstance(value, dict):
        items = list(value.items())
        random.shuffle(items)
        inner = (f"{written_json(name, random)}{space}:{written_json(item, random)}" for name, item in items)
        return f"{space}{{{space}{f'{space},'.join(inner)}}}{space}"
    if isinstance(value, list):
        return f"{space}[{','.join(written_json(item, random) for item in value)}{space}]{space}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=random.random() < 0.5)
    if isinstance(value, float):
        text = repr(value)
        return random.choice([text, text.replace("e", "E")] + ([] if "e" in text else [text + "00", text + "e0"]))
    return json.dumps(value)


def written_msgpack(value: Any, random: Any) -> bytes:
    """MessagePack as any client may write it: any order, larger forms than needed."""
    wide = random.random() < 0.5
    if isinstance(value, dict):
        items = list(value.items())
        random.shuffle(items)
        head = struct.pack("!BI", 0xDF, len(items)) if wide else bytes([0x80 | len(items)])
        return head + b"".join(written_msgpack(one, random) for item in items for one in item)
    if isinstance(value, list):
        head = struct.pack("!BH", 0xDC, len(value)) if wide else bytes([0x90 | len(value)])
        return head + b"".join(written_msgpack(item, random) for item in value)
    if isinstance(value, str) and wide:
        return struct.pack("!BI", 0xDB, len(value.encode())) + value.encode()
    if isinstance(value, bytes) and wide:
        return struct.pack("!BI", 0xC6, len(value)) + value
    if isinstance(value, int) and not isinstance(value, bool) and wide:
        return struct.pack("!Bq", 0xD3, value) if value < 2**63 else struct.pack("!BQ", 0xCF, value)
    if isinstance(value, float) and wide and struct.unpack("!f", struct.pack("!f", narrow(value)))[0] == value:
        return struct.pack("!Bf", 0xCA, value)
    packed: bytes = msgpack.packb(value)
    return packed


def narrow(value: float) -> float:
    """It, or zero where 32 bits do not hold its size."""
    return value if value == float("inf") or abs(value) < 3e38 else 0.0


def read_msgpack(data: bytes) -> Any:
    """As the stock library reads it."""
    return msgpack.unpackb(data, strict_map_key=False)


WAYS: dict[str, tuple[Callable[[Any, Any], str | bytes], Callable[[bytes], Any]]] = {
    "json": (written_json, json.loads),
    "messagepack": (written_msgpack, read_msgpack),
}


def check_two(protocol: str, one: Any, other: Any, random: Any) -> None:
    """The same call ⇔ the same bytes, which say what each of both said."""
    write, read = WAYS[protocol]
    calls = []
    for value in (one, other):
        text = write(value, random)
        raw = text.encode() if isinstance(text, str) else text
        call = call_of("Watch", protocol, raw)
        assert (call is None) == is_foldable(value)
        if call is None:
            return
        assert strict(read(call.arguments)) == strict(read(raw)) == strict(value)
        assert call.arguments in call.record("7")
        calls.append(call)
    is_same = strict(one) == strict(other)
    assert (calls[0] == calls[1]) == is_same == (calls[0].record("7") == calls[1].record("7"))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("protocol", "arguments"), [("json", ARGUMENTS), ("messagepack", BINARY_ARGUMENTS)], ids=["json", "messagepack"]
)
def test_calls_are_one_if_and_only_if_they_go_upstream_in_the_same_bytes(
    protocol: str, arguments: st.SearchStrategy[list[Any]], count: int
) -> None:
    @settings(max_examples=count, deadline=None)
    @given(arguments, arguments, FREEDOM)
    def is_so(one: list[Any], other: list[Any], random: Any) -> None:
        check_two(protocol, one, other, random)
        check_two(protocol, one, one, random)

    is_so()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_whatever_bytes_come_there_is_a_form_that_says_the_same_or_none(data: bytes) -> None:
    for protocol, (_, read) in WAYS.items():
        form = canonical(protocol, data)
        if form is not None:
            assert strict(read(form)) == strict(read(data))
            assert canonical(protocol, form) == form


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '[{"b":{"a":1,"\\u0061":2}}]',
        '{"match":1,"Match":2}',
        "0.1000000000000000055511151231257827",
        "12345678901234567890.5",
        "1e400",
        "-1e400",
        "1e-400",
        "1e99999999999999999999",
        "-0",
        "18446744073709551616",
        "-9223372036854775809",
        '"\\ud83d"',
        '"\\ude00\\ud83d"',
        "[" * 65 + "]" * 65,
        "[1",
        "[1]2",
        "NaN",
    ],
)
def test_json_that_no_one_form_says_has_none(text: str) -> None:
    assert canonical("json", f"[{text}]".encode()) is None


@pytest.mark.parametrize(
    "value",
    [
        {1: 2},
        {None: 1},
        {b"x": 1},
        msgpack.ExtType(5, b"x"),
        msgpack.Timestamp(1, 2),
        float("nan"),
        {"a": 1, "A": 2},
    ],
    ids=str,
)
def test_messagepack_that_no_one_form_says_has_none(value: Any) -> None:
    assert canonical("messagepack", msgpack.packb([value])) is None


@pytest.mark.parametrize(
    "data", [b"\x82\xa1a\x01\xa1a\x01", b"\xa1\xff", b"\xc1", b"\x91", b"\x01\x02", b"\xdf\xff\xff\xff\xff"]
)
def test_messagepack_that_says_it_twice_or_badly_has_none(data: bytes) -> None:
    assert canonical("messagepack", data) is None


def test_what_a_message_says_comes_with_its_form() -> None:
    assert message_of(b' {"b": 1.50, "a": [ ]}\n') == (b'{"a":[],"b":1.5}', {"a": [], "b": 1.5})
    assert message_of(b"hello") is None
    with pytest.raises(ValueError, match="must be 'json' or 'messagepack'"):
        canonical("xml", b"")


def test_the_size_counts_with_all_that_is_added() -> None:
    call = call_of("Watch", "json", b'["m"]')
    assert call is not None
    longest = len(call._replace(method="Unsubscribe").record("9" * 20))
    call.check(longest, "Unsubscribe")
    with pytest.raises(LimitReached, match=f"upstream_message_bytes_max: {longest} is over the bound of {longest - 1}"):
        call.check(longest - 1, "Unsubscribe")


# On the way to a backend


async def raw(client: HubClient, arguments: str, target: str = "Watch", id: str = "1") -> None:
    """Call with arguments that are written so."""
    await client.peer.send(f'{{"type":1,"invocationId":"{id}","target":"{target}","arguments":{arguments}}}\x1e')


async def ended(client: HubClient) -> dict[str, Any]:
    """The next completion."""
    while (message := await client.receive())["type"] != 3:
        pass
    return message


def records(backend: ScriptedBackend, part: bytes) -> list[bytes]:
    """What came anywhere with this in it."""
    return [record for session in list(backend.sessions) for record in session.records if part in record]


@pytest.mark.anyio
async def test_what_a_stranger_pads_reaches_the_backend_as_the_honest_call_does(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    async with relayed(hub, config(backend)) as address, AsyncExitStack() as stack:
        stranger, honest = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(2)]
        padded = ' [{"b" :2,"a":1.0' + " " * 32_000 + "} ]"
        await stranger.peer.send(
            '{"type":1,"headers":{"x":"y"},"unknown":[1],"invocationId":"1","target":"WATCH","arguments":'
            + padded
            + "}\x1e"
        )
        assert "result" in await ended(stranger)
        await raw(honest, '[{"a":1.0,"b":2}]')
        assert "result" in await ended(honest)
        assert records(backend, b"Watch") == [
            b'{"type":1,"invocationId":"1","target":"Watch","arguments":[{"a":1.0,"b":2}]}'
        ]


@pytest.mark.anyio
async def test_a_call_too_large_for_the_backend_is_its_callers_error_and_nobody_elses(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    """Escaped it is three times as long: ASP.NET Core would end the lane, or the pooled connection, at it."""
    huge = json.dumps(["\u00a0" * 12_000], ensure_ascii=False)
    pooled = config(backend, private=Private(pooled=("Echo",)))
    async with relayed(hub, pooled) as address, hub_client(address, PATH) as client:
        for target in ("Watch", "Echo"):
            await raw(client, huge, target)
            error = (await ended(client))["error"]
            assert error.startswith(FAILED.replace("Watch", target) + "upstream_message_bytes_max: 72")
            assert error.endswith("is over the bound of 32768")
        assert hub.relay_stats()[0].lanes == []
        assert await watch(client, "m", "2") == "m"
        assert await client.invoke("Echo", 1, id="3") == {"result": 1}
        assert not records(backend, "\u00a0".encode())


@pytest.mark.anyio
@pytest.mark.parametrize("odd", ['{"a":1,"a":2}', '{"a":1,"A":2}', "0.1000000000000000055511151231257827", '"\\ud83d"'])
async def test_what_has_no_one_form_goes_over_the_clients_own_connection_as_it_came(
    hub: fanwire.Hub, backend: ScriptedBackend, odd: str
) -> None:
    pooled = config(backend, private=Private(pooled=("Echo",)))
    async with relayed(hub, pooled) as address, hub_client(address, PATH) as client:
        for target in ("Watch", "Echo", "Unwatch"):
            await raw(client, f"[ {odd}]", target)
            assert (await ended(client))["type"] == 3
            sent = f'{{"type":1,"invocationId":"1","target":"{target}","arguments":[ {odd}]}}'.encode()
            assert records(backend, target.encode()) == [sent]
        assert hub.relay_stats()[0].lanes == []
        assert hub.relay_stats()[0].private_lanes == 1


def ends_at(poison: str) -> Callable[[Session, dict[str, Any]], None]:
    """A backend that ends the connection at calls with this argument, and answers to others once it has had one."""
    had: list[bool] = []
    kept: list[tuple[Session, dict[str, Any]]] = []

    def take(session: Session, message: dict[str, Any]) -> None:
        if message["type"] == 1 and message["arguments"][:1] == [poison]:
            had.append(True)
            session.say(CLOSE)
            session.end()
        elif message.get("target") == "Echo" and not had:
            kept.append((session, message))
        else:
            answer(session, message)

    return take


@pytest.mark.anyio
async def test_a_pooled_call_that_ends_the_connection_fails_alone(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    backend.answer = ends_at("poison")
    pooled = config(backend, private=Private(pooled=("Echo",), pool_size=1))
    async with relayed(hub, pooled) as address, AsyncExitStack() as stack:
        stranger, *honest = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(4)]
        for number, client in enumerate(honest):
            await client.send(
                *({"type": 1, "invocationId": f"{n}", "target": "Echo", "arguments": [number]} for n in range(5))
            )
        await until(lambda: len(backend.calls) == 15)
        await raw(stranger, '["poison"]', "Echo", "7")
        assert (await ended(stranger))["error"].endswith(LOST)
        for number, client in enumerate(honest):
            assert [await ended(client) for _ in range(5)] == [
                {"type": 3, "invocationId": f"{n}", "result": number} for n in range(5)
            ]
        heads = len(backend.heads)
        assert await stranger.invoke("Echo", 1, id="8") == {"result": 1}
        assert len(backend.heads) == heads + 2, "negotiated and opened for this client alone"
        assert hub.relay_stats()[0].private_lanes == 1
        assert await honest[0].invoke("Echo", 2, id="9") == {"result": 2}
        assert len(backend.heads) == heads + 4, "the pool's own, which the stranger's call had ended last"


@pytest.mark.anyio
async def test_a_call_that_ends_its_lane_is_told_and_no_other_lane_has_part_in_it(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    backend.answer = ends_at("poison")
    slow = Lanes(backoff_min=0.3, backoff_max=0.3)
    async with relayed(hub, config(backend, lanes=slow)) as address, AsyncExitStack() as stack:
        stranger, honest = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(2)]
        assert await watch(honest) == "m"
        heads = len(backend.heads)
        for id in range(3):
            assert await watch(stranger, "poison", str(id)) == FAILED + LOST
            lanes = {lane.arguments: lane.state for lane in hub.relay_stats()[0].lanes}
            assert lanes == {'["m"]': "live", '["poison"]': "connecting"}, "it is not tried again at once"
        assert len(backend.heads) == heads + 3 * 2
        odds(backend, "m", 1)
        assert await numbers(honest, 1) == [1]
        await until(lambda: len(hub.relay_stats()[0].lanes) == 1)


def once(session: Session, message: dict[str, Any]) -> None:
    """A backend that ends a connection which subscribes twice."""
    if session.watched:
        session.say(CLOSE)
        session.end()
    else:
        answer(session, message)


@pytest.mark.anyio
async def test_a_lane_that_cannot_ask_again_for_newcomers_does_it_once(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    """Those who watch must not have a gap each time that somebody comes."""

    backend.answer = once
    plain = CallShare(subscribe="Watch", fresh=0.0)
    async with relayed(hub, config(backend, share=(plain,))) as address, AsyncExitStack() as stack:
        first, *late = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(4)]
        await raw(first, '["m"]')
        assert "result" in await ended(first)
        await raw(late[0], '["m"]')
        assert (await ended(late[0]))["error"] == FAILED + LOST
        await until(lambda: hub.relay_stats()[0].lanes[0].state == "live")
        for client in late:
            await raw(client, '["m"]')
            assert (await ended(client))["result"] == "m"
        assert hub.relay_stats()[0].lanes[0].gaps == 1
        odds(backend, "m", 1)
        for client in (first, *late):
            while (message := await client.receive())["target"] != "Odds":
                pass
            assert message["arguments"] == [1]


@pytest.mark.anyio
async def test_who_comes_late_to_such_a_lane_gets_what_is_there_however_old(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    backend.answer = once
    old = CallShare(subscribe="Watch", snapshot="Snapshot", fresh=0.0)
    async with relayed(hub, config(backend, share=(old,))) as address, AsyncExitStack() as stack:
        first, unlucky, late = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(3)]
        assert await watch(first) == "m"
        assert await watch(unlucky) == FAILED + LOST
        await until(lambda: hub.relay_stats()[0].lanes[0].state == "live")
        assert await watch(late) == "m"
        odds(backend, "m", 1)
        assert await numbers(late, 1) == [1]
