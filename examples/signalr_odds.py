"""A SignalR server in Python: stock clients, live odds, bets, and a stream.

`npm install @microsoft/signalr`, then `python examples/signalr_odds.py` and open the page that it names. The page is
served by Python's own http.server on the next port, the stock JavaScript client beside it.
"""

import random
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import fanwire

PAGES = Path(__file__).parent / "signalr_odds"
CLIENT = "node_modules/@microsoft/signalr/dist/browser/signalr.min.js"

hub = fanwire.Hub(signalr_paths=("/odds",))
prices = {"7": [2.1, 3.4, 3.2], "8": [1.6, 3.9, 5.5]}


@hub.authenticate
def who(request: fanwire.Request) -> str | None:
    """Whoever brings a name has one; the others watch."""
    return request.query.get("user")


@hub.method
def watch(client: fanwire.Client, match: str) -> list[float]:
    if match not in prices:
        raise fanwire.HubError(f"there is no match {match}")
    hub.subscribe(client, f"odds:{match}")
    return prices[match]


@hub.method
async def place_bet(client: fanwire.Client, match: str, stake: float) -> str:
    if client.identity is None:
        raise fanwire.HubError("sign in first: add ?user=… to the page's address")
    if not 0 < stake <= 100:
        raise fanwire.HubError("a stake is more than 0 and at most 100")
    if not await client.invoke("confirm", f"{stake:g} on match {match}?"):
        raise fanwire.HubError("not confirmed")
    hub.publish(fanwire.to.user(client.identity), f"{stake:g} on match {match}", event="bet")
    return "accepted"


@hub.method
async def countdown(client: fanwire.Client, seconds: int) -> AsyncIterator[int]:
    for left in range(seconds, -1, -1):
        yield left
        await anyio.sleep(1)


class Pages(SimpleHTTPRequestHandler):
    """The page, and the stock client from where npm put it."""

    def translate_path(self, path: str) -> str:
        return CLIENT if path.startswith("/signalr.min.js") else super().translate_path(path)


async def main(address: str = "127.0.0.1:8000", page_port: str = "8001") -> None:
    with ThreadingHTTPServer(("127.0.0.1", int(page_port)), partial(Pages, directory=str(PAGES))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            async with hub.serve(address) as serving:
                print(f"http://127.0.0.1:{server.server_port}/?hub={serving.address}", flush=True)
                await play()
        finally:
            server.shutdown()


async def play() -> None:
    while True:
        match = random.choice(list(prices))
        prices[match] = [max(1.01, round(price * random.uniform(0.97, 1.03), 2)) for price in prices[match]]
        hub.publish(f"odds:{match}", fanwire.Arguments(match, prices[match]), event="odds")
        await anyio.sleep(0.3)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        anyio.run(main, *sys.argv[1:])
