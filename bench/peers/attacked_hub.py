"""The server of bench/attacked.py: fanwire's hub with what attackers use besides the channel of all.

Not a peer of run.py; lines on stdin tell it what to publish. All the time, attacked or not, it publishes to twenty
channels with history.
"""

import asyncio
from collections import Counter

import fanwire
from driver import options, run
from late_hub import serve

HISTORIES, HISTORY = 20, 200
PAUSE_S = 0.05


async def publish(hub: fanwire.Hub) -> None:
    """For ever: twenty small messages a second, dealt out to the channels with history."""
    number = 0
    while True:
        number += 1
        hub.publish(f"h:{number % HISTORIES}", {"number": number})
        await asyncio.sleep(PAUSE_S)


async def main(port: int) -> None:
    """Serve until told to end."""
    hub = fanwire.Hub(channels={"h:*": fanwire.Channel(history=HISTORY)})

    @hub.method
    def Echo(client: fanwire.Client, text: str) -> str:
        return text

    publishing = asyncio.create_task(publish(hub))
    await serve(hub, port, [0], Counter())
    publishing.cancel()


if __name__ == "__main__":
    run(main(options((__doc__ or "").splitlines()[0]).parse_args().port))
