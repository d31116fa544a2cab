"""Many SignalR clients of long polling in one process: `python polling_crowd.py HOST:PORT CLIENTS SOURCE_ADDRESS`.

Each has a connection for its polls; posts share a few others, as through a proxy. It prints a line of JSON when all
have shaken hands, and one for each line on its standard input: what has come since. It ends when there are no more.
"""

import asyncio
import json
import sys
import time
from collections import Counter

END = b"\x1e"
HANDSHAKE = b'{"protocol":"json","version":1}' + END
PING = b'{"type":6}' + END
PING_INTERVAL_S = 15.0
POSTERS = 32
OPENING_AT_ONCE = 200


class Line:
    """A connection on which requests follow each other."""

    def __init__(self, address: str, source: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._source = source
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, int(self._port), local_addr=(self._source, 0))
        reader, writer = self._streams
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        start = lower.find(b"content-length:")
        length = int(lower[start + 15 : lower.index(b"\r\n", start)]) if start >= 0 else 0
        content = await reader.readexactly(length)
        if b"connection: close" in lower:
            writer.close()
            self._streams = None
        return int(head[9:12]), content


class Crowd:
    """All clients of this process."""

    def __init__(self, address: str, count: int, source: str) -> None:
        self._address, self._count, self._source = address, count, source
        self.settled = asyncio.Event()
        self._pings: set[asyncio.Future[None]] = set()
        self._posters: asyncio.Queue[Line] = asyncio.Queue()
        for _ in range(POSTERS):
            self._posters.put_nowait(Line(address, source))
        self._opening = asyncio.Semaphore(OPENING_AT_ONCE)
        self.seen: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.shaken = 0

    async def post(self, target: str, body: bytes) -> None:
        """Send messages, over one of the connections that all share."""
        line = await self._posters.get()
        try:
            status, _ = await line.ask("POST", target, body)
        except (OSError, EOFError):
            status, line = 0, Line(self._address, self._source)
        self._posters.put_nowait(line)
        if status != 200:
            self._fail(f"post {status}")

    async def live(self, number: int) -> None:
        """One client, until it gets an error."""
        try:
            await self._live(number)
        except (OSError, EOFError) as error:
            self._fail(type(error).__name__)

    async def _live(self, number: int) -> None:
        line = Line(self._address, self._source)
        async with self._opening:
            _, answer = await line.ask("POST", "/signalr/negotiate?negotiateVersion=1")
            target = f"/signalr?id={json.loads(answer)['connectionToken']}"
            await line.ask("GET", target)
            await self.post(target, HANDSHAKE)
            status, answer = await line.ask("GET", target)
        if (status, answer) != (200, b"{}" + END):
            self._fail(f"handshake {status}")
            return
        self.shaken += 1
        self._settle()
        asyncio.get_running_loop().call_later(PING_INTERVAL_S * (number % 997) / 997, self._ping, target)
        while True:
            status, answer = await line.ask("GET", target)
            if status != 200:
                self._fail(f"poll {status}")
                return
            for record in answer.split(END)[:-1]:
                message = json.loads(record)
                if message["type"] == 1:
                    self.seen[message["arguments"][0]] += 1

    def _ping(self, target: str) -> None:
        self._pings.add(ping := asyncio.ensure_future(self.post(target, PING)))
        ping.add_done_callback(self._pings.discard)
        asyncio.get_running_loop().call_later(PING_INTERVAL_S, self._ping, target)

    def _fail(self, what: str) -> None:
        self.errors[what] += 1
        self._settle()

    def _settle(self) -> None:
        if self.shaken + sum(self.errors.values()) >= self._count:
            self.settled.set()


async def main(address: str, count: int, source: str) -> None:
    """See the module."""
    crowd, began = Crowd(address, count, source), time.monotonic()
    clients = [asyncio.ensure_future(crowd.live(number)) for number in range(count)]
    await crowd.settled.wait()
    print(json.dumps({"clients": crowd.shaken, "errors": crowd.errors, "s": time.monotonic() - began}), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps({"seen": crowd.seen, "errors": crowd.errors}), flush=True)
    for client in clients:
        client.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
