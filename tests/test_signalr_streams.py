"""Streams of methods: cancelled as they begin, failing before they begin, and all the ways to give one."""

import asyncio
import functools
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

import anyio
import fanwire
import pytest
from support.hub_client import HubClient, hub_client
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
STREAMING_FAILED = "An error occurred on the server while streaming results."


def stream(target: str, *arguments: object, id: str = "s", **more: object) -> dict[str, Any]:
    """A call for a stream."""
    return {"type": 4, "invocationId": id, "target": target, "arguments": arguments, **more}


def cancel(id: str = "s") -> dict[str, Any]:
    """That no more is wanted of it."""
    return {"type": 5, "invocationId": id}


async def outcome(client: HubClient, id: str = "s") -> tuple[list[Any], str | None]:
    """All items of a stream, and its error."""
    items: list[Any] = []
    while (message := await client.receive())["type"] == 2:
        assert message["invocationId"] == id
        items.append(message["item"])
    assert (message["type"], message["invocationId"], message.get("result")) == (3, id, None)
    return items, message.get("error")


async def test_a_stream_cancelled_in_the_same_read_runs_to_its_first_await(hub: fanwire.Hub) -> None:
    seen: list[str] = []

    def ended(error: BaseException) -> None:
        seen.append(type(error).__name__)

    @hub.method
    async def ticks(client: fanwire.Client) -> AsyncIterator[int]:
        try:
            yield 0
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as error:
            ended(error)
            raise
        finally:
            seen.append("finally")

    @hub.method
    async def waits_first(client: fanwire.Client) -> AsyncIterator[int]:
        seen.append("began")
        try:
            await anyio.sleep_forever()
            yield 0
        finally:
            seen.append("finally")

    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        for _ in range(20):
            await client.send(stream("ticks"), cancel())
            assert await outcome(client) == ([0], None)
            assert [name in ("CancelledError", "Cancelled", "finally") for name in seen] == [True, True]
            assert seen.pop() == "finally"
            seen.clear()
            await client.send(stream("waits_first"), cancel())
            assert await outcome(client) == ([], None)
            assert seen == ["began", "finally"]
            seen.clear()
        await client.send(*(stream("ticks", id=str(id)) for id in range(10)), *(cancel(str(id)) for id in range(10)))
        received = [await client.receive() for _ in range(20)]
        assert sorted(message["invocationId"] for message in received if message["type"] == 2) == list("0123456789")
        assert sorted(message["invocationId"] for message in received if message["type"] == 3) == list("0123456789")


async def test_a_stream_may_fail_before_there_is_one(hub: fanwire.Hub, caplog: pytest.LogCaptureFixture) -> None:
    async def numbers(most: int) -> AsyncIterator[int]:
        for number in range(most):
            yield number

    @hub.method
    async def checked(client: fanwire.Client, most: int) -> AsyncIterator[int]:
        await anyio.lowlevel.checkpoint()
        if most > 3:
            raise fanwire.HubError("too many")
        return numbers(most)

    @hub.method
    def plain(client: fanwire.Client, most: int) -> AsyncIterable[int]:
        if most > 3:
            raise KeyError("secret")
        return numbers(most)

    @hub.method
    def nothing(client: fanwire.Client) -> AsyncIterator[int]:
        return None  # type: ignore[return-value]

    @hub.method
    async def at_once(client: fanwire.Client) -> AsyncIterator[int]:
        raise fanwire.HubError("at once")
        yield 0

    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        for target in ("checked", "plain"):
            await client.send(stream(target, 3))
            assert await outcome(client) == ([0, 1, 2], None)
            await client.send({"type": 1, "invocationId": "i", "target": target, "arguments": [1]})
            text = f"The client attempted to invoke the streaming '{target}' method with a non-streaming invocation."
            assert (await client.receive())["error"] == text
        unexpected = "An unexpected error occurred invoking '{}' on the server."
        await client.send(stream("checked", 4))
        assert await outcome(client) == ([], unexpected.format("checked") + " HubException: too many")
        await client.send(stream("at_once"))
        assert await outcome(client) == ([], f"{STREAMING_FAILED} HubException: at once")
        assert not caplog.records
        with caplog.at_level(logging.ERROR, "fanwire"):
            await client.send(stream("plain", 4))
            assert await outcome(client) == ([], unexpected.format("plain"))
            text = (
                "The value returned by the streaming method 'nothing' is not a ChannelReader<> or IAsyncEnumerable<>."
            )
            for _ in range(3):
                await client.send(stream("nothing"))
                assert await outcome(client) == ([], text)
        assert "secret" in caplog.text
        assert caplog.text.count("method 'nothing', a stream, returned NoneType") == 1


async def test_whatever_is_an_async_generator_is_a_stream(hub: fanwire.Hub) -> None:
    class Counting:
        async def __call__(self, client: fanwire.Client, most: int) -> AsyncIterator[int]:
            for number in range(most):
                yield number

    async def to(client: fanwire.Client, most: int, step: int) -> AsyncIterator[int]:
        for number in range(0, most, step):
            yield number

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def log(client: fanwire.Client, *arguments: Any) -> Any:
            return function(client, *arguments)

        return log

    hub.method("object")(Counting())
    hub.method("partial")(functools.partial(to, step=2))
    hub.method("wrapped")(logged(Counting().__call__))
    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        for target, items in [("object", [0, 1, 2, 3]), ("partial", [0, 2]), ("wrapped", [0, 1, 2, 3])]:
            await client.send(stream(target, 4))
            assert await outcome(client) == (items, None)


async def test_large_items_wait_for_the_client_and_do_not_close_it(hub: fanwire.Hub) -> None:
    made = 0

    @hub.method
    async def large(client: fanwire.Client) -> AsyncIterator[str]:
        nonlocal made
        for _ in range(20):
            made += 1
            yield "x" * 40_000

    # 20 of them are three times what may wait for a client; ten streams at once are all bounded together.
    async with hub.serve(ANY, drain_timeout=0.2) as serving, hub_client(serving.address) as client:
        await client.send(*(stream("large", id=str(id)) for id in range(10)))
        ended: list[str] = []
        items = 0
        while len(ended) < 10:
            message = await client.receive()
            if message["type"] == 2:
                items += 1
            else:
                assert "error" not in message
                ended.append(message["invocationId"])
        assert items == made == 200
        await until(lambda: hub.stats().connections == 1)


async def test_a_stream_that_cleans_up_after_its_client_left_is_let_to(hub: fanwire.Hub) -> None:
    cleaned: list[str] = []

    async def clean() -> None:
        await anyio.lowlevel.checkpoint()
        cleaned.append("up")

    @hub.method
    async def forever(client: fanwire.Client) -> AsyncIterator[int]:
        try:
            yield 0
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await clean()

    async with hub.serve(ANY) as serving:
        async with hub_client(serving.address) as client:
            await client.send(stream("forever"))
            assert (await client.receive())["item"] == 0
        await until(lambda: cleaned)


async def test_an_item_without_a_form_is_told_of_once_as_what_a_method_gave(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[str] = []

    @hub.method
    async def echoes(client: fanwire.Client, what: Any) -> AsyncIterator[Any]:
        try:
            yield 1
            yield what
        finally:
            ends.append("closed")

    @hub.method
    async def raises(client: fanwire.Client) -> AsyncIterator[Any]:
        yield 1
        raise ValueError("its own")

    hub.on_connect(lambda client: None)
    async with hub.serve(ANY, formats=("json", "msgpack")) as serving, hub_client(serving.address) as client:
        for number in range(1, 6):
            await client.send(stream("echoes", 2**70))
            assert await outcome(client) == ([1], STREAMING_FAILED)
            await until(lambda number=number: len(ends) == number)
        (record,) = caplog.records
        assert (record.levelno, record.name) == (logging.WARNING, "fanwire.hub")
        (served,) = hub.clients()
        assert record.getMessage().startswith(f"an item that stream 'echoes' gave client {served} cannot be sent: ")
        await client.send(stream("raises"))
        assert await outcome(client) == ([1], STREAMING_FAILED)
        assert caplog.records[-1].getMessage() == f"method 'raises', called by client {served}, raised"
        assert caplog.records[-1].exc_info


async def test_a_stream_that_does_not_let_go_holds_the_end_up_no_longer_than_other_callbacks(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    class Endless:
        def __aiter__(self) -> "Endless":
            return self

        async def __anext__(self) -> int:
            return await anyio.sleep_forever()

        async def aclose(self) -> None:
            seen.append("begun")
            await anyio.lowlevel.checkpoint()
            seen.append("not cancelled at once")
            await anyio.sleep_forever()

    @hub.method
    def endless(client: fanwire.Client) -> AsyncIterator[int]:
        seen.append("called")
        return Endless()

    serving = await hub.start(ANY, drain_timeout=0.3)
    async with hub_client(serving.address) as client:
        await client.send(stream("endless"))
        await until(lambda: seen)
    await until(lambda: len(seen) == 3)
    with anyio.fail_after(60):
        await hub.stop()
    assert "stream 'endless' of client" in caplog.text
    assert "was still being closed when time was up" in caplog.text


@pytest.mark.parametrize("stray", [SystemExit, asyncio.CancelledError, GeneratorExit])
async def test_what_a_stream_raises_as_it_is_closed_is_its_own_and_its_client_is_told(
    hub: fanwire.Hub, stray: type[BaseException]
) -> None:
    class Items:
        def __aiter__(self) -> "Items":
            return self

        async def __anext__(self) -> int:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            raise stray

    @hub.method
    def odd(client: fanwire.Client) -> AsyncIterator[int]:
        return Items()

    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        await client.send(stream("odd"))
        items, error = await outcome(client)
        assert items == []
        assert error == STREAMING_FAILED
        assert await client.invoke("nothing") == {
            "error": "Failed to invoke 'nothing' due to an error on the server. HubException: Method does not exist."
        }
