"""The same frames for many connections at once, for interfaces that know by themselves when one may be written to.

By their transports, or by what stands for them.
"""

from collections.abc import Iterable, Sized
from typing import Protocol

from fanwire._loop import running
from fanwire.adapters.foreign import Foreign
from fanwire.adopt.broadcast import turn
from fanwire.adopt.joining import Joined
from fanwire.logs import hub_log

WAITING_BYTES_MAX = 65_536
UNSEEN_BYTES_MAX = 32_768


class Outlet:
    """One connection."""

    __slots__ = ("_unseen_left", "foreign", "holder")

    def __init__(self, foreign: Foreign) -> None:
        self.foreign = foreign
        """The connection."""
        holders = foreign.holders
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


class Outlets(Protocol, Iterable[Outlet], Sized):
    """A number of them."""


def write_frames(outlets: Outlets, frames: bytes) -> None:
    """Write whole messages, framed as a server's, to each of these, which are of the running loop. Raises nothing.

    They stand behind what was written before, and before what is written after. Those that are closed are passed by.
    """
    join = turn.push if turn.begin(running()) else None
    for outlet in outlets:
        standing = getattr(*outlet.holder)
        if type(standing) is Joined and not standing.is_closing():
            standing.push(frames)
            continue
        try:
            pipe = outlet.foreign.pipe(outlet.foreign.connection)
            if pipe is not None and join is not None:
                join(pipe, outlet.foreign, frames)
            elif pipe is not None:
                pipe.write(frames)
        except Exception as error:
            hub_log.warning("%s could not be written to: %r", outlet.foreign.what, error)
