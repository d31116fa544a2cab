"""The hub that is measured: fanwire with the methods that the load uses. `python signalr_hub.py PORT`."""

import itertools
import json
import sys
import time

import anyio
import fanwire

hub = fanwire.Hub(signalr_paths=("/live",), drain_timeout=0.5)
numbers = itertools.count(1)
"""Of the publications, as the real hub counts them."""


@hub.method("Subscribe")
def subscribe(client: fanwire.Client, match: str) -> dict[str, object]:
    """Watch a match."""
    hub.subscribe(client, match)
    odds = {"match": match, "s": 0, "t": 0, "home": 1.5, "draw": 3.5, "away": 6.5, "pad": None}
    client.send(odds, event="Snapshot")
    return odds


@hub.method("Add")
def add(client: fanwire.Client, a: int, b: int) -> int:
    """A small result."""
    return a + b


@hub.method("Publish")
def publish(client: fanwire.Client, match: str, count: int, pad: int) -> None:
    """So many publications back to back, each the object that the real hub publishes."""
    for number in itertools.islice(numbers, count):
        odds = {
            "match": match,
            "s": number,
            "t": time.time_ns(),
            "home": 1.5 + number % 100 / 100,
            "draw": 3.5,
            "away": 6.5,
            "pad": "x" * pad,
        }
        hub.publish(match, odds, event="Odds")


@hub.method("PublishRaw")
def publish_raw(client: fanwire.Client, match: str, count: int, size: int) -> None:
    """The same number of bytes as text, for clients of the raw protocol."""
    for _ in range(count):
        hub.publish(match, "Odds" + "x" * (size - 4))


async def main() -> None:
    """Serve until stdin ends."""
    async with hub.serve(f"127.0.0.1:{sys.argv[1]}"):
        print(json.dumps({"ready": True}), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(main, backend_options={"use_uvloop": True})
