"""On paper: one window for many channels, replays that are compressed, and deltas: ``python bench/bundles.py``.

Nothing of this is built. The figures are zlib's, of a feed like that of odds_feed.py, in which every market is a
channel of its own.
"""

import itertools
import json
import random
import zlib
from collections.abc import Iterator

import odds_feed

MARKETS = 30
MESSAGES = 6_000
"""Of all markets together, one after the other by chance."""
RETURNING, MISSED = 1_000, 100
STATES = 500


def market_messages(seed: int = odds_feed.SEED) -> Iterator[tuple[int, bytes]]:
    """A market, and what is published there: its prices, about 150 bytes."""
    chance = random.Random(seed)
    while True:
        market = chance.randrange(MARKETS)
        selections = ",".join(f'{{"id":{one},"price":{1 + chance.random() * 8:.2f}}}' for one in range(3))
        name = odds_feed.MARKETS[market % len(odds_feed.MARKETS)]
        yield market, f'{{"matchId":"BR-2026-{9000 + market}","market":"{name}","selections":[{selections}]}}'.encode()


class Window:
    """A compressor; gives how long a frame is."""

    def __init__(self, bits: int) -> None:
        self._stream = zlib.compressobj(6, zlib.DEFLATED, -bits)

    def frame_bytes(self, message: bytes) -> int:
        """Of a message with what came before as context."""
        data = self._stream.compress(message) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        return frame_bytes(len(data) - 4)


def frame_bytes(payload_bytes: int) -> int:
    """With its head."""
    return payload_bytes + (2 if payload_bytes < 126 else 4)


def alone(message: bytes) -> int:
    """A message that is compressed by itself."""
    return Window(12).frame_bytes(message)


def states(seed: int = odds_feed.SEED) -> Iterator[tuple[bytes, bytes]]:
    """The whole state of a match of 30 markets, two prices of which change, and a JSON patch of that (RFC 6902)."""
    chance = random.Random(seed)
    prices = [[round(1 + chance.random() * 8, 2) for _ in range(3)] for _ in range(MARKETS)]
    while True:
        changes = [(chance.randrange(MARKETS), chance.randrange(3)) for _ in range(2)]
        patch = []
        for market, place in changes:
            prices[market][place] = round(1 + chance.random() * 8, 2)
            path = f"/markets/{market}/prices/{place}"
            patch.append({"op": "replace", "path": path, "value": prices[market][place]})
        markets = [{"id": number, "name": f"Market {number}", "prices": one} for number, one in enumerate(prices)]
        state = {"matchId": "BR-2026-9000", "markets": markets}
        yield tuple(json.dumps(one, separators=(",", ":")).encode() for one in (state, patch))  # type: ignore[misc]


def against(before: bytes, message: bytes) -> int:
    """A delta to the message before it, with the best that DEFLATE can make of that alone."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=before)
    return frame_bytes(len(stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH)) - 4)


def deltas() -> None:
    """Print what a feed of whole states takes, and one of changed odds, as deltas and compressed."""
    found = list(itertools.islice(states(), STATES))
    whole = [state for state, _ in found]
    changes = [message.encode() for message in odds_feed.odds(STATES)]
    for name, feed in (("whole states", whole), ("changed odds", changes)):
        window = Window(15)
        ways = {
            "as it is": sum(frame_bytes(len(one)) for one in feed),
            "a delta to the message before": sum(itertools.starmap(against, itertools.pairwise(feed))),
            "with context, 15 bits": sum(map(window.frame_bytes, feed)),
        }
        if feed is whole:
            window = Window(15)
            patches = [patch for _, patch in found]
            ways["as JSON patches"] = sum(frame_bytes(len(one)) for one in patches)
            ways["JSON patches with context"] = sum(map(window.frame_bytes, patches))
        print(f"{name}, bytes a message:")
        for way, count in ways.items():
            print(f"  {way}: {count / STATES:.0f}")


def main() -> None:
    """Print all."""
    deltas()
    messages = list(itertools.islice(market_messages(), MESSAGES))
    raw = sum(frame_bytes(len(message)) for _, message in messages)
    print(f"{MARKETS} markets, {raw / MESSAGES:.0f} bytes a frame; bytes of raw:")
    heaviest, together = Window(15), Window(15)
    by_market = [Window(15) for _ in range(MARKETS)]
    ways = {
        "the heaviest channel has the window, others go out as they are": sum(
            heaviest.frame_bytes(message) if market == 0 else frame_bytes(len(message)) for market, message in messages
        ),
        "each message of every channel by itself": sum(alone(message) for _, message in messages),
        "one window over all": sum(together.frame_bytes(message) for _, message in messages),
        "a connection for each channel": sum(by_market[market].frame_bytes(message) for market, message in messages),
    }
    for name, count in ways.items():
        print(f"  {name}: {count / raw:.3f}")
    feed = [message.encode() for message in odds_feed.odds(MISSED)]
    once = Window(12)
    print(f"{RETURNING:,} who return and have {MISSED} missed, MB:")
    for name, count in {
        "as they are": sum(frame_bytes(len(message)) for message in feed),
        "each by itself": sum(map(alone, feed)),
        "with context, if all have missed the same": sum(map(once.frame_bytes, feed)),
    }.items():
        print(f"  {name}: {count * RETURNING / 1e6:.1f}, {count / sum(map(len, feed)):.3f} of raw")


if __name__ == "__main__":
    main()
