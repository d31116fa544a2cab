"""One client floods a hub with each kind of request that there is: the process hardly grows, and all is given back.

The hub (support/flooded.py) is a process of its own, whose memory is read from outside. A row is a name, what is sent
before, what is sent again and again, and whether the client reads. It ends when the hub no longer reads either, or when
its time is up: `make soak` has more of that.
"""

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.raw import open_socket, read_head, upgraded
from support.waiting import until_in_thread

pytestmark = pytest.mark.slow

GROWTH_BYTES_MAX = 10 << 20
"""Of the process, as the system sees it."""
PYTHON_BYTES_MAX = 5 << 19
"""Of what Python holds: ``client_bytes_max``, and 16 messages that are not acknowledged, of 64 KiB and some."""
HELD_MAX = {"Client": 1, "Calls": 1, "Stream": 100, "ClientResult": 100, "Invocation": 256 + 16, "Upload": 256 + 16}
FLOOD_MESSAGES = 1_000_000
FLOOD_S = 0.2
SOAK_S = 8.0
PATIENCE_S = 60.0
LEAST = 40
"""So many messages go at least, however busy the machine is."""
UNREAD_S = 0.08
"""For so long the hub must not have read to be done with."""
LARGE = "x" * 30_000
LISTS = "[" + ",".join(["[]"] * 9_000) + "]"
"""27 kB that are 20 times as much once they are read."""


class Flooded:
    """The process, and what it holds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._line().removeprefix("serving on ").strip()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def ask(self, what: str = "held") -> dict[str, int]:
        """What it holds of clients, by class."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        answer = json.loads(self._line())
        assert isinstance(answer, dict)
        return answer

    def settle(self) -> None:
        """Have what is at work done to its end, and wait for all else to be given back."""
        held: dict[str, int] = {}

        def is_idle() -> bool:
            held.clear()
            held.update(self.ask("open"))
            return held.keys() == {"tasks", "connections", "bytes"} and held["connections"] == 0

        try:
            until_in_thread(is_idle)
        except TimeoutError:
            pytest.fail(f"it still holds {held}")

    @property
    def memory(self) -> int:
        """Bytes that are resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10


@pytest.fixture(scope="module")
def flooded() -> Iterator[Flooded]:
    """The hub, warm: each kind of request has been made once."""
    command = [sys.executable, "-u", str(Path(__file__).parent / "support" / "flooded.py")]
    # What is freed goes back at once, and one arena for all threads: what is left is what is held.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MALLOC_ARENA_MAX": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
    )
    try:
        hub = Flooded(process)
        for row in ROWS:
            if row.name in QUICK:
                with row.client(hub.address) as connection:
                    flood(connection, row, 10)
        hub.settle()
        yield hub
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def frame(text: str | bytes, opcode: int = 1) -> bytes:
    """A client's frame; its mask is zero, so that the payload is as it is."""
    payload = text.encode() if isinstance(text, str) else text
    if len(payload) < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(payload))
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, len(payload))
    return head + bytes(4) + payload


def record(**message: Any) -> bytes:
    """A hub message in a frame."""
    return frame(json.dumps(message, separators=(",", ":")) + "\x1e")


@contextmanager
def hub_socket(address: str) -> Iterator[socket.socket]:
    """A SignalR client that has shaken hands."""
    with upgraded(address, "/signalr") as connection:
        connection.sendall(frame('{"protocol":"json","version":1}\x1e'))
        assert connection.recv(100).endswith(b"{}\x1e")
        yield connection


@contextmanager
def stateful_socket(address: str) -> Iterator[socket.socket]:
    """One that has asked for stateful reconnect."""
    with open_socket(address) as asking:
        asking.sendall(
            b"POST /signalr/negotiate?negotiateVersion=1&useStatefulReconnect=true HTTP/1.1\r\nHost: a\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        read_head(asking)
        token = json.loads(asking.recv(1_000))["connectionToken"]
    with upgraded(address, f"/signalr?id={token}") as connection:
        connection.sendall(frame('{"protocol":"json","version":2}\x1e'))
        assert connection.recv(100).endswith(b"{}\x1e")
        yield connection


@contextmanager
def poller_socket(address: str) -> Iterator[socket.socket]:
    """One for posts to a client that polls, whose token stands in ``Poller.token``."""
    with open_socket(address) as asking:
        asking.sendall(NEGOTIATE)
        read_head(asking)
        Poller.token = json.loads(asking.recv(1_000))["connectionToken"]
        asking.sendall(post(b'{"protocol":"json","version":1}\x1e'))
        assert "200" in read_head(asking)
        yield asking


class Poller:
    """The client that polls."""

    token = ""


def post(body: bytes) -> bytes:
    """A post for the client that polls."""
    head = f"POST /signalr?id={Poller.token} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


NEGOTIATE = b"POST /signalr/negotiate?negotiateVersion=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


def raw_socket(address: str) -> socket.socket:
    """A client of the raw protocol."""
    return upgraded(address, "/ws")


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of request."""

    name: str
    message: Callable[[int], bytes]
    """The n-th."""
    first: bytes = b""
    reads: bool = True
    client: Callable[[str], Any] = hub_socket


def call(number: int, target: str, arguments: str = "[]", *, type: int = 1, streams: str = "") -> bytes:
    """An invocation, or with type 4 of a stream; the arguments are JSON text."""
    more = f',"streamIds":{streams}' if streams else ""
    text = f'{{"type":{type},"invocationId":"i{number}","target":"{target}","arguments":{arguments}{more}}}\x1e'
    return frame(text)


def send(target: str, arguments: str) -> bytes:
    """An invocation that wants no answer."""
    return frame(f'{{"type":1,"target":"{target}","arguments":{arguments}}}\x1e')


def item(id: str, text: str = LARGE) -> bytes:
    """Of an upload."""
    return record(type=2, invocationId=id, item=text)


def upload(number: int) -> bytes:
    """A stream of its own, with an upload and what ten items may hold."""
    call_for_it = call(number, "poured", type=4, streams=f'["u{number}"]')
    return call_for_it + item(f"u{number}", "x" * 3_000) * 10


MANY_IDS = json.dumps([f"s{number}" for number in range(3_000)])
CHANNELS = json.dumps([f"slow{number}" for number in range(5_000)])

ROWS = [
    Row("invocations", lambda n: call(n, "wait")),
    Row("large invocations", lambda n: call(n, "wait", f'["{LARGE}"]')),
    Row("invocations that grow when they are read", lambda n: call(n, "wait", LISTS)),
    Row("sends", lambda n: send("wait", f'["{LARGE}"]')),
    Row("unknown methods", lambda n: call(n, LARGE)),
    Row("streams", lambda n: call(n, "ticks", type=4)),
    Row("streams, unread", lambda n: call(n, "ticks", type=4), reads=False),
    Row("streams with large arguments", lambda n: call(n, "ticks", f'["{LARGE}"]', type=4)),
    Row("streams whose arguments grow when they are read", lambda n: call(n, "ticks", LISTS, type=4)),
    Row("streams with large ids", lambda n: frame(
        f'{{"type":4,"invocationId":"{n}{LARGE}","target":"ticks","arguments":[]}}\x1e'
    )),
    Row("the same stream", lambda n: call(1, "ticks", type=4)),
    Row("streams with an upload each", upload),
    Row("streams that ask", lambda n: call(n, "asking", type=4)),
    Row("streams of large items, unread", lambda n: call(n, "large", type=4), reads=False),
    Row("items for a call that does not read", lambda n: item("u"), call(0, "pour", streams='["u"]')),
    Row(
        "items behind an upload's end",
        lambda n: item("u"),
        call(0, "pour", streams='["u"]') + record(type=3, invocationId="u"),
    ),
    Row("items for nobody", lambda n: item(f"n{n}")),
    Row("calls that wait, with an upload each", lambda n: call(n, "pour", streams=f'["u{n}"]') + item(f"u{n}")),
    Row("the same upload", lambda n: call(n, "pour", streams='["u"]') + item("u")),
    Row("calls with a thousand uploads", lambda n: call(n, "pour", streams=MANY_IDS)),
    Row("calls while an answer is owed", lambda n: call(n, "wait"), call(0, "ask")),
    Row("large calls while an answer is owed", lambda n: call(n, "wait", f'["{LARGE}"]'), call(0, "ask")),
    Row("sends while an answer is owed", lambda n: send("wait", f'["{LARGE}"]'), call(0, "ask")),
    Row("answers to nothing", lambda n: record(type=3, invocationId=f"s{n + 10}", result=LARGE)),
    Row("cancellations", lambda n: record(type=5, invocationId=f"n{n}")),
    Row("pings", lambda n: record(type=6)),
    Row("acks", lambda n: record(type=8, sequenceId=0), client=stateful_socket),
    Row("streams of a stateful client", lambda n: call(n, "ticks", type=4), client=stateful_socket),
    Row("results, unread", lambda n: call(n, "echo", f'["{LARGE}"]'), reads=False),
    Row("raw calls", lambda n: frame(f'{{"call":"wait","args":["{LARGE}"],"id":{n}}}'), client=raw_socket),
    Row("raw calls that grow", lambda n: frame(f'{{"call":"wait","args":{LISTS},"id":{n}}}'), client=raw_socket),
    Row("raw results, unread", lambda n: frame(f'{{"call":"echo","args":["{LARGE}"],"id":{n}}}'), reads=False,
        client=raw_socket),
    Row("raw messages", lambda n: frame(LARGE), client=raw_socket),
    Row("raw messages of wide characters", lambda n: frame("\N{GRINNING FACE}" + LARGE), client=raw_socket),
    Row("raw bytes", lambda n: frame(LARGE.encode(), 2), client=raw_socket),
    Row("raw subscribes", lambda n: frame(f'{{"subscribe":{CHANNELS},"id":{n}}}'), client=raw_socket),
    Row("raw unsubscribes", lambda n: frame(f'{{"unsubscribe":{CHANNELS},"id":{n}}}'), client=raw_socket),
    Row("posts of streams", lambda n: post(
        f'{{"type":4,"invocationId":"i{n}","target":"ticks","arguments":[]}}\x1e'.encode()
    ), client=poller_socket),
    Row("large posts", lambda n: post(
        f'{{"type":1,"invocationId":"i{n}","target":"wait","arguments":["{LARGE}"]}}\x1e'.encode()
    ), client=poller_socket),
    Row("negotiates", lambda n: NEGOTIATE, client=open_socket),
    Row("pongs", lambda n: frame(b"x" * 100, 10), client=raw_socket),
    Row("pings of the socket, unread", lambda n: frame(b"x" * 100, 9), reads=False, client=raw_socket),
]  # fmt: skip
"""Each kind of request of SignalR and of the hub's own protocol."""
QUICK = (
    "invocations",
    "streams",
    "streams with large arguments",
    "streams whose arguments grow when they are read",
    "streams with an upload each",
    "streams of large items, unread",
    "items for a call that does not read",
    "items behind an upload's end",
    "calls with a thousand uploads",
    "large calls while an answer is owed",
    "raw messages",
    "raw subscribes",
)
"""Those that `make test` has time for; `make soak` floods with all of them, and for longer."""


def flood(connection: socket.socket, row: Row, most: int = FLOOD_MESSAGES, *, seconds: float = FLOOD_S) -> int:
    """Send until enough is sent, or nobody reads; gives how many messages went."""
    connection.setblocking(False)
    began = time.monotonic()
    numbers = count()
    waiting = memoryview(row.first)
    messages = 0
    while messages < most and time.monotonic() < began + (seconds if messages > LEAST else PATIENCE_S):
        if not waiting:
            batch = b""
            while len(batch) < 60_000 and messages < most:
                batch += row.message(next(numbers))
                messages += 1
            waiting = memoryview(batch)
        readable, writable, _ = select.select([connection] * row.reads, [connection], [], UNREAD_S)
        if not readable and not writable and messages > LEAST:
            return messages
        try:
            if readable and not connection.recv(1 << 18):
                return messages
            if writable:
                went = connection.send(waiting)
                waiting = waiting[went:]
        except (BlockingIOError, InterruptedError):
            pass
        except (BrokenPipeError, ConnectionResetError):  # the hub has closed it, which is an answer
            return messages
    return messages


def endure(flooded: Flooded, row: Row, seconds: float) -> None:
    """Flood it, see what that costs, and that all of it is given back."""
    flooded.ask("shut")
    memory, bytes = flooded.memory, flooded.ask()["bytes"]
    with row.client(flooded.address) as connection:
        assert flood(connection, row, seconds=seconds) > LEAST
        grown = flooded.memory - memory
        held = flooded.ask()
    assert grown < GROWTH_BYTES_MAX, f"{grown:,} bytes, holding {held}"
    in_python = held["bytes"] - bytes
    assert in_python < PYTHON_BYTES_MAX, f"{in_python:,} bytes in Python, holding {held}"
    for kind, most in HELD_MAX.items():
        assert held.get(kind, 0) <= most, f"it holds {held}"
    flooded.settle()
    left = flooded.memory - memory
    assert left < GROWTH_BYTES_MAX, f"{left:,} bytes"


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in QUICK], ids=lambda row: row.name)
def test_a_flood_costs_little_and_all_of_it_is_given_back(flooded: Flooded, row: Row) -> None:
    endure(flooded, row, FLOOD_S)


@pytest.mark.soak
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_long_flood_costs_no_more(flooded: Flooded, row: Row) -> None:
    endure(flooded, row, SOAK_S)
