"""The engine of an event loop itself, for what is broadcast to connections that no hub has.

It begins when it is first wanted, and ends with its loop. A hub goes first: it gets any connection that it asks for.
"""

import os
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from itertools import count
from typing import Any, ClassVar, Protocol

import anyio

from fanwire._engine import ChannelRule, Drained, Encoder, Engine, Record, Released, Settings
from fanwire.adapters.foreign import Foreign
from fanwire.adopt.proxy import Proxy, Writing, ask
from fanwire.adopt.seats import Seats, leave_turn, why_plain
from fanwire.errors import FanwireError
from fanwire.faults import Faults
from fanwire.logs import engine_log, hub_log
from fanwire.options import RULES
from fanwire.stand_in import IS_STAND_IN
from fanwire.values import checked

OVERTAKEN = 1013
"""The close code of one who does not keep up (IANA: try again later)."""
BATCH = 128
"""So many events are dealt with before the loop has a turn."""
BOUND_BITS_MAX = 20
"""What may wait for one member of a channel is 1 MiB at most, and a power of two."""
FRAMES_MAX = (1 << 31) - 1
"""The bound of a log in bytes is the one that counts."""
CLOSE_TIMEOUT_S = 5.0
"""So long one who is closed for being too slow has to take the close."""
PARTING_S = 1.0
"""So long sockets have, when the loop ends, to take what the engine was given."""
SPARE = 1 << 20
"""Descriptors that are not for duplicates: a quarter of the limit, which is the most that the engine spares."""
JOINED_BYTES_MAX = 1 << 16
"""Beyond so much the engine begins to write before the loop turns."""
AGAIN_S = 1.0
"""Where there was no room for one more socket, it is tried again after so long."""


class Hears(Protocol):
    """Who feeds a channel."""

    def parted(self, connection: Any, closed_with: int | None) -> None:
        """A connection is no member any more; the engine has closed it with this code, or it goes on elsewhere."""


class Local(Seats):
    """One of them, in its loop's thread. The loop refers to it; nothing else keeps it."""

    gives_way: ClassVar[bool] = True

    def __init__(self, loop: Any) -> None:
        poller = checked("FANWIRE_POLLER", os.environ.get("FANWIRE_POLLER") or None, RULES["poller"])
        rules = [
            ChannelRule(f"{bits}:*", policy="every", backlog_bytes=1 << bits, backlog_frames=FRAMES_MAX)
            for bits in range(BOUND_BITS_MAX + 1)
        ]
        settings = Settings(
            shards=1, channels=rules, descriptors_spare=SPARE, close_timeout=CLOSE_TIMEOUT_S, poller=poller
        )
        engine = Engine(settings, Encoder())
        engine.start()
        super().__init__(engine, loop.call_soon)
        self._loop = loop
        self._faults = Faults()
        # By number: who feeds the channel that it is a member of, and the connection.
        self._members: dict[int, tuple[Hears, Any]] = {}
        self._names = count()
        self._full_until = 0.0
        # How many were closed for being too slow, when that was looked at.
        self._closed = 0
        # Messages that the engine has yet to take, and whom all of them are for.
        self._pending: list[Proxy] = []
        self._frames: list[bytes] = []
        self._frames_bytes = 0
        self.is_over = False
        """Whether it has ended."""
        loop.add_reader(engine.event_fd, self._take)
        self._take()  # from now on it rings
        # Which the loop closes with all generators, before it is closed itself.
        self._life = self._live()
        with suppress(StopIteration):
            self._life.asend(None).send(None)

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self._part()

    async def _part(self) -> None:
        """Give all back, as far as their sockets take what they were given, and end."""
        for proxy, _ in list(self._proxies.values()):
            proxy.release()
        pause = 0.0
        with anyio.move_on_after(PARTING_S, shield=True):
            while self._proxies and not self.is_over:
                await anyio.sleep(pause)
                pause = 0.001
        self.stop()

    def stop(self) -> None:
        """End at once. Also where its loop is closed."""
        if self.is_over:
            return
        self.settle()
        self.is_over = True
        with suppress(RuntimeError):  # the loop is closed
            self._loop.remove_reader(self._engine.event_fd)
        try:
            self._engine.stop()
        finally:
            if not self._loop.is_closed():
                self.end()

    # What the engine tells

    def _take(self) -> None:
        """Deal with events, some of them; the rest has the loop come here again."""
        self.settle()
        try:
            events = self._engine.take_events(BATCH)
        except FanwireError as error:  # one of its threads has died
            hub_log.error("the engine of an event loop has ended: %s", error)
            self.stop()
            return
        for event in events:
            with self._faults.contained("local.event", "a %s event could not be dealt with", type(event).__name__):
                match event:
                    case Drained():
                        self.drained(event)
                    case Released():
                        self.released(event)
                    case Record():
                        self._faults.tell(engine_log, event.level, "what the engine tells", "%s", event.text)
        if events:
            self._call_soon(self._take)

    def released(self, event: Released) -> None:
        """The engine has let it go."""
        super().released(event)
        self._part_from(event.connection, event.code if event.why == "closed" else None)

    def _part_from(self, number: int, closed_with: int | None) -> None:
        found = self._members.pop(number, None)
        if found is not None:
            found[0].parted(found[1], closed_with)

    def give_way(self, proxy: Proxy) -> None:
        """Let one go, for a hub; who feeds it writes to it by its transport."""
        self._part_from(proxy.adopted.connection, None)
        proxy.release()

    def end(self) -> None:
        """Nobody is a member any more."""
        super().end()
        for number in list(self._members):
            self._part_from(number, None)

    # What is asked of it

    @property
    def is_full(self) -> bool:
        """Whether there was no room for one more socket a moment ago."""
        return self._full_until > 0.0 and bool(self._loop.time() < self._full_until)

    def seat(self, foreign: Foreign) -> Proxy | None:
        """What stands for the transport of a connection of this loop, once the engine has its socket; None: it cannot.

        It takes none that is a hub's.
        """
        if self.is_full:
            return None
        leave_turn(foreign)
        holders = foreign.holders
        standing = getattr(*holders[0], None) if holders else None
        if isinstance(standing, Proxy) and standing.state == Writing.ENGINE:
            return standing if standing.owner is self else None
        if why_plain(foreign):
            return None
        try:
            return self.adopt(foreign)
        except (FanwireError, OSError) as error:
            hub_log.debug("%s is written to by its framework: %r", foreign.what, error)
            self._full_until = self._loop.time() + AGAIN_S
            return None

    def write(self, proxies: list[Proxy], frame: bytes) -> None:
        """One framed message to each of these, which are its own.

        Several to the same ones stand together, until the loop turns or something else is asked of any of them.
        """
        if proxies != self._pending or self._frames_bytes > JOINED_BYTES_MAX:
            self.settle()
        self._pending, self.has_pending = proxies, True
        self._frames.append(frame)
        self._frames_bytes += len(frame)
        self.flush_soon()

    def settle(self) -> None:
        """Have the engine take what waits here."""
        if not self.has_pending:
            return
        proxies, frames = self._pending, b"".join(self._frames)
        self._pending, self._frames, self._frames_bytes, self.has_pending = [], [], 0, False
        told: list[tuple[int, int | None]] = []
        try:
            told = self._engine.broadcast([proxy.adopted for proxy in proxies], frames, above=self.high)
        except FanwireError:
            told = [(index, None) for index in range(len(proxies))]
        for index, waiting in told:
            if waiting is None:
                proxies[index].write(frames)  # it is over, or being released: it knows where this goes
            else:
                proxies[index].note_waiting(waiting)

    def _flush(self) -> None:
        self.settle()
        super()._flush()

    # Channels

    def name(self, bound_bytes: int) -> str:
        """A channel of its own, whose members are closed with 1013 when about so much waits for them."""
        return f"{min((bound_bytes - 1).bit_length(), BOUND_BITS_MAX)}:{next(self._names)}"

    def join(self, foreign: Foreign, channel: str, whose: Hears) -> int | None:
        """Have it get what is published there; gives its number, or None: it cannot.

        Nor can one that is a member elsewhere: what is published in two channels has no order.
        """
        proxy = self.seat(foreign)
        number = None if proxy is None else proxy.adopted.connection
        if proxy is None or number is None or number in self._members:
            return None
        self.settle()
        try:
            proxy.adopted.subscribe(channel)
        except FanwireError:
            return None
        self._members[number] = whose, foreign.connection
        return number

    def part(self, number: int, channel: str) -> None:
        """Have a member get no more of what is published there."""
        if self._members.pop(number, None) is not None:
            self.settle()
            ask(self._proxies[number][1].unsubscribe, channel)

    def _part_from_closed(self) -> None:
        """Have whoever the engine began to close be no member: that it has closed it is told only once that is done."""
        closed = self._engine.stats().closes.get(OVERTAKEN, 0)
        if closed == self._closed:
            return
        self._closed = closed
        self.settle()
        for number in list(self._members):
            if self._proxies[number][1].write(b"", wakes=False) is None:
                self._part_from(number, OVERTAKEN)

    def publish(self, channel: str, data: str | bytes) -> None:
        """To all members of a channel, when the loop turns. Raises what the engine raises; then nobody gets it."""
        if not self._is_flush_due:
            self._part_from_closed()
        self.settle()
        self._engine.publish(channel, data, deferred=True)
        self.flush_soon()


_locals: "weakref.WeakKeyDictionary[Any, weakref.ref[Local]]" = weakref.WeakKeyDictionary()
"""Of each loop that has one."""
_barren: "weakref.WeakKeyDictionary[Any, float]" = weakref.WeakKeyDictionary()
"""Where none could begin, and until when it is not tried again."""


def local_of(loop: Any) -> Local | None:
    """The engine of a loop, if it has begun."""
    found = _locals.get(loop)
    return None if found is None else found()


def obtain(loop: Any) -> Local | None:
    """The engine of the running loop, begun if need be; None where there can be none."""
    local = local_of(loop)
    if local is not None:
        return None if local.is_over else local
    if IS_STAND_IN or not hasattr(loop, "add_reader") or loop.time() < _barren.get(loop, 0.0):
        return None
    for other, found in list(_locals.items()):
        if other.is_closed():  # without having closed its generators
            one = found()
            if one is not None:
                one.stop()
    try:
        local = Local(loop)
    except (FanwireError, OSError, NotImplementedError) as error:
        hub_log.debug("an event loop has no engine of its own: %r", error)
        _barren[loop] = loop.time() + AGAIN_S
        return None
    _locals[loop] = weakref.ref(local)
    return local
