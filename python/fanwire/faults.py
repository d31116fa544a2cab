"""Exceptions that are not to end more than the request, connection or lane that they belong to. Not here: ending that.

Whoever catches one notes it here: it is logged once, with its traceback, and counted by where it was caught. What is
caught is everything but what ``fanwire._loop.ends_task`` names: a panic of the engine, a stray ``CancelledError`` or an
application's ``SystemExit`` is one client's trouble, too.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVarTuple, Unpack

import anyio
from anyio.abc import TaskGroup

from fanwire._loop import ends_task, is_cancelled, outlive_cancellation
from fanwire.logs import LOG_LINES_MAX, LOG_S, Sparing, hub_log

Ts = TypeVarTuple("Ts")


class Faults:
    """Those of one serving; ``Link.faults`` and ``Upstreams.faults`` lead here. In the event loop's thread."""

    __slots__ = ("_counts", "_sparing")

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._sparing = Sparing()  # by where, and what of it

    def note(self, where: str, error: BaseException, text: str, *arguments: object, of: str | None = None) -> None:
        """Log an exception that was caught, with its traceback, and count it. Raises nothing.

        Args:
            where: a short dotted word, such as ``pump.opening``; one of a fixed set, as each is a series of metrics.
            text: what could not be done, and for whom, with ``%``-formatting of `arguments`; never a token.
            of: what clients can make fail as often as they like, such as a method by its name; one of as many as the
                application has. Of it one line is written in a while, a warning without traceback.
        """
        self.count(where)
        with suppress(Exception):  # a log that cannot be written to, of all things, is not to end anybody
            if of is None:
                if self._may_log(where, logging.ERROR, LOG_LINES_MAX):
                    hub_log.error(text, *arguments, exc_info=error)
            elif self._may_log(f"{where} of {of!r}", logging.WARNING, 1):
                hub_log.warning(f"{text}: %s", *arguments, error)

    def tell(
        self, log: logging.Logger, level: int, what: str, text: str, *arguments: object, most: int = LOG_LINES_MAX
    ) -> None:
        """Log what is no fault, but what clients can cause as often as they like: `most` lines of `what` in a while."""
        with suppress(Exception):
            if self._may_log(what, level, most):
                log.log(level, text, *arguments)

    def _may_log(self, what: str, level: int, most: int) -> bool:
        may, left_out = self._sparing.ask(what, most)
        if left_out:
            hub_log.log(level, "%s: %d more were left out within %g s; they are counted", what, left_out, LOG_S)
        return may

    def count(self, where: str) -> None:
        """Count one that is logged elsewhere."""
        self._counts[where] += 1

    @contextmanager
    def contained(self, where: str, text: str, *arguments: object) -> Iterator[None]:
        """Run the body; what it raises ends it, and is noted. Not for the hot path: there stands a ``try``."""
        try:
            yield
        except BaseException as error:
            if ends_task(error):
                raise
            self.note(where, error, text, *arguments)

    @property
    def counts(self) -> dict[str, int]:
        """How many were caught where, since the start of serving."""
        return dict(self._counts)


class Tasks:
    """The hub's tasks: an exception in one of them ends that one, and is noted; the others go on."""

    __slots__ = ("faults", "group")

    def __init__(self, group: TaskGroup, faults: Faults) -> None:
        self.group = group
        """Whose they are."""
        self.faults = faults
        """Where it is noted."""

    def start_soon(
        self, function: Callable[[Unpack[Ts]], Awaitable[object]], *arguments: *Ts, where: str | None = None
    ) -> None:
        """Run `function` in a task of its own. Noted by `where`, else by its module and name."""
        self.group.start_soon(partial(self._guarded, where or place_of(function), function, arguments))

    async def _guarded(
        self, where: str, function: Callable[..., Awaitable[object]], arguments: tuple[object, ...]
    ) -> None:
        try:
            await function(*arguments)
        except BaseException as error:
            if not ends_task(error):
                self.faults.note(where, error, "a task of %s ended by an exception", where)
            elif isinstance(error, anyio.get_cancelled_exc_class()) and not is_cancelled():
                hub_log.debug("a task of %s was cancelled, and no other", where)  # which a task group cannot tell
            else:
                raise
        await outlive_cancellation()  # pending at a task's end, it would cancel the group


def place_of(function: Callable[..., object]) -> str:
    """A function of ours as metrics name it, such as ``relay.timing.wait``."""
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__name__", "task")
    return f"{module.removeprefix('fanwire.')}.{name.lstrip('_')}"
