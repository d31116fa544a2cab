"""A hub in a process of its own that is to be flooded: `python tests/support/flooded.py` serves it, asked on stdin.

Each line of stdin is a question: ``open`` lets whatever comes to the gate go, until ``shut``, and any line is answered
with one line of JSON: how many objects the hub holds for clients, how many tasks are alive, what Python has in
bytes. Its memory as a whole is read from outside.
"""

import asyncio
import gc
import json
import logging
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator

import anyio
import fanwire
from fanwire import client, signalr, uploads

HELD = (client.Client, signalr.Calls, signalr.Invocation, signalr.Stream, signalr.ClientResult, uploads.Upload)
"""What is there because of a client, and goes with it."""

hub = fanwire.Hub()
gate = anyio.Event()


@hub.authorize
async def authorize(client: fanwire.Client, channel: str) -> bool:
    """Slow for one channel."""
    if channel == "slow0":
        await gate.wait()
    return True


@hub.on_message
async def message(client: fanwire.Client, data: str | bytes) -> None:
    """Slow."""
    await gate.wait()


@hub.method
async def wait(client: fanwire.Client, *anything: object) -> None:
    """A call that takes until the gate is opened."""
    await gate.wait()


@hub.method
async def ask(client: fanwire.Client, *anything: object) -> object:
    """A call that asks the caller."""
    return await client.invoke("Question")


@hub.method
def echo(client: fanwire.Client, text: str) -> str:
    """A call that answers with as much as it was given."""
    return text


@hub.method
async def pour(client: fanwire.Client, items: AsyncIterator[object]) -> None:
    """An upload that nobody reads, until the gate is opened."""
    await gate.wait()
    async for _ in items:
        pass


@hub.method
async def ticks(client: fanwire.Client, *anything: object) -> AsyncIterator[int]:
    """A stream that goes on for as long as its client wants it."""
    yield 0
    await anyio.sleep_forever()


@hub.method
async def poured(client: fanwire.Client, items: AsyncIterator[object]) -> AsyncIterator[int]:
    """A stream with an upload that it does not read."""
    yield 0
    await anyio.sleep_forever()


@hub.method
async def asking(client: fanwire.Client) -> AsyncIterator[object]:
    """A stream that asks its caller."""
    yield await client.invoke("Question")


@hub.method
async def large(client: fanwire.Client) -> AsyncIterator[str]:
    """A stream of large items."""
    while True:
        yield "x" * 30_000


def held() -> str:
    """What is there of clients, as JSON."""
    gc.collect()
    counts = Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, HELD))
    bytes, _ = tracemalloc.get_traced_memory()
    more = {"tasks": len(asyncio.all_tasks()), "connections": hub.stats().connections, "bytes": bytes}
    return json.dumps({**counts, **more})


async def answer() -> None:
    """Answer stdin, line by line."""
    global gate
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())

    threading.Thread(target=read, daemon=True).start()
    while True:
        match await lines.get():
            case "open":
                gate.set()
            case "shut":
                gate = anyio.Event()
        print(held(), flush=True)


async def main() -> None:
    """Serve until killed."""
    tracemalloc.start()
    logging.getLogger("fanwire").setLevel(logging.CRITICAL)
    # Who is not read, because what it sent before waits, is missed when it does not take a ping.
    times = {"signalr_disconnect_timeout": 0.2, "signalr_keepalive": 0.2, "ping_interval": 0.2}
    async with hub.serve("127.0.0.1:0", **times) as serving:
        print(f"serving on {serving.address}", flush=True)
        await answer()


if __name__ == "__main__":
    asyncio.run(main())
