"""Times of a relay: delays that can be called off, and how long to wait before the next attempt."""

import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVarTuple, Unpack

import anyio

from fanwire._loop import ends_task
from fanwire.faults import Tasks, place_of

Ts = TypeVarTuple("Ts")


class RelayTasks(Tasks):
    """Those of one relay, which end with it."""

    __slots__ = ("_is_over", "_scopes")

    def __init__(self, tasks: Tasks) -> None:
        super().__init__(tasks.group, tasks.faults)
        self._scopes: set[anyio.CancelScope] = set()
        self._is_over = False

    def start_soon(
        self, function: Callable[[Unpack[Ts]], Awaitable[object]], *arguments: *Ts, where: str | None = None
    ) -> None:
        """See ``Tasks``; nothing begins once they have ended."""
        if not self._is_over:
            super().start_soon(self._scoped, function, arguments, where=where or place_of(function))

    async def _scoped(self, function: Callable[..., Awaitable[object]], arguments: tuple[object, ...]) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if not self._is_over:
                    await function(*arguments)
            finally:
                self._scopes.discard(scope)

    def end(self) -> None:
        """Cancel them."""
        self._is_over = True
        for scope in list(self._scopes):
            scope.cancel()


class Delay:
    """Calls a function later, unless it is called off before. In the event loop's thread.

    Args:
        fail: called where the function raised, which is noted.
    """

    __slots__ = ("_scope",)

    def __init__(
        self, tasks: Tasks, seconds: float, function: Callable[[], object], fail: Callable[[], object] | None = None
    ) -> None:
        self._scope = anyio.CancelScope()
        tasks.start_soon(self._wait, seconds, function, fail)

    async def _wait(self, seconds: float, function: Callable[[], object], fail: Callable[[], object] | None) -> None:
        with self._scope:
            await anyio.sleep(seconds)
        if self._scope.cancel_called:
            return
        try:
            function()
        except BaseException as error:  # the task notes it
            if fail is not None and not ends_task(error):
                fail()
            raise

    def call_off(self) -> None:
        """The function is not called any more."""
        self._scope.cancel()


class Timers:
    """The clock of a relay, and what it does later. Tests put one of their own in its place."""

    __slots__ = ("_tasks",)

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return monotonic()

    def later(self, seconds: float, function: Callable[[], object], fail: Callable[[], object] | None = None) -> Delay:
        """See ``Delay``."""
        return Delay(self._tasks, seconds, function, fail)


class Backoff:
    """Exponential, with jitter over its upper half: who failed together does not come back together.

    Args:
        chance: a number between two others.
    """

    __slots__ = ("_chance", "_max", "_min", "_next")

    def __init__(self, min_s: float, max_s: float, chance: Callable[[float, float], float] = random.uniform) -> None:
        self._min, self._max, self._chance = min_s, max_s, chance
        self._next = min_s

    def next(self, lived_s: float = 0.0) -> float:
        """Seconds until the next attempt, after a connection that was good for `lived_s`.

        It begins anew behind one that lasted: a backend that accepts and hangs up again is tried ever more seldom.
        """
        if lived_s >= self._max:
            self._next = self._min
        wait = self._chance(0.5, 1.0) * self._next
        self._next = min(self._next * 2, self._max)
        return wait


class Bucket:
    """A token bucket: so many a second, as many at once."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._at = 0.0

    def set_rate(self, rate: float) -> None:
        """So many a second from now on, and as many at once."""
        self._rate = rate

    def take(self, now: float) -> float:
        """Take a token, in debt if need be; gives how many seconds too early that is, 0 when there was one."""
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)

    @property
    def wait(self) -> float:
        """Seconds until there is a token, as of the last attempt."""
        return max(0.0, (1 - self._tokens) / self._rate)

    def try_take(self, now: float) -> bool:
        """Take a token if there is one."""
        if self.take(now) > 0:
            self._tokens += 1
            return False
        return True


class Pace:
    """A token bucket for each of many, who keep one number apiece: so many a second, as many at once.

    The number is when all that one has done is made up for, by the clock; 0 for one that has done nothing.
    """

    __slots__ = ("_each", "_room")

    def __init__(self, rate: float) -> None:
        self._each = 1 / rate
        self._room = 1 - 0.999 * self._each  # sums of fractions are a little more, or less

    def take(self, until: float, now: float) -> float | None:
        """The number of who does one thing more; None where that is too early."""
        until = max(until, now)
        return None if until - now > self._room else until + self._each
