"""SignalR as a Python program has it: methods, streams, results that clients owe, whom a publication is for."""

import dataclasses
import json
import logging
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from support.clients import connected
from support.hub_client import HubClient, hub_client, negotiate
from support.raw import open_socket, read_head
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


def failed(target: str) -> dict[str, str]:
    """What is answered to an invocation that cannot be made."""
    return {"error": f"Failed to invoke '{target}' due to an error on the server."}


async def test_methods_answer_with_results_and_the_reference_s_errors(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclasses.dataclass
    class Bet:
        match: str
        stake: float

    @hub.method("PlaceBet")
    async def place_bet(client: fanwire.Client, bet: Bet, note: str = "none") -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        return {"match": bet.match, "stake": bet.stake, "note": note}

    @hub.method
    def nothing(client: fanwire.Client) -> None: ...

    @hub.method
    def null(client: fanwire.Client) -> str | None:
        return None

    @hub.method
    def told(client: fanwire.Client) -> int:
        raise fanwire.HubError("no such match")

    @hub.method
    async def untold(client: fanwire.Client) -> int:
        raise ValueError("the database's password")

    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        bet = {"match": "7", "stake": 2}
        assert await client.invoke("placebet", bet) == {"result": {"match": "7", "stake": 2.0, "note": "none"}}
        assert (await client.invoke("PlaceBet", bet, "é"))["result"]["note"] == "é"
        assert await client.invoke("nothing") == {"result": None}
        assert await client.invoke("null") == {"result": None}
        for arguments in [(), (bet, "a", "b"), ({"match": "7"},), ({"match": 7, "stake": 2},), (bet, 7)]:
            assert await client.invoke("PlaceBet", *arguments) == failed("PlaceBet")
        missing = failed("absent")["error"] + " HubException: Method does not exist."
        assert await client.invoke("absent") == {"error": missing}
        unexpected = "An unexpected error occurred invoking '{}' on the server."
        assert await client.invoke("told") == {"error": unexpected.format("told") + " HubException: no such match"}
        assert not [record for record in caplog.records if record.levelno > logging.INFO]
        with caplog.at_level(logging.ERROR, "fanwire"):
            assert await client.invoke("untold") == {"error": unexpected.format("untold")}
        assert "the database's password" in caplog.text


async def test_invocations_come_one_after_another_unless_more_are_allowed(hub: fanwire.Hub) -> None:
    began: list[str] = []
    gate = anyio.Event()

    @hub.method
    async def slow(client: fanwire.Client) -> str:
        began.append("slow")
        await gate.wait()
        return "slow"

    @hub.method
    async def quick(client: fanwire.Client) -> str:
        began.append("quick")
        return "quick"

    calls = [{"type": 1, "invocationId": name, "target": name, "arguments": []} for name in ("slow", "quick")]
    async with hub.serve(ANY) as serving, hub_client(serving.address) as one, hub_client(serving.address) as other:
        await one.send(*calls)
        await until(lambda: began)
        assert await other.invoke("quick") == {"result": "quick"}
        assert began == ["slow", "quick"]
        gate.set()
        assert [(await one.receive())["invocationId"] for _ in calls] == ["slow", "quick"]
    gate = anyio.Event()
    async with hub.serve(ANY, signalr_parallel_max=2) as serving, hub_client(serving.address) as client:
        await client.send(*calls)
        assert (await client.receive())["invocationId"] == "quick"
        gate.set()
        assert (await client.receive())["invocationId"] == "slow"


async def test_streams_give_items_end_fail_and_are_cancelled(hub: fanwire.Hub) -> None:
    ended: list[str] = []

    @hub.method
    async def count(client: fanwire.Client, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @hub.method
    async def fail(client: fanwire.Client) -> AsyncIterator[int]:
        yield 1
        raise fanwire.HubError("over")

    @hub.method
    async def wait(client: fanwire.Client) -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            ended.append("wait")

    def stream(target: str, *arguments: object) -> dict[str, Any]:
        return {"type": 4, "invocationId": "s", "target": target, "arguments": arguments}

    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        await client.send(stream("count", 100))
        assert [(await client.receive())["item"] for _ in range(100)] == list(range(100))
        assert await client.receive() == {"type": 3, "invocationId": "s"}
        await client.send(stream("fail"))
        assert (await client.receive())["item"] == 1
        error = "An error occurred on the server while streaming results. HubException: over"
        assert await client.receive() == {"type": 3, "invocationId": "s", "error": error}
        await client.send(stream("wait"))
        assert (await client.receive())["item"] == 1
        await client.send({"type": 5, "invocationId": "s"}, {"type": 5, "invocationId": "unknown"})
        assert await client.receive() == {"type": 3, "invocationId": "s"}
        assert ended == ["wait"]
        await client.send(stream("wait"))
        assert (await client.receive())["item"] == 1
    assert ended == ["wait", "wait"]


async def test_a_stream_waits_for_a_client_that_does_not_read(hub: fanwire.Hub) -> None:
    made: list[int] = []

    @hub.method
    async def flood(client: fanwire.Client) -> AsyncIterator[str]:
        for number in range(100_000):
            made.append(number)
            yield "x" * 1_000

    async with hub.serve(ANY, drain_timeout=0.2) as serving, hub_client(serving.address) as client:
        await client.send({"type": 4, "invocationId": "s", "target": "flood", "arguments": []})
        await until(lambda: hub.stats().lagging == 1)
        while True:
            before = len(made)
            await anyio.wait_all_tasks_blocked()
            if len(made) == before:
                break
        assert len(made) < 100_000
        assert [(await client.receive())["item"][0] for _ in range(before)] == ["x"] * before
        await until(lambda: len(made) > before)


async def test_what_a_client_streams_comes_as_an_iterator(hub: fanwire.Hub) -> None:
    @hub.method("Sum")
    async def total(client: fanwire.Client, start: int, numbers: AsyncIterator[int]) -> int:
        async for number in numbers:
            start += number
        return start

    def upload(*rest: dict[str, Any]) -> list[dict[str, Any]]:
        call = {"type": 1, "invocationId": "1", "target": "Sum", "arguments": [100], "streamIds": ["u"]}
        return [call, *rest]

    items = [{"type": 2, "invocationId": "u", "item": number} for number in range(50)]
    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        await client.send(*upload(*items, {"type": 3, "invocationId": "u"}))
        assert await client.receive() == {"type": 3, "invocationId": "1", "result": 1_325}
        await client.send(*upload({"type": 3, "invocationId": "u", "error": "gone wrong"}))
        assert "HubException: gone wrong" in (await client.receive())["error"]
        await client.send(*upload({"type": 2, "invocationId": "u", "item": "x"}))
        assert (await client.receive())["error"].endswith("HubException: Failed to bind Stream message.")
        await client.send(*items)  # of a stream that nobody takes any more
        assert await client.invoke("Sum") == failed("Sum")


async def test_the_hub_calls_a_client_and_gets_its_result(hub: fanwire.Hub) -> None:
    outcomes: list[object] = []

    @hub.method
    async def ask(client: fanwire.Client, question: str) -> object:
        try:
            outcomes.append(await client.invoke("Question", question, 1))
        except (fanwire.CallFailed, fanwire.ClientGone) as error:
            outcomes.append(str(error))
        return outcomes[-1]

    async with hub.serve(ANY) as serving:
        async with hub_client(serving.address) as client:
            call = {"type": 1, "invocationId": "1", "target": "ask", "arguments": ["why?"]}
            await client.send(call)
            asked = await client.receive()
            assert asked == {"type": 1, "invocationId": "s1", "target": "Question", "arguments": ["why?", 1]}
            await client.send({"type": 3, "invocationId": "s1", "result": {"a": 1}})
            assert (await client.receive())["result"] == {"a": 1}
            await client.send(call)
            await client.receive()
            await client.send({"type": 3, "invocationId": "s2", "error": "Client didn't provide a result."})
            assert (await client.receive())["result"] == "Client didn't provide a result."
            await client.send(call)
            await client.receive()
        await until(lambda: len(outcomes) == 3)
    assert "closed by client" in str(outcomes[2])


async def test_publications_reach_groups_users_everyone_and_everyone_but(hub: fanwire.Hub) -> None:
    clients: dict[str, fanwire.Client] = {}

    @hub.authenticate
    def who(request: fanwire.Request) -> str | None:
        return request.query.get("user")

    @hub.method
    def join(client: fanwire.Client, channel: str) -> list[str]:
        hub.subscribe(client, channel)
        assert client.identity is not None and client.identity.id is not None
        clients[client.identity.id] = client
        return client.channels

    async def messages(client: HubClient, count: int) -> list[tuple[str, list[object]]]:
        received = [await client.receive() for _ in range(count)]
        return [(message["target"], message["arguments"]) for message in received]

    async with (
        hub.serve(ANY) as serving,
        hub_client(serving.address, query="?user=ann") as ann,
        hub_client(serving.address, query="?user=bob") as bob,
    ):
        for client in (ann, bob):
            assert await client.invoke("join", "odds") in ({"result": ["odds"]}, {"result": []})
        hub.publish("odds", {"home": 1.5}, event="Odds")
        hub.publish("odds", fanwire.Arguments(1, "two", None), event="Many")
        hub.publish("odds", 'text with "quotes"')
        hub.publish("odds", b"\x00\xff", event="Bytes")
        hub.publish("odds", "not for ann", event="Others", exclude=clients["ann"])
        hub.publish_to_user("ann", "for ann", event="Private")
        hub.publish_to_all("for all", event="All", exclude=[clients["bob"]])
        hub.publish("odds", "last", event="Last")
        clients["bob"].send(fanwire.Arguments(1, 2), event="Sent")
        group = [
            ("Odds", [{"home": 1.5}]),
            ("Many", [1, "two", None]),
            ("message", ['text with "quotes"']),
            ("Bytes", ["AP8="]),
        ]
        to_ann = await messages(ann, 7)
        assert [message for message in to_ann if message[0] in ("Odds", "Many", "message", "Bytes")] == group
        assert sorted(target for target, _ in to_ann[-3:] + to_ann[:-3])[:1] == ["All"]
        assert {target for target, _ in to_ann} == {"Odds", "Many", "message", "Bytes", "Private", "All", "Last"}
        to_bob = await messages(bob, 7)
        assert [target for target, _ in to_bob if target != "Sent"] == [
            "Odds",
            "Many",
            "message",
            "Bytes",
            "Others",
            "Last",
        ]
        assert ("Sent", [1, 2]) in to_bob


async def test_several_hubs_have_methods_of_their_own(hub: fanwire.Hub) -> None:
    chat = hub.endpoint("/chat")
    hub.method("name")(lambda client: "main")
    chat.method("name")(lambda client: "chat")
    with pytest.raises(ValueError, match="registered already"):
        chat.method("NAME")(lambda client: "again")
    async with hub.serve(ANY) as serving:
        for path, name in [("/signalr", "main"), ("/chat", "chat")]:
            async with hub_client(serving.address, path) as client:
                assert await client.invoke("name") == {"result": name}


@pytest.mark.parametrize("shards", [1, 3])
async def test_polls_carry_a_connection_whatever_shard_they_come_to(hub: fanwire.Hub, shards: int) -> None:
    hub.method("Double")(lambda client, number: number * 2)
    hub.method("Watch")(lambda client, channel: hub.subscribe(client, channel))

    async def request(method: str, url: str, content: bytes = b"") -> httpx.Response:
        return await run_sync(partial(httpx.request, method, url, content=content, trust_env=False, timeout=100))

    async def polled() -> httpx.Response:
        """The next poll that brings something: what was asked for may take longer than one waits."""
        while not (answer := await request("GET", url)).content:
            assert answer.status_code == 200
        return answer

    async with hub.serve(ANY, shards=shards, signalr_poll_timeout=0.3) as serving:
        token = (await run_sync(negotiate, serving.address))["connectionToken"]
        url = f"http://{serving.address}/signalr?id={token}"
        first = await request("GET", url)
        assert (first.status_code, first.content) == (200, b"")
        assert (await request("POST", url, b'{"protocol":"json","version":1}\x1e{"type":6}\x1e')).status_code == 200
        assert (await polled()).content == b"{}\x1e"
        call = b'{"type":1,"invocationId":"1","target":"Double","arguments":[21]}\x1e'
        assert (await request("POST", url, call[:20])).status_code == 200
        assert (await request("POST", url, call[20:])).status_code == 200
        answer = await polled()
        assert answer.content == b'{"type":3,"invocationId":"1","result":42}\x1e'
        assert answer.headers["content-type"] == "application/octet-stream"
        assert (await request("GET", url)).content == b""  # the poll's time was up
        await request("POST", url, b'{"type":1,"target":"Watch","arguments":["odds"]}\x1e')
        await until(lambda: hub.occupancy("odds") == 1)
        hub.publish("odds", [1], event="Odds")
        assert (await polled()).content == b'{"type":1,"target":"Odds","arguments":[[1]]}\x1e'
        assert (await request("DELETE", url)).status_code == 202
        assert (await request("GET", url)).status_code == 404
        await until(lambda: hub.occupancy("odds") == 0)
        await until(lambda: hub.stats().connections <= 4)


async def test_a_poller_that_stays_away_is_forgotten(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY, signalr_disconnect_timeout=4.0) as serving:
        token = (await run_sync(negotiate, serving.address))["connectionToken"]
        url = f"http://{serving.address}/signalr?id={token}"
        post = partial(httpx.post, url, content=b'{"protocol":"json","version":1}\x1e', trust_env=False)
        assert (await run_sync(partial(httpx.get, url, trust_env=False))).status_code == 200
        assert (await run_sync(post)).status_code == 200
        assert (await run_sync(partial(httpx.get, url, trust_env=False))).content == b"{}\x1e"

        async def is_forgotten() -> bool:
            return (await run_sync(post)).status_code == 404

        with anyio.fail_after(60):
            while not await is_forgotten():
                await anyio.lowlevel.checkpoint()


async def test_bad_messages_end_a_connection_as_the_reference_does(hub: fanwire.Hub) -> None:
    close = {"type": 7, "error": "Connection closed with an error.", "allowReconnect": True}
    async with hub.serve(ANY) as serving:
        for bad in ["not json\x1e", '{"type":1,"target":"x"}\x1e', "x" * 40_000, '{"type":3,"invocationId":""}\x1e']:
            async with hub_client(serving.address) as client:
                await client.peer.send(bad)
                assert await client.receive() == close
                assert await client.peer.closed() == (1000, "")
        async with hub_client(serving.address) as client:
            await client.send({"type": 99}, {"type": 7})
            assert await client.receive() == {"type": 7}
            assert await client.peer.closed() == (1000, "")


async def test_pings_go_both_ways_and_silence_after_one_ends_the_connection(hub: fanwire.Hub) -> None:
    serving_with = hub.serve(ANY, signalr_keepalive=0.1, signalr_client_timeout=0.5)
    async with serving_with as serving, hub_client(serving.address) as client:
        assert [await client.peer.receive() for _ in range(8)] == ['{"type":6}\x1e'] * 8
        await client.send({"type": 6})
        close = {"type": 7, "error": "Connection closed with an error.", "allowReconnect": True}
        assert await client.receive() == close


async def test_a_close_says_whether_to_come_back(hub: fanwire.Hub) -> None:
    @hub.method
    def leave(client: fanwire.Client, code: int, reason: str) -> None:
        client.close(code, reason)

    async with hub.serve(ANY) as serving:
        for code, reason, close in [
            (1000, "", {"type": 7}),
            (1008, "go away", {"type": 7, "error": "go away"}),
            (1012, "restarting", {"type": 7, "error": "restarting", "allowReconnect": True}),
        ]:
            async with hub_client(serving.address) as client:
                await client.send({"type": 1, "target": "leave", "arguments": [code, reason]})
                assert await client.receive() == close
                assert await client.peer.closed() == (1000, "")
        async with hub_client(serving.address) as client, anyio.create_task_group() as tasks:

            async def see_it_end() -> None:
                assert await client.peer.closed() == (1000, "")

            tasks.start_soon(see_it_end)
            tasks.start_soon(hub.stop)


async def test_a_post_that_never_ends_is_408_and_the_next_ones_are_read(hub: fanwire.Hub) -> None:
    hub.method("Double")(lambda client, number: number * 2)
    async with hub.serve(ANY, handshake_timeout=1.5) as serving:  # in which the others come whole
        token = (await run_sync(negotiate, serving.address))["connectionToken"]
        url = f"http://{serving.address}/signalr?id={token}"
        get = partial(httpx.get, url, trust_env=False)
        post = partial(httpx.post, url, trust_env=False)
        assert (await run_sync(get)).content == b""

        def trickle() -> str:
            with open_socket(serving.address) as connection:
                connection.sendall(
                    f"POST /signalr?id={token} HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n{{".encode()
                )
                return read_head(connection)

        assert (await run_sync(trickle)).split()[1] == "408"
        # What it began is no message: the next post goes on behind it, and is refused.
        await run_sync(partial(post, content=b'"protocol":"json","version":1}\x1e'))
        assert (await run_sync(get)).content == b"{}\x1e"


async def test_a_stateful_client_gets_what_it_missed_once_and_in_order(hub: fanwire.Hub) -> None:
    known: list[fanwire.Client] = []

    @hub.method("Watch")
    def watch(client: fanwire.Client, channel: str) -> None:
        known.append(client)
        hub.subscribe(client, channel)

    async with hub.serve(ANY) as serving:
        reply = await run_sync(partial(negotiate, serving.address, query="&useStatefulReconnect=true"))
        assert reply["useStatefulReconnect"] is True
        target = f"/signalr?id={reply['connectionToken']}"
        async with connected(serving.address, target) as peer:
            client = HubClient(peer)
            await client.send({"protocol": "json", "version": 2})
            assert await client.receive() == {}
            assert await client.invoke("Watch", "odds") == {"result": None}
            for number in range(3):
                hub.publish("odds", number, event="Odds")
            assert [(await client.receive())["arguments"] for _ in range(3)] == [[0], [1], [2]]
            await client.send({"type": 8, "sequenceId": 2})
            await run_sync(peer.break_off)
            await until(lambda: hub.stats().connections == 0)
            hub.publish("odds", 3, event="Odds")
            known[0].send(4, event="Private")
        async with connected(serving.address, target) as peer:
            client = HubClient(peer)
            assert await client.receive() == {"type": 9, "sequenceId": 3}
            missed = [(await client.receive())["arguments"] for _ in range(4)]
            assert missed[:2] == [[1], [2]]
            assert sorted(missed[2:]) == [[3], [4]]
            await client.send({"type": 9, "sequenceId": 2})
            assert await client.invoke("Watch", "odds") == {"result": None}
            assert known[0] is known[1]
            hub.publish("odds", 5, event="Odds")
            assert (await client.receive())["arguments"] == [5]
            await client.send({"type": 9, "sequenceId": 9})
            assert (await client.receive())["type"] in (7, 8)


async def test_calls_that_waited_when_a_stateful_client_was_lost_are_carried_out_once(hub: fanwire.Hub) -> None:
    """More than are worked on at once, and the last one is cut in half: the client sends them all again."""
    has_begun, may_end = anyio.Event(), anyio.Event()

    @hub.method("Number")
    async def number(client: fanwire.Client, number: int) -> int:
        has_begun.set()
        await may_end.wait()
        return number

    calls = [{"type": 1, "invocationId": f"{n}", "target": "Number", "arguments": [n]} for n in range(40)]
    said = "".join(f"{json.dumps(call)}\x1e" for call in calls)
    async with hub.serve(ANY) as serving:
        reply = await run_sync(partial(negotiate, serving.address, query="&useStatefulReconnect=true"))
        target = f"/signalr?id={reply['connectionToken']}"
        async with connected(serving.address, target) as peer:
            await HubClient(peer).send({"protocol": "json", "version": 2})
            await peer.send(said[:-20])
            await has_begun.wait()
            await run_sync(peer.break_off)
            await until(lambda: hub.stats().connections == 0)
        async with connected(serving.address, target) as peer:
            client = HubClient(peer)
            await peer.send('{"type":9,"sequenceId":1}\x1e' + said)
            may_end.set()
            results: list[int] = []
            while len(results) < len(calls):
                message = await client.receive()
                assert message["type"] in (3, 8, 9), message
                results += [message["result"]] if message["type"] == 3 else []
            assert results == list(range(40))


async def test_a_stateful_client_that_acknowledges_nothing_is_bounded(hub: fanwire.Hub) -> None:
    hub.method("Echo")(lambda client, text: text)
    async with hub.serve(ANY, outbox_bytes_max=50_000) as serving:
        reply = await run_sync(partial(negotiate, serving.address, query="&useStatefulReconnect=true"))
        async with connected(serving.address, f"/signalr?id={reply['connectionToken']}") as peer:
            client = HubClient(peer)
            await client.send({"protocol": "json", "version": 2})
            assert await client.receive() == {}
            echo = {"type": 1, "invocationId": "1", "target": "Echo", "arguments": ["x" * 20_000]}
            for _ in range(7):
                await client.send(echo)
                while (await client.receive())["type"] != 3:
                    pass
            await client.send(echo)
            while (message := await client.receive())["type"] != 7:
                pass
            assert "not acknowledged" in message["error"] and message["allowReconnect"]


async def test_what_waits_for_a_poller_is_bounded_by_the_log_and_the_outbox(hub: fanwire.Hub) -> None:
    known: list[fanwire.Client] = []
    hub.method("Hello")(lambda client: known.append(client))
    async with hub.serve(ANY, outbox_bytes_max=10_000) as serving:
        token = (await run_sync(negotiate, serving.address))["connectionToken"]
        url = f"http://{serving.address}/signalr?id={token}"
        get = partial(httpx.get, url, trust_env=False)
        assert (await run_sync(get)).content == b""
        hello = b'{"protocol":"json","version":1}\x1e{"type":1,"target":"Hello","arguments":[]}\x1e'
        assert (await run_sync(partial(httpx.post, url, content=hello, trust_env=False))).status_code == 200
        await until(lambda: known)
        for _ in range(30):
            known[0].send("x" * 1_000)
        body = (await run_sync(get)).content
        assert b'"type":7' in body and len(body) < 20_000
        assert (await run_sync(get)).status_code in (204, 404)


@pytest.mark.parametrize("protocol", ["json", "messagepack"])
@pytest.mark.slow
async def test_the_load_client_negotiates_invokes_and_has_each_publication_once(
    hub: fanwire.Hub, protocol: str
) -> None:
    @hub.method("Subscribe")
    def subscribe(client: fanwire.Client, match: str) -> None:
        hub.subscribe(client, match)
        client.send({"match": match}, event="Snapshot")

    @hub.method("Publish")
    def publish(client: fanwire.Client, match: str, count: int) -> None:
        for number in range(count):
            hub.publish(match, {"match": match, "s": number}, event="Odds")

    commands: list[dict[str, object]] = [
        {"invoke": {"target": "Subscribe", "arguments": ["m1"], "calls": 50}},
        {"invoke": {"target": "Publish", "arguments": ["m1", 20], "calls": 1}},
        {"expect": 20},
        {"expect": 0},
    ]
    async with hub.serve(ANY) as serving:
        command = [sys.executable, "-m", "fanwire", "load", "signalr", "--url", f"ws://{serving.address}/signalr"]
        told = "".join(f"{json.dumps(line)}\n" for line in commands).encode()
        done = await anyio.run_process([*command, "--protocol", protocol, "--connections", "50"], input=told)
    connected, subscribed, published, _, complete, _, rest = map(json.loads, done.stdout.splitlines())
    assert (connected["connected"], connected["failed"]) == (50, 0)
    assert subscribed["invoked"].items() >= {"calls": 50, "failed": 0}.items()
    assert published["invoked"].items() >= {"calls": 1, "failed": 0}.items()
    assert complete["complete"].items() >= {"lowest": 20, "highest": 20, "closed": 0}.items()
    assert rest["complete"].items() >= {"lowest": 0, "highest": 0, "closed": 0}.items()


async def test_who_begins_with_a_post_is_the_user_that_was_authenticated(hub: fanwire.Hub) -> None:
    hub.authenticate(lambda request: request.headers.get("authorization", "").removeprefix("Bearer ") or None)

    @hub.method
    def who(client: fanwire.Client) -> str | None:
        return client.identity.id if client.identity else None

    async with hub.serve(ANY) as serving:

        def play() -> str:
            url, call = (
                f"http://{serving.address}/signalr",
                '{"type":1,"invocationId":"1","target":"who","arguments":[]}',
            )
            with httpx.Client(headers={"Authorization": "Bearer alice"}, trust_env=False) as http:
                token = http.post(f"{url}/negotiate?negotiateVersion=1").json()["connectionToken"]
                polled = f"{url}?id={token}"
                records = f'{{"protocol":"json","version":1}}\x1e{call}\x1e'
                assert http.post(polled, content=records).status_code == 200
                came = ""
                while '"type":3' not in came:
                    came += http.get(polled).text
                return came

        assert '"result":"alice"' in await run_sync(play)
