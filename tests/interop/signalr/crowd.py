"""A SignalR client without a library, for crowds: JSON or MessagePack over a WebSocket, and all that it saw."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import msgpack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

WITHIN_S = 20
SEPARATOR = "\x1e"


async def until(condition: Callable[[], object], why: Callable[[], object]) -> None:
    """Return once the condition is true; after a while say why it is not."""
    try:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await asyncio.Event().wait()
    except TimeoutError:
        raise AssertionError(why()) from None


class CallFailed(Exception):
    """A call was answered with an error."""


class Member:
    """One client of a crowd. Its invocation ids are 0, 1, 2 … as everybody else's."""

    def __init__(self, name: str, protocol: str, hear: Callable[["Member", str, list[Any]], None]) -> None:
        self.name = name
        self.protocol = protocol
        self.is_closed = False
        self.close_message: dict[str, Any] | None = None
        self.items: dict[str, list[Any]] = {}
        self._hear = hear
        self._calls: dict[str, asyncio.Future[Any]] = {}
        self._ids = iter(range(1 << 30))
        self._connection: ClientConnection
        self._reading: asyncio.Task[None]

    async def enter(self, url: str) -> "Member":
        """Connect, without a negotiate."""
        self._connection = await connect(
            url.replace("http", "ws", 1), compression=None, proxy=None, ping_interval=None, open_timeout=WITHIN_S
        )
        await self._connection.send(json.dumps({"protocol": self.protocol, "version": 1}) + SEPARATOR)
        reply = await self._connection.recv()
        assert reply in ("{}" + SEPARATOR, b"{}" + SEPARATOR.encode()), reply
        self._reading = asyncio.create_task(self._read())
        return self

    async def invoke(self, target: str, *arguments: Any) -> Any:
        """What a method answers. Raises CallFailed."""
        return await self.begin(1, target, *arguments)[1]

    async def stream(self, target: str, *arguments: Any) -> list[Any]:
        """The items of a stream that ends by itself."""
        id, end = self.begin(4, target, *arguments)
        await end
        return self.items.pop(id, [])

    def begin(self, kind: int, target: str, *arguments: Any) -> tuple[str, asyncio.Future[Any]]:
        """Begin a call, and do not wait for its end."""
        id = str(next(self._ids))
        end = self._calls[id] = asyncio.get_running_loop().create_future()
        self._write({"type": kind, "invocationId": id, "target": target, "arguments": arguments})
        return id, end

    async def leave(self, *, is_rude: bool = False) -> None:
        """Close, or break off."""
        self._reading.cancel()
        if is_rude:
            self._connection.transport.abort()
        await self._connection.close()
        for call in self._calls.values():
            call.cancel()

    def _write(self, message: dict[str, Any]) -> None:
        self._sending = asyncio.create_task(self._send(self._encode(message)))

    async def _send(self, frame: str | bytes) -> None:
        with suppress(ConnectionClosed):
            await self._connection.send(frame)

    def _encode(self, message: dict[str, Any]) -> str | bytes:
        if self.protocol == "json":
            return json.dumps(message) + SEPARATOR
        kind, id = message["type"], message["invocationId"]
        if kind == 3:
            packed = msgpack.packb([3, {}, id, 3, message["result"]])
        else:
            packed = msgpack.packb([kind, {}, id, message["target"], message["arguments"]])
        length, prefix = len(packed), bytearray()
        while length > 0x7F:
            prefix.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes([*prefix, length]) + packed

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for frame in self._connection:
                for message in records(frame):
                    self._take(message)
        self.is_closed = True
        for call in self._calls.values():
            call.cancel()

    def _take(self, message: dict[str, Any]) -> None:
        id = message.get("invocationId")
        if message["type"] == 1 and id is not None:
            answer = f"{self.name} to {message['arguments'][0]}"
            self._write({"type": 3, "invocationId": id, "result": answer})
        elif message["type"] == 1:
            self._hear(self, message["target"], message["arguments"])
        elif message["type"] == 2:
            self.items.setdefault(str(id), []).append(message["item"])
        elif message["type"] == 3:
            call = self._calls.pop(str(id))  # of a call that is not ours, or a second one: KeyError
            if "error" in message:
                call.set_exception(CallFailed(message["error"]))
            else:
                call.set_result(message.get("result"))
        elif message["type"] == 7:
            self.close_message = message


def records(frame: str | bytes) -> Iterator[dict[str, Any]]:
    """The hub messages of a frame, both protocols' in JSON's form."""
    if isinstance(frame, str):
        yield from map(json.loads, frame.split(SEPARATOR)[:-1])
        return
    at = 0
    while at < len(frame):
        length = shift = 0
        while True:
            byte = frame[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield named(msgpack.unpackb(frame[at : at + length], timestamp=3))
        at += length


def named(parts: list[Any]) -> dict[str, Any]:
    """A message of MessagePack's with JSON's names."""
    match parts:
        case [1, _, id, target, arguments, *_]:
            return {"type": 1, "invocationId": id, "target": target, "arguments": arguments}
        case [2, _, id, item]:
            return {"type": 2, "invocationId": id, "item": item}
        case [3, _, id, 1, error]:
            return {"type": 3, "invocationId": id, "error": error}
        case [3, _, id, _, *result]:
            return {"type": 3, "invocationId": id, "result": next(iter(result), None)}
        case [7, error, *rest]:
            return {"type": 7, "error": error, "allowReconnect": bool(rest and rest[0])}
        case [kind, *_]:
            return {"type": kind}
    raise AssertionError(parts)


class Control:
    """What a test asks of the real hub, past any relay."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=WITHIN_S)

    async def __aenter__(self) -> "Control":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def publish(self, *matches: str, count: int = 1, size: int = 0) -> None:
        """Publish Odds."""
        parameters: dict[str, Any] = {"matches": ",".join(matches), "count": count, "size": size}
        (await self._client.post("/publish", params=parameters)).raise_for_status()

    async def stats(self) -> dict[str, Any]:
        """What the hub saw."""
        seen = (await self._client.get("/stats")).json()
        assert isinstance(seen, dict)
        return seen

    async def until_stats(self, **wanted: Any) -> dict[str, Any]:
        """Until these of the figures are so."""
        stats: dict[str, Any] = {}
        try:
            async with asyncio.timeout(WITHIN_S):
                while not wanted.items() <= (stats := await self.stats()).items():
                    pass
        except TimeoutError:
            raise AssertionError(f"wanted {wanted}, got {stats}") from None
        return stats
