"""What goes upstream for many: it is written here, from what a client's message says, never from the bytes it came in.

A call or message has one form (``canonical``) or none. What has none goes over the connection of the client that sent
it. Not here: connections, whose it is.
"""

from typing import Any, NamedTuple

import msgspec

from fanwire._engine import canonical, invocation
from fanwire.budget import ENTRY_BYTES
from fanwire.errors import LimitReached

BOUND = "upstream_message_bytes_max"
LONGEST_ID = "9" * 20
"""No number of a call's is longer."""


class SharedCall(NamedTuple):
    """A call of a SignalR backend in its one form: equal ones are one call, in the same bytes."""

    method: str
    """As the relay's settings write it."""
    protocol: str
    """``json`` or ``messagepack``."""
    arguments: bytes
    """An array, canonical."""

    @property
    def cost(self) -> int:
        """What each client is charged for as long as it watches, in bytes: without it nothing of this would be kept."""
        return len(self.arguments) + ENTRY_BYTES

    def record(self, id: str) -> bytes:
        """The whole message; it holds nothing else: no header, no member that a client added."""
        return invocation(self.protocol, id, self.method, self.arguments)

    def check(self, bytes_max: int, *others: str) -> None:
        """Raise LimitReached if its message is too large, with the longest id, for this method or one of `others`."""
        longest = max((self.method, *others), key=len)
        count = len(self._replace(method=longest).record(LONGEST_ID))
        if count > bytes_max:
            raise too_large(count, bytes_max)


def too_large(count: int, bytes_max: int) -> LimitReached:
    """The error of a message of so many bytes that may not go upstream for others."""
    return LimitReached(BOUND, count, bytes_max)


def call_of(method: str, protocol: str, arguments: bytes) -> SharedCall | None:
    """A client's call in its one form; None where it has none."""
    form = canonical(protocol, arguments)
    return None if form is None else SharedCall(method, protocol, form)


def message_of(data: bytes) -> tuple[bytes, Any] | None:
    """A client's JSON text in its one form, and what it says; None where it has none, or is no JSON."""
    form = canonical("json", data)
    return None if form is None else (form, msgspec.json.decode(form))
