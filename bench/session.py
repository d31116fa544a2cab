"""One turn of one peer: start it, connect the clients, run the group's workloads, read what each cost.

A result that is not complete (a message missing, twice, out of order, or a closed client) is kept with its reason and
enters no median.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from measure import Cpu, Memory, Spent, cpu_of, memory_of
from process import Child, ChildFailed, free_port
from workloads import Group, Peer, Workload, zipf_order

CLIENT_CORE = 1
HEADROOM = 2.5
"""An interval is at least this many times the CPU of a round: the server is never measured overloaded."""
SEED = 20_251
PIPE_SETTLE_S = 0.05
"""From ``expect`` to the client to ``publish`` to the server: they are two pipes."""


@dataclass
class Result:
    """One measured run. Times per message are CPU µs of the server for one message to one client.

    Attributes:
        complete: every message arrived once, in order; `why` says what was wrong otherwise.
        cpu_us: all threads of the server; `busiest_us`: its busiest thread alone; `ksoftirqd_us`: the kernel's
            softirq threads, which belong to no one and are not in `cpu_us`.
        publish_us: wall time inside the publish call, for one publication.
        latency_us, completion_us: as the load client reports them.
        client_share: CPU of the load client over wall time; near 1 it is the bottleneck.
        steal_share: time stolen from the machine over wall time, of one core.
        figures: what only some workloads have (idle_kib, connect_s …).
    """

    peer: str
    group: str
    workload: str
    repeat: int
    clients: int
    control: bool = False
    complete: bool = False
    why: str = ""
    publications: int = 0
    deliveries: int = 0
    interval_s: float = 0.0
    cpu_us: float = 0.0
    busiest_us: float = 0.0
    ksoftirqd_us: float = 0.0
    publish_us: float = 0.0
    latency_us: dict[str, float] = field(default_factory=dict)
    completion_us: dict[str, float] = field(default_factory=dict)
    client_share: float = 0.0
    steal_share: float = 0.0
    threads_us: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return asdict(self)


class Session:
    """A server and its clients, while they run."""

    def __init__(self, peer: Peer, group: Group, repeat: int, load: Path, *, control: bool) -> None:
        """Remember what to run; :meth:`run` does it."""
        self.peer = peer
        self.group = group
        self.repeat = repeat
        self.load = load
        self.control = control
        self.subscribers: dict[int, int] = {0: group.clients}

    def run(self, workloads: tuple[Workload, ...], on_step: Callable[[str], None]) -> list[Result]:
        """Measure the workloads on one server; a server that fails gives results that say why."""
        results: list[Result] = []
        try:
            self._run(workloads, results, on_step)
        except ChildFailed as error:
            measured = {result.workload for result in results}
            missing = [self._result(w.name, why=str(error)) for w in workloads if w.name not in measured]
            results += missing or [self._result("session", why=str(error))]
        return results

    def _run(self, workloads: tuple[Workload, ...], results: list[Result], on_step: Callable[[str], None]) -> None:
        port = free_port()
        with Child(self.peer.name, [*self.peer.command, "--port", str(port)], self.peer.cores) as server:
            server.wait_for("ready", 30)
            on_step(f"{self.group.clients:,} connects")
            memory, cpu = memory_of(server.pid), cpu_of(server.pid)
            with Child("fanwire-load", self._load_command(port), [CLIENT_CORE]) as client:
                idle = self._connect(server, client, memory, cpu)
                for workload in workloads:
                    on_step(workload.title)
                    results.append(self._measure(server, client, workload))
            if idle is not None:
                results.append(idle)
                time.sleep(self.group.settle_s)
                idle.figures["after_kib"] = memory_of(server.pid).private_bytes / 1024

    def _load_command(self, port: int) -> list[str]:
        group = self.group
        url = f"ws://127.0.0.1:{port}/ws{self.peer.query}"
        command = [str(self.load), "--url", url, "--connections", str(group.clients), *self.peer.load]
        if group.channels:
            command += ["--channels", str(group.channels), "--subscriptions", str(group.subscriptions)]
            command += ["--zipf", str(group.zipf), "--seed", str(SEED)]
        return command

    def _connect(self, server: Child, client: Child, memory: Memory, cpu: Cpu) -> Result | None:
        """Wait until all clients are there; gives the idle figures where the group wants them.

        `memory` and `cpu` are the server's from before the first connect.
        """
        connected = client.wait_for("connected", 180)
        spent = cpu_of(server.pid).since(cpu)
        if connected["failed"]:
            raise ChildFailed(f"{connected['failed']} of {self.group.clients} clients could not connect")
        self.subscribers = {int(channel): count for channel, count in connected["subscribers"].items()}
        time.sleep(self.group.settle_s)
        if not self.group.memory:
            return None
        return self._idle(float(connected["seconds"]), spent, memory, memory_of(server.pid))

    def _idle(self, connect_s: float, spent: Spent, before: Memory, after: Memory) -> Result:
        clients = self.group.clients
        result = self._result("idle")
        result.complete = True
        result.figures = {
            "connect_s": connect_s,
            "connect_cpu_us": spent.total_ns / 1e3 / clients,
            "idle_kib": (after.private_bytes - before.private_bytes) / 1024 / clients,
            "before_kib": before.private_bytes / 1024,
            "resident_kib": after.resident_bytes / 1024,
        }
        return result

    def _measure(self, server: Child, client: Child, workload: Workload) -> Result:
        """Warm up, choose the interval, measure."""
        result = self._result(workload.name)
        seed = SEED + self.repeat
        spent, _, complete = self._publish(server, client, workload, workload.warm_rounds, workload.interval_s, seed)
        if why := _fault(complete):
            result.why = f"warm-up: {why}"
            return result
        round_s = spent.total_ns / 1e9 / workload.warm_rounds
        result.interval_s = max(workload.interval_s, HEADROOM * round_s)
        began = time.monotonic()
        spent, published, complete = self._publish(
            server, client, workload, workload.rounds, result.interval_s, seed + 1
        )
        wall_s = time.monotonic() - began
        result.why = _fault(complete)
        result.complete = not result.why
        result.publications = published["published"]
        result.deliveries = complete["received"]
        each = max(result.deliveries, 1) * 1e3
        result.cpu_us = spent.total_ns / each
        result.busiest_us = spent.busiest_ns / each
        result.ksoftirqd_us = spent.ksoftirqd_ns / each
        result.publish_us = published["publish_seconds"] * 1e6 / max(result.publications, 1)
        result.latency_us = complete["latency_us"]
        result.completion_us = complete["completion_us"]
        result.client_share = complete["cpu_seconds"] / wall_s
        result.steal_share = spent.steal_ns / 1e9 / wall_s
        result.threads_us = {f"{name} {tid}": ns / each for tid, (name, ns) in spent.threads.items() if ns}
        return result

    def _publish(
        self, server: Child, client: Child, workload: Workload, rounds: int, interval_s: float, seed: int
    ) -> tuple[Spent, dict[str, Any], dict[str, Any]]:
        """One publish command from start to the last arrival: CPU spent, the server's and the client's reports."""
        count = rounds * workload.burst
        order = zipf_order(self.group.channels, self.group.zipf, count, seed) if self.group.channels else None
        expected = sum(self.subscribers.get(channel, 0) for channel in order or [0] * count)
        client.send({"expect": expected})
        time.sleep(PIPE_SETTLE_S)
        command = {"rounds": rounds, "burst": workload.burst, "interval_s": interval_s, "sequence": order}
        before = cpu_of(server.pid)
        server.send({"publish": command | {"bytes": workload.payload_bytes}})
        timeout_s = 60 + rounds * interval_s + expected * 100e-6
        published = server.wait_for("published", timeout_s)
        complete = client.wait_for("complete", timeout_s)
        return cpu_of(server.pid).since(before), published, complete

    def _result(self, workload: str, why: str = "") -> Result:
        return Result(
            self.peer.name, self.group.name, workload, self.repeat, self.group.clients, control=self.control, why=why
        )


def _fault(complete: dict[str, Any]) -> str:
    """What a client's report has against a run; empty when every message arrived once and in order."""
    faults = []
    if complete["received"] != complete["expected"]:
        faults.append(f"{complete['received']:,} of {complete['expected']:,} messages")
    faults += [f"{complete[key]:,} {key}" for key in ("gaps", "reordered", "malformed", "closed") if complete[key]]
    return ", ".join(faults)
