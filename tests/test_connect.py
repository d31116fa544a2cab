"""The first and the last of a client: on_connect and on_disconnect."""

import logging
from contextlib import AsyncExitStack

import anyio
import fanwire
import pytest
from support.clients import connected
from support.hub_client import hub_client
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


@pytest.fixture(params=["sync", "async"])
def log(request: pytest.FixtureRequest, hub: fanwire.Hub) -> list[str]:
    """What happened to the hub's clients, in order."""
    seen: list[str] = []

    def greet(client: fanwire.Client) -> None:
        client.data = "known"
        seen.append(f"connected {client.hub_protocol}")

    def part(client: fanwire.Client, gone: fanwire.ClientGone) -> None:
        seen.append(f"gone {client.data} {gone.by} {gone.close_code}")

    async def greet_later(client: fanwire.Client) -> None:
        await anyio.lowlevel.checkpoint()
        greet(client)

    async def part_later(client: fanwire.Client, gone: fanwire.ClientGone) -> None:
        await anyio.lowlevel.checkpoint()
        part(client, gone)

    is_async = request.param == "async"
    hub.on_connect(greet_later if is_async else greet)
    hub.on_disconnect(part_later if is_async else part)
    hub.on_message(lambda client, data: seen.append(f"{client.data} said {data}"))

    @hub.method
    def say(client: fanwire.Client, text: str) -> None:
        seen.append(f"{client.data} said {text}")

    return seen


async def test_of_a_raw_client(hub: fanwire.Hub, log: list[str]) -> None:
    async with hub.serve(ANY) as serving:
        async with connected(serving.address) as peer:
            await until(lambda: log == ["connected None"])
            await peer.send("hello")
            await until(lambda: len(log) == 2)
        await until(lambda: len(log) == 3)
    assert log == ["connected None", "known said hello", "gone known client 1000"]


async def test_of_a_signalr_client_that_speaks_at_once(hub: fanwire.Hub, log: list[str]) -> None:
    async with hub.serve(ANY) as serving:
        async with connected(serving.address, "/signalr") as peer:
            call = '{"type":1,"target":"say","arguments":["hello"]}\x1e'
            await peer.send('{"protocol":"json","version":1}\x1e' + call + call)
            await until(lambda: len(log) == 3)
        await until(lambda: len(log) == 4)
    assert log == ["connected json", "known said hello", "known said hello", "gone known client 1000"]


async def test_whoever_authenticates_is_greeted_with_the_identity(hub: fanwire.Hub) -> None:
    greeted = []
    hub.authenticate(lambda request: request.query.get("as"))
    hub.on_connect(lambda client: greeted.append((client.identity and client.identity.id, client.transport)))
    async with (
        hub.serve(ANY) as serving,
        connected(serving.address, "/ws?as=alice"),
        hub_client(serving.address, query="?as=bob"),
    ):
        await until(lambda: len(greeted) == 2)
    assert sorted(greeted, key=str) == [("alice", None), ("bob", "WebSockets")]


async def test_those_who_are_there_at_the_end_part_before_serving_ends(hub: fanwire.Hub, log: list[str]) -> None:
    async with AsyncExitStack() as stack:
        async with hub.serve(ANY) as serving:
            peer = await stack.enter_async_context(connected(serving.address))
            await until(lambda: log == ["connected None"])
        assert log == ["connected None", "gone known server 1001"]
        assert (await peer.closed())[0] == 1001


async def test_who_is_turned_away_is_told_why_and_never_parts(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    parted = []
    hub.on_disconnect(lambda client, gone: parted.append(gone))

    @hub.on_connect
    def turn_away(client: fanwire.Client) -> None:
        if client.connection_id is None:
            raise fanwire.Refused("the house is full")
        raise ValueError("the database's password")

    with caplog.at_level(logging.CRITICAL, "fanwire.hub"):
        async with hub.serve(ANY) as serving:
            async with connected(serving.address) as peer:
                assert await peer.closed() == (1008, "the house is full")
            async with hub_client(serving.address) as client:
                assert await client.receive() == {"type": 7, "error": "Connection closed with an error."}
    assert not parted


async def test_where_nobody_asks_a_listener_is_no_event(hub: fanwire.Hub) -> None:
    """It costs Python nothing: the first that Python hears of it is its first message."""
    clients = []

    @hub.method
    def who(client: fanwire.Client) -> str | None:
        clients.append(client)
        return client.connection_id

    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        hub.publish_to_all("x", event="news")
        assert (await client.receive())["target"] == "news"
        assert not clients
        assert (await client.invoke("who"))["result"] == clients[0].connection_id
