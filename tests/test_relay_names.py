"""The names in a relay's settings that nobody uses, and targets that come two ways, are told of."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire.relay.config import CallShare, Everyone, MessageShare, Private, QueryShare, RelayConfig
from fanwire.relay.everyones import Everyones
from fanwire.relay.names import LENGTH_MAX, SEEN_MAX, USES_MAX, Names
from support.clients import connected
from support.hub_client import HubClient, hub_client
from support.loops import asyncio_alone, epoll_alone
from support.plain_backend import PlainBackend
from support.waiting import until

poller = epoll_alone
anyio_backend = asyncio_alone
ANY = "127.0.0.1:0"
PATH = "/chat"
SHARE = CallShare(subscribe="Subscribe", unsubscribe="Unsubscribe", snapshot="Snapshot")


def names(**options: Any) -> Names:
    """Of a relay with these settings."""
    return Names(RelayConfig(path=PATH, upstream=("http://127.0.0.1:1",), **{"share": (SHARE,), **options}))


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """What the log said of this relay."""
    return [(record.levelno, record.getMessage()) for record in caplog.records if PATH in record.getMessage()]


def test_a_method_of_which_nothing_more_is_to_be_learned_keeps_no_other_from_being_used() -> None:
    known = names(private=Private(pooled=("GetScores",)))
    for _ in range(USES_MAX + 2):
        known.called("Subscribe")
    unused = known.unused
    known.called("subscribe")
    assert known.unused == unused
    known.called("GETSCORES")
    assert len(known.unused) == len(unused) - 1


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    """The log, with what is no warning."""
    caplog.set_level(logging.INFO, "fanwire.relay")


def test_after_so_many_calls_what_nobody_calls_is_told_once_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    known = names(private=Private(pooled=("GetScores",)))
    for _ in range(USES_MAX - 2):
        known.called("SubscribeTo")
    known.called("getscores")
    assert lines(caplog) == []
    assert known.unused == [
        'share[0].subscribe = "Subscribe"',
        'share[0].unsubscribe = "Unsubscribe"',
        'share[0].snapshot = "Snapshot"',
    ]
    known.called("x")
    near = "; the nearest name that was seen is 'SubscribeTo'"
    assert lines(caplog) == [
        (logging.WARNING, f"/chat: share[0].subscribe is 'Subscribe', and no client has called it so far{near}"),
        (logging.WARNING, f"/chat: share[0].unsubscribe is 'Unsubscribe', and no client has called it so far{near}"),
    ], "without a lane there is no snapshot"
    for _ in range(2 * USES_MAX):
        known.called("x")
    assert len(lines(caplog)) == 2
    known.called("SUBSCRIBE")
    assert len(known.unused) == 2


def test_after_ten_minutes_of_it_what_never_came_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("fanwire.relay.names.monotonic", lambda: now[0])
    known = names(everyone=Everyone(targets=("News", "Rare", "Grouped"), welcome=("Welcome",)))
    now[0] += 3_600
    known.called("Subscribe")
    for target in ("snapshot", "Odds", "News", "Grouped"):
        known.came_over_lane(target)
    known.came_to_all("News")
    known.greeted("Welcome")
    now[0] += 599
    known.called("Unsubscribe")
    assert lines(caplog) == []
    now[0] += 1
    known.called("Subscribe")
    way = "and it has not come over the broadcast lane so far"
    assert lines(caplog) == [
        (
            logging.WARNING,
            "/chat: share[0].snapshot is 'Snapshot', and it has not come over a lane so far; the nearest name that was "
            "seen is 'snapshot'",
        ),
        (logging.INFO, f"/chat: everyone.targets[1] is 'Rare', {way}"),
        (
            logging.WARNING,
            f"/chat: everyone.targets[2] is 'Grouped', {way}, but over lanes, which drop it: nobody gets it. Take it "
            "out of everyone",
        ),
    ]


def test_what_is_remembered_is_bounded(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanwire.relay.names.USES_MAX", 1 + 4 * 2 * SEEN_MAX)
    known = names()
    known.called("Subscribe" + "x" * LENGTH_MAX)
    for number in range(2 * SEEN_MAX):
        known.called(f"{number}")
        known.came_over_lane(f"{number}")
        known.unnamed(f"{number}")
        known.pointed_to(f"/{number}")
    sizes = [len(each) for each in (*known._others.values(), known._on_lanes, known._to_all)]
    assert sizes == [SEEN_MAX] * 5
    assert len(known._both) <= SEEN_MAX
    assert [text for _, text in lines(caplog) if "no client" in text] == [
        f"/chat: share[0].{key} is {name!r}, and no client has called it so far"
        for key, name in (("subscribe", "Subscribe"), ("unsubscribe", "Unsubscribe"))
    ]


def test_pointers_and_parameters_of_plain_relays_are_told_of_as_well(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.relay.names.USES_MAX", 4)
    shares = (QueryShare(query=("match", "market")), MessageShare(subscribe="/watch", unsubscribe="/unwatch"))
    known = names(protocol="websocket", share=shares)
    known.connected_with("matches=1&match=2")
    known.connected_with("")
    known.pointed_to("/watches")
    assert lines(caplog) == [
        (logging.WARNING, "/chat: share[0].query[1] is 'market', and it is in no client's query so far"),
        *(
            (
                logging.WARNING,
                f"/chat: share[1].{key} is {name!r}, and it is in no client's message so far; the nearest name that "
                "was seen is '/watches'",
            )
            for key, name in (("subscribe", "/watch"), ("unsubscribe", "/unwatch"))
        ),
    ]


@pytest.mark.anyio
async def test_a_plain_relay_tells_of_its_names(hub: fanwire.Hub, caplog: pytest.LogCaptureFixture) -> None:
    shares = (QueryShare(query=("match",)), MessageShare(subscribe="/watch", unsubscribe="/unwatch"))
    with PlainBackend().serving() as backend:
        upstream = (f"ws://{backend}{PATH}",)
        hub.relay(RelayConfig(path=PATH, upstream=upstream, protocol="websocket", admit="anyone", share=shares))
        async with hub.serve(ANY, drain_timeout=0.2) as serving:
            assert len(hub.relay_stats()[0].unused) == 3
            async with connected(serving.address, f"{PATH}?match=a"), connected(serving.address, PATH) as client:
                await client.send('{"watch":"m"}')
                await client.send('{"watch":"m","more":1}')
                unused = ['share[1].unsubscribe = "/unwatch"']
                await until(lambda: hub.relay_stats()[0].unused == unused)


# Before a backend


@asynccontextmanager
async def chat(hub: fanwire.Hub, **options: Any) -> AsyncIterator[str]:
    """`hub` as a relay in front of Microsoft's chat, with groups besides: one target for both."""
    backend = fanwire.Hub(signalr_paths=(PATH,), drain_timeout=0.2)

    @backend.method("JoinGroup")
    def join(client: fanwire.Client, group: str) -> str:
        backend.subscribe(client, group)
        client.send("0", event="Snapshot")
        return group

    @backend.method("SendMessage")
    def send(client: fanwire.Client, text: str) -> None:
        backend.publish_to_all(text, event="ReceiveMessage", path=PATH)

    @backend.method("SendToGroup")
    def send_to_group(client: fanwire.Client, group: str, text: str) -> None:
        backend.publish(group, text, event="ReceiveMessage")

    share = CallShare(subscribe="JoinGroup", snapshot="Snapshot")
    async with backend.serve(ANY) as serving:
        upstream = (f"http://{serving.address}{PATH}",)
        hub.relay(RelayConfig(path=PATH, upstream=upstream, share=(share,), **options))
        async with hub.serve(ANY, signalr_paths=(), drain_timeout=0.2) as relay:
            yield relay.address


async def joined(stack: AsyncExitStack, address: str, *groups: str) -> HubClient:
    """A client that is in these groups."""
    client = await stack.enter_async_context(hub_client(address, PATH))
    for group in groups:
        await client.send({"type": 1, "invocationId": group, "target": "JoinGroup", "arguments": [group]})
        assert {(await client.receive())["type"], (await client.receive())["type"]} == {1, 3}
    return client


async def received(client: HubClient, last: str) -> list[str]:
    """What was said, up to this."""
    said: list[str] = []
    while last not in said:
        said += (await client.receive()).get("arguments", ())
    return said


@pytest.mark.anyio
async def test_a_target_that_comes_to_lanes_and_to_all_is_told_once(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    """And what its clients get is as docs/relay.md has it: once for each lane, or nothing."""
    async with chat(hub) as address, AsyncExitStack() as stack:
        two, none, speaker = [await joined(stack, address, *groups) for groups in (("a", "b"), (), ())]
        await speaker.send(*({"type": 1, "target": "SendMessage", "arguments": [text]} for text in ("hello", "all")))
        assert sorted(await received(two, "all") + await received(two, "all")) == ["all", "all", "hello", "hello"]
        await until(lambda: any("comes over lanes and over the broadcast lane" in text for _, text in lines(caplog)))
        told = [text for _, text in lines(caplog) if "comes over lanes" in text]
        assert len(told) == 1 and told[0].startswith("target 'ReceiveMessage' of /chat comes over lanes and")
        await none.send({"type": 1, "invocationId": "1", "target": "JoinGroup", "arguments": ["a"]})
        assert "all" in await received(none, "all"), "late, as everyone of a lane does; and nothing came before"


@pytest.mark.anyio
async def test_named_in_everyone_it_comes_once_and_groups_are_not_heard(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    named = Everyone(targets=("ReceiveMessage", "Never"))
    async with chat(hub, everyone=named) as address, AsyncExitStack() as stack:
        two, none = await joined(stack, address, "a", "b"), await joined(stack, address)
        await none.send({"type": 1, "invocationId": "1", "target": "SendToGroup", "arguments": ["a", "dropped"]})
        assert await none.receive() == {"type": 3, "invocationId": "1", "result": None}
        await none.send(*({"type": 1, "target": "SendMessage", "arguments": [text]} for text in ("hello", "all")))
        assert await received(two, "all") == await received(none, "all") == ["hello", "all"]
        unused = ['everyone.targets[1] = "Never"']
        await until(lambda: hub.relay_stats()[0].unused == unused)
        scraped = await run_sync(lambda: httpx.get(f"http://{address}/metrics", trust_env=False).text)
        assert f'fanwire_relay_unused_names{{path="{PATH}"}} 1.0' in scraped
        assert not any("comes over lanes" in text for _, text in lines(caplog))


@pytest.mark.anyio
async def test_a_slip_in_the_settings_is_told_of(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.relay.names.USES_MAX", 3)
    async with chat(hub, private=Private(pooled=("JoinGroups", "SendMessages"))) as address, AsyncExitStack() as stack:
        client = await joined(stack, address, "a")
        for text in ("1", "2"):
            await client.send({"type": 1, "target": "SendMessage", "arguments": [text]})
        slip = (
            "private.pooled[1] is 'SendMessages', and no client has called it so far; the nearest name that was seen is"
        )
        await until(lambda: any(f"{slip} 'SendMessage'" in text for _, text in lines(caplog)))


@pytest.mark.anyio
async def test_a_target_of_everyone_that_goes_to_groups_too_is_told_once(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.relay.everyones.CAUGHT_UP_S", 0.01)
    async with chat(hub, everyone=Everyone(targets=("ReceiveMessage",))) as address, AsyncExitStack() as stack:
        client = await joined(stack, address, "a", "b")

        async def say(target: str, *arguments: str, times: int) -> None:
            """Have the backend send so many."""
            one = {"type": 1, "invocationId": "s", "target": target, "arguments": arguments}
            for _ in range(times):
                await client.send(one)
                while (await client.receive())["type"] != 3:
                    pass

        def told() -> list[str]:
            return [text for _, text in lines(caplog) if "far more often" in text]

        await say("SendMessage", "to all", times=20)
        await say("SendToGroup", "a", "to few", times=12)  # more than the broadcasts by less than may be said
        assert told() == []
        await say("SendToGroup", "a", "lost", times=100)
        await until(lambda: bool(told()))
        await say("SendToGroup", "b", "lost", times=150)
        assert len(told()) == 1
        assert told()[0].startswith("target 'ReceiveMessage' of /chat is in everyone.targets, and comes over lanes")


def test_lanes_are_compared_with_the_broadcast_lane_that_was_there_all_the_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    checks: list[Callable[[], None]] = []
    known = Everyones(PATH, ("News",), lambda seconds, check: checks.append(check))
    assert known.life_of("json") == 0
    known.dropped("json", "News", 20, 0)
    known.opened("json")
    life = known.life_of("json")
    known.dropped("json", "News", 3, life)  # four
    known.dropped("json", "Welcome", 20, life)
    known.dropped("messagepack", "News", 20, life)
    assert checks == []
    known.dropped("json", "News", 4, life)  # eight, while the broadcast lane's have not come yet
    for _ in range(3):  # four to seven
        known.came_to_all("json", "News")
    checks.pop()()
    assert lines(caplog) == []
    known.dropped("json", "News", 4, life)
    assert checks == []
    known.dropped("json", "News", 5, life)
    known.lost("json")
    checks.pop()()
    known.opened("json")
    known.dropped("json", "News", 20, life)
    assert (checks, lines(caplog)) == ([], [])
    known.dropped("json", "News", 20, known.life_of("json"))
    checks.pop()()
    assert len(lines(caplog)) == 1
    known.dropped("json", "News", 21, known.life_of("json"))
    assert checks == []
