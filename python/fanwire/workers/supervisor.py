"""The supervisor's loop: signals, processes, and who asks at its socket. What is done about them is the crew's."""

import json
import os
import secrets
import selectors
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic
from typing import Any

from fanwire._engine import HeldAddress, Sequencer, Settings
from fanwire.backbone import Backbone, for_engine
from fanwire.logs import workers_log
from fanwire.workers.crew import Crew, Process, Worker
from fanwire.workers.folder import Folder
from fanwire.workers.seat import END, GRACE_S, HURRY, READY, SEQUENCER, Seat
from fanwire.workers.starting import Copies, Rerun
from fanwire.workers.systemd import VARIABLES, Notifier

WAIT_MAX_S = 5.0
"""So long what the sequencer has to say waits for the log, at most."""
ASKERS_MAX = 16
SIGNALS = tuple(one for one in signal.Signals if one.name in ("SIGTERM", "SIGINT", "SIGUSR2", "SIGCHLD"))


class Supervisor:
    """Has `count` workers serve what `held` listens at, until a signal or ``end_soon``.

    Args:
        timeout_s: within so many seconds a worker has to give a sign.
        settings: what each worker's engine has to have.
        grace_s: for so long a worker may take to close its clients.
        program: what ``Zygote.program`` is, where workers are to be copies of one process that has loaded the program,
            which must then do nothing before it runs what two could not do. None: each runs it again.
        backbone: what orders for several machines, in this one's place.
        admin: where the workers' admin sides listen.

    Raises:
        RuntimeError: see ``command``; or this is not the program's main thread, which alone hears of signals.
        OSError: see ``Folder``.
    """

    def __init__(
        self,
        held: HeldAddress,
        count: int,
        timeout_s: float,
        grace_s: float,
        settings: Settings,
        program: Mapping[str, Any] | None = None,
        backbone: Backbone | None = None,
        admin: Sequence[HeldAddress] = (),
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("workers need the program's main thread: it alone hears of signals")
        self._held, self._count, self._timeout_s = held, count, timeout_s
        admin_numbers = [number for one in admin for number in one.descriptors]
        self._admin = f"fd:{','.join(map(str, admin_numbers))}" if admin_numbers else ""
        environment = {name: text for name, text in os.environ.items() if name not in VARIABLES}
        self._selector = selectors.DefaultSelector()
        if program is None:
            self._starting = Rerun(environment)
        else:
            self._starting = Copies(environment, [*held.descriptors, *admin_numbers], self._selector, program)
        self._folder = Folder(os.environ)
        try:
            self._sequencer = Sequencer(settings, str(self._folder.path / SEQUENCER), for_engine(backbone))
        except BaseException:
            self._folder.close()
            raise
        self._key = secrets.token_hex(32)
        self._spans_machines = backbone is not None
        self._crew = Crew(
            count,
            timeout_s,
            grace_s + GRACE_S,
            self._start,
            self._ask_to_end,
            served=self._tell_served,
            restarted=self._answer,
        )
        self._links: dict[socket.socket, int] = {}
        self._askers: dict[socket.socket, bool] = {}
        self._notifier = Notifier(os.environ)
        self._notify_at = inf
        self._woken, self._waking = socket.socketpair()
        for end in (self._woken, self._waking):
            end.setblocking(False)

    def run(self) -> None:
        """Returns when all workers have ended.

        Raises:
            SystemExit: they end before they serve, time and again.
        """
        try:
            with self._signals():
                self._selector.register(self._woken, selectors.EVENT_READ, self._hear_signals)
                self._selector.register(self._folder.socket, selectors.EVENT_READ, self._accept)
                self._crew.begin(monotonic())
                while not self._crew.is_over:
                    self._turn()
        finally:
            self._close()
        if self._crew.failure:
            raise SystemExit(f"fanwire: {self._crew.failure}")

    def end_soon(self) -> None:
        """As SIGTERM; any thread."""
        with suppress(OSError):  # it has ended, or has heard enough
            self._waking.send(bytes([signal.SIGTERM]))

    def _turn(self) -> None:
        wait_s = min(self._crew.next_at(), self._notify_at) - monotonic()
        for key, _ in self._selector.select(min(max(wait_s, 0.0), WAIT_MAX_S)):
            key.data(key.fileobj)
        self._starting.tend()
        now = monotonic()
        for worker in self._crew:
            code = worker.process.poll()
            if code is not None:
                for link in self._links_of(worker):
                    self._drop(link)  # a copy that was lost with its zygote ends by that
                self._crew.ended(worker, code, now)
        self._starting.bury([worker.process.pid for worker in self._crew])
        self._crew.tick(now)
        self._tell_of_sequencer(now)
        if now >= self._notify_at:
            self._notifier.tell("WATCHDOG=1")
            self._notify_at = now + self._notifier.watchdog_s

    def _tell_of_sequencer(self, now: float) -> None:
        lines, failure = self._sequencer.take_lines()
        for level, line in lines:
            workers_log.log(level, "%s", line)
        if failure is not None and not self._crew.failure:
            self._crew.give_up(f"what orders the publications of all workers has died: {failure}", now)

    def _hear_signals(self, woken: socket.socket) -> None:
        for number in woken.recv(256):
            if number in (signal.SIGTERM, signal.SIGINT):
                self._notifier.tell("STOPPING=1")
                workers_log.info("draining")
                self._crew.end(monotonic())
            elif number == signal.SIGUSR2:
                self._restart()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        waking = signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(waking)
            for number, handler in before.items():
                signal.signal(number, handler)

    # Workers

    def _restart(self) -> None:
        self._starting.renew()
        self._crew.restart(monotonic())

    def _start(self, number: int) -> Process:
        ours, theirs = socket.socketpair()
        seat = Seat(
            number,
            self._count,
            f"fd:{','.join(map(str, self._held.descriptors))}",
            theirs.fileno(),
            str(self._folder.path),
            self._timeout_s,
            os.getpid(),
            self._key,
            self._spans_machines,
            self._admin,
        )
        try:
            process = self._starting.start(seat, theirs)
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self._links[ours] = number
        self._selector.register(ours, selectors.EVENT_READ, self._hear)
        return process

    def _ask_to_end(self, worker: Worker, is_hurried: bool) -> None:
        links = self._links_of(worker)
        if worker.ready_at is None or not links:
            worker.process.send_signal(signal.SIGTERM)  # it does not listen yet
        for link in links:
            with suppress(OSError):  # it has just ended
                link.send(HURRY if is_hurried else END)

    def _links_of(self, worker: Worker) -> list[socket.socket]:
        return [link for link, number in self._links.items() if number == worker.number]

    def _hear(self, link: socket.socket) -> None:
        try:
            signs = link.recv(4_096)
        except OSError:
            signs = b""
        number = self._links[link]
        if not signs:
            self._drop(link)
            return
        for worker in self._crew:
            if worker.number == number:
                self._crew.heard(worker, monotonic(), is_ready=READY in signs)

    def _drop(self, link: socket.socket) -> None:
        if link.fileno() < 0:  # in the same turn
            return
        self._selector.unregister(link)
        self._links.pop(link, None)
        self._askers.pop(link, None)
        link.close()

    def _tell_served(self) -> None:
        self._notifier.tell("READY=1", f"STATUS={self._count} workers serve on {self._held.address}")
        if self._notifier.watchdog_s:
            self._notify_at = monotonic()
        workers_log.info("serving on %s with %s workers", self._held.address, self._count)

    # Who asks

    def _accept(self, listener: socket.socket) -> None:
        try:
            asker, _ = listener.accept()
        except OSError:
            return
        if len(self._askers) >= ASKERS_MAX:
            asker.close()
            return
        asker.setblocking(False)
        self._askers[asker] = False
        self._selector.register(asker, selectors.EVENT_READ, self._ask)
        self._say(asker, {"address": self._held.address, "process": os.getpid(), "workers": self._count})

    def _ask(self, asker: socket.socket) -> None:
        try:
            asked = asker.recv(64)
        except OSError:
            asked = b""
        if asked == b"restart\n":
            self._askers[asker] = True
            self._restart()
        else:
            self._drop(asker)

    def _answer(self, failure: str) -> None:
        self._starting.settle(is_done=not failure)
        for asker in [asker for asker, waits in self._askers.items() if waits]:
            self._say(asker, {"failure": failure})
            if asker in self._askers:
                self._drop(asker)

    def _say(self, asker: socket.socket, said: Mapping[str, object]) -> None:
        try:
            asker.send(json.dumps(said).encode() + b"\n")
        except OSError:
            self._drop(asker)

    def _close(self) -> None:
        for worker in self._crew:  # an exception: nobody may be left
            worker.process.kill()
        for link in [*self._links, *self._askers]:
            self._drop(link)
        self._starting.close()
        self._selector.close()
        self._woken.close()
        self._waking.close()
        self._sequencer.close()
        self._folder.close()
