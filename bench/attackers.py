"""One attacker for bench/attacked.py: ``python bench/attackers.py KIND PORT``; lines of JSON on stdin say when.

It runs at the lowest priority: what others notice of it is what the server does for it, and not that it has a core.
"""

import json
import os
import resource
import socket
import struct
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import count, cycle
from typing import Any

NICE = 19
SOURCES = 250
"""Addresses 127.0.0.2 and on that an attacker comes from, so that no bound of one address ends it."""
STREAMS, STREAM_CHANNELS, CALLERS = 500, 20, 2
CALLS_EACH = 500
"""Invocations that one write brings."""
GARBAGE = (
    b"\x16\x03\x01\x02\0" * 10,
    b"GET / HTTP/1.1\r\n\r\n",
    b"A" * 20_000,
    b"PRI * HTTP/2.0\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    b"",
)
UPGRADE = (
    "GET {} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
RECORD_END = b"\x1e"


def masked(payload: bytes) -> bytes:
    """A whole text frame of a client, its mask zero (RFC 6455 §5.2)."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + struct.pack(">H", size)
    return head + bytes(4) + payload


class Attack(ABC):
    """What an attacker does while it may."""

    def __init__(self, port: int) -> None:
        """Nothing yet; `port` is the server's, at 127.0.0.1."""
        self.port = port
        self.held: list[socket.socket] = []
        self.done = 0
        self.is_on = threading.Event()

    def connect(self, number: int) -> socket.socket:
        """A connection from one of many addresses."""
        made = socket.socket()
        made.bind((f"127.0.0.{2 + number % SOURCES}", 0))
        made.connect(("127.0.0.1", self.port))
        return made

    @abstractmethod
    def begin(self) -> None:
        """Attack, from now on."""

    def end(self) -> None:
        """Leave the server alone: what is held is closed."""
        self.is_on.clear()
        held, self.held = self.held, []
        for one in held:
            one.close()

    def repeat(self, act: Callable[[], None]) -> None:
        """Have a thread do it again and again while the attack is on."""

        def body() -> None:
            while True:
                self.is_on.wait()
                try:
                    act()
                except OSError:  # refused, reset, or closed by `end`: that is the server's good right
                    continue
                self.done += 1

        threading.Thread(target=body, daemon=True).start()


class Garbage(Attack):
    """Connects, writes what is no request, and leaves, as fast as it can."""

    def __init__(self, port: int) -> None:
        """One thread, idle."""
        super().__init__(port)
        self._numbers, self._junk = count(), cycle(GARBAGE)
        self.repeat(self._knock)

    def _knock(self) -> None:
        with self.connect(next(self._numbers)) as one:
            one.sendall(next(self._junk))

    def begin(self) -> None:
        """Knock."""
        self.is_on.set()


class Streams(Attack):
    """Event streams of many channels with all their history; what comes is read and thrown away."""

    def __init__(self, port: int) -> None:
        """One thread that reads."""
        super().__init__(port)
        self.repeat(self._drain)

    def begin(self) -> None:
        """Open all of them."""
        query = "&".join(f"channel=h:{number}" for number in range(STREAM_CHANNELS))
        for number in range(STREAMS):
            one = self.connect(number)
            one.sendall(f"GET /events?start=history&{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            one.setblocking(False)
            self.held.append(one)
        self.is_on.set()

    def _drain(self) -> None:
        threading.Event().wait(0.05)
        for one in list(self.held):
            try:
                one.recv(1 << 16)
            except BlockingIOError:
                continue


class Calls(Attack):
    """SignalR invocations as fast as their answers come."""

    def begin(self) -> None:
        """Connect, shake hands, call."""
        self.is_on.set()
        for number in range(CALLERS):
            one = self.connect(number)
            one.sendall(UPGRADE.format("/signalr").encode())
            one.sendall(masked(b'{"protocol":"json","version":1}' + RECORD_END))
            self.held.append(one)
            for body in (self._call, self._read):
                threading.Thread(target=body, args=(one,), daemon=True).start()

    def _call(self, one: socket.socket) -> None:
        call = b'{"type":1,"invocationId":"1","target":"Echo","arguments":["x"]}' + RECORD_END
        calls = masked(call * 100) * (CALLS_EACH // 100)
        try:
            while self.is_on.is_set():
                one.sendall(calls)
                self.done += CALLS_EACH
        except OSError:
            return

    def _read(self, one: socket.socket) -> None:
        try:
            while one.recv(1 << 20):
                pass
        except OSError:
            return


KINDS: dict[str, type[Attack]] = {"garbage": Garbage, "calls": Calls, "streams": Streams}


def main() -> None:
    """Do as the lines say; ``attack`` begins, ``rest`` ends and tells how much was done, the end of stdin ends all."""
    os.nice(NICE)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attack = KINDS[sys.argv[1]](int(sys.argv[2]))

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), flush=True)

    say({"ready": True})
    for line in sys.stdin:
        command = json.loads(line)
        if "attack" in command:
            attack.begin()
            say({"attacking": True})
        else:
            attack.end()
            say({"done": attack.done})


if __name__ == "__main__":
    main()
