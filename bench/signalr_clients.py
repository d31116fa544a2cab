"""Many SignalR clients in one process: bare sockets that count, so that their own cost stays small."""

import json
import select
import socket
import time
from collections.abc import Iterable, Iterator

SEPARATOR = b"\x1e"
UPGRADE = (
    "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
WITHIN_S = 60.0


def frame(payload: bytes) -> bytes:
    """A client's text frame, masked with zeros: the mask's cost is the same for every server."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2)
    return head + bytes(4) + payload


def message(**members: object) -> bytes:
    """A hub message in a frame."""
    return frame(json.dumps(members).encode() + SEPARATOR)


PING = message(type=6)


class Client:
    """One connection, blocking until it is in a :class:`Crowd`."""

    def __init__(
        self, port: int, target: str = "/live", *, negotiates: bool = False, source: str = "127.0.0.1"
    ) -> None:
        """Negotiate where asked to, upgrade, and shake hands."""
        if negotiates:
            with socket.create_connection(("127.0.0.1", port), source_address=(source, 0)) as http:
                head = f"POST {target}/negotiate?negotiateVersion=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
                http.sendall(head.encode())
                reply = b""
                while b"availableTransports" not in reply or not reply.rstrip().endswith((b"}", b"0")):
                    reply += http.recv(4_096)
            token = reply.partition(b'"connectionToken":"')[2].partition(b'"')[0].decode()
            target = f"{target}?id={token}"
        self.socket = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
        self.socket.settimeout(WITHIN_S)
        self.socket.sendall(UPGRADE.format(target=target).encode())
        rest = self.wait_for(b"\r\n\r\n")
        if target.startswith("/live"):
            self.socket.sendall(message(protocol="json", version=1))
            self.wait_for(b"{}\x1e", rest)

    def wait_for(self, what: bytes, already: bytes = b"") -> bytes:
        """Read until `what` has come; gives what follows it."""
        received = already
        while what not in received:
            more = self.socket.recv(65_536)
            if not more:
                raise ConnectionError(f"the server left before {what!r}: {received!r}")
            received += more
        return received.partition(what)[2]

    def invoke(self, target: str, *arguments: object) -> None:
        """Call a method and wait for its completion."""
        self.socket.sendall(message(type=1, invocationId="1", target=target, arguments=arguments))
        self.wait_for(b'"type":3')


class Crowd:
    """Clients that are read together."""

    def __init__(self, clients: Iterable[Client]) -> None:
        """Take them over; from now on they do not block."""
        self.sockets = {client.socket.fileno(): client.socket for client in clients}
        self._poll = select.epoll()
        self._tails = dict.fromkeys(self.sockets, b"")
        for descriptor, one in self.sockets.items():
            one.setblocking(False)
            self._poll.register(descriptor, select.EPOLLIN)

    def close(self) -> None:
        """Leave."""
        self._poll.close()
        for one in self.sockets.values():
            one.close()

    def events(self, timeout_s: float) -> Iterator[tuple[int, bytes]]:
        """What came, by descriptor, with the end of what came before in front of it."""
        for descriptor, _ in self._poll.poll(timeout_s):
            try:
                data = self.sockets[descriptor].recv(1 << 20)
            except BlockingIOError:
                continue
            if not data:
                raise ConnectionError("a client was left by the server")
            yield descriptor, data

    def count(self, what: bytes, wanted: int) -> None:
        """Read until `what` has come `wanted` times, over all clients."""
        deadline = time.monotonic() + WITHIN_S
        seen = 0
        while seen < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{seen} of {wanted} came within {WITHIN_S} s")
            for descriptor, data in self.events(1.0):
                joined = self._tails[descriptor] + data
                seen += joined.count(what)
                self._tails[descriptor] = joined[-(len(what) - 1) :]

    def call(self, calls: int) -> None:
        """Have each client invoke ``Add``, again as soon as it is answered, `calls` times in all."""
        call = message(type=1, invocationId="1", target="Add", arguments=[1, 2])
        for one in self.sockets.values():
            one.send(call)
        done = 0
        while done < calls:
            for descriptor, data in self.events(WITHIN_S):
                answered = data.count(b'"type":3')
                done += answered
                if answered:
                    self.sockets[descriptor].send(call)

    def idle(self, seconds: float, ping_every_s: float) -> None:
        """Ping, each client so often and all of them spread over that time; read what comes."""
        sockets = list(self.sockets.values())
        start, sent = time.monotonic(), 0
        while (passed := time.monotonic() - start) < seconds:
            due = int(passed / ping_every_s * len(sockets))
            while sent < due:
                sockets[sent % len(sockets)].send(PING)
                sent += 1
            for _ in self.events(0.01):
                pass
