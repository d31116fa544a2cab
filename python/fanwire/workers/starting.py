"""How a supervisor's workers come to be: each runs the program again, or is a copy of a zygote that has loaded it.

The parent of a copy ends at once, so that the copy is this process's own child: whoever ends the zygote ends no worker,
and how each ended is known here.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fanwire._engine import adopt_orphans
from fanwire.logs import workers_log
from fanwire.workers.crew import Process, ending
from fanwire.workers.seat import Seat
from fanwire.workers.zygote import MESSAGE_BYTES_MAX, Zygote

END_S = 1.0
"""So long a zygote may take to end before it is killed: it has nothing to do for it."""
UNKNOWN = 255
"""The exit code of one whose end was told to somebody else."""
ANEW = "each worker loads the program by itself: %s"


def command() -> list[str]:
    """How this program was started, to start it again.

    Raises:
        RuntimeError: it was typed in, or is otherwise nothing that can be started again.
    """
    given, name = sys.orig_argv[1:], sys.argv[0] if sys.argv else ""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if not sys.executable or name in ("", "-") or (file is None and name != "-c"):
        raise RuntimeError("workers run the same program again, and this one is no file, module or text of `-c`")
    if file is not None and name in given and Path(file).name == Path(name).name:
        given[given.index(name)] = file  # whole: it may have gone to another folder since
    return [sys.executable, *given]


class Rerun:
    """Each worker is the program, run again.

    Args:
        environment: what the processes get beside what each is told.

    Raises:
        RuntimeError: see ``command``.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._command, self._environment = command(), environment

    def start(self, seat: Seat, link: socket.socket) -> Process:
        """Start one; `link` is closed here once it has it. Raises OSError."""
        with link:
            return self._run(seat.environment(), seat.descriptors)

    def _run(self, environment: Mapping[str, str], descriptors: Sequence[int]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            env={**self._environment, **environment},
            pass_fds=descriptors,
            process_group=0,  # what is typed at a terminal is the supervisor's to pass on
        )

    def renew(self) -> None:
        """A restart begins: whoever is started from now on has the program as it is on the disk."""

    def settle(self, *, is_done: bool) -> None:
        """It is over; one that was broken off leaves things as they were."""

    def tend(self) -> None:
        """Do what is due, at each turn of the supervisor's loop."""

    def bury(self, workers: Collection[int]) -> None:
        """Forget children that have ended, but for these, of which others ask how they did."""

    def close(self) -> None:
        """Start no more."""


class Copies(Rerun):
    """Each worker is a copy of a zygote, which is started when a worker is wanted and there is none.

    A restart has a zygote of its own. Where it is broken off the former one goes on.

    Args:
        environment: what the processes get beside what each is told.
        listening: descriptors that all inherit.
        selector: where the zygote's answers are waited for; what is called is the ``data`` there.
        program: see ``Zygote.program``.

    Raises:
        RuntimeError: see ``command``.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        listening: Sequence[int],
        selector: selectors.BaseSelector,
        program: Mapping[str, Any],
    ) -> None:
        super().__init__(environment)
        self._listening, self._selector, self._program = listening, selector, program
        self._now: StartedZygote | None = None
        # While a restart is under way: the one from before it.
        self._before: StartedZygote | None = None
        self._all: list[StartedZygote] = []
        self._is_possible = True
        try:
            adopt_orphans(True)
        except OSError as error:
            self._is_possible = False
            workers_log.warning(ANEW, error)

    def start(self, seat: Seat, link: socket.socket) -> Process:
        """Have one copied, soon; `link` is closed here once it has it. Raises OSError."""
        if not self._is_possible:
            return super().start(seat, link)
        promised = Promised(seat, link)
        try:
            self._promise(promised)
        except BaseException:
            link.close()
            raise
        return promised

    def renew(self) -> None:
        """See ``Rerun``."""
        if self._now is not None and self._before is not None:
            self._now.leave()  # asked again
        elif self._now is not None:
            self._before = self._now
        self._now = None

    def settle(self, *, is_done: bool) -> None:
        """See ``Rerun``."""
        if self._before is not None and not is_done:
            self._now, self._before = self._before, self._now
        if self._before is not None:
            self._before.leave()
            self._before = None

    def tend(self) -> None:
        """Deal with zygotes that have ended."""
        for zygote in list(self._all):
            code = zygote.process.poll()
            if code is not None:
                self._hear(zygote)
                self._bury(zygote, code)

    def bury(self, workers: Collection[int]) -> None:
        """See ``Rerun``: orphans are this process's, such as what a worker had started, or a copy whose zygote was
        killed before it said so.
        """
        if any(zygote.is_copying for zygote in self._all):
            return  # the number of a worker is on its way
        known = {*workers, *(zygote.process.pid for zygote in self._all)}
        with suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in known:
                    return
                os.waitpid(ended.si_pid, 0)

    def close(self) -> None:
        """End all zygotes."""
        for zygote in self._all:
            zygote.leave()
        for zygote in self._all:
            try:
                zygote.process.wait(END_S)
            except subprocess.TimeoutExpired:
                zygote.process.kill()
                zygote.process.wait()
            for promised in zygote.give_up(UNKNOWN):
                promised.fail(zygote.process.pid, UNKNOWN)
            zygote.link.close()
        self._all.clear()
        with suppress(OSError):
            adopt_orphans(False)

    def _promise(self, *promised: "Promised") -> None:
        if self._now is None:
            self._now = self._started()
        for one in promised:
            self._now.promise(one)

    def _started(self) -> "StartedZygote":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                told = Zygote(theirs.fileno(), os.getpid(), self._program).environment()
                process = self._run(told, (theirs.fileno(), *self._listening))
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        zygote = StartedZygote(process, ours)
        self._all.append(zygote)
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self._hear(zygote))
        return zygote

    def _hear(self, zygote: "StartedZygote") -> None:
        while zygote.link.fileno() >= 0:
            try:
                heard = zygote.link.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                heard = b""
            if not heard:
                self._selector.unregister(zygote.link)
                zygote.link.close()
            elif (threads := zygote.hear(json.loads(heard))) > 1:
                self._do_without(zygote, threads)

    def _do_without(self, zygote: "StartedZygote", threads: int) -> None:
        """Run the program for each from now on: a copy would have none of the threads, and all that they hold."""
        if self._is_possible:
            self._is_possible = False
            workers_log.warning(ANEW, f"it has {threads} threads once it is loaded, and so cannot be copied")
        for promised in zygote.take():
            seat, link = promised.seat, promised.link
            try:
                promised.process = super().start(replace(seat, link=link.fileno()), link)
            except OSError as error:
                workers_log.error("%s", error)
                promised.process = NeverStarted(promised.pid, 1)

    def _bury(self, zygote: "StartedZygote", code: int) -> None:
        """It has ended; those that it was yet to be asked for are another's, if it was not the program that failed."""
        self._all.remove(zygote)
        self._now = None if self._now is zygote else self._now
        self._before = None if self._before is zygote else self._before
        if not zygote.is_leaving and self._is_possible:
            when = "" if zygote.is_ready else " before it had loaded the program"
            workers_log.info("the zygote (process %s) ended%s: %s", zygote.process.pid, when, ending(code))
        waiting = zygote.give_up(code or 1)
        try:
            if waiting:
                self._promise(*waiting)
        except OSError as error:
            workers_log.error("the program cannot be started: %s", error)
            for promised in waiting:
                promised.fail(zygote.process.pid, 1)


class StartedZygote:
    """A zygote as the supervisor has it. It is asked for one copy at a time, once it says that it is ready."""

    def __init__(self, process: "subprocess.Popen[bytes]", link: socket.socket) -> None:
        self.process, self.link = process, link
        self.is_ready = False
        """It has loaded the program."""
        self.is_leaving = False
        """It ends once it has done what it was asked."""
        self._asked: Promised | None = None
        self._waiting: deque[Promised] = deque()

    @property
    def is_copying(self) -> bool:
        """It was asked for a copy, and has not said which process that is."""
        return self._asked is not None

    def promise(self, promised: "Promised") -> None:
        """Have it become a copy, in its turn."""
        promised.zygote = self.process
        self._waiting.append(promised)
        self._go_on()

    def leave(self) -> None:
        """Have it end."""
        self.is_leaving = True
        self._go_on()

    def hear(self, said: Mapping[str, Any]) -> int:
        """It says that it is ready, with how many threads, which are returned; then which process it has made, or why
        none.
        """
        asked, self._asked = self._asked, None
        if asked is not None and "process" in said:
            asked.link.close()
            asked.process = Copied(said["process"])
        elif asked is not None:
            workers_log.error("the zygote (process %s) cannot be copied: %s", self.process.pid, said["failure"])
            asked.fail(self.process.pid, 1)
        self.is_ready = True
        threads = int(said.get("threads", 1))
        if threads == 1:
            self._go_on()
        return threads

    def take(self) -> "list[Promised]":
        """Those that it was not yet asked for: they are another's now."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def give_up(self, code: int) -> "list[Promised]":
        """It has ended with that code. Gives those that another may become: what it was asked for may have come to be,
        and where it never was ready, another fares no better.
        """
        waiting = self.take()
        others = [one for one in waiting if one.is_wanted and self.is_ready]
        for promised in (*((self._asked,) if self._asked else ()), *(one for one in waiting if one not in others)):
            promised.fail(self.process.pid, code)
        self._asked = None
        return others

    def _go_on(self) -> None:
        if self.link.fileno() < 0 or self._asked is not None:
            return
        with suppress(OSError):  # it has just ended
            if self.is_ready and self._waiting:
                socket.send_fds(self.link, [self._waiting[0].seat.written().encode()], [self._waiting[0].link.fileno()])
                self._asked = self._waiting.popleft()
            elif self.is_leaving and not self._waiting:
                self.link.shutdown(socket.SHUT_WR)


class Promised:
    """A worker's process; until there is one the zygote stands for it."""

    zygote: Process
    """Of which it is to be a copy."""

    def __init__(self, seat: Seat, link: socket.socket) -> None:
        self.seat, self.link = seat, link
        self.process: Process | None = None
        """What it has become."""
        self.is_wanted = True
        """Nobody has wished its end."""

    @property
    def pid(self) -> int:
        """See ``Process``."""
        return (self.process or self.zygote).pid

    def poll(self) -> int | None:
        """See ``Process``."""
        return None if self.process is None else self.process.poll()

    def send_signal(self, number: int, /) -> None:
        """See ``Process``. Where there is none yet it ends the zygote: either all are to end, or that is stuck."""
        self.is_wanted = False
        (self.process or self.zygote).send_signal(number)

    def kill(self) -> None:
        """The same."""
        self.is_wanted = False
        (self.process or self.zygote).kill()

    def fail(self, pid: int, code: int) -> None:
        """It has become nothing."""
        self.link.close()
        self.process = NeverStarted(pid, code)


class Copied:
    """A child of this process that it has not started itself."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """See ``Process``."""
        if self._code is None:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._code = UNKNOWN
            else:
                self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def send_signal(self, number: int, /) -> None:
        """See ``Process``. The number is this process's alone until its end was asked for here."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """See ``Process``."""
        self.send_signal(signal.SIGKILL)


class NeverStarted:
    """What has ended before it came to be."""

    def __init__(self, pid: int, code: int) -> None:
        self.pid, self._code = pid, code

    def poll(self) -> int:
        """See ``Process``."""
        return self._code

    def send_signal(self, number: int, /) -> None:
        """Nobody is there."""

    def kill(self) -> None:
        """Nobody is there."""
