"""Who is connected, with which request: Hub.clients, disconnect_user, Client.request, subscribe; Stats that print."""

import fanwire
import pytest
from fanwire.logs import name_of
from support.clients import connected
from support.hub_client import hub_client
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


def who(request: fanwire.Request) -> str | None:
    """The user of the query."""
    return request.query.get("user")


async def test_clients_are_found_by_user_and_forgotten_when_they_go(hub: fanwire.Hub) -> None:
    hub.authenticate(who)
    async with hub.serve(ANY) as serving:
        address = serving.address
        async with connected(address, "/ws?user=ann"), connected(address, "/ws?user=ann") as second:
            async with connected(address, "/ws?user=bob"), connected(address):
                await until(lambda: len(hub.clients()) == 4)
                assert [client.identity for client in hub.clients("ann")] == [fanwire.Identity("ann")] * 2
                assert len(hub.clients(fanwire.Identity("bob"))) == 1
                assert hub.clients("cid") == []
                with pytest.raises(ValueError, match="anonymous"):
                    hub.clients(fanwire.Identity(None))
            await until(lambda: len(hub.clients()) == 2)
            assert hub.clients("bob") == []
            await second.close()
            await until(lambda: len(hub.clients("ann")) == 1)
        await until(lambda: hub.clients() == [])
    with pytest.raises(fanwire.HubStopped):
        hub.clients()


async def test_a_user_who_signs_out_is_closed_everywhere_and_nobody_else(hub: fanwire.Hub) -> None:
    hub.authenticate(who)
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?user=bob") as bob:
        async with (
            connected(serving.address, "/ws?user=ann") as one,
            connected(serving.address, "/ws?user=ann") as two,
            hub_client(serving.address, query="?user=ann") as three,  # it has called nothing yet
        ):
            await until(lambda: len(hub.clients("ann")) == 3)
            assert hub.disconnect_user("ann", 4001, "signed out") == 3
            assert [await one.closed(), await two.closed()] == [(4001, "signed out")] * 2
            assert (await three.receive())["type"] == 7
        await until(lambda: hub.clients("ann") == [])
        assert hub.disconnect_user("ann") == 0
        hub.clients("bob")[0].send("you stay")
        assert await bob.receive() == "you stay"


async def test_a_client_that_was_turned_away_is_not_there(hub: fanwire.Hub) -> None:
    seen: list[list[fanwire.Client]] = []

    @hub.on_connect
    def greet(client: fanwire.Client) -> None:
        seen.append(hub.clients())
        raise fanwire.Refused("full")

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        assert await peer.closed() == (1008, "full")
        assert [len(found) for found in seen] == [1]
        assert hub.clients() == []


async def test_where_nobody_is_asked_about_clients_are_not_known(hub: fanwire.Hub) -> None:
    hub.on_message(lambda client, data: None)
    async with hub.serve(ANY):
        with pytest.raises(LookupError, match="is registered; none is"):
            hub.clients()


@pytest.mark.parametrize("is_async", [False, True])
async def test_on_connect_and_later_callbacks_have_the_request(hub: fanwire.Hub, is_async: bool) -> None:
    seen: dict[str, object] = {}

    def look(what: str, client: fanwire.Client) -> None:
        request = client.request
        seen[what] = (request.path, request.query.get("tenant"), request.headers["x-tag"], request.cookies["a"])

    if is_async:

        @hub.on_connect
        async def greet(client: fanwire.Client) -> None:
            look("on_connect", client)
    else:
        hub.on_connect(lambda client: look("on_connect", client))
    hub.on_message(lambda client, data: look("on_message", client))
    hub.on_disconnect(lambda client, gone: look("on_disconnect", client))

    @hub.method
    def call(client: fanwire.Client) -> None:
        look("method", client)

    options = {"additional_headers": {"X-Tag": "7", "Cookie": "a=b"}}
    async with hub.serve(ANY) as serving:
        async with connected(serving.address, "/ws?tenant=t1", **options) as peer:
            await peer.send("x")
            await peer.send_json(call="call", id=1)
            assert await peer.receive_json() == {"id": 1, "result": None}
        await until(lambda: "on_disconnect" in seen)
        assert seen == dict.fromkeys(("on_connect", "on_message", "method", "on_disconnect"), ("/ws", "t1", "7", "b"))
        seen.clear()
        async with hub_client(serving.address, query="?tenant=t2", **options) as client:
            assert (await client.invoke("call"))["result"] is None
        await until(lambda: "on_disconnect" in seen)
        expected = ("/signalr", "t2", "7", "b")
        assert seen == dict.fromkeys(("on_connect", "method", "on_disconnect"), expected)


async def test_a_request_that_nothing_could_use_is_not_kept(hub: fanwire.Hub) -> None:
    hub.authenticate(who)
    async with hub.serve(ANY) as serving, connected(serving.address):
        await until(hub.clients)
        with pytest.raises(LookupError, match="kept only where"):
            _ = hub.clients()[0].request


async def test_a_client_subscribes_and_unsubscribes(hub: fanwire.Hub) -> None:
    @hub.on_connect
    def greet(client: fanwire.Client) -> None:
        client.subscribe("news")

    async with hub.serve(ANY, channels_max=100) as serving, connected(serving.address) as peer:
        await until(lambda: hub.occupancy("news"))
        hub.publish("news", "x")
        assert await peer.receive() == "x"
        client = hub.clients()[0]
        with pytest.raises(fanwire.InvalidChannel):
            client.subscribe("")
        client.unsubscribe("news")
        await until(lambda: not hub.occupancy("news"))
    client.subscribe("news")  # it is gone, and that is no error
    client.unsubscribe("news")


async def test_a_client_prints_as_logs_name_it(hub: fanwire.Hub) -> None:
    assert name_of(3 << 48 | 2 << 24 | 17) == "c17@2/3"
    hub.authenticate(who)
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?user=ann"):
        await until(hub.clients)
        client = hub.clients()[0]
        assert str(client) == name_of(client.id)
        assert repr(client) == f"<Client {client} 'ann'>"


async def test_a_log_names_a_client_so_too(hub: fanwire.Hub, caplog: pytest.LogCaptureFixture) -> None:
    hub.authenticate(who)

    @hub.on_message
    def fail(client: fanwire.Client, data: str | bytes) -> None:
        raise KeyError(data)

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send("x")
        await peer.receive()
        assert f"on_message 'fail', for client {hub.clients()[0]}, raised" in caplog.text


async def test_stats_print(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY) as serving:
        async with connected(serving.address, "/ws?channel=a") as peer:
            hub.publish("a", "x")
            await peer.receive()
            await until(lambda: hub.stats().deliveries)
            stats = hub.stats()
        await until(lambda: not hub.stats().connections)
        assert repr(stats) == ("<Stats connections=1 subscriptions=1 channels=1 publications=1 deliveries=1 lagging=0>")
        lines = dict(line.split(maxsplit=1) for line in str(hub.stats()).splitlines())
        assert lines["connections_total"] == "1"
        assert lines["closes"] == "1000: 1"
        assert lines["poller"] == serving.poller
        assert " of " in lines["completion"]
