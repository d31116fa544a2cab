"""Event streams that are gzip streams (RFC 1952), read from outside with zlib: no code of fanwire's runs."""

import json
import random
import socket
import zlib
from collections.abc import Callable, Iterator
from itertools import count

from support.raw import open_socket, read_head
from support.reading import READ_BYTES, Reading


def odds(seed: int = 7) -> Iterator[str]:
    """Changed odds of some 300 bytes, for ever, of which much stands in those before; the same for a seed."""
    chance = random.Random(seed)
    for number in count():
        prices = {name: round(1 + chance.random() * 8, 2) for name in ("home", "draw", "away", "over", "under")}
        match = {"id": f"BR-2026-{9_000 + number % 20}", "minute": number % 90, "prices": prices}
        yield json.dumps({"target": "OddsChanged", "arguments": [match], "sender": "a bookmaker's back office"})


class Gunzipping(Reading):
    """A client on a socket of its own, which reads when it is told; not compressed where the answer says so.

    Attributes:
        head: of the answer.
        wire_bytes: so many came behind it.
        comments: how many.
        events: the fields of each, a list where one stands several times.
    """

    def __init__(
        self, address: str, target: str, accepts: str | None = "gzip", *, receive_buffer: int | None = None, **more: str
    ) -> None:
        """Connect, and read the answer's head; blocks."""
        self.socket: socket.socket = open_socket(address, receive_buffer=receive_buffer)
        fields = {"Host": "localhost", **({} if accepts is None else {"Accept-Encoding": accepts}), **more}
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.head = read_head(self.socket)
        self.is_gzip = "\r\nContent-Encoding: gzip\r\n" in self.head
        self.wire_bytes = self.comments = 0
        self.events: list[dict[str, list[str]]] = []
        self._inflater = zlib.decompressobj(31)
        self._rest = b""

    @property
    def data(self) -> list[str]:
        """What each event has, but for those that tell of subscriptions."""
        return ["\n".join(one["data"]) for one in self.events if "subscribed" not in one.get("event", [])]

    def read_more(self) -> None:
        """Take what comes next; blocks. EOFError where the server has ended."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise EOFError("the server closed")
        self.wire_bytes += len(data)
        if self.is_gzip:
            data = self._inflater.decompress(data)
            assert not self._inflater.eof and not self._inflater.unused_data, "the stream ended, or has another one"
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        for text in whole:
            fields: dict[str, list[str]] = {}
            for line in text.decode().split("\n"):
                name, _, value = line.partition(": ")
                fields.setdefault(name, []).append(value)
            if set(fields) == {":"}:
                self.comments += 1
            else:
                self.events.append(fields)

    def read_until(self, is_there: Callable[[], object]) -> None:
        """Read on until that is so; blocks."""
        while not is_there():
            self.read_more()

    def read_to(self, last: str) -> list[str]:
        """The data of all events up to this one; blocks."""
        self.read_until(lambda: last in self.data[-1:])
        return self.data
