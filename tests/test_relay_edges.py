"""Relays at their edges: what is passed on, refusals, calls that cross, bounds, and what is visible."""

import tracemalloc
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from math import inf
from typing import Any

import fanwire
import msgspec
import pytest
from anyio.to_thread import run_sync
from fanwire.relay.admit import REMEMBERED_BYTES_MAX, Memory, Verdict
from fanwire.relay.config import Lanes, Private, RelayConfig
from fanwire.relay.shared import SharedCall
from fanwire.relay.wire import shown
from support.hub_client import HubClient, hub_client
from support.loops import epoll_alone, without_uvloop
from support.raw import open_socket, read_head
from support.relaying import ANY, PATH, PATIENT, SHARE, config, numbers, odds, relayed, watch
from support.scripted_backend import ScriptedBackend, Session, answer, answering, hang
from support.waiting import until

pytestmark = pytest.mark.anyio
poller = epoll_alone
anyio_backend = without_uvloop
SNAPSHOT_MAX = 1_000


def without_calls_of(match: str) -> Callable[[Session, dict[str, Any]], None]:
    """A backend that refuses to have this watched."""

    def refuse(session: Session, message: dict[str, Any]) -> None:
        if message.get("target") == "Watch" and message["arguments"] == [match]:
            session.say({"type": 3, "invocationId": message["invocationId"], "error": "no"})
        else:
            answer(session, message)

    return refuse


async def overtake_snapshot(backend: ScriptedBackend, client: HubClient) -> None:
    """Have more come on the lane of match `m` than is kept behind its snapshot."""
    (session,) = backend.watching("m")
    session.say({"type": 1, "target": "Odds", "arguments": [0, "x" * SNAPSHOT_MAX]})
    assert await numbers(client, 0) == [0]


async def told_to_come_back(client: HubClient) -> bool:
    """Whether the hub's Close, which is awaited, allows that."""
    while (message := await client.receive())["type"] != 7:
        pass
    return bool(message.get("allowReconnect"))


SHORT = {"lanes": replace(PATIENT, snapshot_bytes_max=SNAPSHOT_MAX)}


# What the backend gets to see


async def test_origin_and_query_reach_the_backend_in_the_clients_own_name(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    query = "?tenant=a&access_token=t&negotiateVersion=1&tenant=b%20c"
    async with (
        relayed(hub, config(backend, admit="negotiate")) as address,
        hub_client(address, PATH, query, origin="https://app.example") as client,
    ):
        assert await client.invoke("Echo", 1) == {"result": 1}
        assert await watch(client, id="2") == "m"
    own = [head for head in backend.heads if b"tenant" in head]
    assert [head.split()[0] for head in own] == [b"POST", b"POST", b"GET"], "admission, and the private connection"
    for head in own:
        assert b"tenant=a&access_token=t&tenant=b%20c" in head.splitlines()[0]
        assert head.count(b"negotiateVersion") == head.startswith(b"POST")
        assert b"origin: https://app.example" in head.lower()
    shared = [head for head in backend.heads if b"tenant" not in head]
    assert shared and not any(b"access_token" in head or b"app.example" in head for head in shared)


async def test_who_differs_by_origin_or_query_is_asked_about_apart(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        for query, origin in [("", None), ("?a=1", None), ("", "https://a"), ("", None), ("?a=1", None)]:
            async with hub_client(address, PATH, query, origin=origin):
                pass
    asked = [head for head in backend.heads if head.startswith(b"POST") and b"x-forwarded-for" in head.lower()]
    assert len(asked) == 3


@pytest.mark.parametrize("status", [404, 408, 429, 503])
async def test_what_may_be_the_backends_bad_moment_is_not_remembered(
    hub: fanwire.Hub, backend: ScriptedBackend, status: int
) -> None:
    def ask(address: str) -> str:
        with open_socket(address) as connection:
            connection.sendall(f"POST {PATH}/negotiate HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
            return read_head(connection).split()[1]

    async with relayed(hub, config(backend, admit="negotiate")) as address:
        well, backend.negotiate = backend.negotiate, answering(status)
        assert await run_sync(ask, address) == str(status)
        backend.negotiate = well
        assert await run_sync(ask, address) == "200"


async def test_the_next_address_is_asked_in_time_where_the_first_one_hangs(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    with ScriptedBackend() as hanging:
        hanging.negotiate = hang
        urls = tuple(f"http://{one.address}{PATH}" for one in (hanging, backend))
        hub.relay(RelayConfig(path=PATH, upstream=urls, share=(SHARE,), lanes=Lanes(connect_timeout=7.0)))
        async with hub.serve(ANY, signalr_paths=(), drain_timeout=0.2, handshake_timeout=6.0) as serving:
            async with hub_client(serving.address, PATH) as client:
                assert await watch(client) == "m"
            before = len(hanging.heads)
            async with hub_client(serving.address, PATH, "?another=1") as client:
                assert await watch(client, "n") == "n"
            assert len(hanging.heads) == before, "who answered last is asked first"


def test_what_is_remembered_holds_no_secret_and_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("fanwire.relay.admit.monotonic", lambda: now)
    memory: Memory = Memory()
    for index in range(5):
        memory.put(memory.hash((f"secret {index}",)), Verdict(101, until=now + 10 + index))
    assert "secret 0" not in repr(memory.__dict__)
    assert memory.get(memory.hash(("secret 0",))) is not None
    now = 112.0
    assert memory.get(memory.hash(("secret 0",))) is None
    memory.put(memory.hash(("new",)), Verdict(101, until=now + 10))
    assert len(memory) == 3
    memory.put(memory.hash(("over",)), Verdict(101, until=now))
    assert memory.get(memory.hash(("over",))) is None


@pytest.mark.parametrize(("words", "visitors"), [(b"", 40_000), (b"x" * 60_000, 300)])
@pytest.mark.slow
def test_what_is_remembered_is_bounded_in_bytes(words: bytes, visitors: int) -> None:
    """A stranger has the backend asked about as many queries as it likes, and the backend's errors have words."""
    tracemalloc.start()
    try:
        memory: Memory = Memory()
        for index in range(visitors):
            memory.put(memory.hash((index,)), Verdict(200, bytes(bytearray(words)), until=inf))
        assert tracemalloc.get_traced_memory()[0] < REMEMBERED_BYTES_MAX
    finally:
        tracemalloc.stop()
    assert 0 < len(memory) < visitors
    assert memory.get(memory.hash((visitors - 1,))) is not None


# Subscriptions of one's own


async def test_a_subscription_that_is_refused_twice_holds_no_private_connection(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    backend.answer = without_calls_of("closed")
    async with (
        relayed(hub, config(backend, private=Private(idle=0.2))) as address,
        hub_client(address, PATH, "?access_token=t") as client,
    ):
        for id in ("1", "2"):
            assert await watch(client, "closed", id) == "no"
        await until(lambda: not any(b"access_token" in session.head for session in backend.sessions))
        backend.answer = answer
        assert await watch(client, "closed", "3") == "closed"
        (session,) = backend.watching("closed")
        assert b"access_token" not in session.head, "it is shared, as it is not refused any more"


async def test_one_that_is_granted_stays_and_is_missed_when_it_is_lost(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    def private_only(session: Session, message: dict[str, Any]) -> None:
        (answer if b"access_token" in session.head else without_calls_of("mine"))(session, message)

    backend.answer = private_only
    async with (
        relayed(hub, config(backend, private=Private(idle=0.1))) as address,
        hub_client(address, PATH, "?access_token=t") as client,
    ):
        assert await watch(client, "mine") == "mine"
        (session,) = backend.watching("mine")
        session.say({"type": 1, "target": "Odds", "arguments": [1]})
        assert await numbers(client, 1) == [1]
        session.end()
        assert await told_to_come_back(client)


# Calls that cross


async def test_the_last_of_calls_that_cross_counts_also_behind_an_overtaken_snapshot(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    kept: list[tuple[Session, dict[str, Any]]] = []

    def keep_completion(session: Session, message: dict[str, Any]) -> None:
        session.say({"type": 1, "target": "Snapshot", "arguments": ["m"]})
        kept.append((session, message))

    async with relayed(hub, config(backend, **SHORT)) as address, AsyncExitStack() as stack:
        first, other = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(2)]
        assert await watch(first) == "m"
        await overtake_snapshot(backend, first)
        backend.answer = keep_completion
        calls = enumerate(("Watch", "Unwatch", "Watch"), 1)
        await other.send(
            *({"type": 1, "invocationId": str(id), "target": call, "arguments": ["m"]} for id, call in calls)
        )
        await until(lambda: kept)
        backend.answer = answer
        session, message = kept[0]
        session.say({"type": 3, "invocationId": message["invocationId"], "result": "m"})
        ended: list[str] = []
        while len(ended) < 3:
            came = await other.receive()
            ended += [came["invocationId"]] if came["type"] == 3 else []
        assert ended[0] == "1"
        odds(backend, "m", 1)
        assert await numbers(first, 1) == [1]
        while (came := await other.receive())["target"] != "Odds":
            assert came["target"] == "Snapshot"
        assert came["arguments"] == [1]


async def test_who_watches_stays_though_its_second_call_is_refused(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    async with (
        relayed(hub, config(backend, **SHORT)) as address,
        hub_client(address, PATH, "?access_token=t") as client,
    ):
        assert await watch(client) == "m"
        await overtake_snapshot(backend, client)
        backend.answer = without_calls_of("m")
        assert await watch(client, id="2") == "no"
        odds(backend, "m", 1)
        assert await numbers(client, 1) == [1]
        backend.answer = answer
        assert await watch(client, id="3") == "m"
        odds(backend, "m", 2)
        assert await numbers(client, 2) == [2]


async def test_how_unsubscribing_is_answered_is_not_learned_from_a_refusal(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as client:
        assert await watch(client) == "m"
        backend.answer = without_calls_of("m")
        assert await client.invoke("Unwatch", "m", id="2") == {}
        backend.answer = answer
        assert await watch(client, id="3") == "m"
        assert await client.invoke("Unwatch", "m", id="4") == {"result": "m"}


# Bounds


async def test_lanes_that_linger_make_room(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    lanes = replace(PATIENT, max=2)
    async with relayed(hub, config(backend, lanes=lanes, linger=60)) as address, AsyncExitStack() as stack:
        client, other = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(2)]
        ids = map(str, count(1))
        for match in ("a", "b", "c", "d"):
            assert await watch(client, match, next(ids)) == match
            assert await client.invoke("Unwatch", match, id=next(ids)) == {"result": "a"}, "as was learned"
        await until(
            lambda: (
                sorted(str(session.watched) for session in backend.sessions if session.watched) == ["['c']", "['d']"]
            )
        )
        assert await watch(other, "d") == "d"
        assert await watch(other, "e", "2") == "e"
        assert "3 lanes are over the bound of 2" in await watch(other, "f", "3")
        assert len(backend.watching("d")) == len(backend.watching("e")) == 1


async def test_who_leaves_the_queue_for_private_connections_costs_the_others_no_turn(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    private = Private(rate=1, per_relay_max=25)
    async with relayed(hub, config(backend, private=private)) as address, AsyncExitStack() as stack:
        first = await stack.enter_async_context(hub_client(address, PATH))
        assert await first.invoke("Echo", 1) == {"result": 1}
        for _ in range(2):
            async with AsyncExitStack() as leaving:
                for _ in range(20):
                    client = await leaving.enter_async_context(hub_client(address, PATH))
                    await client.send({"type": 1, "invocationId": "1", "target": "Echo", "arguments": [1]})
                await until(lambda: hub.relay_stats()[0].private_lanes > 15)
            await until(lambda: hub.stats().connections == 1)
        last = await stack.enter_async_context(hub_client(address, PATH))
        assert await last.invoke("Echo", 2) == {"result": 2}


# What is visible


def test_arguments_of_any_kind_can_be_shown() -> None:
    values = [b"\x00", 1.5, "m", 2**64 - 1, float("inf"), {"a": None}]
    assert shown(SharedCall("Watch", "json", b'["m"]')) == '["m"]'
    packed = SharedCall("Watch", "messagepack", msgspec.msgpack.encode(values))
    assert shown(packed) == '["AA==",1.5,"m",18446744073709551615,null,{"a":null}]'


async def test_on_gap_close_closes_when_the_lane_is_back(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    lanes = replace(PATIENT, on_gap="close")
    async with relayed(hub, config(backend, lanes=lanes)) as address, hub_client(address, PATH) as client:
        assert await watch(client) == "m"
        (session,) = backend.watching("m")
        well, backend.negotiate = backend.negotiate, hang
        session.end()
        await until(lambda: hub.relay_stats()[0].lanes[0].state == "down")
        assert hub.stats().connections == 1, "it stays while there is nothing to come back to"
        backend.negotiate = well
        for hanging in list(backend.sessions):
            hanging.end()
        assert await told_to_come_back(client)
