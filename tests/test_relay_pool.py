"""Pooled calls when the backend ends their connection: nobody waits for a stranger's call, nor is taken for one."""

import base64
import json
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import anyio
import fanwire
import pytest
from fanwire.relay.config import Private
from fanwire.relay.credentials import expiry_of
from fanwire.relay.wire import NO_TURN, NOT_ANSWERED
from support.hub_client import hub_client
from support.loops import asyncio_alone, epoll_alone
from support.relaying import PATH, PATIENT, config, relayed
from support.scripted_backend import ScriptedBackend, Session, answer
from support.waiting import until

pytestmark = pytest.mark.anyio
poller = epoll_alone
anyio_backend = asyncio_alone
POOLED = Private(pooled=("Hang", "Goodbye", "Echo"), pool_size=1)


def call(target: str, number: int) -> dict[str, Any]:
    """An invocation that wants an answer."""
    return {"type": 1, "invocationId": f"{target}{number}", "target": target, "arguments": [number]}


def behave(session: Session, message: dict[str, Any]) -> None:
    """Hang is never answered, Goodbye ends the connection."""
    if message.get("target") == "Goodbye":
        session.reset()
    elif message.get("target") != "Hang":
        answer(session, message)


@pytest.mark.parametrize("has_left", [True, False])
async def test_calls_that_are_never_answered_hold_up_nobody_after_a_loss(
    hub: fanwire.Hub, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, has_left: bool
) -> None:
    if not has_left:  # else nobody has to wait for it
        monkeypatch.setattr("fanwire.relay.pool.ALONE_S", 0.05)
    backend.answer = behave
    async with relayed(hub, config(backend, private=POOLED)) as address, AsyncExitStack() as stack:
        victim = await stack.enter_async_context(hub_client(address, PATH))
        async with hub_client(address, PATH) as stranger:
            await stranger.send(*(call("Hang", number) for number in range(5)))
            await until(lambda: len(backend.calls) == 5)
            await stranger.send(call("Goodbye", 0))
            await until(lambda: len(backend.calls) >= 7)  # the first of them was made again
            if not has_left:
                assert await victim.invoke("Echo", 1, id="1") == {"result": 1}
        assert await victim.invoke("Echo", 2, id="2") == {"result": 2}


async def test_a_call_is_made_again_though_the_one_that_ended_the_connection_is_nobodys_by_then(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    sessions: list[Session] = []

    def late(session: Session, message: dict[str, Any]) -> None:
        if message.get("target") in ("Goodbye", "Echo") and len(sessions) < 2:
            sessions.append(session)
        else:
            answer(session, message)

    backend.answer = late
    async with relayed(hub, config(backend, private=POOLED)) as address, hub_client(address, PATH) as victim:
        await victim.send(call("Echo", 7))
        await until(lambda: len(sessions) == 1)
        async with hub_client(address, PATH) as stranger:
            await stranger.send(call("Goodbye", 0))
            await until(lambda: len(sessions) == 2)
        await until(lambda: hub.stats().connections == 1)
        sessions[0].reset()
        assert await victim.receive() == {"type": 3, "invocationId": "Echo7", "result": 7}


async def test_a_call_that_was_the_only_one_is_made_again_too(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    """As where a stranger's has been answered, and the backend ends the connection for it a moment later."""
    kept: list[Session] = []

    def late(session: Session, message: dict[str, Any]) -> None:
        if message.get("target") == "Hang" and not kept:
            kept.append(session)
        else:
            answer(session, message)

    backend.answer = late
    async with (
        relayed(hub, config(backend, private=POOLED)) as address,
        hub_client(address, PATH) as victim,
        hub_client(address, PATH) as stranger,
    ):
        await victim.send(call("Hang", 7))
        await until(lambda: len(kept) == 1)
        assert await stranger.invoke("Goodbye", 0) == {"result": 0}
        kept[0].reset()
        assert await victim.receive() == {"type": 3, "invocationId": "Hang7", "result": 7}


async def test_a_slow_call_that_strangers_lose_is_made_over_its_client_s_own_connection(
    hub: fanwire.Hub, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.relay.pool.ALONE_S", 0.01)
    monkeypatch.setattr("fanwire.relay.pool.HELD_UP_S", 60.0)

    def slow(session: Session, message: dict[str, Any]) -> None:
        if message.get("target") == "Hang" and b"victim" in session.head:
            answer(session, message)
        else:
            behave(session, message)

    backend.answer = slow
    async with (
        relayed(hub, config(backend, private=POOLED)) as address,
        hub_client(address, PATH, "?victim=1") as victim,
    ):
        await victim.send(call("Hang", 7))
        await until(lambda: len(backend.calls) == 1)
        for _ in range(5):
            async with hub_client(address, PATH) as stranger:
                assert "error" in await stranger.invoke("Goodbye", 0)
        assert await victim.receive() == {"type": 3, "invocationId": "Hang7", "result": 7}


def one_at_a_time(session: Session, message: dict[str, Any]) -> None:
    """As ASP.NET Core: behind a Hang nothing is answered."""
    if message.get("target") == "Hang":
        session.hang()
    else:
        answer(session, message)


@pytest.mark.parametrize("stays", [True, False])
async def test_a_call_that_is_never_answered_has_its_connection_for_so_long(
    hub: fanwire.Hub, backend: ScriptedBackend, stays: bool
) -> None:
    backend.answer = one_at_a_time
    hasty = replace(PATIENT, connect_timeout=4.0)  # within it goes what is sent below
    async with relayed(hub, config(backend, private=POOLED, lanes=hasty)) as address, AsyncExitStack() as stack:
        victim = await stack.enter_async_context(hub_client(address, PATH))
        async with AsyncExitStack() as its:
            stranger = await its.enter_async_context(hub_client(address, PATH))
            await stranger.send(call("Hang", 0))
            await until(lambda: len(backend.calls) == 1)
            await victim.send(call("Echo", 1))  # behind it
            if stays:
                error = (await stranger.receive())["error"]
                assert error.endswith(NOT_ANSWERED)
            else:
                await its.aclose()
            assert await victim.receive() == {"type": 3, "invocationId": "Echo1", "result": 1}
            await until(lambda: hub.relay_stats()[0].private_lanes == 1)  # it was made again there
            assert await victim.invoke("Echo", 2, id="2") == {"result": 2}
            assert hub.relay_stats()[0].private_lanes == 1
            if stays:  # it has the pool no more
                await stranger.send(call("Hang", 3))
                await until(lambda: hub.relay_stats()[0].private_lanes == 2)
                assert await victim.invoke("Echo", 4, id="4") == {"result": 4}


async def test_a_call_that_was_lost_does_not_wait_for_its_turn_for_ever(
    hub: fanwire.Hub, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waited for the whole time of those before it, which have the connection to themselves."""
    monkeypatch.setattr("fanwire.relay.pool.ALONE_S", 60.0)
    backend.answer = behave
    hasty = replace(PATIENT, connect_timeout=4.0)  # within it goes what is sent below
    async with relayed(hub, config(backend, private=POOLED, lanes=hasty)) as address, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(3)]
        for number, client in enumerate(clients):
            await client.send(call("Hang", number))
        await until(lambda: len(backend.calls) == 3)
        await clients[0].send(call("Goodbye", 0))
        errors = [(await client.receive())["error"] for client in clients[1:]]
        assert any(error.endswith(NO_TURN) for error in errors), errors
        assert not any(error.endswith(NOT_ANSWERED) for error in errors), errors


async def test_a_call_that_was_not_sent_yet_does_not_wait_for_its_turn_for_ever(
    hub: fanwire.Hub, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.relay.pool.ALONE_S", 60.0)
    monkeypatch.setattr("fanwire.relay.pool.HELD_UP_S", 60.0)
    backend.answer = behave
    hasty = replace(PATIENT, connect_timeout=4.0)  # within it goes what is sent below
    async with relayed(hub, config(backend, private=POOLED, lanes=hasty)) as address, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(9)]
        for number, client in enumerate(clients[:8]):
            await client.send(call("Hang", number))
        await until(lambda: len(backend.calls) == 8)
        await clients[0].send(call("Goodbye", 0))
        await until(lambda: len(backend.calls) == 10)  # the first is made again, alone
        with anyio.fail_after(20.0):  # before, 4 s for each of the others
            assert await clients[8].invoke("Echo", 1, id="1") == {"result": 1}


async def test_a_connection_that_is_held_up_gets_no_more_calls(
    hub: fanwire.Hub, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.answer = one_at_a_time
    async with (
        relayed(hub, config(backend, private=POOLED)) as address,
        hub_client(address, PATH) as victim,
        hub_client(address, PATH) as stranger,
    ):
        await stranger.send(call("Hang", 0))
        await until(lambda: len(backend.calls) == 1)
        monkeypatch.setattr("fanwire.relay.pool.HELD_UP_S", 1e-9)
        assert await victim.invoke("Echo", 1, id="1") == {"result": 1}
        assert hub.relay_stats()[0].private_lanes == 1


async def test_a_client_has_one_of_a_pool_s_connections(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    backend.answer = one_at_a_time
    pooled = replace(POOLED, pool_size=2)
    async with (
        relayed(hub, config(backend, private=pooled)) as address,
        hub_client(address, PATH) as victim,
        hub_client(address, PATH) as stranger,
    ):
        await stranger.send(*(call("Hang", number) for number in range(16)))
        await until(lambda: len(backend.calls) == 1)
        assert await victim.invoke("Echo", 1, id="1") == {"result": 1}
        assert hub.relay_stats()[0].private_lanes == 0


@pytest.mark.parametrize(
    "claims",
    [
        "[" * 3_000,
        '{"a":' * 3_000,
        '{"exp":' + "9" * 400 + "}",
        '{"exp":"x"}',
        '{"exp":null}',
        "é",
        '{"exp":-1e400}',
        "7",
    ],
)
def test_whatever_stands_in_a_token_is_no_error(claims: str) -> None:
    """Such as nesting without end, which raises RecursionError: nobody was let in for 10 s then."""
    token = f"a.{base64.urlsafe_b64encode(claims.encode()).decode().rstrip('=')}.c"
    assert expiry_of(token) >= 0
    assert expiry_of(f"a.{claims}.c") >= 0


def test_the_expiry_of_a_token_is_read() -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 1_900_000_000}).encode()).decode().rstrip("=")
    assert expiry_of(f"a.{claims}.c") == 1_900_000_000
