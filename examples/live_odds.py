"""Live odds: a hub, and a page that shows the same channel over a WebSocket and over Server-Sent Events.

`python examples/live_odds.py`, then open the page that it names. The page is served by Python's own http.server on the
next port; a page from anywhere may watch, so the hub lets any Origin in.
"""

import random
import sys
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import fanwire

hub = fanwire.Hub()
MATCHES = {"7": "Harbour United – Northgate Rovers", "8": "Millbrook – Castle Park"}
bets: list[tuple[str, str, float]] = []


@hub.authenticate
def who(request: fanwire.Request) -> str | None:
    """Whoever brings a name has one; the others watch."""
    return request.query.get("user")


@hub.authorize
def may_watch(client: fanwire.Client, channel: str) -> bool:
    return channel.removeprefix("odds:") in MATCHES


@hub.method("PlaceBet")
async def place_bet(client: fanwire.Client, match: str, stake: float) -> dict[str, object]:
    if client.identity is None:
        raise fanwire.CallFailed("sign in first: add ?user=… to the page's address")
    if not 0 < stake <= 100:
        raise fanwire.CallFailed("a stake is more than 0 and at most 100")
    bets.append((client.identity.id, match, stake))
    return {"accepted": True, "bets": len(bets)}


async def main(address: str = "127.0.0.1:8000", page_port: str = "8001") -> None:
    pages = partial(SimpleHTTPRequestHandler, directory=str(Path(__file__).parent / "live_odds"))
    with ThreadingHTTPServer(("127.0.0.1", int(page_port)), pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            async with hub.serve(address) as serving:
                print(f"http://127.0.0.1:{server.server_port}/?hub={serving.address}", flush=True)
                await play()
        finally:
            server.shutdown()


async def play() -> None:
    odds = {match: [2.1, 3.4, 3.2] for match in MATCHES}
    while True:
        match = random.choice(list(MATCHES))
        odds[match] = [max(1.01, round(price * random.uniform(0.97, 1.03), 2)) for price in odds[match]]
        home, draw, away = odds[match]
        hub.publish(f"odds:{match}", {"match": MATCHES[match], "home": home, "draw": draw, "away": away})
        await anyio.sleep(0.3)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        anyio.run(main, *sys.argv[1:])
