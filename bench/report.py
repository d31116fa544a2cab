"""Writes results.json and README.md of a run: ``python bench/report.py results.json`` writes the Markdown again."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from figures import Figures
from summary import Spread, Summary, conditions, verdicts
from workloads import FORMS, Peer, peers

FLOOR, NATIVE = "floor-uring", "socketify"


def write(found: dict[str, Any], table: dict[str, Peer], directory: Path) -> None:
    """Write both files into a directory."""
    (directory / "results.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    (directory / "README.md").write_text(markdown(found, table))


def markdown(found: dict[str, Any], table: dict[str, Peer]) -> str:
    """The whole report."""
    summary = Summary(found)
    parts = [
        _head(summary),
        _images(summary),
        _bounds(summary),
        "## CPU per delivered message\n\nServer CPU, µs for one message to one client: median of the complete runs, "
        "lowest to highest in brackets. A ratio is the median over the turns, each of "
        "two runs side by side. On loopback this holds the receiver's half of TCP. A dash: not measured.",
    ]
    for workload in summary.workloads():
        if workload != "idle":
            parts.append(_workload(summary, workload, table, control=False))
    if "idle" in summary.workloads():
        parts.append(_idle(summary, table))
    parts += [_shards(summary), _control(summary, table), _incomplete(summary, table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _images(summary: Summary) -> str:
    """The plots that plot.py draws for these workloads."""
    ran = set(summary.workloads())
    images = []
    if ran & {"single", "burst5", "burst20", "burst100"}:
        images.append("![CPU per delivered message](cpu_per_message.svg)")
    if ran & {"markets", "goal", "idle"}:
        images.append("![Markets, the goal and idle connections](markets_goal_idle.svg)")
    return "\n\n".join(images)


def markdown_table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table, first column left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _head(summary: Summary) -> str:
    header = summary.header
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    return "\n".join(
        [
            "# fanwire beside its peers",
            "",
            "Made by `make bench`; do not edit. Ratios hold inside one run on one machine; do not compare figures "
            "across machines.",
            "",
            f"- kernel: Linux {header['kernel']}, congestion control **{header['congestion_control']}** for all peers, "
            f"io_uring {header['io_uring']}",
            f"- network: **{header['network']}**, `rps_cpus` of `lo`: {header['rps_cpus']}",
            f"- machine: {header['cpu']}, {header['cores']} cores; server on core 0, load client on core 1",
            f"- Python {header['python']}; {versions}",
            f"- form: {header['form']}, {header.get('minutes', '?')} minutes; command: `{header['command']}`",
        ]
    )


def _bounds(summary: Summary) -> str:
    rows = []
    for verdict in verdicts(summary):
        bound = verdict.bound
        times = "×" if bound.against else ""
        said = {None: "not measured", True: "yes", False: "**no**"}[verdict.is_reached]
        value = "–" if verdict.value is None else f"{figure_text(verdict.value)}{times}"
        rows.append([bound.title, f"≤ {figure_text(bound.at_most)}{times}", value, said])
    return "## The bounds\n\n" + markdown_table(["bound", "at most", "measured", "reached"], rows)


def figure_text(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def span_text(spread: Spread | None) -> str:
    """The median, and the lowest and highest where there were several."""
    if spread is None:
        return "–"
    if spread.count == 1:
        return figure_text(spread.median)
    return f"{figure_text(spread.median)} ({figure_text(spread.low)}–{figure_text(spread.high)})"


def notes(figures: Figures, server: str, texts: Iterable[tuple[str, str]]) -> str:
    """A list of a server's figures, each of a metric with a text, as far as there are any. Clients speak raw."""
    spreads = ((text, figures.spread(server, "raw", metric)) for metric, text in texts)
    return "\n".join(f"- {text}: {span_text(spread)}" for text, spread in spreads if spread)


def _micro_to_milli(value: float | None) -> str:
    return "–" if value is None else figure_text(value / 1000)


def _workload(summary: Summary, workload: str, table: dict[str, Peer], *, control: bool) -> str:
    rows = []
    for name in summary.peers(workload, control=control):
        spread = summary.spread(workload, name, control=control)
        ratios = (summary.ratio(workload, name, other, control=control) for other in (FLOOR, NATIVE))
        completion = summary.median(workload, name, "completion_us.p50", control=control)
        last = summary.median(workload, name, "completion_us.p99", control=control)
        label = f"**{table[name].label}**" if name == "fanwire" else table[name].label
        cells = [label, span_text(spread), *(f"{figure_text(ratio)}×" if ratio else "–" for ratio in ratios)]
        rows.append([*cells, _micro_to_milli(completion), _micro_to_milli(last), str(spread.count if spread else 0)])
    header = ["peer", "CPU, µs", "× bare loop", "× µWS", "last receiver p50, ms", "p99, ms", "runs"]
    title = f"### {_title(workload)}, {summary.clients(workload):,} clients"
    return f"{title}\n\n{markdown_table(header, rows)}\n\n<sub>{conditions(summary.header)}</sub>"


def _title(workload: str) -> str:
    """The title from the tables of workloads, whichever form it is in."""
    for form in FORMS.values():
        for group in form():
            for known in group.workloads:
                if known.name == workload:
                    return known.title[0].upper() + known.title[1:]
    return workload


def _idle(summary: Summary, table: dict[str, Peer]) -> str:
    rows = []
    for name in summary.peers("idle"):
        cells = [table[name].label, span_text(summary.spread("idle", name, "idle_kib"))]
        cells.append(span_text(summary.spread("idle", name, "connect_s")))
        cells.append(span_text(summary.spread("idle", name, "connect_cpu_us")))
        after, before = summary.median("idle", name, "after_kib"), summary.median("idle", name, "before_kib")
        cells.append("–" if after is None or before is None else f"{(after - before) / 1024:.1f}")
        rows.append(cells)
    clients = summary.clients("idle")
    header = ["peer", "KiB an idle connection", f"{clients:,} connects, s", "CPU a connect, µs", "kept after, MiB"]
    text = (
        f"## Idle connections and the storm, {clients:,} clients\n\nMemory is the server's private user-space memory "
        "(`Private_Dirty` of `smaps_rollup`) with all clients connected and idle, less that before the first; *kept "
        "after*: what it still holds more when all have left. The sockets' kernel memory, about 3.7 KiB each, is the "
        "same for all and not in it. Seconds: from the first `connect()` to the last upgrade answered."
    )
    return f"{text}\n\n{markdown_table(header, rows)}\n\n<sub>{conditions(summary.header)}</sub>"


def _shards(summary: Summary) -> str:
    rows = []
    for workload in summary.workloads():
        one = summary.median(workload, "fanwire", "busiest_us")
        two = summary.median(workload, "fanwire-2", "busiest_us")
        if workload != "idle" and one and two:
            total_one, total_two = summary.median(workload, "fanwire"), summary.median(workload, "fanwire-2")
            cells = [_title(workload), *(figure_text(v) if v else "–" for v in (total_one, total_two, one, two))]
            rows.append([*cells, f"{one / two:.2f}×"])
    if not rows:
        return ""
    text = (
        "## One shard, two shards\n\nDeliveries a second on two cores cannot be shown on a machine whose second core "
        "holds the clients. What can be shown is CPU time: a message's cost on all threads, and on the busiest one, "
        "which is what bounds a server with a core for each shard. With two shards the server may use both cores."
    )
    header = ["workload", "1 shard, µs", "2 shards, µs", "busiest of 1, µs", "busiest of 2, µs", "capacity"]
    return f"{text}\n\n{markdown_table(header, rows)}"


def _control(summary: Summary, table: dict[str, Peer]) -> str:
    state = summary.header["control"]
    if state == "not asked for":
        return ""
    text = (
        "## Control: the receiver's half of TCP on the other core\n\nOn loopback the receiver's half of TCP runs "
        "inside the sender's call. With `rps_cpus` of `lo` set to core 1 it runs there, and what remains is nearer to "
        "what a network card would leave."
    )
    if state != "measured":
        return f"{text}\n\nNot measured: {state}."
    parts = [_workload(summary, name, table, control=True) for name in summary.workloads(control=True)]
    return "\n\n".join([text, *parts])


def _incomplete(summary: Summary, table: dict[str, Peer]) -> str:
    if not summary.incomplete():
        return ""
    rows = [
        [
            table[run["peer"]].label + (" (control)" if run["control"] else ""),
            run["workload"],
            str(run["repeat"] + 1),
            (run["why"].splitlines() or ["?"])[0].replace("|", "/"),
        ]
        for run in summary.incomplete()
    ]
    text = "## Incomplete runs\n\nA run in which a message was missing, doubled or out of order counts nowhere above."
    return f"{text}\n\n{markdown_table(['peer', 'workload', 'turn', 'what was wrong'], rows)}"


def main() -> None:
    """Write README.md beside a results.json."""
    path = Path(sys.argv[1])
    (path.parent / "README.md").write_text(markdown(json.loads(path.read_text()), peers(Path("fanwire-floor"))))


if __name__ == "__main__":
    main()
