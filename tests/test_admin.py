"""The admin side by real sockets: what is seen, what is done, lists while clients come and go. Who may ask is in
test_admin_door.py, several workers in test_admin_workers.py."""

import errno
import json
import socket
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire.cli.instance import Instance
from fanwire.logs import hub_log
from support.administered import administered, config
from support.clients import connected
from support.raw import open_socket, read_head, upgraded
from support.waiting import until

pytestmark = pytest.mark.anyio

MARKUP = '<img src=x onerror="alert(1)">&amp;'


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def overseen(*channels: Any, **options: Any) -> fanwire.Hub:
    return fanwire.Hub(*channels, admin=config(), **options)


async def answer(asked: httpx.AsyncClient, path: str, **query: Any) -> Any:
    response = await asked.get(path, params=query)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


async def done(client: httpx.AsyncClient, path: str, body: Any, status: int = 200, **headers: str) -> Any:
    response = await client.post(path, json=body, headers=headers)
    assert response.status_code == status, response.text
    if status != 200:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == status
    return response.json()


def stream(address: str, channel: str) -> socket.socket:
    connection = open_socket(address)
    connection.sendall(f"GET /events?channel={channel} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    read_head(connection)
    return connection


async def test_what_is_published_is_seen_where_it_goes() -> None:
    hub = overseen({"odds:*": fanwire.Channel(history=10, policy="latest")})
    async with administered(hub) as (serving, client), connected(serving.address, "/ws?channel=odds:7") as peer:
        told = await done(client, "/api/publish", {"channel": "odds:7", "data": {"home": 1.85}, "key": "home"})
        assert await peer.receive_json() == {"home": 1.85}
        (row,) = (await answer(client, "/api/channels"))["channels"]
        assert row["channel"] == "odds:7" and row["pattern"] == "odds:*" and row["policy"] == "latest"
        assert (row["subscribers"], row["published"], row["workers"]) == (1, 1, [0])
        assert row["position"] == told["position"] and row["kept"] == 1
        one = await answer(client, "/api/channel", channel="odds:7")
        by_time = {name: one[name] for name in ("rate", "deliveries", "idle")}
        assert one == {**row, **by_time}
        history = await answer(client, "/api/history", channel="odds:7")
        assert [one["data"] for one in history["publications"]] == [{"home": 1.85}] and history["complete"]
        (row,) = (await answer(client, "/api/clients"))["clients"]
        assert (row["channels"], row["transport"], row["protocol"]) == (["odds:7"], "websocket", "raw")
        assert row["path"] == "/ws" and row["lag"] is None and row["sent_bytes"] > 100 and row["since"] > 1.7e9
        assert await answer(client, "/api/client", client=row["client"])
        stats = await answer(client, "/api/stats")
        assert (stats["connections"], stats["publications"], stats["workers"]) == (1, 1, [0])
        assert (await answer(client, "/api/workers"))["workers"][0]["connections"] == 1


async def test_each_kind_of_data_goes_out_as_hub_publish_has_it() -> None:
    async with administered(overseen()) as (serving, client), connected(serving.address, "/ws?channel=c") as peer:
        bodies = ["text", {"base64": "AAH/"}, {"base64": "AAH/", "more": 1}, [1, None], 1.5, None]
        publications = [{"channel": "c", "data": data} for data in bodies]
        told = await done(client, "/api/publish_many", {"publications": publications})
        assert [position.partition("-")[2] for position in told["positions"]] == list("123456")
        got = await peer.receive_all(6)
        assert got[:2] == ["text", b"\x00\x01\xff"]
        assert [json.loads(one) for one in got[2:]] == bodies[2:]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"data": 1}, "invalid_value"),
        ({"channel": "c", "user": "u", "data": 1}, "invalid_value"),
        ({"user": "u", "data": 1}, "invalid_value"),
        ({"channel": "a*", "data": 1}, "invalid_channel"),
        ({"channel": "c\n", "data": 1}, "invalid_channel"),
        ({"channel": "c"}, "invalid_value"),
        ({"channel": "c", "data": 1, "what": 2}, "invalid_value"),
        ({"channel": "c", "data": 1, "ttl": 0}, "invalid_value"),
        ({"channel": "c", "data": 1, "event": "a\nb"}, "invalid_value"),
        ({"channel": "c", "data": {"base64": "!"}}, "invalid_value"),
        ([1], "invalid_value"),
    ],
)
async def test_what_cannot_be_published_is_told_by_its_code(body: Any, code: str) -> None:
    async with administered(overseen()) as (_, client):
        assert (await done(client, "/api/publish", body, 400))["code"] == code
        assert (await answer(client, "/api/stats"))["publications"] == 0


async def test_of_several_none_is_published_where_one_is_for_nobody() -> None:
    async with administered(overseen()) as (_, client):
        many = [{"channel": "c", "data": 1}, {"channel": "c*", "data": 1}]
        assert (await done(client, "/api/publish_many", {"publications": many}, 400))["code"] == "invalid_channel"
        assert (await answer(client, "/api/stats"))["publications"] == 0


async def test_a_body_that_is_no_json_is_told() -> None:
    async with administered(overseen()) as (_, client):
        for body in (b"{", b"\xff", b"", b'{"a":' * 100_000):
            response = await client.post("/api/publish", content=body, headers={"Content-Type": "application/json"})
            assert (response.status_code, response.json()["code"]) in ((400, "bad_json"), (400, "invalid_value"))


async def test_a_client_is_sent_to_subscribed_and_closed_by_its_id() -> None:
    hub = overseen()
    async with administered(hub) as (serving, client), connected(serving.address) as peer:
        (row,) = (await answer(client, "/api/clients"))["clients"]
        id = row["client"]
        assert await done(client, "/api/send", {"client": id, "data": {"to": "you"}}) == {}
        assert await peer.receive_json() == {"to": "you"}
        assert await done(client, "/api/subscribe", {"client": id, "channel": "c"}) == {}
        await done(client, "/api/publish", {"channel": "c", "data": "one"})
        assert await peer.receive() == "one"
        assert await done(client, "/api/unsubscribe", {"client": id, "channel": "c"}) == {}
        assert await done(client, "/api/disconnect", {"client": id, "code": 4001, "reason": "go"}) == {"closed": 1}
        assert await peer.closed() == (4001, "go")
        await until(lambda: hub.stats().connections == 0)
        for path in ("send", "subscribe", "unsubscribe", "disconnect"):
            body = {
                "client": id,
                **({"data": 1} if path == "send" else {}),
                **({"channel": "c"} if "sub" in path else {}),
            }
            assert (await done(client, f"/api/{path}", body, 404))["code"] == "no_such_client"
        assert (await client.get("/api/client", params={"client": id})).status_code == 404


async def test_a_user_is_found_published_to_and_closed() -> None:
    hub = overseen()

    @hub.authenticate
    def authenticate(request: fanwire.Request) -> fanwire.Identity:
        return fanwire.Identity(request.query["user"])

    async with (
        administered(hub) as (serving, client),
        connected(serving.address, "/ws?user=anna") as anna,
        connected(serving.address, "/ws?user=ben"),
    ):
        rows = (await answer(client, "/api/clients", user="anna"))["clients"]
        assert [row["user"] for row in rows] == ["anna"]
        assert len((await answer(client, "/api/clients"))["clients"]) == 2
        assert await done(client, "/api/publish", {"user": "anna", "data": "hello"}) == {"position": None}
        assert await anna.receive() == "hello"
        assert await done(client, "/api/disconnect", {"user": "anna"}) == {"closed": 1}
        assert (await anna.closed())[0] == 1008


async def test_who_reads_too_slowly_is_seen_with_the_reason() -> None:
    hub = overseen()
    async with administered(hub) as (serving, client), connected(serving.address, "/ws?channel=c") as quick:
        slow = await run_sync(lambda: upgraded(serving.address, "/ws?channel=c", receive_buffer=4_096))
        with slow:
            host, port = slow.getsockname()[:2]

            async def lagging(**query: str) -> list[dict[str, Any]]:
                rows = (await answer(client, "/api/clients", **query))["clients"]
                return [row for row in rows if row["address"] == f"{host}:{port}"]

            while not (found := await lagging(lagging="true")):
                hub.publish("c", "x" * 60_000)
                await quick.receive()
            (row,) = found
            lag = row["lag"]
            assert (lag["why"], lag["channel"]) == ("socket_full", "c") and lag["bytes"] > 0
            assert "its socket is full" in lag["text"]
            for sort in ("lag", "lag_bytes"):
                assert [one["client"] for one in await lagging(sort=sort)] == [row["client"]]
            assert len((await answer(client, "/api/clients"))["clients"]) == 2
            await done(client, "/api/disconnect", {"client": row["client"]})
            await run_sync(slow.shutdown, socket.SHUT_RDWR)
        await until(lambda: hub.stats().connections == 1)


async def test_a_list_has_each_client_that_stays_once_while_others_come_and_go() -> None:
    hub = overseen()
    async with administered(hub) as (serving, client):
        stay, go, rows, after = [], [], [], None
        for number in range(30):
            (stay if number % 2 else go).append(await run_sync(stream, serving.address, f"c{number}"))
        try:
            while True:
                page = await answer(client, "/api/clients", limit=4, **({"after": after} if after else {}))
                assert len(page["clients"]) <= 4
                rows += page["clients"]
                after = page["next"]
                if after is None:
                    break
                if go:
                    go.pop(0).close()
                    stay_not = await run_sync(stream, serving.address, "late")
                    stay_not.close()
        finally:
            for one in stay + go:
                one.close()
        names = [row["channels"][0] for row in rows if row["channels"]]
        assert sorted(name for name in names if name in {f"c{n}" for n in range(1, 30, 2)}) == sorted(
            f"c{number}" for number in range(1, 30, 2)
        )
        assert len({row["client"] for row in rows}) == len(rows)


async def test_a_list_has_each_channel_that_stays_once_while_others_are_made() -> None:
    hub = overseen()
    async with administered(hub) as (_, client):
        for number in range(200):
            hub.publish(f"c{number}", number)
        names: list[str] = []
        after: str | None = None
        while True:
            page = await answer(client, "/api/channels", limit=17, **({"after": after} if after else {}))
            names += [row["channel"] for row in page["channels"]]
            hub.publish(f"late{len(names)}", 0)
            after = page["next"]
            if after is None:
                break
        known = [name for name in names if not name.startswith("late")]
        assert sorted(known) == sorted(f"c{number}" for number in range(200))
        assert len(set(names)) == len(names)
        some = await answer(client, "/api/channels", match="c1*5", limit=500)
        assert sorted(row["channel"] for row in some["channels"]) == sorted(
            f"c{number}" for number in range(200) if str(number).startswith("1") and str(number).endswith("5")
        )


async def test_everything_asked_for_at_once_is_a_page() -> None:
    async with administered(overseen()) as (_, client):
        for path in ("/api/clients", "/api/channels", "/api/lanes"):
            response = await client.get(path, params={"limit": "501"})
            assert (response.status_code, response.json()["code"]) == (400, "invalid_value")
            for cursor in ("x", "gqFz", "a" * 9_000, "é"):
                response = await client.get(path, params={"after": cursor})
                assert response.status_code in (400, 414), cursor  # a longer one is no target that HTTP takes


async def test_the_rate_of_a_channel_is_known_to_who_asks_again() -> None:
    hub = overseen()
    async with administered(hub) as (_, client):
        hub.publish("c", 1)
        assert (await answer(client, "/api/channel", channel="c"))["rate"] is None

        async def rate() -> Any:
            hub.publish("c", 1)
            return (await answer(client, "/api/channel", channel="c"))["rate"]

        with anyio.fail_after(60):
            while await rate() is None:
                pass


async def test_history_goes_on_behind_a_position() -> None:
    hub = overseen({"c": fanwire.Channel(history=5)})
    async with administered(hub) as (_, client):
        positions = [hub.publish("c", number).position for number in range(8)]
        newest = await answer(client, "/api/history", channel="c", limit=2)
        assert [one["data"] for one in newest["publications"]] == [6, 7] and not newest["complete"]
        texts = [f"{one.epoch}-{one.offset}" for one in positions]
        behind = await answer(client, "/api/history", channel="c", since=texts[4])
        assert [one["data"] for one in behind["publications"]] == [5, 6, 7] and behind["complete"]
        lost = await answer(client, "/api/history", channel="c", since=texts[0])
        assert not lost["complete"]
        first = await answer(client, "/api/history", channel="c", since=texts[4], limit=1)
        assert [one["data"] for one in first["publications"]] == [5] and not first["complete"]
        response = await client.get("/api/history", params={"channel": "nobody"})
        assert (response.status_code, response.json()["code"]) == (404, "no_such_channel")


async def test_presence_is_told_where_there_is_one() -> None:
    hub = overseen({"room:*": fanwire.Channel(presence=True)})

    @hub.authenticate
    def authenticate(request: fanwire.Request) -> fanwire.Identity:
        return fanwire.Identity(MARKUP)

    async with administered(hub) as (serving, client), connected(serving.address, "/ws?channel=room:1"):
        await until(lambda: hub.presence("room:1") != [])
        assert await answer(client, "/api/presence", channel="room:1") == {
            "channel": "room:1",
            "count": 1,
            "users": [MARKUP],
        }
        response = await client.get("/api/presence", params={"channel": "c"})
        assert (response.status_code, response.json()["code"]) == (404, "no_presence")


async def test_markup_in_names_stays_a_text() -> None:
    async with administered(overseen()) as (_, client):
        response = await client.post("/api/publish", json={"channel": MARKUP, "data": MARKUP, "event": MARKUP})
        assert response.status_code == 200
        response = await client.get("/api/channels")
        assert response.json()["channels"][0]["channel"] == MARKUP
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-type"] == "application/json"
        response = await client.get("/api/history", params={"channel": MARKUP + "<"})
        assert response.headers["content-type"] == "application/problem+json"


async def test_settings_have_their_source_and_no_secret() -> None:
    hub = fanwire.Hub(admin=config(token="secret-of-20-letters-"), ping_interval=7.5)
    async with administered(hub, "secret-of-20-letters-") as (_, client):
        rows = {row["key"]: row for row in (await answer(client, "/api/settings"))["settings"]}
        assert rows["ping_interval"] == {"key": "ping_interval", "value": "7.5", "source": "program"}
        assert rows["ping_timeout"]["source"] == "default"
        assert "secret-of-20" not in json.dumps(rows)


async def test_a_thousand_requests_beside_a_fan_out_disturb_nobody() -> None:
    hub = overseen()
    async with administered(hub) as (serving, client), connected(serving.address, "/ws?channel=c") as peer:
        asked: list[int] = []

        async def ask(path: str) -> None:
            for _ in range(125):
                asked.append((await client.get(path)).status_code)

        async with anyio.create_task_group() as tasks:
            for path in ("/api/stats", "/api/clients", "/api/channels", "/api/clients?sort=sent") * 2:
                tasks.start_soon(ask, path)
            for number in range(500):
                hub.publish("c", number)
                if number % 10 == 0:
                    await anyio.lowlevel.checkpoint()
            assert [int(one) for one in await peer.receive_all(500)] == list(range(500))
        assert len(asked) == 1_000 and set(asked) == {200}
        assert hub.stats().closes == {}


async def test_the_live_stream_tells_numbers_the_log_and_a_channel() -> None:
    hub = overseen()
    async with administered(hub) as (serving, client):
        seen: dict[str, Any] = {}

        def watch(address: str) -> None:
            for event, told in Instance(address, {}).events("stats", "tail:c", "log"):
                if event and event not in seen:
                    hub.publish("c", {"now": 1})
                    hub_log.warning("a line of %s", "the log")
                seen.setdefault(event, told)
                if len(seen) == 4:
                    return

        await run_sync(watch, serving.admin[0])
        assert seen["stats"]["workers"] == [0]
        assert seen["publication"]["channel"] == "c" and seen["publication"]["data"] == {"now": 1}
        assert seen["log"]["text"] == "a line of the log" and seen["log"]["level"] == "warning"
        for query in ([("channel", "other")], [("channel", "tail:")]):
            assert (await client.get("/api/live", params=query)).status_code == 403


async def test_it_ends_with_the_hub_and_begins_anew_with_it() -> None:
    hub = overseen()
    for _ in range(2):
        async with administered(hub) as (serving, client):
            (address,) = serving.admin
            assert (await answer(client, "/api/stats"))["connections"] == 0
        host, _, port = address.rpartition(":")
        with socket.socket() as late:
            assert late.connect_ex((host, int(port))) == errno.ECONNREFUSED


async def test_without_it_nothing_of_it_is_on_the_public_side(hub: fanwire.Hub) -> None:
    async with hub.serve("127.0.0.1:0") as serving, httpx.AsyncClient(trust_env=False) as client:
        assert serving.admin == ()
        for path in ("/api/stats", "/api/clients", "/api/openapi.json", "/console"):
            assert (await client.get(f"http://{serving.address}{path}")).status_code == 404
    overseer = overseen()
    async with administered(overseer) as (serving, client):
        assert (await client.get(f"http://{serving.address}/api/stats")).status_code == 404
        assert (await client.get("/healthz")).status_code == 200
        for path in ("/ws", "/events?channel=stats", "/metrics"):
            assert (await client.get(path)).status_code == 404, path


async def test_other_methods_are_told_which_there_are() -> None:
    async with administered(overseen()) as (_, client):
        for method, path, allowed in (("PUT", "/api/stats", "GET"), ("GET", "/api/publish", "POST")):
            response = await client.request(method, path)
            assert (response.status_code, response.headers["allow"]) == (405, allowed)
        response = await client.head("/api/stats")
        assert response.status_code == 200 and response.content == b""
