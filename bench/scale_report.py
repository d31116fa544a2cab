"""Writes scale.json, scale.md and the plot: ``python bench/scale_report.py scale.json`` writes the others again."""

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import figure_text, markdown_table

GIB = 1 << 30
PAGE = 4096


@dataclass(frozen=True)
class Bound:
    """A figure, and what it may be at most; None where nothing is asked of it."""

    title: str
    figure: str
    limit: float | None = None
    unit: str = ""


BOUNDS = (
    Bound("connections at the backend, standing (JSON)", "connections", 1_001),
    Bound("the most there ever were", "connections_peak"),
    Bound("negotiates, lanes' and admissions", "negotiates"),
    Bound("all connect", "connect_s", 120, " s"),
    Bound("clients that could not", "connect_failed", 0),
    Bound("of those a storm of the last ones, while messages flow", "storm_s", None, " s"),
    Bound("one of the storm at the slowest process's 99th percentile", "storm_login_p99_s", None, " s"),
    Bound("age of the messages meanwhile, p99", "storm_age_p99_ms", None, " ms"),
    Bound(
        "user memory of the workers a client, all that they share and their supervisor included (Pss)",
        "user_kib",
        0.75,
        " KiB",
    ),
    Bound("without what they have before anybody connects", "user_more_kib", None, " KiB"),
    Bound("a worker with nobody, with its part of what all share and of their supervisor", "worker_kib", None, " KiB"),
    Bound("kernel memory (slab) a client, both ends of its connection", "slab_kib", None, " KiB"),
    Bound("all memory of the machine a client, load processes included", "all_kib", None, " KiB"),
    Bound("nothing but pings: share of a core", "idle_percent", 10, " %"),
    Bound("what bare loops would take to send as many, and receive none", "idle_bare_percent", None, " %"),
    Bound("until all have a goal that goes to everyone", "goal_s", None, " s"),
    Bound("one match's thousandth of them while idle: a message's age, p50", "match_p50_ms", None, " ms"),
    Bound("p99", "match_p99_ms", 50, " ms"),
    Bound("the oldest", "match_max_ms", None, " ms"),
    Bound("its CPU a message, over all workers", "match_us", None, " µs"),
    Bound("messages that were missing, doubled, out of order or another's", "faults", 0),
    Bound("kill -9 of a worker: until its clients are back and recovered", "worker_s", 10, " s"),
    Bound("kill -9 of the worker that holds the most lanes: until its clients are", "lane_s", 10, " s"),
    Bound("until another holds its lanes", "lane_lanes_s", 2, " s"),
    Bound("kill -9 of the backend: clients that lose their connection", "backend_closed", 0),
    Bound("until all lanes are back behind its return", "backend_lanes_s", None, " s"),
)
RATIO_MAX = 1.2
LESS_MIN = 100


def markdown(header: dict[str, Any], figures: dict[str, float], failed: dict[str, str]) -> str:
    """The whole report."""
    parts = [
        f"# {header['clients']:,} SignalR clients on one machine",
        _head(header, figures),
        "![CPU a message, and the clients over the run](scale.svg)",
        _bounds(figures),
        "## CPU a message to one client\n\nOne message to everyone: CPU of all workers and their supervisor, beside "
        "bare loops that only send one buffer, in as many processes as it takes. For the CPU the servers have core 0, "
        "and clients and backend core 1; until all have it, everybody has both. Up to 100,000 all clients watch one "
        "match and the goal is its; above, it is one to `Clients.All`, which the hub sends over all 1,000 lanes, too. "
        "Above, pings go on meanwhile, which bare loops have none of: what they take was measured just before, while "
        "nothing else happened, and stands apart.",
        _scales(figures),
        "## At the backend",
        _backend(header, figures),
        "## What else was seen",
        _notes(header, figures),
        "## Limits of the machine that were met",
        _limits(header),
        *_failures(failed),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(header: dict[str, Any], figures: dict[str, float]) -> str:
    workers = figures.get("workers", 0)
    return (
        f"Linux {header['kernel']}, {header['congestion_control']}, loopback, {header['cpu']}, {header['cores']} cores "
        f"for all of it; {header['minutes']} minutes. Made by `{header['command']}`, do not edit.\n\n"
        f"JSON over WebSockets, without negotiation, on 1,000 matches; `fanwire serve --workers {workers:.0f}` before "
        "one ASP.NET Core hub; as many load processes. Pings go both ways every "
        f"{header['ping_every_s']} s, where stock clients have 15 s. Every client checks that it has each publication "
        "of its match once and in order. The phases are run once, so there is no spread."
    )


def _verdict(value: float, limit: float | None) -> str:
    return "–" if limit is None else "yes" if value <= limit else "**no**"


def _bounds(figures: dict[str, float]) -> str:
    rows = []
    for bound in BOUNDS:
        value = figures.get(bound.figure)
        limit = "–" if bound.limit is None else f"≤ {bound.limit:,g}{bound.unit}"
        shown = "not measured" if value is None else f"{number(value)}{bound.unit}"
        rows.append([bound.title, shown, limit, "–" if value is None else _verdict(value, bound.limit)])
    return markdown_table(["", "measured", "bound", "reached"], rows)


def _scales(figures: dict[str, float]) -> str:
    rows = []
    for clients, own in scales(figures, "us"):
        floor = figures.get(f"bare_us_{clients}")
        ratio = own / floor if floor else None
        rows.append(
            [
                f"{clients:,}",
                f"{figures.get(f'workers_{clients}', 0):.0f}",
                number(own),
                number(pings) if (pings := figures.get(f"pings_us_{clients}")) else "–",
                number(floor) if floor else "–",
                f"{ratio:.2f}×" if ratio else "–",
                f"≤ {RATIO_MAX}×",
                _verdict(ratio, RATIO_MAX) if ratio else "–",
                number(figures.get(f"goal_s_{clients}", 0.0)),
                number(figures.get(f"bare_s_{clients}", 0.0)) if floor else "–",
            ]
        )
    names = ["clients", "workers", "fanwire, µs", "pings besides, µs", "bare loop, µs", "compared", "bound", "reached"]
    return markdown_table([*names, "all have it, s", "bare loop, s"], rows) if rows else "Not measured."


def scales(figures: dict[str, float], name: str) -> list[tuple[int, float]]:
    """The figures of that name by how many clients there were."""
    found = ((key.rpartition("_"), value) for key, value in figures.items())
    return sorted((int(count), value) for (base, _, count), value in found if base == name and count.isdecimal())


def _backend(header: dict[str, Any], figures: dict[str, float]) -> str:
    rows = []
    clients = header["clients"]
    each = clients / 1_000
    for title, own, other in (
        ("CPU of a publication to one match, µs", "backend_us", "direct_us"),
        ("bytes of a publication to one match", "backend_bytes", "direct_bytes"),
    ):
        if own in figures:
            direct = figures.get(other, 0.0) * each / 1_000
            less = direct / figures[own]
            reached = "yes" if less >= LESS_MIN else "**no**"
            beside = [number(direct), f"{less:,.0f}× less", reached] if direct else ["not measured", "–", "–"]
            rows.append([title, number(figures[own]), *beside])
    if not rows:
        return "Not measured."
    return (
        f"Direct is measured with {figures.get('direct_clients', 0):,.0f} clients of the hub itself, 1,000 at each "
        f"match, and scaled to the {each:,.0f} of a match here. What the hub spends on compiling itself is left off."
        "\n\n" + markdown_table(["", "behind fanwire", "direct", "compared", f"≥ {LESS_MIN}× less"], rows)
    )


def _notes(header: dict[str, Any], figures: dict[str, float]) -> str:
    lines = []
    if "messages" in figures:
        lines.append(f"Messages that clients checked: {figures['messages']:,.0f}")
    if "goal_bytes" in figures or "direct_goal_bytes" in figures:
        scaled = figures.get("direct_goal_bytes", 0) * header["clients"] / figures.get("direct_clients", 1)
        lines.append(f"A goal to everyone straight from the hub would be {scaled / 1e6:,.0f} MB, scaled")
    if "stock_percent" in figures:
        lines.append(
            f"Stock pings, every 15 s both ways, of {figures['stock_clients']:,.0f} clients: "
            f"{number(figures['stock_percent'])} % of a core"
        )
    if "connections_calm" in figures:
        lines.append(f"Connections at the backend before the storm: {figures['connections_calm']:,.0f}")
    for name, what in (("worker", "A killed worker"), ("lane", "The one with the most lanes")):
        if f"{name}_clients" in figures:
            lines.append(
                f"{what} had {figures[f'{name}_clients']:,.0f} clients; they missed "
                f"{figures[f'{name}_missed']:,.0f} publications while away, which their snapshots told; "
                f"{figures[f'{name}_told']:,.0f} clients of other workers were told of a hole in a lane; "
                f"{figures[f'{name}_connections']:,.0f} connections at the backend afterwards"
            )
    if "lane_held" in figures:
        lines.append(f"That worker had {figures['lane_held']:,.0f} connections to the backend")
    if "backend_goal_s" in figures:
        lines.append(
            f"The backend was away for {number(figures['backend_away_s'])} s; one publication of each match then "
            f"reached all in {number(figures['backend_goal_s'])} s"
        )
    if "load_kib" in figures:
        lines.append(f"A client takes {number(figures['load_kib'])} KiB in its load process")
    return "\n".join(f"- {line}" for line in lines) if lines else "Nothing."


def _limits(header: dict[str, Any]) -> str:
    limits, peaks = header["limits"], header["peaks"]
    low, pressure, most = (int(word) for word in limits["tcp_mem"].split())
    lines = [
        f"`RLIMIT_NOFILE` {limits['descriptors']:,}: a process at either end holds {limits['each_max']:,} clients "
        "and leaves room for those of a process that dies",
        f"`fs.file-max` {int(limits['file_max']):,}: at most {peaks['files']:,.0f} were open",
        f"`ip_local_port_range` {limits['port_range']}: {limits['ports_each']:,} ports an address, so clients come "
        f"from {limits['addresses']} addresses of 127.0.0.0/8",
        f"`somaxconn` {limits['somaxconn']}: 3,000 connects are under way at a time",
        f"`tcp_mem` {low:,} {pressure:,} {most:,} pages: at most {peaks['tcp_pages']:,.0f} were in buffers "
        f"({peaks['tcp_pages'] * PAGE / GIB:.2f} GiB)",
        f"Memory: at most {peaks['memory_used_gib']:.1f} GiB were in use",
    ]
    if limits.get("conntrack_count", "0") != "0":
        lines.append(f"`nf_conntrack_max` {limits['conntrack_max']}: loopback is tracked, so this bounds connections")
    return "\n".join(f"- {line}" for line in lines)


def _failures(failed: dict[str, str]) -> list[str]:
    if not failed:
        return []
    lines = [f"- {name}: {(why.splitlines() or ['?'])[0]}" for name, why in failed.items()]
    return ["## What failed", "\n".join(lines)]


def number(value: float) -> str:
    """Three digits, or all of a count."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else figure_text(value)


def write(
    header: dict[str, Any],
    figures: dict[str, float],
    failed: dict[str, str],
    samples: list[dict[str, float]],
    directory: Path,
    *,
    draws: bool = True,
) -> None:
    """Write all that there is, the plot only where it is wanted and matplotlib is there."""
    figures = completed(header, figures)
    directory.mkdir(parents=True, exist_ok=True)
    kept = {name: round(value, 5) for name, value in figures.items()}
    found = {"header": header, "figures": kept, "failed": failed, "samples": samples}
    (directory / "scale.json").write_text(json.dumps(found, ensure_ascii=False, indent=None) + "\n")
    (directory / "scale.md").write_text(markdown(header, figures, failed))
    if not draws:
        return
    with suppress(ImportError):
        import scale_plot

        scale_plot.draw(found, directory)


def completed(header: dict[str, Any], figures: dict[str, float]) -> dict[str, float]:
    """With those of the whole crowd under a name of their own, and what its pings would cost bare loops to send."""
    clients, ping_s = header["clients"], figures.get("ping_s")
    goal, bare_us = figures.get(f"goal_s_{clients}"), figures.get(f"bare_us_{clients}")
    more = {} if goal is None else {"goal_s": goal}
    if bare_us and ping_s:
        more["idle_bare_percent"] = clients / ping_s * bare_us / 1e4
    return figures | more


def main() -> None:
    """Write the table and the plot of a run again."""
    path = Path(sys.argv[1])
    found = json.loads(path.read_text())
    write(found["header"], found["figures"], found["failed"], found["samples"], path.parent)


if __name__ == "__main__":
    main()
