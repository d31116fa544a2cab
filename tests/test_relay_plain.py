"""The relay of plain WebSockets: what is shared, what is private, and what a backend sees of its clients."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from time import time
from typing import Any

import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire.config.kinds import Secret
from fanwire.relay.config import Lanes, MessageShare, Private, QueryShare, RelayConfig, Share
from fanwire.relay.headers import query_of, values_of, without
from fanwire.relay.plain import NOWHERE, value_of
from support.clients import Peer, connected, refusal
from support.loops import without_uvloop
from support.plain_backend import PlainBackend
from support.raw import open_socket, read_head, request_text
from support.waiting import until
from websockets.typing import Subprotocol

pytestmark = pytest.mark.anyio
anyio_backend = without_uvloop
ANY = "127.0.0.1:0"
PATH = "/Plain"
BY_MATCH = QueryShare(query=("match",))
BY_MESSAGE = MessageShare(subscribe="/watch", unsubscribe="/unwatch")
ODDS = [Subprotocol("odds.v1")]


@pytest.fixture
def backend() -> PlainBackend:
    """A fresh one."""
    return PlainBackend()


@asynccontextmanager
async def relayed(backend: PlainBackend, hub: fanwire.Hub, *shares: Share, **options: Any) -> AsyncIterator[str]:
    """`hub` as a relay in front of the backend: its address."""
    with backend.serving() as upstream:
        hub.relay(
            RelayConfig(
                path=PATH,
                upstream=(f"ws://{upstream}/plain",),
                protocol="websocket",
                share=shares,
                **{"linger": 0.05, **options},
            )
        )
        async with hub.serve(ANY, drain_timeout=0.2) as serving:
            yield serving.address


async def several(stack: AsyncExitStack, address: str, *queries: str, **options: Any) -> list[Peer]:
    """Clients that are connected, one with each query."""
    return [await stack.enter_async_context(connected(address, f"{PATH}{query}", **options)) for query in queries]


async def received(client: Peer, *messages: str | bytes) -> None:
    """These come next, and in this order."""
    assert await client.receive_all(len(messages)) == list(messages)


def queries_of(backend: PlainBackend) -> list[str]:
    """What those who are connected asked for."""
    return sorted(visit.query for visit in backend.now)


def standing(hub: fanwire.Hub) -> list[tuple[str, str, str, str, int]]:
    """What the hub's one relay says of its lanes, in the order of how they are watched."""
    (stats,) = hub.relay_stats()
    return sorted((lane.method, lane.arguments, lane.protocol, lane.state, lane.clients) for lane in stats.lanes)


async def scrape(address: str) -> list[str]:
    """The lines of ``/metrics`` about relays, but how long something took."""
    response = await run_sync(partial(httpx.get, f"http://{address}/metrics", trust_env=False))
    return [one for one in response.text.splitlines() if one.startswith("fanwire_relay_") and "_seconds_" not in one]


# Shared by query


async def test_equal_queries_share_a_connection_and_each_client_gets_each_message_once(
    hub: fanwire.Hub, backend: PlainBackend
) -> None:
    share = QueryShare(query=("match", "lang"))
    queries = (
        "?match=a&match=b&lang=de&x=1",
        "?lang=de&x=2&match=a&match=b",
        "?match=b&match=a&lang=de",
        "?match=c%20",
    )
    async with relayed(backend, hub, share, admit="anyone") as address, AsyncExitStack() as stack:
        first, second, other, spaced = await several(stack, address, *queries)
        await until(lambda: queries_of(backend) == ["match=a&match=b&lang=de", "match=b&match=a&lang=de", "match=c%20"])
        messages = [f"goal {number}" if number % 2 else b"\x00goal" for number in range(50)]
        backend.publish("a", *messages, "x" * 70_000, "")
        for client in (first, second, other):
            await received(client, *messages, "x" * 70_000, "")
        backend.publish("c ", "only here")
        await received(spaced, "only here")


async def test_what_the_backend_sends_first_reaches_whoever_opened_the_lane(hub: fanwire.Hub) -> None:
    backend = PlainBackend(greets=True)
    async with relayed(backend, hub, BY_MATCH) as address, AsyncExitStack() as stack:
        for query in ("?match=a", "?match=b"):
            (client,) = await several(stack, address, query)
            await received(client, f"welcome to {query[-1]}")
        (late,) = await several(stack, address, "?match=a")
        await until(lambda: queries_of(backend) == ["match=a", "match=b"])
        backend.publish("a", "1")
        await received(late, "1")


async def test_without_parameters_the_path_is_the_key_and_a_lane_ends_when_nobody_is_left(
    hub: fanwire.Hub, backend: PlainBackend
) -> None:
    async with relayed(backend, hub, QueryShare(query=()), admit="anyone") as address:
        async with AsyncExitStack() as stack:
            await several(stack, address, "", "?a=1", "?b=2")
            await until(lambda: queries_of(backend) == [""])
        await until(lambda: not backend.now)
        assert backend.visits[0].code == 1000


async def test_what_a_client_of_a_share_sends_goes_over_a_connection_of_its_own(
    hub: fanwire.Hub, backend: PlainBackend
) -> None:
    async with relayed(backend, hub, BY_MATCH, admit="anyone") as address, AsyncExitStack() as stack:
        clients = await several(stack, address, "?match=a&user=1", "?user=2&match=a&%41=%20")
        await until(lambda: queries_of(backend) == ["match=a"])
        for client in clients:
            await client.send("who")
        await received(clients[0], "user=1")
        await received(clients[1], "user=2&%41=%20")
        await clients[0].send(b"\xff\x00")
        await received(clients[0], b"\xff\x00")
        backend.publish("a", "once")
        for client in clients:
            await received(client, "once")
        assert len(backend.now) == 3


async def test_a_private_connection_of_a_share_closes_when_idle_and_comes_again(
    hub: fanwire.Hub, backend: PlainBackend
) -> None:
    private = Private(idle=0.2)
    async with relayed(backend, hub, BY_MATCH, private=private) as address, AsyncExitStack() as stack:
        (client,) = await several(stack, address, "?match=a")
        for text in ("one", "two"):
            await client.send(text)
            await received(client, text)
            await until(lambda: queries_of(backend) == ["match=a"])


# Shared by message


async def test_equal_messages_share_a_connection_and_are_sent_in_one_form(
    hub: fanwire.Hub, backend: PlainBackend
) -> None:
    async with relayed(backend, hub, BY_MESSAGE) as address, AsyncExitStack() as stack:
        clients = await several(stack, address, "?x=1", "?x=2", "?x=3")
        await until(lambda: not backend.now)  # each query was asked about
        for client, text in zip(clients, ('{"watch": "a"}', '{ "watch":"\\u0061" }', '{"watch":"b"}'), strict=True):
            await client.send(text)
            await until(lambda: any(visit.matches for visit in backend.now))
        await until(lambda: len(backend.now) == 2 and all(visit.matches for visit in backend.now))
        assert sorted(visit.received for visit in backend.now) == [['{"watch":"a"}'], ['{"watch":"b"}']]
        await until(lambda: hub.stats().subscriptions == 3)
        backend.publish("a", "1", "2")
        backend.publish("b", "3")
        await received(clients[0], "1", "2")
        await received(clients[1], "1", "2")
        await received(clients[2], "3")
        for client in clients[:2]:
            await client.send('{"unwatch":"a"}')
        await until(lambda: len(backend.now) == 1)
        await clients[0].send('["not watched"]')
        await received(clients[0], '["not watched"]')


async def test_who_asks_twice_is_subscribed_once_and_other_messages_are_private(
    hub: fanwire.Hub, backend: PlainBackend
) -> None:
    async with relayed(backend, hub, BY_MESSAGE, admit="anyone") as address, AsyncExitStack() as stack:
        (client,) = await several(stack, address, "")
        for text in ('{"watch":7}', '{"watch": 7}', "hello", '{"watch', b'{"watch":7}'):
            await client.send(text)
        await received(client, "hello", '{"watch', b'{"watch":7}')
        await until(lambda: any(visit.matches == {"7"} for visit in backend.now))
        backend.publish("7", "once")
        await received(client, "once")
        assert len(backend.now) == 2


# Private


async def test_without_a_share_each_client_has_a_connection_of_its_own(hub: fanwire.Hub, backend: PlainBackend) -> None:
    headers = {"Authorization": "Bearer alice", "Cookie": "a=b", "X-Mine": "yes", "X-Other": "no"}
    private = Private(drop=("X-Other",))
    async with relayed(backend, hub, private=private) as address, AsyncExitStack() as stack:
        first, second = await several(
            stack, address, "?a=%20&match=m", "", additional_headers=headers, origin="http://here.test"
        )
        await until(lambda: queries_of(backend) == ["", "a=%20&match=m"])
        seen = next(visit for visit in backend.visits if visit.query)
        shown = {name: seen.headers.get(name) for name in (*headers, "X-Forwarded-For", "Origin")}
        assert shown == {**headers, "X-Other": None, "X-Forwarded-For": "127.0.0.1", "Origin": "http://here.test"}
        for client in (first, second):
            await client.send('{"subscribe":["a"]}')
            await client.send(b"bytes")
            await received(client, '{"subscribe":["a"]}', b"bytes")
        backend.publish("m", "mine")
        await received(first, "mine")


async def test_close_codes_are_passed_on_both_ways(hub: fanwire.Hub, backend: PlainBackend) -> None:
    async with relayed(backend, hub) as address, AsyncExitStack() as stack:
        client, broken, leaving, lost = await several(stack, address, "?1", "?2", "?3", "?4")
        await until(lambda: len(backend.now) == 4)
        visits = {visit.query: visit for visit in backend.now}
        await client.send("close 4711")
        assert await client.closed() == (4711, "as you wish")
        broken.break_off()
        await until(lambda: visits["2"].code == 1001)
        await leaving.close()
        await until(lambda: visits["3"].code == 1000)
        backend.hang_up()
        assert await lost.closed() == (1012, "the backend is gone")


@pytest.mark.parametrize("shares", [(), (BY_MATCH,), (BY_MESSAGE,)], ids=["private", "query", "message"])
async def test_the_backend_s_refusal_is_the_client_s(
    shares: Sequence[Share], hub: fanwire.Hub, backend: PlainBackend
) -> None:
    headers = {"Authorization": "Bearer mallory"}
    async with relayed(backend, hub, *shares) as address:
        for _ in range(2):
            assert await refusal(address, f"{PATH}?match=a", additional_headers=headers) == (401, "")
        assert await refusal(address, f"{PATH}?match=none") == (404, "")
        assert await refusal(address, f"{PATH}?match=a&token=mallory") == (401, "")
        async with connected(address, f"{PATH}?match=a&token=alice"):
            pass
        assert (await refusal(address, PATH.lower()))[0] == 404


async def test_a_backend_that_is_not_there_is_a_refusal_that_says_so(hub: fanwire.Hub) -> None:
    for path, shares in (("/a", ()), ("/b", (BY_MATCH,)), ("/c", (BY_MESSAGE,))):
        hub.relay(RelayConfig(path=path, upstream=("ws://127.0.0.1:1/plain",), protocol="websocket", share=shares))
    async with hub.serve(ANY) as serving:
        for path in ("/a", "/b", "/c"):
            assert await refusal(serving.address, f"{path}?match=a") == (503, "the backend cannot be reached")


@pytest.mark.parametrize("admit", ["negotiate", "anyone"])
@pytest.mark.parametrize("shares", [(), (BY_MATCH,), (BY_MESSAGE,)], ids=["private", "query", "message"])
async def test_the_subprotocol_is_the_one_that_the_backend_chose(
    shares: Sequence[Share], admit: str, hub: fanwire.Hub, backend: PlainBackend
) -> None:
    async with relayed(backend, hub, *shares, admit=admit) as address:
        for offered, chosen in ((("x", "odds.v2", "odds.v1"), "odds.v2"), (("x",), None), ((), None)):
            subprotocols = [Subprotocol(name) for name in offered] or None
            async with connected(address, f"{PATH}?match=a", subprotocols=subprotocols) as client:
                assert client._connection.subprotocol == chosen
                await client.send("who")
                await client.receive()
                assert backend.visits[-1].subprotocol == chosen


async def cookies(address: str, query: str, **options: Any) -> list[str]:
    """What the answer to a client's upgrade sets."""
    async with connected(address, f"{PATH}?{query}", **options) as client:
        response = client._connection.response
        assert response is not None
        return response.headers.get_all("Set-Cookie")


async def test_cookies_of_the_backend_s_answer_go_to_whose_connection_it_is(
    hub: fanwire.Hub, backend: PlainBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async with relayed(backend, hub) as address:
        assert await cookies(address, "sets=a%3D1;%20Path%3D/&sets=b%3D2") == ["a=1; Path=/", "b=2"]
        assert await cookies(address, "match=a") == []
        # One that no answer can carry is told of, once, and the client is let in.
        for _ in range(2):
            assert await cookies(address, "sets=%C3%BC&sets=c%3D3") == ["c=3"]
        # Nor does one that is too long shut out those behind it.
        assert await cookies(address, f"sets_long={16 << 10}&sets=d%3D4") == ["d=4"]
    told = [record.getMessage() for record in caplog.records if "cookie" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("a cookie of a backend is not passed on")


@pytest.mark.parametrize("share", [BY_MATCH, BY_MESSAGE])
@pytest.mark.parametrize(("admit", "first"), [("negotiate", ["x=1"]), ("anyone", [])])
async def test_cookies_are_whose_the_question_was_and_a_lane_s_are_nobody_s(
    hub: fanwire.Hub, backend: PlainBackend, share: Share, admit: str, first: list[str]
) -> None:
    async with relayed(backend, hub, share, admit=admit) as address:
        for expected in (first, []):  # what is remembered sets nothing
            assert await cookies(address, "match=a&sets=x%3D1", subprotocols=ODDS) == expected


async def test_a_target_with_an_authority_is_the_same_path(hub: fanwire.Hub, backend: PlainBackend) -> None:
    async with relayed(backend, hub) as address:

        def first_line() -> str:
            with open_socket(address) as connection:
                connection.sendall(request_text(f"http://somewhere{PATH}?x=1"))
                return read_head(connection).partition("\r\n")[0]

        assert (await run_sync(first_line)).startswith("HTTP/1.1 101 ")
        await until(lambda: [visit.query for visit in backend.visits] == ["x=1"])


# Admission


async def test_credentials_are_checked_once_and_their_answer_is_remembered(
    hub: fanwire.Hub, backend: PlainBackend
) -> None:
    alice = {"Authorization": "Bearer alice"}
    async with relayed(backend, hub, BY_MATCH) as address, AsyncExitStack() as stack:
        await several(stack, address, *["?match=a"] * 3, additional_headers=alice)
        await several(stack, address, *["?match=a"] * 3)
        await until(lambda: len(backend.visits) == 2 and len(backend.now) == 1)
        assert {visit.headers.get("Authorization") for visit in backend.visits} == {"Bearer alice", None}
        assert backend.now[0].headers.get("Authorization") is None


async def test_whom_a_lane_is_refused_for_watches_by_itself(hub: fanwire.Hub, backend: PlainBackend) -> None:
    lanes = Lanes(token=Secret("mallory"))
    async with relayed(backend, hub, BY_MESSAGE, BY_MATCH, lanes=lanes) as address, AsyncExitStack() as stack:
        (client,) = await several(stack, address, "?x=1")
        await client.send('{"watch":"a"}')
        await until(lambda: any("a" in visit.matches for visit in backend.now))
        backend.publish("a", "1")
        await received(client, "1")
        assert queries_of(backend) == ["x=1"]
        assert await refusal(address, f"{PATH}?match=a") == (401, "")


# The backend goes and comes


@pytest.mark.parametrize("share", [BY_MATCH, BY_MESSAGE], ids=["query", "message"])
async def test_clients_stay_while_the_backend_is_away_and_are_told_of_the_gap(
    share: Share, hub: fanwire.Hub, backend: PlainBackend, caplog: pytest.LogCaptureFixture
) -> None:
    lanes = Lanes(backoff_min=0.1, backoff_max=0.2, on_gap="message")
    with caplog.at_level(logging.ERROR, "fanwire.relay"):
        async with relayed(backend, hub, share, lanes=lanes) as address, AsyncExitStack() as stack:
            clients = await several(stack, address, *["?match=a" if share is BY_MATCH else ""] * 3)
            if share is BY_MESSAGE:
                for client in clients:
                    await client.send('{"watch":"a"}')
            await until(lambda: any("a" in visit.matches for visit in backend.now))
            await until(lambda: hub.stats().subscriptions == 3)
            lost = set(backend.visits)
            backend.hang_up()
            await until(lambda: any("a" in visit.matches for visit in backend.now if visit not in lost))
            for client in clients:
                gap = (await client.receive_json())["gap"]
                assert gap["since"] <= gap["until"]
                assert gap["watching"] == ({"match": ["a"]} if share is BY_MATCH else "a")
            backend.publish("a", "again")
            for client in clients:
                await received(client, "again")


async def test_on_gap_close_closes(hub: fanwire.Hub, backend: PlainBackend) -> None:
    async with relayed(backend, hub, BY_MATCH, lanes=Lanes(on_gap="close")) as address, AsyncExitStack() as stack:
        (client,) = await several(stack, address, "?match=a")
        await until(lambda: backend.now)
        backend.hang_up()
        assert await client.closed() == (1012, "")


async def test_how_it_stands_is_told_in_stats_metrics_and_log(
    hub: fanwire.Hub, backend: PlainBackend, caplog: pytest.LogCaptureFixture
) -> None:
    lanes = Lanes(backoff_min=0.1, backoff_max=0.1)
    async with (
        relayed(backend, hub, BY_MATCH, BY_MESSAGE, lanes=lanes, linger=60) as address,
        AsyncExitStack() as stack,
    ):
        *_, private = await several(stack, address, "?match=a&token=hush", "?match=a", "")
        await private.send('{"watch":["b",1]}')
        await private.send("to the backend alone")
        await received(private, "to the backend alone")
        lanes_of_both = {("match=a", "a"), ("", "['b', 1]")}  # else they may be live and not yet among the visits
        await until(lambda: {(visit.query, *visit.matches) for visit in backend.now} >= lanes_of_both)
        live = [
            ("/watch", '["b",1]', "websocket", "live", 1),
            ("?match", '{"match":["a"]}', "websocket", "live", 2),
        ]
        await until(lambda: standing(hub) == live)
        (stats,) = hub.relay_stats()
        assert (stats.path, stats.private_lanes, stats.gaps, stats.broadcasts) == (PATH, 1, 0, {})
        backend.hang_up()
        await until(lambda: hub.relay_stats()[0].gaps == 2)
        assert f'fanwire_relay_gaps_total{{path="{PATH}"}} 2.0' in await scrape(address)
    assert 'lane /Plain#1 (?match {"match":["a"]}) is down' in caplog.text
    assert "hush" not in caplog.text


async def test_a_lane_that_is_down_says_since_when_and_why_until_it_is_back(
    hub: fanwire.Hub, backend: PlainBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.scraping.FRESH_S", 0.0)
    shares, lanes = (BY_MATCH, BY_MESSAGE), Lanes(backoff_min=0.1, backoff_max=0.1)
    async with AsyncExitStack() as stack:
        with backend.serving() as upstream:
            url = f"ws://{upstream}/plain?key=hush"
            hub.relay(
                RelayConfig(path=PATH, upstream=(url,), protocol="websocket", admit="anyone", share=shares, lanes=lanes)
            )
            address = (await stack.enter_async_context(hub.serve(ANY, drain_timeout=0.2))).address
            assert f'fanwire_relay_lanes{{path="{PATH}",state="live"}} 0.0' in await scrape(address)
            _, _, watching, private = await several(stack, address, "?match=a&token=hush", "?match=a", "", "")
            await watching.send('{"watch":"b"}')
            await private.send("mine")
            await received(private, "mine")
            await until(lambda: [lane[3] for lane in standing(hub)] == ["live", "live"])
            assert not any(lane.gap_since for lane in hub.relay_stats()[0].lanes)
            assert set(await scrape(address)) == {
                *(
                    f'fanwire_relay_lanes{{path="{PATH}",state="{state}"}} {count}'
                    for state, count in (("connecting", 0.0), ("live", 2.0), ("down", 0.0), ("mirrored", 0.0))
                ),
                f'fanwire_relay_watching{{path="{PATH}"}} 3.0',
                f'fanwire_relay_private_lanes{{path="{PATH}"}} 1.0',
                f'fanwire_relay_gaps_total{{path="{PATH}"}} 0.0',
                f'fanwire_relay_unused_names{{path="{PATH}"}} 1.0',
                f'fanwire_relay_upstream_up{{path="{PATH}",upstream="ws://{upstream}/plain"}} 1.0',
                f'fanwire_relay_upstream_connects_total{{path="{PATH}",upstream="ws://{upstream}/plain"}} 3.0',
                f'fanwire_relay_upstream_failures_total{{path="{PATH}",upstream="ws://{upstream}/plain"}} 0.0',
            }
            await until(lambda: len(backend.now) == 3)
            before = time()
        await until(lambda: not hub.relay_stats()[0].private_lanes)
        down = [
            ("/watch", '"b"', "websocket", "down", 1),
            ("?match", '{"match":["a"]}', "websocket", "down", 2),
        ]
        await until(lambda: standing(hub) == down)
        (stats,) = hub.relay_stats()
        assert stats.gaps == 2
        for lane in stats.lanes:
            assert lane.gap_since is not None
            assert before <= lane.gap_since <= time()
            assert (lane.gaps, bool(lane.why)) == (1, True)
        assert "hush" not in repr(stats)
        lines = await scrape(address)
        assert f'fanwire_relay_lanes{{path="{PATH}",state="down"}} 2.0' in lines
        assert f'fanwire_relay_private_lanes{{path="{PATH}"}} 0.0' in lines
        with backend.serving(upstream):
            await until(lambda: [lane[3] for lane in standing(hub)] == ["live", "live"])
            told = [(lane.gap_since, lane.gaps, lane.why) for lane in hub.relay_stats()[0].lanes]
            assert told == [(None, 1, "")] * 2


async def test_lanes_that_linger_make_room(hub: fanwire.Hub, backend: PlainBackend) -> None:
    async with relayed(backend, hub, BY_MATCH, lanes=Lanes(max=1), linger=60) as address:
        for match in "abc":
            async with connected(address, f"{PATH}?match={match}"):
                await until(lambda: queries_of(backend) == [f"match={match}"])  # noqa: B023 called in this turn
            await until(lambda: hub.stats().connections == 0)


async def test_a_quiet_backend_is_pinged(hub: fanwire.Hub, backend: PlainBackend) -> None:
    lanes = Lanes(keepalive=0.1, server_timeout=3.0)
    async with relayed(backend, hub, lanes=lanes) as address, AsyncExitStack() as stack:
        (client,) = await several(stack, address, "")
        await until(lambda: backend.now)
        with pytest.raises(TimeoutError):
            await until(lambda: not backend.now, 4.0)
        await client.send("still here")
        await received(client, "still here")


# Limits


async def test_limits_are_told_by_name(hub: fanwire.Hub, backend: PlainBackend) -> None:
    lanes = Lanes(max=2, per_client_max=1)
    async with relayed(backend, hub, BY_MATCH, BY_MESSAGE, lanes=lanes) as address, AsyncExitStack() as stack:
        client, first, second, _ = await several(stack, address, "", "", "", "?match=a")
        await first.send('{"watch":"b"}')
        await until(lambda: any("b" in visit.matches for visit in backend.now))
        await first.send('{"watch":"c"}')
        assert await first.receive_json() == {"error": "2 subscriptions are over the bound of 1"}
        await second.send('{"watch":"c"}')
        assert await second.receive_json() == {"error": "3 lanes are over the bound of 2"}
        (third,) = await several(stack, address, "?match=c")
        assert await third.closed() == (1008, "3 lanes are over the bound of 2")
        await client.send("private")
        await received(client, "private")


async def test_private_connections_are_bounded(hub: fanwire.Hub, backend: PlainBackend) -> None:
    async with relayed(backend, hub, private=Private(per_relay_max=1)) as address, AsyncExitStack() as stack:
        _, second = await several(stack, address, "", "")
        assert await second.closed() == (1008, "2 private connections are over the bound of 1")


# In parts


HOSTILE = [
    '{"watch":"m1","unwatch":"m1"}',
    '{"watch":"m1","x":1}',
    '{"watch":"m2","watch":"m1"}',
    '{"watch":"m1","Watch":"m2"}',
    '{"watch":0.1000000000000000055511151231257827}',
]


async def test_a_message_that_says_more_than_the_share_names_speaks_for_its_client_alone(
    hub: fanwire.Hub, backend: PlainBackend
) -> None:
    async with relayed(backend, hub, BY_MESSAGE, admit="anyone") as address, AsyncExitStack() as stack:
        stranger, honest = await several(stack, address, "", "")
        for number, message in enumerate(HOSTILE, 1):
            await stranger.send(message)
            await until(lambda: sum(len(visit.received) for visit in backend.visits) == number)  # noqa: B023
        (visit,) = backend.now
        assert visit.received == HOSTILE, "over one connection of its own, as it came"
        assert standing(hub) == []
        await stranger.send('{ "watch" : "\\u006d1"}' + " " * 40_000)
        await honest.send('{"watch":"m1"}')
        await until(lambda: standing(hub) == [("/watch", '"m1"', "websocket", "live", 2)])
        await until(lambda: len(backend.now) == 2 and all(one.received for one in backend.now))
        lane = next(one for one in backend.now if one is not visit)
        assert lane.received == ['{"watch":"m1"}'], "as fanwire writes it"
        lane.connection.send("goal")
        await received(honest, "goal")
        await honest.send('{"unwatch":"m1","x":1}')
        await until(lambda: len(backend.now) == 3)
        lane.connection.send("and another")
        await received(honest, "and another")


async def test_a_message_too_large_for_the_backend_is_its_clients_error(
    hub: fanwire.Hub, backend: PlainBackend
) -> None:
    options: dict[str, Any] = {"admit": "anyone", "upstream_message_bytes_max": 100}
    async with relayed(backend, hub, BY_MESSAGE, **options) as address, AsyncExitStack() as stack:
        (client,) = await several(stack, address, "")
        await client.send(f'{{"watch":"{"x" * 90}"}}')
        await received(client, '{"error":"upstream_message_bytes_max: 102 is over the bound of 100"}')
        assert (standing(hub), backend.visits) == ([], [])


async def test_a_message_at_which_the_backend_hangs_up_does_so_to_its_client(
    hub: fanwire.Hub, backend: PlainBackend
) -> None:
    share = MessageShare(subscribe="/0")
    lanes = Lanes(backoff_min=0.3, backoff_max=0.3)
    async with (
        relayed(backend, hub, share, BY_MESSAGE, admit="anyone", lanes=lanes) as address,
        AsyncExitStack() as stack,
    ):
        first, second, other = await several(stack, address, "", "", "")
        await other.send('{"watch":"m"}')
        backend.hangs_up_at = '["bad"]', 4001
        for client in (first, second):
            await client.send('["bad"]')
        for client in (first, second):
            assert (await client.closed())[0] == 4001
        await until(lambda: standing(hub) == [("/watch", '"m"', "websocket", "live", 1)])
        backend.publish("m", "goal")
        await received(other, "goal")


def test_a_pointer_finds_a_value_in_a_document_that_holds_nothing_else() -> None:
    document = {"a": [{"b/c": {"~": None}}]}
    pointers = ("/a/0/b~1c", "/a/0/b~1c/~0", "/a", "/a/00", "/a/1", "/b", "/a/0/b~1c/~0/d")
    found = [value_of(pointer, document) for pointer in pointers]
    assert found == [{"~": None}, None, document["a"], NOWHERE, NOWHERE, NOWHERE, NOWHERE]
    assert value_of("/a", {"a": 1, "b": 2}) is value_of("/a/0", {"a": [1, 2]}) is NOWHERE


@pytest.mark.parametrize("query", ["match=%FF", "match=m&match=%C3", "match=m&Match=n", "M%61tch=m", "%4Datch="])
def test_a_query_that_another_could_be_taken_for_is_nobody_elses(query: str) -> None:
    assert values_of(f"x=%FF&{query}", ("match", "lang")) is None


def test_a_query_is_split_and_the_rest_stays_as_it_was() -> None:
    query = "x=%20&match=m%201&&%6Datch=m+2&token=a=b&match"
    assert values_of(query, ("match", "lang")) == (("m 1", "m 2", ""), ())
    assert without(query, ("match",)) == "x=%20&token=a=b"
    assert query_of(("match", "lang"), (("m 1", "ä&"), ())) == "match=m%201&match=%C3%A4%26"
