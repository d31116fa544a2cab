"""The append-only log of one channel: records by their place, what is kept of them, and what a cursor reads.

What `rust/core/src/channel/` does, with places of records where that counts bytes. It knows no socket and no clock.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import inf
from typing import NamedTuple

from .compacted import Compacted
from .settings import Promise
from .tags import Filter, Tag

GONE_MAX = 4_096
"""So many records that laggards lost are remembered, to say how many each has lost."""


class Kind(Enum):
    """What a record is for newcomers."""

    PLAIN = auto()
    KEYFRAME = auto()
    """One may begin with it."""
    SNAPSHOT = auto()
    """One may begin with it, and nobody else gets it."""
    REMOVAL = auto()
    """Its key has ended."""


class Mode(Enum):
    """How a cursor reads."""

    LIVE = auto()
    """It keeps pace: everything as it comes."""
    LAGGING = auto()
    """As the channel's policy says."""
    REPLAYING = auto()
    """Everything, also what is replaced already: it was promised so."""
    AT_KEYFRAME = auto()
    """As `REPLAYING`, and the record at the cursor, a keyframe, is for it in any case."""
    AWAITING = auto()
    """Nothing before the next keyframe."""


@dataclass(slots=True, eq=False)
class Record:
    """One publication."""

    frame: bytes
    """As a WebSocket gets it."""
    data: str | bytes
    is_json: bool
    event: str | None
    offset: int
    """Its number in the channel; of a snapshot that of the publication before it."""
    published_ns: int
    expires_ns: float
    key: str | None
    kind: Kind
    excluded: frozenset[int]
    tags: Mapping[str, Tag]
    place: int = 0

    @property
    def is_removal(self) -> bool:
        """Whether its key has ended."""
        return self.kind is Kind.REMOVAL

    @property
    def is_beginning(self) -> bool:
        """Whether one may begin with it."""
        return self.kind in (Kind.KEYFRAME, Kind.SNAPSHOT)

    def passes(self, filter: Filter | None) -> bool:
        """Whether it is for one with this filter: what tells the state of the channel is, where it has no tags."""
        is_state = not self.tags and (self.is_beginning or self.is_removal)
        return filter is None or is_state or filter.passes(self.tags)


class Edge(NamedTuple):
    """A place between two records."""

    place: int
    offset: int
    """Of the publication before it."""


@dataclass(slots=True, eq=False)
class Cursor:
    """Where one subscriber or listener reads."""

    place: int
    mode: Mode


class Keys:
    """The keys of a channel of policy `latest`: the newest offset of each, and of those that ended where they did."""

    __slots__ = ("_newest", "_removed")

    def __init__(self) -> None:
        self._newest: dict[str | None, int] = {}
        self._removed: dict[str | None, int] = {}

    def note(self, record: Record) -> int:
        """A publication of a key gets an offset: the one that it replaces, or 0."""
        replaced = self._newest.get(record.key, 0)
        self._newest[record.key] = record.offset
        if record.kind is Kind.REMOVAL:
            self._removed[record.key] = record.offset
        return replaced

    def is_newest(self, record: Record) -> bool:
        """Whether no later publication has the same key."""
        return self._newest.get(record.key) == record.offset

    def is_removed(self, record: Record) -> bool:
        """Whether the key of a publication ended later."""
        return record.offset < self._removed.get(record.key, 0)

    def __len__(self) -> int:
        return len(self._newest)

    def sweep(self, oldest: int) -> None:
        """Forget the keys whose newest publication is before `oldest`: no log holds any of theirs."""
        self._newest = {key: offset for key, offset in self._newest.items() if offset >= oldest}
        self._removed = {key: offset for key, offset in self._removed.items() if key in self._newest}


class Log:
    """The log of one use: of those who are subscribed, of those who hear, or of what is kept for who comes.

    Args:
        offset: it begins behind the publication of this number.
    """

    def __init__(self, promise: Promise, keys: Keys, offset: int) -> None:
        self.promise = promise
        self._keys = keys
        self.cursors: list[Cursor] = []
        """Of all who read."""
        self.fanned_out = 0
        """What is before this was offered to everybody: the bounds may take it from who lags."""
        self.tail = 0
        # By place; the oldest first.
        self._records: dict[int, Record] = {}
        self._kept_bytes = 0
        self._head = self._lost = Edge(0, offset)
        # A cursor from here on has lost nothing: only snapshots were in between.
        self._whole_from = 0
        self._keyframe: Record | None = None
        # Of policy `latest`: what is before the head and the newest of its key.
        self._compacted: Compacted[Record] = Compacted(keys.is_newest)
        self._gone: deque[Edge] = deque()

    def begun_anew(self) -> "Log":
        """A log for those who come, with what this one keeps."""
        log = Log(self.promise, self._keys, self._head.offset)
        log._lost = Edge(0, self._lost.offset)
        for record in self._compacted:
            if self._compacted.is_current(record):
                log._compacted.push(replace(record, place=log.tail))
                log.tail += 1
        log._head, log._whole_from = Edge(log.tail, self._head.offset), log.tail
        for record in self._records.values():
            log.append(record, 0)
        log._compacted.forgotten = max(log._compacted.forgotten, self._compacted.forgotten)
        log.fanned_out = log.tail
        return log

    # Appending

    def append(self, record: Record, replaced: int) -> None:
        """Append a record whose key is noted, and give up what nobody needs or the bounds no longer allow.

        `replaced` is the offset that it replaces, or 0.
        """
        self._compacted.note_replaced(replaced)
        if record.kind is Kind.REMOVAL and self._keyframe is not None and self._keyframe.key == record.key:
            self._keyframe = None  # nobody begins with what has ended
        self._trim(record)
        record = replace(record, place=self.tail)
        self._records[record.place] = record
        self.tail += 1
        self._kept_bytes += len(record.frame)
        if record.is_beginning:
            self._keyframe = record

    def _trim(self, next: Record) -> None:
        promise, now = self.promise, next.published_ns
        needed = min((cursor.place for cursor in self.cursors), default=self.tail)
        fanned_out = self.fanned_out if self.cursors else self.tail
        self._compacted.forget_removals(needed)
        while self._records:
            oldest = self._records[self._head.place]
            is_full = self._kept_bytes > promise.backlog_bytes or len(self._records) >= promise.backlog_frames
            is_over = is_full or now - oldest.published_ns > promise.backlog_age_ns
            is_needed = oldest.place >= needed
            may_go = not is_needed or (is_over and oldest.place < fanned_out)
            is_kept = (self._is_behind_keyframe(oldest) and not is_full) or self._is_history(oldest, next)
            if not may_go or is_kept:
                break
            self._let_go(oldest, is_needed)
        self._trim_compacted(needed)
        while len(self._gone) > 1 and self._gone[1].place <= needed:
            self._gone.popleft()
        if self._head.place <= needed:
            self._gone.clear()

    def _is_behind_keyframe(self, record: Record) -> bool:
        return self._keyframe is not None and self._keyframe.place <= record.place

    def _is_history(self, oldest: Record, next: Record) -> bool:
        promise = self.promise
        return (
            oldest.kind is not Kind.SNAPSHOT
            and next.offset - oldest.offset + 1 <= promise.history
            and len(self._records) < 2 * promise.history
            and self._kept_bytes <= promise.history_bytes
            and next.published_ns - oldest.published_ns <= promise.history_age_ns
        )

    def _let_go(self, oldest: Record, is_needed: bool) -> None:
        edge = Edge(oldest.place + 1, oldest.offset)
        is_latest = self.promise.policy == "latest"
        is_current = is_latest and oldest.kind is not Kind.SNAPSHOT and self._keys.is_newest(oldest)
        is_removal = oldest.kind is Kind.REMOVAL
        if is_current and (is_needed or (self.promise.history > 0 and not is_removal)):
            self._compacted.push(oldest)
        elif is_current and is_removal:
            self._compacted.forget_removal(oldest.offset)
        elif is_current:
            self._lost = max(self._lost, edge)
        if is_needed:
            if not self._gone or self._gone[-1] != self._head:
                self._gone.append(self._head)
            self._gone.append(edge)
            while len(self._gone) > GONE_MAX:
                self._gone.popleft()
        if self._keyframe is oldest:
            self._keyframe = None
        del self._records[oldest.place]
        self._kept_bytes -= len(oldest.frame)
        self._head = edge
        if oldest.kind is not Kind.SNAPSHOT:
            self._whole_from = edge.place

    def _trim_compacted(self, needed: int) -> None:
        promise, compacted = self.promise, self._compacted
        while (first := compacted.first) is not None:
            is_passed = promise.history == 0 and first.place < needed
            is_over = compacted.size > promise.backlog_bytes or compacted.count > promise.backlog_frames
            if not is_passed and not is_over:
                break
            if compacted.is_current(first):
                self._lost = max(self._lost, Edge(first.place + 1, first.offset))
            compacted.pop()

    # What is there

    @property
    def oldest_offset(self) -> float:
        """The number of the oldest publication that is here in any form."""
        first = self._compacted.first or self._records.get(self._head.place)
        return inf if first is None else first.offset

    @property
    def unsent_bytes(self) -> int:
        """Bytes that are yet to be offered to those who read."""
        first = max(self.fanned_out, self._head.place)
        return sum(len(self._records[place].frame) for place in range(first, self.tail)) if self.cursors else 0

    def offset_before(self, place: int) -> int:
        """Number of the publication before a place: exact while the log remembers it."""
        if place >= self._whole_from:
            record = self._records.get(place - 1)
            return record.offset if record is not None else self._head.offset
        return next((edge.offset for edge in reversed(self._gone) if edge.place <= place), self._head.offset)

    @property
    def _tail_offset(self) -> int:
        record = self._records.get(self.tail - 1)
        return record.offset if record is not None else self._head.offset

    def behind(self, offset: int) -> int:
        """The place behind the publication of this number, or where the log begins."""
        if offset > self._tail_offset:
            return self.tail
        published = (one for one in self._records.values() if one.kind is not Kind.SNAPSHOT)
        return next((one.place + 1 for one in published if one.offset == offset), self._head.place)

    @property
    def has_keyframe(self) -> bool:
        """Whether the newest keyframe is here."""
        return self._keyframe is not None

    def living_keyframe(self, now: int) -> Record | None:
        """The newest keyframe that is here, if its time is not over."""
        keyframe = self._keyframe
        return keyframe if keyframe is not None and keyframe.expires_ns > now else None

    # Where one begins

    def seek_offset(self, offset: int, now: int) -> tuple[int, Mode] | None:
        """Where one goes on that has everything up to an offset; None if something behind it is not here."""
        if offset >= self._tail_offset:
            return (self.tail, Mode.REPLAYING) if offset == self._tail_offset else None
        following = next((one for one in self._records.values() if one.offset > offset), None)
        is_fresh = following is not None and now - following.published_ns <= self.promise.history_age_ns
        if offset >= self._head.offset and following is not None and is_fresh:
            return following.place, Mode.REPLAYING
        if self.promise.policy == "latest" and offset >= max(self._lost.offset, self._compacted.forgotten):
            compacted = next((one for one in self._compacted if one.offset > offset), following)
            return (self.tail if compacted is None else compacted.place), Mode.LAGGING
        return None

    def seek_oldest(self, now: int) -> tuple[int, Mode]:
        """The oldest place where one may begin."""
        if self.promise.policy == "latest":
            first = self._compacted.first
            return (self._head.place if first is None else first.place), Mode.LAGGING
        for record in self._records.values():
            is_over = now - record.published_ns > self.promise.history_age_ns
            if not is_over and record.kind is not Kind.SNAPSHOT:
                return record.place, Mode.REPLAYING
        return self.tail, Mode.REPLAYING

    def pass_unmatched(self, cursor: Cursor, filter: Filter | None) -> None:
        """Have one that lags wait for nothing but what its filter lets through."""
        if filter is not None and cursor.mode in (Mode.LAGGING, Mode.REPLAYING):
            while cursor.place < self.fanned_out:
                record = self._records.get(cursor.place)
                if record is None or record.passes(filter):
                    break
                cursor.place += 1

    # Reading

    @property
    def overtaken_before(self) -> int:
        """A cursor before this one is overtaken: what it needs is not all here."""
        return self._lost.place if self.promise.policy == "latest" else self._whole_from

    def is_overtaken(self, cursor: Cursor, now: int) -> bool:
        """Whether what it needs is not all here; of one that is to begin at a keyframe, whether that is gone."""
        if cursor.place < self.overtaken_before:
            return True
        if cursor.mode is not Mode.AT_KEYFRAME or cursor.place >= self.tail:
            return False
        record = self._record_at(cursor.place)
        return record is None or not self._is_for(record, cursor, now)

    def has_lost(self, cursor: Cursor) -> bool:
        """Whether the bounds have taken from it what it needs."""
        if cursor.place >= (self._lost.place if self.promise.policy == "latest" else self._head.place):
            return False
        if cursor.place < self.overtaken_before:
            return True
        return cursor.mode is Mode.AT_KEYFRAME and self._record_at(cursor.place) is None

    def _record_at(self, place: int) -> Record | None:
        return self._compacted.at(place) if place < self._head.place else self._records.get(place)

    def settle(self, cursor: Cursor, now: int) -> int | None:
        """Have an overtaken cursor go on where the policy says. Gives how many it lost; None: it is to be closed."""
        before = self.offset_before(cursor.place)
        keyframe = self.living_keyframe(now)
        is_awaiting = cursor.mode is Mode.AWAITING
        if keyframe is not None and not cursor.place < keyframe.place + is_awaiting:
            keyframe = None
        is_newcomer = cursor.mode is Mode.AT_KEYFRAME and cursor.place >= self.overtaken_before
        policy = self.promise.policy
        if is_newcomer and policy == "latest" and keyframe is None:
            if self.promise.snapshot_ns is not None:
                cursor.place, cursor.mode = self.tail, Mode.AWAITING
            else:
                cursor.mode = Mode.LAGGING
            return 0
        if is_newcomer and keyframe is None and self._record_at(cursor.place) is not None:
            cursor.mode = Mode.AWAITING  # where it is, so that nothing behind it is lost
            return 0
        if not (is_awaiting or (is_newcomer and (policy == "latest" or self._record_at(cursor.place) is not None))):
            if policy in ("every", "latest"):
                return None
            if policy == "drop":
                cursor.place, cursor.mode = self.tail, Mode.LAGGING
                return max(self.offset_before(cursor.place) - before, 0)
        if keyframe is not None:
            cursor.place, cursor.mode = keyframe.place, Mode.AT_KEYFRAME
        else:
            cursor.place, cursor.mode = self.tail, Mode.AWAITING
        return max(self.offset_before(cursor.place) - before, 0)

    def _is_for(self, record: Record, cursor: Cursor, now: int, *, conflates: bool = False) -> bool:
        """Whether a cursor gets a record that it has come to."""
        mode = cursor.mode
        if record.expires_ns <= now:
            return False
        if record.kind is Kind.SNAPSHOT:
            return mode is Mode.AT_KEYFRAME and record.place == cursor.place
        conflates = conflates or (mode is Mode.LAGGING and self.promise.policy == "latest")
        if conflates and not self._keys.is_newest(record):
            return False
        return mode is Mode.LIVE or not self._keys.is_removed(record)

    def read(self, cursor: Cursor, until: int, now: int) -> Iterator[tuple[Record | None, int]]:
        """What a cursor that is not overtaken gets up to a place, with where it stands then; None: it passes one by."""
        first = cursor.place
        conflates = first < self._head.place and first < self._whole_from
        for record in self._compacted if conflates else ():
            if first <= record.place < until:
                is_current = self._compacted.is_current(record) and not self._keys.is_removed(record)
                is_for_it = record.expires_ns > now and is_current
                yield (record if is_for_it else None), record.place + 1
        if first < self._head.place and first < until:
            yield None, min(self._head.place, until)
        for place in range(max(first, self._head.place), until):
            record = self._records[place]
            yield (record if self._is_for(record, cursor, now, conflates=conflates) else None), place + 1
