"""A feed of changed odds, as a betting company's hub sends it: some 480 bytes each, much of it as in those before."""

import json
import random
from collections.abc import Iterator

TEAMS = [f"Team {chr(65 + number % 26)}{number}" for number in range(40)]
MARKETS = ["Match Result", "Both Teams To Score", "Next Goal", "Over/Under 2.5", "Handicap -1"]


def odds(seed: int = 7) -> Iterator[str]:
    """Publications, for ever; the same for a seed."""
    chance = random.Random(seed)
    minute = 0
    while True:
        match = chance.randrange(20)
        score = [chance.randrange(4), chance.randrange(4)]
        markets = [
            {"id": number, "name": name, "selections": [selection(chance, place) for place in range(3)]}
            for number, name in enumerate(chance.sample(MARKETS, chance.randint(1, 3)))
        ]
        change = {
            "matchId": f"BR-2026-{9000 + match}",
            "home": TEAMS[match],
            "away": TEAMS[match + 20],
            "minute": minute % 90,
            "score": score,
            "markets": markets,
        }
        call = {"type": 1, "target": "OddsChanged", "arguments": [change]}
        yield json.dumps(call, separators=(",", ":")) + "\x1e"
        minute += 1


def selection(chance: random.Random, number: int) -> dict[str, object]:
    """One price."""
    return {"id": number, "price": round(1 + chance.random() * 8, 2), "suspended": chance.random() < 0.05}
