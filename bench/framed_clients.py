"""A load client for texts that come inside another protocol's: it speaks to bench/session.py as fanwire-load does.

Each client is a socket that this file reads itself. It says what Socket.IO wants to hear, answers pings of both kinds,
inflates where compression was negotiated, and checks that each publication comes once and in order.
"""

import argparse
import json
import re
import selectors
import socket
import sys
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

NUMBERS = re.compile(rb"(\d{10}) (\d{6}) (\d{20}) ")
"""The head of a publication: bench/peers/README.md."""
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
"""What browsers say."""
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
TAIL = b"\x00\x00\xff\xff"
"""What a compressed message ends with, left out on the wire (RFC 7692 §7.2.2)."""
HANDSHAKES_MAX = 128
"""Clients that connect at a time."""
READ_BYTES = 1 << 18


@dataclass(eq=False)
class Client:
    """One of them."""

    socket: socket.socket
    kept: bytes = b""
    """What was read, and is not a whole frame yet."""
    next: int = -1
    """The number that has to come next; below 0: any."""
    is_upgraded: bool = False
    is_ready: bool = False
    inflate: Any = None
    """Where compression was negotiated."""


@dataclass
class Counts:
    """Since the last ``expect``."""

    expected: int = 0
    received: int = 0
    wire_bytes: int = 0
    gaps: int = 0
    reordered: int = 0
    malformed: int = 0
    latencies: list[float] = field(default_factory=list)
    rounds: dict[int, float] = field(default_factory=dict)
    cpu_s: float = 0.0


class Crowd:
    """All clients, in one thread."""

    def __init__(self, url: str, clients: int, *, offers_deflate: bool, is_socketio: bool) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self.address = (parts.hostname, parts.port)
        offer = OFFER if offers_deflate else b""
        self.request = (
            f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n".encode()
            + b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
            + KEY
            + b"\r\n"
            + offer
            + b"\r\n"
        )
        self.is_socketio = is_socketio
        self.wanted = clients
        self.begun = 0
        self.ready = 0
        self.failed = 0
        self.closed = 0
        self.deflating = 0
        self.counts = Counts()
        self.began_s = time.monotonic()
        self.selector = selectors.EpollSelector()

    # Connecting

    def connect_more(self) -> None:
        """As many as may be under way."""
        while self.begun < self.wanted and self.begun - self.ready - self.failed < HANDSHAKES_MAX:
            self.begun += 1
            one = socket.create_connection(self.address, 30)
            one.sendall(self.request)
            one.setblocking(False)
            self.selector.register(one, selectors.EVENT_READ, Client(one))

    def upgraded(self, client: Client) -> None:
        """Read the answer's head, once it is whole."""
        head, end, rest = client.kept.partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 101 "):
            self.failed += 1
            self.leave(client)
            return
        client.kept, client.is_upgraded = rest, True
        if b"permessage-deflate" in head.lower():
            self.deflating += 1
            client.inflate = zlib.decompressobj(-15)
        if not self.is_socketio:
            self.settle(client)

    def settle(self, client: Client) -> None:
        """It gets what is published from now on."""
        if not client.is_ready:
            client.is_ready = True
            self.ready += 1

    def leave(self, client: Client) -> None:
        """It is gone."""
        self.selector.unregister(client.socket)
        client.socket.close()

    # Reading

    def read(self, client: Client) -> None:
        """What is there."""
        try:
            data = client.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.closed += client.is_ready
            self.failed += not client.is_ready
            self.leave(client)
            return
        client.kept += data
        if not client.is_upgraded:
            self.upgraded(client)
        if client.is_upgraded:
            self.take_frames(client)

    def take_frames(self, client: Client) -> None:
        """All whole ones (RFC 6455 §5.2); a server's are not masked."""
        kept, at = client.kept, 0
        while len(kept) - at >= 2:
            length, begin = kept[at + 1], at + 2
            if length == 126:
                begin += 2
                length = int.from_bytes(kept[at + 2 : begin]) if len(kept) >= begin else len(kept)
            elif length == 127:
                begin += 8
                length = int.from_bytes(kept[at + 2 : begin]) if len(kept) >= begin else len(kept)
            end = begin + length
            if len(kept) < end:
                break
            self.counts.wire_bytes += end - at
            self.take(client, kept[at], kept[begin:end])
            at = end
        client.kept = kept[at:]

    def take(self, client: Client, first: int, payload: bytes) -> None:
        """One frame."""
        if first & 0x40:
            payload = client.inflate.decompress(payload + TAIL)
        if first & 0x0F == 9:
            self.say(client, 0x8A, payload)
        elif self.is_socketio and not payload.startswith(b"42"):
            if payload.startswith(b"0"):
                self.say(client, 0x81, b"40")
            elif payload.startswith(b"40"):
                self.settle(client)
            elif payload == b"2":
                self.say(client, 0x81, b"3")
        else:
            self.count(client, payload)

    def say(self, client: Client, first: int, payload: bytes) -> None:
        """One short frame, masked with zeros."""
        with suppress(OSError):
            client.socket.send(bytes((first, 0x80 | len(payload), 0, 0, 0, 0)) + payload)

    def count(self, client: Client, payload: bytes) -> None:
        """One publication."""
        counts = self.counts
        found = NUMBERS.search(payload)
        if found is None:
            counts.malformed += 1
            return
        number, due = int(found[1]), int(found[3])
        if client.next not in (-1, number):
            counts.gaps += number > client.next
            counts.reordered += number < client.next
        client.next = number + 1
        counts.received += 1
        late_us = (time.monotonic_ns() - due) / 1e3
        counts.latencies.append(late_us)
        counts.rounds[due] = late_us

    # Commands

    def complete(self) -> dict[str, Any]:
        """What came."""
        counts = self.counts
        return {
            "complete": True,
            "expected": counts.expected,
            "received": counts.received,
            "gaps": counts.gaps,
            "reordered": counts.reordered,
            "malformed": counts.malformed,
            "closed": self.closed,
            "latency_us": spread(counts.latencies),
            "completion_us": spread(list(counts.rounds.values())),
            "cpu_seconds": time.process_time() - counts.cpu_s,
            "wire_bytes": counts.wire_bytes,
            "deflating": self.deflating,
        }

    def run(self) -> None:
        """Connect, then obey stdin until its end."""
        is_connected = False
        is_due = False
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while True:
            if not is_connected:
                self.connect_more()
                if self.ready + self.failed == self.wanted:
                    is_connected = True
                    seconds = time.monotonic() - self.began_s
                    found = {"failed": self.failed, "seconds": seconds, "subscribers": {"0": self.ready}}
                    print(json.dumps({"connected": found}), flush=True)
            for key, _ in self.selector.select():
                if key.data is not None:
                    self.read(key.data)
                    continue
                line = sys.stdin.buffer.raw.read(1 << 16)  # type: ignore[attr-defined]
                if not line:
                    return
                for command in map(json.loads, line.splitlines()):
                    if "expect" in command:
                        self.counts = Counts(int(command["expect"]), cpu_s=time.process_time())
                        is_due = True
            if is_due and self.counts.received >= self.counts.expected:
                is_due = False
                print(json.dumps(self.complete()), flush=True)


def spread(values: list[float]) -> dict[str, float]:
    """Median and tail."""
    ordered = sorted(values) or [0.0]
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100], "max": ordered[-1]}


def main() -> None:
    """As told on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", required=True, help="ws://HOST:PORT/PATH")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--deflate", action="store_true", help="offer permessage-deflate, as browsers do")
    parser.add_argument("--socketio", action="store_true", help="speak Socket.IO")
    options = parser.parse_args()
    Crowd(options.url, options.connections, offers_deflate=options.deflate, is_socketio=options.socketio).run()


if __name__ == "__main__":
    main()
