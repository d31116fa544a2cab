"""fanwire beside the real ASP.NET Core hub: ``python bench/signalr.py``; needs signalr-origin (SIGNALR_ORIGIN).

One server at a time, pinned to core 0, the clients to core 1; the servers take turns, a figure is a median over the
turns. Results go to bench/results: signalr.json and signalr.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from measure import cpu_of, environment, memory_of
from process import free_port
from signalr_clients import Client, Crowd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ORIGIN = Path(os.environ.get("SIGNALR_ORIGIN", ROOT.parent / "shared/tools/signalr-origin/signalr-origin"))
RESULTS = ROOT / "bench" / "results"
MATCH = "m1"
CONNECTING = 16
"""Clients that connect at once."""
CLIENTS, IDLERS, PINGERS, CALLERS = 1_000, 5_000, 15_000, 100
MESSAGE_BYTES = 167
"""A record, with its separator."""
PAD = 40
"""Bytes of a publication's padding: of ours, and of the real hub's beyond 160."""
BURSTS = {"single": (40, 1, 0.03), "burst20": (6, 20, 0.15), "burst100": (3, 100, 0.4)}
"""Rounds, publications in each, seconds between them."""

Publish = Callable[[int], None]


@contextmanager
def server(name: str) -> Iterator[tuple[int, int, Publish]]:
    """A fresh server on core 0: its process id, its port, and what publishes so many times."""
    port = free_port()
    if name == "origin":
        command = [str(ORIGIN), "serve", "--url", f"http://127.0.0.1:{port}"]
    else:
        command = [sys.executable, str(HERE / "peers" / "signalr_hub.py"), str(port)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {0}),
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid, port, publisher(name, port)
    finally:
        process.kill()
        process.wait()


def publisher(name: str, port: int) -> Publish:
    """What has the server publish so many times, back to back."""
    if name == "origin":

        def publish(count: int) -> None:
            url = f"http://127.0.0.1:{port}/publish?matches={MATCH}&count={count}&size={160 + PAD}"
            with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as answer:
                answer.read()

        return publish
    control = Client(port)
    target, size = ("PublishRaw", MESSAGE_BYTES) if name == "raw" else ("Publish", PAD)
    return lambda count: control.invoke(target, MATCH, count, size)


def deliveries(name: str) -> Iterator[tuple[str, float]]:
    """Server CPU, µs, for one message to one client."""
    with server(name) as (pid, port, publish):
        target = f"/ws?channel={MATCH}" if name == "raw" else "/live"
        clients = [Client(port, target) for _ in range(CLIENTS)]
        for client in clients if name != "raw" else []:
            client.invoke("Subscribe", MATCH)
        crowd = Crowd(clients)
        publish(20)
        crowd.count(b"Odds", 20 * CLIENTS)
        for burst, (rounds, count, pause_s) in BURSTS.items():
            time.sleep(0.5)
            before = cpu_of(pid)
            for _ in range(rounds):
                began = time.monotonic()
                publish(count)
                crowd.count(b"Odds", count * CLIENTS)
                time.sleep(max(0.0, pause_s - (time.monotonic() - began)))
            yield burst, cpu_of(pid).since(before).total_ns / 1e3 / (rounds * count * CLIENTS)
        crowd.close()


def connects(name: str) -> Iterator[tuple[str, float]]:
    """Memory of an idle connection, KiB, and what a connect costs, µs, with negotiate and handshake."""
    with server(name) as (pid, port, _):
        Client(port, negotiates=True)
        time.sleep(0.5)
        memory, before, began = memory_of(pid), cpu_of(pid), time.monotonic()
        sources = [f"127.0.0.{2 + number % 20}" for number in range(IDLERS)]
        with ThreadPoolExecutor(CONNECTING) as pool:
            clients = list(pool.map(lambda source: Client(port, negotiates=True, source=source), sources))
        yield "connects_s", time.monotonic() - began
        yield "connect_us", cpu_of(pid).since(before).total_ns / 1e3 / IDLERS
        time.sleep(1.0)
        yield "idle_kib", (memory_of(pid).private_bytes - memory.private_bytes) / 1024 / IDLERS
        Crowd(clients).close()


def calls(name: str) -> Iterator[tuple[str, float]]:
    """What an invocation with a small result costs, µs."""
    with server(name) as (pid, port, _):
        crowd = Crowd([Client(port) for _ in range(CALLERS)])
        crowd.call(5_000)
        before, began = cpu_of(pid), time.monotonic()
        crowd.call(30_000)
        yield "call_us", cpu_of(pid).since(before).total_ns / 1e3 / 30_000
        yield "calls_per_s", 30_000 / (time.monotonic() - began)
        crowd.close()


def pings(name: str) -> Iterator[tuple[str, float]]:
    """Share of a core, %, that idle clients take with pings both ways."""
    with server(name) as (pid, port, _):
        crowd = Crowd([Client(port, source=f"127.0.0.{2 + number % 20}") for number in range(PINGERS)])
        crowd.idle(16.0, 15.0)
        before, began = cpu_of(pid), time.monotonic()
        crowd.idle(30.0, 15.0)
        yield "pings_percent", cpu_of(pid).since(before).total_ns / 1e7 / (time.monotonic() - began)
        crowd.close()


BOUNDS = (
    ("one at a time, µs a message", "single", "origin", 0.45),
    ("burst of 20, µs a message", "burst20", "origin", 0.18),
    ("burst of 100, µs a message", "burst100", "origin", 0.1),
    ("one at a time, beside the raw protocol", "single", "raw", 1.1),
    ("burst of 20, beside the raw protocol", "burst20", "raw", 1.1),
    ("burst of 100, beside the raw protocol", "burst100", "raw", 1.1),
    ("idle connection, KiB", "idle_kib", None, 1.0),
    ("CPU of a connect, µs", "connect_us", "origin", 0.3),
    ("5,000 connects, s", "connects_s", None, 1.0),
    ("15,000 idle clients with pings, % of a core", "pings_percent", None, 2.0),
    ("CPU of an invocation, µs", "call_us", "origin", 1.0),
)


def report(found: dict[str, dict[str, list[float]]], header: dict[str, Any]) -> str:
    """The table."""
    lines = [
        "# SignalR: fanwire beside ASP.NET Core's own hub",
        "",
        f"Linux {header['kernel']}, {header['congestion_control']}, loopback, {header['cpu']}; server on core 0, "
        f"clients on core 1; JSON over WebSockets, {CLIENTS:,} clients, records of about {MESSAGE_BYTES} bytes. "
        "Medians of the turns; made by `python bench/signalr.py`, do not edit.",
        "",
        "| | fanwire | beside | ratio | at most | reached |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for title, metric, against, at_most in BOUNDS:
        own = median(found["fanwire"][metric])
        other = median(found[against][metric]) if against else None
        value = own / other if other else own
        beside = f"{other:.3g} ({'the real hub' if against == 'origin' else 'raw'})" if other else "–"
        ratio = f"{value:.3g}×" if other else "–"
        said = "yes" if value <= at_most else "**no**"
        lines.append(f"| {title} | {own:.3g} | {beside} | {ratio} | {at_most:g}{'×' if other else ''} | {said} |")
    rates = ", ".join(f"{name} {median(found[name]['calls_per_s']):,.0f}" for name in ("fanwire", "origin"))
    lines += [
        "",
        f"Invocations a second from {CALLERS} clients, the client's core being the limit: {rates}. The seconds of "
        f"5,000 connects are the client's: {CONNECTING} threads of Python.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    if not ORIGIN.is_file():
        sys.exit(f"skipped: there is no {ORIGIN.name}; SIGNALR_ORIGIN names it")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    os.sched_setaffinity(0, {1})
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    plan = [
        (deliveries, ("origin", "fanwire", "raw")),
        (connects, ("origin", "fanwire")),
        (calls, ("origin", "fanwire")),
    ]
    for turn in range(turns):
        for measure, names in [*plan, *([(pings, ("fanwire",))] if turn == 0 else [])]:
            for name in names:
                for metric, value in measure(name):
                    found[name][metric].append(value)
                    print(f"{turn + 1}/{turns} {name:<8} {metric:<14} {value:10.3f}", flush=True)
    header = environment(set(), HERE / "peers" / "node")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "signalr.json").write_text(json.dumps({"header": header, "found": found}, indent=1) + "\n")
    (RESULTS / "signalr.md").write_text(report(found, header))
    print(report(found, header))


if __name__ == "__main__":
    main()
