"""An engine whose calls fail when they are told to, and clients that do all that a client can and expect nothing."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
from anyio.abc import ByteStream
from fanwire._engine import Engine

from support.raw import frame, request_text

PATIENCE_S = 2.0
"""How long a victim waits for an answer that comes."""
SHORT_S = 0.06
"""How long for one that may never come, since something has failed."""
SEPARATOR = "\x1e"
LIVES = {"start", "join", "listen", "stop", "drain", "stats"}
"""Of serving's begin and end, and what the tests themselves look at."""


class Panic(BaseException):
    """As PyO3 raises it for a panic: no ``Exception``."""


class FaultyEngine:
    """An engine, each of whose methods can be made to raise, whatever methods there are."""

    def __init__(self, *arguments: Any) -> None:
        self._engine = Engine(*arguments)
        self.calls: Counter[str] = Counter()
        """How often each was called since ``watch``."""
        self._fails: Callable[[str, int], BaseException | None] = lambda name, number: None
        self.hits = 0
        """How many calls failed."""

    def __getattr__(self, name: str) -> Any:
        what = getattr(self._engine, name)
        if not callable(what) or name in LIVES:
            return what

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls[name] += 1
            error = self._fails(name, self.calls[name])
            if error is not None:
                self.hits += 1
                raise error
            return what(*arguments, **named)

        return call

    def watch(self) -> None:
        """Let all succeed, and count anew."""
        self._fails = lambda name, number: None
        self.calls.clear()
        self.hits = 0

    def always_fail(self, name: str, error: BaseException) -> None:
        """Have every call of this name raise."""
        self.watch()
        self._fails = lambda called, count: error if called == name else None

    def fail(self, name: str, number: int, error: BaseException) -> None:
        """Have the call of this name and number raise, and no other."""
        self.watch()
        self._fails = lambda called, count: error if (called, count) == (name, number) else None


class Victim:
    """One connection whose requests may go wrong at any place."""

    patience_s: ClassVar[float] = PATIENCE_S

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.received = b""

    async def send(self, data: bytes) -> None:
        """Send what it can: the other side may be gone."""
        with anyio.move_on_after(self.patience_s):
            try:
                await self._stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async def text(self, *messages: str) -> None:
        """Send each as a text frame."""
        await self.send(b"".join(frame(1, message.encode()) for message in messages))

    async def records(self, *messages: dict[str, Any]) -> None:
        """Send records of SignalR in one frame."""
        await self.text("".join(json.dumps(message) + SEPARATOR for message in messages))

    async def until(self, *marks: bytes) -> None:
        """Return when each of them has come, or nothing comes any more."""
        with anyio.move_on_after(self.patience_s):
            while not all(mark in self.received for mark in marks):
                try:
                    self.received += await self._stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return


@asynccontextmanager
async def victim(address: str, target: str, *, upgrades: bool = True) -> AsyncIterator[Victim]:
    """One that has asked for `target`, and waited a moment for the answer."""
    host, _, port = address.rpartition(":")
    async with await anyio.connect_tcp(host, int(port)) as stream:
        one = Victim(stream)
        await one.send(request_text(target) if upgrades else f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await one.until(b"\r\n\r\n")
        yield one
        await one.send(frame(8, b"\x03\xe8"))


async def raw(address: str) -> None:
    """All that a client of the raw protocol can do."""
    async with victim(address, "/ws?channel=secret"):
        pass  # it is refused
    async with victim(address, "/ws?channel=bare&user=mallory") as one:
        await one.until(b"turned away")
    async with victim(address, "/ws?channel=board&channel=room") as one:
        await one.text(
            '{"subscribe":["a","b"],"id":1}', '{"call":"echo","args":["x"],"id":2}', '{"call":"none","id":3}'
        )
        await one.text("message", '{"unsubscribe":["a"],"id":4}', '{"call":"echo","args":[],"id":5}')
        await one.until(b'"id":5')
        await one.text('{"subscribe":["presence:room"]}')
        await one.until(b"ada")


async def events(address: str) -> None:
    """All that a client of an event stream can do."""
    async with victim(address, "/events?channel=board", upgrades=False) as one:
        await one.until(b"data: ")


async def signalr(address: str) -> None:
    """All that a client of SignalR can do."""
    host, _, port = address.rpartition(":")
    async with await anyio.connect_tcp(host, int(port)) as stream:
        head = b"POST /signalr/negotiate?negotiateVersion=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        asking = Victim(stream)
        await asking.send(head)
        await asking.until(b"availableTransports")
    async with victim(address, "/signalr") as one:
        await one.records({"protocol": "json", "version": 1})
        await one.until(b"{}\x1e")
        call = {"type": 1, "arguments": ["x"]}
        await one.records(
            {**call, "invocationId": "1", "target": "echo"},
            {**call, "invocationId": "2", "target": "none"},
            {"type": 4, "invocationId": "3", "target": "counts", "arguments": [40]},
            {"type": 1, "invocationId": "4", "target": "sums", "arguments": [], "streamIds": ["u"]},
            {"type": 2, "invocationId": "u", "item": 1},
            {"type": 3, "invocationId": "u"},
            {"type": 1, "invocationId": "5", "target": "asks", "arguments": []},
            {"type": 1, "target": "echo", "arguments": ["nobody waits for it"]},
        )
        await one.until(b'"target":"question"', b'"invocationId":"4"')
        await one.records({"type": 3, "invocationId": "s1", "result": "answer"})
        await one.until(b'"invocationId":"5"')


async def relayed(address: str) -> None:
    """All that a client of a SignalR relay can do."""
    async with victim(address, "/live") as one:
        await one.records({"protocol": "json", "version": 1})
        await one.until(b"{}\x1e")
        call = {"type": 1, "arguments": ["victims"]}
        await one.records({**call, "invocationId": "0", "target": "Watch", "arguments": ["big"]})
        await one.records({**call, "invocationId": "1", "target": "Watch"})
        await one.until(b'"invocationId":"1"')
        await one.records({**call, "invocationId": "5", "target": "Drop"})
        await one.until(b'"target":"fanwire:gap"')
        await one.records(
            {**call, "invocationId": "2", "target": "Pooled"},
            {**call, "invocationId": "3", "target": "Private"},
            {**call, "invocationId": "4", "target": "Unwatch"},
        )
        # The private one's answer is passed on as the backend wrote it.
        await one.until(b'"invocationId":"2"', b'"invocationId": "3"', b'"invocationId":"4"')


async def asked(address: str) -> None:
    """Two that the backend is asked about; the other one shows the same, and watches the same."""
    async with victim(address, "/asked") as one, victim(address, "/asked") as other:
        for each in (one, other):
            await each.records({"protocol": "json", "version": 1})
            await each.until(b"{}\x1e")
            await each.records({"type": 1, "invocationId": "1", "target": "Watch", "arguments": ["asked"]})
            await each.until(b'"invocationId":"1"')


async def plain(address: str) -> None:
    """All that a client of a plain relay can do."""
    async with victim(address, "/plain?match=victims") as one:
        await one.text("private")
        await one.until(b"private")
    async with victim(address, "/plain") as one:
        await one.text('{"watch":"victims"}', "echo", '{"unwatch":"victims"}', "end")
        await one.until(b"echo", b"end")


async def scraper(address: str) -> None:
    """Asks for what there is over plain HTTP."""
    for path in ("/metrics", "/nowhere"):
        async with victim(address, path, upgrades=False) as one:
            await one.until(b"fanwire_connections ")
