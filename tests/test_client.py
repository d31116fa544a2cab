"""The client as the application holds it."""

import anyio
import fanwire
import pytest
from support.clients import connected, settle
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


@pytest.fixture
def clients(hub: fanwire.Hub) -> list[fanwire.Client]:
    """Those that sent something, in order."""
    known: list[fanwire.Client] = []

    @hub.on_message
    def remember(client: fanwire.Client, data: str) -> None:
        if client.data is None:
            client.data = {"first": data}
            known.append(client)

    return known


async def test_send_reaches_this_client_alone(hub: fanwire.Hub, clients: list[fanwire.Client]) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address) as one, connected(serving.address) as other:
        await one.send("hello")
        await until(lambda: clients)
        clients[0].send("text")
        clients[0].send(b"bytes")
        hub.send(clients[0], {"an": "object"})
        assert await one.receive_all(3) == ["text", b"bytes", '{"an":"object"}']
        await other.send_json(call="x", id=1)
        assert "error" in await other.receive_json()


async def test_an_object_goes_out_in_the_format_that_the_client_speaks(
    hub: fanwire.Hub, clients: list[fanwire.Client]
) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?format=msgpack") as peer:
        await peer.send("hello")
        await until(lambda: clients)
        clients[0].send({"an": "object"})
        assert await peer.receive() == b"\x81\xa2an\xa6object"


async def test_what_has_no_json_form_is_refused(hub: fanwire.Hub, clients: list[fanwire.Client]) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send("hello")
        await until(lambda: clients)
        with pytest.raises(fanwire.UnsupportedType):
            clients[0].send(object())


async def test_what_one_callback_says_comes_in_its_order(hub: fanwire.Hub, clients: list[fanwire.Client]) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send("hello")
        await until(lambda: clients)
        for turn in range(20):
            clients[0].send(f"private before {turn}")
            hub.subscribe(clients[0], "odds")
            hub.publish("odds", f"published {turn}")
            clients[0].send(f"private after {turn}")
            hub.unsubscribe(clients[0], "odds")
            hub.publish("odds", "for nobody")
            assert await peer.receive_all(3) == [
                f"private before {turn}",
                f"published {turn}",
                f"private after {turn}",
            ]
            await settle(hub, serving.address)  # the order is that of the calls while nothing else moves


async def test_a_short_subscription_sees_what_was_published_meanwhile_and_nothing_else(
    hub: fanwire.Hub, clients: list[fanwire.Client]
) -> None:
    async with (
        hub.serve(ANY) as serving,
        connected(serving.address) as peer,
        connected(serving.address, "/ws?channel=odds") as watcher,
    ):
        await peer.send("hello")
        await until(lambda: clients and hub.occupancy("odds") == 1)
        for turn in range(200):
            hub.publish("odds", "before")
            hub.subscribe(clients[0], "odds")
            hub.publish("odds", f"published {turn}")
            hub.unsubscribe(clients[0], "odds")
            hub.publish("odds", "after")
            assert await peer.receive() == f"published {turn}"
        assert (await watcher.receive_all(600))[-2:] == ["published 199", "after"]


async def test_send_from_another_thread(hub: fanwire.Hub, clients: list[fanwire.Client]) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send("hello")
        await until(lambda: clients)
        await anyio.to_thread.run_sync(clients[0].send, "from a thread")
        assert await peer.receive() == "from a thread"


async def test_close_sends_what_was_sent_before_then_code_and_reason(
    hub: fanwire.Hub, clients: list[fanwire.Client]
) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send("hello")
        await until(lambda: clients)
        clients[0].send("last words")
        clients[0].close(4001, "enough")
        assert await peer.receive() == "last words"
        assert await peer.closed() == (4001, "enough")


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (1006, ""), (999, ""), (5000, ""), (1000, "x" * 124)])
async def test_a_close_that_may_not_be_sent_is_refused(
    hub: fanwire.Hub, clients: list[fanwire.Client], code: int, reason: str
) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send("hello")
        await until(lambda: clients)
        with pytest.raises(ValueError):
            clients[0].close(code, reason)


async def test_channels_are_live(hub: fanwire.Hub, clients: list[fanwire.Client]) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
        await peer.send("hello")
        await until(lambda: clients)
        client = clients[0]
        assert client.channels == ["a"]
        hub.subscribe(client, "b")
        hub.publish("b", "x")
        assert await peer.receive() == "x"
        assert sorted(client.channels) == ["a", "b"]
        hub.unsubscribe(client, "a")
        await until(lambda: client.channels == ["b"])
        with pytest.raises(fanwire.InvalidChannel):
            hub.subscribe(client, "")


async def test_one_that_is_gone_takes_everything_and_does_nothing(
    hub: fanwire.Hub, clients: list[fanwire.Client]
) -> None:
    async with hub.serve(ANY) as serving:
        async with connected(serving.address) as peer:
            await peer.send("hello")
            await until(lambda: clients)
        await until(lambda: hub.stats().connections == 0)
        client = clients[0]
        client.send("x")
        client.close()
        hub.subscribe(client, "a")
        assert client.channels == []
        assert hub.occupancy("a") == 0
    client.send("x")
    client.close()
    assert client.channels == []
    with pytest.raises(fanwire.HubStopped):
        hub.send(client, "x")


async def test_data_is_kept_and_identity_is_none_for_the_anonymous(
    hub: fanwire.Hub, clients: list[fanwire.Client]
) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send("first")
        await peer.send("second")
        await until(lambda: clients)
        assert len(clients) == 1
        assert clients[0].data == {"first": "first"}
        assert clients[0].identity is None
        assert repr(clients[0]) == f"<Client {clients[0]} anonymous>"
