"""What the admin side of each worker has in common: the hub, the engine, and the other workers to be asked.

A question has a kind; each worker answers it of itself alone, and whoever was asked by an operator puts the answers
together. Nothing here blocks the event loop: what waits for a shard does so in a thread.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from fanwire._engine import Look
from fanwire._loop import has_to_be_awaited
from fanwire.admin.problems import Problem
from fanwire.attaching import Attaching
from fanwire.serving import Life
from fanwire.workers.bus import NOT_SENT

T = TypeVar("T")
THREADS = 4
"""So many questions wait for shards at once, in each worker."""
ANSWER_S = 2.0
PREFIX = "admin."


@dataclass(frozen=True, slots=True)
class MadeWith:
    """What the hub was made with, as it may be told."""

    backbone_url: str | None = None
    settings: Sequence[tuple[str, str, str]] = ()
    """Each with its value and its source, where a file or a command line has them."""


class Desk:
    """That of one serving. In the event loop's thread."""

    def __init__(self, hub: Attaching, life: Life, told: MadeWith) -> None:
        self.hub, self.life, self.told = hub, life, told
        self.engine = life.engine
        self.look: Look = Look(life.engine)
        self.pump = life.pump
        self._bus = life.pump.everyone
        self._answers: dict[str, Callable[[Any], Any]] = {}
        self._limiter = CapacityLimiter(THREADS)

    @property
    def number(self) -> int:
        """Of this worker."""
        return 0 if self._bus is None else self._bus.number

    @property
    def others(self) -> frozenset[int]:
        """The other workers, of all machines."""
        return frozenset() if self._bus is None else self._bus.others

    @property
    def workers(self) -> list[int]:
        """All of them, in the order in which lists have them."""
        return sorted({self.number, *self.others})

    def on(self, kind: str, answer: Callable[[Any], Any]) -> None:
        """Have `answer(message)`, async or not, tell of this worker, whoever asks."""
        self._answers[kind] = answer
        if self._bus is not None:
            self._bus.on_question(PREFIX + kind, lambda worker, message: answer(message))

    async def here(self, kind: str, message: Any) -> Any:
        """What this worker says of itself."""
        answer = self._answers[kind](message)
        return await answer if has_to_be_awaited(answer) else answer

    async def ask(self, worker: int, kind: str, message: Any) -> Any:
        """What one says; None of one that is gone, or does not answer."""
        if worker == self.number:
            return await self.here(kind, message)
        if self._bus is None or worker not in self._bus.others:
            return None
        try:
            return (await self._bus.ask(PREFIX + kind, message, worker, timeout_s=ANSWER_S)).get(worker)
        except NOT_SENT as error:
            raise Problem("apart", error) from error

    async def ask_all(self, kind: str, message: Any) -> tuple[dict[int, Any], list[int]]:
        """What all say, by their numbers, and who does not answer."""
        others, answers = self.others, {self.number: await self.here(kind, message)}
        if self._bus is not None:
            with suppress(*NOT_SENT):
                answers.update(await self._bus.ask(PREFIX + kind, message, timeout_s=ANSWER_S))
        return dict(sorted(answers.items())), sorted((others & self.others) - answers.keys())

    def let_go(self) -> None:
        """Cut the circles of references: nothing is asked any more."""
        vars(self).clear()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call what may wait for a shard."""
        return await run_sync(function, limiter=self._limiter, abandon_on_cancel=True)


async def each(functions: list[Callable[[], Awaitable[T]]]) -> list[T]:
    """What all of them give, which are awaited together."""
    results: dict[int, T] = {}

    async def note(index: int, function: Callable[[], Awaitable[T]]) -> None:
        results[index] = await function()

    async with anyio.create_task_group() as tasks:
        for index, function in enumerate(functions):
            tasks.start_soon(partial(note, index, function))
    return [results[index] for index in range(len(functions))]
