"""For programs on FastAPI and Starlette: rooms, routes and event streams that a hub, or one frame for all, feeds.

The program keeps its server, its port, its dependencies and its tests. What is promised stands in docs/fastapi.md. It
needs ``fastapi``, which the extra of that name brings.
"""

import json
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, ClassVar, NamedTuple

import anyio
from anyio.lowlevel import checkpoint

from fanwire._loop import Loop, running, spawn
from fanwire.adapters.starlette import CLOSED, StarletteSocket
from fanwire.adopt.broadcast import broadcast, turn, waiting_bytes
from fanwire.adopt.joining import JOINED_BYTES_MAX
from fanwire.attaching import check_channels
from fanwire.errors import InvalidChannel, Overtaken
from fanwire.hearing import Heard, Listening
from fanwire.hub import Hub
from fanwire.logs import hub_log
from fanwire.scope import holder_of
from fanwire.values import Seconds, Whole, checked
from fanwire.wording import cut_reason

try:
    from fastapi import WebSocket
    from starlette.responses import StreamingResponse
    from starlette.types import Send
    from starlette.websockets import WebSocketState
except ImportError as error:
    raise ImportError(
        "fanwire.fastapi needs the package fastapi: pip install 'fanwire[fastapi]'", name=error.name
    ) from error

__all__ = ["Broadcaster", "ConnectionManager", "EventSourceResponse", "websocket_channel"]

WAITING_BYTES_MAX = 1 << 20
"""What may wait for one client of a ``ConnectionManager``."""
OVERTAKEN = 1013
"""The close code of one who does not keep up (IANA: try again later)."""
REFUSED = 1008
"""The close code for a name that no channel can have (RFC 6455 §7.4.1)."""
PING_S = 15.0
"""So long an event stream may be silent; proxies end what is silent for longer."""


NOWHERE: tuple[object, int] = (None, 0)
"""No turn of a loop."""


class Home(NamedTuple):
    """Where a connection was accepted; ``TestClient`` runs each in a loop of its own."""

    running: object
    loop: Loop
    holder: Any
    """What holds its transport, if the server says so."""


class ConnectionManager:
    """The class of FastAPI's tutorial, with its four names: a client that is dead or stalled hurts nobody.

    Under a server that offers its transport (``uvicorn --ws fanwire.uvicorn:Sansio``) a message is one frame, written
    at once to all. Elsewhere, and in ``TestClient``, each client has a task that sends. Either way a client gets all
    that is sent to it in one order. Clients may be of several event loops.

    Args:
        waiting_bytes_max: what may wait for one client, in bytes, > 0. One who has not taken so much is closed with
            1013; 1 MiB, and no more.
    """

    def __init__(self, *, waiting_bytes_max: int = WAITING_BYTES_MAX) -> None:
        self.waiting_bytes_max: int = checked("waiting_bytes_max", waiting_bytes_max, Whole(1, WAITING_BYTES_MAX))
        self.active_connections: list[WebSocket] = []
        """Who gets what is broadcast."""
        self._homes: dict[WebSocket, Home] = {}
        # Whom a message was written to at once, and the turn of the loop: in it they take no more, and none of them is
        # looked at again.
        self._seen: tuple[object, int] = NOWHERE
        self._direct: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        """Accept it, and have it get what is broadcast from now on. One that is accepted already is only added."""
        if websocket.application_state is WebSocketState.CONNECTING:
            await websocket.accept()
        if websocket not in self._homes:
            self._homes[websocket] = Home(running(), Loop(), holder_of(websocket.scope))
            self.active_connections.append(websocket)
            self._seen = NOWHERE

    def disconnect(self, websocket: WebSocket) -> None:
        """Have it get no more; it need not be connected."""
        self._homes.pop(websocket, None)
        self._seen = NOWHERE
        with suppress(ValueError):
            self.active_connections.remove(websocket)

    async def send_personal_message(self, message: str, websocket: WebSocket) -> None:
        """Send a text to one client, behind all that was sent to it; waits for it alone.

        Raises what the framework raises where the client is gone, and RuntimeError where it does not keep up.
        """
        home = self._homes.get(websocket)
        if home is not None and home.running is not running():
            self._post(home, websocket, message)
        elif StarletteSocket.pipe(websocket) is not None or not waiting_bytes(websocket):
            await websocket.send_text(message)
        else:
            try:
                broadcast([websocket], message, raise_exceptions=True)
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
            await checkpoint()

    async def broadcast(self, message: str) -> None:
        """Send a text to all; waits for nobody. Those that are gone are no longer among ``active_connections``."""
        await self._broadcast(message, len(message.encode()))

    async def broadcast_bytes(self, data: bytes) -> None:
        """``broadcast`` of a binary message."""
        await self._broadcast(data, len(data))

    async def broadcast_json(self, data: Any) -> None:
        """``broadcast`` of a text that says `data` as ``WebSocket.send_json`` would; it is encoded once."""
        await self.broadcast(json.dumps(data, separators=(",", ":"), ensure_ascii=False))

    async def _broadcast(self, message: str | bytes, size: int) -> None:
        here, is_short = running(), size <= JOINED_BYTES_MAX
        if is_short and self._seen == (here, turn.number) and turn.is_of(here):
            broadcast(self._direct, message)
        else:
            reached, are_direct = self._reached(message, size, here)
            broadcast(reached, message)
            if is_short and are_direct:
                self._seen, self._direct = (here, turn.number), reached
            else:
                await checkpoint()
                return
        if turn.is_long:  # else what follows in this turn is one write with it
            await checkpoint()

    def _reached(self, message: str | bytes, size: int, here: object) -> tuple[list[WebSocket], bool]:
        """Who can be written to in this loop, and whether that is everybody, at once; the others are dealt with."""
        reached: list[WebSocket] = []
        are_direct = True
        for websocket in list(self.active_connections):
            states_agree = websocket.client_state is websocket.application_state is WebSocketState.CONNECTED
            if not states_agree or CLOSED in websocket.scope:
                self.disconnect(websocket)
                continue
            home = self._homes.get(websocket)
            if home is not None and home.running is not here:
                self._post(home, websocket, message)
                are_direct = False
                continue
            holder = home.holder if home is not None else None
            are_direct = are_direct and holder is not None
            if holder is not None and holder.transport.is_closing():  # its route has ended by an error, say
                self.disconnect(websocket)
                continue
            waiting = waiting_bytes(websocket) if holder is None else holder.transport.get_write_buffer_size()
            if waiting and waiting + size > self.waiting_bytes_max:
                self._close(websocket, waiting)
            else:
                reached.append(websocket)
        return reached, are_direct

    def _post(self, home: Home, websocket: WebSocket, message: str | bytes) -> None:
        """Send in the loop that the connection is of."""
        try:
            home.loop.call_from_any_thread(partial(broadcast, [websocket], message))
        except RuntimeError:  # that loop has ended, and the connection with it
            self.disconnect(websocket)

    def _close(self, websocket: WebSocket, waiting: int) -> None:
        self.disconnect(websocket)
        hub_log.warning("a client of ConnectionManager is closed with %d: %d bytes wait for it", OVERTAKEN, waiting)

        async def close() -> None:
            try:
                await StarletteSocket(websocket).close(OVERTAKEN, "too slow")
            except Exception as error:
                hub_log.debug("it was gone already: %r", error)

        spawn(close, "fanwire closes a stalled client")


class Broadcaster:
    """A hub as a dependency, and as the lifespan of the application: ``FastAPI(lifespan=broadcaster.lifespan)``.

    ``hub: Annotated[Hub, Depends(broadcaster)]`` gives a route the hub: ``publish`` from anywhere, ``attach`` and
    ``adopt`` for WebSockets.

    Args:
        hub: None: one with no options.
    """

    def __init__(self, hub: Hub | None = None) -> None:
        self.hub: Hub = Hub() if hub is None else hub
        """What is published to."""

    def __call__(self) -> Hub:
        """The hub, for ``Depends``."""
        return self.hub

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Serve, without an address, as long as the application runs."""
        async with self.hub.serve():
            yield


def websocket_channel(source: Broadcaster | Hub, *channels: str) -> Callable[[WebSocket], Awaitable[None]]:
    """An endpoint that is only a subscription, for ``app.add_api_websocket_route``; what the client sends is dropped.

    Who may come is the route's: ``dependencies=[Depends(…)]``.

    Args:
        source: what feeds it; it serves by the time that clients come.
        channels: their names, in which ``{name}`` is a parameter of the route's path: ``odds:{match}``.

    Raises:
        TypeError, ValueError: there is no channel, or a name that cannot be a format.
    """
    if not channels:
        raise ValueError("websocket_channel needs a channel, such as 'odds:{match}'")
    for channel in channels:
        if not isinstance(channel, str):
            raise TypeError(f"a channel must be a str such as 'odds:{{match}}', not {channel!r}")
        list(string.Formatter().parse(channel))
    hub = source.hub if isinstance(source, Broadcaster) else source

    async def endpoint(websocket: WebSocket) -> None:
        """Accept, and send what is published."""
        try:
            names = check_channels([channel.format_map(websocket.path_params) for channel in channels])
        except InvalidChannel as error:
            await websocket.close(REFUSED, cut_reason(error))
            return
        await websocket.accept()
        await hub.adopt(websocket, names)

    return endpoint


class EventSourceResponse(StreamingResponse):
    """Server-Sent Events of channels, in the style of sse-starlette: ``return EventSourceResponse(hub, ["odds:7"])``.

    Each publication is one event, with the name that it was published with. A client that does not keep up falls behind
    in the channel's log: the channel's policy says what becomes of it, and ``every`` ends its stream.

    Args:
        source: what feeds it; it serves.
        channels: their names, one or more.
        ping: seconds of silence after which a comment is sent.
        headers: besides those that keep a stream from being stored or buffered.

    Raises:
        TypeError, InvalidChannel: no channel can have such a name.
        ValueError: there is no channel, or `ping` is out of range.
    """

    media_type = "text/event-stream"
    KEPT: ClassVar[dict[str, str]] = {"cache-control": "no-store", "x-accel-buffering": "no"}

    def __init__(
        self,
        source: Broadcaster | Hub,
        channels: Iterable[str],
        *,
        ping: float = PING_S,
        headers: dict[str, str] | None = None,
    ) -> None:
        hub = source.hub if isinstance(source, Broadcaster) else source
        names = list(dict.fromkeys(check_channels(channels)))
        if not names:
            raise ValueError("EventSourceResponse needs a channel")
        silence = checked("ping", ping, Seconds(0.001))
        super().__init__((), headers={**self.KEPT, **(headers or {})})
        self._hub, self._channels, self._silence_s = hub, names, silence
        self._sending = anyio.Lock()
        self._is_silent = True

    async def stream_response(self, send: Send) -> None:
        """Called by Starlette. It ends with the client, with the serving, and where a client is too slow."""
        async with AsyncExitStack() as heard:
            publications = [await heard.enter_async_context(self._hub.listen(name)) for name in self._channels]
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._write(send, b": begins\n\n")
            async with anyio.create_task_group() as tasks:
                for listening in publications:
                    tasks.start_soon(self._until_gone, self._hear(listening, send), tasks.cancel_scope)
                tasks.start_soon(self._until_gone, self._ping(send), tasks.cancel_scope)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, text: bytes) -> None:
        async with self._sending:
            self._is_silent = False
            await send({"type": "http.response.body", "body": text, "more_body": True})

    async def _until_gone(self, sending: Coroutine[Any, Any, None], scope: anyio.CancelScope) -> None:
        """The first that ends, ends all."""
        try:
            await sending
        except OSError as error:
            hub_log.debug("an event stream's client is gone: %r", error)
        except Overtaken as error:
            hub_log.info("an event stream ends: %s", error)
        scope.cancel()

    async def _hear(self, listening: Listening, send: Send) -> None:
        async for heard in listening:
            await self._write(send, record(heard))

    async def _ping(self, send: Send) -> None:
        while True:
            self._is_silent = True
            await anyio.sleep(self._silence_s)
            if self._is_silent:
                await self._write(send, b": ping\n\n")


def record(heard: Heard) -> bytes:
    """One event (HTML Standard, 9.2.6 Interpreting an event stream)."""
    payload = heard.payload
    text = payload if isinstance(payload, str) else payload.decode(errors="replace")
    named = f"event: {heard.event}\n" if heard.event else ""
    lines = "".join(f"data: {line}\n" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return f"{named}{lines}\n".encode()
