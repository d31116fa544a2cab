"""Clients of the raw protocol that call methods, one in each of several workers."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio

from support.clients import Peer, connected
from support.workers import Program

WORKERS = 3


class Caller:
    """A client that asks; what is published meanwhile is kept."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.got: list[Any] = []
        self.number = self.process = -1
        self._id = 0

    async def receive(self) -> Any:
        """The next publication."""
        return self.got.pop(0) if self.got else json.loads(await self.peer.receive())

    async def ask(self, message: dict[str, Any]) -> Any:
        """Send a request, and give the result."""
        self._id += 1
        await self.peer.send_json(**message, id=self._id)
        while True:
            answer = json.loads(await self.peer.receive())
            if isinstance(answer, dict) and answer.get("id") == self._id:
                assert "error" not in answer, answer
                return answer["result"]
            self.got.append(answer)

    async def call(self, method: str, *arguments: object) -> Any:
        """What a method gives."""
        return await self.ask({"call": method, "args": arguments})

    async def subscribe(self, channel: str, **more: Any) -> Any:
        """Subscribe, and give the result."""
        return await self.ask({"subscribe": [channel], **more})


@asynccontextmanager
async def each(running: Program, query: str = "?") -> AsyncIterator[list[Caller]]:
    """A client in each of three workers, by their numbers. Their method `where` gives number and process."""
    found: dict[int, Caller] = {}
    async with AsyncExitStack() as stack:
        with anyio.fail_after(60):
            while len(found) < WORKERS:
                caller = Caller(await stack.enter_async_context(connected(running.address, f"/ws{query}")))
                caller.number, caller.process = await caller.call("where")
                if caller.number in found:
                    await caller.peer.close()
                else:
                    found[caller.number] = caller
        yield [found[number] for number in sorted(found)]
