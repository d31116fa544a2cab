"""What waits in Python on behalf of one client, in bytes, against ``client_bytes_max``. Not here: what becomes of it.

Something may be kept for a client until its turn, a backend's answer or the client's own has come. Whoever keeps it has
charged it here before, and releases it when it is dealt with. What finds no room is not acknowledged, so that the
client is not read from; where that cannot be, the request is answered with an error that names the bound.
"""

import sys
from collections import Counter

from fanwire.errors import LimitReached

CLIENT_BYTES_MAX = "client_bytes_max"
"""The option that holds the bound, as errors name it."""
ENTRY_BYTES = 512
"""What a message costs that waits, beside its bytes: event, strings, a place in a queue. An estimate with room,
whose sum tests/test_floods.py bounds."""
TASK_BYTES = 8192
"""What a task costs that waits, with its coroutines, context and scope. An estimate with room: a bare task is 4.9 kB
(tracemalloc, asyncio and trio)."""


class Budgets:
    """The budgets of one serving's clients. Lives in the event loop's thread."""

    __slots__ = ("bytes_max", "refused")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max: int = bytes_max
        """The bound of each client."""
        self.refused: Counter[str] = Counter()
        """How often something was refused, by the name of the bound."""

    def open(self) -> "Budget":
        """A new client's, with nothing on it."""
        return Budget(self)

    def refuse(self, name: str, value: int, bound: int) -> LimitReached:
        """Count that a client's request is over a bound of its own; the error that says so."""
        self.refused[name] += 1
        return LimitReached(name, value, bound)


class Budget:
    """One client's."""

    __slots__ = ("_budgets", "bytes")

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self.bytes: int = 0
        """What is charged now."""

    def charge(self, bytes: int) -> bool:
        """Set `bytes` (>= 0) aside; False, and nothing is, when that is over the bound: then the client has to wait."""
        if self.bytes + bytes > self._budgets.bytes_max:
            return False
        self.bytes += bytes
        return True

    def require(self, bytes: int) -> None:
        """``charge`` for what cannot wait. Raises LimitReached, which is counted, when it is over the bound."""
        if not self.charge(bytes):
            raise self._budgets.refuse(CLIENT_BYTES_MAX, self.bytes + bytes, self._budgets.bytes_max)

    def refuse(self, name: str, value: int, bound: int) -> LimitReached:
        """Count that a request is over another bound of the client's; the error that says so."""
        return self._budgets.refuse(name, value, bound)

    @property
    def left(self) -> int:
        """How much may be charged."""
        return self._budgets.bytes_max - self.bytes

    def release(self, bytes: int) -> None:
        """Give back what was charged, once."""
        self.bytes -= bytes
        assert self.bytes >= 0, "more was released than charged"


def weigh(value: object, most: int) -> int:
    """What a value costs that was read from JSON or MessagePack, in bytes; over `most` it may be less than it is.

    A list of empty lists is 20 times what it was on the wire.
    """
    bytes = 0
    waiting = [value]
    while waiting and bytes <= most:
        one = waiting.pop()
        bytes += sys.getsizeof(one)
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += one
            waiting += one.values()
    return bytes
