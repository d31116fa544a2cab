"""Two tasks of the application that read from one place: one of them is told, and none waits for ever."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import fanwire
import pytest
from support.clients import connected
from support.hub_client import hub_client
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
TOLD = "is read by another task already"


async def read_twice(items: AsyncIterator[Any], taken: list[Any], errors: list[str]) -> None:
    """Read by two tasks; what they got, and what they were told."""

    async def read() -> None:
        try:
            async for item in items:
                taken.append(item)
        except RuntimeError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(read)


async def test_of_a_client(hub: fanwire.Hub) -> None:
    taken: list[Any] = []
    errors: list[str] = []
    done: list[fanwire.Client] = []

    @hub.client
    async def talk(client: fanwire.Client) -> None:
        await read_twice(aiter(client), taken, errors)
        done.append(client)

    async with hub.serve(ANY) as serving:
        async with connected(serving.address) as peer:
            await until(lambda: errors)
            await peer.send("x")
            await until(lambda: taken)
        await until(lambda: done)
    assert (taken, errors) == (["x"], [f"the client {TOLD}"])


async def test_of_an_upload(hub: fanwire.Hub) -> None:
    taken: list[Any] = []
    errors: list[str] = []

    @hub.method
    async def upload(client: fanwire.Client, items: AsyncIterator[int]) -> str:
        await read_twice(items, taken, errors)
        return "done"

    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        await client.send({"type": 1, "invocationId": "1", "target": "upload", "arguments": [], "streamIds": ["q"]})
        await until(lambda: errors)
        await client.send({"type": 2, "invocationId": "q", "item": 7}, {"type": 3, "invocationId": "q"})
        assert (await client.receive())["result"] == "done"
    assert (taken, errors) == ([7], [f"the stream of a client {TOLD}"])


async def test_of_what_is_published(hub: fanwire.Hub) -> None:
    taken: list[Any] = []
    errors: list[str] = []

    async with hub.serve(ANY), anyio.create_task_group() as tasks, hub.listen("a*") as publications:
        tasks.start_soon(read_twice, publications, taken, errors)
        await until(lambda: errors)
        hub.publish("a", "x")
        await until(lambda: taken)
        tasks.cancel_scope.cancel()
    assert [heard.data for heard in taken] == ["x"]
    assert errors == [f"what is published to 'a*' {TOLD}"]
