"""One stock client of Python, for stock.py: listens to a URL, and says how much it has heard when it is asked.

``python bench/listen.py websockets|aiohttp|events URL``
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

HEARD = {"messages": 0, "bytes": 0}


async def websockets_messages(url: str) -> AsyncIterator[str | bytes]:
    """Those of Python's ``websockets``, as it comes: it offers compression, and asks for a window of 12 bits."""
    from websockets.asyncio.client import connect

    async with connect(url, proxy=None) as connection:
        async for message in connection:
            yield message


async def aiohttp_messages(url: str) -> AsyncIterator[str | bytes]:
    """Those of aiohttp, told to compress: it offers what browsers do."""
    import aiohttp

    async with aiohttp.ClientSession() as session, session.ws_connect(url, compress=15) as connection:
        async for message in connection:
            yield message.data


async def events(url: str) -> AsyncIterator[str]:
    """Those of aiohttp's event stream, as it comes: it accepts gzip."""
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(url, timeout=aiohttp.ClientTimeout()) as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                yield line[6:-1].decode()


KINDS = {"websockets": websockets_messages, "aiohttp": aiohttp_messages, "events": events}


async def listen(kind: str, url: str) -> None:
    """Count for ever."""
    async for message in KINDS[kind](url):
        HEARD["messages"] += 1
        HEARD["bytes"] += len(message)


async def main(kind: str, url: str) -> None:
    """Listen, and answer each line of stdin until it ends."""
    listening = asyncio.create_task(listen(kind, url))
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        if listening.done():
            listening.result()
        print(json.dumps({"heard": HEARD}), flush=True)
    listening.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
