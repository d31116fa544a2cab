"""The relay: what is shared, what is private, and what a backend sees of it. The backend is a hub of our own."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire.relay.config import CallShare, Everyone, Lanes, Private, RelayConfig
from support.clients import connected
from support.hub_client import HubClient, hub_client, negotiate
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
PATH = "/live"


class Backend:
    """A hub with matches to watch, and what it saw."""

    def __init__(self) -> None:
        self.hub = hub = fanwire.Hub(signalr_paths=(PATH,), drain_timeout=0.2)
        self.watched: list[str] = []
        self.newest: dict[str, int] = {}
        self.connected = 0
        self.shown: list[str | None] = []

        @hub.authenticate
        def who(request: fanwire.Request) -> str | None:
            self.shown.append(request.headers.get("x-forwarded-for"))
            user = request.headers.get("authorization", "").removeprefix("Bearer ") or request.query.get("access_token")
            if user == "mallory":
                raise fanwire.Refused("no", status=401)
            return user or None

        @hub.on_connect
        def greet(client: fanwire.Client) -> None:
            self.connected += 1
            client.send("hello", event="Welcome")

        @hub.on_disconnect
        def part(client: fanwire.Client, gone: fanwire.ClientGone) -> None:
            self.connected -= 1

        @hub.method("Watch")
        def watch(client: fanwire.Client, match: str) -> int:
            if match == "closed":
                raise fanwire.HubError("no such match")
            if match == "secret" and client.identity is None:
                raise fanwire.HubError("log in first")
            self.watched.append(match)
            hub.subscribe(client, match)
            client.send(self.newest.get(match, 0), event="Snapshot")
            return self.newest.get(match, 0)

        @hub.method("Unwatch")
        def unwatch(client: fanwire.Client, match: str) -> bool:
            was = match in client.channels
            hub.unsubscribe(client, match)
            return was

        @hub.method("WhoAmI")
        def who_am_i(client: fanwire.Client) -> list[str | None]:
            client.send("psst", event="Message")
            return [client.identity.id if client.identity else None, client.connection_id]

        @hub.method("Slow")
        async def slow(client: fanwire.Client, answer: str) -> str:
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            return answer

        @hub.method("Tell")
        def tell(client: fanwire.Client, text: str) -> None:
            hub.publish_to_all(text, event="Announcement", path=PATH)

    def odds(self, match: str, *numbers: int) -> None:
        """Publish so many."""
        for number in numbers:
            self.newest[match] = number
            self.hub.publish(match, number, event="Odds")


@asynccontextmanager
async def relayed(backend: Backend, hub: fanwire.Hub, **options: Any) -> AsyncIterator[tuple[str, str]]:
    """The backend, and `hub` as a relay in front of it: the address of the relay, and of the backend."""
    chosen: dict[str, Any] = {
        "share": (CallShare(subscribe="Watch", unsubscribe="Unwatch", snapshot="Snapshot"),),
        "everyone": Everyone(targets=("Announcement",), welcome=("Welcome",)),
        "linger": 0.05,
        **options,
    }
    async with backend.hub.serve(ANY) as serving:
        hub.relay(RelayConfig(path=PATH, upstream=(f"http://{serving.address}{PATH}",), **chosen))
        async with hub.serve(ANY, signalr_paths=(), drain_timeout=0.2) as relay:
            yield relay.address, serving.address


async def messages(client: HubClient, until_last: Any) -> list[Any]:
    """Targets and first arguments of what comes, up to the one with this argument."""
    seen: list[Any] = []
    while not seen or seen[-1][1] != until_last:
        message = await client.receive()
        if message["type"] == 1:
            seen.append((message["target"], message["arguments"][0]))
    return seen


async def watching(stack: AsyncExitStack, address: str, match: str, query: str = "") -> HubClient:
    """A client that watches a match and has read what came of that."""
    client = await stack.enter_async_context(hub_client(address, PATH, query))
    assert await client.receive() == {"type": 1, "target": "Welcome", "arguments": ["hello"]}
    await client.send({"type": 1, "invocationId": "1", "target": "Watch", "arguments": [match]})
    came = [await client.receive() for _ in range(2)]
    assert sorted(message["type"] for message in came) == [1, 3], came
    return client


@pytest.fixture
def backend() -> Backend:
    """A fresh one."""
    return Backend()


async def test_equal_subscriptions_share_a_connection_and_each_client_gets_each_message_once(
    hub: fanwire.Hub, backend: Backend
) -> None:
    async with relayed(backend, hub) as (address, _), AsyncExitStack() as stack:
        clients = [(f"m{index % 3}", await watching(stack, address, f"m{index % 3}")) for index in range(12)]
        assert sorted(backend.watched) == ["m0", "m1", "m2"]
        assert backend.connected == 4, "three lanes and the broadcast lane"
        [stats] = hub.relay_stats()
        assert [(lane.arguments, lane.state, lane.clients) for lane in stats.lanes] == [
            ('["m0"]', "live", 4),
            ('["m1"]', "live", 4),
            ('["m2"]', "live", 4),
        ]
        scraped = await run_sync(lambda: httpx.get(f"http://{address}/metrics", trust_env=False).text)
        assert 'fanwire_relay_lanes{path="/live",state="live"} 3.0' in scraped
        assert 'fanwire_relay_broadcast_live{path="/live",protocol="json"} 1.0' in scraped
        for match in ("m0", "m1", "m2"):
            backend.odds(match, 1, 2, 3)
        await clients[0][1].send({"type": 1, "target": "Tell", "arguments": ["goal"]})
        for _, client in clients:
            seen = await messages(client, "goal")
            assert [value for target, value in seen if target == "Odds"] == [1, 2, 3] or len(seen) < 4
            assert seen.count(("Announcement", "goal")) == 1


async def test_who_joins_late_begins_at_the_newest_snapshot(hub: fanwire.Hub, backend: Backend) -> None:
    async with relayed(backend, hub) as (address, _), AsyncExitStack() as stack:
        first = await watching(stack, address, "m")
        backend.odds("m", 1, 2)
        assert await messages(first, 2) == [("Odds", 1), ("Odds", 2)]
        late = await stack.enter_async_context(hub_client(address, PATH))
        await late.send({"type": 1, "invocationId": "7", "target": "watch", "arguments": ["m"]})
        assert await messages(late, 2) == [("Welcome", "hello"), ("Snapshot", 0), ("Odds", 1), ("Odds", 2)]
        assert await late.receive() == {"type": 3, "invocationId": "7", "result": 0}
        backend.odds("m", 3)
        assert await messages(first, 3) == await messages(late, 3) == [("Odds", 3)]
        assert backend.watched == ["m"]


async def test_what_the_log_has_lost_is_asked_for_again_and_only_newcomers_see_it(
    hub: fanwire.Hub, backend: Backend
) -> None:
    async with relayed(backend, hub, lanes=Lanes(snapshot_bytes_max=200)) as (address, _), AsyncExitStack() as stack:
        first = await watching(stack, address, "m")
        backend.odds("m", *range(1, 21))
        await messages(first, 20)
        late = await stack.enter_async_context(hub_client(address, PATH))
        await late.send({"type": 1, "invocationId": "1", "target": "Watch", "arguments": ["m"]})
        assert (await messages(late, 20))[-1] == ("Snapshot", 20)
        backend.odds("m", 21)
        assert await messages(first, 21) == [("Odds", 21)]
        assert backend.watched == ["m", "m"]


async def joined(stack: AsyncExitStack, address: str, last: Any) -> list[Any]:
    """What who comes now begins with, up to this."""
    late = await stack.enter_async_context(hub_client(address, PATH))
    await late.send({"type": 1, "invocationId": "1", "target": "Watch", "arguments": ["m"]})
    seen = await messages(late, last)
    assert seen.pop(0) == ("Welcome", "hello")
    return seen


async def test_numbers_of_a_stateful_client_are_those_of_messages(hub: fanwire.Hub, backend: Backend) -> None:
    """A late joiner gets the snapshot and what followed in one frame. It acknowledges a message in the midst of it."""
    async with relayed(backend, hub) as (address, _), AsyncExitStack() as stack:
        first = await watching(stack, address, "m")
        backend.odds("m", 1, 2)
        await messages(first, 2)
        reply = await run_sync(partial(negotiate, address, PATH, query="&useStatefulReconnect=true"))
        target = f"{PATH}?id={reply['connectionToken']}"
        async with connected(address, target) as peer:
            late = HubClient(peer)
            await late.send({"protocol": "json", "version": 2})
            assert await late.receive() == {}
            await late.send({"type": 1, "invocationId": "1", "target": "Watch", "arguments": ["m"]})
            seen = [await late.receive() for _ in range(5)]
            assert [message.get("target") for message in seen] == ["Welcome", "Snapshot", "Odds", "Odds", None]
            await late.send({"type": 8, "sequenceId": 3})
            await late.send({"type": 1, "invocationId": "2", "target": "Slow", "arguments": ["x"]})
            seen.append(await late.receive())
            assert (seen[-1]["invocationId"], seen[-1]["result"]) == ("2", "x"), "that number is known"
            await run_sync(peer.break_off)
        async with connected(address, target) as peer:
            late = HubClient(peer)
            assert await late.receive() == {"type": 9, "sequenceId": 4}
            assert [await late.receive() for _ in range(3)] == seen[3:]
            await late.send({"type": 9, "sequenceId": 3})
            backend.odds("m", 3)
            assert await messages(late, 3) == [("Odds", 3)]


@pytest.mark.parametrize("which", [0, 1], ids=["relay", "hub"])
async def test_polls_of_two_users_over_one_connection_of_a_proxy_are_each_their_own(
    hub: fanwire.Hub, backend: Backend, which: int
) -> None:
    """Both poll before either shakes hands; what one proxy connection carries says nothing of whose it is."""

    def play(address: str) -> list[list[str]]:
        url, users = f"http://{address}{PATH}", ("alice", "bob")
        said: list[list[str]] = []
        with httpx.Client(limits=httpx.Limits(max_connections=1), trust_env=False) as proxy:

            def ask(method: str, user: str, query: str, content: str = "") -> httpx.Response:
                headers = {"Authorization": f"Bearer {user}"}
                return proxy.request(method, url + query, headers=headers, content=content.encode())

            tokens = [ask("POST", user, "/negotiate?negotiateVersion=1").json()["connectionToken"] for user in users]
            for method, content in (("GET", ""), ("POST", '{"protocol":"json","version":1}\x1e')):
                for user, token in zip(users, tokens, strict=True):
                    assert ask(method, user, f"?id={token}", content).status_code == 200
            for user, token in zip(users, tokens, strict=True):
                call = {"type": 1, "invocationId": "1", "target": "WhoAmI", "arguments": []}
                assert ask("POST", user, f"?id={token}", json.dumps(call) + "\x1e").status_code == 200
                came: list[dict[str, Any]] = []
                while not (answers := [message["result"][0] for message in came if message.get("type") == 3]):
                    came += [json.loads(each) for each in ask("GET", user, f"?id={token}").text.split("\x1e") if each]
                said.append(answers)
        return said

    async with relayed(backend, hub) as addresses:
        assert await run_sync(play, addresses[which]) == [["alice"], ["bob"]]


async def test_nobody_begins_with_what_is_older_than_fresh(hub: fanwire.Hub, backend: Backend) -> None:
    share = CallShare(subscribe="Watch", snapshot="Snapshot", fresh=0.0)
    async with relayed(backend, hub, share=(share,)) as (address, _), AsyncExitStack() as stack:
        first = await watching(stack, address, "m")
        backend.odds("m", 1, 2)
        await messages(first, 2)
        assert await joined(stack, address, 2) == [("Snapshot", 2)]
        assert backend.watched == ["m", "m"]
        backend.odds("m", 3)
        assert await messages(first, 3) == [("Odds", 3)], "the newer snapshot is newcomers' alone"


async def test_a_snapshot_that_came_by_itself_is_as_fresh_as_one_that_was_asked_for(
    hub: fanwire.Hub, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = CallShare(subscribe="Watch", snapshot="Odds", fresh=60.0)
    async with relayed(backend, hub, share=(share,)) as (address, _), AsyncExitStack() as stack:
        first = await watching(stack, address, "m")
        backend.odds("m", 1)
        await messages(first, 1)
        monkeypatch.setattr("fanwire.relay.timing.monotonic", lambda: monotonic() + 61)
        assert await joined(stack, address, 1) == [("Odds", 1)]
        assert backend.watched == ["m"]


async def test_when_more_messages_came_than_a_newcomer_is_to_get_a_newer_snapshot_is_fetched(
    hub: fanwire.Hub, backend: Backend
) -> None:
    share = CallShare(subscribe="Watch", snapshot="Snapshot", snapshot_messages_max=2)
    async with relayed(backend, hub, share=(share,)) as (address, _), AsyncExitStack() as stack:
        first = await watching(stack, address, "m")
        backend.odds("m", 1, 2)
        await messages(first, 2)
        assert await joined(stack, address, 2) == [("Snapshot", 0), ("Odds", 1), ("Odds", 2)]
        assert backend.watched == ["m"]
        backend.odds("m", 3)
        await messages(first, 3)
        assert await joined(stack, address, 3) == [("Snapshot", 3)]
        assert await joined(stack, address, 3) == [("Snapshot", 3)]
        assert backend.watched == ["m", "m"], "one call for all that come after it"
        backend.odds("m", 4)
        assert await messages(first, 4) == [("Odds", 4)]


async def test_without_a_snapshot_a_newcomer_starts_live_and_the_result_is_refreshed(
    hub: fanwire.Hub, backend: Backend
) -> None:
    share = CallShare(subscribe="Watch", fresh=0.0)
    async with relayed(backend, hub, share=(share,)) as (address, _), AsyncExitStack() as stack:
        first = await watching(stack, address, "m")
        backend.odds("m", 1)
        assert await messages(first, 1) == [("Odds", 1)]
        late = await stack.enter_async_context(hub_client(address, PATH))
        await late.send({"type": 1, "invocationId": "1", "target": "Watch", "arguments": ["m"]})
        while (message := await late.receive())["type"] != 3:
            assert message["target"] in ("Welcome", "Snapshot")
        assert message["result"] == 1
        assert backend.watched == ["m", "m"]


async def test_a_refused_subscription_is_everyones_error_and_the_next_tries_again(
    hub: fanwire.Hub, backend: Backend
) -> None:
    refused = {"error": "An unexpected error occurred invoking 'Watch' on the server. HubException: no such match"}
    async with relayed(backend, hub) as (address, _), AsyncExitStack() as stack:
        for id in ("1", "abc"):
            client = await stack.enter_async_context(hub_client(address, PATH))
            assert (await client.receive())["target"] == "Welcome"
            assert await client.invoke("Watch", "closed", id=id) == refused
        await until(lambda: backend.connected == 1)


async def test_who_may_more_than_the_lane_watches_privately(hub: fanwire.Hub, backend: Backend) -> None:
    async with relayed(backend, hub) as (address, _), AsyncExitStack() as stack:
        anonymous = await stack.enter_async_context(hub_client(address, PATH))
        assert (await anonymous.receive())["target"] == "Welcome"
        assert "log in first" in (await anonymous.invoke("Watch", "secret"))["error"]
        alice = await watching(stack, address, "secret", "?access_token=alice")
        backend.odds("secret", 1)
        assert await messages(alice, 1) == [("Odds", 1)]
        assert await alice.invoke("Unwatch", "secret", id="2") == {"result": True}


async def test_unsubscribing_is_answered_as_there_and_the_lane_ends_when_nobody_is_left(
    hub: fanwire.Hub, backend: Backend
) -> None:
    async with relayed(backend, hub) as (address, _), AsyncExitStack() as stack:
        first, second = [await watching(stack, address, "m") for _ in range(2)]
        assert await first.invoke("unwatch", "m", id="2") == {"result": True}
        assert await first.invoke("Unwatch", "m", id="3") == {"result": False}, "it is not on the lane: its own call"
        backend.odds("m", 1)
        assert await messages(second, 1) == [("Odds", 1)]
        assert await first.invoke("Slow", "x") == {"result": "x"}
        await second.peer.close()
        await until(lambda: hub.stats().connections == 1)
        await until(lambda: backend.connected == 2)  # the broadcast lane, and the first client's own


async def test_calls_are_the_clients_own_and_so_is_what_comes_of_them(hub: fanwire.Hub, backend: Backend) -> None:
    async with relayed(backend, hub) as (address, _), AsyncExitStack() as stack:
        clients = [await watching(stack, address, "m", f"?access_token=user{index}") for index in range(4)]
        for index, client in enumerate(clients):
            await client.send(
                {"type": 1, "invocationId": "5", "target": "Slow", "arguments": [f"answer {index}"]},
                {"type": 1, "invocationId": "6", "target": "WhoAmI", "arguments": []},
            )
        ids = set()
        for index, client in enumerate(clients):
            came = [await client.receive() for _ in range(3)]
            assert {"type": 3, "invocationId": "5", "result": f"answer {index}"} in came
            assert {"type": 1, "target": "Message", "arguments": ["psst"]} in came
            user, connection = next(one["result"] for one in came if one.get("invocationId") == "6")
            assert user == f"user{index}"
            ids.add(connection)
        assert len(ids) == 4
        assert "127.0.0.1" in backend.shown


async def test_pooled_methods_share_connections_and_keep_their_ids(hub: fanwire.Hub, backend: Backend) -> None:
    async with (
        relayed(backend, hub, private=Private(pooled=("Slow",), pool_size=2)) as (address, _),
        AsyncExitStack() as stack,
    ):
        clients = [await watching(stack, address, "m") for _ in range(6)]
        for index, client in enumerate(clients):
            await client.send({"type": 1, "invocationId": "9", "target": "slow", "arguments": [str(index)]})
        for index, client in enumerate(clients):
            assert await client.receive() == {"type": 3, "invocationId": "9", "result": str(index)}
        assert backend.connected <= 4, "the lane, the broadcast lane, and two for all calls"


async def test_a_private_lane_closes_when_idle_and_comes_again(hub: fanwire.Hub, backend: Backend) -> None:
    async with relayed(backend, hub, private=Private(idle=0.2)) as (address, _), AsyncExitStack() as stack:
        client = await watching(stack, address, "m")
        assert await client.invoke("Slow", "a") == {"result": "a"}
        assert backend.connected == 3
        await until(lambda: backend.connected == 2)
        assert await client.invoke("Slow", "b") == {"result": "b"}


async def test_with_eager_private_lanes_a_user_hears_what_is_sent_to_him(hub: fanwire.Hub, backend: Backend) -> None:
    private = Private(eager=True, idle=0.1)
    async with relayed(backend, hub, private=private) as (address, _), AsyncExitStack() as stack:
        alice = await stack.enter_async_context(hub_client(address, PATH, "?access_token=alice"))
        await stack.enter_async_context(hub_client(address, PATH))
        assert (await alice.receive())["target"] == "Welcome"
        await until(lambda: backend.connected == 2)  # the broadcast lane, and alice's
        backend.hub.publish_to_user("alice", "psst", event="Message")
        assert (await alice.receive())["arguments"] == ["psst"]


async def test_an_eager_private_lane_stays_when_a_subscription_of_its_own_ends(
    hub: fanwire.Hub, backend: Backend
) -> None:
    private = Private(eager=True, idle=0.1)
    async with relayed(backend, hub, private=private) as (address, _), AsyncExitStack() as stack:
        alice = await watching(stack, address, "secret", "?access_token=alice")
        assert await alice.invoke("Unwatch", "secret", id="2") == {"result": True}
        bob = await watching(stack, address, "other", "?access_token=bob")
        # Those of others come and go meanwhile; the lane that is not held would be idle by then.
        calling = await stack.enter_async_context(hub_client(address, PATH))
        assert (await calling.receive())["target"] == "Welcome"
        assert await calling.invoke("Slow", "x") == {"result": "x"}
        before = backend.connected
        await until(lambda: backend.connected < before)
        for user, client in (("alice", alice), ("bob", bob)):
            backend.hub.publish_to_user(user, "psst", event="Message")
            assert (await client.receive())["arguments"] == ["psst"]


async def test_clients_stay_while_the_backend_is_away_and_are_told_of_the_gap(
    hub: fanwire.Hub, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    lanes = Lanes(backoff_min=0.1, backoff_max=0.2, on_gap="message", gap_target="Gap")
    with caplog.at_level(logging.ERROR, "fanwire.relay"):
        async with relayed(backend, hub, lanes=lanes) as (address, upstream), AsyncExitStack() as stack:
            clients = [await watching(stack, address, "m") for _ in range(3)]
            again = Backend()
            await backend.hub.stop()
            assert backend.connected == 0
            async with again.hub.serve(upstream):
                for client in clients:
                    seen = await messages(client, 0)
                    assert seen == [("Snapshot", 0)]
                    gap = await client.receive()
                    assert gap["target"] == "Gap"
                    assert gap["arguments"][0]["call"] == "Watch"
                again.odds("m", 1)
                for client in clients:
                    assert await messages(client, 1) == [("Odds", 1)]
            assert hub.stats().connections == 3


async def test_limits_are_errors_that_name_them(hub: fanwire.Hub, backend: Backend) -> None:
    lanes = Lanes(max=2, per_client_max=1)
    async with relayed(backend, hub, lanes=lanes) as (address, _), AsyncExitStack() as stack:
        first = await watching(stack, address, "a")
        second = await stack.enter_async_context(hub_client(address, PATH))
        assert (await second.receive())["target"] == "Welcome"
        answer = await first.invoke("Watch", "b", id="2")
        assert answer["error"].endswith("HubException: 2 subscriptions are over the bound of 1")
        await watching(stack, address, "b")
        answer = await second.invoke("Watch", "c")
        assert answer["error"].endswith("HubException: 3 lanes are over the bound of 2")


async def test_whom_the_backend_refuses_the_relay_refuses(hub: fanwire.Hub, backend: Backend) -> None:
    async with relayed(backend, hub) as (address, _):

        def status(user: str) -> int:
            headers = {"Authorization": f"Bearer {user}"}
            url = f"http://{address}{PATH}/negotiate?negotiateVersion=1"
            return httpx.post(url, headers=headers, trust_env=False).status_code

        assert [await run_sync(status, user) for user in ("mallory", "alice", "mallory")] == [401, 200, 401]


async def test_a_backend_that_is_not_there_is_a_clear_error(hub: fanwire.Hub) -> None:
    lanes = Lanes(connect_timeout=1.0, backoff_min=0.1)
    share = (CallShare(subscribe="Watch"),)
    nowhere = RelayConfig(path=PATH, upstream=("http://127.0.0.1:1/live",), admit="anyone", lanes=lanes, share=share)
    hub.relay(nowhere)
    async with hub.serve(ANY, signalr_paths=()) as relay, hub_client(relay.address, PATH) as client:
        error = "Failed to invoke 'Watch' due to an error on the server. HubException: The backend cannot be reached."
        assert await client.invoke("Watch", "m") == {"error": error}
        assert await client.invoke("Add", 1, 2) == {"error": "The backend cannot be reached."}
