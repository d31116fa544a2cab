"""A hub in twenty lines: `python examples/quickstart.py`, then connect to ws://127.0.0.1:8000/ws?channel=time."""

import sys
from datetime import UTC, datetime

import anyio
import fanwire

hub = fanwire.Hub()


async def main(address: str = "127.0.0.1:8000") -> None:
    async with hub.serve(address) as serving:
        print(f"ws://{serving.address}/ws?channel=time", flush=True)
        while True:
            hub.publish("time", {"now": datetime.now(UTC).isoformat()})
            await anyio.sleep(1)


anyio.run(main, *sys.argv[1:])
