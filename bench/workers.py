"""Four workers beside one process with four shards: ``python bench/workers.py``.

What a message to a client costs more; what a worker has to do with channels that only others want; how long a
publication is under way to the other workers. Results go to bench/results: workers.json and workers.md. The bounds
stand in workers_report.py.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import workers_report
from caller import Caller
from measure import cpu_of, environment, processes_of
from process import CORES, Child, ChildFailed, free_port
from scale_stage import kill
from signalr import BINARIES, BURSTS, CLIENT_CORE, HERE, SERVER_CORE, SETTLE_S, WITHIN_S, Measures, Turn, take_turns
from workers_report import CHANNELS, CLIENTS, RATE, WORKERS

PAYLOAD_BYTES = 128
TRIES = 40 * WORKERS
"""Connects after which each worker has had one, and one has had ten."""
READERS = 10
"""Clients that watch a share of the channels each."""
FEED_S = 5.0
HOPS, HOP_EVERY_S = 2_000, 0.002


class Hub(Child):
    """Workers, or one process with as many shards."""

    def __init__(self, kind: str, cores: set[int]) -> None:
        """`kind` is workers or shards."""
        self.port, self.kind = free_port(), kind
        command = [sys.executable, str(HERE / "peers" / "workers_hub.py"), "--port", str(self.port)]
        super().__init__(kind, [*command, f"--{kind}", str(WORKERS)], list(cores))

    def listen(self) -> None:
        """Wait until all serve."""
        workers = f"{WORKERS} workers" if self.kind == "workers" else ""
        self.wait_until_logged(f"serving on 127.0.0.1:{self.port} with {workers}", WITHIN_S)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and its workers."""
        kill(processes_of(self.pid))
        super().__exit__(kind, value, trace)


@contextmanager
def served(kind: str, cores: set[int]) -> Iterator[Hub]:
    """A fresh hub that serves."""
    with Hub(kind, cores) as hub:
        hub.listen()
        yield hub


def delivery(turn: Turn) -> Iterator[tuple[str, float]]:
    """CPU of all processes, µs, for one message to one client; they have core 0 for themselves, whoever publishes."""
    with served(turn.server, {SERVER_CORE}) as hub, ExitStack() as stack:
        command = [str(BINARIES / "fanwire-load"), "--url", f"ws://127.0.0.1:{hub.port}/ws"]
        crowd = stack.enter_context(Child("clients", [*command, "--connections", str(CLIENTS)], [CLIENT_CORE]))
        if failed := crowd.wait_for("connected", WITHIN_S)["failed"]:
            raise ChildFailed(f"{failed} clients could not connect")
        caller = stack.enter_context(Caller(hub.port))
        _publish(caller, crowd, 2, 20, 0.1)
        for burst, (rounds, count, pause_s) in BURSTS.items():
            time.sleep(SETTLE_S)
            before = cpu_of(hub.pid)
            _publish(caller, crowd, rounds, count, pause_s)
            yield burst, cpu_of(hub.pid).since(before).total_ns / 1e3 / (rounds * count * CLIENTS)


def _publish(caller: Caller, crowd: Child, rounds: int, burst: int, interval_s: float) -> None:
    wanted = rounds * burst * CLIENTS
    crowd.send({"expect": wanted})
    time.sleep(SETTLE_S / 10)
    command = {"rounds": rounds, "burst": burst, "interval_s": interval_s, "bytes": PAYLOAD_BYTES, "sequence": None}
    caller.call("publish", command)
    said = crowd.wait_for("complete", WITHIN_S)
    wrong = [name for name in ("gaps", "reordered", "malformed", "misrouted", "closed") if said[name]]
    if said["received"] != wanted or wrong:
        raise ChildFailed(f"{said['received']:,} of {wanted:,} messages: {wrong}")


@contextmanager
def callers(hub: Hub, readers: int) -> Iterator[tuple[dict[int, Caller], list[Caller]]]:
    """One client in each worker, and so many more in that of the first."""
    with ExitStack() as stack:
        found: dict[int, Caller] = {}
        more: list[Caller] = []
        for _ in range(TRIES):
            if len(found) == WORKERS and len(more) == readers:
                break
            caller = Caller(hub.port)
            if caller.number not in found:
                found[caller.number] = stack.enter_context(caller)
            elif caller.number == min(found) and len(more) < readers and len(found) == WORKERS:
                more.append(stack.enter_context(caller))
            else:
                with caller:
                    pass
        if len(found) < WORKERS or len(more) < readers:
            raise ChildFailed(f"of {TRIES} connects workers {sorted(found)} had one, and the first {len(more)} more")
        yield found, more


def interest(turn: Turn) -> Iterator[tuple[str, float]]:
    """Shares of a core, %: of the worker that publishes and has the clients, the busiest other, the supervisor."""
    with served(turn.server, CORES) as hub, callers(hub, READERS) as (found, readers):
        names = [f"c{number}" for number in range(CHANNELS)]
        for number, reader in enumerate(readers):
            reader.read(names[number::READERS])
        first, *others = (found[number] for number in sorted(found))
        rounds = round(FEED_S * RATE)
        first.call("publish", _feed(round(RATE)))
        time.sleep(SETTLE_S)
        pids = [first.pid, *(other.pid for other in others)]
        before, began = {pid: cpu_of(pid) for pid in pids}, time.monotonic()
        whole = cpu_of(hub.pid)
        report = first.call("publish", _feed(rounds))
        passed = time.monotonic() - began
        spent = {pid: cpu_of(pid).since(before[pid]).total_ns / 1e7 / passed for pid in pids}
        yield "interest_first_percent", spent[first.pid]
        yield "interest_others_percent", max(spent[other.pid] for other in others)
        yield "interest_owner_percent", cpu_of(hub.pid).since(whole).total_ns / 1e7 / passed - sum(spent.values())
        yield "interest_rate", report["published"] / passed / CHANNELS


def _feed(rounds: int) -> dict[str, Any]:
    """Each channel once a round."""
    return {"rounds": rounds, "burst": CHANNELS, "interval_s": 1 / RATE, "bytes": 64, "channels": CHANNELS}


def hops(turn: Turn) -> Iterator[tuple[str, float]]:
    """From publish in one worker until a listener of another has it, ms: the append, and a turn of its loop."""
    with served(turn.server, CORES) as hub, callers(hub, 0) as (found, _):
        first, *others = (found[number] for number in sorted(found))
        for other in others:
            other.call("listen")
        first.call("hop", HOPS // 10, HOP_EVERY_S)
        time.sleep(SETTLE_S)
        for other in others:
            other.call("heard")
        first.call("hop", HOPS, HOP_EVERY_S)
        time.sleep(SETTLE_S)
        ages = sorted(age for other in others for age in other.call("heard"))
        if len(ages) != HOPS * len(others):
            raise ChildFailed(f"{len(ages)} of {HOPS * len(others)} publications were heard")
        for name, quantile in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
            yield f"hop_{name}_ms", ages[round(quantile * (len(ages) - 1))] / 1e6


MEASURES: Measures = {
    "delivery": (delivery, ("shards", "workers")),
    "interest": (interest, ("workers",)),
    "hops": (hops, ("workers",)),
}


def main() -> None:
    """Run, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where workers.json and workers.md go")
    options = parser.parse_args()
    if not (BINARIES / "fanwire-load").is_file():
        sys.exit(f"{BINARIES / 'fanwire-load'} is missing: cargo build --release -p fanwire-load")
    began = time.monotonic()
    figures = take_turns(MEASURES, options.only, options.turns)
    header = environment(set(), HERE / "peers" / "node") | {"minutes": round((time.monotonic() - began) / 60, 1)}
    workers_report.write(figures, header, options.results)
    print(f"\n{workers_report.markdown(figures, header)}")


if __name__ == "__main__":
    main()
