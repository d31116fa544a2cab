"""The same frames for many connections at once, for interfaces that know by themselves when one may be written to.

By the engine of their event loop where that can have their sockets, else by their transports.
"""

from collections.abc import Iterable, Sized
from typing import Any, Protocol

from fanwire._loop import running
from fanwire.adapters.foreign import Foreign
from fanwire.adopt.broadcast import turn
from fanwire.adopt.local import Local, local_of, obtain
from fanwire.adopt.proxy import Proxy, Writing
from fanwire.adopt.seats import why_plain
from fanwire.logs import hub_log

MANY = 8
"""A message for so many has the engine take their sockets; those that it has already stay."""
ENGINE = Writing.ENGINE
WAITING_BYTES_MAX = 65_536
UNSEEN_BYTES_MAX = 32_768


class Outlet:
    """One connection, and whether the engine may come to have its socket."""

    __slots__ = ("_may_seat", "_unseen_left", "foreign", "holder")

    def __init__(self, foreign: Foreign) -> None:
        self.foreign = foreign
        """The connection."""
        holders = foreign.holders
        self._may_seat = bool(holders)
        self.holder = holders[0] if holders else (self, "foreign")
        """What has its transport as an attribute, with that one's name."""
        self._unseen_left = 0

    def has_room(self, size: int = 0) -> bool:
        """Whether it can be written to now, and its socket has taken all but 64 KiB; with `size` not much more.

        With `size`, what is about to be written, it is looked at only once 32 KiB were said.
        """
        if 0 < size <= self._unseen_left:
            self._unseen_left -= size
            return True
        foreign = self.foreign
        pipe = foreign.pipe(foreign.connection)
        if pipe is None or pipe.get_write_buffer_size() > WAITING_BYTES_MAX:
            return False
        self._unseen_left = UNSEEN_BYTES_MAX
        return True

    def pipe(self, local: Local | None) -> Any:
        """What writes to it: a ``Proxy`` of this engine, if that can have its socket; None where it is closed."""
        foreign = self.foreign
        pipe = foreign.pipe(foreign.connection)
        if local is None or not self._may_seat or pipe is None or type(pipe) is Proxy:
            return pipe
        proxy = local.seat(foreign)
        if proxy is not None:
            return proxy
        self._may_seat = not why_plain(foreign)
        return foreign.pipe(foreign.connection)


class Outlets(Protocol, Iterable[Outlet], Sized):
    """A number of them."""


def write_frames(outlets: Outlets, frames: bytes) -> None:
    """Write whole messages, framed as a server's, to each of these, which are of the running loop. Raises nothing.

    They stand behind what was written before, and before what is written after. Those that are closed are passed by.
    """
    loop: Any = running()
    join = turn.push if turn.begin(loop) else None
    local = obtain(loop) if len(outlets) >= MANY else local_of(loop)
    mine: list[Proxy] = []
    for outlet in outlets:
        standing = getattr(*outlet.holder)
        if type(standing) is Proxy and standing.owner is local and standing.state is ENGINE:
            mine.append(standing)
            continue
        try:
            pipe = outlet.pipe(local)
            if type(pipe) is Proxy and pipe.owner is local and pipe.state is ENGINE:
                mine.append(pipe)
            elif pipe is not None and join is not None:
                join(pipe, outlet.foreign, frames)
            elif pipe is not None:
                pipe.write(frames)
        except Exception as error:
            hub_log.warning("%s could not be written to: %r", outlet.foreign.what, error)
    if mine and local is not None:
        local.write(mine, frames)
