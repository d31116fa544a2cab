"""Programs before and after, side by side: what dropin.py and dropin_rooms.py share."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from process import Child
from report import figure_text, markdown_table, span_text
from session import Result, Session
from summary import Summary
from workloads import HERE, Group, Peer, Workload


class Framed(Session):
    """A session whose clients are framed_clients.py's, which count what comes on the wire.

    Args:
        target: what they ask the server for.
        flags: their other options.
    """

    def __init__(self, peer: Peer, group: Group, repeat: int, target: str, flags: Iterable[str]) -> None:
        super().__init__(peer, group, repeat, Path(), control=False)
        self._target, self._flags = target, flags
        self._said: dict[str, Any] = {}

    def _load_command(self, port: int) -> list[str]:
        command = [sys.executable, str(HERE / "framed_clients.py"), "--url", f"ws://127.0.0.1:{port}/{self._target}"]
        return [*command, "--connections", str(self.group.clients), *self._flags]

    def _publish(self, *arguments: Any) -> Any:
        found = super()._publish(*arguments)
        self._said = found[2]
        return found

    def _measure(self, server: Child, client: Child, workload: Workload) -> Result:
        result = super()._measure(server, client, workload)
        if result.complete:
            result.figures["wire_bytes"] = self._said["wire_bytes"] / self._said["received"]
            result.figures["deflating"] = self._said["deflating"]
        return result


def results_of(session: Session, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run one turn of a program, with a line for each workload."""
    group, results = session.group, []
    for result in session.run(group.workloads, lambda _: None):
        idle = f"idle-{group.name}" if result.workload == "idle" else result.workload
        result = replace(result, workload=idle)
        results.append(result.as_dict())
        figure = f"{result.cpu_us:.3f} µs" if result.complete else result.why.splitlines()[-1]
        if "wire_bytes" in result.figures:
            figure += f", {result.figures['wire_bytes']:.0f} bytes, {result.figures['deflating']:.0f} deflating"
        if "idle_kib" in result.figures:
            figure = f"{result.figures['idle_kib']:.2f} KiB"
        turn = f"{session.repeat + 1}/{group.repeats}"
        say(f"{group.name:>12} {turn} {session.peer.label:<38} {result.workload:<22} {figure}")
    return results


def machine(header: dict[str, Any]) -> str:
    """Where it was measured, for a report."""
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    return f"Linux {header['kernel']}, {header['cpu']}, Python {header['python']}; {versions}"


def memory_table(summary: Summary, group: str, peers: Iterable[Peer]) -> list[str]:
    """What a connection of each takes that was measured, as a table, or none."""
    spreads = ((peer, summary.spread(f"idle-{group}", peer.name, "idle_kib")) for peer in peers)
    idle = [[f"{peer.label} ({peer.name})", span_text(spread)] for peer, spread in spreads if spread is not None]
    return [markdown_table(["memory of a connection", "KiB"], idle)] if idle else []


def times_text(times: float | None) -> str:
    """How many times as fast."""
    return "–" if times is None else f"{figure_text(times)}×"


def reached(times: float | None, least: float | None) -> str:
    """Whether it is at least as fast as it is to be; empty where nothing was promised."""
    return "not measured" if times is None else "" if least is None else "yes" if times >= least else "**no**"


def write(folder: Path, name: str, found: dict[str, Any], text: str) -> str:
    """Write results and report; gives what to say of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    (folder / f"{name}.md").write_text(text)
    return f"{folder / name}.md, {found['header']['minutes']} minutes"
