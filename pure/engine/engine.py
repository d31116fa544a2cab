"""The stand-in for the compiled engine: logs, policies and adopted connections; all that listens is missing.

Whoever publishes writes to the sockets that have room, in its own thread; one lock is around all of it.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from math import inf
from threading import RLock
from typing import Any

from fanwire.errors import HubStopped, LimitReached, PayloadTooBig
from fanwire.frames import BINARY, TEXT, server_frame

from .absent import Absent
from .channel import Channel
from .encoder import DEFAULT, Arguments, Encoder, read
from .events import Presence, SnapshotWanted, Stats
from .listener import Listener
from .log import Kind, Mode, Record
from .missing import missing
from .names import check_name, check_pattern, may_be_sent
from .position import Position, Publication
from .routes import ROUTES_MAX, Route
from .seat import Adopted, Seat
from .settings import Settings
from .tags import Tag, check_tags
from .track import Track
from .waiter import Waiter

KEY_BYTES_MAX = 255
DEFERRED_BYTES_MAX = 64 << 10
LISTENERS_MAX = 1_024
BUCKETS = (5e-05, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, inf)
_epochs = count(time.time_ns() // 1_000)


class Engine(Absent):
    """The channels' logs, and who is written to."""

    def __init__(self, settings: Settings, encoder: Encoder | None = None) -> None:
        self.settings = settings
        self._encoder = encoder or DEFAULT
        self._lock = RLock()
        self._state, self._process = "not started", os.getpid()
        # Channels by name; those of users and of SignalR hubs are nobody's here.
        self._channels: dict[str, Channel] = {}
        self._others: dict[tuple[str, str], Channel] = {}
        self._by_epoch: dict[int, Channel] = {}
        self._seats: dict[int, Seat] = {}
        # Those that nobody refers to any more; their sockets stay as they are.
        self._forsaken: deque[Seat] = deque()
        self._ids = count(1 << 24)
        self._routes: dict[str, Route] = {}
        self._listeners: list[Listener] = []
        self._dirty: list[Channel] = []
        self._deferred_bytes = 0
        self._waiter: Waiter | None = None
        self._tracks: dict[int, Track] = {}
        self._tokens = count(1)
        # What happened, and the pair of sockets that says that something did.
        self._events: deque[Any] = deque()
        self._visits: dict[tuple[str, int, bool], None] = {}
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)
        self._is_rung = False
        self._connections_total = self._publications = 0
        self.deliveries = self.writes = self.bytes_out = self.overtaken = 0
        self.closes: dict[int, int] = {}
        self._skipped = dict.fromkeys(("every", "latest", "keyframe", "drop"), 0)

    # Its life

    def start(self) -> None:
        """Begin. Once."""
        self._state = "running"

    @contextmanager
    def running(self) -> Iterator[int]:
        """Hold the lock of an engine that runs; the time now, in nanoseconds. Raises HubStopped."""
        with self._lock:
            if self._state != "running":
                raise HubStopped(f"the engine is {self._state}")
            if self._process != os.getpid():
                raise HubStopped(
                    f"the engine was started in process {self._process} and is not usable in its fork {os.getpid()}; "
                    "make a new Hub after the fork"
                )
            yield self.now()

    def now(self) -> int:
        """Nanoseconds of a clock that only goes on."""
        return time.monotonic_ns()

    def stop(self) -> None:
        """Close every socket. Idempotent."""
        with self._lock:
            for seat in list(self._seats.values()):
                seat.abort()
            self._state = "stopped"
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.end()

    def __del__(self) -> None:
        with suppress(AttributeError):
            self._ours.close()
            self._theirs.close()

    def drain(self, code: int = 1001, reason: str = "", spread: float = 0.0) -> None:
        """Give every adopted connection up, with what is published until now."""
        with self.running():
            for seat in list(self._seats.values()):
                seat.release()

    # What happened

    @property
    def event_fd(self) -> int:
        """What is readable when events wait. Only ``take_events`` reads it."""
        return self._ours.fileno()

    def push(self, event: Any) -> None:
        """Something happened."""
        with self._lock:
            self._events.append(event)
            self._ring()

    def _ring(self) -> None:
        if not self._is_rung:
            self._is_rung = True
            with suppress(BlockingIOError):  # then it is readable
                self._theirs.send(b"\0")

    def take_events(self, count_max: int = 1024) -> list[Any]:
        """What happened since the last call, oldest first. Never waits."""
        with self._lock:
            if self._process != os.getpid():
                return []
            self._give_up_forsaken()
            if self._visits:
                changes, self._visits = list(self._visits), {}
                self._events.append(Presence(changes))
            taken = [self._events.popleft() for _ in range(min(count_max, len(self._events)))]
            if not self._events:
                self._is_rung = False
                with suppress(BlockingIOError):
                    self._ours.recv(4096)
            return taken

    def note_presence(self, channel: Channel, connection: int, has_joined: bool) -> None:
        """Somebody came to a channel or went; a visit that is over before it was told is forgotten."""
        if channel.promise.tells_presence:
            came = (channel.name, connection, True)
            if not has_joined and came in self._visits:
                del self._visits[came]
                return
            self._visits[channel.name, connection, has_joined] = None
            self._ring()

    def want_snapshot(self, channel: Channel) -> None:
        """Have the application give a keyframe."""
        self.push(SnapshotWanted(channel.name))

    # Channels

    def obtain(self, name: str) -> Channel:
        """The channel of a name, made if need be. Raises InvalidChannel, LimitReached."""
        channel = self._channels.get(name)
        if channel is None:
            check_name(name)
            bound = self.settings.channels_max
            if len(self._channels) >= bound:
                self._sweep()
            if len(self._channels) >= bound:
                raise LimitReached("channels_max", bound + 1, bound)
            channel = self._channels[name] = self._made(name)
            for listener in self._listeners:
                listener.attach(channel)
        return channel

    def _made(self, name: str) -> Channel:
        channel = Channel(name, next(_epochs), self.settings.promise(name))
        self._by_epoch[channel.epoch] = channel
        return channel

    def _sweep(self) -> None:
        """Forget the channels of which nothing is kept and that nobody has to do with."""
        for channel in [one for one in self._channels.values() if one.is_idle]:
            del self._channels[channel.name], self._by_epoch[channel.epoch]

    def _other(self, kind: str, name: str) -> Channel:
        channel = self._others.get((kind, name))
        if channel is None:
            if len(self._others) >= self.settings.channels_max:
                self._others.clear()
            channel = self._others[kind, name] = Channel(name, next(_epochs), self.settings.promise(""))
        return channel

    def position(self, channel: str) -> Position:
        """Where a channel, made if need be, is now. Raises InvalidChannel, LimitReached, HubStopped."""
        with self.running():
            return self.obtain(channel).position

    def occupancy(self, channel: str) -> int:
        """Subscribers of the channel, now."""
        with self._lock:
            found = self._channels.get(channel)
            return 0 if found is None else len(found.subscriptions)

    # Publishing

    def encode_json(self, data: Any) -> bytes:
        """`data` as JSON. Raises what ``publish`` raises."""
        return self._encoder.json(data)

    def publish(
        self,
        channel: str,
        data: Any,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        deferred: bool = False,
        excluded: Sequence[int] = (),
        keyframe: bool = False,
        tags: Mapping[str, Tag] | None = None,
    ) -> Publication:
        """Append one publication; with `deferred` it is written by ``flush`` (or when 64 KiB wait).

        Raises InvalidChannel, PayloadTooBig, UnsupportedType, UnsupportedValue, LimitReached, HubStopped.
        """
        if not isinstance(keyframe, bool):
            raise TypeError("keyframe must be a bool")
        kind = Kind.KEYFRAME if keyframe else Kind.PLAIN
        return self._append(channel, self._record(data, event, key, ttl, excluded, kind, tags), deferred)

    def publish_snapshot(self, channel: str, data: Any, event: str | None = None) -> Publication:
        """Append the state of a channel, for subscribers that wait for it alone. Raises as ``publish``."""
        return self._append(channel, self._record(data, event, kind=Kind.SNAPSHOT), False)

    def remove(
        self,
        channel: str,
        data: Any,
        key: str,
        event: str | None = None,
        excluded: Sequence[int] = (),
        tags: Mapping[str, Tag] | None = None,
    ) -> Publication:
        """End a key, in a channel of policy ``latest``. Raises ValueError elsewhere, and what ``publish`` raises."""
        if not isinstance(key, str):
            raise TypeError("key must be a str")
        return self._append(channel, self._record(data, event, key, None, excluded, Kind.REMOVAL, tags), False)

    def publish_to_user(
        self,
        user: str,
        data: Any,
        event: str | None = None,
        ttl: float | None = None,
        deferred: bool = False,
        excluded: Sequence[int] = (),
    ) -> Publication:
        """Checks all that ``publish`` checks: no connection is any user's here."""
        return self._append_for("user", user, self._record(data, event, None, ttl))

    def publish_to_hub(
        self,
        path: str,
        data: Any,
        event: str | None = None,
        ttl: float | None = None,
        deferred: bool = False,
        excluded: Sequence[int] = (),
    ) -> Publication:
        """Checks all that ``publish`` checks: there are no SignalR connections here."""
        return self._append_for("hub", path, self._record(data, event, None, ttl))

    def _record(
        self,
        data: Any,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        excluded: Sequence[int] = (),
        kind: Kind = Kind.PLAIN,
        tags: Mapping[str, Tag] | None = None,
    ) -> Record:
        if isinstance(ttl, bool) or not isinstance(ttl, int | float | None):
            raise TypeError("ttl must be a number of seconds over 0, or None")
        if ttl is not None and not ttl > 0:
            raise ValueError(f"ttl is {ttl}, must be over 0 seconds")
        for name, text in (("event", event), ("key", key)):
            if not isinstance(text, str | None):
                raise TypeError(f"{name} must be a str or None")
        plain = read(data)
        if isinstance(data, Arguments):
            data = list(data.items)
        payload = self._encoder.json(data) if plain is None else plain.encode() if isinstance(plain, str) else plain
        bound = self.settings.publication_bytes_max
        if len(payload) > bound:
            raise PayloadTooBig(len(payload), bound, "publication_bytes_max")
        if key is not None and len(key.encode()) > KEY_BYTES_MAX:
            raise ValueError(f"key of {len(key.encode())} bytes is over the bound of {KEY_BYTES_MAX}")
        if event is not None and (b"\n" in event.encode() or "\r" in event):
            raise ValueError(f'event name "{event}" holds a line break')
        frame = server_frame(BINARY if isinstance(plain, bytes) else TEXT, payload)
        kept_tags, now = check_tags(tags), self.now()
        expires = inf if ttl is None else now + ttl * 1e9
        kept = payload if plain is None else plain
        return Record(frame, kept, plain is None, event, 0, now, expires, key, kind, frozenset(excluded), kept_tags)

    def _append(self, name: str, record: Record, is_deferred: bool) -> Publication:
        if not isinstance(name, str):
            raise TypeError("channel must be a str")
        with self.running():
            channel = self.obtain(name)
            bound = self.settings.unsent_bytes_max
            if self._deferred_bytes and channel.unsent_bytes >= bound:
                raise LimitReached("unsent_bytes_max", channel.unsent_bytes, bound)
            channel.append(record)
            self._publications += 1
            if not channel.is_dirty:
                channel.is_dirty = True
                self._dirty.append(channel)
            self._deferred_bytes += max(len(record.frame), 1)
            if not is_deferred or self._deferred_bytes > DEFERRED_BYTES_MAX:
                self.flush()
            return Publication(channel.epoch, channel.offset)

    def _append_for(self, kind: str, name: str, record: Record) -> Publication:
        if not isinstance(name, str):
            raise TypeError(f"{kind} must be a str")
        name.encode()
        with self.running():
            channel = self._other(kind, name)
            channel.append(record)
            self._publications += 1
            return Publication(channel.epoch, channel.offset)

    def flush(self) -> None:
        """Write what was published with `deferred`."""
        with self._lock:
            self._deferred_bytes = 0
            dirty, self._dirty = self._dirty, []
            for channel in dirty:
                channel.mark()
            for seat in {one.seat: None for channel in dirty for one in channel.subscriptions}:
                seat.pump()
            for channel in dirty:
                self._settle(channel)
            self.report()

    def _settle(self, channel: Channel) -> None:
        """Do with those who lag as the policy says, once the bounds have gone past them."""
        now = self.now()
        for one in list(channel.subscriptions):
            if one.seat.is_behind and one.is_seated and one.log.has_lost(one.cursor):
                one.seat.settle(one, now)

    def fan_out(self, channel: Channel) -> None:
        """Write what was published in one channel, before somebody comes to it or leaves it."""
        if channel.is_dirty:
            self._dirty.remove(channel)
            channel.mark()
            for one in list(channel.subscriptions):
                one.seat.pump()
            self._settle(channel)

    def give_up_snapshot(self, channel: str, why: str) -> None:
        """Have subscribers that wait for a keyframe begin where they came, and tell them why."""
        with self.running():
            found = self._channels.get(channel)
            if found is not None:
                found.is_snapshot_awaited = False
                for one in list(found.subscriptions):
                    if one.is_seated and one.cursor.mode is Mode.AWAITING:
                        one.cursor.mode = Mode.REPLAYING
                        one.seat.tell(why)

    # Listening and following

    def listen_to(self, pattern: str, token: int) -> Listener:
        """Hear the channels of a pattern from now on; Audible with `token` tells of something to hear.

        Raises InvalidChannel, LimitReached, HubStopped.
        """
        check_pattern(pattern)
        with self.running():
            if len(self._listeners) >= LISTENERS_MAX:
                raise LimitReached("listeners", LISTENERS_MAX + 1, LISTENERS_MAX)
            listener = Listener(self, pattern, token)
            self._listeners.append(listener)
            for channel in self._channels.values():
                listener.attach(channel)
            return listener

    def unlisten(self, listener: Listener) -> None:
        """It hears no more."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
                for channel in self._channels.values():
                    for ear in [ear for ear in channel.ears if ear.listener is listener]:
                        channel.forget(ear)

    def track(self, position: Position) -> tuple[int, int]:
        """Report, as Progress, how far a publication has come: the token of the reports, how many parts.

        Raises ValueError for a position at which nothing was published yet.
        """
        with self.running():
            token = next(self._tokens)
            channel = self._by_epoch.get(position.epoch)
            if channel is None or not channel.subscriptions:
                if channel is not None and position.offset > channel.offset:
                    raise ValueError(f"position {position}: nothing was published there yet")
                return token, 0
            if position.offset > channel.offset:
                raise ValueError(f"position {position}: nothing was published there yet")
            self._tracks[token] = Track(token, channel, channel.behind(position.offset))
            self.report()
            return token, 1

    def untrack(self, token: int) -> None:
        """End the reports of a token."""
        with self._lock:
            self._tracks.pop(token, None)

    def report(self) -> None:
        """Tell whoever follows a publication how far it is."""
        for track in self._tracks.values():
            progress = track.progress()
            if progress is not None:
                self.push(progress)

    def note_passed(self, channel: Channel, before: int, after: int, lost: int) -> None:
        """One of its subscribers went past what lies between two places."""
        if channel.promise.policy in ("keyframe", "drop"):
            self._skipped[channel.promise.policy] += lost
        for track in self._tracks.values():
            if track.channel is channel and before < track.place <= after:
                track.skipped += 1

    # Adopted connections

    def adopt(self, fd: int, *, msgpack: bool = False) -> Adopted:
        """Take the write side of a stream socket that somebody else reads. Nothing is written until ``begin``.

        Raises OSError where the descriptor is none of a stream socket or no other one is to be had, HubStopped.
        """
        if msgpack:
            missing("MessagePack")
        with self.running():
            try:
                own = socket.socket(fileno=socket.dup(fd))
            except OSError as error:
                raise OSError(error.errno, f"descriptor {fd} cannot be adopted: {error.strerror}") from None
            if own.type != socket.SOCK_STREAM:
                own.close()
                raise OSError(0, f"descriptor {fd} cannot be adopted: it is of no stream socket")
            own.setblocking(False)
            with suppress(OSError):  # a pair of sockets is one of TCP on Windows
                own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            seat = Seat(self, next(self._ids), own)
            self._seats[seat.id] = seat
            self._connections_total += 1
            return Adopted(seat)

    def forsake(self, seat: Seat) -> None:
        """Nobody refers to it any more. The collector may say so in the middle of anything: it is done later."""
        if self._process == os.getpid() and self._state == "running" and seat.socket is not None:
            self._forsaken.append(seat)
            with suppress(OSError):
                self._theirs.send(b"\0")

    def _give_up_forsaken(self) -> None:
        while self._forsaken:
            self._forsaken.popleft().give_up("aborted")

    def forget(self, seat: Seat) -> None:
        """It is given up."""
        del self._seats[seat.id]
        if self._waiter is not None:
            self._waiter.forget(seat)
        self.report()

    def wait(self, seat: Seat, deadline: float | None) -> None:
        """Have it go on once its socket has room, or when its time is over."""
        if self._waiter is None:
            self._waiter = Waiter(self._has_room)
        self._waiter.wait(seat, deadline)

    def _has_room(self, seat: Seat) -> None:
        """For the waiter's thread."""
        with self._lock:
            is_late = None if self._waiter is None else self._waiter.take(seat)
            if is_late is not None:
                seat.unblock(is_late=is_late)
                self.report()

    def disconnect(self, connection: int, code: int = 1000, reason: str = "") -> None:
        """Close an adopted connection. ValueError: a code that may not be sent, a reason over 123 bytes."""
        if not may_be_sent(code):
            raise ValueError(f"code must be a close code that a server may send (RFC 6455 §7.4), not {code}")
        if len(reason.encode()) > 123:
            raise ValueError(f"close reason of {len(reason.encode())} bytes is over the bound of 123")
        with self.running():
            seat = self._seats.get(connection)
            if seat is not None:
                seat.close(code, reason)

    def channels(self, connection: int) -> list[str]:
        """What the connection is subscribed to, now."""
        with self._lock:
            seat = self._seats.get(connection)
            return [] if seat is None else [one.channel.name for one in seat.subscriptions]

    def stats(self) -> Stats:
        """All counters and gauges, now."""
        buckets = [(bound, 0) for bound in BUCKETS]
        with self._lock:
            seats = self._seats.values()
            return Stats(
                connections=len(seats),
                connections_total=self._connections_total,
                subscriptions=sum(len(seat.subscriptions) for seat in seats),
                channels=len(self._channels),
                publications=self._publications,
                deliveries=self.deliveries,
                writes=self.writes,
                bytes_out=self.bytes_out,
                bytes_in=0,
                lagging=sum(seat.is_blocked for seat in seats),
                overtaken=self.overtaken,
                expired=0,
                accept_pauses=0,
                handshakes_refused=0,
                refused={},
                tokens_refused=0,
                passed_on=0,
                closes=dict(self.closes),
                completion_buckets=buckets,
                completion_seconds=0.0,
                skipped=dict(self._skipped),
                taken=[(share, list(buckets), 0.0) for share in (0.5, 0.99, 1.0)],
                openings=[],
                subscribing=(list(buckets), 0.0),
                poller="",
            )

    # Paths, which are checked

    def add_route(self, route: Route) -> None:
        """Keep a path from others. Raises ValueError for one that would hide another, and for one over 1,024."""
        with self._lock:
            for other in self._routes.values():
                if route.clashes_with(other):
                    raise ValueError(f'path "{route.path}" and "{other.path}" would hide each other')
            if len(self._routes) >= ROUTES_MAX:
                raise ValueError(f'path "{route.path}": {ROUTES_MAX} paths is the bound')
            self._routes[route.path] = route

    def remove_route(self, path: str, code: int | None = None) -> bool:
        """Let others have a path. False if there was none."""
        with self._lock:
            return self._routes.pop(path, None) is not None
