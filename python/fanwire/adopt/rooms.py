"""Connections that get the same. Those of a loop whose sockets its own engine has are the members of one channel."""

import weakref
from collections.abc import Callable
from typing import Any

from fanwire._loop import Loop, running
from fanwire.adapters.foreign import Broadcast, Foreign
from fanwire.adopt.broadcast import kind_of, send, turn, waiting_bytes
from fanwire.adopt.local import OVERTAKEN, Local, obtain
from fanwire.errors import FanwireError


class Room:
    """Those of one event loop. All but `call_soon` and `is_here` is for its thread.

    Each gets what is sent in the order of the calls, among what its framework sends. A connection is the member of one
    room: where it is in several it is written to by name in the others, and so is one that a hub has.

    Args:
        waiting_bytes_max: so much may wait for each.
        too_slow: is called with one for whom more waits, and the number of bytes; it is no longer here. None for the
            bytes: it is being closed.
        gone: is called with one that is closed; it is no longer here.
    """

    def __init__(
        self, waiting_bytes_max: int, too_slow: Callable[[Any, int | None], None], gone: Callable[[Any], None]
    ) -> None:
        self.running = running()
        """The loop, to be compared."""
        self._loop = Loop()
        self._bound = waiting_bytes_max
        self._too_slow, self._gone = too_slow, gone
        self._local: Local | None = None
        self._channel = ""
        # Their numbers.
        self._members: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._others: dict[Any, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here."""
        return not self._members and not self._others

    @property
    def is_here(self) -> bool:
        """Whether it is of the loop that runs in this thread. For any."""
        return self._loop.is_current

    def call_soon(self, call: Callable[[], object]) -> None:
        """From any thread: call in the loop's. Raises RuntimeError where it has ended."""
        self._loop.call_from_any_thread(call)

    def add(self, connection: Any) -> None:
        """Have an open connection get what is sent from now on. Raises what ``broadcast`` raises for what is none."""
        foreign = kind_of(connection)(connection)
        if connection in self._members or connection in self._others:
            return
        number = self._join(foreign) if foreign.holders else None
        if number is None:
            self._others[connection] = None
        else:
            self._members[connection] = number

    def _join(self, foreign: Foreign) -> int | None:
        if foreign.loop_of(foreign.connection) not in (self.running, None):
            return None
        local = obtain(self.running)
        if local is None:
            return None
        if local is not self._local:
            self._local, self._channel = local, local.name(self._bound)
        return local.join(foreign, self._channel, self)

    def discard(self, connection: Any) -> None:
        """Have it get no more; it need not be here."""
        self._others.pop(connection, None)
        number = self._members.pop(connection, None)
        if number is not None and self._local is not None:
            self._local.part(number, self._channel)

    def parted(self, connection: Any, closed_with: int | None) -> None:
        """The engine has closed it, or it goes on without the engine."""
        self._members.pop(connection, None)
        if closed_with is None:
            self._others[connection] = None
        elif closed_with == OVERTAKEN:
            self._too_slow(connection, None)
        else:
            self._gone(connection)

    def send(self, message: str | bytes) -> bool:
        """To all who are here, at once. False: some are sent to by tasks, for which the loop has to turn."""
        others, are_direct = self._within(list(self._others), len(message)) if self._others else ([], True)
        if self._members and self._local is not None:
            try:
                self._local.publish(self._channel, message)
            except FanwireError:  # too large for a log, or there is no room: then each is written to
                members, direct = self._within(list(self._members), len(message))
                others, are_direct = others + members, are_direct and direct
        if others:
            payload = message.encode() if isinstance(message, str) else message
            join = turn.push if turn.begin(self.running) else None
            send(others, Broadcast(payload, is_text=isinstance(message, str), join=join), self.running)
        return are_direct

    def _within(self, connections: list[Any], size: int) -> tuple[list[Any], bool]:
        """Those for whom there is room, and whether all of them are written to at once; the others leave."""
        reached: list[Any] = []
        are_direct = True
        for connection in connections:
            kind = kind_of(connection)
            standing = kind.standing(connection)
            # It may be closed though the framework does not know it yet: its route has ended by an error, say.
            if not kind(connection).is_open or (standing is not None and standing.is_closing()):
                self.discard(connection)
                self._gone(connection)
                continue
            are_direct = are_direct and standing is not None
            waiting = waiting_bytes(connection)
            if waiting and waiting + size > self._bound:
                self.discard(connection)
                self._too_slow(connection, waiting)
            else:
                reached.append(connection)
        return reached, are_direct
