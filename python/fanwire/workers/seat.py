"""What a worker is told when it starts, and what it gives in return: that it serves, and that its loop turns."""

import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import NoReturn

import anyio

from fanwire.logs import workers_log
from fanwire.workers.zygote import is_from, zygote_of_process

VARIABLE = "FANWIRE_SEAT"
"""Where a worker finds its seat; taken out at once, since what the worker runs has none."""
READY, BEAT = b"r", b"."
"""What a worker says over the link."""
END, HURRY = b"e", b"h"
"""What it is asked there. By no signal: it could not tell a second wish from one that a service manager has sent to all
(systemd.kill(5))."""
SEQUENCER = "sequencer"
"""What orders the publications of all workers stands there, in their folder."""
GRACE_S = 5.0
"""Beyond the time that clients get at the end, before a worker is killed."""
BEATS = 4
"""So many times within the time in which one has to come."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One worker's place under its supervisor."""

    number: int
    """0 to 255, of no other worker that lives: ids of its connections begin with it."""
    count: int
    """How many workers there are to be."""
    listen: str
    """The inherited address, ``fd:N`` or ``fd:N,M``."""
    link: int
    """The descriptor of a Unix socket, whose other end the supervisor holds for as long as it lives."""
    folder: str
    """Where sockets of these workers stand: the supervisor's own is ``supervisor``."""
    timeout_s: float
    """Within so many seconds its loop has to give a sign."""
    supervisor: int
    """The process."""
    key: str = field(repr=False)
    """What all its workers sign tokens with, now and later: 64 hexadecimal digits, a secret."""
    spans_machines: bool = False
    """Whether others of this hub may be on other machines."""
    admin: str = ""
    """The inherited addresses of the admin side, as ``listen``; empty where there is none."""

    @property
    def sequencer(self) -> str:
        """The Unix socket at which the supervisor orders publications."""
        return f"{self.folder}/{SEQUENCER}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that is inherited."""
        numbers = ",".join(one.removeprefix("fd:") for one in (self.listen, self.admin) if one)
        return (self.link, *map(int, numbers.split(",")))

    def written(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    def environment(self) -> dict[str, str]:
        """What its process is told."""
        return {VARIABLE: self.written()}


def _taken() -> Seat | None:
    """The seat of this process: its environment has one, and it has inherited the link to who wrote it."""
    told = os.environ.pop(VARIABLE, "")
    if not told:
        return None
    try:
        seat = Seat(**json.loads(told))
    except (ValueError, TypeError) as error:
        raise RuntimeError(
            f"{VARIABLE} is not as this version of fanwire writes it: start the supervisor anew, which is of another"
        ) from error
    if not is_from(seat.supervisor, seat.link):
        return None  # it is a worker's child
    return _kept(seat)


def _kept(seat: Seat) -> Seat:
    """What is handed down to it goes to none of its children."""
    for descriptor in seat.descriptors:
        os.set_inheritable(descriptor, False)
    return seat


class Signs:
    """What the worker at `seat` gives its supervisor, and how it notices that there is none any more."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._link = socket.socket(fileno=os.dup(seat.link))

    def ready(self) -> None:
        """Tell that it accepts."""
        self._send(READY)

    async def beat(self) -> None:
        """Tell from time to time that the loop turns. For a task, which is cancelled."""
        while True:
            self._send(BEAT)
            await anyio.sleep(self._seat.timeout_s / BEATS)

    def _send(self, sign: bytes) -> None:
        with suppress(OSError):  # it is gone, or is stopped and has enough of them
            self._link.send(sign, socket.MSG_DONTWAIT)

    def watch(self, end_soon: Callable[[], object], hurry: Callable[[], object], grace_s: float) -> None:
        """Call `end_soon` or `hurry`, in a thread of its own, when the supervisor asks; the first when it is gone.

        The process is ended if it is still there `grace_s` later.
        """
        watching = (end_soon, hurry, grace_s)
        threading.Thread(target=self._watch, args=watching, name="fanwire worker", daemon=True).start()

    def _watch(self, end_soon: Callable[[], object], hurry: Callable[[], object], grace_s: float) -> NoReturn:
        with suppress(OSError):
            while asked := self._link.recv(1):
                (hurry if asked == HURRY else end_soon)()
        workers_log.error("the supervisor (process %s) is gone: this worker ends", self._seat.supervisor)
        end_soon()
        threading.Event().wait(min(grace_s, threading.TIMEOUT_MAX))
        workers_log.error("this worker did not end within %g s, and is ended", grace_s)
        os._exit(1)


_seat: Seat | None = _taken()
_is_taken = False


def seat_of_process() -> Seat | None:
    """Of a worker; None where no supervisor has started this process, nor for what a worker forks."""
    return _seat


def is_supervised() -> bool:
    """Whether a supervisor has started this process: it is a worker, or its workers are copies of it."""
    return _seat is not None or zygote_of_process() is not None


def take_seat() -> Seat | None:
    """``seat_of_process``, once a process: it says that ``run`` with workers has come. In a zygote it returns in each
    of its copies.

    Raises:
        RuntimeError: it has come before. A worker runs its program up to the first such call, and no further one.
    """
    global _is_taken, _seat
    if _is_taken:
        raise RuntimeError(
            "a program may run with workers once: they run it again up to the first call, and serve there"
        )
    _is_taken = True
    if (zygote := zygote_of_process()) is not None:
        asked, link = zygote.copied()
        _seat = _kept(replace(Seat(**json.loads(asked)), link=link))
    return _seat


def _after_fork() -> None:
    global _seat
    _seat = None


if hasattr(os, "register_at_fork"):  # Windows knows no fork
    os.register_at_fork(after_in_child=_after_fork)
