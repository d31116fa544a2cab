"""What filters cost: 1,000 distinct ones on a channel of 10,000 clients, beside none: ``python bench/filters.py``.

Each publication is tagged with one of ten groups, and each filter lets through one group and names one tag more, which
makes it distinct: so a publication is for a tenth of the clients. Without filters it is published to a channel that a
tenth of the clients watch: as many writes of the same bytes. The figure is the server's processor time for a delivery.
Needs ``ulimit -n`` of 20,300. Prints both and their ratio.
"""

import asyncio
import json
import os
import resource
import selectors
import socket
import sys
import time
from typing import Any
from urllib.parse import quote

CLIENTS, FILTERS, GROUPS = 10_000, 1_000, 10
ROUNDS, PUBLICATIONS = 3, 40
MESSAGE = "x" * 200
FRAME_BYTES = 4 + len(MESSAGE)


def queries(*, is_filtered: bool) -> list[str]:
    """Of each client: its channel, and its filter."""
    if not is_filtered:
        return [f"channel=group{client % GROUPS}" for client in range(CLIENTS)]
    filters = [{"group": number % GROUPS, "number": {"min": -number}} for number in range(FILTERS)]
    texts = [quote(json.dumps(one)) for one in filters]
    return [f"channel=all&filter={texts[client % FILTERS]}" for client in range(CLIENTS)]


def watch(port: int, report: int, *, is_filtered: bool) -> None:
    """A process of its own: the clients, who read until they are ended; writes how many bytes have come."""
    selector = selectors.DefaultSelector()
    for query in queries(is_filtered=is_filtered):
        client = socket.create_connection(("127.0.0.1", port), 30)
        head = f"GET /ws?{query} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        client.sendall((head + key).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += client.recv(1)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
    os.write(report, b"\x00" * 8)
    while True:
        count = 0
        for key_of, _ in selector.select():
            count += len(key_of.fileobj.recv(1 << 16))  # type: ignore[union-attr]
        os.write(report, count.to_bytes(8, "little"))


async def measure(*, is_filtered: bool) -> float:
    """Microseconds of this process for a delivery: the best of some rounds."""
    import fanwire

    hub = fanwire.Hub()
    async with hub.serve("127.0.0.1:0") as serving:
        reading, writing = os.pipe()
        port = int(serving.address.rpartition(":")[2])
        clients = os.fork()
        if clients == 0:
            watch(port, writing, is_filtered=is_filtered)
        come = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(come), os.fdopen(reading, "rb")
        )
        await come.readexactly(8)
        best = float("inf")
        for _ in range(ROUNDS):
            before, awaited = time.process_time(), 0
            for number in range(PUBLICATIONS):
                tags: dict[str, Any] = {"group": number % GROUPS, "number": number}
                hub.publish("all" if is_filtered else f"group{number % GROUPS}", MESSAGE, tags=tags)
                awaited += CLIENTS // GROUPS * FRAME_BYTES
                while awaited > 0:
                    awaited -= int.from_bytes(await come.readexactly(8), "little")
            best = min(best, time.process_time() - before)
        os.kill(clients, 9)
        os.waitpid(clients, 0)
    return best / (PUBLICATIONS * CLIENTS // GROUPS) * 1e6


def main() -> None:
    """Print both figures."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    both = [asyncio.run(measure(is_filtered=is_filtered)) for is_filtered in (False, True)]
    plain, filtered = both
    sys.stdout.write(f"{plain:.2f} µs a delivery without filters, {filtered:.2f} with {FILTERS:,} of them: ")
    sys.stdout.write(f"{filtered / plain:.2f} ×\n")


if __name__ == "__main__":
    main()
