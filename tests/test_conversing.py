"""``@hub.client``: a function of the application that lasts as long as its client."""

import logging

import anyio
import fanwire
import pytest
from fanwire.testing import serving
from support.clients import connected, settle
from support.hub_client import hub_client
from support.hubs import MakeHub
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


async def test_messages_come_one_by_one_and_leaving_ends_the_loop(hub: fanwire.Hub) -> None:
    said: list[object] = []
    ended: list[fanwire.Client] = []

    @hub.on_connect
    def greet(client: fanwire.Client) -> None:
        client.data = "greeted"

    @hub.client
    async def talk(client: fanwire.Client) -> None:
        said.append(client.data)
        async for message in client:
            said.append(message)
            await anyio.lowlevel.checkpoint()
            client.send(f"{message!r} it is")
        ended.append(client)

    async with hub.serve(ANY) as serving_:
        async with connected(serving_.address) as one, connected(serving_.address) as other:
            for message in ("a", b"b", "c"):
                await one.send(message)
            assert await one.receive_all(3) == ["'a' it is", "b'b' it is", "'c' it is"]
            await other.send("d")
            assert await other.receive() == "'d' it is"
            assert not ended and len(hub.clients()) == 2
        await until(lambda: len(ended) == 2)
    assert said == ["greeted", "greeted", "a", b"b", "c", "d"]


async def test_who_does_not_ask_for_the_next_message_is_not_read(make_hub: MakeHub) -> None:
    hub = make_hub(messages_pending_max=2)
    may_go_on, asked = anyio.Event(), 0

    @hub.client
    async def slow(client: fanwire.Client) -> None:
        nonlocal asked
        async for _ in client:
            asked += 1
            await may_go_on.wait()
        client.data = "over"

    async with hub.serve(ANY) as serving_, connected(serving_.address) as peer:
        for number in range(20):
            await peer.send(str(number))
        await until(hub.clients)
        (client,) = hub.clients()
        await until(lambda: asked == 1 and len(client._waiting or ()) == 1)
        await settle(hub, serving_.address)
        assert asked == 1 and len(client._waiting or ()) == 1
        may_go_on.set()
        await until(lambda: asked == 20)


async def test_where_the_function_ends_the_client_is_closed(hub: fanwire.Hub) -> None:
    @hub.client
    async def one_question(client: fanwire.Client) -> None:
        async for message in client:
            client.send(f"{message}? no")
            break

    async with hub.serve(ANY) as serving_, connected(serving_.address) as peer:
        await peer.send("may I")
        assert await peer.receive() == "may I? no"
        assert await peer.closed() == (1000, "")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (fanwire.Refused("not you"), 1008, "not you"),
        (fanwire.HubError("enough"), 1008, "enough"),
        (ZeroDivisionError("secret"), 1011, "internal error"),
        (SystemExit(3), 1011, "internal error"),
    ],
)
async def test_what_it_raises_ends_that_client_alone(
    hub: fanwire.Hub, error: BaseException, code: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.client
    async def talk(client: fanwire.Client) -> None:
        async for message in client:
            if message == "raise":
                raise error
            client.send(message)

    async with hub.serve(ANY) as serving_, connected(serving_.address) as one, connected(serving_.address) as other:
        with caplog.at_level(logging.ERROR, "fanwire"):
            await one.send("raise")
            assert await one.closed() == (code, reason)
        assert ("raised" in caplog.text) == (code == 1011)
        await other.send("still here")
        assert await other.receive() == "still here"


async def test_a_signalr_client_has_its_calls_beside_it(hub: fanwire.Hub) -> None:
    ended: list[str] = []

    @hub.method
    def double(client: fanwire.Client, number: int) -> int:
        return 2 * number

    @hub.client
    async def talk(client: fanwire.Client) -> None:
        client.send("hello", event="Greeting")
        async for _ in client:
            raise AssertionError("its messages are calls")
        ended.append(str(client.hub_protocol))

    async with hub.serve(ANY) as serving_:
        async with hub_client(serving_.address) as client:
            assert (await client.receive())["target"] == "Greeting"
            assert await client.invoke("double", 4) == {"result": 8}
        await until(lambda: ended)
    assert ended == ["json"]


async def test_when_serving_ends_the_loop_ends_and_what_then_stays_is_cancelled(make_hub: MakeHub) -> None:
    hub = make_hub(drain_timeout=2)  # so long its client may take to answer
    ends: list[str] = []

    @hub.client
    async def talk(client: fanwire.Client) -> None:
        try:
            async for _ in client:
                pass
            ends.append("loop")
            await anyio.sleep_forever()
        finally:
            ends.append("cancelled")

    serving_ = await hub.start(ANY)
    async with connected(serving_.address) as peer:
        await peer.send_json(subscribe=["a"], id=1)
        await peer.receive_json()
        await hub.stop()
    assert ends == ["loop", "cancelled"]


async def test_a_refused_client_has_no_function(hub: fanwire.Hub) -> None:
    begun: list[fanwire.Client] = []

    @hub.on_connect
    def refuse(client: fanwire.Client) -> None:
        raise fanwire.Refused("no")

    @hub.client
    async def talk(client: fanwire.Client) -> None:
        begun.append(client)

    async with hub.serve(ANY) as serving_, connected(serving_.address) as peer:
        assert await peer.closed() == (1008, "no")
    assert begun == []


def test_messages_go_to_one_of_them() -> None:
    async def talk(client: fanwire.Client) -> None:
        raise AssertionError

    hub = fanwire.Hub()
    with pytest.raises(TypeError, match="client 'len' must be an `async def`: it lasts as long as its client"):
        hub.client(len)  # type: ignore[arg-type]
    hub.client(talk)
    with pytest.raises(ValueError, match="client is registered already"):
        hub.client(talk)
    with pytest.raises(ValueError, match="on_message cannot be registered beside client: what clients send goes to"):
        hub.on_message(lambda client, data: None)
    hub = fanwire.Hub()
    hub.on_message(lambda client, data: None)
    with pytest.raises(ValueError, match="client cannot be registered beside on_message"):
        hub.client(talk)


async def test_elsewhere_a_client_is_not_read(hub: fanwire.Hub) -> None:
    told: list[str] = []

    @hub.on_connect
    async def read(client: fanwire.Client) -> None:
        try:
            async for _ in client:
                raise AssertionError
        except TypeError as error:
            told.append(str(error))

    async with serving(hub) as server, server.connect():
        await until(lambda: told)
    assert told[0].endswith("is read in the function that @hub.client registers; none is at work for it")
