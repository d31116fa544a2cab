"""What is logged, and under which name. Queries, cookies and Authorization never are: they carry tokens."""

import logging
from collections.abc import Iterator
from time import monotonic

from fanwire.wording import printable, shortened

LOG_S = 10.0
LOG_LINES_MAX = 100
"""So many lines of one kind are written within so many seconds; more are counted, and told of in one line."""
LOG_TEXT_MAX = 500
"""Characters of what a peer said in a line: a backend's last words may have a mebibyte."""

hub_log = logging.getLogger("fanwire.hub")
"""Callbacks that raised, with their traceback; the start and the end of serving."""

engine_log = logging.getLogger("fanwire.engine")
"""What the engine has to say."""

workers_log = logging.getLogger("fanwire.workers")
"""Processes that a supervisor has started, and why they ended."""

relay_log = logging.getLogger("fanwire.relay")
"""Lanes that go down and come back; what a relay's configuration should name."""

source_log = logging.getLogger("fanwire.source")
"""Sources that are read, their connections, and entries that are left out."""


class Sparing:
    """Counts lines by their kind: whoever can cause one must not be able to fill a disk with them."""

    __slots__ = ("_kinds", "_settled_at")

    def __init__(self) -> None:
        # Until when lines are counted together, how many were written, and how many left out.
        self._kinds: dict[str, tuple[float, int, int]] = {}
        # When those that are over were last looked for.
        self._settled_at = 0.0

    def ask(self, kind: str, most: int = LOG_LINES_MAX) -> tuple[bool, int]:
        """Whether one more is written, and how many were left out before, which is to be told now."""
        now = monotonic()
        until, written, left_out = self._kinds.get(kind, (0.0, 0, 0))
        told = left_out if now >= until else 0
        if now >= until:
            until, written, left_out = now + LOG_S, 0, 0
        may = written < most
        self._kinds[kind] = until, written + may, left_out + (not may)
        return may, told

    def settle(self) -> Iterator[tuple[str, int]]:
        """Kinds whose while is over and of which some were left out, each with how many; it forgets those that are."""
        now = monotonic()
        if now < self._settled_at + LOG_S / 10:
            return
        self._settled_at = now
        for kind in [kind for kind, (until, _, _) in self._kinds.items() if now >= until]:
            _, _, left_out = self._kinds.pop(kind)
            if left_out:
                yield kind, left_out


def cut(argument: object) -> object:
    """The argument of a line, a text no longer than ``LOG_TEXT_MAX``, and printable: a peer may have written it."""
    return printable(shortened(argument, LOG_TEXT_MAX)) if isinstance(argument, str) else argument


class SparingFilter(logging.Filter):
    """A relay tells of clients and lanes, as often as clients like. A kind is a line's text without arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.sparing = Sparing()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is written; what is too long in it is cut."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(cut, record.args))
        may, left_out = self.sparing.ask(record.msg)
        if left_out:
            record.msg += f" ({left_out} more of this kind were left out within {LOG_S:g} s)"
        return may


relay_log.addFilter(SparingFilter())


class NumberFilter(logging.Filter):
    """A worker's lines begin with its number: several write the same log."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number, self._prefix = number, f"worker {number}: "

    def filter(self, record: logging.LogRecord) -> bool:
        """True; the line has the number in front, and the record as ``worker``."""
        record.worker = self._number
        record.msg = f"{self._prefix}{record.msg}"
        return True


def log_as_worker(number: int) -> None:
    """Have each line of this process say which worker it is."""
    for log in (hub_log, engine_log, workers_log, relay_log, source_log):
        log.addFilter(NumberFilter(number))


def name_of(connection: int) -> str:
    """A connection as logs name it, ``c17@2``: place 17, in its 2nd life; with ``/3`` where it is of shard 3."""
    shard, generation, slot = connection >> 48 & 0xFF, connection >> 24 & 0xFF_FFFF, connection & 0xFF_FFFF
    return f"c{slot}@{generation}" + (f"/{shard}" if shard else "")
