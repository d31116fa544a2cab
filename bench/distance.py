"""A way to a server that is far: ``python bench/distance.py --to PORT --delay-ms 100``.

Each direction is so late, in order, and the first bytes of a client come after the round trip that a TCP handshake
takes, too. It says where it listens, and for each line on stdin how many bytes have come through. It ends with stdin.
"""

import argparse
import asyncio
import json
import sys


class Way:
    """Connections through it, and what they have carried."""

    def __init__(self, port: int, delay_s: float) -> None:
        self._port, self._delay_s = port, delay_s
        self.there = self.here = 0
        """Bytes to the server, and from it."""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        handshake = asyncio.get_running_loop().time() + 2 * self._delay_s
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        await asyncio.gather(
            self._carry(reader, server_writer, handshake, is_there=True),
            self._carry(server_reader, writer, handshake, is_there=False),
            return_exceptions=True,
        )

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, not_before: float, *, is_there: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(1 << 16):
                due = max(loop.time(), not_before) + self._delay_s
                loop.call_at(due, self._arrived, writer, data, is_there)
        finally:
            loop.call_at(max(loop.time(), not_before) + self._delay_s, writer.close)

    def _arrived(self, writer: asyncio.StreamWriter, data: bytes, is_there: bool) -> None:
        if is_there:
            self.there += len(data)
        else:
            self.here += len(data)
        if not writer.is_closing():
            writer.write(data)


async def carry(port: int, delay_s: float) -> None:
    """Serve until stdin ends."""
    way = Way(port, delay_s)
    server = await asyncio.start_server(way.connected, "127.0.0.1", 0, limit=1 << 20, backlog=4_096)
    print(json.dumps({"listens": {"port": server.sockets[0].getsockname()[1]}}), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"carried": {"there": way.there, "here": way.here}}), flush=True)


def main() -> None:
    """Carry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--to", type=int, required=True, help="the server's port")
    parser.add_argument("--delay-ms", type=float, default=100.0)
    options = parser.parse_args()
    asyncio.run(carry(options.to, options.delay_ms / 1e3))


if __name__ == "__main__":
    main()
