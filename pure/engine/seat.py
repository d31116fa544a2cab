"""An adopted connection: what is published in its channels goes to its socket, as frames of a WebSocket."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from fanwire.frames import CLOSE, TEXT, server_frame
from fanwire.wording import cut_reason

from .channel import Channel, Subscription
from .encoder import encode_json
from .events import Released
from .log import Mode
from .missing import missing
from .names import check_name
from .position import Position
from .tags import Filter

if TYPE_CHECKING:
    from .engine import Engine

WRITE_BYTES = 65_536
"""About so much is one write."""
TRY_AGAIN_LATER = 1013


class Adopted:
    """A connection that a framework reads and frames for, and the engine writes to; given up with the last reference.

    Nothing but publications goes by here: the framework writes to its own socket itself.
    """

    def __init__(self, seat: "Seat") -> None:
        self._seat = seat

    def __del__(self) -> None:
        seat = getattr(self, "_seat", None)
        if seat is not None:
            seat.engine.forsake(seat)

    @property
    def connection(self) -> int:
        """The id: as ``excluded`` of a publication may have it, and as events name it."""
        return self._seat.id

    @property
    def waiting(self) -> int:
        """Private bytes that the socket has not taken: there are none."""
        return 0

    def begin(self) -> None:
        """From now on the engine writes."""
        with self._seat.engine.running():
            self._seat.has_begun = True
            self._seat.pump()

    def write(self, data: bytes | bytearray | memoryview, *, wakes: bool = True) -> int | None:
        """Raises EngineMissing."""
        missing("writing in the place of a framework's transport")

    def subscribe(
        self,
        channel: str,
        since: Position | None = None,
        start: str | None = None,
        filter: Filter | None = None,
    ) -> None:
        """Publications made after this call go out. Raises InvalidChannel, LimitReached."""
        seat = self._seat
        with seat.engine.running() as now:
            found = seat.engine.obtain(channel)
            if not seat.is_releasing:
                found.check_filter(filter)
                seat.join(found, since, start, now, filter)

    def unsubscribe(self, channel: str) -> None:
        """What was published before this call still goes out, what is published after it does not.

        Raises InvalidChannel.
        """
        check_name(channel)
        seat = self._seat
        with seat.engine.running():
            seat.end_at_tail(lambda one: one.channel.name == channel)

    def notify(self, below: int) -> None:
        """Raises EngineMissing."""
        missing("writing in the place of a framework's transport")

    def release(self) -> None:
        """Give it up once all that was published until now is with the socket."""
        with self._seat.engine.running():
            self._seat.release()

    def abort(self) -> None:
        """Give it up at once: what waits is lost, the socket is shut down both ways."""
        with self._seat.engine.running():
            self._seat.abort()


class Seat:
    """The engine's side of it. The engine's lock is around all of it."""

    def __init__(self, engine: "Engine", id: int, own: socket.socket) -> None:
        self.engine, self.id = engine, id
        self.socket: socket.socket | None = own
        """None once it is given up."""
        self.has_begun = self.is_releasing = self.is_blocked = False
        self.subscriptions: list[Subscription] = []
        # The rest of a frame that is under way, and what is no publication.
        self._unsent = b""
        # How it ends, once nothing is left to be written.
        self._ending: tuple[str, int, str] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether it is not written to now."""
        return self.socket is not None and (self.is_blocked or not self.has_begun)

    # What is asked of it

    def join(
        self, channel: Channel, since: Position | None, start: str | None, now: int, filter: Filter | None
    ) -> None:
        """Subscribe it; behind what it has yet to get of a channel that it was about to leave."""
        mine = [one for one in self.subscriptions if one.channel is channel]
        if any(one.until is None for one in mine):
            return
        self.engine.fan_out(channel)
        subscription = channel.join(self, since, start, filter)
        self.subscriptions.append(subscription)
        if not mine:
            self._begin(subscription, now)
        self.pump()

    def _begin(self, subscription: Subscription, now: int) -> None:
        channel = subscription.channel
        channel.seat(subscription, now)
        self.engine.note_presence(channel, self.id, True)
        if subscription.cursor.mode is Mode.AWAITING and channel.ask_snapshot():
            self.engine.want_snapshot(channel)

    def end_at_tail(self, is_meant: Callable[[Subscription], bool]) -> None:
        """End these subscriptions with what is published until now."""
        for one in self.subscriptions:
            if one.until is None and is_meant(one):
                self.engine.fan_out(one.channel)
                one.until = one.log.tail
        self.pump()

    def release(self) -> None:
        """Give it up with what is published until now."""
        if self.socket is not None and not self.is_releasing:
            is_leaving = any(one.until is not None for one in self.subscriptions)
            self.is_releasing = True
            self.end_at_tail(lambda one: True)
            if not (self.has_begun or is_leaving or any(map(self._is_owed, self.subscriptions))):
                self.give_up("released")  # there is nothing to wait for

    def _is_owed(self, subscription: Subscription) -> bool:
        """Whether it has yet to get something of what was published until it ended."""
        cursor, until = subscription.cursor, subscription.until
        return cursor.mode is not Mode.AWAITING and until is not None and cursor.place < until

    def abort(self) -> None:
        """Give it up at once."""
        if self.socket is not None:
            with suppress(OSError):  # the other end is gone
                self.socket.shutdown(socket.SHUT_RDWR)
            self.give_up("aborted")

    def close(self, code: int, reason: str) -> None:
        """End it behind a whole frame with a Close frame, and nothing after it."""
        if self.socket is None or self._ending is not None:
            return
        self._leave_all()
        self.is_releasing = True
        self._ending = "closed", code, reason
        self.engine.closes[code] = self.engine.closes.get(code, 0) + 1
        if not self.has_begun:
            self.give_up(*self._ending)
            return
        self._unsent += server_frame(CLOSE, code.to_bytes(2, "big") + cut_reason(reason).encode())
        self.is_blocked = False
        self.pump()

    def tell(self, error: str) -> None:
        """Say to it what went wrong."""
        self._unsent += server_frame(TEXT, encode_json({"error": error}))
        self.pump()

    def give_up(self, why: str, code: int = 0, reason: str = "") -> None:
        """Have no more to do with it."""
        own, self.socket = self.socket, None
        if own is not None:
            self._leave_all()
            self.engine.forget(self)
            own.close()
            self.engine.push(Released(self.id, 0, why, code, reason))

    def _leave_all(self) -> None:
        for one in list(self.subscriptions):
            self._leave(one)

    def _leave(self, subscription: Subscription) -> None:
        self.subscriptions.remove(subscription)
        subscription.channel.leave(subscription)
        if subscription.is_seated:
            self.engine.note_presence(subscription.channel, self.id, False)

    # Writing

    def pump(self) -> None:
        """Write what waits, as far as the socket goes."""
        if self.socket is None or self.is_blocked or not self.has_begun:
            return
        try:
            while self.socket is not None and self._write(self.socket):
                pass
        except (BlockingIOError, InterruptedError):
            self._block()
        except OSError as error:
            self.give_up("broken", error.errno or 0, error.strerror or str(error))

    def _write(self, own: socket.socket) -> bool:
        """Write once; whether there may be more."""
        if self._unsent:
            self._unsent = self._unsent[self._send(own, self._unsent) :]
            return True
        if self._ending is not None:
            self.give_up(*self._ending)
            return False
        batch = list(self._gather())
        if not batch:
            return self._has_ended()
        frames = [frame for _, frame, _ in batch if frame]
        left = self._send(own, b"".join(frames)) if frames else 0
        for subscription, frame, place in batch:
            if frame and not left:
                break
            self._move(subscription, place)
            if frame:
                self.engine.deliveries += 1
                left, rest = max(left - len(frame), 0), frame[left:]
                if rest:
                    self._unsent = rest
                    break
        return True

    def _send(self, own: socket.socket, data: bytes) -> int:
        count = own.send(data)
        self.engine.writes += 1
        self.engine.bytes_out += count
        return count

    def _move(self, subscription: Subscription, place: int) -> None:
        cursor = subscription.cursor
        cursor.place = place
        if cursor.mode is Mode.AT_KEYFRAME:
            cursor.mode = Mode.REPLAYING
        if cursor.mode is Mode.REPLAYING and place >= subscription.log.fanned_out:
            cursor.mode = Mode.LAGGING

    def _gather(self) -> Iterator[tuple[Subscription, bytes, int]]:
        """About a write's worth: whose, the frame or nothing, and where that stands then."""
        count, now, seen = 0, self.engine.now(), set()
        for one in list(self.subscriptions):
            log, cursor = one.log, one.cursor
            if one.channel in seen or not one.is_seated or not self.settle(one, now):
                continue
            seen.add(one.channel)
            until = log.fanned_out if one.until is None else min(one.until, log.fanned_out)
            for record, place in log.read(cursor, until, now):
                is_for_it = record is not None and self.id not in record.excluded and record.passes(one.filter)
                frame = record.frame if record is not None and is_for_it else b""
                yield one, frame, place
                count += len(frame)
                if count >= WRITE_BYTES:
                    return

    def settle(self, subscription: Subscription, now: int) -> bool:
        """Have one that was overtaken go on as the policy says; whether it has a place to read at."""
        log, cursor = subscription.log, subscription.cursor
        if cursor.mode is Mode.AWAITING:
            keyframe = log.living_keyframe(now)
            has_one = keyframe is not None and cursor.place <= keyframe.place < log.fanned_out
            if not has_one and cursor.place >= log.overtaken_before:
                return False
        elif cursor.mode is Mode.LIVE or not log.is_overtaken(cursor, now):
            return True
        place = cursor.place
        lost = log.settle(cursor, now)
        if lost is None:
            self.engine.overtaken += 1
            self.close(TRY_AGAIN_LATER, f"too slow for channel {subscription.channel.name}")
            return False
        self.engine.note_passed(subscription.channel, place, cursor.place, lost)
        if cursor.mode is Mode.AWAITING and subscription.channel.ask_snapshot():
            self.engine.want_snapshot(subscription.channel)
        return cursor.mode is not Mode.AWAITING

    def _has_ended(self) -> bool:
        """Leave what is over, and keep pace in the rest; whether there may be more to write."""
        has_left = False
        for one in list(self.subscriptions):
            cursor = one.cursor
            if not one.is_seated:
                continue
            if one.until is not None and (cursor.place >= one.until or cursor.mode is Mode.AWAITING):
                self._leave(one)
                has_left = True
                following = next((other for other in self.subscriptions if other.channel is one.channel), None)
                if following is not None:
                    self._begin(following, self.engine.now())
            elif cursor.mode in (Mode.LAGGING, Mode.REPLAYING) and cursor.place >= one.log.fanned_out:
                cursor.mode = Mode.LIVE
        if self.is_releasing and not self.subscriptions:
            self.give_up("released")
            return False
        return has_left

    def _block(self) -> None:
        """The socket is full: from now on it lags."""
        self.is_blocked = True
        for one in self.subscriptions:
            if one.cursor.mode is Mode.LIVE:
                one.cursor.mode = Mode.LAGGING
        is_closing = self._ending is not None
        self.engine.wait(self, monotonic() + self.engine.settings.close_timeout if is_closing else None)

    def unblock(self, *, is_late: bool) -> None:
        """There is room, or its time is over."""
        self.is_blocked = False
        if is_late and self._ending is not None:
            self.give_up(*self._ending)
        else:
            self.pump()
