"""Who asks to connect waits a moment while lanes that are watched here look for another worker to hold them.

A worker that is killed leaves its lanes and all its clients, who come back at once and take every core for seconds. To
those who have stayed what they watch comes first: it is a few connections for all of them.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from fanwire.faults import Faults
from fanwire.relay.machine import State
from fanwire.relay.timing import Timers

SHUT_S_MAX = 2.0
"""Nobody is kept out for longer, whatever becomes of the lanes."""
LOOK_S = 0.02
"""How often the lanes are looked at meanwhile."""


class Sought(Protocol):
    """A lane."""

    @property
    def state(self) -> State:
        """Where it is in its life."""


class Door:
    """Of one relay; open, nearly always."""

    def __init__(self, timers: Timers, faults: Faults) -> None:
        self._timers, self._faults = timers, faults
        self._lanes: list[Sought] = []
        self._until = 0.0
        # In the order in which they came: by connection, what lets each in.
        self._waiting: dict[int, Callable[[], object]] = {}

    def shut(self, lanes: Iterable[Sought]) -> None:
        """These have lost the worker that held them."""
        was_shut = bool(self._lanes)
        self._lanes += lanes
        if self._lanes:
            self._until = self._timers.now() + SHUT_S_MAX
            if not was_shut:
                self._timers.later(LOOK_S, self._look, self._open)

    @property
    def is_shut(self) -> bool:
        """Whether those who come are to wait."""
        return bool(self._lanes)

    def wait(self, connection: int, let_in: Callable[[], object]) -> Callable[[], object]:
        """Have `let_in` called when it is open; gives what calls that off."""
        self._waiting[connection] = let_in
        return lambda: self._waiting.pop(connection, None)

    def _look(self) -> None:
        self._lanes = [lane for lane in self._lanes if lane.state not in (State.LIVE, State.CLOSED)]
        if self._lanes and self._timers.now() < self._until:
            self._timers.later(LOOK_S, self._look, self._open)
        else:
            self._open()

    def _open(self) -> None:
        self._lanes = []
        waiting, self._waiting = self._waiting, {}
        for let_in in waiting.values():
            with self._faults.contained("relay.door", "one that waited was not let in"):
                let_in()
