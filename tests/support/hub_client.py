"""A bare SignalR client for tests: JSON hub messages over a WebSocket, one at a time."""

import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from support.clients import Peer, connected

SEPARATOR = "\x1e"


class HubClient:
    """Sends and receives hub messages; pings are skipped."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._received: deque[Any] = deque()

    async def send(self, *messages: dict[str, Any]) -> None:
        """Send messages in one frame."""
        await self.peer.send("".join(json.dumps(message) + SEPARATOR for message in messages))

    async def receive(self) -> Any:
        """The next message that is no ping."""
        while True:
            while not self._received:
                frame = await self.peer.receive()
                assert isinstance(frame, str) and frame.endswith(SEPARATOR)
                self._received.extend(json.loads(record) for record in frame.split(SEPARATOR)[:-1])
            message = self._received.popleft()
            if message != {"type": 6}:
                return message

    async def invoke(self, target: str, *arguments: object, id: str = "1") -> Any:
        """Call a method, and its completion without type and id."""
        await self.send({"type": 1, "invocationId": id, "target": target, "arguments": arguments})
        completion = await self.receive()
        assert (completion.pop("type"), completion.pop("invocationId")) == (3, id)
        return completion


@asynccontextmanager
async def hub_client(address: str, path: str = "/signalr", query: str = "", **options: Any) -> AsyncIterator[HubClient]:
    """A client that has shaken hands, without a negotiate."""
    async with connected(address, path + query, **options) as peer:
        client = HubClient(peer)
        await client.send({"protocol": "json", "version": 1})
        assert await client.receive() == {}
        yield client


def negotiate(address: str, path: str = "/signalr", query: str = "") -> dict[str, Any]:
    """What a negotiate answers."""
    answer = httpx.post(f"http://{address}{path}/negotiate?negotiateVersion=1{query}", trust_env=False)
    assert answer.status_code == 200, answer.text
    reply = answer.json()
    assert isinstance(reply, dict)
    return reply
