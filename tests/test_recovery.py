"""Who comes back with a position, by every way that there is, and what Python hears of it."""

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import fanwire
import httpx
import msgpack
import pytest
from anyio.to_thread import run_sync
from support.chromium import CHROMIUM, chromium
from support.clients import connected
from support.hub_client import hub_client
from support.hubs import MakeHub
from support.raw import open_socket, read_head
from support.waiting import until, until_in_thread

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


def recovering(make_hub: MakeHub, **promise: Any) -> fanwire.Hub:
    """A hub with a history."""
    return make_hub({"*": fanwire.Channel(**{"history": 100, **promise})})


async def test_what_was_missed_comes_first_then_live_though_python_decides(make_hub: MakeHub) -> None:
    hub = recovering(make_hub)

    @hub.authenticate
    async def who(request: fanwire.Request) -> str:
        await anyio.lowlevel.checkpoint()
        return "ann"

    @hub.authorize
    async def may_watch(client: fanwire.Client, channel: str) -> bool:
        hub.publish(channel, "while it is decided")
        await anyio.lowlevel.checkpoint()
        return channel != "secret"

    async with hub.serve(ANY) as serving:
        positions = {name: hub.publish_many(name, ["1", "2", "3"]) for name in ("a", "b")}
        (epoch, offset), (other, _) = positions["a"][1], positions["b"][2]
        async with connected(serving.address, f"/ws?channel=a&since={epoch}-{offset}") as peer:
            result = (await peer.receive_json())["result"]
            assert result == {"subscribed": ["a"], "recovered": {"a": True}, "positions": {"a": [epoch, offset]}}
            assert await peer.receive_all(2) == ["3", "while it is decided"]
            await peer.send_json(subscribe=["b"], since={"b": [other, 1], "else": [1, 1]}, id=7)
            result = await peer.receive_json()
            assert result["result"]["recovered"] == {"b": True}
            assert await peer.receive_all(3) == ["2", "3", "while it is decided"]
            await peer.send_json(subscribe=["secret"], since={"secret": [1, 1]}, id=8)
            assert (await peer.receive_json())["error"] == "not authorized for channel 'secret'"
            hub.publish("b", "live")
            assert await peer.receive() == "live"


async def test_many_at_once_cost_python_their_authentication_alone(make_hub: MakeHub) -> None:
    hub = recovering(make_hub)
    heard: list[str] = []
    hub.authenticate(lambda request: heard.append(request.path))
    async with hub.serve(ANY, shards=2) as serving, AsyncExitStack() as stack:
        epoch, offset = hub.publish_many("a", [str(n) for n in range(50)])[9]
        peers = [
            await stack.enter_async_context(connected(serving.address, f"/ws?channel=a&since={epoch}-{offset}"))
            for _ in range(60)
        ]
        for peer in peers:
            assert (await peer.receive_json())["result"]["recovered"] == {"a": True}
            assert await peer.receive_all(40) == [str(n) for n in range(10, 50)]
        assert heard == ["/ws"] * 60


async def test_an_event_source_comes_back_with_its_last_event(make_hub: MakeHub) -> None:
    hub = recovering(make_hub)

    def events(address: str, last_id: str, count: int, query: str = "") -> list[str]:
        with open_socket(address) as stream:
            field = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
            stream.sendall(f"GET /events?channel=a{query} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n".encode())
            read_head(stream)
            text = b""
            while text.count(b"\n\n") < 1 + count:
                text += stream.recv(1)
            comment, *found, _ = text.decode().split("\n\n")
            assert comment == ":"  # a proxy sends the head when something follows it
            return found

    async with hub.serve(ANY) as serving:
        epoch, _ = hub.publish_many("a", ["1", "2", "3"])[0]
        told, *missed = await run_sync(events, serving.address, f"{epoch}-1", 3)
        assert told.startswith("event: subscribed\ndata: {") and '"recovered":{"a":true}' in told
        assert missed == [f"id: {epoch}-2\ndata: 2", f"id: {epoch}-3\ndata: 3"]
        for name in ("lastEventId", "lastEventID"):  # as polyfills and Mercure's clients send it
            _, *missed = await run_sync(events, serving.address, "", 2, f"&since={epoch}-1&{name}={epoch}-2")
            assert missed == [f"id: {epoch}-3\ndata: 3"]
        _, *missed = await run_sync(events, serving.address, f"{epoch}-2", 2, f"&lastEventId={epoch}-1")
        assert missed == [f"id: {epoch}-3\ndata: 3"], "the header goes first"
        for stranger in ("nonsense", "1-1", f"{epoch}-99", "9" * 30 + "-1"):
            (told,) = await run_sync(events, serving.address, stranger, 1)
            assert '"recovered":{"a":false}' in told


STREAM = """
(() => {
  window.seen = [];
  window.source = new EventSource("/events?channel=a&channel=b");
  source.onmessage = (event) => seen.push(event.data);
  source.addEventListener("subscribed", (event) => seen.push(JSON.parse(event.data).recovered));
})()
"""


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_in_a_browser_each_channel_of_an_event_source_is_recovered(tmp_path: Path) -> None:
    hub = fanwire.Hub({"*": fanwire.Channel(history=100)})
    clients: list[fanwire.Client] = []
    hub.on_connect(clients.append)

    def look(address: str) -> list[object]:
        with chromium(tmp_path) as tab:
            tab.open(f"http://{address}/")
            until_in_thread(lambda: tab.evaluate("location.port") != "")
            tab.evaluate(f"void {STREAM.strip()}")
            until_in_thread(lambda: hub.occupancy("b") == 1)
            hub.publish("a", "a1")
            hub.publish("b", "b1")
            until_in_thread(lambda: tab.evaluate("seen.length") == 2)
            hub.disconnect(clients[0])
            until_in_thread(lambda: hub.occupancy("b") == 0)
            for channel, text in (("b", "b2"), ("a", "a2"), ("b", "b3")):
                hub.publish(channel, text)
            until_in_thread(lambda: tab.evaluate("seen.length") == 6)  # it comes back after three seconds
            return list(tab.evaluate("seen"))

    async with hub.serve(ANY, drain_timeout=0.5) as serving:
        seen = await run_sync(look, serving.address)
    assert seen[:2] == ["a1", "b1"]
    assert seen[2] == {"a": True, "b": True}
    assert [text for text in seen[3:] if str(text).startswith("a")] == ["a2"]
    assert [text for text in seen[3:] if str(text).startswith("b")] == ["b2", "b3"]


async def test_the_application_recovers_a_client_of_any_protocol(make_hub: MakeHub) -> None:
    hub = recovering(make_hub)

    @hub.method
    def watch(client: fanwire.Client, channel: str, epoch: int, offset: int) -> None:
        hub.subscribe(client, channel, since=fanwire.Position(epoch, offset), start="history")

    async with hub.serve(ANY) as serving, hub_client(serving.address, "/signalr") as client:
        epoch, _ = hub.publish_many("a", [{"n": 1}, {"n": 2}, {"n": 3}], event="odds")[0]
        await client.send({"type": 1, "invocationId": "1", "target": "watch", "arguments": ["a", epoch, 1]})
        seen = [await client.receive() for _ in range(3)]
        assert [one["arguments"] for one in seen if one["type"] == 1] == [[{"n": 2}], [{"n": 3}]]
        hub.publish("b", {"n": 1}, event="odds")
        await client.send({"type": 1, "target": "watch", "arguments": ["b", 1, 1]})
        assert (await client.receive())["arguments"] == [{"n": 1}], "another epoch: from the start, as it was said"


async def test_envelopes_tell_what_since_takes(make_hub: MakeHub) -> None:
    hub = recovering(make_hub)
    async with hub.serve(ANY) as serving, AsyncExitStack() as stack:
        async with connected(serving.address, "/ws?channel=other&format=msgpack"):
            await until(lambda: hub.occupancy("other") == 1)  # from now on MessagePack is kept, too
        hub.publish("a", {"n": 1})
        targets = ("/ws?channel=a&envelope=1&start=history", "/ws?channel=a&envelope=1&format=msgpack&start=history")
        json_peer, msgpack_peer = [
            await stack.enter_async_context(connected(serving.address, target)) for target in targets
        ]
        position = hub.publish("a", b"\x00\xff", event="bytes", keyframe=True)
        where = [position.epoch, position.offset]
        assert (await json_peer.receive_json())["data"] == {"n": 1}
        enveloped = await json_peer.receive_json()
        assert enveloped == {"channel": "a", "position": where, "event": "bytes", "keyframe": True, "base64": "AP8="}
        frames = await msgpack_peer.receive_all(2)
        assert msgpack.unpackb(frames[0])["data"] == {"n": 1}
        assert msgpack.unpackb(frames[1]) == {
            "channel": "a",
            "position": where,
            "event": "bytes",
            "keyframe": True,
            "data": b"\x00\xff",
        }
        await json_peer.send_json(call="none", id=1)
        assert await json_peer.receive_json() == {"id": 1, "error": "no method 'none'"}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"since": {"a": [1, -1]}}, 'since["a"]: expected [epoch, offset] as two whole numbers, got an array'),
        (
            {"since": {"b": [1, 1], "é": [1, 2**64]}},
            'since["é"]: expected [epoch, offset] as two whole numbers, got an array',
        ),
        ({"since": {"a": "1-1"}}, 'since["a"]: expected [epoch, offset] as two whole numbers, got a string'),
        ({"since": [1, 1]}, "since: expected an object of [epoch, offset], got an array"),
        ({"start": "now"}, 'start "now": there are live, keyframe and history'),
        ({"start": 1}, "start: expected a string, got a number"),
    ],
)
async def test_a_bad_request_is_an_error_that_names_it(hub: fanwire.Hub, request_: dict[str, Any], error: str) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws") as peer:
        await peer.send_json(subscribe=["a"], id=1, **request_)
        assert await peer.receive_json() == {"id": 1, "error": error}
        await peer.send_json(subscribe=["a"], id=2)
        assert await peer.receive_json() == {"id": 2, "result": {"subscribed": ["a"]}}


async def test_what_is_too_old_by_age_is_not_recovered(make_hub: MakeHub) -> None:
    hub = recovering(make_hub, history_age=0.1)
    async with hub.serve(ANY) as serving:
        epoch, offset = hub.publish_many("a", ["1", "2"])[0]

        async def is_recovered() -> bool:
            async with connected(serving.address, f"/ws?channel=a&since={epoch}-{offset}") as peer:
                return bool((await peer.receive_json())["result"]["recovered"]["a"])

        with anyio.fail_after(60):
            while await is_recovered():
                pass


async def test_a_start_that_does_not_exist_is_a_value_error(hub: fanwire.Hub) -> None:
    errors: list[str] = []

    @hub.method
    def watch(client: fanwire.Client) -> None:
        try:
            hub.subscribe(client, "a", start="now")
        except ValueError as error:
            errors.append(str(error))

    async with hub.serve(ANY) as serving, connected(serving.address, "/ws") as peer:
        await peer.send_json(call="watch")
        await until(lambda: errors)
    assert errors == ["start must be 'live', 'keyframe', 'history' or None, not 'now'"]


async def test_a_client_that_polls_is_recovered_too(make_hub: MakeHub) -> None:
    hub = recovering(make_hub)

    @hub.method
    def watch(client: fanwire.Client, epoch: int) -> None:
        hub.subscribe(client, "a", since=fanwire.Position(epoch, 1))

    def poll(address: str, epoch: int) -> str:
        url = f"http://{address}/signalr"
        with httpx.Client(trust_env=False, timeout=100) as http:
            polled = f"{url}?id={http.post(f'{url}/negotiate?negotiateVersion=1').json()['connectionToken']}"
            http.get(polled)
            call = {"type": 1, "target": "watch", "arguments": [epoch]}
            records = "".join(json.dumps(one) + "\x1e" for one in ({"protocol": "json", "version": 1}, call))
            assert http.post(polled, content=records).status_code == 200
            came = ""
            while '"3"' not in came:
                came += http.get(polled).text
            return came

    async with hub.serve(ANY) as serving:
        epoch, _ = hub.publish_many("a", ["1", "2", "3"], event="odds")[0]
        came = await run_sync(poll, serving.address, epoch)
        messages = [json.loads(record) for record in came.split("\x1e") if '"odds"' in record]
        assert [message["arguments"] for message in messages] == [["2"], ["3"]]
