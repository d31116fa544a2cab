"""What all sources have in common: entries are read, published in their order, and the place behind them is kept.

At least once: the place is kept when the backbone or the hub has given each entry its position. To a ``Publisher`` each
entry has an idempotency key, so that one which is read again within five minutes is not published again.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import uniform
from time import time
from typing import Any, ClassVar, NoReturn

import anyio
import msgspec

from fanwire._engine import Publication
from fanwire.calls import check_channel, check_event, check_key, check_keyframe, check_text, check_ttl
from fanwire.errors import FanwireError, HubStopped, LimitReached, NotPublished
from fanwire.hub import Hub
from fanwire.logs import source_log
from fanwire.publisher import Publisher
from fanwire.sources.stats import SourceStats
from fanwire.values import Whole, checked

BATCH = 256
"""So many entries are read and published at once."""
WAIT_FIRST_S, WAIT_LAST_S = 0.05, 5.0
"""Between two attempts, when it begins and at most."""
NAMES = ("channel", "data", "text", "bytes", "event", "key", "ttl", "keyframe", "remove")
"""What an entry may have."""
PAYLOADS = ("data", "text", "bytes")
NAME_BYTES_MAX = 100


class NoEntry(ValueError):
    """Something that is read is no publication: it is left out, counted, and said in the log."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One publication, and where it stands in its source."""

    place: str
    channel: str
    data: Any
    event: str | None = None
    key: str | None = None
    ttl: float | None = None
    keyframe: bool = False
    is_removal: bool = False


def check_name(name: str) -> str:
    """Take the name of a place. Raises ValueError."""
    if not 0 < len(name.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"name must have 1 to {NAME_BYTES_MAX} bytes, not {name!r}")
    return name


def entry_of(place: str, values: Mapping[str, Any], channel: str | None) -> Entry:
    """What `values` say, each under one of ``NAMES``.

    Args:
        channel: the one of all entries; None: each names its own.

    Raises:
        NoEntry: something is missing, too much, or not what it may be; it is named.
    """
    unknown = values.keys() - set(NAMES)
    if unknown:
        raise NoEntry(f"has {sorted(unknown)[0]!r}, which is none of {', '.join(NAMES)}")
    named = values.get("channel")
    if (channel is None) == (named is None):
        raise NoEntry("names no channel" if named is None else f"names the channel {named!r}, and the source another")
    is_removal = flag("remove", values.get("remove", False))
    payloads = [name for name in PAYLOADS if name in values]
    if len(payloads) != 1 and not (is_removal and not payloads):
        raise NoEntry(f"has to have one of {', '.join(PAYLOADS)}")
    try:
        data = values[payloads[0]] if payloads else None
        if payloads == ["bytes"] and not isinstance(data, bytes):
            raise NoEntry("has bytes that are none")
        if payloads == ["text"]:
            check_text("text", data, "a str")
        ttl, event, key = values.get("ttl"), values.get("event"), values.get("key")
        keyframe = flag("keyframe", values.get("keyframe", False))
        check_event(event)
        check_key(key)
        check_ttl(ttl)
        check_keyframe(keyframe)
        if is_removal and key is None:
            raise NoEntry("removes a key and names none")
        name = check_channel(named if channel is None else channel)
        return Entry(place, name, data, event, key, ttl, keyframe, is_removal)
    except (TypeError, ValueError) as error:
        raise NoEntry(str(error)) from error


def flag(name: str, value: Any) -> bool:
    """True or false, as a bool or in words. Raises NoEntry."""
    found = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
    if found is None:
        raise NoEntry(f"has a {name} of {value!r}: true or false it may be")
    return found


def json_of(text: str | bytes) -> Any:
    """A JSON text's value. Raises NoEntry."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NoEntry(f"has data that is no JSON: {error}") from error


class Batch:
    """What was read at once: entries in their order, and the place behind them all."""

    __slots__ = ("behind", "entries", "first_at", "last_at", "read", "skipped")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.read = self.skipped = 0
        self.behind: str | None = None
        self.first_at: float | None = None
        self.last_at: float | None = None

    def add(self, place: str, read: Any, written_at: float) -> None:
        """One more, written at `written_at`, a Unix time: `read()` gives it, or raises NoEntry."""
        self.read += 1
        self.behind = place
        self.first_at = written_at if self.first_at is None else self.first_at
        self.last_at = written_at
        try:
            self.entries.append(read())
        except NoEntry as error:
            self.skipped += 1
            source_log.error("the entry %s %s: it is left out", place, error)


class Reading(ABC):
    """A source that is connected."""

    @abstractmethod
    def batches(self) -> AsyncIterator[Batch]:
        """What comes, each when the one before was kept."""

    @abstractmethod
    async def keep(self, place: str) -> None:
        """All up to here is published."""


class Source(ABC):
    """One source. ``await source.run(publisher)`` reads it until it is cancelled.

    Args:
        name: names the place that is kept, 1 to 100 bytes: two that read the same for different hubs need two names.
        channel: the channel of all entries; None: each names its own.
        batch: entries that are read and published at once, > 0.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, *, channel: str | None = None, batch: int = BATCH) -> None:
        self.name = check_name(check_text("name", name, "a str"))
        self.channel = None if channel is None else check_channel(channel)
        self.batch: int = checked("batch", batch, Whole())
        self._read = self._published = self._skipped = self._failures = 0
        self._place: str | None = None
        self._is_reading = False
        # When the oldest was written that waits, as far as is known.
        self._waits_since: float | None = None

    def __repr__(self) -> str:
        return f"<fanwire source {self.name!r}, {self.kind}>"

    def stats(self) -> SourceStats:
        """What it has done so far."""
        lag = 0.0 if self._waits_since is None else max(time() - self._waits_since, 0.0)
        counts = self._read, self._published, self._skipped, self._failures
        return SourceStats(*counts, self._place, self._is_reading, lag)

    @abstractmethod
    def connect(self) -> AbstractAsyncContextManager[Reading]:
        """Connected, and placed behind what was published before. Raises what its client does."""

    @abstractmethod
    def is_passing(self, error: Exception) -> bool:
        """Whether trying again may help; else ``run`` raises it."""

    def number_of(self, place: str) -> float:
        """A place's first number, which grows: for metrics."""
        return float(place.partition("-")[0])

    async def run(self, to: Publisher | Hub) -> NoReturn:
        """Read for ever, and publish. It connects again by itself, with pauses of up to 5 s.

        Args:
            to: a hub that serves, or a publisher; with a hub an entry that is read again is published again.

        Raises:
            HubStopped: the hub ended.
            What ``connect`` raises and another attempt cannot help: a wrong password, a table that is not there.
        """
        if not isinstance(to, Publisher | Hub):
            raise TypeError(f"a source publishes to a Publisher or a Hub, not to {type(to).__name__}")
        wait = WAIT_FIRST_S
        told = ""
        while True:
            try:
                async with self.connect() as reading:
                    self._is_reading = True
                    source_log.info("source %s: %s is read", self.name, self.kind)
                    async for batch in reading.batches():
                        await self._take(to, reading, batch)
                        wait, told = WAIT_FIRST_S, ""
            except HubStopped:
                raise
            except Exception as error:
                self._failures += 1
                if not isinstance(error, NotPublished | LimitReached) and not self.is_passing(error):
                    raise
                if told != str(error):
                    told = str(error)
                    source_log.error("source %s: %s; it is tried again", self.name, error)
            finally:
                self._is_reading = False
            await anyio.sleep(uniform(wait / 2, wait))
            wait = min(wait * 2, WAIT_LAST_S)

    async def _take(self, to: Publisher | Hub, reading: Reading, batch: Batch) -> None:
        """Publish what was read, and keep the place behind it."""
        self._waits_since = batch.first_at
        await self._publish(to, batch.entries)
        if batch.behind is not None:
            await reading.keep(batch.behind)
        self._waits_since = batch.last_at if batch.read >= self.batch else None
        self._done(batch)

    def _done(self, batch: Batch) -> None:
        self._read += batch.read
        self._skipped += batch.skipped
        self._published += len(batch.entries)
        self._place = batch.behind or self._place

    async def _publish(self, to: Publisher | Hub, entries: list[Entry]) -> None:
        """All of them, in their order. Raises NotPublished."""
        if isinstance(to, Hub):
            for publication in [publish_by(to, entry) for entry in entries]:
                try:
                    await publication
                except FanwireError:
                    raise
                except RuntimeError as error:  # it was not published
                    raise NotPublished(str(error), True) from error
            return
        await to._apublish_all([call_of(self.name, entry) for entry in entries])


def publish_by(hub: Hub, entry: Entry) -> Publication:
    """By a hub."""
    if entry.is_removal:
        return hub.remove(entry.channel, key=entry.key or "", data=entry.data, event=entry.event)
    terms: dict[str, Any] = {"event": entry.event, "key": entry.key, "ttl": entry.ttl, "keyframe": entry.keyframe}
    return hub.publish(entry.channel, entry.data, **terms)


def call_of(name: str, entry: Entry) -> tuple[Any, ...]:
    """What a publisher's link is called with."""
    data = {"removed": entry.key} if entry.is_removal and entry.data is None else entry.data
    terms = (entry.event, entry.key, entry.ttl, entry.keyframe, entry.is_removal)
    return ("channel", entry.channel, data, *terms, f"{name}:{entry.place}")
