"""What a machine's limits mean for so many clients. It reads what /proc says, and changes nothing."""

import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

from fanwire.options import WORKERS_MAX

OWN_DESCRIPTORS = 64
"""Of a worker without clients, rounded up: files of the interpreter, the pollers, the links to the others."""
CLIENT_BYTES = 5 << 10
"""Of an idle client: half a KiB of the engine's, the rest the kernel's for its socket (bench/results/README.md)."""
WORKER_BYTES = 12 << 20
"""Of a worker without clients: what it does not share with the others (docs/workers.md)."""
PROGRAM_BYTES = 64 << 20
"""Of an interpreter and what it has imported, which workers share; the supervisor's, too."""
SYSTEM_FILES = 10_000
"""Open files of a machine besides the clients."""


@dataclass(frozen=True, slots=True)
class MachineLimits:
    """Limits by name; ``inf`` where there is none, or where it cannot be read."""

    nofile: float = inf
    """RLIMIT_NOFILE, hard: what ``fanwire serve`` has each worker use."""
    nr_open: float = inf
    file_max: float = inf
    somaxconn: float = inf
    epoll_watches: float = inf
    """Of all that one user has in epoll."""
    conntrack_max: float = inf
    """Where connections are tracked at all."""
    memory_bytes: float = inf
    """What there is, or less by a control group (version 2)."""


def this_machine(root: Path = Path("/")) -> MachineLimits:
    """The limits in force for this process, its control group and its machine."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    proc = root / "proc"
    tracked = _number(proc / "sys/net/netfilter/nf_conntrack_count")
    return MachineLimits(
        nofile=inf if hard == resource.RLIM_INFINITY else hard,
        nr_open=_number(proc / "sys/fs/nr_open"),
        file_max=_number(proc / "sys/fs/file-max"),
        somaxconn=_number(proc / "sys/net/core/somaxconn"),
        epoll_watches=_number(proc / "sys/fs/epoll/max_user_watches"),
        conntrack_max=_number(proc / "sys/net/netfilter/nf_conntrack_max") if 0 < tracked < inf else inf,
        memory_bytes=min(_memory_of(proc / "meminfo"), _memory_of_group(root)),
    )


def holds(machine: MachineLimits, workers: int, spare: int) -> str:
    """What descriptors allow, in a line; `workers` is 0 where one process serves by itself, `spare` what each keeps."""
    if machine.nofile == inf:
        return "descriptors: as many as there are clients"
    room = _room(machine.nofile, spare)
    whose = f"{workers} worker{'s' * (workers != 1)}" if workers else "one process"
    return f"{machine.nofile:,.0f} descriptors a process: {whose} can hold {_about(room * max(workers, 1))} clients"


def lacks(machine: MachineLimits, clients: int, workers: int, spare: int, backlog: int) -> Iterator[str]:
    """What is too small for so many clients, in lines; each says what would do."""
    room, processes = _room(machine.nofile, spare), max(workers, 1)
    if room * processes < clients:
        more = _quotient(clients, room) if room else inf
        needed = _quotient(clients, processes) + OWN_DESCRIPTORS + spare
        by_workers = f"{more:,.0f} workers, or " if more <= WORKERS_MAX else ""
        nr_open = "" if needed <= machine.nr_open else f", and fs.nr_open, which is {machine.nr_open:,.0f}"
        yield f"descriptors: {by_workers}a limit of {needed:,} a process (LimitNOFILE=, ulimit -Hn){nr_open}"
        processes = int(more) if more <= WORKERS_MAX else processes
    bounds = (
        ("fs.file-max", machine.file_max, clients + SYSTEM_FILES, "open files of the machine"),
        ("fs.epoll.max_user_watches", machine.epoll_watches, clients + SYSTEM_FILES, "sockets that a user waits for"),
        ("net.netfilter.nf_conntrack_max", machine.conntrack_max, clients * 5 // 4, "connections that are tracked"),
        ("net.core.somaxconn", machine.somaxconn, backlog, "connects that wait, which `backlog` asks for"),
    )
    for name, bound, needed, what in bounds:
        if bound < needed:
            yield f"{name} is {bound:,.0f}: {needed:,} {what}"
    bytes_needed = clients * CLIENT_BYTES + processes * WORKER_BYTES + PROGRAM_BYTES
    if machine.memory_bytes < bytes_needed:
        there = machine.memory_bytes / 2**30
        yield f"memory: about {bytes_needed / 2**30:,.1f} GiB while all are idle; {there:,.1f} are there"


def _room(nofile: float, spare: int) -> int:
    return 1 << 62 if nofile == inf else max(int(nofile - min(spare, nofile // 4)) - OWN_DESCRIPTORS, 0)


def _about(count: int) -> str:
    return f"about {count // 1_000 * 1_000:,}" if count >= 10_000 else f"{count:,}"


def _quotient(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _number(file: Path) -> float:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no Linux, a container that hides it, or the word `max`
        return inf


def _memory_of(meminfo: Path) -> float:
    with suppress(OSError, ValueError, IndexError):
        return int(meminfo.read_text().partition("MemTotal:")[2].split()[0]) * 1024
    return inf


def _memory_of_group(root: Path) -> float:
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, _, path = line.partition("::")
            if number == "0":
                group = root / "sys/fs/cgroup" / path.lstrip("/")
                return _number(group / "memory.max")
    return inf
