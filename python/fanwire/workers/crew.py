"""Who is to be started, replaced and killed, and when: decisions alone; processes and the clock are handed in."""

import signal
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from typing import Protocol

from fanwire.logs import workers_log
from fanwire.relay.timing import Backoff

NUMBERS = 256
"""An id has eight bits for the worker."""
FAILED_STARTS_MAX = 5
"""So often in a row they end before they serve, and none does: then the program is at fault."""
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.25, 30.0
START_S = 30.0
"""So long a worker may take until it serves, unless ``worker_timeout`` is more: a program may load much."""
HURRY_S = 1.0
"""Behind a second signal, which has the workers end at once, they are killed so much later."""


class Process(Protocol):
    """One that runs, as ``subprocess.Popen`` has it."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """How it ended: its exit code, or minus the signal that killed it. None while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""

    def kill(self) -> None:
        """End it."""


class Worker:
    """One process that serves, or is about to, or no more."""

    def __init__(self, number: int, process: Process, now: float) -> None:
        self.number = number
        self.process = process
        self.started_at: float = now
        self.heard_at: float = now
        """When it last gave a sign, or was started."""
        self.ready_at: float | None = None
        """Since when it serves."""
        self.kill_at: float = inf
        """It was asked to end, and has time until then."""
        self.is_leaving = False
        self.why = ""
        """Why it was killed."""

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"

    @property
    def serves(self) -> bool:
        """Whether it accepts connections."""
        return self.ready_at is not None and not self.is_leaving


class Crew:
    """All workers of one supervisor. Each method is told what time it is, in seconds of one clock.

    Args:
        count: how many are to serve.
        timeout_s: within so many seconds one that serves has to give a sign.
        grace_s: for so long one may take to end.
        start: starts the process of the worker with a number.
        ask: asks a worker to end, as if there were no clients where it is hurried.
        served: called when all serve for the first time.
        restarted: called with the outcome when a restart is over; empty where it was none.
        backoff: how long to wait before another is started for one that ended.
    """

    def __init__(
        self,
        count: int,
        timeout_s: float,
        grace_s: float,
        start: Callable[[int], Process],
        ask: Callable[[Worker, bool], object],
        *,
        served: Callable[[], object],
        restarted: Callable[[str], object],
        backoff: Backoff | None = None,
    ) -> None:
        self._count, self._timeout_s, self._grace_s = count, timeout_s, grace_s
        self._start_process, self._ask = start, ask
        self._served: Callable[[], object] | None = served
        self._restarted = restarted
        self._backoff = backoff or Backoff(BACKOFF_MIN_S, BACKOFF_MAX_S)
        self._workers: dict[int, Worker] = {}
        self._last = -1
        # When others are due for those that ended.
        self._due: list[float] = []
        self._failed_starts = 0
        # When a start failed last, and when others are due for it.
        self._failed_at = self._again_at = -inf
        # In a restart: who is to be replaced yet, who is now, and by whom.
        self._old: deque[Worker] = deque()
        self._leaver: Worker | None = None
        self._newcomer: Worker | None = None
        self._is_restarting = False
        self._is_ending = False
        self.failure: str = ""
        """Why it was given up."""

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    @property
    def serving(self) -> int:
        """How many accept connections."""
        return sum(worker.serves for worker in self)

    @property
    def is_over(self) -> bool:
        """Whether it was to end, and nobody is left."""
        return self._is_ending and not self._workers

    def begin(self, now: float) -> None:
        """Start all."""
        self._due = [now] * self._count
        self.tick(now)

    def heard(self, worker: Worker, now: float, *, is_ready: bool = False) -> None:
        """A worker gave a sign, the first time that it serves."""
        worker.heard_at = now
        if not is_ready or worker.ready_at is not None:
            return
        worker.ready_at = now
        self._failed_starts = 0
        workers_log.debug("%s serves", worker)
        if worker is self._newcomer and self._leaver is not None:
            self._leave(self._leaver, now)
            self._newcomer = None
        if self._served is not None and self.serving == self._count:
            served, self._served = self._served, None
            served()
        self._go_on_restarting(now)

    def ended(self, worker: Worker, code: int, now: float) -> None:
        """A worker's process is gone; `code` is its exit code, or minus the signal that killed it."""
        del self._workers[worker.number]
        why = worker.why or ending(code)
        did_as_told = not code or (code == -signal.SIGTERM and worker.ready_at is None)
        if worker.is_leaving and did_as_told and not worker.why:
            workers_log.info("%s ended", worker)
        elif worker.is_leaving:
            workers_log.warning("%s ended: %s", worker, why)
        if worker is self._newcomer:
            self._newcomer = self._leaver = None
            self._stop_restarting(f"{worker} ended before it served: {why}; those that serve go on")
        elif worker is self._leaver:
            self._leaver = self._newcomer = None  # whoever was to replace it does
            if not worker.is_leaving:
                workers_log.error("%s ended while it was to be replaced: %s", worker, why)
        elif not worker.is_leaving:
            self._replace(worker, why, now)
        self._go_on_restarting(now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        for worker in self:
            if worker.kill_at <= now:
                worker.why = worker.why or f"it did not end within {self._grace_s:g} s, and was killed"
                self._kill(worker)
            elif not worker.is_leaving and self._overdue_at(worker) <= now:
                did_not = "its loop gave no sign" if worker.ready_at is not None else "it did not serve"
                worker.why = f"{did_not} for {self._time_of(worker):g} s, and it was killed"
                worker.heard_at = inf
                self._kill(worker)
        while self._due and self._due[0] <= now:
            self._due.pop(0)
            try:
                self._start(now)
            except OSError as error:  # too many processes, or no memory
                self._fail_to_start(f"a worker cannot be started: {error}", now, now)

    def next_at(self) -> float:
        """When ``tick`` has something to do; inf: never, unless something happens."""
        ends = (worker.kill_at for worker in self)
        signs = (self._overdue_at(worker) for worker in self if not worker.is_leaving)
        return min((*ends, *signs, *self._due[:1]), default=inf)

    def _time_of(self, worker: Worker) -> float:
        return self._timeout_s if worker.ready_at is not None else max(self._timeout_s, START_S)

    def _overdue_at(self, worker: Worker) -> float:
        return worker.heard_at + self._time_of(worker)

    def restart(self, now: float) -> None:
        """Replace all that live, one after another: the new one serves before the old one is asked to end."""
        if self._is_ending:
            return
        if not self._is_restarting:
            workers_log.info("restarting %s workers, one after another", len(self._workers))
        self._is_restarting = True
        self._old.extend(worker for worker in self if not worker.is_leaving and worker not in self._old)
        self._go_on_restarting(now)

    def end(self, now: float) -> None:
        """Ask all to end; asked again, they get a second."""
        if self._is_ending:
            for worker in self:
                self._ask(worker, True)
                worker.kill_at = min(worker.kill_at, now + HURRY_S)
            return
        self._is_ending = True
        self._due.clear()
        self._stop_restarting("the supervisor ends")
        for worker in self:
            self._leave(worker, now)

    def give_up(self, why: str, now: float) -> None:
        """End all, since something has gone that none can do without."""
        self.failure = why
        self.end(now)

    def _start(self, now: float) -> Worker:
        number = (self._last + 1) % NUMBERS
        while number in self._workers:
            number = (number + 1) % NUMBERS
        worker = self._workers[number] = Worker(number, self._start_process(number), now)
        self._last = number
        workers_log.debug("starting worker %s", number)
        return worker

    def _leave(self, worker: Worker, now: float) -> None:
        if not worker.is_leaving:
            worker.is_leaving = True
            worker.kill_at = now + self._grace_s
            self._ask(worker, False)

    def _kill(self, worker: Worker) -> None:
        worker.kill_at = inf
        worker.process.kill()

    def _replace(self, worker: Worker, why: str, now: float) -> None:
        if worker.ready_at is None:
            self._fail_to_start(f"{worker} ended before it served: {why}", worker.started_at, now)
        else:
            self._fail(f"{worker} ended: {why}", now - worker.ready_at, now)

    def _fail_to_start(self, what: str, started_at: float, now: float) -> None:
        """Those that had been started when another failed share its fate: they are copies of one process, perhaps."""
        if started_at <= self._failed_at and not self._is_ending:
            workers_log.info("%s, as another did", what)
            self._start_at(self._again_at)
            return
        self._failed_starts += 1
        self._failed_at = now
        self._again_at = self._fail(what, 0.0, now)

    def _fail(self, what: str, lived_s: float, now: float) -> float:
        """Gives when another is started; inf: never."""
        if self._is_ending:
            return inf
        if self._failed_starts >= FAILED_STARTS_MAX and not self.serving:
            self.failure = f"{what}; so it was {self._failed_starts} times in a row, and no worker serves"
            self.end(now)
            return inf
        wait_s = self._backoff.next(lived_s)
        self._start_at(now + wait_s)
        workers_log.error("%s; another is started in %.1f s", what, wait_s)
        return now + wait_s

    def _start_at(self, when: float) -> None:
        self._due.append(when)
        self._due.sort()

    def _go_on_restarting(self, now: float) -> None:
        """Take the next step, if the last one is done: all serve, and nobody is on the way out."""
        if not self._is_restarting or self._newcomer is not None or self._leaver in self._workers.values():
            return
        self._leaver = None
        if self.serving < self._count:
            return
        while self._old:
            worker = self._old.popleft()
            if worker in self._workers.values():
                try:
                    self._leaver, self._newcomer = worker, self._start(now)
                except OSError as error:
                    self._leaver = None
                    self._stop_restarting(f"a worker cannot be started: {error}; those that serve go on")
                return
        self._is_restarting = False
        workers_log.info("restarted: %s workers serve", self.serving)
        self._restarted("")

    def _stop_restarting(self, why: str) -> None:
        self._old.clear()
        if self._is_restarting:
            self._is_restarting = False
            workers_log.error("the restart is broken off: %s", why)
            self._restarted(why)


def ending(code: int) -> str:
    """How a process ended, as it is told."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
