"""Streams of WebSocket frames whose messages may be deflated (RFC 7692), read from outside: no code of fanwire's runs.

An inflater is zlib's, or that of a module with its interface, with exactly the window that was agreed on.
"""

import inspect
import selectors
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import fanwire

from support.raw import open_socket, request_text
from support.reading import READ_BYTES, Reading
from support.waiting import until_in_thread

COMPRESSES = "compression" in inspect.signature(fanwire.Channel).parameters
"""The engine knows how: then who offers it has to be agreed with."""
TAIL = b"\x00\x00\xff\xff"
"""What a compressed message ends with, left out on the wire (RFC 7692 §7.2.1)."""
STEP_BYTES = 32
"""So much is inflated at a time: zlib sees a distance beyond the window only where the window is all that it has."""
STEPPED_BYTES_MAX = 1 << 15
"""Of a longer message nothing is inflated in steps, which would take long."""

Message = str | bytes


class Undecodable(AssertionError):
    """What came is not what RFC 6455 and RFC 7692 allow."""


def agreed(head: str) -> dict[str, int | None] | None:
    """The parameters that an answer's head grants; None where it grants no compression.

    Raises:
        Undecodable: more than one extension, another one, a parameter twice, or an unknown one.
    """
    fields = [line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line]
    values = [value for name, value in fields if name.lower() == "sec-websocket-extensions"]
    if not values:
        return None
    name, *parameters = [part.strip() for part in ",".join(values).split(";")]
    if name != "permessage-deflate":
        raise Undecodable(f"the answer's extension is {values}")
    found: dict[str, int | None] = {}
    for parameter in parameters:
        key, _, value = (part.strip() for part in parameter.partition("="))
        is_known = key in (
            ("server_max_window_bits", "client_max_window_bits")
            if value
            else ("server_no_context_takeover", "client_no_context_takeover")
        )
        if key in found or not is_known:
            raise Undecodable(f"the answer's extension is {values}")
        found[key] = int(value) if value else None
    return found


class Inflater:
    """Inflates one message after the other, and refuses what a window of that size cannot have.

    Args:
        window_bits: 9 to 15.
        takes_over: the window outlives a message.
        module: zlib, or what has its interface.
    """

    def __init__(self, window_bits: int, *, takes_over: bool, module: ModuleType = zlib) -> None:
        self._bits, self._takes_over, self._module = window_bits, takes_over, module
        self._stream: Any = None

    def inflate(self, data: bytes) -> bytes:
        """What the data of one message stands for. Raises Undecodable."""
        if self._stream is None or not self._takes_over:
            self._stream = self._module.decompressobj(-self._bits)
        stream, rest, out = self._stream, data + TAIL, bytearray()
        step = STEP_BYTES if len(data) <= STEPPED_BYTES_MAX else 0
        try:
            while True:
                piece = stream.decompress(rest, step)
                out += piece
                rest = stream.unconsumed_tail
                if stream.eof or not step or len(piece) < step:
                    break
        except self._module.error as error:
            raise Undecodable(f"a window of {self._bits} bits: {error}") from error
        if stream.eof or rest:
            raise Undecodable("a block has BFINAL set, which some clients take for the end of all")
        return bytes(out)


@dataclass
class Stream:
    """What a server wrote to one WebSocket, from the answer's first byte on.

    Attributes:
        head: of the answer, once it is whole.
        agreement: what that grants: :func:`agreed`.
        messages: data messages, inflated.
        compressed: for each of them, whether it had RSV1 set.
        sizes: for each of them, the bytes of its frame.
        closed: code and reason of the close frame.
    """

    module: ModuleType = zlib
    head: str = ""
    agreement: dict[str, int | None] | None = None
    messages: list[Message] = field(default_factory=list)
    compressed: list[bool] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    closed: bytes | None = None
    _kept: bytearray = field(default_factory=bytearray)
    _inflater: Inflater | None = None

    def feed(self, data: bytes) -> None:
        """Take what came. Raises Undecodable."""
        self._kept += data
        if not self.head:
            end = self._kept.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            self.head = self._kept[:end].decode("latin-1")
            del self._kept[:end]
            if not self.head.startswith("HTTP/1.1 101 "):
                raise Undecodable(self.head)
            self.agreement = agreed(self.head)
            if self.agreement is not None:
                bits = self.agreement.get("server_max_window_bits") or 15
                takes_over = "server_no_context_takeover" not in self.agreement
                self._inflater = Inflater(bits, takes_over=takes_over, module=self.module)
        at = 0
        while (found := _front(self._kept, at)) is not None:
            begin, end = found
            self._take(self._kept[at], bytes(self._kept[begin:end]), end - at)
            at = end
        del self._kept[:at]

    def _take(self, first: int, payload: bytes, size: int) -> None:
        opcode, is_compressed = first & 0x0F, bool(first & 0x40)
        if not first & 0x80 or first & 0x30:
            raise Undecodable(f"the first byte of a frame is {first:#x}")
        if opcode not in (1, 2):
            if is_compressed:
                raise Undecodable("a control frame has RSV1 set (RFC 7692 §6)")
            self.closed = payload if opcode == 8 else self.closed
            return
        if is_compressed:
            if self._inflater is None:
                raise Undecodable("RSV1 is set, and no compression was agreed on")
            payload = self._inflater.inflate(payload)
        self.messages.append(payload.decode() if opcode == 1 else payload)
        self.compressed.append(is_compressed)
        self.sizes.append(size)


def _front(kept: bytearray, at: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `at` begins and ends; None while it is not whole. A server's are unmasked."""
    if len(kept) - at < 2:
        return None
    length, begin = kept[at + 1], at + 2
    if length & 0x80:
        raise Undecodable("a server must not mask (RFC 6455 §5.1)")
    if length >= 126:
        begin += 2 if length == 126 else 8
        if len(kept) < begin:
            return None
        length = int.from_bytes(kept[at + 2 : begin])
    return (begin, begin + length) if len(kept) >= begin + length else None


class Deflating(Reading):
    """A client on a socket of its own, which offers what it is told and reads when it is told."""

    def __init__(
        self, address: str, target: str, offer: str, *, module: ModuleType = zlib, receive_buffer: int | None = None
    ) -> None:
        """Connect, and read the answer's head; blocks."""
        self.offer = offer
        self.stream = Stream(module)
        self.socket = open_socket(address, receive_buffer=receive_buffer)
        self.socket.sendall(request_text(target, sec_websocket_extensions=offer))
        while not self.stream.head:
            self.read_more()

    def read_until(self, is_last: Callable[[Message], bool]) -> Stream:
        """Read on until such a message has come, from now on or as the last; blocks. EOFError where the server ends."""
        looked = max(0, len(self.stream.messages) - 1)
        while not any(map(is_last, self.stream.messages[looked:])):
            looked = len(self.stream.messages)
            self.read_more()
        return self.stream

    def read_more(self) -> None:
        """Take what comes next; blocks. EOFError where the server has ended."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise EOFError(f"the server closed, with {self.stream.closed!r}")
        self.stream.feed(data)


COMPANY = 4
"""So many readers of a channel are worth compressing for."""


@contextmanager
def company(address: str, target: str) -> Iterator[None]:
    """Enough clients that inflate for the engine to compress; none of them reads what comes."""
    with ExitStack() as stack:
        for _ in range(COMPANY):
            stack.enter_context(closing(Deflating(address, target, "permessage-deflate")))
        yield


class Tap:
    """A TCP proxy that keeps what the server says on each connection; :func:`tap` makes one."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._selector = selectors.DefaultSelector()
        self._bell, self._rung = socket.socketpair()
        self.said: list[bytearray] = []
        """By connection, in the order in which they came."""

    def streams(self, module: ModuleType = zlib) -> list[Stream]:
        """What was said so far on each WebSocket, read anew. Raises Undecodable."""
        found = []
        for said in self.said:
            if said.startswith(b"HTTP/1.1 101 "):
                found.append(Stream(module))
                found[-1].feed(bytes(said))
        return found

    def _run(self) -> None:
        select = self._selector
        select.register(self._listener, selectors.EVENT_READ)
        select.register(self._rung, selectors.EVENT_READ)
        while True:
            for key, _ in select.select():
                if key.fileobj is self._rung:
                    return
                if key.fileobj is self._listener:
                    client, server = self._listener.accept()[0], open_socket(self._server)
                    self.said.append(bytearray())
                    select.register(client, selectors.EVENT_READ, (client, server, None))
                    select.register(server, selectors.EVENT_READ, (server, client, self.said[-1]))
                else:
                    self._pass_on(*key.data)

    def _pass_on(self, one: socket.socket, other: socket.socket, said: bytearray | None) -> None:
        data = b""
        with suppress(OSError):
            data = one.recv(READ_BYTES)
            other.sendall(data)
        if said is not None:
            said += data
        if not data:
            for end in (one, other):
                with suppress(KeyError, ValueError):
                    self._selector.unregister(end)
                end.close()

    def _close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._bell.close()
        self._selector.close()


@contextmanager
def tap(server: str) -> Iterator[Tap]:
    """A proxy before the server at this address, in a thread of its own."""
    made = Tap(server)
    thread = threading.Thread(target=made._run, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made._bell.send(b"\0")
        until_in_thread(lambda: not thread.is_alive())
        made._close()
