"""For programs on FastAPI and Starlette: rooms, routes and event streams that a hub, or one frame for all, feeds.

The program keeps its server, its port, its dependencies and its tests. What is promised stands in docs/fastapi.md. It
needs ``fastapi``, which the extra of that name brings.
"""

import json
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial, wraps
from typing import Any, ClassVar

import anyio
from anyio.lowlevel import checkpoint

from fanwire._loop import running, spawn
from fanwire.adapters.starlette import CLOSED, StarletteSocket
from fanwire.adopt.broadcast import broadcast, waiting_bytes
from fanwire.adopt.joining import BROADCASTS_MAX, JOINED_BYTES_MAX
from fanwire.adopt.local import OVERTAKEN
from fanwire.adopt.rooms import Room
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
REFUSED = 1008
"""The close code for a name that no channel can have (RFC 6455 §7.4.1)."""
PING_S = 15.0
"""So long an event stream may be silent; proxies end what is silent for longer."""


class Connections(list[WebSocket]):
    """A list of connections that knows whether somebody else has changed it."""

    is_changed: bool = False


def noting(name: str) -> Callable[..., Any]:
    """A method of lists that changes one."""
    method = getattr(list, name)

    @wraps(method)
    def note(self: Connections, *arguments: Any, **named: Any) -> Any:
        self.is_changed = True
        return method(self, *arguments, **named)

    return note


for name in ("append", "clear", "extend", "insert", "pop", "remove", "__delitem__", "__iadd__", "__setitem__"):
    setattr(Connections, name, noting(name))


class ConnectionManager:
    """The class of FastAPI's tutorial, with its four names: a client that is dead or stalled hurts nobody.

    Under a server that offers its transport (``uvicorn --ws fanwire.uvicorn:Sansio``) a message is one publication,
    which an engine of the event loop's own sends to all. Elsewhere, and in ``TestClient``, each client has a task that
    sends. Either way a client gets all that is sent to it in one order. Clients may be of several event loops.

    Args:
        waiting_bytes_max: what may wait for one client, in bytes, > 0. One who has not taken so much is closed with
            1013; 1 MiB, and no more. The engine takes the next power of two.
    """

    def __init__(self, *, waiting_bytes_max: int = WAITING_BYTES_MAX) -> None:
        self.waiting_bytes_max: int = checked("waiting_bytes_max", waiting_bytes_max, Whole(1, WAITING_BYTES_MAX))
        self._connections = Connections()
        self._homes: dict[WebSocket, Room] = {}
        # Of each event loop: ``TestClient`` runs each connection in one of its own.
        self._rooms: dict[object, Room] = {}
        # Broadcasts since a task has let the loop turn.
        self._in_a_row = 0

    @property
    def active_connections(self) -> list[WebSocket]:
        """Who gets what is broadcast. A program may change the list: the next broadcast goes by it."""
        return self._connections

    @active_connections.setter
    def active_connections(self, connections: Iterable[WebSocket]) -> None:
        self._connections = Connections(connections)
        self._connections.is_changed = True

    async def connect(self, websocket: WebSocket) -> None:
        """Accept it, and have it get what is broadcast from now on. One that is accepted already is only added."""
        if websocket.application_state is WebSocketState.CONNECTING:
            await websocket.accept()
        if websocket not in self._homes:
            self._seat(websocket, running())
            list.append(self._connections, websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        """Have it get no more; it need not be connected."""
        self._unseat(websocket)
        with suppress(ValueError):
            list.remove(self._connections, websocket)

    async def send_personal_message(self, message: str, websocket: WebSocket) -> None:
        """Send a text to one client, behind all that was sent to it; waits for it alone.

        Raises what the framework raises where the client is gone, and RuntimeError where it does not keep up.
        """
        room = self._homes.get(websocket)
        if room is not None and room.running is not running():
            self._post(room, partial(broadcast, [websocket], message))
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
        await self._broadcast(message)

    async def broadcast_bytes(self, data: bytes) -> None:
        """``broadcast`` of a binary message."""
        await self._broadcast(data)

    async def broadcast_json(self, data: Any) -> None:
        """``broadcast`` of a text that says `data` as ``WebSocket.send_json`` would; it is encoded once."""
        await self.broadcast(json.dumps(data, separators=(",", ":"), ensure_ascii=False))

    async def _broadcast(self, message: str | bytes) -> None:
        if self._connections.is_changed:
            self._follow()
        here, are_direct = running(), True
        for room in tuple(self._rooms.values()):
            if room.running is here:
                are_direct = room.send(message)
            else:
                self._post(room, partial(room.send, message))
        self._in_a_row += 1
        # What is short and follows in this turn is one write with it.
        if not are_direct or len(message) > JOINED_BYTES_MAX or self._in_a_row >= BROADCASTS_MAX:
            self._in_a_row = 0
            await checkpoint()

    def _follow(self) -> None:
        """Somebody has changed the list."""
        self._connections.is_changed = False
        wanted = dict.fromkeys(self._connections)
        for websocket in [one for one in self._homes if one not in wanted]:
            self._unseat(websocket)
        for websocket in wanted:
            if websocket not in self._homes:
                self._seat(websocket, getattr(holder_of(websocket.scope), "loop", None) or running())

    def _seat(self, websocket: WebSocket, loop: object) -> None:
        """In the room of its loop: of another one than this only once that has turned."""
        room = self._rooms.get(loop)
        if room is not None and loop is not running():
            self._homes[websocket] = room
            self._post(room, partial(room.add, websocket))
            return
        if room is None:
            room = self._rooms[running()] = Room(self.waiting_bytes_max, self._too_slow, self.disconnect)
        room.add(websocket)
        self._homes[websocket] = room

    def _unseat(self, websocket: WebSocket) -> None:
        room = self._homes.pop(websocket, None)
        if room is None:
            return
        if room.is_here:
            self._leave(room, websocket)
        else:
            self._post(room, partial(self._leave, room, websocket))

    def _leave(self, room: Room, websocket: WebSocket) -> None:
        room.discard(websocket)
        if room.is_empty and self._rooms.get(room.running) is room:
            del self._rooms[room.running]

    def _post(self, room: Room, call: Callable[[], object]) -> None:
        """Have something done in another loop."""
        try:
            room.call_soon(call)
        except RuntimeError:  # that loop has ended, and its connections with it
            self._rooms.pop(room.running, None)
            for websocket in [one for one, home in self._homes.items() if home is room]:
                self.disconnect(websocket)

    def _too_slow(self, websocket: WebSocket, waiting: int | None) -> None:
        self.disconnect(websocket)
        size = self.waiting_bytes_max if waiting is None else waiting
        hub_log.warning("a client of ConnectionManager is closed with %d: %d bytes wait for it", OVERTAKEN, size)
        if waiting is None:  # the engine closes it
            websocket.scope[CLOSED] = True
            return

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
