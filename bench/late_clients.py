"""The two sides of bench/late.py: its server, the load client, and raw sockets for what that one does not do.

A raw socket here never reads (stalled), reads when told (slow), or has the kernel say when each message arrived.
"""

import json
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from process import Child, ChildFailed, free_port, wait_until
from signalr import BINARIES, CLIENT_CORE, HERE, SERVER_CORE, WITHIN_S

MESSAGE_BYTES = 128
FRAME_HEAD = b"\x81\x7e" + struct.pack(">H", MESSAGE_BYTES)
"""Of a text of MESSAGE_BYTES, unmasked (RFC 6455 §5.2)."""
RECEIVE_BYTES = 4_096
"""SO_RCVBUF of those who do not read, or hardly: the server's side has their backlog, not the kernel."""
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SO_TIMESTAMPNS = 35
"""asm-generic/socket.h: the kernel's time of arrival comes with each read; the module socket has no name for it."""
POLL_S = 0.02
QUIET_S = 0.3
"""In which nothing comes: then nothing will."""


class LateHub(Child):
    """A fresh hub; at its end it must have ended in order."""

    def __init__(self, rule: dict[str, Any], *, is_counting: bool = False) -> None:
        """`rule` has the arguments of ``Channel``."""
        self.port = free_port()
        command = [sys.executable, str(HERE / "peers" / "late_hub.py"), "--port", str(self.port)]
        command += ["--rule", json.dumps(rule), *(["--count"] if is_counting else [])]
        super().__init__("the hub", command, [SERVER_CORE])

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """SIGTERM."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        complaints = ""
        if kind is None:
            with suppress(subprocess.TimeoutExpired):  # then it is killed, and that is its return code
                self._process.wait(WITHIN_S)
            complaints = self.complaints()
        super().__exit__(kind, value, trace)
        if kind is None and (complaints or self._process.returncode):
            raise ChildFailed(f"{self.name} ended with {self._process.returncode}: {complaints}")

    def publish(self, rounds: int, burst: int, interval_s: float, keys: int = 0) -> None:
        """Have it begin; :meth:`published` waits for the end."""
        command = {"rounds": rounds, "burst": burst, "interval_s": interval_s, "bytes": MESSAGE_BYTES, "keys": keys}
        self.send({"publish": command})

    def published(self) -> dict[str, Any]:
        """What it says at the end of a feed: its count and its last position."""
        said: dict[str, Any] = self.wait_for("published", WITHIN_S)
        return said

    def stats(self) -> dict[str, Any]:
        """What it counts, now."""
        self.send({"stats": True})
        found: dict[str, Any] = self.wait_for("stats", WITHIN_S)
        return found

    def wait_until(self, what: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Look at its counters until that holds."""
        wait_until(self.name, self.stats, what, holds, WITHIN_S, POLL_S)


class Crowd(Child):
    """Healthy clients: the load client, which checks all that they receive."""

    def __init__(self, hub: LateHub, clients: int, path: str = "/ws", *more: str) -> None:
        """`more` are options of the load client."""
        self.clients = clients
        command = [str(BINARIES / "fanwire-load"), "--url", f"ws://127.0.0.1:{hub.port}{path}"]
        command += ["--connections", str(clients), "--acknowledge", *more]
        super().__init__(f"{clients:,} clients", command, [CLIENT_CORE])

    def connected(self) -> dict[str, Any]:
        """Wait until all are."""
        said: dict[str, Any] = self.wait_for("connected", WITHIN_S)
        if said["failed"]:
            raise ChildFailed(f"{self.name}: {said['failed']} could not connect\n{self.complaints()}")
        return said

    def expect(self, each: int) -> None:
        """Count anew, until each client has so many."""
        self.send({"expect": each * self.clients})
        self.wait_for("expecting", WITHIN_S)

    def complete(self, each: int) -> dict[str, Any]:
        """What came: each client must have exactly so many, once and in order."""
        said: dict[str, Any] = self.wait_for("complete", WITHIN_S)
        faults = {name: said[name] for name in ("gaps", "reordered", "malformed", "misrouted", "closed") if said[name]}
        if faults or not each == said["lowest"] == said["highest"]:
            raise ChildFailed(f"{self.name}: {each} messages each: {said}")
        return said


class Raw:
    """One WebSocket whose socket is at hand."""

    def __init__(self, hub: LateHub, query: str = "", receive_bytes: int | None = None) -> None:
        """Connect and upgrade; watches c0. What came after the answer stays in `kept`."""
        self.socket = socket.socket()
        self.kept = bytearray()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(WITHIN_S)
        self.socket.connect(("127.0.0.1", hub.port))
        head = f"GET /ws?channel=c0{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        head += f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        self.socket.sendall(head.encode())
        while (end := self.kept.find(b"\r\n\r\n")) < 0:
            self.read(RECEIVE_BYTES)
        if not self.kept.startswith(b"HTTP/1.1 101 "):
            raise ChildFailed(f"a client is refused: {self.kept[:end].decode()}")
        del self.kept[: end + 4]

    def read(self, room: int) -> None:
        """Wait for bytes, at most `room` of them."""
        data = self.socket.recv(room)
        if not data:
            raise ChildFailed("the hub closed a client")
        self.kept += data

    def texts(self) -> Iterator[str]:
        """The whole texts of what was read so far; anything else fails."""
        while len(self.kept) >= 2:
            first, length = self.kept[:2]
            if first != 0x81 or length > 126:
                raise ChildFailed(f"no short text: {bytes(self.kept[:32])!r}")
            begin = 4 if length == 126 else 2
            if length == 126:
                length = int.from_bytes(self.kept[2:4]) if len(self.kept) >= 4 else len(self.kept)
            if len(self.kept) < begin + length:
                return
            yield self.kept[begin : begin + length].decode()
            del self.kept[: begin + length]

    def close(self) -> None:
        """At once."""
        self.socket.close()


@contextmanager
def raws(hub: LateHub, count: int, receive_bytes: int | None = None) -> Iterator[list[Raw]]:
    """Clients that read only when somebody reads them."""
    clients: list[Raw] = []
    try:
        for _ in range(count):
            clients.append(Raw(hub, receive_bytes=receive_bytes))
        yield clients
    finally:
        for client in clients:
            client.close()


def read_all(clients: list[Raw], is_over: Callable[[], bool]) -> list[list[int]]:
    """Have clients read again, until `is_over` and nothing comes any more; the numbers of the publications of each."""
    got: list[list[int]] = [[] for _ in clients]
    deadline = time.monotonic() + WITHIN_S
    with select.epoll() as poll:
        index_of = {client.socket.fileno(): index for index, client in enumerate(clients)}
        for descriptor in index_of:
            poll.register(descriptor, select.EPOLLIN)
        while (ready := poll.poll(QUIET_S, len(clients))) or not is_over():
            for descriptor, _ in ready:
                index = index_of[descriptor]
                clients[index].read(1 << 16)
                got[index] += (int(text[:10]) for text in clients[index].texts())
            if time.monotonic() > deadline:
                raise ChildFailed("clients that read again never have all")
    return got


class Arrivals:
    """When each of many clients got each of many publications, by the kernel's clock, in ns."""

    def __init__(self, clients: list[Raw], first: int, publications: int) -> None:
        """`first` is the number of the first publication."""
        self.clients = clients
        self.first = first
        self.publications = publications
        self.merged: set[int] = set()
        """Publications that some client read together with another, so that their times are not known apart."""
        self._frames: list[bytes | None] = [None] * publications
        self._counts = [0] * len(clients)
        self._times = array("q", bytes(8 * publications * len(clients)))

    def watch(self) -> None:
        """Read until all have all: the same bytes, once and in order."""
        missing = self.publications * len(self.clients)
        deadline = time.monotonic() + WITHIN_S
        with select.epoll() as poll:
            index_of = {client.socket.fileno(): index for index, client in enumerate(self.clients)}
            for descriptor in index_of:
                poll.register(descriptor, select.EPOLLIN)
            while missing:
                ready = poll.poll(1.0, len(self.clients))
                for descriptor, _ in ready:
                    missing -= self._read(index_of[descriptor])
                if time.monotonic() > deadline:
                    raise ChildFailed(f"{missing:,} messages never came")

    def _read(self, index: int) -> int:
        """What one client has; gives how many messages."""
        size = len(FRAME_HEAD) + MESSAGE_BYTES
        data, extra, _, _ = self.clients[index].socket.recvmsg(16 * size, 64)
        if not data or len(data) % size:
            raise ChildFailed(f"client {index}: {len(data)} bytes, which is no whole number of messages")
        count = len(data) // size
        for at in range(count):
            place = self._counts[index]
            frame = data[at * size : (at + 1) * size]
            if place >= self.publications or not self._is_right(place, frame):
                raise ChildFailed(f"client {index}: message {place} is {frame!r}")
            if count > 1 or not extra:
                self.merged.add(place)
            else:
                seconds, ns = struct.unpack("qq", extra[0][2])
                self._times[place * len(self.clients) + index] = seconds * 1_000_000_000 + ns
            self._counts[index] += 1
        return count

    def _is_right(self, place: int, frame: bytes) -> bool:
        if self._frames[place] is None:
            if not frame.startswith(FRAME_HEAD + b"%010d 000000 " % (self.first + place)):
                return False
            self._frames[place] = frame
        return frame == self._frames[place]

    def delays(self) -> tuple[list[float], float]:
        """Each client's mean delay behind the first that had a publication, and the last one's, in seconds."""
        clients = len(self.clients)
        places = [place for place in range(self.publications) if place not in self.merged]
        if not places:
            raise ChildFailed("no publication whose times are known")
        sums, spans = [0] * clients, 0
        for place in places:
            times = self._times[place * clients : (place + 1) * clients]
            first = min(times)
            spans += max(times) - first
            sums = [total + time_ns - first for total, time_ns in zip(sums, times, strict=True)]
        return [total / 1e9 / len(places) for total in sums], spans / 1e9 / len(places)


def stamped(clients: list[Raw]) -> None:
    """Have the kernel say when what they read has arrived."""
    for client in clients:
        client.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
