"""What ``/readyz`` says of the relays: which of them has too few upstreams to serve with.

The engine answers by itself: it is told when something changes, and asks nobody.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from fanwire._engine import Engine
from fanwire.relay.stats import SHOWN_MAX, UpstreamStats
from fanwire.wording import brief

Ready = Literal["any", "all", "ignore"]
"""What a relay needs to be ready: an upstream that is not down, all of them, or nothing."""
UPSTREAMS_MAX = 4
"""Of one relay that are named."""
RELAYS_MAX = 16
"""Relays that are named."""


class EngineHolder(Protocol):
    """What has the engine, until that has ended."""

    engine: Engine


class Readiness:
    """That of one serving."""

    __slots__ = ("_holder", "_unready")

    def __init__(self, holder: EngineHolder) -> None:
        self._holder = holder
        # By path: why a relay is not ready.
        self._unready: dict[str, str] = {}

    def note(self, path: str, why: str) -> None:
        """A relay is ready, where there is no `why`, or it is not."""
        if self._unready.get(path, "") == why:
            return
        unready = {**self._unready, path: why}
        if not why:
            del unready[path]
        lines = [f"{brief(path, SHOWN_MAX)}: {why}\n" for path, why in list(unready.items())[:RELAYS_MAX]]
        if len(unready) > RELAYS_MAX:
            lines.append(f"{len(unready) - RELAYS_MAX} relays more\n")
        self._holder.engine.set_unready("".join(lines) or None)
        self._unready = unready  # now that it is told: else it is told again


def why_unready(ready: Ready, upstreams: Sequence[UpstreamStats]) -> str:
    """Why a relay with these upstreams is not ready; empty where it is. One that was not tried yet may serve."""
    down = [one for one in upstreams if one.state == "down"]
    if ready == "ignore" or not down or (ready == "any" and len(down) < len(upstreams)):
        return ""
    what = "no upstream is up" if len(down) == len(upstreams) else f"{len(down)} of {len(upstreams)} upstreams are down"
    shown = [f"{brief(one.url, SHOWN_MAX)} is down: {brief(one.why)}" for one in down[:UPSTREAMS_MAX]]
    if len(down) > UPSTREAMS_MAX:
        shown.append(f"{len(down) - UPSTREAMS_MAX} more")
    return f"{what} ({'; '.join(shown)})"
