"""SignalR by single requests: over which connection, and so to which worker, each goes is the test's to say."""

import base64
import json
import socket
from dataclasses import dataclass
from typing import Any

from support.raw import open_socket, read_head, request_text
from support.waiting import until_in_thread

END = b"\x1e"
HANDSHAKE = b'{"protocol":"json","version":1}' + END


@dataclass
class Answer:
    """Of one request."""

    status: int
    head: str
    body: bytes


_made: list["Line"] = []


def close_lines() -> None:
    """Close all that were made, at a test's end."""
    while _made:
        _made.pop().socket.close()


class Line:
    """A connection that is kept, on which requests follow each other, as a proxy's do."""

    def __init__(self, address: str) -> None:
        self.address = address
        _made.append(self)
        self.socket: socket.socket = open_socket(address)
        self.socket.settimeout(30)
        self._received = b""
        self.worker: int = worker_of(self.negotiate())
        """At the other end, by its number."""

    def send(self, method: str, target: str, body: bytes = b"", **fields: str) -> None:
        """Send a request and do not wait."""
        headers = {"Host": "localhost", "Content-Length": str(len(body))} if body or method == "POST" else {"Host": "x"}
        headers |= {name.replace("_", "-").title(): value for name, value in fields.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.socket.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)

    def head(self) -> str:
        """The head of the next answer; empty at the end of the stream."""
        while b"\r\n\r\n" not in self._received:
            more = self.socket.recv(65_536)
            if not more:
                return ""
            self._received += more
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def some(self) -> bytes:
        """What comes next, of a stream."""
        taken, self._received = self._received or self.socket.recv(65_536), b""
        return taken

    def answer(self) -> Answer:
        """The next answer, whole."""
        head = self.head()
        assert head, "the connection was closed"
        lengths = [line[15:] for line in head.lower().split("\r\n") if line.startswith("content-length:")]
        length = int(lengths[0]) if lengths else 0
        while len(self._received) < length:
            more = self.socket.recv(65_536)
            assert more, (head, self._received)
            self._received += more
        body, self._received = self._received[:length], self._received[length:]
        return Answer(int(head.split()[1]), head, body)

    def ask(self, method: str, target: str, body: bytes = b"", **fields: str) -> Answer:
        """Send a request and wait for its answer."""
        self.send(method, target, body, **fields)
        return self.answer()

    def negotiate(self, query: str = "", path: str = "/signalr") -> str:
        """A new token."""
        answer = self.ask("POST", f"{path}/negotiate?negotiateVersion=1{query}")
        assert answer.status == 200, answer
        token = json.loads(answer.body)["connectionToken"]
        assert isinstance(token, str)
        return token

    def upgrade(self, token: str, query: str = "") -> str:
        """Ask for a WebSocket: the status line."""
        self.socket.sendall(request_text(f"/signalr?id={token}{query}"))
        return read_head(self.socket).partition("\r\n")[0]

    def close(self) -> None:
        """Leave."""
        self.socket.close()


def worker_of(token: str) -> int:
    """Who issued it."""
    return base64.urlsafe_b64decode(token + "=")[0]


def lines(address: str, workers: int) -> list[Line]:
    """One connection to each worker, by number. How the kernel deals connections out is its own affair."""
    found: dict[int, Line] = {}

    def have_all() -> bool:
        line = Line(address)
        if line.worker in found:
            line.close()
        found.setdefault(line.worker, line)
        return len(found) == workers

    until_in_thread(have_all)
    return [found[number] for number in sorted(found)]


def turned(ways: list[Line], first: int) -> list[Line]:
    """All of them, that one first."""
    return [*ways[first:], *ways[:first]]


class Polled:
    """A client of long polling: each of its requests goes over the line that it is given."""

    def __init__(self, token: str) -> None:
        self.target = f"/signalr?id={token}"
        self._calls = 0

    def begin(self, *over: Line) -> None:
        """The first poll, the handshake, and the poll that brings its answer."""
        assert (first := over[0].ask("GET", self.target)).status == 200, first
        self.post(over[1 % len(over)], HANDSHAKE)
        assert self.poll(over[2 % len(over)]) == [{}]

    def post(self, line: Line, body: bytes) -> None:
        """Send messages."""
        answer = line.ask("POST", self.target, body)
        assert answer.status == 200, answer

    def poll(self, line: Line) -> list[Any]:
        """What comes, pings left out."""
        return self.told(line, line.ask("GET", self.target))

    def told(self, line: Line, answer: Answer) -> list[Any]:
        """What the answer of a poll says; it is repeated over the line until there is something."""
        while True:
            assert answer.status == 200, answer
            records = [json.loads(record) for record in answer.body.split(END)[:-1]]
            if told := [record for record in records if record != {"type": 6}]:
                return told
            answer = line.ask("GET", self.target)

    def call(self, over: list[Line], method: str, *arguments: object) -> Any:
        """The result of a method: the post goes over the first line, the poll over the second."""
        self._calls += 1
        invocation = {"type": 1, "invocationId": str(self._calls), "target": method, "arguments": arguments}
        self.post(over[0], json.dumps(invocation).encode() + END)
        (completion,) = self.poll(over[-1])
        assert completion["invocationId"] == str(self._calls), completion
        return completion["result"]
