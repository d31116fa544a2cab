"""A feed of changed odds, as a betting company's hub sends it to a client of SignalR's JSON: some 480 bytes each.

Much of a message stands in those before it: that is what a compressor with their context saves.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

TEAMS = [f"Team {chr(65 + number % 26)}{number}" for number in range(40)]
MARKETS = ["Match Result", "Both Teams To Score", "Next Goal", "Over/Under 2.5", "Handicap -1"]
MESSAGES = 2_000
SEED = 7


def odds(count: int = MESSAGES, seed: int = SEED) -> Iterator[str]:
    """The first `count` messages; the same for a seed."""
    chance = random.Random(seed)
    for number in range(count):
        match = chance.randrange(20)
        score = [chance.randrange(4), chance.randrange(4)]
        markets = [
            {"id": place, "name": name, "selections": [_selection(chance, one) for one in range(3)]}
            for place, name in enumerate(chance.sample(MARKETS, chance.randint(1, 3)))
        ]
        change = {
            "matchId": f"BR-2026-{9000 + match}",
            "home": TEAMS[match],
            "away": TEAMS[match + 20],
            "minute": number % 90,
            "score": score,
            "markets": markets,
        }
        yield json.dumps({"type": 1, "target": "OddsChanged", "arguments": [change]}, separators=(",", ":"))


def _selection(chance: random.Random, number: int) -> dict[str, object]:
    return {"id": number, "price": round(1 + chance.random() * 8, 2), "suspended": chance.random() < 0.05}


def write(file: Path) -> int:
    """Write the feed, a message a line; gives how many bytes they have together."""
    messages = list(odds())
    file.write_text("".join(f"{message}\n" for message in messages))
    return sum(map(len, messages))
