"""What stands on the stage of scale.py: the backend, the relay's workers, and many load processes told as one.

Nothing is pinned: servers and clients share all cores. All that is started is ended by its process id.
"""

import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import relay
from measure import PROC, processes_of
from process import CORES, Child, ChildFailed
from signalr import BINARIES

MATCHES = int(os.environ.get("FANWIRE_BENCH_MATCHES", "1000"))
EACH_MAX = int(os.environ.get("FANWIRE_BENCH_EACH", "18500"))
"""Clients of one process, at either end: 20,000 descriptors less what it needs besides, and what a dead one's bring."""
PORTS = range(20_500, 32_000)
WITHIN_S = 180.0
PATIENCE_S = 60
CONNECT_WITHIN_S = 900.0
"""A load process gives up by itself where nothing moves for PATIENCE_S."""
FAILED_SHARE_MAX = 0.01
"""Of clients that cannot connect: with more nothing else is worth measuring."""
IN_FLIGHT_MAX = 3_000
"""Connects under way, of all processes together: under the 4,096 that the kernel's queue holds (somaxconn)."""
TICK_S = 0.5
TARGETS = "Odds,Announcement"
TEXT = "g" * 128
CONFIGURATION = """\
[listen]
address = "127.0.0.1:{port}"
workers = {workers}
worker_timeout = "2m"

[limits]
signalr_keepalive = "{keepalive}s"
signalr_client_timeout = "{timeout}s"

[[relay]]
path = "/live"
upstream = "http://127.0.0.1:{upstream}/live"

[[relay.share]]
subscribe = "Subscribe"
unsubscribe = "Unsubscribe"
snapshot = "Snapshot"

[relay.everyone]
targets = ["Announcement"]
"""
ALL_MATCHES = ",".join(f"m{number + 1}" for number in range(MATCHES))


def processes_for(clients: int) -> int:
    """How many processes hold so many."""
    return max(1, -(-clients // EACH_MAX))


def take_port() -> int:
    """A port for a listener that nobody has, and that is given once."""
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


_PORTS = iter(PORTS)


def kill(pids: Iterable[int]) -> None:
    """End processes that were started here, at once."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def pinned(servers: Iterable[int], others: Iterable[int]) -> Iterator[None]:
    """Processes and their descendants: servers on the first core, as in other tables, and the others on the rest."""
    first, rest = {min(CORES)}, CORES - {min(CORES)} or CORES
    roots = [(root, first) for root in servers] + [(root, rest) for root in others]
    places = [(pid, cores) for root, cores in roots for pid in processes_of(root)]
    for pid, cores in places:
        _place(pid, cores)
    try:
        yield
    finally:
        for pid, _ in places:
            _place(pid, CORES)


def _place(pid: int, cores: set[int]) -> None:
    with suppress(OSError):
        for thread in (PROC / str(pid) / "task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)


class Backend(relay.Backend):
    """The real hub, on any core."""

    def __init__(self, port: int | None = None) -> None:
        """A fresh one; on the port of one that died, where it comes back."""
        super().__init__(port=port or take_port())
        self.cores = set(CORES)

    def publish_all(self) -> None:
        """One announcement to everybody."""
        self.ask(f"publish-all?text={TEXT}")

    def watched(self) -> int:
        """How many matches somebody watches."""
        return len(self.stats()["watchers"])


class Workers(Child):
    """`fanwire serve --workers N` before a backend."""

    def __init__(self, backend: Backend, count: int, keepalive_s: int) -> None:
        """Its settings are in a file of its own."""
        self.port, self.count = take_port(), count
        self._directory = tempfile.TemporaryDirectory(prefix="fanwire-scale-")
        file = Path(self._directory.name) / "fanwire.toml"
        timeout_s = max(30, 3 * keepalive_s)
        file.write_text(
            CONFIGURATION.format(
                port=self.port, workers=count, upstream=backend.port, keepalive=keepalive_s, timeout=timeout_s
            )
        )
        super().__init__("fanwire", [sys.executable, "-m", "fanwire", "serve", str(file)], list(CORES))

    def listen(self) -> None:
        """Wait until all workers do."""
        self.wait_until_logged(f"serving on 127.0.0.1:{self.port} with {self.count} worker", WITHIN_S)

    def workers(self) -> list[int]:
        """Process ids; of the supervisor's children those that serve."""
        found = [pid for pid in processes_of(self.pid) if pid != self.pid]
        return [pid for pid in found if (PROC / str(pid) / "comm").read_text().strip() != "fanwire zygote"]

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and its workers, in this order: nobody is to start one anew."""
        pids = processes_of(self.pid)
        kill(pids)
        super().__exit__(kind, value, trace)
        self._directory.cleanup()


class Load(Child):
    """One load process, which tells how things are from time to time."""

    def __init__(
        self, url: str, clients: int, index: int, first: int, in_flight: int, ping_every_s: int, matches: int
    ) -> None:
        """`index` names its network of source addresses, `first` is the number of its first client."""
        self.clients = clients
        command = [str(BINARIES / "fanwire-load"), "signalr", "--url", url, "--connections", str(clients)]
        command += ["--skip-negotiation", "--reconnect", "--network", str(index + 1), "--in-flight", str(in_flight)]
        command += ["--subscribe", "Subscribe", "--matches", str(matches), "--first", str(first % matches)]
        command += ["--target", TARGETS, "--progress", str(TICK_S), "--patience", str(PATIENCE_S)]
        if ping_every_s:
            command += ["--ping-every", str(ping_every_s)]
        super().__init__(f"load {index}", command, list(CORES))
        self.ticks = 0
        self.tick: dict[str, Any] = {}
        self.ages: Counter[int] = Counter()

    def hears(self, answer: dict[str, Any]) -> bool:
        """Keep a tick; its ages are added up until somebody takes them."""
        if "tick" not in answer:
            return False
        self.tick = answer["tick"]
        for age_us, count in self.tick.pop("ages_us"):
            self.ages[age_us] += count
        self.ticks += 1
        return True


class Fleet:
    """Load processes as one crowd. Its clients watch matches in turn, so that all matches have as many."""

    def __init__(self, url: str, keepalive_s: int, matches: int) -> None:
        """Nobody yet."""
        self._url, self._keepalive_s, self._matches = url, keepalive_s, matches
        self.message_bytes = 0
        self._stack = ExitStack()
        self.loads: list[Load] = []
        self.clients = 0
        self.lost = self.failed = 0
        self._faults: Counter[str] = Counter()

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all at once, then wait for each."""
        kill(load.pid for load in self.loads)
        self._stack.close()

    def connect(self, clients: int) -> dict[str, float]:
        """So many more, in new processes; gives the seconds that they took, and the slowest process's p99 of one."""
        began, count = time.monotonic_ns(), processes_for(clients)
        in_flight = max(8, IN_FLIGHT_MAX // count)
        started = []
        for number in range(count):
            share = clients * (number + 1) // count - clients * number // count
            first = sum(load.clients for load in self.loads)
            load = Load(self._url, share, len(self.loads), first, in_flight, self._keepalive_s, self._matches)
            self.loads.append(self._stack.enter_context(load))
            started.append(load)
            self.clients += share
        said = [load.wait_for("connected", CONNECT_WITHIN_S) for load in started]
        last_ns = max(load.tick["opened_ns"] for load in self.told(started))
        failed = sum(one["failed"] for one in said)
        if failed > clients * FAILED_SHARE_MAX:
            raise ChildFailed(f"{failed:,} of {clients:,} clients could not connect: {self.failures()}")
        self.failed += failed
        self.clients -= failed
        p99_us = [one["login_us"]["p99"] for one in said]
        return {"seconds": (last_ns - began) / 1e9, "p99_s": max(p99_us) / 1e6}

    def told(self, loads: Sequence[Load] | None = None) -> list[Load]:
        """All, each with a tick of now."""
        loads = self.loads if loads is None else loads
        before = [load.ticks for load in loads]
        for load in loads:
            load.send({"tell": True})
        deadline = time.monotonic() + WITHIN_S
        while any(load.ticks == ticks for load, ticks in zip(loads, before, strict=True)):
            if time.monotonic() > deadline:
                raise ChildFailed("a load process does not tell how things are")
            time.sleep(0.005)
        return list(loads)

    def total(self, name: str) -> int:
        """A counter of the last ticks, of all."""
        return sum(load.tick.get(name, 0) for load in self.loads)

    def failures(self) -> dict[str, int]:
        """Why clients failed or were lost."""
        found: Counter[str] = Counter()
        for load in self.loads:
            found.update(load.tick.get("failures", {}))
        return dict(found)

    def take_ages(self) -> "Ages":
        """Of the publications that arrived since they were last taken."""
        ages: Counter[int] = Counter()
        for load in self.told():
            taken, load.ages = load.ages, Counter()
            ages.update(taken)
        return Ages(ages)

    def receive(self, each: int, publish: Callable[[], object], *, level: bool = False) -> float:
        """Publish; every client must have exactly so many. Gives the seconds until the last had the last."""
        if level:
            self._ask({"level": True}, "level")
        self._ask({"expect": each}, "expecting")
        began = time.monotonic_ns()
        publish()
        said = [load.wait_for("complete", WITHIN_S) for load in self.loads]
        for load, one in zip(self.loads, said, strict=True):
            if not one["lowest"] == one["highest"] == each:
                raise ChildFailed(f"{load.name}: {each} messages each: {brief(one)}")
        self.message_bytes = round(said[0]["bytes"] / said[0]["received"]) if said[0]["received"] else 0
        return (max(one["last_ns"] for one in said) - began) / 1e9

    def check(self, published: int, allowed: Sequence[str] = ()) -> Counter[str]:
        """Every client must have all of its match, each once and in order; gives the faults, those allowed included.

        No client may have lost its connection but those that are in `lost`. What one check has found the next does not.
        """
        self.told()
        lost, self.lost = self.total("closed") - self.lost, self.total("closed")
        if lost:
            raise ChildFailed(f"{lost:,} clients lost their connection: {self.failures()}")
        self._ask({"watch": {"seconds": 0}}, "watching")
        said = [load.wait_for("watched", WITHIN_S) for load in self.loads]
        found: Counter[str] = Counter()
        for one in said:
            found.update(one["faults"])
        faults, self._faults = found - self._faults, found
        for load, one in zip(self.loads, said, strict=True):
            if one["behind"] or (load.clients >= self._matches == MATCHES and one["newest"] != published):
                raise ChildFailed(f"{load.name}: {published} publications: {brief(one)}")
        wrong = {name: count for name, count in faults.items() if count and name not in allowed}
        if wrong:
            raise ChildFailed(f"clients found {wrong} in what they received")
        return faults

    def wait_until(self, what: str, holds: Callable[[], bool], within_s: float, poll_s: float = 0.1) -> None:
        """Ask all how things are until that holds."""
        deadline = time.monotonic() + within_s
        self.told()
        while not holds():
            if time.monotonic() > deadline:
                raise ChildFailed(f"not within {within_s:.0f} s: {what}; {self.failures()}")
            time.sleep(poll_s)
            self.told()

    def _ask(self, command: dict[str, Any], answer: str) -> None:
        for load in self.loads:
            load.send(command)
        for load in self.loads:
            load.wait_for(answer, WITHIN_S)


def brief(said: dict[str, Any]) -> dict[str, Any]:
    """A report without its histogram."""
    return {name: value for name, value in said.items() if name != "ages_us"}


class Ages:
    """How old messages were, µs."""

    def __init__(self, counts: Counter[int]) -> None:
        """Values and how often each."""
        self._counts = sorted(counts.items())
        self.count = sum(counts.values())

    def quantile_ms(self, quantile: float) -> float:
        """0 of nothing."""
        left = quantile * self.count
        for age_us, count in self._counts:
            left -= count
            if left <= 0:
                return age_us / 1e3
        return self._counts[-1][0] / 1e3 if self._counts else 0.0


class Feeder:
    """Publishes to one match after another, so many a second, until it is left; its body never waits for it."""

    def __init__(self, backend: Backend, rate: float) -> None:
        """`rate` is of all matches together."""
        self._backend, self._rate = backend, rate
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; nothing is under way then."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        number = 0
        while not self._over.wait(max(0.0, due - time.monotonic())):
            with suppress(OSError):
                self._backend.publish(1, f"m{number % MATCHES + 1}")
            number += 1
            due = max(due + 1 / self._rate, time.monotonic() - 1.0)


@contextmanager
def staged(clients: int, keepalive_s: int, matches: int = MATCHES) -> Iterator[tuple[Backend, Workers, Fleet]]:
    """A backend, workers for so many clients, and a crowd that has nobody yet.

    Publications have been before: so a restart shows.
    """
    with ExitStack() as stack:
        backend = stack.enter_context(Backend())
        backend.listen()
        backend.publish(20, ALL_MATCHES)
        front = stack.enter_context(Workers(backend, processes_for(clients), keepalive_s))
        front.listen()
        fleet = stack.enter_context(Fleet(f"ws://127.0.0.1:{front.port}/live", keepalive_s, matches))
        stack.callback(lambda: kill([*processes_of(front.pid), *(load.pid for load in fleet.loads)]))  # all at once
        yield backend, front, fleet


def connections_to(port: int, pids: Sequence[int]) -> Counter[int]:
    """How many connections to a port of this machine each of the processes has (sock_diag(7))."""
    inodes = set(_inodes(port))
    found: Counter[int] = Counter()
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
            for descriptor in descriptors:
                with suppress(OSError):
                    target = os.readlink(descriptor.path)  # noqa: PTH115 (a million of them)
                    if target.startswith("socket:[") and int(target[8:-1]) in inodes:
                        found[pid] += 1
    return found


SOCK_DIAG_BY_FAMILY, DUMP_REQUEST, DONE, FAILED = 20, 0x301, 3, 2
ESTABLISHED = 1 << 1


def _inodes(port: int) -> Iterator[int]:
    """Of the established TCP sockets whose other end is that port."""
    head = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, ESTABLISHED)
    name = struct.pack("!HH16s16s", 0, port, b"", b"") + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    size = 16 + len(head) + len(name)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as asked:
        asked.sendall(struct.pack("=IHHII", size, SOCK_DIAG_BY_FAMILY, DUMP_REQUEST, 1, 0) + head + name)
        while True:
            answer = asked.recv(1 << 16)
            while answer:
                length, kind = struct.unpack_from("=IH", answer)
                if kind in (DONE, FAILED):
                    return
                yield struct.unpack_from("=I", answer, 16 + 68)[0]
                answer = answer[(length + 3) & ~3 :]
