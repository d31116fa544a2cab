"""What stands for your backend: a SignalR hub at /live. ``Subscribe`` and a match give ``Odds`` of it, each second."""

import sys

import anyio
import fanwire

hub = fanwire.Hub(signalr_paths=["/live"])
matches: set[str] = set()


@hub.method("Subscribe")
def subscribe(client: fanwire.Client, match: str) -> None:
    """Have the client watch a match."""
    matches.add(match)
    hub.subscribe(client, f"match:{match}")


@hub.method("Unsubscribe")
def unsubscribe(client: fanwire.Client, match: str) -> None:
    """The opposite."""
    hub.unsubscribe(client, f"match:{match}")


async def main(address: str) -> None:
    """Serve, and publish."""
    async with hub.serve(address):
        for second in range(2**31):
            for match in matches:
                hub.publish(f"match:{match}", {"match": match, "home": 1 + second % 100 / 100}, event="Odds")
            await anyio.sleep(1)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1] if len(sys.argv) > 1 else ":5000")
