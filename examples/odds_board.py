"""An odds board that shows what is promised to who comes late, who is slow, and who comes back.

`python examples/odds_board.py`, then open the page that it names and press its buttons; each tab is another guest. The
page is served by Python's own http.server on the next port, and its script speaks to the hub without a library.
"""

import json
import random
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import anyio
import fanwire

BOARD, GOALS, FIGURES = "odds:board", "goals", "figures"

hub = fanwire.Hub(
    channels={
        # Only the newest odds count: who is slow skips to them. Who comes back within eight seconds never left.
        BOARD: fanwire.Channel(policy="latest", history=100, start="history", presence=True, presence_linger=8),
        # Goals come to everybody, each of them, once: who comes back gets those of the meantime first.
        GOALS: fanwire.Channel(policy="every", history=100, start="history"),
        FIGURES: fanwire.Channel(policy="latest", history=10, start="history"),
    },
    notsent_lowat=1024,  # the less the kernel takes for a slow socket, the newer is what that gets
)

HOME = "Harbour, Millbrook, Old Foundry, Riverside, Westhaven, Ashdown, Thornbury, Silverdale"
AWAY = "Northgate, Castle Park, Brannock, Kingsmoor, Port Ellery, Lowfield, Eastmere, Quarry Hill"
MATCHES = list(zip(HOME.split(", "), AWAY.split(", "), strict=True))
MARKETS = ["1x2", "first half", "second half", "corners", "cards", "next goal", "offsides", "throw-ins"]
scores = [[0, 0] for _ in MATCHES]
newest: dict[str, int] = {}  # the offset of each key's newest odds: what a slow reader is judged by
bound: list[str] = []  # where the hub listens, once it does


@hub.authenticate
def who(request: fanwire.Request) -> str | None:
    return request.query.get("user")  # who brings no name watches all the same, and is counted


@hub.authorize
def may_watch(client: fanwire.Client, channel: str) -> bool:
    return channel in (BOARD, GOALS, FIGURES, f"presence:{BOARD}")


async def move_odds() -> None:
    """Forty a second; the page shows one market of each match, and counts the others."""
    while True:
        publish_odds(random.randrange(len(MATCHES)), random.choice(MARKETS))
        await anyio.sleep(0.025)


def publish_odds(match: int, market: str) -> None:
    lead = scores[match][0] - scores[match][1] + (match * 3 % 8 - 3) / 4  # some home teams are better than others
    fair = 1 + 1.5 / 1.5**lead, 3.2 * 1.2 ** abs(lead), 1 + 1.5 * 1.5**lead
    odds = [round(price * random.uniform(0.97, 1.03), 2) for price in fair]
    key = f"{match}/{market}"
    data = {"key": key, "teams": MATCHES[match], "score": scores[match], "odds": odds}
    newest[key] = hub.publish(BOARD, data, key=key).offset


async def play() -> None:
    async with anyio.create_task_group() as tasks:
        while True:
            match, side = random.randrange(len(MATCHES)), random.randrange(2)
            if sum(scores[match]) == 5:
                scores[match] = [0, 0]  # the next match
            scores[match][side] += 1
            goal = {"teams": MATCHES[match], "score": [*scores[match]], "side": side, "at": time.time()}
            tasks.start_soon(tell, goal)
            publish_odds(match, "1x2")
            await anyio.sleep(random.uniform(1, 2.5))


async def tell(goal: dict[str, object]) -> None:
    """Publish it, wait until nearly everybody has it, and tell how long that took."""
    delivery = await hub.delivered(hub.publish(GOALS, goal), 0.99)
    hub.publish(FIGURES, {"subscribers": delivery.subscribers, "ms": delivery.seconds * 1000}, key="delivery")


async def count() -> None:
    while True:
        stats = hub.stats()
        counters = {name: getattr(stats, name) for name in ("publications", "deliveries", "writes")}
        hub.publish(FIGURES, {**counters, "skipped": stats.skipped.get("latest", 0)}, key="counters")
        await anyio.sleep(1)


@hub.method("BeSlow")
async def be_slow(client: fanwire.Client, seconds: float) -> dict[str, object]:
    """Watch the board, read 1,000 bytes a second for so many, then as fast as it comes, and tell what was had."""
    with socket.socket() as connection:
        reader = Reader(connection)
        await reader.catch_up()
        reader.joined, reader.taken = reader.last, 0
        for _ in range(round(5 * min(seconds, 30))):
            reader.read(200)
            client.send({"slow": reader.report()})
            await anyio.sleep(0.2)
        since = anyio.current_time()
        await reader.catch_up()
        return {**reader.report(), "keys": len(newest), "ms": (anyio.current_time() - since) * 1000}


class Reader:
    """An event stream on a socket with the least buffer that there is, which reads only when it is told to."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.unparsed = b""
        self.offsets: dict[str, int] = {}
        self.joined = self.last = self.taken = 0
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        host, _, port = bound[0].rpartition(":")
        connection.connect((host, int(port)))
        connection.setblocking(False)
        connection.sendall(f"GET /events?channel={BOARD} HTTP/1.1\r\nHost: board\r\n\r\n".encode())

    def read(self, bytes_max: int) -> None:
        """Take at most so much of what has come. A record has an id, `EPOCH-OFFSET`, and data."""
        with suppress(BlockingIOError):
            self.unparsed += self.connection.recv(bytes_max)
        *records, self.unparsed = self.unparsed.split(b"\n\n")
        for offset, data in re.findall(rb"id: \d+-(\d+)\ndata: (.+)", b"\n".join(records)):
            self.last = self.offsets[json.loads(data)["key"]] = int(offset)
            self.taken += 1

    async def catch_up(self) -> None:
        """Read until there is nothing newer of any key."""
        with anyio.fail_after(10):
            while self.offsets != newest:
                await anyio.wait_readable(self.connection)
                self.read(65_536)

    def report(self) -> dict[str, int]:
        """What became of the odds since it joined: each was taken, or skipped for newer ones, or is still to come."""
        published, passed = max(newest.values()) - self.joined, self.last - self.joined
        return {"published": published, "taken": self.taken, "skipped": passed - self.taken}


async def main(address: str = "127.0.0.1:8000", page_port: str = "8001") -> None:
    pages = partial(SimpleHTTPRequestHandler, directory=str(Path(__file__).parent / "odds_board"))
    with ThreadingHTTPServer(("127.0.0.1", int(page_port)), pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            async with hub.serve(address) as serving:
                bound.append(serving.address)
                for match, market in product(range(len(MATCHES)), MARKETS):
                    publish_odds(match, market)
                print(f"http://127.0.0.1:{server.server_port}/?hub={serving.address}", flush=True)
                async with anyio.create_task_group() as tasks:
                    for task in (move_odds, play, count):
                        tasks.start_soon(task)
        finally:
            server.shutdown()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        anyio.run(main, *sys.argv[1:])
