"""The replay engine: steps of a transcript as raw HTTP and WebSocket, against any address; it records and it checks.

A step is an object with one of:
  {"http": "POST", "path": …, "headers": {}, "body": …, "later": name}   sent on a connection of its own; its answer is
                                              {"status", "headers", "body"}; with `later` it is read by {"answer": name}
                                              and {"held": name} is whether it stays away; of the body "rest" is kept
                                              back until {"complete": name}
  {"open": name, "path": …, "headers": {}}    a WebSocket: {"status"} and the head, as above, where it is refused
  {"send": name, "text" | "hex" | "pack": …}  a frame: text, bytes, or a MessagePack hub message given as its array
  {"receive": name, "until": n}               hub messages until `n` are there, or the close; not the frames' bounds,
                                              and the hub's pings only with "pings": true
  {"drop": name}                              the socket is gone, without a close
  {"stream": name, "path": …}                 a GET whose body is read on, with {"read": name, "until": text}
`{id}` and `{token}` in a path or a body are what the last negotiate gave as connectionId and the id to use in `?id=`,
`{asked}` is the id of the server's last own invocation: the hub counts these over all its connections.
"""

import http.client
import json
import re
import select
import socket
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import msgpack  # type: ignore[import-untyped]
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

WITHIN_S = 20
HELD_S = 0.3
"""How long a request that the hub holds open is watched for an answer, which else comes within milliseconds."""
HEADERS_THAT_MATTER = (
    "content-type",
    "cache-control",
    "pragma",
    "expires",
    "content-encoding",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "vary",
    "allow",
    "www-authenticate",
)
"""Not `Content-Length`, since bodies are compared; not `Date`, `Server`, `Transfer-Encoding`, `Connection`,
`Keep-Alive`: they are the web server's, not SignalR's."""
PING = {'{"type":6}', "029106"}


class Replay:
    """One run of a transcript's steps."""

    def __init__(self, url: str) -> None:
        self._base = urlsplit(url)
        self._names: dict[str, str] = {}
        self._pending: dict[str, http.client.HTTPConnection] = {}
        self._rests: dict[str, bytes] = {}
        self._sockets: dict[str, ClientConnection] = {}
        self._open_ones = ExitStack()
        self._streams: dict[str, tuple[http.client.HTTPConnection, http.client.HTTPResponse]] = {}

    def run(self, steps: list[dict[str, Any]]) -> list[Any]:
        """What each step brought, in order; nothing stays open."""
        verbs = {name: getattr(self, f"_{name}") for name in (*STEPS,)}
        try:
            return [next(act(step) for verb, act in verbs.items() if verb in step) for step in steps]
        finally:
            self._open_ones.close()
            for one, _ in self._streams.values():
                one.close()
            for one in self._pending.values():
                one.close()

    def _filled(self, text: str) -> str:
        for name, value in self._names.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def _hidden(self, text: str) -> str:
        for name, value in self._names.items():
            text = text.replace(value, f"{{{name}}}")
        return text

    def _begin(self, step: dict[str, Any], method: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self._base.hostname or "", self._base.port, timeout=WITHIN_S)
        body = bytes.fromhex(step["hex"]) if "hex" in step else self._filled(step.get("body", "")).encode()
        body = body.ljust(step.get("padded", 0), b" ") * step.get("repeated", 1)
        headers = {name: self._filled(value) for name, value in step.get("headers", {}).items()}
        if "rest" in step:
            self._rests[step["later"]] = rest = self._filled(step["rest"]).encode()
            headers["Content-Length"] = str(len(body) + len(rest))
        connection.request(method, self._filled(step["path"]), body or None, headers)
        return connection

    def _http(self, step: dict[str, Any]) -> Any:
        connection = self._begin(step, step["http"])
        if "later" in step:
            self._pending[step["later"]] = connection
            return None
        return self._read_answer(connection)

    def _complete(self, step: dict[str, Any]) -> None:
        self._pending[step["complete"]].send(self._rests.pop(step["complete"]))

    def _held(self, step: dict[str, Any]) -> bool:
        return not select.select([self._pending[step["held"]].sock], [], [], HELD_S)[0]

    def _answer(self, step: dict[str, Any]) -> Any:
        return self._read_answer(self._pending.pop(step["answer"]))

    def _read_answer(self, connection: http.client.HTTPConnection) -> dict[str, Any]:
        response = connection.getresponse()
        body = response.read()
        connection.close()
        self._learn(body)
        return {"status": response.status, "headers": self._chosen(response.headers.items()), **self._shown(body)}

    def _learn(self, body: bytes) -> None:
        """A negotiate's ids."""
        if body.startswith(b'{"') and b'"connectionId"' in body:
            answer = json.loads(body)
            self._names = {"token": answer.get("connectionToken", answer["connectionId"]), "id": answer["connectionId"]}

    def _chosen(self, headers: Any) -> dict[str, str]:
        lower = {name.lower(): self._hidden(value) for name, value in headers}
        return {name: lower[name] for name in HEADERS_THAT_MATTER if name in lower}

    def _shown(self, data: bytes) -> dict[str, str]:
        """Bytes as text where they are such, with the ids' names in the place of ids; else in hex."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return {"hex": data.hex()}
        return {"body": self._hidden(text)}

    def _open(self, step: dict[str, Any]) -> Any:
        target = f"ws://{self._base.netloc}{self._filled(step['path'])}"
        headers = {name: self._filled(value) for name, value in step.get("headers", {}).items()}
        try:
            opening = connect(
                target,
                additional_headers=headers,
                compression=None,
                proxy=None,
                ping_interval=None,
                open_timeout=WITHIN_S,
                close_timeout=1,
            )
            self._sockets[step["open"]] = self._open_ones.enter_context(opening)
        except InvalidStatus as refused:
            response = refused.response
            return {
                "status": response.status_code,
                "headers": self._chosen(response.headers.raw_items()),
                **self._shown(bytes(response.body or b"")),
            }
        return {"status": 101}

    def _send(self, step: dict[str, Any]) -> None:
        data: str | bytes
        if "pack" in step:
            data = packed([self._filled(item) if isinstance(item, str) else item for item in step["pack"]])
        else:
            data = bytes.fromhex(step["hex"]) if "hex" in step else self._filled(step["text"])
        if "padded" in step:
            data = data.ljust(step["padded"], " " if isinstance(data, str) else b" ")  # type: ignore[arg-type]
        with suppress(ConnectionClosed):  # the end may have come before this goes out; what is received tells
            self._sockets[step["send"]].send(data)

    def _receive(self, step: dict[str, Any]) -> list[Any]:
        """Hub messages: JSON records as text, MessagePack in hex with its length; {"close": code} for the end."""
        got: list[Any] = []
        connection = self._sockets[step["receive"]]
        skipped = set[str]() if step.get("pings") else PING
        while len(got) < step["until"]:
            try:
                frame = connection.recv(timeout=WITHIN_S)
            except ConnectionClosed as closed:
                got.append(
                    {
                        "close": closed.rcvd.code if closed.rcvd else 1006,
                        "reason": closed.rcvd.reason if closed.rcvd else "",
                    }
                )
                return got
            if isinstance(frame, str):
                got += [{"text": self._noted(record)} for record in frame.split("\x1e")[:-1] if record not in skipped]
            else:
                got += [self._noted_binary(piece) for piece in split_binary(frame) if piece.hex() not in skipped]
        return got

    def _noted(self, record: str) -> str:
        """A JSON record; an invocation that wants an answer gives `{asked}`."""
        asked = re.match(r'\{"type":1,.*"invocationId":"(\w+)"', record)
        if asked:
            self._names["asked"] = asked[1]
        return self._hidden(record)

    def _noted_binary(self, piece: bytes) -> dict[str, Any]:
        """A MessagePack message in hex, but for an invocation that wants an answer: that one as its array."""
        body = piece.lstrip(bytes(range(0x80, 0x100)))[1:]
        if body[:1] == b"\x96" and body[1:2] == b"\x01":
            message = msgpack.unpackb(body)
            if message[2] is not None:
                self._names["asked"] = message[2]
                return {"pack": [self._hidden(item) if isinstance(item, str) else item for item in message]}
        return {"hex": piece.hex()}

    def _drop(self, step: dict[str, Any]) -> None:
        self._sockets.pop(step["drop"]).socket.shutdown(socket.SHUT_RDWR)

    def _stream(self, step: dict[str, Any]) -> Any:
        connection = self._begin(step, "GET")
        response = connection.getresponse()
        self._streams[step["stream"]] = connection, response
        return {"status": response.status, "headers": self._chosen(response.headers.items())}

    def _read(self, step: dict[str, Any]) -> Any:
        """A stream's bytes up to and with the text `until`, or to its end."""
        data = b""
        _, response = self._streams[step["read"]]
        while not data.endswith(step["until"].encode()):
            piece = response.read(1)
            if not piece:
                return {**self._shown(data), "is_over": True}
            data += piece
        return self._shown(data)


STEPS = ("http", "complete", "held", "answer", "open", "send", "receive", "drop", "stream", "read")


def packed(message: list[Any]) -> bytes:
    """A MessagePack hub message with its length before it."""
    body: bytes = msgpack.packb(message)
    prefix, length = bytearray(), len(body)
    while True:
        length, low = length >> 7, length & 0x7F
        prefix.append(low | (0x80 if length else 0))
        if not length:
            return bytes(prefix) + body


def split_binary(data: bytes) -> list[bytes]:
    """MessagePack hub messages with their length prefix; a JSON handshake answer is one of its own."""
    if data.startswith(b"{"):
        at = data.index(b"\x1e") + 1
        return [data[:at], *split_binary(data[at:])]
    pieces = []
    while data:
        prefix = re.match(rb"[\x80-\xff]{0,4}[\x00-\x7f]", data, re.DOTALL)
        assert prefix, "a message without a length"
        length = sum((byte & 0x7F) << (7 * at) for at, byte in enumerate(prefix[0]))
        end = prefix.end() + length
        assert end <= len(data), "a hub message is split over frames"
        pieces.append(data[:end])
        data = data[end:]
    return pieces
