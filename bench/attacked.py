"""What honest clients notice of attackers: ``python bench/attacked.py``; ``--smoke`` to see that it runs.

The server is pinned to core 0, its clients and the attacker, who has the lowest priority, to core 1. Each turn has a
fresh server and four feeds to the same clients: alone, attacked, attacked, alone. The bare loop of the load client,
which accepts, reads and sends and does nothing else, is attacked in its turn: what its clients notice is the kernel's
part.
Results go to bench/results: attacked.json and attacked.md; the bounds stand in attacked_report.py.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attacked_report
from attacked_report import ATTACKS, FLOOR, HUB, RAW
from figures import Figures
from late_clients import MESSAGE_BYTES, Crowd
from measure import cpu_of, environment, memory_of
from process import Child, free_port
from signalr import BINARIES, CLIENT_CORE, HERE, SERVER_CORE, SETTLE_S, WITHIN_S, Turn, prepare, take

CLIENTS, SMOKE_CLIENTS = 500, 20
INTERVAL_S = 0.05
"""Between two publications."""
ROUNDS, SMOKE_ROUNDS = 100, 10
"""Publications of a feed."""
UNDER_WAY_S = 1.0
"""An attack is measured after so long."""
CRAMPED = 256
"""Descriptors that a process needs besides its clients'."""


class Server(Child):
    """A fresh server that is told what to publish: the hub, or the bare loop."""

    def __init__(self, name: str) -> None:
        """`name` is HUB or FLOOR."""
        self.port = free_port()
        hub = [sys.executable, str(HERE / "peers" / "attacked_hub.py")]
        floor = [str(BINARIES / "fanwire-floor")]
        super().__init__(name, [*(hub if name == HUB else floor), "--port", str(self.port)], [SERVER_CORE])

    def feed(self, crowd: Crowd, rounds: int) -> dict[str, Any]:
        """One feed; what the clients say of it, each having had all of it, in order."""
        crowd.expect(rounds)
        self.send({"publish": {"rounds": rounds, "burst": 1, "interval_s": INTERVAL_S, "bytes": MESSAGE_BYTES}})
        self.wait_for("published", WITHIN_S)
        return crowd.complete(rounds)


class Attacker(Child):
    """An attacker that waits for its order."""

    def __init__(self, kind: str, port: int) -> None:
        """`kind` is one of ATTACKS."""
        super().__init__(kind, [sys.executable, str(HERE / "attackers.py"), kind, str(port)], [CLIENT_CORE])

    def attack(self) -> None:
        """Begin, and be at it for a while."""
        self.send({"attack": True})
        self.wait_for("attacking", WITHIN_S)
        time.sleep(UNDER_WAY_S)

    def rest(self) -> int:
        """Leave the server alone; gives how much was done so far."""
        self.send({"rest": True})
        return int(self.wait_for("done", WITHIN_S)["done"])


def attacked(kind: str, clients: int, rounds: int, turn: Turn) -> Iterator[tuple[str, float]]:
    """One kind of attack on one server."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(turn.server))
        server.wait_for("ready", WITHIN_S)
        crowd = stack.enter_context(Crowd(server, clients))
        crowd.connected()
        attacker = stack.enter_context(Attacker(kind, server.port))
        attacker.wait_for("ready", WITHIN_S)
        server.feed(crowd, rounds)  # warm
        memory = memory_of(server.pid).private_bytes
        alone = [server.feed(crowd, rounds)]
        attacker.attack()
        before, began = cpu_of(server.pid), time.monotonic()
        beside = [server.feed(crowd, rounds), server.feed(crowd, rounds)]
        seconds = time.monotonic() - began
        spent = cpu_of(server.pid).since(before).total_ns / 1e9
        most = memory_of(server.pid).private_bytes
        done = attacker.rest()
        time.sleep(SETTLE_S)
        alone.append(server.feed(crowd, rounds))
        for name, feeds in (("alone", alone), ("attacked", beside)):
            for quantile in ("p50", "p99"):
                yield (
                    f"{kind}_{name}_{quantile}_ms",
                    sum(one["latency_us"][quantile] for one in feeds) / len(feeds) / 1e3,
                )
        yield f"{kind}_memory_mib", (most - memory) / (1 << 20)
        yield f"{kind}_kept_mib", (memory_of(server.pid).private_bytes - memory) / (1 << 20)
        yield f"{kind}_per_s", done / (seconds + UNDER_WAY_S)
        yield f"{kind}_busy_share", 100 * spent / seconds


def named(kind: str, clients: int, rounds: int) -> Callable[[Turn], Iterator[tuple[str, float]]]:
    """A measure in the form that `take` wants, under its own name."""
    measure: Any = partial(attacked, kind, clients, rounds)
    measure.__name__ = kind
    found: Callable[[Turn], Iterator[tuple[str, float]]] = measure
    return found


def main() -> None:
    """Run, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--smoke", action="store_true", help="20 clients, a few seconds: figures that mean nothing")
    parser.add_argument(
        "--results", type=Path, help="where attacked.json and attacked.md go [bench/results; of a smoke: /tmp]"
    )
    options = parser.parse_args()
    clients, rounds = (SMOKE_CLIENTS, SMOKE_ROUNDS) if options.smoke else (CLIENTS, ROUNDS)
    smoke_results = Path(tempfile.gettempdir()) / "fanwire-attacked-smoke"
    results = options.results or (smoke_results if options.smoke else HERE / "results")
    prepare(clients + CRAMPED)
    figures = Figures()
    began = time.monotonic()
    for number in range(options.turns):
        for kind in options.only:
            for server in (HUB, FLOOR) if ATTACKS[kind].is_served_by_floor else (HUB,):
                take(named(kind, clients, rounds), Turn(server, RAW, number, figures), options.turns)
    header = environment(set(), HERE / "peers" / "node") | {"minutes": round((time.monotonic() - began) / 60, 1)}
    header |= {"clients": clients, "rounds": rounds}
    attacked_report.write(figures, header, results)
    print(f"\n{attacked_report.markdown(figures, header)}")
    if figures.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
