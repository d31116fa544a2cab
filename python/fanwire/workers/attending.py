"""What workers tell one another of who is in channels. Each tells who is there by itself, and the eldest what was told.

The eldest says what it tells before it tells it, and whoever takes over when it is lost tells the last of it once more.
A message that cannot be sent makes its channel owed: of that all is told once more, when there is room. Who comes is
told who is there, and asks the eldest what was told. Everything may come twice.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from fanwire.attendance import Attendance, Entry, PresenceChange
from fanwire.faults import Tasks
from fanwire.workers.bus import NOT_SENT, NUMBERS, Bus, pieces
from fanwire.workers.elders import Elders

HERE, TOLD, ALL_TOLD, PART, SNAPSHOT, CONTENT = (
    f"presence.{word}" for word in ("here", "told", "all_told", "part", "snapshot", "content")
)
RECENT_S = 1.0
"""For so long the eldest may take from saying what it tells to telling it."""
ALL_TOLD_S = 30.0
"""So long the eldest may take to tell all that was told."""
PAUSE_S = 0.1
"""Before another is asked."""
FORGET: Entry = ("", 0, [], [], True)
"""Before all that was told: nothing was, of any channel."""
NOBODY = Attendance(0, has_names=True)
"""In a channel that is forgotten."""


class Attending:
    """This worker's part. All state is the loop's thread's own.

    Args:
        rooms: the channels whose presence is known here.
        take: called with a worker and what it says of who is there; `take_told` with what was told.
        drop: called with a worker that is gone.
        snapshot: makes a snapshot of a channel as the eldest, and publishes it.
        content: makes one, and gives it.
        woken: called when something may have to be told now.
    """

    def __init__(
        self,
        bus: Bus,
        tasks: Tasks,
        rooms: Mapping[str, Attendance],
        *,
        take: Callable[[int, Entry], None],
        take_told: Callable[[Entry], None],
        drop: Callable[[int], None],
        snapshot: Callable[[str], object],
        content: Callable[[str], object],
        woken: Callable[[], object],
    ) -> None:
        self._bus, self._tasks, self._rooms = bus, tasks, rooms
        self._take, self._take_told, self._drop = take, take_told, drop
        self._snapshot, self._content = snapshot, content
        self._here: list[Entry] = []
        self._told: list[Entry] = []
        # Channels of which all is to be told once more.
        self._owed_here: set[str] = set()
        self._owed_told: set[str] = set()
        # What the eldest said last, and when, to be told once more if it is lost.
        self._recent: deque[tuple[float, Entry]] = deque()
        # Whether it is known here what was told; or is being asked for.
        self._is_told = self._is_asking = False
        self._woken = woken
        self.elders = Elders(bus, tasks, self._look)
        """Who tells the clients and the application."""
        bus.on(HERE, self._hear)
        bus.on(TOLD, lambda worker, entries: self._hear_told(entries))
        bus.on(PART, lambda worker, message: self._recent.clear())
        bus.on_question(ALL_TOLD, self._tell_all_told)
        bus.on_question(SNAPSHOT, self._asked)
        bus.on_question(CONTENT, lambda worker, channel: self._content(channel) if self.is_eldest else None)
        bus.on_change(self._changed)

    @property
    def owes(self) -> bool:
        """Whether something could not be told."""
        return bool(self._owed_here or self._owed_told)

    @property
    def is_apart(self) -> bool:
        """Whether this worker cannot reach the others."""
        return not self._bus.others and self._bus.is_apart

    @property
    def is_eldest(self) -> bool:
        """Whether this worker tells the clients and the application."""
        return self.elders.is_this

    def note(self, channel: str, room: Attendance) -> None:
        """Who came and went here is told to the others by the next ``flush``."""
        self._here += room.moves(channel)

    def note_told(self, change: PresenceChange) -> None:
        """This is about to be told, as the others are to know by the next ``flush``."""
        self._told.append((change.channel, change.occupancy, list(change.joined), list(change.left), False))

    def flush(self) -> None:
        """Tell what was noted."""
        self._here += self._owed(self._owed_here, Attendance.all_here)
        self._told += self._owed(self._owed_told, Attendance.all_told)
        here, self._here = self._here, []
        told, self._told = self._told, []
        for kind, entries, owed in ((HERE, here, self._owed_here), (TOLD, told, self._owed_told)):
            self._tell(kind, entries, owed)

    def _owed(self, names: set[str], entries_of: Callable[[Attendance, str], list[Entry]]) -> Iterator[Entry]:
        for name in sorted(names):
            yield from entries_of(self._rooms.get(name, NOBODY), name)
        names.clear()

    def _tell(self, kind: str, entries: list[Entry], owed: set[str]) -> None:
        for piece in pieces(entries):
            try:
                self._bus.tell(kind, piece)
            except NOT_SENT:
                owed.update(entry[0] for entry in piece)

    async def ask_for_snapshot(self, channel: str) -> bool:
        """Have the eldest publish a snapshot, since only it knows what was told before; whether it has."""
        eldest = self.elders.eldest
        answers = await self._bus.ask(SNAPSHOT, channel, eldest)
        return answers.get(eldest) is True

    @property
    def is_told_elsewhere(self) -> bool:
        """Whether the eldest is on another machine: what it publishes for newcomers alone does not come here."""
        return self.elders.eldest >= NUMBERS

    async def ask_for_content(self, channel: str) -> object:
        """What the eldest would publish as a snapshot; None where it does not answer."""
        eldest = self.elders.eldest
        try:
            return (await self._bus.ask(CONTENT, channel, eldest)).get(eldest)
        except NOT_SENT:
            return None

    def _asked(self, worker: int, channel: str) -> bool:
        if not self.is_eldest:
            return False
        self._snapshot(channel)
        return True

    def _hear(self, worker: int, entries: list[Any]) -> None:
        for entry in entries:
            self._take(worker, entry)

    def take_recent(self) -> list[PresenceChange]:
        """What the one before may have been about to tell."""
        recent, self._recent = self._recent, deque()
        since = anyio.current_time() - RECENT_S
        return [
            PresenceChange(channel, tuple(joined), tuple(left), occupancy)
            for at, (channel, occupancy, joined, left, _) in recent
            if at >= since
        ]

    def part(self) -> None:
        """This worker ends, and has told what it was to tell."""
        if self.is_eldest:
            with suppress(*NOT_SENT):
                self._bus.tell(PART, None)

    def _hear_told(self, entries: list[Any]) -> None:
        now = anyio.current_time()
        while self._recent and self._recent[0][0] < now - RECENT_S:
            self._recent.popleft()
        self._recent.extend((now, entry) for entry in entries if not entry[4])
        for entry in entries:
            for name in [entry[0]] if entry[0] else list(self._rooms):
                self._take_told((name, *entry[1:]))

    def _changed(self, worker: int, has_come: bool) -> None:
        if has_come:
            self._tasks.start_soon(self._welcome, worker)
            if self._bus.age(worker) < 0:
                self._is_told = False  # it was told there while this one was not, or could not be reached
                self._look()
        else:
            if self.is_apart:
                self._is_told = False  # it misses what the others tell
            self._drop(worker)

    async def _welcome(self, worker: int) -> None:
        """Tell a newcomer who is here."""
        await self._tell_rooms(worker, HERE, Attendance.all_here)

    async def _tell_rooms(self, worker: int, kind: str, entries_of: Callable[[Attendance, str], list[Entry]]) -> None:
        def tell(name: str) -> None:
            for entry in entries_of(self._rooms.get(name, NOBODY), name):
                self._bus.tell(kind, [entry], worker)

        for name in list(self._rooms):
            await self._bus.tell_surely(worker, partial(tell, name))
            await checkpoint()

    def _look(self) -> None:
        """Another worker may be the eldest."""
        self._woken()
        if not (self._is_told or self._is_asking or self.is_eldest):
            self._is_asking = True
            self._tasks.start_soon(self._ask_what_was_told)

    async def _ask_what_was_told(self) -> None:
        while not (self._is_told or self.is_eldest):
            eldest = self.elders.eldest
            with suppress(*NOT_SENT):
                answers = await self._bus.ask(ALL_TOLD, None, eldest, timeout_s=ALL_TOLD_S)
                self._is_told = answers.get(eldest) is True
            if not self._is_told:
                await anyio.sleep(PAUSE_S)
        self._is_asking = False

    async def _tell_all_told(self, worker: int, message: None) -> bool:
        if not self.is_eldest:
            return False
        await self._bus.tell_surely(worker, partial(self._bus.tell, TOLD, [FORGET], worker))
        await self._tell_rooms(worker, TOLD, Attendance.all_told)
        return True
