"""Clients that join a lane by their first call in the engine: nobody waits for Python, and nobody is lost to it."""

import json
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import fanwire
import fanwire.serving
import pytest
from anyio.to_thread import run_sync
from fanwire.relay.config import CallShare, Everyone, Lanes
from fanwire.relay.machine import State
from support.clock import One
from support.hub_client import hub_client
from support.injection import FaultyEngine
from support.laning import Stage
from support.raw import frame, read_frame, read_head, request_text
from support.relaying import PATH, config, numbers, odds, relayed, watch
from support.scripted_backend import ScriptedBackend, Session
from support.waiting import until

HANDSHAKE = b'{"protocol":"json","version":1}\x1e'
SHARE = CallShare(subscribe="Watch", unsubscribe="Unwatch", snapshot="Snapshot")
ANSWERED = [
    {"type": 1, "target": "Snapshot", "arguments": ["m"]},
    {"type": 3, "invocationId": "1", "result": "m"},
]


# A lane and its offer, with an engine that says how often it was taken up


def offered(**engine: Any) -> Stage:
    """A lane that is live and offered, as number 7; one watches."""
    stage = Stage(**{"offer_lane": 7, "withdraw_lane": 0, **engine})
    stage.lane.context.offers.owner = 3
    stage.come(One(1))
    stage.agree()
    return stage


def watching(stage: Stage) -> list[int]:
    """Whom the lane knows."""
    return [client.id for client in stage.lane.watchers]


def test_a_lane_is_offered_while_it_is_live_and_watched() -> None:
    stage = Stage(offer_lane=7, withdraw_lane=0)
    stage.lane.context.offers.owner = 3
    first = One(1)
    stage.come(first)
    stage.lane.opened(None)
    assert not stage.engine.counts()["offer_lane"], "it is not answered yet"
    stage.answer()
    (_, name, call, end, terms) = next(call for call in stage.engine.calls if call[0] == "offer_lane")
    assert (name, call, end) == ("l", (3, "json", "Watch", b'["m"]'), ("result", b""))
    assert terms == (60.0, None, None), "without a snapshot the backend is asked again once its answer is old"
    stage.come(One(2))
    assert stage.engine.counts()["offer_lane"] == 1
    stage.lane.gone(first)
    assert not stage.engine.counts()["withdraw_lane"]
    stage.lane.gone(next(iter(stage.lane.watchers)))
    assert stage.engine.calls.index(("withdraw_lane", 7)) > 0
    assert stage.timers.waits == [30.0], "it lingers"
    stage.lane.end()
    assert stage.engine.counts()["withdraw_lane"] == 1


def test_a_lane_that_is_down_is_offered_no_more_until_it_is_back() -> None:
    stage = offered()
    stage.lose()
    assert stage.engine.counts()["withdraw_lane"] == 1
    stage.timers.let_pass(1.0)
    stage.agree()
    assert stage.engine.counts()["offer_lane"] == 2


def test_a_new_answer_is_offered_in_place_of_the_old_one() -> None:
    stage = offered()
    stage.timers.let_pass(60.0)
    stage.come(One(2))
    assert stage.engine.counts()["offer_lane"] == 1
    stage.answer()
    assert (stage.engine.counts()["withdraw_lane"], stage.engine.counts()["offer_lane"]) == (1, 2)


def test_a_lane_whose_last_client_goes_while_another_joins_is_kept_for_that_one() -> None:
    stage = offered(withdraw_lane=1)
    stage.lane.gone(next(iter(stage.lane.watchers)))
    assert stage.timers.waits == [], "it does not linger"
    stage.lose()
    assert stage.lane.state is State.DOWN
    assert stage.ended == []
    late = One(2)
    stage.lane.came(late, 7)
    assert watching(stage) == [2]
    stage.timers.let_pass(1.0)
    stage.agree()
    assert late.told == [], "it was answered by the engine, and is not again"
    assert stage.lane.state is State.LIVE


def test_who_is_gone_when_it_is_told_of_keeps_no_lane() -> None:
    stage = offered(withdraw_lane=2)
    stage.lane.gone(next(iter(stage.lane.watchers)))
    stage.lane.came(None, 7)
    assert stage.timers.waits == [], "of one it is yet to be told"
    stage.lane.came(None, 7)
    assert stage.timers.waits == [30.0]


def test_nobody_is_underway_by_an_offer_that_all_were_told_of() -> None:
    stage = offered(withdraw_lane=1)
    stage.lane.came(One(2), 7)
    for client in list(stage.lane.watchers):
        stage.lane.gone(client)
    assert stage.timers.waits == [30.0]


@pytest.mark.parametrize("on_gap", ["message", "close"])
def test_who_joined_before_a_gap_is_dealt_with_as_all_who_watched(on_gap: Any) -> None:
    lanes = Lanes(backoff_min=1.0, backoff_max=8.0, on_gap=on_gap)
    made = iter((7, 8))
    stage = Stage(lanes=lanes, offer_lane=lambda *_: next(made), withdraw_lane=1)
    stage.lane.context.offers.owner = 3
    stage.come(One(1))
    stage.agree()
    stage.lose()
    stage.timers.let_pass(1.0)
    stage.agree()
    stage.lane.came(One(2), 7)
    stage.lane.came(One(3), 8)
    closed = [call[1] for call in stage.upstreams.noted.calls if call[0] == "close"]
    assert closed == ([1, 2] if on_gap == "close" else [])


def test_who_joined_a_lane_that_failed_is_sent_away_as_the_others_were() -> None:
    stage = offered(withdraw_lane=1)
    stage.lane.fail()
    stage.lane.came(One(2), 7)
    assert [call[1] for call in stage.upstreams.noted.calls if call[0] == "close"] == [1, 2]
    assert watching(stage) == []


@pytest.mark.parametrize("name", ["offer_lane", "withdraw_lane"])
def test_an_engine_that_fails_at_an_offer_ends_nothing(name: str) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("mine")

    stage = offered(**{name: fail})
    stage.lose()
    stage.timers.let_pass(1.0)
    stage.agree()
    assert watching(stage) == [1]
    stage.lane.gone(next(iter(stage.lane.watchers)))
    assert stage.timers.waits == [30.0]


def test_what_the_engine_would_not_find_is_not_offered() -> None:
    stage = Stage(offer_lane=7)
    stage.lane.call = stage.lane.call._replace(arguments=b'["' + b"m" * 5_000 + b'"]')
    stage.lane.context.offers.owner = 3
    stage.come(One(1))
    stage.agree()
    assert not stage.engine.counts()["offer_lane"]


# Over sockets: the hub's loop stands still while a client is answered

pytestmark = pytest.mark.anyio


@contextmanager
def at_once(connection: socket.socket) -> Iterator[socket.socket]:
    """A socket for as long as it is needed."""
    try:
        yield connection
    finally:
        connection.close()


def shaken(address: str) -> socket.socket:
    """A client that has shaken hands."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), 20)
    connection.sendall(request_text(PATH))
    assert read_head(connection).startswith("HTTP/1.1 101")
    connection.sendall(frame(1, HANDSHAKE))
    assert read_frame(connection).payload == b"{}\x1e"
    return connection


def call(target: str = "Watch", id: str = "1", arguments: str = '["m"]') -> bytes:
    """A call's record."""
    return b'{"type":1,"invocationId":"%s","target":"%s","arguments":%s}\x1e' % tuple(
        part.encode() for part in (id, target, arguments)
    )


def heard(connection: socket.socket, count: int) -> list[Any]:
    """So many messages, but for pings."""
    seen: list[Any] = []
    while len(seen) < count:
        records = read_frame(connection).payload.split(b"\x1e")[:-1]
        seen += [message for record in records if (message := json.loads(record)) != {"type": 6}]
    return seen


def clients_of(hub: fanwire.Hub) -> list[int]:
    """How many watch each lane."""
    return [lane.clients for lane in hub.relay_stats()[0].lanes]


@pytest.mark.parametrize("spelled", ["Watch", "wATCH"])
@pytest.mark.parametrize("arguments", ['["m"]', '[ "\\u006d" ]'])
async def test_a_first_call_is_answered_while_the_loop_stands_still(spelled: str, arguments: str) -> None:
    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as first:
            assert await watch(first) == "m"
            with at_once(await run_sync(shaken, address)) as second:
                second.sendall(frame(1, call(spelled, arguments=arguments)))
                assert heard(second, 2) == ANSWERED  # blocks the loop
                await until(lambda: clients_of(hub) == [2])
                odds(backend, "m", 1, 2)
                assert await numbers(first, 2) == [1, 2]
                assert [message["arguments"] for message in await run_sync(heard, second, 2)] == [[1], [2]]
            await until(lambda: clients_of(hub) == [1])
            assert len(backend.watching("m")) == 1
            assert hub.relay_stats()[0].unused == [
                'share[0].unsubscribe = "Unwatch"',
            ]


async def test_a_call_without_an_id_joins_and_is_not_answered() -> None:
    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as first:
            assert await watch(first) == "m"
            with at_once(await run_sync(shaken, address)) as second:
                second.sendall(frame(1, b'{"type":1,"target":"Watch","arguments":["m"]}\x1e'))
                assert heard(second, 1) == ANSWERED[:1]
                await until(lambda: clients_of(hub) == [2])
                odds(backend, "m", 1)
                assert [message["target"] for message in await run_sync(heard, second, 1)] == ["Odds"]


async def test_what_a_client_says_behind_its_first_call_comes_behind_it(engines: list[FaultyEngine]) -> None:
    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as first:
            assert await watch(first) == "m"
            engines[-1].watch()
            with at_once(await run_sync(shaken, address)) as second:
                # Once more, and then not any more, in one segment.
                second.sendall(frame(1, call() + call(id="2")) + frame(1, call("Unwatch", "3")))
                said = await run_sync(heard, second, 5)
                assert [message.get("invocationId") for message in said] == [None, "1", None, "2", "3"]
                assert engines[-1].calls["join_lane"] == 1, "the second call"
                await until(lambda: clients_of(hub) == [1])
                odds(backend, "m", 1)
                assert await numbers(first, 1) == [1]
                second.sendall(frame(1, call("Private", "4", '["x"]')))
                (answer,) = await run_sync(heard, second, 1)
                assert (answer["invocationId"], answer["result"]) == ("4", "x"), "nothing came before it"


async def test_a_client_that_is_gone_at_once_leaves_nothing() -> None:
    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend)) as address:
            async with hub_client(address, PATH) as first:
                assert await watch(first) == "m"
                for _ in range(20):
                    with at_once(await run_sync(shaken, address)) as second:
                        second.sendall(frame(1, call()))
                await until(lambda: clients_of(hub) == [1])
            await until(lambda: hub.relay_stats()[0].lanes == [])
            await until(lambda: not backend.watching("m"))


async def test_the_last_client_goes_as_another_joins(engines: list[FaultyEngine]) -> None:
    """In one turn of the loop: that one watches, over the connection that there was."""
    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend, linger=0.0)) as address:
            first = await run_sync(shaken, address)
            first.sendall(frame(1, call()))
            assert await run_sync(heard, first, 2) == ANSWERED
            with at_once(await run_sync(shaken, address)) as second:
                first.close()
                second.sendall(frame(1, call()))
                assert await run_sync(heard, second, 2) == ANSWERED
                await until(lambda: clients_of(hub) == [1])
                odds(backend, "m", 1)
                assert [message["arguments"] for message in await run_sync(heard, second, 1)] == [[1]]
            await until(lambda: hub.relay_stats()[0].lanes == [])


async def test_who_joins_a_lane_that_has_just_lost_its_backend_is_told_of_the_gap() -> None:
    hub = fanwire.Hub()
    lanes = Lanes(backoff_min=0.01, backoff_max=0.02, on_gap="message")
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend, lanes=lanes)) as address, hub_client(address, PATH) as first:
            assert await watch(first) == "m"
            with at_once(await run_sync(shaken, address)) as second:
                for session in backend.watching("m"):
                    session.reset()
                second.sendall(frame(1, call()))
                assert heard(second, 2) == ANSWERED, "the loop has not heard of it"
                said = await run_sync(heard, second, 2)
                assert [message["target"] for message in said] == ["Snapshot", "fanwire:gap"]
                await until(lambda: clients_of(hub) == [2])


async def test_an_old_beginning_is_asked_for_anew(engines: list[FaultyEngine]) -> None:
    hub, share = fanwire.Hub(), CallShare(subscribe="Watch", snapshot="Snapshot", fresh=0.001)
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend, share=(share,))) as address, AsyncExitStack() as stack:
            for count in range(1, 4):
                client = await stack.enter_async_context(hub_client(address, PATH))
                assert await watch(client) == "m"
                assert len(backend.calls) == count


async def test_where_the_backend_greets_its_clients_nothing_is_offered(engines: list[FaultyEngine]) -> None:
    """The greeting comes first."""

    def greet(session: Session) -> None:
        session.say({}, {"type": 1, "target": "Hello", "arguments": []})

    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        backend.shake_hands = greet
        relay = config(backend, everyone=Everyone(welcome=("Hello",)))
        async with relayed(hub, relay) as address, AsyncExitStack() as stack:
            for _ in range(3):
                client = await stack.enter_async_context(hub_client(address, PATH))
                assert (await client.receive())["target"] == "Hello"
                assert await watch(client) == "m"
        assert not engines[-1].calls["offer_lane"]


async def test_relays_that_share_the_same_methods_have_each_their_own_lanes() -> None:
    hub = fanwire.Hub()
    with ScriptedBackend() as one, ScriptedBackend() as other:
        async with relayed(hub, config(one), config(other, path="/other")) as address, AsyncExitStack() as stack:
            for path in (PATH, "/other", PATH, "/other"):
                client = await stack.enter_async_context(hub_client(address, path))
                assert await watch(client) == "m"
            await until(lambda: [[lane.clients for lane in relay.lanes] for relay in hub.relay_stats()] == [[2], [2]])
            assert (len(one.watching("m")), len(other.watching("m"))) == (1, 1)
