"""The program's own subscribers: whoever hears reads the logs when it likes."""

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from fanwire.errors import Overtaken

from .channel import Channel
from .events import Audible
from .log import Cursor, Kind, Mode, Record
from .names import is_match
from .position import Position

if TYPE_CHECKING:
    from .engine import Engine


Told: TypeAlias = tuple[str, Position, str | bytes, bool, str | None, bool]
"""Channel, position, data, whether that is JSON, event, whether it is a keyframe."""


class Ear:
    """One listener's place in one channel."""

    __slots__ = ("channel", "cursor", "is_told", "listener", "log")

    def __init__(self, listener: "Listener", channel: Channel) -> None:
        self.listener, self.channel = listener, channel
        self.log = channel.hear()
        self.cursor = Cursor(self.log.tail, Mode.LAGGING)
        self.log.cursors.append(self.cursor)
        self.is_told = False
        """The listener knows that there is something."""

    def tell(self, record: Record) -> None:
        """A publication was made."""
        is_for_it = record.kind is not Kind.SNAPSHOT or self.cursor.mode is Mode.AWAITING
        if is_for_it and not self.is_told:
            self.is_told = True
            self.listener.tell(self)


class Listener:
    """Somebody that hears channels, as ``Engine.listen_to`` gives it."""

    def __init__(self, engine: "Engine", pattern: str, token: int) -> None:
        self._engine, self.pattern, self._token = engine, pattern, token
        self._unread: deque[Ear] = deque()
        self._is_woken = False

    def attach(self, channel: Channel) -> None:
        """Hear a channel from now on, if it is one of the pattern's."""
        if is_match(self.pattern, channel.name):
            channel.ears.append(Ear(self, channel))

    def tell(self, ear: Ear) -> None:
        """There is something to read."""
        self._unread.append(ear)
        if not self._is_woken:
            self._is_woken = True
            self._engine.push(Audible(self._token))

    def hear(self, count_max: int) -> list[Told]:
        """At most so many publications: channel, position, data, whether that is JSON, event, whether it is a keyframe.

        With none the next one is told of. Raises Overtaken, HubStopped.
        """
        heard: list[Told] = []
        with self._engine.running() as now:
            while len(heard) < count_max and self._unread:
                ear = self._unread.popleft()
                self._read(ear, count_max, now, heard)
                if ear.is_told:
                    self._unread.append(ear)
            if len(heard) < count_max:
                self._is_woken = False
        return heard

    def _read(self, ear: Ear, count_max: int, now: int, heard: list[Told]) -> None:
        channel, cursor, log = ear.channel, ear.cursor, ear.log
        while cursor.place < log.tail and len(heard) < count_max:
            if cursor.mode is Mode.AWAITING or log.is_overtaken(cursor, now):
                if log.settle(cursor, now) is None:
                    raise Overtaken(channel.name)
                continue
            for record, place in log.read(cursor, log.tail, now):
                cursor.place = place
                if record is not None:
                    position = Position(channel.epoch, record.offset)
                    heard.append(
                        (channel.name, position, record.data, record.is_json, record.event, record.is_beginning)
                    )
                if cursor.mode is Mode.AT_KEYFRAME:
                    cursor.mode = Mode.REPLAYING
                if len(heard) >= count_max:
                    break
        ear.is_told = cursor.place < log.tail and cursor.mode is not Mode.AWAITING
        if not ear.is_told and cursor.mode is Mode.REPLAYING:
            cursor.mode = Mode.LAGGING

    def end(self) -> None:
        """Hear no more."""
        self._engine.unlisten(self)
        self._unread.clear()
