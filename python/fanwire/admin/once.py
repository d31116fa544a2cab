"""Requests that may be repeated: what a key was answered before is answered again, and nothing is done twice.

One worker remembers for all, the one of the lowest number: a repetition may come to another one than the first.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256
from time import monotonic

from fanwire.admin.problems import Problem

KEYS_MAX = 10_000
KEPT_S = 600.0
ANSWERS_BYTES_MAX = 16 << 20
"""Of all answers that are kept."""


class Once:
    """What one worker remembers."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        # By key: since when, what was asked, and what was answered; None while that is at work.
        self._known: OrderedDict[str, tuple[float, bytes, bytes | None]] = OrderedDict()
        self._bytes = 0

    async def answer(self, key: str, path: str, body: bytes, do: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `do` gives, or gave before. Raises what it raises, and a Problem for a key that cannot be used."""
        asked = sha256(path.encode() + b"\0" + body).digest()
        self._forget_old()
        known = self._known.get(key)
        if known is not None:
            _, before, answered = known
            if before != asked:
                raise Problem("key_reused", "that Idempotency-Key was used for another request")
            if answered is None:
                raise Problem("key_in_use", "the first request with that Idempotency-Key is still being worked on")
            return answered
        self._known[key] = self._now(), asked, None
        try:
            answered = await do()
        except BaseException:
            del self._known[key]  # nothing is known to have been done: it may be tried again
            raise
        self._known[key] = self._now(), asked, answered
        self._bytes += len(answered)
        return answered

    def _forget_old(self) -> None:
        until = self._now() - KEPT_S
        while self._known:
            key, (since, _, answered) = next(iter(self._known.items()))
            is_much = len(self._known) >= KEYS_MAX or self._bytes > ANSWERS_BYTES_MAX
            if answered is None or not (since < until or is_much):
                return
            del self._known[key]
            self._bytes -= len(answered)
