"""The bare loop with as many sockets as scale.py has clients: several processes that only send one buffer each."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

from measure import cpu_of
from process import CORES, Child, ChildFailed
from scale_stage import IN_FLIGHT_MAX, PATIENCE_S, WITHIN_S, kill, processes_for, take_port
from signalr import BINARIES


class Floors:
    """Bare loops, each with clients of its own; nothing that they send is looked at but that it came."""

    def __init__(self, shares: int) -> None:
        """Nobody yet; there will be about `shares` of them, which share what may be under way."""
        self._in_flight = max(8, IN_FLIGHT_MAX // max(1, shares))
        self._stack = ExitStack()
        self._loops: list[Child] = []
        self._crowds: list[tuple[Child, int]] = []
        self.clients = 0

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all at once, then wait for each."""
        kill(child.pid for child in (*self._loops, *(crowd for crowd, _ in self._crowds)))
        self._stack.close()

    def connect(self, clients: int) -> None:
        """So many more, with loops of their own."""
        count = processes_for(clients)
        ports = [take_port() for _ in range(count)]
        started = []
        for port in ports:
            command = [str(BINARIES / "fanwire-floor"), "--port", str(port), "--via", "uring"]
            self._loops.append(self._stack.enter_context(Child("bare loop", command, list(CORES))))
        for loop in self._loops[-count:]:
            loop.wait_for("ready", WITHIN_S)
        for number, port in enumerate(ports):
            share = clients * (number + 1) // count - clients * number // count
            command = [str(BINARIES / "fanwire-load"), "--url", f"ws://127.0.0.1:{port}/ws"]
            command += ["--connections", str(share), "--in-flight", str(self._in_flight), "--sources", "2"]
            command += ["--patience", str(PATIENCE_S)]
            crowd = self._stack.enter_context(Child("its clients", command, list(CORES)))
            self._crowds.append((crowd, share))
            started.append(crowd)
        for crowd in started:
            failed = crowd.wait_for("connected", WITHIN_S)["failed"]
            if failed:
                raise ChildFailed(f"{failed} clients of a bare loop could not connect\n{crowd.complaints()}")
        self.clients += clients

    def pids(self) -> tuple[list[int], list[int]]:
        """Of the loops, and of their clients."""
        return [loop.pid for loop in self._loops], [crowd.pid for crowd, _ in self._crowds]

    def delivery(self, message_bytes: int, rounds: int, pause_s: float) -> tuple[float, float]:
        """Has all have one message, so many times: CPU µs of one to one client, and seconds until the last had it."""
        spent, seconds = 0, []
        for _ in range(rounds):
            for crowd, share in self._crowds:
                crowd.send({"expect": share})
            time.sleep(0.05)  # two pipes: the expectation is to be there first
            before, began = [cpu_of(loop.pid) for loop in self._loops], time.monotonic()
            self._publish(message_bytes)
            for crowd, share in self._crowds:
                said = crowd.wait_for("complete", WITHIN_S)
                if said["received"] != share:
                    raise ChildFailed(f"a bare loop's clients: {said['received']:,} of {share:,} messages")
            seconds.append(time.monotonic() - began)
            spent += _spent(self._loops, before)
            time.sleep(pause_s)
        return spent / 1e3 / (rounds * self.clients), sorted(seconds)[len(seconds) // 2]

    def _publish(self, message_bytes: int) -> None:
        command = {"rounds": 1, "burst": 1, "interval_s": 0.0, "sequence": None, "bytes": message_bytes}
        for loop in self._loops:
            loop.send({"publish": command})
        for loop in self._loops:
            loop.wait_for("published", WITHIN_S)


def _spent(loops: Sequence[Child], before: Sequence[Any]) -> int:
    return sum(cpu_of(loop.pid).since(earlier).total_ns for loop, earlier in zip(loops, before, strict=True))
