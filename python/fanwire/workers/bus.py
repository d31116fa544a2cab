"""What the workers of one hub tell and ask one another: small messages of Python's own. Not here: publications.

There are two: one for the workers of a machine, and one for those of all machines that have the same backbone.

A message has a kind, which says who hears it in each worker. What one worker tells another comes in order, and in order
with what it publishes; between what two workers tell there is none. Nothing is kept for who comes later: who needs a
state tells it to those who come (``on_change``).
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import count
from typing import Any

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from fanwire._engine import Engine
from fanwire._loop import ends_task, has_to_be_awaited
from fanwire.errors import LimitReached, WorkersApart
from fanwire.faults import Tasks
from fanwire.logs import workers_log
from fanwire.workers.seat import Seat
from fanwire.workers.siblings import Sibling

MESSAGE_BYTES_MAX = 1 << 20
"""Of one message, kind and all: others wait behind it."""
PIECE_BYTES_MAX = MESSAGE_BYTES_MAX // 4
"""Of one of several messages that a state is told in."""
ASKS_MAX = 1_024
"""What one worker may be waiting for at once."""
NOT_SENT = (LimitReached, WorkersApart)
"""What ``tell`` and ``ask`` raise where there is no room, or no way."""
PAUSE_S = 0.1
"""Before it is tried again to tell what could not be sent."""
ANSWERS_MAX = 1_024
"""Answers that may be in the making at once, for all who ask; who asks beyond that gets none."""

NUMBERS = 256
"""From here on a number is of another machine's worker: which machine it is, times this, and its number there."""

Hear = Callable[[int, Any], object]
Answer = Callable[[int, Any], Any | Awaitable[Any]]


class Sort:
    """What begins a message."""

    TOLD = 0
    """Then come its kind, and what is told."""
    ASKED = 1
    """Its kind, its number, and what is asked."""
    ANSWERED = 2
    """The number of the question, and the answer."""
    UNANSWERED = 3
    """The number of the question to which there is none."""


class _Asking:
    """A question, those who are yet to answer it, and what the others have answered."""

    __slots__ = ("answers", "is_over", "waits_for")

    def __init__(self, waits_for: set[int]) -> None:
        self.waits_for = waits_for
        self.answers: dict[int, Any] = {}
        self.is_over = anyio.Event()

    def leave_out(self, worker: int) -> None:
        """It has answered, or will not."""
        self.waits_for.discard(worker)
        if not self.waits_for:
            self.is_over.set()


class Bus:
    """One worker's end of it. In the event loop's thread, but for ``tell``, ``number`` and ``others``: any thread.

    Args:
        number: of this worker.
        send: takes a message to one worker, or with None to all others; ``Engine.tell``. Waits for nobody.
        tasks: where async answers are made.
        is_apart: whether this worker cannot reach the others; ``Engine.is_apart``.
    """

    def __init__(
        self,
        number: int,
        send: Callable[[int | None, bytes], None],
        tasks: Tasks,
        is_apart: Callable[[], bool] = lambda: False,
    ) -> None:
        self.number = number
        """Of this worker, 0 to 255: ids of its connections begin with it."""
        self.others: frozenset[int] = frozenset()
        """The workers that are there now, without this one."""
        self.spans_machines: bool = False
        """Whether there may be others on other machines, which are heard of when the backbone is reached."""
        self._ages: dict[int, int] = {}
        self._send, self._is_apart = send, is_apart
        self._tasks, self._faults = tasks, tasks.faults
        self._hear: dict[str, Hear] = {}
        self._answer: dict[str, Answer] = {}
        self._changes: list[Callable[[int, bool], object]] = []
        self._ids = count()
        self._asking: dict[int, _Asking] = {}
        self._answering = 0

    @property
    def is_apart(self) -> bool:
        """Whether this worker cannot reach the others; then it hears that all have gone, and later that they came."""
        return self._is_apart()

    def age(self, worker: int) -> int:
        """When its machine came: 0 for those of this machine, below it for one that was there before this one."""
        return self._ages.get(worker, 0)

    # What its users do

    def on(self, kind: str, hear: Hear) -> None:
        """Have `hear(worker, message)` called with each message of a kind, at once; it does not wait."""
        assert kind not in self._hear, kind
        self._hear[kind] = hear

    def on_question(self, kind: str, answer: Answer) -> None:
        """Have `answer(worker, message)` answer the questions of a kind; an async one does so in a task of its own."""
        assert kind not in self._answer, kind
        self._answer[kind] = answer

    def on_change(self, hear: Callable[[int, bool], object]) -> None:
        """Have `hear(worker, True)` called when one has come, and `hear(worker, False)` when it is gone.

        What is told to who comes, when it is heard of, is the first that it gets, but for what goes to all just then.
        """
        self._changes.append(hear)

    def tell(self, kind: str, message: Any, to: int | None = None) -> None:
        """Have a worker hear a message, or all others; any thread, never waits. One that is not there is no error.

        Args:
            message: what MessagePack has: None, numbers, ``str``, ``bytes``, lists, dicts; and dataclasses, as dicts.

        Raises:
            LimitReached: the message has more than 1 MiB, or too much waits to be sent; nobody has it then.
            WorkersApart: the supervisor cannot be reached.
            TypeError: it is something else.
        """
        self._tell([Sort.TOLD, kind, message], to)

    def tell_at_last(self, kind: str, message: Callable[[], Any], to: int | None = None) -> None:
        """In the loop's thread: tell what `message()` gives, as soon as there is room for it."""
        for worker in self.others if to is None else (to,):
            tell = partial(self._tell_newest, kind, message, worker)
            self._tasks.start_soon(self.tell_surely, worker, tell, where="bus.tell")

    def _tell_newest(self, kind: str, message: Callable[[], Any], to: int) -> None:
        self.tell(kind, message(), to)

    async def tell_surely(self, to: int, tell: Callable[[], None]) -> None:
        """Call `tell` until there is room for what it tells a worker, or that is gone."""
        while to in self.others:
            try:
                tell()
                return
            except NOT_SENT:
                await anyio.sleep(PAUSE_S)

    async def ask(self, kind: str, message: Any, to: int | None = None, timeout_s: float = 1.0) -> dict[int, Any]:
        """Ask a worker, or all others that are there; gives what each has answered within the time.

        Who goes meanwhile, does not know the kind, or fails to answer is left out, and waited for no longer.

        Raises:
            LimitReached, WorkersApart: as ``tell``; or 1,024 questions wait already.
        """
        if len(self._asking) >= ASKS_MAX:
            raise LimitReached("questions to other workers", ASKS_MAX + 1, ASKS_MAX)
        waits_for = set(self.others if to is None else self.others & {to})
        if not waits_for:
            await checkpoint()
            return {}
        id, asking = next(self._ids), _Asking(waits_for)
        self._asking[id] = asking
        try:
            self._tell([Sort.ASKED, kind, id, message], to)
            with anyio.move_on_after(timeout_s):
                await asking.is_over.wait()
        finally:
            del self._asking[id]
        return asking.answers

    def end(self) -> None:
        """Nobody answers any more: who asked has what there is."""
        for asking in self._asking.values():
            asking.is_over.set()

    def let_go(self) -> None:
        """Cut the circles of references: nothing comes any more, and nothing is sent."""
        self._send, self._is_apart = _nowhere, bool
        self._changes.clear()
        self._hear.clear()
        self._answer.clear()

    # What the engine's events are dealt with by

    def changed(self, worker: int, has_come: bool, age: int = 0) -> None:
        """A worker is there, or is not any more; `age` as ``age`` gives it."""
        if (worker in self.others) == has_come:
            return
        if has_come:
            self._ages[worker] = age
        else:
            self._ages.pop(worker, None)
        self.others = self.others | {worker} if has_come else self.others - {worker}
        if not has_come:
            for asking in list(self._asking.values()):
                asking.leave_out(worker)
        for hear in self._changes:
            with self._faults.contained("bus.change", "what the coming or going of worker %s changes", named(worker)):
                hear(worker, has_come)

    def told(self, worker: int, message: bytes) -> None:
        """A worker has sent something. What cannot be read, or is of a kind that nobody knows here, is counted."""
        if worker not in self.others:
            self._leave_out(worker, "a worker that is not there")
            return
        try:
            match msgspec.msgpack.decode(message):
                case [Sort.TOLD, str(kind), said]:
                    self._told(worker, kind, said)
                case [Sort.ASKED, str(kind), int(id), said]:
                    self._asked(worker, kind, id, said)
                case [Sort.ANSWERED, int(id), answer]:
                    self._answered(worker, id, answer)
                case [Sort.UNANSWERED, int(id)]:
                    self._answered(worker, id)
                case _:
                    self._leave_out(worker, "another version")
        except msgspec.DecodeError:
            self._leave_out(worker, "another version")

    def _told(self, worker: int, kind: str, message: Any) -> None:
        hear = self._hear.get(kind)
        if hear is None:
            self._leave_out(worker, f"kind {kind!r}")
            return
        with self._faults.contained(
            "bus.told", "what worker %s tells of %s could not be dealt with", named(worker), kind
        ):
            hear(worker, message)

    def _asked(self, worker: int, kind: str, id: int, message: Any) -> None:
        answer = self._answer.get(kind)
        if answer is None:
            self._leave_out(worker, f"kind {kind!r}")
        elif self._answering >= ANSWERS_MAX:
            self._leave_out(worker, "more questions than can be answered")
        else:
            try:
                answered = answer(worker, message)
                if has_to_be_awaited(answered):
                    self._answering += 1
                    self._tasks.start_soon(self._answer_later, worker, kind, id, answered, where="bus.answer")
                    return
                self._tell([Sort.ANSWERED, id, answered], worker)
                return
            except BaseException as error:
                self._failed_to_answer(worker, kind, error)
        self._tell_nothing(worker, id)

    async def _answer_later(self, worker: int, kind: str, id: int, answer: Awaitable[Any]) -> None:
        try:
            self._tell([Sort.ANSWERED, id, await answer], worker)
        except BaseException as error:
            self._tell_nothing(worker, id)
            self._failed_to_answer(worker, kind, error)
        finally:
            self._answering -= 1

    def _failed_to_answer(self, worker: int, kind: str, error: BaseException) -> None:
        if ends_task(error):
            raise error
        self._faults.note("bus.answer", error, "worker %s could not be answered about %s", named(worker), kind)

    def _tell_nothing(self, worker: int, id: int) -> None:
        with self._faults.contained("bus.answer", "worker %s is waiting for an answer in vain", named(worker)):
            self._tell([Sort.UNANSWERED, id], worker)

    def _answered(self, worker: int, id: int, *answer: Any) -> None:
        asking = self._asking.get(id)
        if asking is not None and worker in asking.waits_for:  # else it was too late
            asking.answers.update((worker, one) for one in answer)
            asking.leave_out(worker)

    def _leave_out(self, worker: int, what: str) -> None:
        self._faults.count("bus.left_out")
        text = "what worker %s sends is left out: %s"
        self._faults.tell(workers_log, logging.WARNING, f"messages left out: {what}", text, named(worker), what, most=1)

    def _tell(self, message: list[Any], to: int | None) -> None:
        encoded = msgspec.msgpack.encode(message)
        if len(encoded) > MESSAGE_BYTES_MAX:
            raise LimitReached("bytes of one message to other workers", len(encoded), MESSAGE_BYTES_MAX)
        self._send(to, encoded)


def _nowhere(to: int | None, message: bytes) -> None:
    """Serving has ended."""


def pieces(items: Iterable[Any]) -> Iterator[list[Any]]:
    """What is to be told as several messages, of about ``PIECE_BYTES_MAX`` at most."""
    piece: list[Any] = []
    size = 0
    for item in items:
        length = len(msgspec.msgpack.encode(item))
        if piece and size + length > PIECE_BYTES_MAX:
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += length
    if piece:
        yield piece


def named(worker: int) -> str:
    """A worker, as a line in the log has it."""
    machine, number = divmod(worker, NUMBERS)
    return f"{number} of machine {machine}" if machine else str(number)


def buses_of(seat: Seat | Sibling | None, engine: Engine, tasks: Tasks) -> tuple[Bus | None, Bus | None]:
    """Those of the worker at this seat, whose engine it is: to others of its machine, and to those of all."""
    if seat is None:
        return None, None
    machine, all_machines = (
        Bus(seat.number, send, tasks, lambda: engine.is_apart)
        for send in (engine.tell, partial(engine.tell, is_for_all=True))
    )
    all_machines.spans_machines = seat.spans_machines
    return machine, all_machines
