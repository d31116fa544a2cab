"""Medians and spread of the complete runs, for the tables and the plots."""

from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import Any

from workloads import BOUNDS, Bound


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of `count` complete runs."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of at least one value."""
        return cls(median(values), min(values), max(values), len(values))


class Summary:
    """What results.json says, by workload, peer and metric."""

    def __init__(self, found: dict[str, Any]) -> None:
        """Sort the runs; `found` is the contents of results.json."""
        self.header: dict[str, Any] = found["header"]
        self.results: list[dict[str, Any]] = found["results"]
        self._values: dict[tuple[str, str, str, bool], list[float]] = defaultdict(list)
        for run in self.results:
            if run["complete"]:
                for metric, value in _metrics(run).items():
                    self._values[run["workload"], run["peer"], metric, run["control"]].append(value)

    def spread(self, workload: str, peer: str, metric: str = "cpu_us", *, control: bool = False) -> Spread | None:
        """Median and range, or None where no run was complete."""
        values = self._values.get((workload, peer, metric, control))
        return Spread.of(values) if values else None

    def median(self, workload: str, peer: str, metric: str = "cpu_us", *, control: bool = False) -> float | None:
        """The median alone."""
        spread = self.spread(workload, peer, metric, control=control)
        return spread.median if spread else None

    def ratio(
        self, workload: str, peer: str, against: str, metric: str = "cpu_us", *, control: bool = False
    ) -> float | None:
        """How `peer` compares with `against`: the median of the ratios of their turns, one beside the other.

        A machine that is now fast and now slow is so for both of a pair; where the peers share no turns, it is the
        ratio of their medians. None where one of them was not measured.
        """
        by_turn: dict[str, dict[int, float]] = {peer: {}, against: {}}
        for run in self.results:
            is_it = run["workload"] == workload and run["control"] == control
            if run["complete"] and is_it and run["peer"] in by_turn:
                by_turn[run["peer"]][run["repeat"]] = _metrics(run)[metric]
        turns = by_turn[peer].keys() & by_turn[against].keys()
        if len(turns) >= 2 and len(by_turn[peer]) == len(by_turn[against]):
            return median(by_turn[peer][turn] / by_turn[against][turn] for turn in turns)
        one, other = (self.median(workload, name, metric, control=control) for name in (peer, against))
        return one / other if one is not None and other else None

    def peers(self, workload: str, *, control: bool = False) -> list[str]:
        """Peers that ran a workload, complete or not, in the order of their first turn."""
        names = (run["peer"] for run in self.results if run["workload"] == workload and run["control"] == control)
        return list(dict.fromkeys(names))

    def workloads(self, *, control: bool = False) -> list[str]:
        """Workloads that ran, in order, the idle figures last."""
        names = dict.fromkeys(run["workload"] for run in self.results if run["control"] == control)
        return sorted(names, key=lambda name: name == "idle")

    def clients(self, workload: str) -> int:
        """Connections of a workload."""
        return next((int(run["clients"]) for run in self.results if run["workload"] == workload), 0)

    def incomplete(self) -> list[dict[str, Any]]:
        """Runs that count nowhere."""
        return [run for run in self.results if not run["complete"]]


def _metrics(run: dict[str, Any]) -> dict[str, float]:
    """The numbers of one run, flat: ``latency_us`` becomes ``latency_us.p99`` and so on."""
    flat = {key: float(value) for key, value in run.items() if isinstance(value, int | float)}
    for part in ("latency_us", "completion_us"):
        flat |= {f"{part}.{name}": float(value) for name, value in run[part].items()}
    return flat | {name: float(value) for name, value in run["figures"].items()}


@dataclass(frozen=True)
class Verdict:
    """A bound and what was measured: a ratio, where the bound is against another peer."""

    bound: Bound
    value: float | None

    @property
    def is_reached(self) -> bool | None:
        """None where it was not measured."""
        return None if self.value is None else self.value <= self.bound.at_most


def verdicts(summary: Summary) -> list[Verdict]:
    """All bounds of the project against what was measured."""
    found = []
    for bound in BOUNDS:
        if bound.against is None:
            value = summary.median(bound.workload, bound.peer, bound.metric)
        else:
            value = summary.ratio(bound.workload, bound.peer, bound.against, bound.metric)
        found.append(Verdict(bound, value))
    return found


def conditions(header: dict[str, Any]) -> str:
    """One line that belongs under every table and plot."""
    return (
        f"Linux {header['kernel']} · {header['congestion_control']} · {header['network']} · server on core 0, "
        f"clients on core 1 · {header['cpu']}"
    )
