"""A client manager for python-socketio: ``socketio.AsyncServer(client_manager=AsyncFanwireManager())``.

The server stays as it is: rooms, namespaces, sessions, callbacks and both transports. ``emit`` encodes an event once
and makes no task for each receiver. What is promised stands in docs/socketio.md. It needs the package
``python-socketio``, which ``fanwire[socketio]`` brings, and follows its 5.18.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Collection
from functools import partial
from time import monotonic, time
from typing import Any, ClassVar

import anyio
from anyio.lowlevel import checkpoint

from fanwire._loop import spawn
from fanwire.adapters.aiohttp import AiohttpSocket
from fanwire.adapters.starlette import StarletteSocket
from fanwire.adopt.broadcast import turn
from fanwire.adopt.joining import JOINED_BYTES_MAX
from fanwire.adopt.outlets import MANY, UNSEEN_BYTES_MAX, Outlet, write_frames
from fanwire.errors import FanwireError
from fanwire.exchange import Exchange
from fanwire.frames import server_message
from fanwire.values import Whole, checked

try:
    from engineio import AsyncServer as EngineServer
    from engineio.async_socket import AsyncSocket
    from engineio.packet import MESSAGE, Packet
    from socketio.async_manager import AsyncManager
    from socketio.async_pubsub_manager import AsyncPubSubManager
    from socketio.async_server import AsyncServer
    from socketio.packet import EVENT
    from socketio.pubsub_manager import PubSubManager
except ImportError as error:
    raise ImportError(
        "fanwire.compat.socketio needs the package python-socketio: pip install 'fanwire[socketio]'", name=error.name
    ) from error

__all__ = ["AsyncBackboneManager", "AsyncFanwireManager", "BackboneManager"]

WAITING_MAX = 4096
"""Packets that may wait for one client."""

SEEN_MAX = 256
"""So many rooms are remembered."""
BUSY_MAX = 256
"""Where more clients than that have something on its way, the clients of a room are looked at one by one."""
SEEN_S = 1.0
"""So long at most the clients of a room are not looked at one by one."""

log = logging.getLogger("fanwire.socketio")


class AsyncFanwireManager(AsyncManager):
    """Rooms and clients of one server, as ``socketio.AsyncManager`` has them.

    For several processes there is ``AsyncBackboneManager``. Where other servers have python-socketio's manager,
    ``class Clients(AsyncRedisManager, AsyncFanwireManager)`` emits to its own clients this way.

    Attributes:
        waiting_max: packets that may wait for one client, > 0; one more ends it, so that nobody who does not read can
            fill the memory.
    """

    waiting_max: int = WAITING_MAX

    def __init__(self, *, waiting_max: int = WAITING_MAX) -> None:
        super().__init__()
        self.waiting_max = checked("waiting_max", waiting_max, Whole())
        # By namespace and name: rooms all of whose clients could be written to directly when they were last looked at.
        self._seen: dict[tuple[str, Any], Seen] = {}
        # Whose queues have had something since, or whose end has begun.
        self._busy: set[Watched] = set()

    async def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Any = None,
        to: Any = None,
        **kwargs: Any,
    ) -> None:
        """Send an event to one client, a room, several, or all of the namespace; arguments are the base class's.

        All that it sends to a client over a WebSocket stands together in that client's order. Waits only for clients
        whose sending is not the server's plain one.
        """
        if callback or namespace not in self.rooms:
            await super().emit(event, data, namespace, room, skip_sid, callback, to, **kwargs)
            return
        skipped = frozenset(skip_sid) if isinstance(skip_sid, list) else frozenset((skip_sid,))
        packets = Packets(self.server, event, data, namespace)
        others, are_direct = self._emit(packets, namespace, to or room, skipped)
        if others:
            async with anyio.create_task_group() as tasks:
                for eio_sid in others:
                    tasks.start_soon(self._send, eio_sid, packets)
        elif not are_direct or turn.is_long:  # else those that follow in this turn are one write with it
            await checkpoint()

    def _emit(self, packets: "Packets", namespace: str, room: Any, skipped: frozenset[Any]) -> tuple[list[str], bool]:
        """Gives those who are sent to by the server's own way, and whether nothing has to be done in this turn."""
        # A server that sends in a way of its own, such as one under test, is asked for each.
        is_plain = getattr(type(self.server), "_send_eio_packet", None) is AsyncServer._send_eio_packet
        may_be_direct = is_plain and not packets.is_told
        seen = self._seen_of(namespace, room) if may_be_direct else None
        if seen is not None:
            members, busy = self.rooms[namespace][room], seen.among(self._busy)
            write_frames(seen.but(skipped.union(busy)), seen.spend(packets.frames))
            pairs = [(sid, members[sid]) for sid in busy]
        else:
            pairs = list(self.get_participants(namespace, room))
        sockets: dict[str, Any] = self.server.eio.sockets if is_plain else {}
        since = time() - self.server.eio.ping_timeout if is_plain else 0.0
        direct: dict[str, Outlet] = {}
        others: list[str] = []
        is_queued = False
        for sid, eio_sid in pairs:
            socket: Any = sockets.get(eio_sid)
            # Who did not answer a ping in time is closed by the server's own way of sending.
            if type(socket) is not AsyncSocket or socket.closed or 0 < (socket.last_ping or 0) < since:
                if sid not in skipped:
                    others.append(eio_sid)
            elif may_be_direct and (watched := watched_of(socket)) is not None and watched.is_idle:
                direct[sid] = watched.outlet
            elif sid not in skipped:
                is_queued = True
                if socket.queue.qsize() >= self.waiting_max:
                    self._end(socket)
                else:
                    packets.queue_for(socket)
        if direct:
            found = Seen(direct)
            write_frames(found.but(skipped), found.spend(packets.frames))
            if seen is None and len(direct) == len(pairs) >= MANY and (room is None or isinstance(room, str)):
                if len(self._seen) >= SEEN_MAX:
                    self._seen.clear()
                self._seen[namespace, room] = found
        return others, packets.are_short and not is_queued

    def _seen_of(self, namespace: str, room: Any) -> "Seen | None":
        """A room whose clients could be written to directly when they were last looked at: all but those that are busy
        can still be.
        """
        if not (room is None or isinstance(room, str)) or (found := self._seen.get((namespace, room))) is None:
            return None
        for watched in tuple(self._busy):
            if watched.is_idle:
                self._busy.discard(watched)
        return found if found.is_fresh and len(self._busy) <= BUSY_MAX else None

    def basic_enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        """Add a client to a room, as the base class."""
        self._seen.pop((namespace, room), None)
        super().basic_enter_room(sid, namespace, room, eio_sid=eio_sid)

    def basic_leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """Remove a client from a room, as the base class."""
        self._seen.pop((namespace, room), None)
        super().basic_leave_room(sid, namespace, room)

    def set_server(self, server: Any) -> None:
        """Called by the server when it is made."""
        super().set_server(server)
        eio = server.eio
        if isinstance(eio, EngineServer) and eio.async_mode in ("asgi", "aiohttp"):
            kind = eio._async["websocket"]
            if not issubclass(kind, Watched):
                watched = type("WatchedWebSocket", (Watched, kind), {"busy": self._busy})
                eio._async = {**eio._async, "websocket": watched}

    async def _send(self, eio_sid: str, packets: "Packets") -> None:
        """Send by the server's own way, which finds out whether the client is still there."""
        try:
            for packet in packets.of(is_upgraded=False):
                await self.server._send_eio_packet(eio_sid, packet)
        except Exception:
            log.exception("%s: sending failed", eio_sid)

    def _end(self, socket: Any) -> None:
        """Close one who does not read: what waits is dropped, so that its writer ends with what it has in hand."""
        if socket.closing:
            return
        log.warning("%s: more than %d packets wait for this client, closing it", socket.sid, self.waiting_max)
        queue = socket.queue
        while not queue.empty():
            queue.get_nowait()
            queue.task_done()
        queue.put_nowait(None)

        async def close() -> None:
            try:
                await socket.close(wait=False, abort=True, reason=self.server.eio.reason.TRANSPORT_ERROR)
            except Exception:
                log.exception("%s: closing failed", socket.sid)

        spawn(close, f"fanwire closes {socket.sid}")


class AsyncBackboneManager(AsyncPubSubManager, AsyncFanwireManager):
    """The clients of several servers, which tell one another by a backbone what is emitted.

    With `write_only` it belongs to no server: ``await AsyncBackboneManager(url, write_only=True).emit(…)`` reaches the
    clients of all. What is emitted while the backbone is away reaches this server's clients, and is logged.

    Args:
        url: of a Redis or Valkey server, as ``Hub(backbone=…)`` has it.
        channel: servers with another one have nothing in common.
        write_only, logger, json: as of ``socketio.AsyncRedisManager``.
        prefix: what names at the backbone begin with.
        waiting_max: as of ``AsyncFanwireManager``.

    Raises:
        TypeError, ValueError: a URL, a prefix or a bound that cannot be.
    """

    name = "fanwire"

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        channel: str = "socketio",
        write_only: bool = False,
        logger: Any = None,
        json: Any = None,
        *,
        prefix: str = "fanwire",
        waiting_max: int = WAITING_MAX,
    ) -> None:
        given: dict[str, Any] = {"channel": channel, "write_only": write_only, "logger": logger, "json": json}
        super().__init__(**given)
        self.waiting_max = checked("waiting_max", waiting_max, Whole())
        self._exchange = Exchange(url, prefix=prefix)

    async def _publish(self, data: Any) -> None:
        try:
            await self._exchange.atell(named(self.channel), self.json.dumps(data).encode())
        except FanwireError as error:
            self._get_logger().error("cannot publish to the backbone, giving up: %s", error)

    async def _listen(self) -> AsyncGenerator[Any, None]:
        self._exchange.hear(named(self.channel))
        link = self._exchange.link()
        while True:
            await anyio.wait_readable(link.fileno())
            for name, message in link.take():
                if name is None:
                    self._get_logger().warning("the backbone: %s", message.decode())
                else:
                    yield message

    async def aclose(self) -> None:
        """End the connection to the backbone; for one that is ``write_only``."""
        self._exchange.close()
        await checkpoint()


class BackboneManager(PubSubManager):
    """Emits to the clients of servers that have ``AsyncBackboneManager``, from a process without one, without asyncio.

    For tasks of Celery, workers of WSGI and scripts: ``BackboneManager(url).emit("goal", {"to": "ann"}, room="7")``.
    One that was made before a fork works in the child. It receives nothing: a server is asynchronous here.

    Args:
        url, channel, write_only, logger, json, prefix: as of ``AsyncBackboneManager``; `write_only` is True.

    Raises:
        TypeError, ValueError: as that one; `write_only` is not True.
    """

    name = "fanwire"

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        channel: str = "socketio",
        write_only: bool = True,
        logger: Any = None,
        json: Any = None,
        *,
        prefix: str = "fanwire",
    ) -> None:
        if write_only is not True:
            raise ValueError("write_only must be True: servers have AsyncBackboneManager, and a socketio.AsyncServer")
        super().__init__(channel=channel, write_only=True, logger=logger, json=json)
        self._exchange = Exchange(url, prefix=prefix)

    def _publish(self, data: Any) -> None:
        try:
            self._exchange.tell(named(self.channel), self.json.dumps(data).encode())
        except FanwireError as error:
            self._get_logger().error("cannot publish to the backbone, giving up: %s", error)

    def close(self) -> None:
        """End the connection to the backbone."""
        self._exchange.close()


def named(channel: str) -> str:
    """What a channel of servers is called at the backbone."""
    return f"socketio:{channel}"


class Seen:
    """The clients of a room, by their ids, all of whom could be written to directly."""

    __slots__ = ("_bytes_left", "_outlets", "_sids", "_until")

    def __init__(self, outlets: dict[str, Outlet]) -> None:
        self._outlets = outlets
        self._sids: dict[Outlet | None, str] | None = None
        self._until = monotonic() + SEEN_S
        self._bytes_left = UNSEEN_BYTES_MAX

    @property
    def is_fresh(self) -> bool:
        """Whether it may be relied on that each has answered its pings, and takes what is written."""
        return self._bytes_left > 0 and monotonic() < self._until

    def spend(self, frames: bytes) -> bytes:
        """Each of them is written so much more."""
        self._bytes_left -= len(frames)
        return frames

    def among(self, busy: set["Watched"]) -> list[str]:
        """The ids of those who are here."""
        if not busy:
            return []
        if self._sids is None:
            self._sids = {outlet: sid for sid, outlet in self._outlets.items()}
        sids = self._sids
        return [sid for watched in busy if (sid := sids.get(watched._outlet)) is not None]

    def but(self, skipped: frozenset[Any]) -> Collection[Outlet]:
        """Those who are not skipped."""
        if skipped.isdisjoint(self._outlets):
            return self._outlets.values()
        return [outlet for sid, outlet in self._outlets.items() if sid not in skipped]


class Watched:
    """Goes before engineio's own class of a WebSocket: knows what writes to it, and whether something is on its way."""

    busy: ClassVar[set["Watched"]]
    """Those that may not be idle, of one manager."""

    def __init__(self, handler: Any, server: Any) -> None:
        super().__init__(handler, server)  # type: ignore[call-arg]
        self.scope: Any = {}
        self._outlet: Outlet | None = None  # not before it can be written to
        self.sends = 0
        """Calls of ``send`` that have not returned."""
        self.is_ending = False
        """Whether its closing handshake has begun: nothing may follow."""
        socket: Any = getattr(handler, "__self__", None)
        self._socket = socket
        if type(socket) is AsyncSocket:
            socket.watched = self
            socket.queue._put = partial(self._put, socket.queue._put)

    def _put(self, put: Callable[[Any], None], packet: Any) -> None:
        """Called by the socket's queue for each packet."""
        if not self.is_ending:
            self.busy.add(self)
        put(packet)

    async def __call__(self, environ: Any) -> Any:
        """Serve it."""
        self.scope = environ.get("asgi.scope") or {}
        try:
            return await super().__call__(environ)  # type: ignore[misc]
        finally:
            self.is_ending = True
            self.busy.discard(self)

    async def send(self, message: Any) -> None:
        """By the framework."""
        self.sends += 1
        if not self.is_ending:
            self.busy.add(self)
        try:
            await super().send(message)  # type: ignore[misc]
        finally:
            self.sends -= 1

    async def close(self) -> None:
        """By the framework."""
        self.is_ending = True
        self.busy.add(self)
        await super().close()  # type: ignore[misc]

    @property
    def outlet(self) -> Outlet:
        """What is written to, once it serves."""
        if self._outlet is None:
            prepared = getattr(self, "_sock", None)  # aiohttp's
            self._outlet = Outlet(StarletteSocket(self) if prepared is None else AiohttpSocket(prepared))
        return self._outlet

    @property
    def is_idle(self) -> bool:
        """Whether its client has all that was sent to it before, so that it can be written to directly.

        A packet that the socket's writer has taken counts as unfinished until the writer goes on, and as on its way
        from then on.
        """
        socket = self._socket
        if self.sends or self.is_ending or socket.queue._unfinished_tasks or socket.upgrading or not socket.upgraded:
            return False
        return self.outlet.has_room()


def watched_of(socket: Any) -> Watched | None:
    """Its WebSocket; None where it polls."""
    return socket.__dict__.get("watched")  # type: ignore[no-any-return]


class Packets:
    """One event as packets of Engine.IO: text, or binary, or text and the binary parts that belong to it."""

    def __init__(self, server: Any, event: str, data: Any, namespace: str) -> None:
        arguments = list(data) if isinstance(data, tuple) else [] if data is None else [data]
        encoded = server.packet_class(EVENT, namespace=namespace, data=[event, *arguments]).encode()
        self._parts = encoded if isinstance(encoded, list) else [encoded]
        self._is_text = all(isinstance(part, str) for part in self._parts)
        self._shared = [Packet(MESSAGE, part) for part in self._parts]
        self._logger = server.eio.logger if server.eio.logger.isEnabledFor(logging.INFO) else None

    def of(self, *, is_upgraded: bool) -> list[Any]:
        """Those to send; a packet keeps the form that it was first encoded in, and polling has another for binary."""
        if self._is_text or is_upgraded:
            return self._shared
        return [Packet(MESSAGE, part) for part in self._parts]

    @property
    def is_told(self) -> bool:
        """Whether the server logs each packet that it sends."""
        return self._logger is not None

    @property
    def are_short(self) -> bool:
        """Whether it does not matter that a few of them wait for the end of the loop's turn."""
        return sum(map(len, self._parts)) <= JOINED_BYTES_MAX

    @property
    def frames(self) -> bytes:
        """All of them, each as one whole message."""
        return b"".join(server_message(packet.encode()) for packet in self._shared)

    def queue_for(self, socket: Any) -> None:
        """Have the client's writer, or its next poll, take them."""
        for packet in self.of(is_upgraded=socket.upgraded):
            socket.queue.put_nowait(packet)
            if self._logger is not None:
                data = packet.data if isinstance(packet.data, str) else "<binary>"
                self._logger.info("%s: Sending packet %s data %s", socket.sid, "MESSAGE", data)
