"""What ``/readyz`` says of all workers: which relay has too few upstreams to serve with, and whether they drain.

The engine answers by itself: it is told when something changes, and asks nobody. A client may come to any worker, so
one whose relay is not ready makes all of them answer so. One that drains is ready while others serve: who comes next
comes to them.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from fanwire._engine import Engine
from fanwire.relay.stats import SHOWN_MAX, UpstreamStats
from fanwire.wording import brief
from fanwire.workers.bus import Bus

Ready = Literal["any", "all", "ignore"]
"""What a relay needs to be ready: an upstream that is not down, all of them, or nothing."""
UPSTREAMS_MAX = 4
"""Of one relay that are named."""
RELAYS_MAX = 16
"""Relays that are named."""
LINES_MAX = 64
"""Of all workers."""


class EngineHolder(Protocol):
    """What has the engine, until that has ended."""

    engine: Engine


class Readiness:
    """That of one serving.

    Args:
        bus: to the other workers, where there are any.
    """

    __slots__ = ("_bus", "_draining", "_elsewhere", "_holder", "_unready")

    def __init__(self, holder: EngineHolder, bus: Bus | None = None) -> None:
        self._holder, self._bus = holder, bus
        # By path: why a relay is not ready.
        self._unready: dict[str, str] = {}
        # By worker: what it says of its own.
        self._elsewhere: dict[int, list[str]] = {}
        # Workers that take nobody any more, this one among them.
        self._draining: set[int] = set()
        if bus is not None:
            bus.on("unready", self._hear)
            bus.on("draining", self._hear_of_drain)
            bus.on_change(self._come_or_gone)

    def note(self, path: str, why: str) -> None:
        """A relay is ready, where there is no `why`, or it is not."""
        if self._unready.get(path, "") == why:
            return
        unready = {**self._unready, path: why}
        if not why:
            del unready[path]
        self._tell_engine(unready)
        self._unready = unready  # now that it is told: else it is told again
        if self._bus is not None:
            self._bus.tell_at_last("unready", self._lines)

    def drain(self) -> None:
        """This worker begins to drain."""
        if self._bus is not None:
            self._draining.add(self._bus.number)
            self._bus.tell_at_last("draining", lambda: True)

    def _lines(self) -> list[str]:
        return _lines_of(self._unready)

    def _tell_engine(self, unready: Mapping[str, str]) -> None:
        lines = _lines_of(unready)
        for worker, others in sorted(self._elsewhere.items()):
            lines += [f"worker {worker}: {line}" for line in others if line not in lines]
        more = len(lines) - LINES_MAX
        lines = [*lines[:LINES_MAX], f"{more} lines more\n"] if more > 0 else lines
        others_serve = self._bus is not None and not self._bus.others <= self._draining
        self._holder.engine.set_unready("".join(lines) or None, others_serve)

    def _hear(self, worker: int, lines: list[str]) -> None:
        self._elsewhere[worker] = lines
        self._tell_engine(self._unready)

    def _hear_of_drain(self, worker: int, message: bool) -> None:
        self._draining.add(worker)
        self._tell_engine(self._unready)

    def _come_or_gone(self, worker: int, has_come: bool) -> None:
        assert self._bus is not None  # it calls this
        if not has_come:
            self._elsewhere.pop(worker, None)
            self._draining.discard(worker)
        else:
            if self._unready:
                self._bus.tell_at_last("unready", self._lines, worker)
            if self._bus.number in self._draining:
                self._bus.tell_at_last("draining", lambda: True, worker)
        self._tell_engine(self._unready)


def _lines_of(unready: Mapping[str, str]) -> list[str]:
    lines = [f"{brief(path, SHOWN_MAX)}: {why}\n" for path, why in list(unready.items())[:RELAYS_MAX]]
    if len(unready) > RELAYS_MAX:
        lines.append(f"{len(unready) - RELAYS_MAX} relays more\n")
    return lines


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
