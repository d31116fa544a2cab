"""Clients that are slow, that come late and that come back: ``python bench/late.py``; ``--smoke`` to see that it runs.

The server is pinned to core 0, its clients to core 1. Results go to bench/results: late.json and late.md. How much of
everything, and the bounds, stand in late_report.py; the clients in late_clients.py.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import late_report
from figures import Figures
from late_clients import QUIET_S, RECEIVE_BYTES, Arrivals, Crowd, LateHub, Raw, raws, read_all, stamped
from late_report import HUB, RAW, SMOKE, Sizes
from measure import cpu_of, environment, memory_of
from process import ChildFailed
from signalr import HERE, SETTLE_S, WITHIN_S, Turn, prepare, take

BACKLOG_BYTES = 64 << 10
WARM_ROUNDS, WARM_INTERVAL_S = 40, 0.1
"""More than the backlog and what the kernel holds for one who does not read."""
HEADROOM = 2.5
"""Between bursts there is so many times the CPU of one."""
TICK_S, TICK_PUBLICATIONS = 0.01, 20
"""Of the feed to channels of `latest`: 2,000 a second."""
SLOW_SHARE, SLOW_EVERY_S = 0.01, 0.1
"""Of the feed's bytes, and how often it reads."""
ENVELOPE_BYTES = 60
"""About, around a message of MESSAGE_BYTES and its head."""
IN_FLIGHT, SOURCES = 500, 4
SINGLE_S = 0.02
"""Between two publications of `fair`."""
FAIR_WARM = 20
CRAMPED = 256
"""Descriptors that a process needs besides its clients'."""


@dataclass(frozen=True)
class Spent:
    """One feed: figures of the load client and of the server."""

    cpu_ns: int
    seconds: float
    said: dict[str, Any]


def feed(hub: LateHub, crowd: Crowd, rounds: int, burst: int, interval_s: float) -> Spent:
    """One feed, from the first publication until the healthy have all of it."""
    crowd.expect(rounds * burst)
    before, began = cpu_of(hub.pid), time.monotonic()
    hub.publish(rounds, burst, interval_s)
    hub.published()
    said = crowd.complete(rounds * burst)
    return Spent(cpu_of(hub.pid).since(before).total_ns, time.monotonic() - began, said)


def feeds(name: str, found: list[Spent], messages: int) -> Iterator[tuple[str, float]]:
    """What feeds of one kind have cost; `messages` is how many all of them brought to the healthy."""
    yield f"{name}_us", sum(one.cpu_ns for one in found) / 1e3 / messages
    for quantile in ("p50", "p99"):
        values = [one.said["latency_us"][quantile] for one in found]
        yield f"{name}_{quantile}_ms", sum(values) / len(values) / 1e3


def slow(sizes: Sizes) -> Iterator[tuple[str, float]]:
    """What the others notice of clients that do not read."""
    everybody = sizes.healthy + sizes.stalled
    messages = 2 * sizes.rounds * sizes.burst * sizes.healthy
    with ExitStack() as stack:
        hub = stack.enter_context(LateHub({"policy": "drop", "backlog_bytes": BACKLOG_BYTES}))
        hub.wait_for("ready", WITHIN_S)
        crowd = stack.enter_context(Crowd(hub, sizes.healthy))
        crowd.connected()
        warm = feed(hub, crowd, WARM_ROUNDS, sizes.burst, WARM_INTERVAL_S)
        interval_s = max(WARM_INTERVAL_S, HEADROOM * warm.cpu_ns / 1e9 / WARM_ROUNDS)
        one = partial(feed, hub, crowd, sizes.rounds, sizes.burst, interval_s)
        time.sleep(SETTLE_S)
        memory = memory_of(hub.pid).private_bytes
        level = [one()]
        level_growth = memory_of(hub.pid).private_bytes - memory
        with raws(hub, sizes.stalled, RECEIVE_BYTES) as clients:
            feed(hub, crowd, WARM_ROUNDS, sizes.burst, interval_s)
            hub.wait_until("all have stalled", lambda found: found["lagging"] == sizes.stalled)
            time.sleep(SETTLE_S)
            memory = memory_of(hub.pid).private_bytes
            stalled = [one(), one()]
            growth = memory_of(hub.pid).private_bytes - memory
            after = hub.stats()
            if after["lagging"] != sizes.stalled or after["connections"] != everybody:
                raise ChildFailed(f"{hub.name}: {sizes.stalled} clients are to stall: {after}")
            taken, skipped = revive(hub, clients, (WARM_ROUNDS + 2 * sizes.rounds) * sizes.burst)
        hub.wait_until("they are gone", lambda found: found["connections"] == sizes.healthy)
        time.sleep(SETTLE_S)
        level.append(one())
        yield from feeds("level", level, messages)
        yield from feeds("stalled", stalled, messages)
        yield "level_memory_kib", level_growth / 1024
        yield "stalled_memory_kib", growth / 1024
        yield "stalled_taken", taken
        yield "stalled_skipped", skipped
        yield "slow_interval_ms", interval_s * 1e3
        both = level + stalled
        seconds = sum(one.seconds for one in both)
        yield "utilisation", sum(one.cpu_ns for one in both) / 1e7 / seconds
        yield "slow_client_share", 100 * sum(one.said["cpu_seconds"] for one in both) / seconds


def revive(hub: LateHub, clients: list[Raw], published: int) -> tuple[int, int]:
    """Have those who stalled read again; gives how many publications they got and went past, all together."""
    numbers = read_all(clients, lambda: hub.stats()["lagging"] == 0)
    taken, skipped = sum(map(len, numbers)), int(hub.stats()["skipped"])
    is_in_order = all(one < two for own in numbers for one, two in pairwise(own))
    if not is_in_order or taken + skipped != published * len(clients):
        raise ChildFailed(f"{published} publications, {len(clients)} who stalled: {taken} read, {skipped} skipped")
    return taken, skipped


class SlowReader:
    """A client with envelopes that reads little, and then all: what it got is (offset, number, time of publication)."""

    def __init__(self, client: Raw) -> None:
        """Nothing yet."""
        self.client = client
        self.got: list[tuple[int, int, int]] = []
        self.bytes_read = 0

    def read(self, room: int) -> None:
        """Wait for bytes, at most `room`."""
        kept = len(self.client.kept)
        self.client.read(room)
        self.bytes_read += len(self.client.kept) - kept
        for text in self.client.texts():
            envelope = json.loads(text)
            number, _, ns, _ = envelope["data"].split(" ")
            self.got.append((envelope["position"][1], int(number), int(ns)))

    def trickle(self, seconds: float, bytes_per_s: float) -> None:
        """For so long, read no faster than that."""
        began = time.monotonic()
        for index in range(1, round(seconds / SLOW_EVERY_S)):
            time.sleep(max(0.0, began + index * SLOW_EVERY_S - time.monotonic()))
            self.read(max(1, round(bytes_per_s * SLOW_EVERY_S)))

    def read_to(self, offset: int) -> float:
        """Read on until that publication is here, and see that none follows; gives how long it took, in seconds."""
        began = time.monotonic()
        while not self.got or self.got[-1][0] < offset:
            self.read(1 << 16)
        seconds = time.monotonic() - began
        self.client.socket.settimeout(QUIET_S)
        try:
            self.read(1 << 16)
        except TimeoutError:
            return seconds
        raise ChildFailed(f"more came after publication {offset}: {self.got[-1]}")


def latest(sizes: Sizes) -> Iterator[tuple[str, float]]:
    """What a client gets of a feed that it is too slow for, in a channel of policy `latest`."""
    rounds = round(sizes.seconds / TICK_S)
    published = rounds * TICK_PUBLICATIONS
    with ExitStack() as stack:
        hub = stack.enter_context(LateHub({"policy": "latest", "start": "live"}))
        hub.wait_for("ready", WITHIN_S)
        crowd = stack.enter_context(Crowd(hub, sizes.watchers))
        crowd.connected()
        client = Raw(hub, "&envelope=1", RECEIVE_BYTES)
        stack.callback(client.close)
        reader = SlowReader(client)
        crowd.expect(published)
        hub.publish(rounds, TICK_PUBLICATIONS, TICK_S, sizes.keys)
        feed_bytes = published * (128 + ENVELOPE_BYTES)
        reader.trickle(sizes.seconds, SLOW_SHARE * feed_bytes / sizes.seconds)
        position = hub.published()["position"]
        crowd.complete(published)
        behind = hub.stats()
        if behind["lagging"] != 1 or not reader.got:
            raise ChildFailed(f"{hub.name}: one client is to be behind: {behind}")
        newest = set(range(published - sizes.keys, published))
        before = list(reader.got)
        bytes_before = reader.bytes_read
        caught_up_s = reader.read_to(position[1])
        offsets = [offset for offset, _, _ in reader.got]
        numbers = [number for _, number, _ in reader.got]
        yield "latest_newest", len(newest.intersection(numbers))
        yield "latest_disorder", sum(one >= two for one, two in pairwise(offsets))
        yield "latest_published", published
        yield "latest_received", len(reader.got)
        yield "latest_share", 100 * bytes_before / (reader.bytes_read / len(reader.got)) / published
        yield "latest_keys_before", len(newest.intersection(number for _, number, _ in before))
        yield "latest_behind_s", (reader.got[-1][2] - before[-1][2]) / 1e9
        yield "latest_caught_up_s", caught_up_s
        yield "latest_healthy", published * sizes.watchers


def probe(hub: LateHub, since: str, position: list[int], sizes: Sizes) -> None:
    """One client comes back: it must be told so, and have exactly the publications that it missed."""
    client = Raw(hub, f"&since={since}")
    try:
        texts: list[str] = list(client.texts())
        while not texts:
            client.read(1 << 16)
            texts += client.texts()
        result = json.loads(texts[0])["result"]
        first = [position[0], position[1] - sizes.missed]
        if result["recovered"] != {"c0": True} or result["positions"] != {"c0": first}:
            raise ChildFailed(f"since {since} is answered with {result}")
        while len(texts) <= sizes.missed:
            client.read(1 << 16)
            texts += client.texts()
    finally:
        client.close()
    numbers = [int(text[:10]) for text in texts[1:]]
    if numbers != list(range(sizes.history, sizes.history + sizes.missed)):
        raise ChildFailed(f"since {since} brings {numbers}")


def stampede(sizes: Sizes) -> Iterator[tuple[str, float]]:
    """All come back at once, each with a position, and get what they missed."""
    with ExitStack() as stack:
        hub = stack.enter_context(LateHub({"history": sizes.history}, is_counting=True))
        hub.wait_for("ready", WITHIN_S)
        hub.publish(1, sizes.history + sizes.missed, 0.0)
        position = hub.published()["position"]
        since = f"{position[0]}-{position[1] - sizes.missed}"
        probe(hub, since, position, sizes)
        hub.wait_until("nobody is left", lambda found: found["connections"] == 0)
        time.sleep(SETTLE_S)
        before, cpu = hub.stats(), cpu_of(hub.pid)
        more = ("--replies", "--in-flight", str(IN_FLIGHT), "--sources", str(SOURCES))
        began = time.monotonic()
        crowd = stack.enter_context(Crowd(hub, sizes.returning, f"/ws?since={since}", *more))
        crowd.expect(sizes.missed)
        connected = crowd.connected()
        said = crowd.complete(sizes.missed)
        seconds = time.monotonic() - began
        spent = cpu_of(hub.pid).since(cpu)
        after = hub.stats()
        if said["replies"] != sizes.returning or after["connections"] != sizes.returning:
            raise ChildFailed(f"{crowd.name}: {after}, {said}")
        heard = {kind: count - before["events"].get(kind, 0) for kind, count in after["events"].items()}
        _, python_ns = spent.threads[hub.pid]
        yield "stampede_s", seconds
        yield "openings", after["openings"] - before["openings"]
        yield "events", sum(heard.values())
        yield "stampede_connects_s", connected["seconds"]
        yield "stampede_messages", said["received"]
        yield "stampede_cpu_s", spent.total_ns / 1e9
        yield "stampede_python_s", python_ns / 1e9
        yield "stampede_python_us", python_ns / 1e3 / sizes.returning
        yield "stampede_client_share", 100 * said["cpu_seconds"] / seconds


def fair(sizes: Sizes) -> Iterator[tuple[str, float]]:
    """Whether somebody is always first, and somebody always last: times of arrival are the kernel's."""
    with LateHub({}) as hub:
        hub.wait_for("ready", WITHIN_S)
        with raws(hub, sizes.receivers) as clients:
            stamped(clients)
            hub.publish(FAIR_WARM, 1, SINGLE_S)
            Arrivals(clients, 0, FAIR_WARM).watch()
            hub.published()
            arrivals = Arrivals(clients, FAIR_WARM, sizes.publications)
            hub.publish(sizes.publications, 1, SINGLE_S)
            arrivals.watch()
            hub.published()
            delays, fanout_s = arrivals.delays()
            yield "fair_spread", (max(delays) - min(delays)) / fanout_s
            yield "fair_fanout_ms", fanout_s * 1e3
            yield "fair_best_ms", min(delays) * 1e3
            yield "fair_worst_ms", max(delays) * 1e3
            yield "fair_merged", len(arrivals.merged)


MEASURES: dict[str, Callable[[Sizes], Iterator[tuple[str, float]]]] = {
    "slow": slow,
    "latest": latest,
    "stampede": stampede,
    "fair": fair,
}


def sized(name: str, sizes: Sizes) -> Callable[[Turn], Iterator[tuple[str, float]]]:
    """A measure in the form that `take` wants, under its own name."""

    def measure(turn: Turn) -> Iterator[tuple[str, float]]:
        return MEASURES[name](sizes)

    measure.__name__ = name
    return measure


def main() -> None:
    """Run, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--smoke", action="store_true", help="50 clients, a few seconds: figures that mean nothing")
    parser.add_argument("--results", type=Path, help="where late.json and late.md go [bench/results; of a smoke: /tmp]")
    options = parser.parse_args()
    sizes = SMOKE if options.smoke else Sizes()
    smoke_results = Path(tempfile.gettempdir()) / "fanwire-late-smoke"
    results = options.results or (smoke_results if options.smoke else HERE / "results")
    prepare(max(sizes.returning, sizes.healthy + sizes.stalled, sizes.receivers) + CRAMPED)
    figures = Figures()
    began = time.monotonic()
    for number in range(options.turns):
        for name in options.only:
            take(sized(name, sizes), Turn(HUB, RAW, number, figures), options.turns)
    header = environment(set(), HERE / "peers" / "node") | {"minutes": round((time.monotonic() - began) / 60, 1)}
    late_report.write(figures, header | {"sizes": asdict(sizes)}, results)
    print(f"\n{late_report.markdown(figures, header | {'sizes': asdict(sizes)})}")
    if figures.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
