"""The relay before a backend that fails at every stage, and with clients that do what they should not."""

import json
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

import anyio
import fanwire
import httpx
import msgpack
import pytest
from anyio.to_thread import run_sync
from fanwire.relay.config import Everyone, Lanes, Private, RelayConfig
from support.clients import connected
from support.descriptors import sockets
from support.hub_client import HubClient, hub_client
from support.loops import epoll_alone, without_uvloop
from support.raw import frame, read_close, read_frame, upgraded
from support.relaying import PATH, PATIENT, SECRET, SHARE, config, numbers, odds, relayed, watch
from support.scripted_backend import ScriptedBackend, Session, answer, answering, hang
from support.waiting import until

pytestmark = pytest.mark.anyio
poller = epoll_alone
anyio_backend = without_uvloop
FAILED = "Failed to invoke 'Watch' due to an error on the server. HubException: "
UNREACHABLE = FAILED + "The backend cannot be reached."
NOT_ANSWERED = FAILED + "The backend has not answered."
EITHER = "One of both, as the lane is just being opened again, or asking again."
IMPATIENT = Lanes(connect_timeout=2.5, backoff_min=0.01, backoff_max=0.02)
"""For a backend that does not answer: what does takes less, on a busy machine, too."""
PING = {"type": 6}


async def watch_at_last(client: HubClient, match: str = "m", id: str = "2") -> Any:
    """The same, of a backend that is well again: on a busy machine it may take more than one try."""
    while (said := await watch(client, match, id)) in (UNREACHABLE, NOT_ANSWERED):
        pass
    return said


STAGES: dict[str, tuple[str, Callable[..., None], str]] = {
    "hangs in negotiate": ("negotiate", hang, UNREACHABLE),
    "hangs in the upgrade": ("upgrade", hang, UNREACHABLE),
    "hangs in the handshake": ("shake_hands", hang, UNREACHABLE),
    "hangs in a call": ("answer", hang, NOT_ANSWERED),
    "keeps a call": ("answer", lambda session, message: None, NOT_ANSWERED),
    "negotiates with 500": ("negotiate", answering(500), UNREACHABLE),
    "negotiates with 401": ("negotiate", answering(401), "The backend refused the connection."),
    "negotiates nonsense": ("negotiate", answering(200, b"<html>"), UNREACHABLE),
    "redirects for ever": ("negotiate", answering(200, b'{"url":"http://127.0.0.1:1/"}'), UNREACHABLE),
    "refuses in negotiate": ("negotiate", answering(200, b'{"error":"no"}'), UNREACHABLE),
    "upgrades with 503": ("upgrade", answering(503), UNREACHABLE),
    "refuses in the handshake": ("shake_hands", lambda session: session.say({"error": "no"}), UNREACHABLE),
    "shakes hands with nonsense": ("shake_hands", lambda session: session.say_raw(b"\x1e\x1e{"), UNREACHABLE),
    "resets in the handshake": ("shake_hands", lambda session: session.reset(), UNREACHABLE),
    "resets in a call": ("answer", lambda session, message: session.reset(), EITHER),
    "closes in a call": ("answer", lambda session, message: session.say({"type": 7}), EITHER),
}


async def test_at_whatever_stage_a_backend_fails_clients_are_told_and_stay(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    said: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        backends = [stack.enter_context(ScriptedBackend()) for _ in STAGES]
        relays = [config(backend, f"/{index}", lanes=IMPATIENT) for index, backend in enumerate(backends)]
        before = sockets()
        with caplog.at_level(logging.DEBUG, "fanwire"):
            async with relayed(hub, *relays) as address, anyio.create_task_group() as tasks:
                for index, (name, (stage, does, _)) in enumerate(STAGES.items()):
                    well = getattr(backends[index], stage)
                    setattr(backends[index], stage, does)
                    tasks.start_soon(visit, said, name, address, backends[index], (stage, well))
        assert said == {name: (expected, "m") for name, (_, _, expected) in STAGES.items()}
        for backend in backends:
            await until(lambda: not backend.sessions)  # noqa: B023 called in this turn
        assert SECRET not in caplog.text
        assert sockets() <= before


async def visit(
    said: dict[str, Any], name: str, address: str, backend: ScriptedBackend, healing: tuple[str, Callable[..., None]]
) -> None:
    """What a client is told by a backend that fails, and, once it fails no more, the same client again."""
    path = f"/{list(STAGES).index(name)}"
    async with hub_client(address, path, f"?access_token={SECRET}") as client:
        first = await watch(client)
        assert len(backend.sessions) <= 4, "the broadcast lane, the lane, and what is being closed"
        setattr(backend, *healing)
        if STAGES[name][2] == EITHER and first in (UNREACHABLE, NOT_ANSWERED):
            first = EITHER
        said[name] = (first, await watch_at_last(client))


async def test_a_backend_that_refuses_connections_comes_back(hub: fanwire.Hub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    nowhere = RelayConfig(
        path=PATH, upstream=(f"http://{address}{PATH}",), admit="anyone", share=(SHARE,), lanes=IMPATIENT
    )
    async with relayed(hub, nowhere) as relay, hub_client(relay, PATH) as client:
        assert await watch(client) == UNREACHABLE
        with ScriptedBackend(address) as backend:
            assert await watch_at_last(client) == "m"
            odds(backend, "m", 1)
            assert await numbers(client, 1) == [1]


TROUBLE: dict[str, Callable[[Session], None]] = {
    "no JSON": lambda session: session.say_raw(b"{]\x1e"),
    "no message": lambda session: session.say_raw(b'["type",1]\x1e'),
    "a record that never ends": lambda session: session.say_raw(b"x" * ((1 << 20) + 1)),
    "no WebSocket": lambda session: session._connection.sendall(b"\xff" * 64),
    "Close": lambda session: session.say({"type": 7, "allowReconnect": True}),
    "Close for good": lambda session: session.say({"type": 7, "error": "go away"}),
    "Close with a long word": lambda session: session.say({"type": 7, "error": "go " * 100_000}),
    "a reset": lambda session: session.reset(),
    "an end": lambda session: session.end(),
}
NO_TROUBLE: list[dict[str, Any]] = [
    {"type": 99, "what": "?"},
    {"type": 3, "invocationId": "nobody's", "result": 1},
    {"type": 2, "invocationId": "nobody's", "item": 1},
    {"type": 3, "invocationId": "1", "result": "a second time"},
    {"type": 1, "invocationId": "q", "target": "Question", "arguments": []},
    PING,
]


async def test_what_a_backend_may_do_to_a_lane_its_clients_outlive(
    hub: fanwire.Hub, backend: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async with relayed(hub, config(backend)) as address, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(2)]
        for client in clients:
            assert await watch(client) == "m"
        for session in backend.watching("m"):
            session.say(*NO_TROUBLE)
        refusal = {"type": 3, "invocationId": "q", "error": "Client didn't provide a result."}
        await until(lambda: refusal in backend.calls)
        odds(backend, "m", 0)
        assert [await numbers(client, 0) for client in clients] == [[0], [0]]
        for number, trouble in enumerate(TROUBLE.values(), 1):
            (session,) = backend.watching("m")
            with suppress(OSError):
                trouble(session)
            for client in clients:
                assert await client.receive() == {"type": 1, "target": "Snapshot", "arguments": ["m"]}
            await until(lambda: len(backend.watching("m")) == 1)
            odds(backend, "m", number)
            assert [await numbers(client, number) for client in clients] == [[number], [number]]
        assert hub.stats().connections == 2
        assert caplog.text.count("is live again; a gap of") == len(TROUBLE)
        assert max(len(record.getMessage()) for record in caplog.records) < 1_000
        await until(lambda: len(backend.sessions) == 2)


async def test_a_lane_that_is_lost_in_a_subscription_answers_when_it_is_back(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    losses = iter([Session.reset, Session.end])

    def lose_twice(session: Session, message: dict[str, Any]) -> None:
        lose = next(losses, None)
        if lose is None:
            answer(session, message)
        else:
            lose(session)

    backend.answer = lose_twice
    async with relayed(hub, config(backend)) as address:
        async with hub_client(address, PATH) as client:
            assert await watch(client) == "m"
        assert [call["target"] for call in backend.calls if call["type"] == 1] == ["Watch"] * 3


async def test_a_call_that_is_kept_is_only_its_callers_trouble(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    lanes = replace(IMPATIENT, snapshot_bytes_max=100)
    async with relayed(hub, config(backend, lanes=lanes)) as address, AsyncExitStack() as stack:
        first, late, other = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(3)]
        assert await watch(first) == "m"
        odds(backend, "m", 1, 2, 3, 4)
        assert await numbers(first, 4) == [1, 2, 3, 4]  # more than is kept for late joiners
        backend.answer = lambda session, message: None
        assert await watch(late) == NOT_ANSWERED
        assert await watch(other, "n") == NOT_ANSWERED
        odds(backend, "m", 5)
        assert await numbers(first, 5) == [5]
        backend.answer = answer
        assert await watch_at_last(late) == "m"
        odds(backend, "m", 6)
        assert await numbers(first, 6) == await numbers(late, 6) == [6]


async def test_a_burst_behind_a_snapshot_costs_only_those_who_join_in_it(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    """More than is kept comes between the snapshot and the answer: who asked gets all of it, the next has it anew."""

    def burst(session: Session, message: dict[str, Any]) -> None:
        session.watched.append("m")
        session.say(
            {"type": 1, "target": "Snapshot", "arguments": ["m"]},
            *({"type": 1, "target": "Odds", "arguments": [number]} for number in range(1, 9)),
            {"type": 3, "invocationId": message["invocationId"], "result": "m"},
        )

    lanes = replace(PATIENT, snapshot_bytes_max=100)
    backend.answer = burst
    async with relayed(hub, config(backend, lanes=lanes)) as address, AsyncExitStack() as stack:
        first, late = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(2)]
        await first.send({"type": 1, "invocationId": "1", "target": "Watch", "arguments": ["m"]})
        seen = [await first.receive() for _ in range(10)]
        assert [message.get("target") for message in seen] == ["Snapshot", *["Odds"] * 8, None]
        backend.answer = answer
        assert await watch(late) == "m"
        odds(backend, "m", 9)
        assert await numbers(first, 9) == await numbers(late, 9) == [9]


async def test_a_snapshot_over_the_bound_is_asked_for_by_whoever_comes(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    """All who wait get it, before the answer, and nobody else; it is not kept."""
    snapshot = {"type": 1, "target": "Snapshot", "arguments": ["m", "x" * 300_000]}

    def big(session: Session, message: dict[str, Any]) -> None:
        session.watched.append("m")
        session.say(snapshot, {"type": 3, "invocationId": message["invocationId"], "result": "m"})

    backend.answer = big
    async with relayed(hub, config(backend, lanes=PATIENT)) as address, AsyncExitStack() as stack:
        for turn in range(3):
            client = await stack.enter_async_context(hub_client(address, PATH))
            await client.send({"type": 1, "invocationId": "1", "target": "Watch", "arguments": ["m"]})
            assert await client.receive() == snapshot
            assert (await client.receive()).get("result") == "m"
            if not turn:
                first = client
        odds(backend, "m", 9)
        assert await numbers(first, 9) == await numbers(client, 9) == [9]
    assert [call["target"] for call in backend.calls if call["type"] == 1] == ["Watch"] * 3


async def test_who_comes_while_the_last_one_leaves_stays(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    """All of it waits for one completion: the lane does not linger for the one when it has the other."""
    kept: list[tuple[Session, dict[str, Any]]] = []
    backend.answer = lambda session, message: kept.append((session, message))
    async with relayed(hub, config(backend)) as address, AsyncExitStack() as stack:
        leaving, staying, gone = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(3)]
        call: dict[str, Any] = {"type": 1, "arguments": ["m"]}
        await gone.send({**call, "invocationId": "1", "target": "Watch"})
        await until(lambda: kept)
        await leaving.send(
            {**call, "invocationId": "1", "target": "Watch"}, {**call, "invocationId": "2", "target": "Unwatch"}
        )
        await leaving.send({**call, "invocationId": "3", "target": "Echo"})
        await until(lambda: len(kept) == 2)  # its private call went behind them
        await staying.send({**call, "invocationId": "1", "target": "Watch"})
        await staying.send({**call, "invocationId": "3", "target": "Echo"})
        await until(lambda: len(kept) == 3)
        gone.peer.break_off()
        await until(lambda: hub.stats().connections == 2)
        backend.answer = answer
        answer(*kept[0])
        assert (await staying.receive())["target"] == "Snapshot"
        assert (await staying.receive())["type"] == 3
        came = [await leaving.receive() for _ in range(3)]
        assert [one["invocationId"] for one in came if one["type"] == 3] == ["1", "2"]
        await until(lambda: len(backend.watching("m")) == 1)  # the other one asked how leaving is answered
        # Longer than it lingers: a private connection's whole life.
        assert await watch(leaving, "n", "4") == "n"
        await leaving.send({"type": 1, "target": "Unwatch", "arguments": ["n"]})
        await until(lambda: not backend.watching("n"))
        odds(backend, "m", 1)
        assert await numbers(staying, 1) == [1]


async def test_subscribing_and_unsubscribing_may_cross(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    kept: list[tuple[Session, dict[str, Any]]] = []
    backend.answer = lambda session, message: kept.append((session, message))
    async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as client:
        calls = enumerate(("Watch", "Unwatch", "Watch"), 1)
        await client.send(
            *({"type": 1, "invocationId": str(id), "target": call, "arguments": ["m"]} for id, call in calls)
        )
        await until(lambda: kept)
        backend.answer = answer
        answer(*kept[0])
        seen = [await client.receive() for _ in range(5)]
        assert sorted(one["invocationId"] for one in seen if one["type"] == 3) == ["1", "2", "3"]
        assert [one["arguments"] for one in seen if one["type"] == 1] == [["m"], ["m"]]
        odds(backend, "m", 1)
        assert await numbers(client, 1) == [1]
        assert await client.invoke("Unwatch", "m", id="4") == {"result": "m"}
        await until(lambda: not backend.watching("m"))
        assert await client.invoke("Echo", 5, id="5") == {"result": 5}, "nothing of the match before it"


async def test_subscriptions_that_fail_leave_no_lane_behind(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    backend.answer = lambda session, message: None
    limited = config(backend, lanes=replace(IMPATIENT, subscribe_rate=2))
    async with relayed(hub, limited) as address:
        async with hub_client(address, PATH) as client:
            call: dict[str, Any] = {"type": 1, "target": "Watch", "arguments": ["m"]}
            await client.send(*({**call, "invocationId": str(index)} for index in range(4)))
            errors = [await client.receive() for _ in range(4)]
            assert [error["error"] for error in errors[:2]] == [FAILED + "more than 2 subscriptions a second"] * 2
            assert [error["error"] for error in errors[2:]] == [NOT_ANSWERED] * 2
            backend.answer = answer
            async with hub_client(address, PATH) as other:
                assert await watch(other) == "m"
                await other.send({**call, "invocationId": "1"}, {**call, "invocationId": "2"}, {**call, "id": "3"})
                await until(lambda: len(backend.watching("m")) == 1)
        await until(lambda: not backend.watching("m"))


async def test_who_goes_before_the_relay_is_ready_holds_no_lane(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    may_go_on: list[Session] = []
    backend.shake_hands = may_go_on.append
    async with relayed(hub, config(backend)) as address:
        async with hub_client(address, PATH) as client:
            await client.send({"type": 1, "invocationId": "1", "target": "Watch", "arguments": ["m"]})
            await until(lambda: may_go_on)
        await until(lambda: hub.stats().connections == 0)
        backend.shake_hands = lambda session: session.say({})
        may_go_on[0].say({})
        async with hub_client(address, PATH) as client:
            assert await watch(client, "n") == "n"
        await until(lambda: len(backend.sessions) == 1)
        assert {call["arguments"][0] for call in backend.calls if call["type"] == 1} == {"n"}


async def test_everyone_is_greeted_once_whenever_the_greeting_comes(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    greeting = {"type": 1, "target": "Welcome", "arguments": ["hello"]}
    greets = config(backend, everyone=Everyone(welcome=("Welcome",)))
    async with relayed(hub, greets) as address, AsyncExitStack() as stack:

        async def come(count: int) -> list[HubClient]:
            return [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(count)]

        clients = await come(3)
        await clients[0].invoke("Echo", 1)
        for session in list(backend.sessions):
            session.say(greeting)  # over the private connection, too, where it is dropped
        clients += await come(3)
        for client in clients:
            assert await client.receive() == greeting
        for session in list(backend.sessions):
            session.say({**greeting, "arguments": ["hello again"]})
        for client in clients:
            assert await client.invoke("Echo", 2) == {"result": 2}, "greeted once"


async def test_no_arguments_end_the_relay(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    odd_ones = ["1e999", '"\\ud800"', "[" * 500 + "]" * 500, '{"a":1,"a":2}', "9" * 400, "null", "{}", '"m"']
    odd_maps: list[Any] = [
        {1: 2, "a": 3},
        {None: 1},
        {b"x": {2.5: True}},
        msgpack.ExtType(5, b"x"),
        2**64 - 1,
        float("nan"),
    ]
    async with relayed(hub, config(backend, lanes=IMPATIENT)) as address, hub_client(address, PATH) as first:
        for text in odd_ones:
            with suppress(Exception):  # a client that the engine itself refuses
                async with hub_client(address, PATH) as client:
                    await client.peer.send(f'{{"type":1,"invocationId":"1","target":"Watch","arguments":[{text}]}}\x1e')
                    await client.receive()
        async with connected(address, PATH) as peer:
            await peer.send(b'{"protocol":"messagepack","version":1}\x1e')
            for value in odd_maps:
                record = msgpack.packb([1, {}, "1", "Watch", [value]])
                await peer.send(bytes([len(record)]) + record)
            # The number alone has a lane, whose patience ends: this backend reads no MessagePack.
            await peer.receive_all(2)
        assert await watch(first) == "m"
        assert await first.invoke("Echo", 1, id="2") == {"result": 1}


async def test_every_private_call_is_answered_though_its_connection_is_lost(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    def lose_every_third(session: Session, message: dict[str, Any]) -> None:
        if message["type"] == 1 and message["arguments"][0] % 3 == 2:
            session.reset()
        else:
            answer(session, message)

    backend.answer = lose_every_third
    async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as client:
        for index in range(60):
            await client.send({"type": 1, "invocationId": str(index), "target": "Echo", "arguments": [index]})
        ended = {}
        while len(ended) < 60:
            completion = await client.receive()
            assert completion["invocationId"] not in ended
            ended[completion["invocationId"]] = completion.get("error", completion.get("result"))
        lost = "The connection to the backend was lost before it answered."
        assert all(value in (int(id), lost) for id, value in ended.items())
        assert ended["2"] == lost


async def test_pooled_calls_of_a_backend_that_is_lost_are_made_again(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    backend.answer = lambda session, message: None
    pooled = config(backend, private=Private(pooled=("Echo",), pool_size=1))
    async with relayed(hub, pooled) as address, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(3)]
        for client in clients:
            await client.send(
                *({"type": 1, "invocationId": "7", "target": "Echo", "arguments": [1]} for _ in range(40))
            )
        await until(lambda: len(backend.calls) == 48)  # 16 of each: who does not hear is not heard
        backend.answer = answer
        for session in list(backend.sessions):
            session.end()
        for client in clients:
            ended = [await client.receive() for _ in range(40)]
            assert ended == [{"type": 3, "invocationId": "7", "result": 1}] * 40


async def test_a_client_that_breaks_the_rules_ends_alone(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    invocation = b'{"type":1,"invocationId":"1","target":"Echo","arguments":["%s"]}\x1e'
    faults = [b"{]\x1e", b"[]\x1e", b'{"type":1}\x1e', b'{"type":"x"}\x1e', invocation % (b"x" * 40_000), b"\xff\x1e"]
    harmless = [
        b'{"type":99}\x1e',
        b'{"type":3,"invocationId":"9","result":1}\x1e',
        b'{"type":5,"invocationId":"9"}\x1e',
    ]
    harmless += [b'{"type":2,"invocationId":"9","item":1}\x1e', b'{"type":6}\x1e']
    async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as other:
        assert await watch(other) == "m"

        def break_it(fault: bytes) -> None:
            with upgraded(address, PATH) as client:
                client.sendall(frame(1, b'{"protocol":"json","version":1}\x1e'))
                for piece in (*harmless, fault):
                    client.sendall(frame(2, piece))
                read_close(client)

        for fault in faults:
            await run_sync(break_it, fault)
        odds(backend, "m", 1)
        assert await numbers(other, 1) == [1]
        assert await other.invoke("Echo", 1, id="2") == {"result": 1}
        await until(lambda: len(backend.sessions) == 3)


async def test_a_client_that_never_reads_is_closed_and_the_others_get_it_all(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    pad = "x" * 20_000
    async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as other:
        assert await watch(other) == "m"
        (session,) = backend.watching("m")
        stuck = await run_sync(lambda: upgraded(address, PATH, receive_buffer=4_096))
        with stuck:
            call = {"type": 1, "invocationId": "1", "target": "Watch", "arguments": ["m"]}
            for message in ({"protocol": "json", "version": 1}, call):
                stuck.sendall(frame(1, json.dumps(message).encode() + b"\x1e"))
            while b'"invocationId":"1"' not in (await run_sync(read_frame, stuck)).payload:
                pass
            last = 0
            while not hub.stats().overtaken:
                assert last < 5_000, "a laggard is not kept for ever"
                session.say(*({"type": 1, "target": "Odds", "arguments": [last + n, pad]} for n in range(1, 21)))
                assert (await numbers(other, last + 20)) == list(range(last + 1, last + 21))
                last += 20
            await run_sync(read_close, stuck)
        await until(lambda: hub.stats().closes.get(1013) == 1)
        assert await watch(other, "n", "2") == "n"
        assert len(backend.watching("m")) == 1


async def test_an_upload_that_nobody_takes_is_held_back(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    def take_nothing(session: Session, message: dict[str, Any]) -> None:
        if message.get("target") == "Upload":
            stuck.set()
            released.wait(60)
        else:
            answer(session, message)

    stuck, released = threading.Event(), threading.Event()
    backend.answer = take_nothing
    async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as other:

        def upload() -> int:
            item = frame(1, b'{"type":2,"invocationId":"s","item":"' + b"x" * 30_000 + b'"}\x1e')
            with upgraded(address, PATH) as client:
                client.sendall(frame(1, b'{"protocol":"json","version":1}\x1e'))
                client.sendall(
                    frame(1, b'{"type":1,"invocationId":"1","target":"Upload","arguments":[],"streamIds":["s"]}\x1e')
                )
                assert stuck.wait(60)
                client.settimeout(0.3)
                sent = 0
                with suppress(TimeoutError):
                    while sent < 64 << 20:
                        client.sendall(item)
                        sent += len(item)
                return sent

        try:
            sent = await run_sync(upload)
            assert sent < 32 << 20, "what the kernel takes at both sockets, and no more"
            assert await other.invoke("Echo", 1) == {"result": 1}
        finally:
            released.set()
        await until(lambda: hub.stats().connections == 1)


async def test_a_thousand_subscriptions_at_once_are_an_error(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    async with (
        relayed(hub, config(backend, lanes=replace(PATIENT, subscribe_rate=20))) as address,
        AsyncExitStack() as stack,
    ):
        client = await stack.enter_async_context(hub_client(address, PATH))
        call: dict[str, Any] = {"type": 1, "target": "Watch"}
        for index in range(0, 1_000, 100):
            some = ({**call, "invocationId": str(n), "arguments": [f"m{n}"]} for n in range(index, index + 100))
            await client.send(*some)
        ended = []
        while len(ended) < 1_000:
            message = await client.receive()
            ended += [message.get("error")] if message["type"] == 3 else []
        assert set(ended) == {None, FAILED + "more than 20 subscriptions a second"}
        granted = ended.count(None)
        assert granted < 200
        await until(lambda: len(backend.sessions) - 1 == granted)  # those that negotiated have ended
        await client.peer.close()
        await until(lambda: len(backend.sessions) == 1)


async def test_admission_asks_the_next_address_and_not_for_ever(
    hub: fanwire.Hub, backend: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    def status(address: str, path: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {SECRET}", "Cookie": f"session={SECRET}"}
        response = httpx.post(f"http://{address}{path}/negotiate?negotiateVersion=1", headers=headers, trust_env=False)
        return response.status_code, response.content

    with ScriptedBackend() as hangs, ScriptedBackend() as talks, caplog.at_level(logging.DEBUG, "fanwire"):
        hangs.negotiate = hang
        talks.negotiate = answering(200, b'{"error" oops')
        asking: dict[str, Any] = {"admit": "negotiate", "lanes": IMPATIENT, "share": (SHARE,)}
        urls = [f"http://127.0.0.1:1{PATH}", f"http://{backend.address}{PATH}"]
        relays = [
            RelayConfig(path="/next", upstream=tuple(urls), **asking),
            config(hangs, "/hangs", **asking),
            config(talks, "/talks", **asking),
        ]
        async with relayed(hub, *relays) as address:
            assert (await run_sync(status, address, "/next"))[0] == 200
            assert await run_sync(status, address, "/hangs") == (503, b"the backend cannot be reached")
            assert (await run_sync(status, address, "/talks"))[0] == 200, "to be found out by who connects"
            talks.negotiate = answering(200, b'{"error":"not today"}')
            assert (await run_sync(status, address, "/talks"))[0] == 200, "the answer is remembered"
            await until(lambda: not hangs.sessions)
        assert b"Bearer " + SECRET.encode() in backend.heads[0]
    assert SECRET not in caplog.text
