"""A channel: its logs, who is subscribed, and who of the program's own code hears it. The engine's lock is held."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fanwire.errors import LimitReached

from .log import Cursor, Keys, Kind, Log, Mode, Record
from .position import Position
from .settings import Promise
from .tags import Filter

if TYPE_CHECKING:
    from .listener import Ear
    from .seat import Seat

KEYS_MANY = 1_024
"""So many keys are worth a look for those that nobody needs."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscriber's place in a channel."""

    seat: "Seat"
    channel: "Channel"
    log: Log
    cursor: Cursor
    origin: tuple[Position | None, str | None, int]
    """Since when, from which start, and where the log ended when it was asked for."""
    filter: Filter | None
    """What of it the subscriber gets."""
    until: int | None = None
    """It ends here: what is published behind is not for it."""
    is_seated: bool = False
    """Whether it is known where it begins. Until then nothing is let go for want of need."""


class Channel:
    """A named stream of publications."""

    def __init__(self, name: str, epoch: int, promise: Promise) -> None:
        self.name, self.epoch, self.promise = name, epoch, promise
        self.offset = 0
        """The number of the newest publication."""
        self.subscriptions: list[Subscription] = []
        self.ears: list[Ear] = []
        self.is_dirty = False
        """Something was published that is yet to be offered."""
        self.is_snapshot_awaited = False
        """The application was asked for a keyframe and has not answered."""
        self._keys = Keys()
        self._sweep_at = KEYS_MANY
        # The history and the newest keyframe; what subscribers read; what ears hear.
        self._stored: Log | None = None
        self._is_storing = promise.history > 0
        self._log: Log | None = None
        self._hearing: Log | None = None

    @property
    def position(self) -> Position:
        """The place of its newest publication; offset 0 where there was none."""
        return Position(self.epoch, self.offset)

    @property
    def is_idle(self) -> bool:
        """Whether nobody has to do with it, and nothing is kept."""
        return self._log is None and self._hearing is None and self._stored is None

    @property
    def unsent_bytes(self) -> int:
        """Bytes that are yet to be offered to those who are subscribed."""
        return 0 if self._log is None else self._log.unsent_bytes

    def append(self, record: Record) -> None:
        """Append one publication. Raises ValueError where a key is to end and none are kept."""
        if record.kind is Kind.REMOVAL and self.promise.policy != "latest":
            text = 'only "latest" keeps a value for each key, which can be removed'
            raise ValueError(f'channel "{self.name}" has policy "{self.promise.policy}": {text}')
        before = self.offset
        if record.kind is not Kind.SNAPSHOT:
            self.offset += 1
        record.offset = self.offset
        replaced = 0
        if self.promise.policy == "latest" and record.kind is not Kind.SNAPSHOT:
            self._sweep_keys()
            replaced = self._keys.note(record)
        if self._is_storing or record.is_beginning:
            stored = self._stored = self._stored or Log(self.promise, self._keys, before)
            stored.append(record, replaced)
            self._is_storing = self.promise.history > 0 or stored.has_keyframe
            if not self._is_storing:
                self._stored = None
        for log in (self._log, self._hearing):
            if log is not None:
                log.append(record, replaced)
        if record.is_beginning:
            self.is_snapshot_awaited = False
        if self._hearing is not None:
            self._hearing.fanned_out = self._hearing.tail
        for ear in self.ears:
            ear.tell(record)

    def _sweep_keys(self) -> None:
        if len(self._keys) >= self._sweep_at:
            logs = [log for log in (self._log, self._hearing, self._stored) if log is not None]
            self._keys.sweep(int(min((log.oldest_offset for log in logs), default=self.offset)))
            self._sweep_at = max(2 * len(self._keys), KEYS_MANY)

    def mark(self) -> None:
        """What was published is offered to all who are subscribed."""
        self.is_dirty = False
        if self._log is not None:
            self._log.fanned_out = self._log.tail
            for one in self.subscriptions:
                if one.is_seated:
                    self._log.pass_unmatched(one.cursor, one.filter)

    def seat(self, subscription: Subscription, now: int) -> None:
        """Have one begin where it wants to. The application may have to be asked for a keyframe: see `ask_snapshot`."""
        log, (since, start, tail) = subscription.log, subscription.origin
        place, mode = self._seek(log, since, start, tail, now)
        if mode is Mode.REPLAYING and place >= log.fanned_out:
            mode = Mode.LAGGING  # it has missed nothing
        subscription.cursor.place, subscription.cursor.mode = place, mode
        subscription.is_seated = True
        log.pass_unmatched(subscription.cursor, subscription.filter)

    def _seek(self, log: Log, since: Position | None, start: str | None, tail: int, now: int) -> tuple[int, Mode]:
        if since is not None and since.epoch == self.epoch:
            found = log.seek_offset(since.offset, now)
            if found is not None:
                return found
        keyframe, interval = log.living_keyframe(now), self.promise.snapshot_ns
        match start or self.promise.start:
            case "history":
                return log.seek_oldest(now)
            case "keyframe" if keyframe is not None and self._is_fresh(keyframe, now):
                return keyframe.place, Mode.AT_KEYFRAME
            case "keyframe" if interval is not None:
                return tail, Mode.AWAITING
        return tail, Mode.REPLAYING

    def _is_fresh(self, keyframe: Record, now: int) -> bool:
        interval = self.promise.snapshot_ns
        return keyframe.kind is Kind.KEYFRAME or interval is None or now - keyframe.published_ns <= interval

    def ask_snapshot(self) -> bool:
        """Somebody waits for a keyframe. True when the application is to be asked for one."""
        is_asked = self.promise.snapshot_ns is not None and not self.is_snapshot_awaited
        self.is_snapshot_awaited = self.is_snapshot_awaited or is_asked
        return is_asked

    def check_filter(self, filter: Filter | None) -> None:
        """Raise LimitReached where the channel has `filters_max` others."""
        if filter is not None:
            count = len({one.filter for one in self.subscriptions if one.filter is not None} | {filter})
            if count > self.promise.filters_max:
                raise LimitReached("filters_max", count, self.promise.filters_max)

    def join(self, seat: "Seat", since: Position | None, start: str | None, filter: Filter | None) -> Subscription:
        """Count somebody in, who is yet to be seated."""
        if self._log is None:
            stored = self._stored
            self._log = Log(self.promise, self._keys, self.offset) if stored is None else stored.begun_anew()
        log = self._log
        subscription = Subscription(seat, self, log, Cursor(0, Mode.REPLAYING), (since, start, log.tail), filter)
        self.subscriptions.append(subscription)
        log.cursors.append(subscription.cursor)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Count it out."""
        self.subscriptions.remove(subscription)
        subscription.log.cursors.remove(subscription.cursor)
        if not self.subscriptions:
            self._log = None

    def hear(self) -> Log:
        """What an ear that begins now reads."""
        if self._hearing is None:
            self._hearing = Log(self.promise, self._keys, self.offset)
        return self._hearing

    def forget(self, ear: "Ear") -> None:
        """It hears no more."""
        self.ears.remove(ear)
        ear.log.cursors.remove(ear.cursor)
        if not self.ears:
            self._hearing = None

    def behind(self, offset: int) -> int:
        """The place of subscribers that have a publication."""
        return 0 if self._log is None else self._log.behind(offset)
