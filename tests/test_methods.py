"""Calls from clients of the raw protocol."""

import logging
import math

import anyio
import fanwire
import pytest
from support.clients import Peer, connected

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


async def answer(peer: Peer, target: str, *args: object, id: object = 1) -> object:
    """Call, and what is answered, without the id."""
    await peer.send_json(call=target, args=args, id=id)
    reply = await peer.receive_json()
    assert reply.pop("id") == id
    return reply


async def test_the_result_is_the_reply(hub: fanwire.Hub) -> None:
    @hub.method("PlaceBet")
    async def place_bet(client: fanwire.Client, match: str, stake: float = 1.0) -> dict[str, object]:
        await anyio.lowlevel.checkpoint()
        return {"match": match, "stake": stake}

    @hub.method
    def nothing(client: fanwire.Client) -> None: ...

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        assert await answer(peer, "PlaceBet", "7", 2.5) == {"result": {"match": "7", "stake": 2.5}}
        assert await answer(peer, "PlaceBet", "7", id="a string") == {"result": {"match": "7", "stake": 1.0}}
        assert await answer(peer, "nothing") == {"result": None}


async def test_wrong_arguments_and_unknown_methods_are_named(hub: fanwire.Hub) -> None:
    @hub.method
    def add(client: fanwire.Client, left: int, right: int) -> int:
        return left + right

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        assert await answer(peer, "add", 1) == {"error": "method 'add': missing a required argument 'right'"}
        assert await answer(peer, "add", 1, 2, 3) == {
            "error": "method 'add': too many arguments: 3, at most 2 are taken"
        }
        assert await answer(peer, "sub", 1, 2) == {"error": "no method 'sub'"}
        assert await answer(peer, "add", 1, 2) == {"result": 3}


async def test_call_failed_is_told_and_other_exceptions_are_not(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.method
    def told(client: fanwire.Client) -> None:
        raise fanwire.CallFailed("the market is closed")

    @hub.method
    async def untold(client: fanwire.Client) -> None:
        raise TypeError("the database's password")

    @hub.method
    def unsendable(client: fanwire.Client) -> object:
        return [math.nan, object()]

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        assert await answer(peer, "told") == {"error": "the market is closed"}
        assert not caplog.records
        with caplog.at_level(logging.WARNING, "fanwire"):
            assert await answer(peer, "untold") == {"error": "internal error"}
            assert "TypeError: the database's password" in caplog.text
            caplog.clear()
            assert await answer(peer, "unsendable") == {"error": "internal error"}
            assert "unsendable" in caplog.text


async def test_without_an_id_there_is_no_reply_but_errors_are_logged(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.method
    def fail(client: fanwire.Client) -> None:
        raise ZeroDivisionError

    @hub.method
    def work(client: fanwire.Client) -> int:
        return 1

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send_json(call="fail")
        await peer.send_json(call="work")
        await peer.send_json(call="unknown")
        assert await answer(peer, "work", id=9) == {"result": 1}
        assert "ZeroDivisionError" in caplog.text


async def test_calls_of_one_client_are_answered_in_order(hub: fanwire.Hub) -> None:
    @hub.method
    async def slow(client: fanwire.Client, number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return number

    @hub.method
    def quick(client: fanwire.Client, number: int) -> int:
        return number

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        for number in range(40):
            await peer.send_json(call="slow" if number % 3 else "quick", args=[number], id=number)
        assert [(await peer.receive_json())["result"] for _ in range(40)] == list(range(40))


async def test_a_method_that_gives_back_what_it_got_does_not_fill_the_log(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.method
    def echo(client: fanwire.Client, what: object) -> object:
        return what

    hub.on_connect(lambda client: None)
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        for _ in range(20):
            assert await answer(peer, "echo", 2**70) == {"error": "internal error"}
        (client,) = hub.clients()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage().startswith(f"what method 'echo' returned to client {client} cannot be sent: ")
        assert client._link.faults.counts == {"method.result": 20}
