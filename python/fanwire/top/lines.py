"""``fanwire top`` without a screen: a line an interval, as columns for people or as JSON for programs."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from fanwire.demo.figures import NONE
from fanwire.top.figures import count, octets, octets_rate, processors, rate, seconds
from fanwire.top.listings import CLIENTS, lag_in_words
from fanwire.top.observer import Observed, Observer
from fanwire.top.wishes import Preference

HEADS = (
    ("time", 8),
    ("clients", 7),
    ("lag", 6),
    ("pub/s", 6),
    ("deliv/s", 7),
    ("out", 10),
    ("p50", 7),
    ("p99", 7),
    ("cpu", 6),
    ("memory", 8),
)
WORST = "lags most: client, user, why, how long, how much"
HEAD_EVERY = 20
"""Lines."""


def lines(
    observer: Observer, wait: Callable[[], object], tell: Callable[[str], object], is_json: bool, count_max: int | None
) -> None:
    """Tell a line after each wait, so many times or for ever: rates are those of the time between.

    Raises NotAnswered where the token is wrong or missing.
    """
    wishes = {CLIENTS: Preference()}
    observer.look({})
    told = 0
    while count_max is None or told < count_max:
        wait()
        seen = observer.look(wishes)
        if is_json:
            tell(json.dumps(as_json(seen)))
        else:
            if told % HEAD_EVERY == 0:
                tell(head())
            tell(as_columns(seen))
        told += 1


def head() -> str:
    """What stands above the columns."""
    return " ".join([*(title.rjust(width) for title, width in HEADS), WORST])


def as_columns(seen: Observed) -> str:
    """One line, in columns."""
    now = datetime.now().strftime("%H:%M:%S")
    if seen.trouble or seen.totals is None:
        return f"{now:>8} {seen.trouble}"
    one = seen.totals
    cells = (
        now,
        count(one.connections),
        count(one.lagging),
        rate(one.rates.get("publications")),
        rate(one.rates.get("deliveries")),
        octets_rate(one.rates.get("bytes_out")),
        seconds(one.p50),
        seconds(one.p99),
        processors(one.cpu),
        octets(one.memory),
    )
    worst = seen.shown[CLIENTS.name].entries[:1]
    said = lag_in_words(worst[0]) if worst else NONE
    return " ".join([*(cell.rjust(width) for cell, (_, width) in zip(cells, HEADS, strict=True)), said])


def as_json(seen: Observed) -> dict[str, Any]:
    """One line, in base units: seconds, bytes, processors."""
    one = seen.totals
    if seen.trouble or one is None:
        return {"at": datetime.now().timestamp(), "error": seen.trouble}
    worst = seen.shown[CLIENTS.name].entries[:1]
    return {
        "at": one.at,
        "workers": one.workers,
        "silent": list(one.silent),
        "connections": one.connections,
        "subscriptions": one.subscriptions,
        "channels": one.channels,
        "lagging": one.lagging,
        "per_second": one.rates or None,
        "completion_p50": one.p50,
        "completion_p99": one.p99,
        "cpu": one.cpu,
        "memory": one.memory,
        "lags_most": {name: worst[0][name] for name in ("client", "user", "lag")} if worst else None,
    }
