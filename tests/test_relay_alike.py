"""Clients that show the very same are let in by the engine: who is, who is asked about, and what is known of them."""

from contextlib import AsyncExitStack
from typing import Any

import fanwire
import fanwire.serving
import pytest
from anyio.to_thread import run_sync
from fanwire.relay.config import Private
from support import scripted_backend
from support.clients import refusal
from support.hub_client import hub_client, negotiate
from support.injection import FaultyEngine
from support.relaying import PATH, config, relayed, watch
from support.scripted_backend import ScriptedBackend, Session, answering
from support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("admit", ["anyone", "negotiate"])
async def test_who_shows_the_same_is_let_in_without_python(engines: list[FaultyEngine], admit: Any) -> None:
    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend, admit=admit)) as address, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(hub_client(address, PATH)) for _ in range(3)]
            assert engines[-1].calls["accept"] == 1
            for client in clients:
                assert await watch(client) == "m"
                assert (await client.invoke("Private", "x", id="2"))["result"] == "x"
            await until(lambda: [lane.clients for lane in hub.relay_stats()[0].lanes] == [3])
            asked = sum(head.startswith(b"POST") for head in backend.heads) - 2 - len(clients)  # 2 are lanes
            assert asked == (admit == "negotiate")


@pytest.mark.parametrize("shown", [{"Cookie": "a=1"}, {"Authorization": "Bearer x"}, {"X-Mine": "1"}])
async def test_who_shows_something_of_its_own_is_asked_about(
    engines: list[FaultyEngine], shown: dict[str, str]
) -> None:
    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend, admit="negotiate")) as address, AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(hub_client(address, PATH, additional_headers=shown))
            assert engines[-1].calls["accept"] == 3
            assert not engines[-1].calls["admit_alike"]


async def test_a_query_is_asked_about_and_the_token_of_a_negotiate_is_not(engines: list[FaultyEngine]) -> None:
    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend, admit="negotiate")) as address, AsyncExitStack() as stack:
            for number in range(3):
                reply = await run_sync(negotiate, address, PATH)
                await stack.enter_async_context(hub_client(address, PATH, f"?id={reply['connectionToken']}"))
                assert engines[-1].calls["accept"] == 2, number
            await stack.enter_async_context(hub_client(address, PATH, "?room=1"))
            assert engines[-1].calls["accept"] == 3


async def test_a_refusal_has_everybody_asked_about_again(engines: list[FaultyEngine]) -> None:
    def judge(session: Session) -> None:
        is_known = b"mallory" not in session.head
        (scripted_backend.negotiate if is_known else answering(401))(session)

    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        backend.negotiate = judge
        async with relayed(hub, config(backend, admit="negotiate")) as address, AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(hub_client(address, PATH))
            assert engines[-1].calls["accept"] == 1
            status, _ = await refusal(address, PATH, additional_headers={"Cookie": "user=mallory"})
            assert status == 401
            for count in (2, 3):
                await stack.enter_async_context(hub_client(address, PATH))
                assert engines[-1].calls["accept"] == count


async def test_what_the_backend_is_told_of_a_client_is_what_that_has_shown() -> None:
    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        relay = config(backend, private=Private(eager=False))
        async with relayed(hub, relay) as address, AsyncExitStack() as stack:
            for _ in range(2):
                client = await stack.enter_async_context(hub_client(address, PATH, additional_headers={"DNT": "1"}))
                assert (await client.invoke("Private", "x"))["result"] == "x"
            heads = [head for head in backend.heads if not head.startswith(b"POST") and b"dnt: 1" in head.lower()]
            assert len(heads) == 2
            assert all(b"x-forwarded-for: 127.0.0.1" in head.lower() for head in heads)


async def test_an_engine_that_fails_lets_in_one_by_one(engines: list[FaultyEngine]) -> None:
    hub = fanwire.Hub()
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend)) as address, AsyncExitStack() as stack:
            engines[-1].always_fail("admit_alike", RuntimeError("mine"))
            for count in (1, 2):
                await stack.enter_async_context(hub_client(address, PATH))
                assert engines[-1].calls["accept"] == count
