"""What it costs to hand a connection's socket to the engine: ``python bench/adopting.py``; dropin.py runs it.

Connections of ``websockets`` on uvloop, thousands in a row, each timed alone: wall time of one call, in the event
loop's thread. The clients are framed_clients.py, in another process.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import fanwire
import uvloop
from process import free_port
from websockets.asyncio.server import ServerConnection, serve
from workloads import HERE


def each(call: Callable[[Any], object], connections: list[Any]) -> float:
    """The median of one call, µs."""
    took = []
    for connection in connections:
        began = time.perf_counter()
        call(connection)
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


async def measure(clients: int) -> dict[str, float]:
    """Of each way, the median."""
    connections: list[ServerConnection] = []
    port, hub = free_port(), fanwire.Hub()
    all_there = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        connections.append(connection)
        if len(connections) == clients:
            all_there.set()
        await connection.wait_closed()

    command = [sys.executable, str(HERE / "framed_clients.py"), "--url", f"ws://127.0.0.1:{port}/ws/"]
    command += ["--connections", str(clients)]
    pipe = asyncio.subprocess.PIPE
    async with hub.serve(), serve(handler, "127.0.0.1", port, compression=None, ping_interval=None, backlog=4096):
        crowd = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        async with asyncio.timeout(120):
            await all_there.wait()
        fanwire.broadcast(connections, "begun")  # by their transports: the engine comes with the second message
        half = clients // 2
        found = {
            "attach_us": each(lambda one: hub.attach(one, ["c0"]), connections[:half]),
            "broadcast_us": each(lambda one: fanwire.broadcast([one], "again"), connections[half:]),
        }
        crowd.kill()
        await crowd.wait()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=4_000)
    print(json.dumps(uvloop.run(measure(parser.parse_args().clients))))
