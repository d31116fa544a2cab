"""Reads what the kernel knows: CPU time of a server's threads, its private memory, and the machine for the header.

CPU is the first field of ``/proc/PID/task/TID/schedstat``: ns on a core, in user space, in the kernel, and in the
softirqs that ran on top of it (on loopback the receiver's half of TCP is among them).
"""

import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PROC = Path("/proc")
RPS_CPUS = Path("/sys/class/net/lo/queues/rx-0/rps_cpus")
CONGESTION = PROC / "sys/net/ipv4/tcp_congestion_control"


def _read(path: Path, otherwise: str = "") -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return otherwise


def processes_of(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for known in found:
        for task in PROC.glob(f"{known}/task/*/children"):
            found.extend(int(child) for child in _read(task).split())
    return found


@dataclass(frozen=True)
class Cpu:
    """CPU time so far, ns: of each thread of a server, of both cores' ksoftirqd, and stolen from the machine."""

    threads: dict[int, tuple[str, int]]
    ksoftirqd_ns: int
    steal_ns: int

    def since(self, before: "Cpu") -> "Spent":
        """What was spent between two readings; a thread that is new counts whole."""
        spent = {tid: (name, ns - before.threads.get(tid, ("", 0))[1]) for tid, (name, ns) in self.threads.items()}
        return Spent(spent, self.ksoftirqd_ns - before.ksoftirqd_ns, self.steal_ns - before.steal_ns)


@dataclass(frozen=True)
class Spent:
    """CPU time of an interval, ns, thread by thread."""

    threads: dict[int, tuple[str, int]]
    ksoftirqd_ns: int
    steal_ns: int

    @property
    def total_ns(self) -> int:
        """All threads together."""
        return sum(ns for _, ns in self.threads.values())

    @property
    def busiest_ns(self) -> int:
        """The one thread that spent the most: what bounds a server with a core for each thread."""
        return max((ns for _, ns in self.threads.values()), default=0)


def cpu_of(pid: int) -> Cpu:
    """CPU time of all threads of a process and its descendants, now."""
    threads = {}
    for process in processes_of(pid):
        for task in PROC.glob(f"{process}/task/*"):
            if fields := _read(task / "schedstat").split():
                threads[int(task.name)] = (_read(task / "comm"), int(fields[0]))
    softirqd = sum(int(_read(PROC / str(tid) / "schedstat", "0").split()[0]) for tid in _ksoftirqd())
    steal_ticks = int(_read(PROC / "stat").splitlines()[0].split()[8])
    return Cpu(threads, softirqd, steal_ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK"))


_KSOFTIRQD: list[int] = []


def _ksoftirqd() -> list[int]:
    """Ids of the kernel's softirq threads, looked up once."""
    if not _KSOFTIRQD:
        named = (path.parent for path in PROC.glob("[0-9]*/comm") if _read(path).startswith("ksoftirqd/"))
        _KSOFTIRQD.extend(int(path.name) for path in named)
    return _KSOFTIRQD


@dataclass(frozen=True)
class Memory:
    """User-space memory of a process and its descendants, bytes.

    `private_bytes` is Private_Dirty alone: Private_Clean holds pages of files, which turn shared, and so seem to be
    freed, when another process maps the same interpreter or library. `shared_out_bytes` is Pss: of a page that several
    processes have each counts its part, so a sum over them has it once. Only that is all of copies of one process.
    """

    private_bytes: int
    resident_bytes: int
    shared_out_bytes: int


def memory_of(pid: int) -> Memory:
    """Private_Dirty, Rss and Pss from ``smaps_rollup``."""
    found: Counter[str] = Counter()
    for process in processes_of(pid):
        for line in _read(PROC / str(process) / "smaps_rollup").splitlines():
            name, _, amount = line.partition(":")
            if name in ("Private_Dirty", "Rss", "Pss"):
                found[name] += int(amount.split()[0]) * 1024
    return Memory(found["Private_Dirty"], found["Rss"], found["Pss"])


@contextmanager
def kernel_value(path: Path, value: str) -> Iterator[bool]:
    """Set a file of /proc/sys or /sys for the body and restore it; gives whether that was permitted."""
    before = _read(path)
    try:
        path.write_text(value)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        path.write_text(before)


def _first_line(command: list[str]) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        lines = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
        return lines[0] if lines else ""
    return ""


def _cpu_model() -> str:
    for line in _read(PROC / "cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _io_uring() -> str:
    value = _read(PROC / "sys/kernel/io_uring_disabled", "absent")
    return {"0": "enabled", "1": "for the privileged", "2": "disabled"}.get(value, value)


def _node_ws(node_dir: Path) -> str:
    import json

    with suppress(OSError, ValueError, KeyError):
        return str(json.loads((node_dir / "node_modules/ws/package.json").read_text())["version"])
    return ""


def environment(packages: set[str], node_dir: Path) -> dict[str, Any]:
    """The header of every table: machine, kernel, TCP, versions. Figures without it mean nothing."""
    versions = {}
    for package in sorted(packages | {"fanwire"}):
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    versions["node"] = _first_line(["node", "--version"]).removeprefix("v")
    versions["ws"] = _node_ws(node_dir)
    return {
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "congestion_control": _read(CONGESTION, "unknown"),
        "rps_cpus": _read(RPS_CPUS, "absent"),
        "io_uring": _io_uring(),
        "network": "loopback",
        "python": platform.python_version(),
        "versions": {name: version for name, version in versions.items() if version},
        "command": " ".join(["python", *sys.argv]),
    }
