"""Times of a relay: delays that can be called off, and how long to wait before the next attempt."""

import random
from collections.abc import Callable

import anyio

from fanwire._loop import ends_task
from fanwire.faults import Tasks


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


class Backoff:
    """Exponential, with jitter over the whole of it: who failed together does not come back together."""

    __slots__ = ("_max", "_min", "_next")

    def __init__(self, min_s: float, max_s: float) -> None:
        self._min, self._max = min_s, max_s
        self._next = min_s

    def next(self) -> float:
        """Seconds until the next attempt."""
        wait = random.uniform(0.5, 1.0) * self._next
        self._next = min(self._next * 2, self._max)
        return wait

    def reset(self) -> None:
        """It worked: the next failure begins anew."""
        self._next = self._min


class Bucket:
    """A token bucket: so many a second, as many at once."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._at = 0.0

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
