"""Workers in one process, joined as their owner joins them: nothing arrives before a step."""

from collections import deque
from collections.abc import Callable

import anyio
from fanwire.errors import LimitReached, WorkersApart
from fanwire.faults import Faults, Tasks
from fanwire.workers.bus import Bus


class Star:
    """An owner in the middle. What goes to it, and from it, is in order for each worker."""

    def __init__(self) -> None:
        self.buses: dict[int, Bus] = {}
        self._up: dict[int, deque[Callable[[], None]]] = {}
        self._down: dict[int, deque[Callable[[Bus], None]]] = {}
        self.is_full: set[int] = set()
        """Workers that can send nothing."""
        self.silent: set[int] = set()
        """Workers to which nothing comes, as if their loops stood still."""
        self.arrived = anyio.Event()
        self._apart: dict[int, Bus] = {}

    def join(self, number: int, tasks: Tasks) -> Bus:
        """One comes; it hears of those that are there, as they do of it."""
        bus = Bus(
            number,
            lambda to, message: self._send(bus, to, message),
            tasks,
            lambda: self._apart.get(number) is bus,
        )
        self.add(bus)
        return bus

    def add(self, bus: Bus) -> None:
        """The same of one that is made already."""
        number = bus.number
        self._up[number], self._down[number] = deque(), deque()
        for other in self.buses:
            self._down[other].append(lambda one: one.changed(number, True))
            self._down[number].append(lambda one, other=other: one.changed(other, True))  # type: ignore[misc]
        self.buses[number] = bus
        self.arrived.set()

    def welcome(self, number: int) -> None:
        """Have one hear who is there: the first that it does."""
        for hear in list(self._down[number]):
            self._down[number].popleft()
            hear(self.buses[number])

    def leave(self, number: int) -> None:
        """One is gone, with what it has not sent yet."""
        del self.buses[number], self._up[number], self._down[number]
        for other in self.buses:
            self._down[other].append(lambda one: one.changed(number, False))
        self.arrived.set()

    def cut(self, number: int) -> None:
        """One cannot reach the others, nor they it."""
        bus = self._apart[number] = self.buses[number]
        self.leave(number)
        for other in bus.others:
            bus.changed(other, False)

    def mend(self, number: int) -> None:
        """It can again."""
        self.add(self._apart.pop(number))

    def _send(self, bus: Bus, to: int | None, message: bytes) -> None:
        number = bus.number
        if self._apart.get(number) is bus:
            raise WorkersApart
        if number in self.is_full:
            raise LimitReached("told", 1, 0)
        if self.buses.get(number) is bus:  # else it is gone, and tasks of it are not
            self.do_in_order(number, lambda: self._pass_on(number, to, message))

    def do_in_order(self, number: int, do: Callable[[], None]) -> None:
        """Have this done when the owner has dealt with what one has sent before."""
        if number in self._up:
            self._up[number].append(do)
            self.arrived.set()

    def steps(self) -> list[Callable[[], None]]:
        """What may happen next."""
        owner = [lambda number=number: self._up[number].popleft()() for number, waiting in self._up.items() if waiting]
        arrivals = [
            lambda number=number: self._down[number].popleft()(self.buses[number])
            for number, waiting in self._down.items()
            if waiting and number not in self.silent
        ]
        return [*owner, *arrivals]

    def _pass_on(self, number: int, to: int | None, message: bytes) -> None:
        for other in self.buses if to is None else [to]:
            if other != number and other in self._down:
                self._down[other].append(lambda bus: bus.told(number, message))

    def settle(self) -> None:
        """Have all arrive."""
        while steps := self.steps():
            steps[0]()

    async def run(self) -> None:
        """Have all arrive, for ever."""
        while True:
            self.settle()
            await self.arrived.wait()
            self.arrived = anyio.Event()


def tasks_of(group: anyio.abc.TaskGroup) -> Tasks:
    """Those of one more worker."""
    return Tasks(group, Faults())
