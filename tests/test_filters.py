"""Tags and filters, by every way that Python has: who gets what, and what is wrong with a call."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from support.clients import connected
from support.hubs import MakeHub
from support.redis import needs_redis, redis_server

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
LEAGUE = {"league": "x"}


def query(**filter: Any) -> str:
    """The query of one that watches ``a``."""
    return f"/ws?channel=a&filter={quote(json.dumps(filter))}"


def put(hub: fanwire.Hub, text: str, **tags: Any) -> fanwire.Position:
    """Publish in ``a``."""
    return hub.publish("a", text, tags=tags)


async def test_clients_and_the_hub_say_what_passes(make_hub: MakeHub) -> None:
    hub = make_hub({"*": fanwire.Channel(history=100)})
    clients: list[fanwire.Client] = []
    hub.on_connect(clients.append)
    async with hub.serve(ANY) as serving:
        put(hub, "old", league="x")
        async with (
            connected(serving.address, query(league=["x", "y"], odds={"min": 2})) as asked,
            connected(serving.address) as told,
            connected(serving.address) as by_message,
        ):
            await by_message.send_json(subscribe=["a"], filter={"team": {"prefix": "in"}}, id=1)
            assert (await by_message.receive_json())["result"] == {"subscribed": ["a"]}
            hub.subscribe(clients[1], "a", filter={"live": True}, start="live")
            for text, tags in {
                "1": {"league": "x", "odds": 2, "live": True},
                "2": {"league": "z", "odds": 9, "live": 1, "team": "inter"},
                "3": {"league": "y", "odds": 1.5, "live": False, "team": "milan"},
                "4": {},
                "5": {"league": "y", "odds": 2.5, "live": True, "team": "in"},
            }.items():
                put(hub, text, **tags)
            assert await asked.receive_all(2) == ["1", "5"]
            assert await told.receive_all(2) == ["1", "5"]
            assert await by_message.receive_all(2) == ["2", "5"]
            clients[1].unsubscribe("a")
            clients[1].subscribe("a", filter=LEAGUE, start="history")
            assert await told.receive_all(2) == ["old", "1"]


async def test_what_authorize_returns_nobody_gets_around(make_hub: MakeHub) -> None:
    hub = make_hub()

    @hub.authorize
    def may_watch(client: fanwire.Client, channel: str) -> Any:
        return {"free": {"public": True}, "no": False, "none": None, "bad": {"public": []}}.get(channel, True)

    async with (
        hub.serve(ANY) as serving,
        connected(serving.address, "/ws?channel=free") as plain,
        connected(serving.address, f"/ws?channel=free&filter={quote(json.dumps(LEAGUE))}") as asked,
        connected(serving.address) as by_message,
    ):
        await by_message.send_json(subscribe=["free", "open", "no"], filter=LEAGUE, id=1)
        assert (await by_message.receive_json())["error"] == "not authorized for channel 'no'"
        for channel, text, tags in (
            ("free", "1", {"league": "x"}),
            ("free", "2", {"public": True}),
            ("open", "3", {"league": "x"}),
            ("free", "4", {"public": True, "league": "x"}),
        ):
            hub.publish(channel, text, tags=tags)
        assert await plain.receive_all(2) == ["2", "4"]
        assert await asked.receive() == "4"
        assert sorted(await by_message.receive_all(2)) == ["3", "4"]  # of two channels


async def test_an_event_stream_says_its_filter_in_the_query(make_hub: MakeHub) -> None:
    hub = make_hub({"*": fanwire.Channel(history=100, start="history")})

    def first(address: str) -> str:
        target = f"http://{address}/events?channel=a&filter={quote(json.dumps(LEAGUE))}"
        with httpx.stream("GET", target) as response:
            return next(line for line in response.iter_lines() if line.startswith("data"))

    async with hub.serve(ANY) as serving:
        put(hub, "no", league="y")
        put(hub, "yes", league="x")
        assert await run_sync(first, serving.address) == "data: yes"
        bad = f"http://{serving.address}/events?channel=a&filter=%5B%5D"
        response = await run_sync(httpx.get, bad)
        assert (response.status_code, response.text) == (400, "filter must be an object of JSON: got an array\n")


async def test_one_filter_too_many_is_its_own_clients_error(make_hub: MakeHub) -> None:
    hub = make_hub({"*": fanwire.Channel(filters_max=1)})
    clients: list[fanwire.Client] = []
    hub.on_connect(clients.append)
    async with hub.serve(ANY) as serving, connected(serving.address, query(league="x")) as first:
        async with connected(serving.address, query(league=["x"])) as same:
            put(hub, "1", league="x")
            assert (await first.receive(), await same.receive()) == ("1", "1")
            await same.send_json(unsubscribe=["a"], id=1)
            assert (await same.receive_json())["result"] == {"unsubscribed": ["a"]}
            with pytest.raises(fanwire.LimitReached, match="filters_max: 2 is over the bound of 1"):
                clients[1].subscribe("a", filter={"league": "y"})
            hub.subscribe(clients[1], "a")
            put(hub, "2", league="y")
            assert await same.receive() == "2"
        put(hub, "3", league="x")
        assert await first.receive() == "3"


async def test_what_is_wrong_with_tags_and_filters_is_named(make_hub: MakeHub) -> None:
    hub = make_hub({"board": fanwire.Channel(policy="latest")})
    clients: list[fanwire.Client] = []
    hub.on_connect(clients.append)
    async with hub.serve(ANY) as serving, connected(serving.address):
        for tags, error in {
            "x": "tags must be a dict of names",
            (("a", None),): 'tag "a": expected a str, an int, a float or a bool, not NoneType',
            (("a", 1 << 60),): 'tag "a": a whole number is within ±9007199254740992, not 1152921504606846976',
            (("a", float("nan")),): 'tag "a": a number must be finite, not NaN',
            (("", 1),): 'tag "": a name has 1 to 64 bytes of UTF-8, not 0',
            (("a", "x" * 256),): 'tag "a": a text of 256 bytes is over the bound of 255',
            tuple((str(n), n) for n in range(17)): "tags: 17 are over the bound of 16",
        }.items():
            given: Any = dict(tags) if isinstance(tags, tuple) else tags
            with pytest.raises((TypeError, ValueError), match="(?i)" + _escaped(error)):
                hub.publish("a", "x", tags=given)
            with pytest.raises((TypeError, ValueError)):
                hub.publish_many("a", ["x"], tags=given)
            with pytest.raises((TypeError, ValueError)):
                hub.remove("board", key="k", tags=given)
        with pytest.raises(ValueError, match="tags mean nothing to to"):
            hub.publish(fanwire.to.user("ann"), "x", tags={"a": 1})
        filters: list[tuple[Any, str]] = [
            ("x", "filter must be a dict"),
            ({"a": []}, "an empty array lets nothing through"),
            ({"a": object()}, "of what JSON has"),
            ({"a": {"min": 2, "max": 1}}, "nothing is from 2 to 1"),
        ]
        for filter, error in filters:
            with pytest.raises((TypeError, ValueError), match=error):
                hub.subscribe(clients[0], "a", filter=filter)


def _escaped(text: str) -> str:
    return text.replace("(", r"\(").replace(")", r"\)").replace(".", r"\.")


async def test_delivered_waits_for_those_whose_filter_it_passes(make_hub: MakeHub) -> None:
    hub = make_hub({"*": fanwire.Channel(history=10)})
    async with (
        hub.serve(ANY) as serving,
        connected(serving.address, query(league="x")) as first,
        connected(serving.address, query(league="y")) as other,
    ):
        assert hub.occupancy("a") == 2
        delivery = await hub.delivered(put(hub, "1", league="x"))
        assert (delivery.subscribers, delivery.skipped) == (1, 0)
        assert await first.receive() == "1"
        put(hub, "2", league="y")
        assert await other.receive() == "2"


@needs_redis
async def test_tags_go_wherever_a_publication_goes(tmp_path: Path) -> None:
    """To hubs of a backbone from a publisher and from any language; to an edge, and into what both keep."""
    channels = {"*": fanwire.Channel(history=100, start="history")}
    with redis_server(tmp_path) as redis:
        hub = fanwire.Hub(channels, backbone=redis.url)
        async with hub.serve(ANY) as serving, fanwire.Publisher(redis.url) as publisher:
            edge = fanwire.Hub(channels, backbone=f"fanwire://{serving.address}")
            async with edge.serve(ANY) as at_edge, connected(at_edge.address, query(n={"max": 4})) as below:
                await hub.publish("a", "0", tags={"n": 5})
                await hub.publish("a", "1", tags={"n": 1})
                await publisher.apublish("a", "2", tags={"n": 2})
                await publisher.apublish("a", "3", tags={"n": 7})
                await publisher.apublish_many("a", ["4", "5"], tags={"n": 4})
                assert await below.receive_all(4) == ["1", "2", "4", "5"]
                async with connected(serving.address, query(n=[2, 7])) as kept:
                    assert await kept.receive_all(2) == ["2", "3"]
                async with connected(at_edge.address, query(n=[5, 7])) as kept:
                    assert await kept.receive_all(2) == ["0", "3"]
