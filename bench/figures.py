"""What a comparison has measured, turn by turn, as its files hold it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from summary import Spread


class Figures:
    """What was measured, turn by turn."""

    def __init__(self, results: list[dict[str, Any]] | None = None, failed: list[dict[str, Any]] | None = None) -> None:
        """Empty, or as it was written."""
        self.results = results or []
        self.failed = failed or []

    def add(self, turn: int, server: str, protocol: str, metric: str, value: float) -> None:
        """One figure."""
        self.results.append(
            {"turn": turn, "server": server, "protocol": protocol, "metric": metric, "value": round(value, 4)}
        )

    def fail(self, turn: int, server: str, protocol: str, measure: str, why: str) -> None:
        """One measurement that counts nowhere."""
        self.failed.append({"turn": turn, "server": server, "protocol": protocol, "measure": measure, "why": why})

    @property
    def turns(self) -> int:
        """How many have a figure."""
        return 1 + max((one["turn"] for one in self.results), default=-1)

    def by_turn(self, server: str, protocol: str, metric: str) -> dict[int, float]:
        """A figure in each turn that has it."""
        wanted = (server, protocol, metric)
        return {
            one["turn"]: one["value"]
            for one in self.results
            if (one["server"], one["protocol"], one["metric"]) == wanted
        }

    def value(self, turn: int, server: str, protocol: str, metric: str) -> float:
        """A figure of one turn. Raises KeyError where it was not measured."""
        return self.by_turn(server, protocol, metric)[turn]

    def spread(self, server: str, protocol: str, metric: str) -> Spread | None:
        """Median, lowest and highest of the turns."""
        values = list(self.by_turn(server, protocol, metric).values())
        return Spread.of(values) if values else None

    def ratio(self, against: str, protocol: str, metric: str) -> Spread | None:
        """fanwire beside another server: of the ratios of turns, each of two runs side by side."""
        own, other = self.by_turn("fanwire", protocol, metric), self.by_turn(against, protocol, metric)
        ratios = [own[turn] / other[turn] for turn in own if turn in other]
        return Spread.of(ratios) if ratios else None

    def beside(self, server: str, protocol: str, metric: str, against: str) -> Spread | None:
        """One figure of a server beside another of the same: of the ratios of turns."""
        own, other = self.by_turn(server, protocol, metric), self.by_turn(server, protocol, against)
        ratios = [own[turn] / other[turn] for turn in own if turn in other]
        return Spread.of(ratios) if ratios else None

    def write(self, header: dict[str, Any], directory: Path, name: str, report: str) -> None:
        """Write them, as JSON, and a report of them, in Markdown, into a directory."""
        directory.mkdir(parents=True, exist_ok=True)
        found = {"header": header, "results": self.results, "failed": self.failed}
        (directory / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        (directory / f"{name}.md").write_text(report)

    def nowhere(self, told: Callable[[dict[str, Any]], str]) -> list[str]:
        """Of a report: what failed, where as `told` says, and the first line of why. Empty if nothing did."""
        if not self.failed:
            return []
        lines = [
            f"- turn {one['turn'] + 1}, {told(one)}: {(one['why'].splitlines() or ['?'])[0]}" for one in self.failed
        ]
        return ["## What counts nowhere", "\n".join(lines)]


def write_again(write: Callable[[Figures, dict[str, Any], Path], None]) -> None:
    """Have `write` write the tables of the run again whose JSON file the command line names."""
    path = Path(sys.argv[1])
    found = json.loads(path.read_text())
    write(Figures(found["results"], found["failed"]), found["header"], path.parent)
