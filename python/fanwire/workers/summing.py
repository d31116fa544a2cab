"""The counters of all workers as one, with those of workers that have ended: the sum does not fall when one ends.

Whoever is scraped tells the others what it has counted, and asks them. Each keeps what the others said last, and tells
who comes what it has counted itself. When a worker ends it tells all; of one that is lost they tell one another what it
said last, and keep the most. So all have the same sums.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

from fanwire.faults import Tasks
from fanwire.workers.bus import NOT_SENT, Bus, pieces

COUNTS, NOW, LAST, ENDED, ALL_ENDED, KNOWN = (
    f"metrics.{word}" for word in ("counts", "now", "last", "ended", "all_ended", "known")
)
ANSWER_S = 1.0
"""Within so many seconds a worker has to answer; a scrape waits so long for one that does not."""
KNOWN_S = 0.25
"""So long a scrape waits for what others know of one that does not answer."""
ALL_ENDED_S = 30.0

Key: TypeAlias = tuple[str, str, str, tuple[str, ...]]
"""A family and its type, a sample, and its labels, as names and values in turn."""
Samples: TypeAlias = dict[Key, float]
Entry: TypeAlias = tuple[int, float, list[Any]]
"""A worker's number, since when it is there, as time tells, and samples, each a key and a value."""


@dataclass(slots=True)
class EndedWorkers:
    """The workers of one number that have ended."""

    since: float
    """Since when the last of them was there: one that could not be reached for a while comes back, and is the same."""
    last: Samples
    """What it had counted."""
    before: Samples
    """What those before it had."""


GROWING = ("counter", "histogram")
"""Types of families whose samples do not fall."""


@dataclass(frozen=True, slots=True)
class Summed:
    """What all workers have counted."""

    samples: Samples
    workers: Mapping[int, Samples]
    """Those that are there and have ever answered, this one among them: what each has counted."""
    silent: Mapping[int, bool]
    """The others that are there: whether one has not answered this time. What it said last stands for it."""


class Summing:
    """This worker's part. All state is the loop's thread's own.

    Args:
        count: what this worker has counted, now.
    """

    def __init__(self, bus: Bus, tasks: Tasks, count: Callable[[], Samples]) -> None:
        self._bus, self._tasks, self._count = bus, tasks, count
        # Since when this worker is there: its number may have been another's before.
        self._since = monotonic()
        # What each said last, and since when that one is there.
        self._known: dict[int, tuple[float, Samples]] = {}
        # Those that said that it was the last; what they counted is known to all.
        self._parting: set[int] = set()
        # By number, those that have ended.
        self._ended: dict[int, EndedWorkers] = {}
        # Whether anybody ever wanted to know, here; and whether what was before this worker is known here.
        self._is_asked = self._is_told = False
        bus.on_question(COUNTS, self._tell_counts)
        bus.on_question(KNOWN, self._tell_known)
        bus.on_question(ALL_ENDED, self._tell_all_ended)
        bus.on(NOW, lambda worker, entry: self._hear(entry))
        bus.on(LAST, self._part)
        bus.on(ENDED, lambda worker, entries: self._hear_ended(entries))
        bus.on_change(self._changed)

    async def sum(self) -> Summed:
        """Ask all, and add up what they have counted."""
        bus, self._is_asked = self._bus, True
        asked, own = bus.others, self._count()
        answers = await self._ask(COUNTS, _entry(bus.number, self._since, own), ANSWER_S)
        for entry in answers.values():
            self._hear(entry)
        silent = {worker: worker not in answers for worker in sorted(asked & bus.others)}
        missing = [worker for worker, is_silent in silent.items() if is_silent]
        if missing:
            for entries in (await self._ask(KNOWN, missing, KNOWN_S)).values():
                for entry in entries:
                    self._hear(entry)
        workers = {bus.number: own}
        workers.update((worker, self._known[worker][1]) for worker in silent if worker in self._known)
        samples: Samples = {}
        for some in workers.values():
            _add(samples, some)
        here = {bus.number: self._since, **{worker: since for worker, (since, _) in self._known.items()}}
        for worker, ended in self._ended.items():
            _add(samples, ended.before)
            if here.get(worker) != ended.since:
                _add(samples, ended.last)
        return Summed(samples, workers, silent)

    def part(self) -> None:
        """Tell all what this worker has counted, for the last time."""
        if self._is_asked and self._bus.others:
            with self._tasks.faults.contained("metrics.last", "the others cannot know what this worker has counted"):
                self._bus.tell(LAST, self._counts())

    async def _ask(self, kind: str, message: Any, timeout_s: float) -> dict[int, Any]:
        with suppress(*NOT_SENT):
            return await self._bus.ask(kind, message, timeout_s=timeout_s)
        return {}

    def _counts(self) -> Entry:
        return _entry(self._bus.number, self._since, self._count())

    def _tell_counts(self, worker: int, theirs: Any) -> Entry:
        self._is_asked = True
        self._hear(theirs)
        return self._counts()

    def _tell_known(self, worker: int, missing: list[int]) -> list[Entry]:
        return [_entry(one, *self._known[one]) for one in missing if one in self._known]

    def _part(self, worker: int, entry: Any) -> None:
        self._parting.add(worker)
        self._hear(entry)

    def _hear(self, entry: Any) -> None:
        worker, since, samples = entry
        self._is_asked = True
        if worker in self._bus.others:
            before = self._known.get(worker)
            said = _read(samples)
            if before is not None and before[0] == since:
                _raise(said, {key: value for key, value in before[1].items() if key[1] in GROWING})
            self._known[worker] = since, said

    def _changed(self, worker: int, has_come: bool) -> None:
        if has_come:
            if self._is_asked:
                self._bus.tell_at_last(NOW, self._counts, worker)
            if not self._is_told:
                self._tasks.start_soon(self._ask_who_ended, worker)
            return
        self._is_told = self._is_told and bool(self._bus.others)  # without any it may be this one that is cut off
        since, samples = self._known.pop(worker, (0.0, {}))
        if not samples:
            return
        last = {key: value for key, value in samples.items() if key[1] in GROWING and value}
        self._take_ended(worker, since, last, None)
        if worker in self._parting:
            self._parting.discard(worker)
        elif self._bus.others:
            with self._tasks.faults.contained("metrics.ended", "the others may count less of worker %s", worker):
                self._bus.tell(ENDED, [_ended_entry(worker, self._ended[worker])])

    def _take_ended(self, worker: int, since: float, last: Samples, before: Samples | None) -> None:
        """One has ended: seen here, where it is not said what was before it, or by another."""
        known = self._ended.get(worker)
        if known is None or known.since < since:
            if before is None:
                before = {}
                if known is not None:
                    _add(before, known.before)
                    _add(before, known.last)
            self._ended[worker] = EndedWorkers(since, last, before)
        elif known.since == since:
            _raise(known.last, last)
            _raise(known.before, before or {})

    def _hear_ended(self, entries: list[Any]) -> None:
        for worker, since, last, before in entries:
            self._take_ended(worker, since, _read(last), _read(before))

    async def _ask_who_ended(self, worker: int) -> None:
        """What this one cannot know: those that were there before it."""
        with suppress(*NOT_SENT):
            answers = await self._bus.ask(ALL_ENDED, None, worker, timeout_s=ALL_ENDED_S)
            self._is_told = self._is_told or bool(answers)

    async def _tell_all_ended(self, worker: int, message: None) -> bool:
        for piece in pieces([_ended_entry(number, ended) for number, ended in self._ended.items()]):
            await self._bus.tell_surely(worker, partial(self._bus.tell, ENDED, piece, worker))
        return True


def _add(samples: Samples, more: Samples) -> None:
    for key, value in more.items():
        samples[key] = samples.get(key, 0.0) + value


def _raise(samples: Samples, more: Samples) -> None:
    """What others know may be more."""
    for key, value in more.items():
        samples[key] = max(samples.get(key, 0.0), value)


def _pairs(samples: Samples) -> list[Any]:
    return [[*key, value] for key, value in samples.items()]


def _entry(worker: int, since: float, samples: Samples) -> Entry:
    return worker, since, _pairs(samples)


def _ended_entry(worker: int, ended: EndedWorkers) -> list[Any]:
    return [worker, ended.since, _pairs(ended.last), _pairs(ended.before)]


def _read(samples: Iterable[Any]) -> Samples:
    return {(family, kind, name, tuple(labels)): value for family, kind, name, labels, value in samples}
