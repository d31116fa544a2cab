"""``fanwire.broadcast``: one message to connections of frameworks, as ``websockets.broadcast`` does it."""

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from traceback import format_exception_only
from typing import Any

from fanwire._loop import running, spawn
from fanwire.adapters.foreign import Broadcast, Foreign, NoTransport
from fanwire.adopt.joining import Turn
from fanwire.adopt.local import Local, local_of, obtain
from fanwire.adopt.proxy import Proxy, Writing
from fanwire.adopt.seats import known, leave_turn, why_plain

WAITING_BYTES_MAX = 1 << 20
"""So much waits for one connection that is written to by its framework's ``send``; what is more is left out."""
turn = Turn()
"""Of the loop of each thread."""
ENGINE = Writing.ENGINE
SKIPPED = "skipped broadcast"
FAILED = "failed to write message"


class Outgoing:
    """What waits for one connection whose framework sends it, in a task that ends with the last of it."""

    __slots__ = ("_is_running", "_kind", "_waiting", "connection", "waiting_bytes")

    def __init__(self, foreign: Foreign) -> None:
        self.connection: weakref.ref[Any] = weakref.ref(foreign.connection)
        self._kind = type(foreign)
        self._waiting: deque[Broadcast] = deque()
        self.waiting_bytes = 0
        """The frames of what waits."""
        self._is_running = False

    def push(self, message: Broadcast) -> Exception | None:
        """Send it behind the others. Gives why it is left out."""
        size = len(message.frame)
        if self._waiting and self.waiting_bytes + size > WAITING_BYTES_MAX:
            return failure(BufferError(f"{self.waiting_bytes + size:,} bytes would wait, over {WAITING_BYTES_MAX:,}"))
        self._waiting.append(message)
        self.waiting_bytes += size
        if not self._is_running:
            spawn(self._run, "fanwire.broadcast")
            self._is_running = True
        return None

    async def _run(self) -> None:
        try:
            while self._waiting:
                connection = self.connection()
                if connection is None or not (foreign := self._kind(connection)).is_open:
                    self._waiting.clear()
                    break
                message = self._waiting[0]
                try:
                    await foreign.send(message.data)
                except Exception as error:
                    if foreign.is_open:  # that clients leave is no news
                        tell(foreign, failure(error))
                    self._waiting.clear()
                    break
                self._waiting.popleft()
                self.waiting_bytes -= len(message.frame)
        finally:
            self._is_running = False
            self.waiting_bytes = sum(len(message.frame) for message in self._waiting)


_outgoing: weakref.WeakKeyDictionary[Any, Outgoing] = weakref.WeakKeyDictionary()


def outgoing_of(foreign: Foreign) -> Outgoing:
    """What waits for a connection."""
    found = _outgoing.get(foreign.connection)
    return found or _outgoing.setdefault(foreign.connection, Outgoing(foreign))


def waiting_bytes(connection: Any) -> int:
    """What waits for a connection that can be broadcast to, in its transport or for its framework."""
    pipe = kind_of(connection).pipe(connection)
    if pipe is not None:
        size: int = pipe.get_write_buffer_size()
        return size
    found = _outgoing.get(connection)
    return 0 if found is None else found.waiting_bytes


def failure(cause: Exception) -> Exception:
    """A connection could not be written to."""
    error = RuntimeError(FAILED)
    error.__cause__ = cause
    return error


def tell(foreign: Foreign, why: Exception) -> None:
    """That a connection was left out."""
    cause = f": {format_exception_only(why.__cause__)[0].strip()}" if why.__cause__ else ""
    foreign.log.warning(f"{SKIPPED}: %s%s", why, cause)


def kind_of(connection: Any) -> type[Foreign]:
    """Its framework's. Raises AdoptionError, TypeError where it is none that a message can be pushed to."""
    foreign = known(connection)
    if foreign.why_no_broadcast:
        raise TypeError(f"{foreign.what} cannot be broadcast to: {foreign.why_no_broadcast}")
    return type(foreign)


def broadcast(
    connections: Iterable[Any],
    message: str | bytes | bytearray | memoryview,
    *,
    text: bool | None = None,
    raise_exceptions: bool = False,
) -> None:
    """In the event loop's thread: send a message to connections of ``websockets``, aiohttp, Starlette and FastAPI.

    What ``websockets.broadcast`` does, by one frame for all of them. It returns at once, and nothing holds it up: what
    a slow client has not taken waits in its transport's buffer, without a bound, until its framework gives it up. The
    message is not compressed. It stands behind what a connection has sent itself, and before what it sends next. Those
    that are not open are left out.

    From the second message on a connection's socket is written to by an engine of the loop's own, unless a hub's does
    so already: broadcasts of one turn of the loop are one write for each. Where that cannot be, with TLS or without
    descriptors, its transport is written to.

    A connection of Starlette is written to that way under a server that offers its transport (docs/scope.md). Under
    another one each has a task that sends, and 1 MiB waits at most.

    Args:
        connections: each an open connection of the running loop; iterated once, and not copied.
        message: a ``str`` is a text, and what has bytes is binary.
        text: True for a text of bytes that are UTF-8; False for a binary message of a ``str``.
        raise_exceptions: raise, once all are through, what is otherwise one line in the log for each connection.

    Raises:
        ExceptionGroup: with `raise_exceptions`: a ``ConcurrencyError`` of websockets for each that was in the middle of
            a message in fragments, a RuntimeError for each that could not be written to.
        TypeError: `message` is neither, or a connection is one of trio's.
        AdoptionError: a connection is of no framework that is known; those before it have the message.
        RuntimeError: no event loop runs in this thread.
    """
    if not isinstance(message, str | bytes | bytearray | memoryview):
        raise TypeError(f"message must be a str or bytes-like, not {type(message).__name__}")
    loop = running()
    join = turn.push if turn.begin(loop) and not raise_exceptions else None
    if isinstance(message, str):
        whole = Broadcast(message.encode(), is_text=text is not False, join=join)
    else:
        whole = Broadcast(message, is_text=text is True, join=join)
    skipped: list[Exception] = []

    def told(foreign: Foreign, why: Exception) -> None:
        if raise_exceptions:
            skipped.append(why)
        else:
            tell(foreign, why)

    send(connections, whole, loop, told)
    if skipped:
        raise ExceptionGroup(SKIPPED, skipped)


def send(
    connections: Iterable[Any], message: Broadcast, loop: Any, told: Callable[[Foreign, Exception], None] = tell
) -> None:
    """Send a message to connections of `loop`, which runs; `told` is called with each that is left out for a reason.

    Raises what ``broadcast`` raises for what is no connection.
    """
    kinds: dict[type, type[Foreign]] = {}
    local = local_of(loop)
    mine: list[Proxy] = []
    try:
        for connection in connections:
            kind = kinds.get(type(connection)) or kinds.setdefault(type(connection), kind_of(connection))
            standing = kind.standing(connection)
            if type(standing) is Proxy and standing.owner is local and standing.state is ENGINE:
                mine.append(standing)
                continue
            try:
                found = None if standing is None else adopted(kind, connection, standing, loop)
                if found is not None:
                    local = found[0]
                    mine.append(found[1])
                    continue
                why = kind.push(connection, message, loop)
            except NoTransport:
                why = outgoing_of(kind(connection)).push(message)
            except Exception as error:
                why = failure(error)
            if why is not None:
                told(kind(connection), why)
            elif standing is not None and connection not in _met:
                _met[connection] = True
    finally:
        if mine and local is not None:
            local.write(mine, message.frame)


_met: "weakref.WeakKeyDictionary[Any, bool]" = weakref.WeakKeyDictionary()
"""Whose transport has taken a message, and whether the engine may come to have its socket."""


def adopted(kind: type[Foreign], connection: Any, standing: Any, loop: Any) -> tuple[Local, Proxy] | None:
    """What stands for its transport once the loop's own engine has the socket: from the second message on; or None."""
    if type(standing) is Proxy and not standing.may_renew:
        return None  # a hub's, or it is about to be closed
    if not _met.get(connection) or kind.loop_of(connection) not in (loop, None):
        return None
    local = obtain(loop)
    if local is None or local.is_full:
        return None
    foreign = kind(connection)
    leave_turn(foreign)
    if why_plain(foreign):
        _met[connection] = False
        return None
    proxy = local.seat(foreign)
    return None if proxy is None else (local, proxy)
