"""fanwire's hub in workers, in one process with shards, or on a backbone, told what to do by methods of its own.

A method runs in the worker that has the client, so that whoever calls decides which worker publishes or listens.
"""

import asyncio
import logging
import os
import sys
import time
from typing import Any

import fanwire
from driver import START_DELAY_NS, Schedule, options
from fanwire.workers.seat import seat_of_process

# What returns to another node, bench/machines.py and bench/tree.py, has a history to return to.
BACKBONE = os.environ.get("FANWIRE_BENCH_BACKBONE")
HISTORY = 200 if BACKBONE or os.environ.get("FANWIRE_BENCH_HISTORY") else 0
hub = fanwire.Hub(channels={"c0": fanwire.Channel(history=HISTORY)}, backbone=BACKBONE)
sequences: dict[int, int] = {}
ages_ns: list[int] = []
tasks: set[asyncio.Task[None]] = set()
HOP = "hop"


@hub.method
def worker(client: fanwire.Client) -> list[int]:
    """Number and process id of the worker that has the client."""
    seat = seat_of_process()
    return [seat.number if seat else 0, os.getpid()]


@hub.method
async def publish(client: fanwire.Client, command: dict[str, Any]) -> dict[str, Any]:
    """A publish command of the peers, carried out by this worker; with `channels` each of so many in turn."""
    if channels := command.get("channels"):
        command["sequence"] = list(range(channels)) * command["rounds"]
    schedule = Schedule(command, sequences, time.monotonic_ns() + START_DELAY_NS)
    for index in range(schedule.rounds):
        await asyncio.sleep(max(0.0, (schedule.due_ns(index) - time.monotonic_ns()) / 1e9))
        began = time.perf_counter()
        for channel, text in schedule.texts(index):
            hub.publish(channel, text)
        schedule.seconds_publishing += time.perf_counter() - began
    return schedule.report(time.monotonic_ns())


@hub.method
async def publish_fast(client: fanwire.Client, count: int, batch: int, channels: int, payload_bytes: int) -> float:
    """Publish so many, a batch at a time over so many channels; seconds until the last has its place.

    Two batches are under way: the next is published when the one before the last has its place.
    """
    text = "x" * payload_bytes
    names = [f"c{number}" for number in range(channels)]
    began, under_way = time.perf_counter(), list[fanwire.Publication]()
    for start in range(0, count, batch):
        made = [hub.publish(names[number % channels], text) for number in range(start, start + batch)]
        for publication in under_way:
            await publication
        under_way = made
    for publication in under_way:
        await publication
    return time.perf_counter() - began


@hub.method
async def history(client: fanwire.Client, count: int, payload_bytes: int) -> str:
    """Publish one, and so many behind it: the position of the first, from which a client comes back."""
    command = {"rounds": 1, "burst": count + 1, "interval_s": 0, "bytes": payload_bytes}
    schedule = Schedule(command, sequences, time.monotonic_ns() + START_DELAY_NS)
    made = [hub.publish(channel, text) for channel, text in schedule.texts(0)]
    for publication in made:
        await publication
    position = made[0].position
    return f"{position.epoch}-{position.offset}"


@hub.method
def deliveries(client: fanwire.Client) -> int:
    """How many messages this process has written."""
    return int(hub.stats().deliveries)


@hub.method
async def listen(client: fanwire.Client) -> None:
    """Hear what `hop` publishes, from now on."""
    is_there = asyncio.Event()

    async def hear() -> None:
        async with hub.listen(HOP) as publications:
            is_there.set()
            async for heard in publications:
                ages_ns.append(time.monotonic_ns() - int(heard.data))

    task = asyncio.create_task(hear())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    await is_there.wait()


@hub.method
async def hop(client: fanwire.Client, count: int, interval_s: float) -> None:
    """Publish the time, so often."""
    for _ in range(count):
        hub.publish(HOP, str(time.monotonic_ns()))
        await asyncio.sleep(interval_s)


@hub.method
def heard(client: fanwire.Client) -> list[int]:
    """How old each was when this worker had it, ns; none is told twice."""
    told = list(ages_ns)
    ages_ns.clear()
    return told


def main() -> None:
    """Serve."""
    parser = options(__doc__ or "")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    hub.run(f"127.0.0.1:{arguments.port}", workers=arguments.workers, shards=arguments.shards)


if __name__ == "__main__":
    main()
