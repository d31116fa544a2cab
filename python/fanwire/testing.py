"""A hub under test: served for the length of a test, and a client for it that runs under asyncio, uvloop and trio.

The engine owns the sockets and speaks the protocols, so a client that went past it would test nothing. This one goes
through all of it, over a pair of sockets: no port is taken and nothing leaves the process. Stock clients connect by
address; see docs/testing.md. Needs websockets, which the extra ``testing`` brings.
"""

import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, Unpack

import anyio

from fanwire.asgi.pair import Pair
from fanwire.auth import Headers
from fanwire.calls import check_code, check_reason, check_text, wrong
from fanwire.entering import AsyncOnly
from fanwire.errors import CallFailed
from fanwire.hub import Hub
from fanwire.options import Options

try:
    from websockets.client import ClientProtocol
    from websockets.frames import Frame, Opcode
    from websockets.http11 import Response
    from websockets.protocol import State
    from websockets.typing import Origin, Subprotocol
    from websockets.uri import parse_uri
except ImportError as error:
    raise ImportError("fanwire.testing needs websockets: pip install 'websockets>=15'") from error

__all__ = ["HubServer", "NotAccepted", "TestClient", "serving"]

SHOWN_MAX = 100
"""Characters of a message that an error shows."""
WITHIN_S = 5.0
"""How long a client waits for a message, unless told otherwise."""


class NotAccepted(Exception):
    """The hub did not accept a connection."""

    status: int
    """The response's, such as 401."""
    reason: str
    """Its body: the text of a ``Refused``."""
    headers: Headers
    """Its fields; ``all(name)`` has each of a name."""

    def __init__(self, status: int, reason: str, headers: Headers) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.headers = headers

    def __str__(self) -> str:
        return f"the hub answered {self.status}: {self.reason}"


class TestClient:
    """A WebSocket client of the raw protocol (docs/wire.md). ``HubServer.connect`` makes it."""

    __test__ = False  # pytest takes classes of such a name for tests

    def __init__(self, pair: Pair, protocol: ClientProtocol) -> None:
        self._pair = pair
        self._protocol = protocol
        self._response: Response
        # Messages that came and were not asked for yet.
        self._messages: deque[str | bytes] = deque()
        self._parts: list[bytes] = []
        self._is_text = True
        self._calls = 0

    @property
    def subprotocol(self) -> str | None:
        """What the hub chose of ``subprotocols``."""
        return self._protocol.subprotocol

    @property
    def response_headers(self) -> Headers:
        """The fields of the answer to the upgrade; ``all(name)`` has each of a name."""
        return Headers(self._response.headers.raw_items())

    async def send(self, data: str | bytes | object) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary, anything else as JSON.

        Raises EOFError once the connection has ended, TypeError for what has no form in JSON.
        """
        if self._protocol.state is not State.OPEN:
            code, reason = self._ending()
            raise EOFError(f"the connection has ended: {code} {reason}".rstrip())
        if isinstance(data, bytes):
            self._protocol.send_binary(data)
        else:
            self._protocol.send_text((data if isinstance(data, str) else json.dumps(data)).encode())
        await self._flush()

    async def receive(self, timeout: float = WITHIN_S) -> Any:
        """The next message: JSON as what it stands for, other text and bytes as they are.

        Raises:
            TimeoutError: nothing came within `timeout` seconds; it says what was waited for.
            EOFError: the connection has ended; it says with which close code and reason.
        """
        return parsed(await self.receive_raw(timeout))

    async def receive_raw(self, timeout: float = WITHIN_S) -> str | bytes:
        """The next message as it came; raises what ``receive`` raises."""
        with waiting("a message", timeout, self._parts_told):
            while not self._messages:
                await self._read()
        return self._messages.popleft()

    async def subscribe(self, *channels: str, timeout: float = WITHIN_S) -> None:
        """Have what is published to `channels` from now on come. Raises CallFailed with the text of a denial."""
        if not channels:
            raise ValueError("channels must be one name or several, not none")
        for channel in channels:
            check_text("channels", channel, "names of channels, each a str")
        await self._ask({"subscribe": list(channels)}, timeout)

    async def call(self, method: str, *arguments: object, timeout: float = WITHIN_S) -> Any:
        """Call a method of the hub; its result. Raises CallFailed with the text of the error, if it is one.

        Messages that come before the answer stay to be received. Without an answer it raises TimeoutError, which tells
        what came instead.
        """
        check_text("method", method, "the name of a method, a str")
        return await self._ask({"call": method, "args": list(arguments)}, timeout)

    async def closed(self, timeout: float = WITHIN_S) -> tuple[int, str]:
        """Wait for the hub to end the connection; its close code and reason. What arrives before is dropped."""
        count = len(self._messages)
        with waiting("the end of the connection", timeout, lambda: shown(list(self._messages)[count:])):
            try:
                while True:
                    await self._read()
            except EOFError:
                return self._ending()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """The close handshake, from this side. Raises TypeError and ValueError for a code that may not be sent."""
        check_code(code)
        check_reason(reason)
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            await self._flush()
        await self.closed()

    async def _ask(self, request: dict[str, object], timeout: float) -> Any:
        self._calls += 1
        await self.send({**request, "id": self._calls})
        others: list[str | bytes] = []
        try:
            with waiting(f"an answer to {shown([json.dumps(request)])}", timeout, lambda: shown(others)):
                while True:
                    while not self._messages:
                        await self._read()
                    message = self._messages.popleft()
                    answer = parsed(message)
                    if isinstance(answer, dict) and answer.get("id") == self._calls:
                        break
                    others.append(message)
        finally:
            self._messages.extendleft(reversed(others))
        if "error" in answer:
            raise CallFailed(answer["error"])
        return answer.get("result")

    def _parts_told(self) -> str:
        return f"{sum(map(len, self._parts))} bytes of one that is not whole" if self._parts else ""

    def _ending(self) -> tuple[int, str]:
        return self._protocol.close_code or 1006, self._protocol.close_reason or ""

    async def _shake_hands(self, headers: Mapping[str, str]) -> None:
        request = self._protocol.connect()
        request.headers.update(headers)
        self._protocol.send_request(request)
        await self._flush()
        with waiting("the answer to the upgrade", WITHIN_S):
            while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
                await self._read()
        error = self._protocol.handshake_exc
        if error is None:
            return
        if not hasattr(self, "_response"):
            raise EOFError("the connection ended before it was answered") from error
        if self._response.status_code != 101:
            body = (self._response.body or b"").decode(errors="replace").strip()
            raise NotAccepted(self._response.status_code, body, self.response_headers) from error
        raise error

    async def _flush(self) -> None:
        with suppress(OSError):  # the hub has ended it: reading tells how
            for data in self._protocol.data_to_send():
                if data:
                    await self._pair.send(data)

    async def _read(self) -> None:
        """What the socket has now. Raises EOFError at its end."""
        if self._protocol.state is State.CLOSED:
            code, reason = self._ending()
            raise EOFError(f"the connection has ended: {code} {reason}".rstrip())
        data = await self._pair.receive()
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
            elif isinstance(event, Response):
                self._response = event
        await self._flush()

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._messages.append(whole.decode() if self._is_text else whole)


class HubServer:
    """A hub that is served. ``serving`` makes it."""

    def __init__(self, hub: Hub, address: str) -> None:
        self.hub = hub
        """The hub itself."""
        self.address = address
        """Where it serves: ``HOST:PORT`` or ``unix:PATH``; empty where nothing listens."""

    def url(self, target: str = "/ws", scheme: str = "http") -> str:
        """Where a stock client finds `target`. Raises ValueError where there is no port: serve on ``127.0.0.1:0``."""
        check_target(target)
        check_text("scheme", scheme, "a str such as 'ws'")
        if not self.address or self.address.startswith("unix:"):
            what = "a Unix socket" if self.address else "a hub that listens nowhere"
            raise ValueError(f'{what} has no URL: serve on TCP, as in serving(hub, "127.0.0.1:0")')
        return f"{scheme}://{self.address}{target}"

    def connect(
        self,
        target: str = "/ws",
        *,
        headers: Mapping[str, str] | None = None,
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
    ) -> AbstractAsyncContextManager[TestClient]:
        """A client that is connected to `target` for as long as the context lasts.

        Args:
            target: path and query, such as ``/ws?channel=goals``.
            headers: fields of the request beside those of the handshake.
            origin: the page that it comes from, as a browser has it: ``https://bets.example``.
            subprotocols: those that it offers, the preferred ones first.

        Raises:
            TypeError, ValueError: an argument is not what it may be; it is named.
            NotAccepted: once entered: the hub refused it, by ``authenticate`` or ``authorize``, say.
            HubStopped: the hub does not serve any more.
        """
        check_target(target)
        if headers is not None and not isinstance(headers, Mapping):
            wrong("headers", "a mapping of names to values, or None", headers)
        if origin is not None:
            check_text("origin", origin, "the origin of a page, a str, or None")
        if isinstance(subprotocols, str) or not isinstance(subprotocols, Sequence):
            wrong("subprotocols", "a list of names", subprotocols)
        return AsyncOnly(self._connected(target, headers, origin, subprotocols), "server.connect(...)")

    @asynccontextmanager
    async def _connected(
        self, target: str, headers: Mapping[str, str] | None, origin: str | None, subprotocols: Sequence[str]
    ) -> AsyncIterator[TestClient]:
        protocol = ClientProtocol(
            parse_uri(f"ws://localhost{target}"),
            origin=None if origin is None else Origin(origin),
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            max_size=None,
        )
        with Pair(self.hub._link.require(), "unix:") as pair:
            client = TestClient(pair, protocol)
            await client._shake_hands(headers or {})
            try:
                yield client
            finally:
                with anyio.move_on_after(1, shield=True):
                    await client.close()


def serving(
    hub: Hub, address: str | int | None = None, **options: Unpack[Options]
) -> AbstractAsyncContextManager[HubServer]:
    """Serve `hub` for as long as the context lasts; its ``start`` and ``stop``, so the tasks may be different ones.

    Args:
        address: ``127.0.0.1:0`` for stock clients; None: nothing listens, for ``connect`` alone.
        options: as for ``Hub.serve``. At the end clients get 1 s to answer the close, unless ``drain_timeout`` is told.

    Raises:
        TypeError: `hub` is no Hub.
        What ``Hub.start`` raises, once entered.
    """
    if not isinstance(hub, Hub):
        wrong("hub", "a Hub", hub)
    return AsyncOnly(_serving(hub, address, options), "serving(...)")


@asynccontextmanager
async def _serving(hub: Hub, address: str | int | None, options: Options) -> AsyncIterator[HubServer]:
    options.setdefault("drain_timeout", 1.0)
    served = await hub.start(address, **options)
    try:
        yield HubServer(hub, served.address)
    finally:
        with anyio.CancelScope(shield=True):
            await hub.stop()


@contextmanager
def waiting(what: str, timeout: float, came: Callable[[], str] = str) -> Iterator[None]:
    """Give the body so many seconds. What it does is to wait for `what`; `came` tells what has come instead, if asked.

    Raises:
        TypeError, ValueError: the timeout is none.
        TimeoutError: they are over; it tells of both.
    """
    must = "a number of seconds, 0 or more"
    if not isinstance(timeout, int | float) or isinstance(timeout, bool):
        wrong("timeout", must, timeout)
    if not timeout >= 0:
        wrong("timeout", must, timeout, ValueError)
    try:
        with anyio.fail_after(timeout):
            yield
    except TimeoutError:
        instead = came()
        raise TimeoutError(f"{what} did not come within {timeout:g} s; {instead or 'nothing'} came instead") from None


def shown(messages: Sequence[str | bytes]) -> str:
    """Messages as an error shows them: the first few, cut."""
    first = [repr(message if len(message) <= SHOWN_MAX else message[:SHOWN_MAX]) for message in messages[:3]]
    more = f" and {len(messages) - 3} more" if len(messages) > 3 else ""
    return ", ".join(first) + more


def check_target(target: object) -> None:
    """Raises TypeError, ValueError for what is no path of a server."""
    must = "a path and perhaps a query, such as '/ws?channel=goals'"
    if not check_text("target", target, must).startswith("/"):
        wrong("target", must, target, ValueError)


def parsed(message: str | bytes) -> Any:
    """What JSON text stands for; other text and bytes as they are."""
    if isinstance(message, bytes):
        return message
    try:
        return json.loads(message)
    except ValueError:
        return message
