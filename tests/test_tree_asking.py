"""An edge by the command that asks the origin about its clients: none gets what the origin would refuse it."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import fanwire
import pytest
from anyio.abc import SocketStream
from fanwire.asking import question_urls
from fanwire.cli.backbone import BackboneConfig
from fanwire.cli.serving import asking
from fanwire.config.kinds import Secret
from support.backbones import watching
from support.clients import connected, refusal
from support.waiting import until
from support.ways import way
from test_backbone_away import address_in, answers, asked
from test_tree import CHANNELS, COMMAND

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

EDGE_TOKEN = "the-edge-itself"


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


@dataclass
class Origin:
    """A hub that says who may watch what: each user their own channel, and all of them ``odds:*``."""

    hub: fanwire.Hub
    address: str = ""
    requests: list[fanwire.Request] = field(default_factory=list)
    """All that came."""
    asked: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    """Who was asked about which channel, of those whom edges ask about."""
    connected: list[str | None] = field(default_factory=list)


def origin_of() -> Origin:
    """It has a token for the edge, too, which may watch all."""
    origin = Origin(fanwire.Hub(CHANNELS))

    @origin.hub.authenticate
    async def who(request: fanwire.Request) -> str:
        origin.requests.append(request)
        shown = request.query.get("token") or request.headers.get("authorization", "").removeprefix("Bearer ")
        shown = shown or request.cookies.get("session", "")
        if not shown or shown.startswith("bad"):
            raise fanwire.Refused("no such token", status=401)
        return shown

    @origin.hub.authorize
    async def may(client: fanwire.Client, channel: str) -> bool:
        assert client.identity is not None
        user = client.identity.id
        if client.request.only_asks:
            origin.asked[user, channel] += 1
        return user == EDGE_TOKEN or channel.startswith("odds:") or channel == f"own:{user}"

    @origin.hub.on_connect
    async def came(client: fanwire.Client) -> None:
        origin.connected.append(client.identity.id if client.identity else None)

    return origin


@asynccontextmanager
async def edge_at(address: str, login: str = f"{EDGE_TOKEN}@", **settings: Any) -> AsyncIterator[str]:
    """An edge as the command has it; gives where it serves."""
    url = f"fanwire://{login}{address}"
    hub = fanwire.Hub(CHANNELS, backbone=url)
    hub.authorize(asking(hub, BackboneConfig(url=Secret(url), admit="origin", **settings)))
    async with hub.serve("127.0.0.1:0") as at:
        yield at.address


@asynccontextmanager
async def tree(**settings: Any) -> AsyncIterator[tuple[Origin, str]]:
    """An origin, and where an edge of it serves."""
    origin = origin_of()
    async with origin.hub.serve("127.0.0.1:0") as at:
        origin.address = at.address
        async with edge_at(at.address, **settings) as edge:
            yield origin, edge


async def test_a_client_gets_what_the_origin_would_give_it_and_no_more() -> None:
    async with tree() as (origin, edge):
        async with watching(edge, "odds:1", "own:ann", query="?token=ann") as peer:
            origin.hub.publish("own:ann", "hers")
            assert await peer.receive() == "hers"
            await peer.send_json(subscribe=["own:bob", "odds:2"], id=2)
            answer = await peer.receive_json()
            assert "not authorized for channel 'own:bob'" in answer["error"]
            origin.hub.publish("own:bob", "his")
            origin.hub.publish("odds:2", "for all")
            assert await peer.receive() == "for all"
        assert await refusal(edge, "/ws?token=ann&channel=own:bob") == (403, "not authorized for channel 'own:bob'")
        async with connected(edge, "/ws?token=bad") as peer:
            await peer.send_json(subscribe=["odds:1"], id=1)
            assert "the origin does not know who this is" in (await peer.receive_json())["error"]
        # Each at the origin itself, for comparison.
        assert await refusal(origin.address, "/ws?token=ann&channel=own:bob") == (
            403,
            "not authorized for channel 'own:bob'",
        )
        assert (await refusal(origin.address, "/ws?token=bad&channel=odds:1"))[0] == 401


async def test_a_token_may_be_a_header_a_cookie_or_a_subprotocol_and_event_streams_show_one_too() -> None:
    async with tree() as (origin, edge):
        for headers in ({"Authorization": "Bearer ann"}, {"Cookie": "a=b; session=ann"}):
            async with connected(edge, "/ws?channel=own:ann", additional_headers=headers):
                pass
            assert (await refusal(edge, "/ws?channel=own:bob", additional_headers=headers))[0] == 403
        assert (await asked(edge, "/events?channel=own:bob&token=ann"))[0] == 403
        assert (await asked(edge, "/events?channel=own:ann&token=bad&since=1-1"))[0] == 401
        await refusal(edge, "/ws?channel=odds:1", subprotocols=["access_token", "mine"])
        assert origin.requests[-1].subprotocols == ("access_token", "mine")


async def test_nothing_that_the_edge_shows_is_shown_for_a_client() -> None:
    async with tree() as (origin, edge):
        assert (await refusal(edge, "/ws?channel=odds:1"))[0] == 401
    origin = origin_of()
    async with origin.hub.serve("127.0.0.1:0") as at:
        url = f"{at.address}/ws?token={EDGE_TOKEN}"
        async with edge_at(url, "") as edge:
            assert (await refusal(edge, "/ws?channel=odds:1"))[0] == 401
            async with connected(edge, "/ws?channel=odds:1&token=ann&since=1-1&envelope=1&start=history"):
                pass
    asked_about = [request for request in origin.requests if request.only_asks]
    assert len(asked_about) == 2
    for request in asked_about:
        assert EDGE_TOKEN not in f"{dict(request.query)} {dict(request.headers)}"
        assert set(request.query) - {"token"} == {"channel", "start"}
        assert request.query["start"] == "live"


async def test_who_says_where_it_comes_from_is_not_believed_but_by_a_proxy_that_is_trusted() -> None:
    said = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    for trusted, expected in (((), "127.0.0.1"), (("127.0.0.0/8",), "203.0.113.9, 127.0.0.1")):
        async with tree(trusted_proxies=trusted) as (origin, edge):
            async with connected(edge, "/ws?channel=odds:1&token=ann", additional_headers=said):
                pass
            (request,) = (request for request in origin.requests if request.only_asks)
            assert request.headers["x-forwarded-for"] == expected


async def test_a_yes_is_remembered_for_who_shows_the_same_and_for_nobody_else() -> None:
    async with tree() as (origin, edge):
        for _ in range(3):
            async with watching(edge, "own:ann", query="?token=ann"):
                pass
            assert (await refusal(edge, "/ws?channel=own:ann&token=bob"))[0] == 403
        assert origin.asked == {("ann", "own:ann"): 1, ("bob", "own:ann"): 1}
    async with tree(admit_for=0.0) as (origin, edge):
        for _ in range(3):
            async with watching(edge, "own:ann", query="?token=ann"):
                pass
        assert origin.asked == {("ann", "own:ann"): 3}


async def test_a_question_connects_nobody_at_the_origin() -> None:
    async with tree() as (origin, edge), watching(edge, "odds:1", "odds:2", query="?token=ann"):
        # The edge's own, alone.
        await until(lambda: origin.hub.stats().connections == 1 and origin.connected)
        assert origin.connected == [EDGE_TOKEN]
        assert sum(origin.asked.values()) == 2


async def test_about_public_channels_nobody_is_asked() -> None:
    async with tree(public=("odds:*",)) as (origin, edge):
        async with watching(edge, "odds:1"):
            pass
        assert (await refusal(edge, "/ws?channel=own:ann"))[0] == 401
        assert [request.query.get("channel") for request in origin.requests if request.only_asks] == ["own:ann"]


async def test_while_the_origin_is_away_nobody_new_is_let_in_and_who_watches_stays() -> None:
    origin = origin_of()
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(origin.hub.serve("127.0.0.1:0", drain_spread=0, drain_timeout=0.1))
        async with edge_at(at.address) as edge, watching(edge, "odds:1", query="?token=ann") as peer:
            await stack.aclose()
            status, says = await refusal(edge, "/ws?channel=odds:1&token=bob")
            assert (status, says) == (503, "nobody can say who may watch 'odds:1': the origin is away")
            await peer.send_json(subscribe=["odds:2"], id=2)
            assert "the origin is away" in (await peer.receive_json())["error"]
            async with origin.hub.serve(at.address), watching(edge, "odds:3", query="?token=bob") as other:
                await peer.send_json(subscribe=["odds:3"], id=3)
                assert (await peer.receive_json())["result"] == {"subscribed": ["odds:3"]}
                await answers(edge, "/readyz", 200, "")  # until then the edge has not subscribed it at the origin
                origin.hub.publish("odds:3", "back")
                assert await peer.receive() == await other.receive() == "back"


async def test_an_origin_that_asks_nobody_says_yes_and_the_connection_ends() -> None:
    origin = fanwire.Hub(CHANNELS)
    async with origin.serve("127.0.0.1:0") as at, edge_at(at.address, "") as edge, watching(edge, "odds:1") as peer:
        await until(lambda: origin.stats().connections == 1)
        origin.publish("odds:1", "hi")
        assert await peer.receive() == "hi"


async def test_what_is_no_origin_lets_nobody_in() -> None:
    """A server that answers 200 to whatever is asked, for one."""

    async def plain(client: SocketStream) -> None:
        async with client:
            await client.receive()
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    async with way(plain) as address, edge_at(address) as edge:
        status, says = await refusal(edge, "/ws?channel=odds:1&token=ann")
        assert status == 503 and "the origin answered with status 200" in says


async def test_an_edge_of_an_edge_asks_through_it() -> None:
    async with tree() as (origin, middle), edge_at(middle) as leaf:
        async with watching(leaf, "own:ann", query="?token=ann") as peer:
            origin.hub.publish("own:ann", "hers")
            assert await peer.receive() == "hers"
        assert (await refusal(leaf, "/ws?token=bob&channel=own:ann"))[0] == 403


async def test_a_client_that_asks_as_an_edge_does_is_told_and_gets_nothing() -> None:
    async with tree() as (origin, _):
        answered = await refusal(origin.address, "/ws?channel=own:ann&token=ann", subprotocols=["fanwire.ask.1"])
        assert answered == (204, "")
        answered = await refusal(origin.address, "/ws?channel=own:bob&token=ann", subprotocols=["fanwire.ask.1"])
        assert answered[0] == 403


def test_where_an_origin_is_asked_nothing_of_the_edge_is_left() -> None:
    for url, expected in {
        "fanwire://o": ["ws://o:8000/ws"],
        "fanwire://t@o:1,p/live?token=t": ["ws://o:1/live", "ws://p:8000/live"],
        "fanwires://u:p@[::1],o:7/?x": ["wss://[::1]:443/ws", "wss://o:7/ws"],
    }.items():
        assert question_urls(url) == expected


@pytest.mark.slow
async def test_the_command_asks_in_each_worker() -> None:
    origin = origin_of()
    async with origin.hub.serve("127.0.0.1:0") as at:
        words = ["--listen", "127.0.0.1:0", "--workers", "2", "--edge-admit", "origin", "--public", "latest:*"]
        words += ["--upstream", f"fanwire://{EDGE_TOKEN}@{at.address}"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen([*COMMAND, *words], env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                edge = await anyio.to_thread.run_sync(address_in, process.stderr)
                for _ in range(4):  # whichever worker has it
                    async with watching(edge, "own:ann", "latest:1", query="?token=ann") as peer:
                        origin.hub.publish("own:ann", "hers")
                        assert await peer.receive() == "hers"
                    assert (await refusal(edge, "/ws?channel=own:bob&token=ann"))[0] == 403
            finally:
                process.terminate()
