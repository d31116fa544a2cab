"""What this process has open, and which of others has taken a connection."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def held_inodes() -> set[str]:
    """Inodes of the sockets that this process has."""
    return set(_held())


def sockets() -> int:
    """How many descriptors of sockets it has."""
    return len(_held())


def _held(process: int | str = "self") -> list[str]:
    links = []
    for entry in list(Path(f"/proc/{process}/fd").iterdir()):
        with suppress(OSError):  # that of the list itself is gone
            links.append(str(entry.readlink()))
    return [link[8:-1] for link in links if link.startswith("socket:[")]


def listening_inodes(port: int) -> set[str]:
    """Inodes of the sockets of IPv4 that listen on a port (proc(5), /proc/net/tcp: state 0A)."""
    return {line[9] for line in _lines("tcp") if line[3] == "0A" and line[1].endswith(f":{port:04X}")}


def all_listening_inodes() -> set[str]:
    """Inodes of all sockets that listen, at a port or a path."""
    inet = {line[9] for name in ("tcp", "tcp6") for line in _lines(name) if line[3] == "0A"}
    return inet | {line[6] for line in _lines("unix") if line[3] == "00010000"}  # SO_ACCEPTCON


def children(process: int) -> list[int]:
    """Processes that its main thread has started."""
    return [*map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())]


def takers(port: int, processes: Iterable[int]) -> dict[int, int]:
    """Which of these processes has taken a connection to a port of IPv4, by the port of its client."""
    lines = [line for line in _lines("tcp") if line[1].endswith(f":{port:04X}")]
    clients = {line[9]: int(line[2].rpartition(":")[2], 16) for line in lines}
    held = [(inode, process) for process in processes for inode in _held(process)]
    return {clients[inode]: process for inode, process in held if clients.get(inode)}


def _lines(name: str) -> list[list[str]]:
    return [line.split() for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]]
