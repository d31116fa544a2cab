"""The transport that a framework holds once the engine writes to its socket: what is written goes through the engine.

The framework goes on reading through its own transport. Two objects stand between the two: a ``Proxy`` where the
framework had the transport, and a ``Tap`` where the transport had the framework's protocol. Both are taken away again
when the engine has let the socket go, with what was written meanwhile.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any, Protocol

from fanwire._engine import Adopted
from fanwire.errors import HubStopped

CLOSE_S = 10.0
"""So long a client may take to answer the close, or to be known as gone, once nothing is written to it any more."""


def ask(call: Callable[..., object], *arguments: object) -> None:
    """Ask something of the engine; where that has ended there is nothing to do."""
    with suppress(HubStopped):
        call(*arguments)


class Owns(Protocol):
    """Whose a proxy is."""

    has_pending: bool
    """Whether the engine has yet to take something that was to be written."""

    def settle(self) -> None:
        """Have it take that."""

    def flush_soon(self) -> None:
        """Have the engine write when the loop turns."""

    def note_high(self, high: int) -> None:
        """A framework is to pause once more than so many bytes wait for one of its connections."""


class Writing(IntEnum):
    """Where what the framework writes goes."""

    ENGINE = 0
    """Into the engine's queue of this socket."""
    RELEASING = 1
    """It waits here until the engine has written what it was given, and lets go."""
    PASSED = 2
    """To the real transport."""
    DEAF = 3
    """Nowhere: the engine has closed the connection, or its last frame is not whole."""


class Tap:
    """What the real transport calls. What comes in goes to the framework's protocol itself: nothing is in between."""

    __slots__ = ("_proxy", "data_received", "is_paused", "original")

    def __init__(self, proxy: "Proxy", original: Any) -> None:
        self._proxy = proxy
        self.original = original
        """The framework's."""
        self.data_received = original.data_received
        self.is_paused = False
        """Whether the real transport's buffer was over its bound, and has not come under the lower one since."""

    def eof_received(self) -> bool:
        """The client says nothing more. True where the real transport is not to close, now or ever."""
        return bool(self.original.eof_received()) or self._proxy.closes_later()

    def connection_lost(self, error: Exception | None) -> None:
        """The real transport is closed."""
        self._proxy.lost()
        self.original.connection_lost(error)

    def pause_writing(self) -> None:
        """The real transport's buffer is over its bound."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """It is empty, as its bound is 0 while this is here."""
        self.is_paused = False
        self._proxy.begin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


class Proxy:
    """In the place of one transport, in its loop's thread.

    Args:
        adopted: its socket, as the engine has it; nothing is written yet.
        real: the transport; it belongs to this loop, and to no TLS.
        holders: what holds it, with the attribute's name; each will hold this.
        owner: whose it is.
    """

    def __init__(
        self,
        adopted: Adopted,
        real: Any,
        holders: Sequence[tuple[Any, str]],
        owner: Owns,
    ) -> None:
        self.adopted = adopted
        """Its socket, as the engine has it now."""
        # With those before it that are still being released: each begins when the one before it is over.
        self._chain = [adopted]
        self.channels: set[str] = set()
        """What it is subscribed to."""
        self._real = real
        self._holders = holders
        self.owner = owner
        """Whose it is."""
        self.closed_with: int | None = None
        """The code with which the engine has closed it."""
        self._timer: Any = None
        self._low, self._high = real.get_write_buffer_limits()
        owner.note_high(self._high)
        self.state = Writing.ENGINE
        """Where what is written goes."""
        # What was written while the engine lets go.
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        # What is to be done to the real transport behind it.
        self._is_closing = self._is_eof = False
        # Whether the engine has been told to begin.
        self._has_begun = False
        self._tap = Tap(self, real.get_protocol())
        real.set_protocol(self._tap)
        for holder, name in holders:
            setattr(holder, name, self)
        # With a bound of 0 the real transport tells when its buffer is empty.
        real.set_write_buffer_limits(0)
        held = real.get_write_buffer_size()
        # It has told its protocol to pause before, if it does not do so now.
        self._is_paused = held > 0 and not self._tap.is_paused
        if held > 0:
            self._tap.is_paused = True
            self._pause_if_over(held)
        else:
            self.begin()

    # What the engine and the real transport tell

    def begin(self) -> None:
        """The real transport's buffer is empty."""
        if not self._has_begun and self._chain:
            self._has_begun = True
            ask(self._chain[0].begin)
            self._ask_to_resume()

    def drained(self) -> None:
        """No more waits in the engine than was asked for."""
        self._ask_to_resume()

    def released(self, adopted: Adopted, why: str, code: int) -> None:
        """The engine has let go; see ``Released`` of the engine."""
        self._chain = [one for one in self._chain if one is not adopted]
        if self.state >= Writing.PASSED:
            return
        if why in ("released", "ended"):
            if not self._chain:
                self._pass()
            elif self._has_begun:
                ask(self._chain[0].begin)
            return
        self._go_deaf()
        self._resume()
        if why != "closed":
            self._real.abort()
            return
        self.closed_with = code
        if self._is_closing:
            self._real.close()
        elif not self._real.is_closing():
            from asyncio import get_running_loop

            # The framework still reads what the client says last. It may wait for the client, who is not to keep it.
            self._timer = get_running_loop().call_later(CLOSE_S, self._real.abort)

    def _go_deaf(self) -> None:
        self.state = Writing.DEAF
        self._rest.clear()
        for adopted in self._chain:
            ask(adopted.abort)

    def lost(self) -> None:
        """The real transport is closed, by whomever."""
        self._go_deaf()
        self._put_back()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def closes_later(self) -> bool:
        """Close behind what waits, if something does: the real transport has none of it, and would close at once."""
        if self.state > Writing.RELEASING or not self.get_write_buffer_size():
            return False
        self.close()
        return True

    def release(self) -> None:
        """Have the engine let go, once it has written what it was given."""
        if self.owner.has_pending:
            self.owner.settle()
        if self.state == Writing.ENGINE:
            self.state = Writing.RELEASING
            ask(self.adopted.release)

    @property
    def may_renew(self) -> bool:
        """Whether the engine lets go, and the connection goes on."""
        return self.state == Writing.RELEASING and not self._is_closing and not self._is_eof

    def renew(self, adopted: Adopted, owner: Owns) -> None:
        """Have the engine write again, once it has let go; what was written meanwhile comes first."""
        self.adopted, self.owner = adopted, owner
        owner.note_high(self._high)
        self.channels = set()
        self._chain.append(adopted)
        self.state = Writing.ENGINE
        rest, self._rest, self._rest_bytes = self._rest, [], 0
        for data in rest:
            self.write(data)
        self._ask_to_resume()

    def break_off(self) -> None:
        """Nobody writes any more, and what the engine was given may not be whole."""
        if self.state <= Writing.RELEASING:
            self.abort()

    def _pass(self) -> None:
        """All is as it was before."""
        self.state = Writing.PASSED
        real, tap = self._real, self._tap
        real.set_write_buffer_limits(self._high, self._low)
        if self._rest and not real.is_closing():
            real.writelines(self._rest)
        self._rest.clear()
        self._put_back()
        if self._is_paused and not tap.is_paused:
            tap.original.resume_writing()
        elif tap.is_paused and not self._is_paused:
            tap.original.pause_writing()
        if self._is_closing:
            real.close()
        elif self._is_eof:
            with suppress(OSError, RuntimeError):  # it was reset meanwhile, which reading finds
                real.write_eof()

    def _put_back(self) -> None:
        for holder, name in self._holders:
            if getattr(holder, name) is self:
                setattr(holder, name, self._real)
        if self._real.get_protocol() is self._tap:
            self._real.set_protocol(self._tap.original)

    # How much waits

    def note_waiting(self, waiting: int) -> None:
        """So many bytes wait in the engine."""
        self._pause_if_over(waiting + (0 if self._has_begun else self._real.get_write_buffer_size()))

    def _pause_if_over(self, waiting: int) -> None:
        if waiting > self._high and not self._is_paused:
            self._is_paused = True
            self._tap.original.pause_writing()
            ask(self.adopted.notify, self._low)

    def _ask_to_resume(self) -> None:
        """Have the framework go on, now or once the engine has written enough."""
        if self._is_paused and self._has_begun and self.state == Writing.ENGINE:
            if self.adopted.waiting <= self._low:
                self._resume()
            else:
                ask(self.adopted.notify, self._low)

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._tap.original.resume_writing()

    # What the framework calls: a transport's methods

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write these bytes behind what was written before."""
        if self.owner.has_pending:
            self.owner.settle()
        if self.state == Writing.ENGINE:
            try:
                waiting = self.adopted.write(data, wakes=False)
            except HubStopped:
                waiting = None
            if waiting is not None:
                self.owner.flush_soon()
                if waiting > self._high:
                    self.note_waiting(waiting)
                return
            self.state = Writing.RELEASING  # it is over, of which the engine tells later
        if self.state == Writing.PASSED:
            self._real.write(data)
        elif self.state == Writing.RELEASING and not self._is_closing:
            if self._is_eof:
                raise RuntimeError("Cannot call write() after write_eof()")
            self._rest.append(bytes(data))
            self._rest_bytes += len(data)
            self._pause_if_over(self._rest_bytes)

    def writelines(self, lines: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write all of them, one behind the other."""
        self.write(b"".join(lines))

    def write_eof(self) -> None:
        """Shut down the writing side behind what was written."""
        if self.state >= Writing.PASSED:
            self._real.write_eof()
        else:
            self._is_eof = True
            self.release()

    def can_write_eof(self) -> bool:
        """As the real one."""
        return bool(self._real.can_write_eof())

    def close(self) -> None:
        """Close behind what was written."""
        if self.state >= Writing.PASSED:
            self._real.close()
        elif not self._is_closing:
            self._is_closing = True
            self._real.pause_reading()
            self.release()

    def abort(self) -> None:
        """Close at once."""
        if self.state <= Writing.RELEASING:
            self._go_deaf()
        self._real.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._is_closing or bool(self._real.is_closing())

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken."""
        if self.owner.has_pending:
            self.owner.settle()
        waiting = sum(adopted.waiting for adopted in self._chain) + sum(map(len, self._rest))
        return waiting + int(self._real.get_write_buffer_size())

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The lower and the upper one, in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As ``asyncio.WriteTransport`` has it: without `low` a quarter of `high`, without both 64 KiB."""
        if high is None:
            high = 4 * low if low is not None else 65_536
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._low, self._high = low, high
        self.owner.note_high(high)
        if self.state == Writing.PASSED:
            self._real.set_write_buffer_limits(high, low)

    def get_protocol(self) -> Any:
        """The framework's."""
        return self._tap.original

    def set_protocol(self, protocol: Any) -> None:
        """Have another one hear what comes in."""
        tap = Tap(self, protocol)
        tap.is_paused = self._tap.is_paused
        if self._real.get_protocol() is self._tap:
            self._real.set_protocol(tap)
        else:
            self._real.set_protocol(protocol)
        self._tap = tap

    def __getattr__(self, name: str) -> Any:
        """Reading, and what there is to know, is the real transport's."""
        return getattr(self._real, name)

    def __repr__(self) -> str:
        return f"<fanwire.adopt.Proxy {self.state.name} of {self._real!r}>"
