"""The zygote: a process that has loaded the program, has one thread, and is copied for each worker that is asked of it.

What it has loaded is in memory once for all its copies, until one of them writes there. This is its own side; the
supervisor's is ``workers/starting.py``.
"""

import errno
import gc
import json
import os
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fanwire._loop import load

VARIABLE = "FANWIRE_ZYGOTE"
"""Where it finds what it is; taken out at once, since its workers are none."""
MESSAGE_BYTES_MAX = 65_536
"""Of what is asked, and of what is answered."""
ZYGOTE, WORKER = "fanwire zygote", "fanwire worker"
"""What ``ps -o comm`` calls them, in 15 bytes at most."""


@dataclass(frozen=True, slots=True)
class Zygote:
    """What this process is told, if it is one."""

    link: int
    """The descriptor of a Unix socket of whole messages, whose other end the supervisor holds."""
    supervisor: int
    """The process."""
    program: Mapping[str, Any]
    """What the program is to do, as its command line said."""

    def environment(self) -> dict[str, str]:
        """What its process is told."""
        return {VARIABLE: json.dumps(asdict(self))}

    def copied(self) -> tuple[str, int]:
        """Returns in each copy, with what was asked of it, and the descriptor that came along; here it never does.

        It ends with the supervisor, and when that wants no more. With several threads it says so, and ends: what they
        hold would be held for ever in a copy.
        """
        load()
        gc.freeze()  # collections in the copies are to write nothing into what is shared
        name(ZYGOTE)
        threads = len(list(Path("/proc/self/task").iterdir()))
        with socket.socket(fileno=self.link) as link:
            answer(link, threads=threads)
            while threads == 1 and (wanted := _wanted(link)) is not None:
                asked, descriptor = wanted
                if copy(link) == 0:
                    return asked, descriptor
                os.close(descriptor)
        os._exit(0)  # what the program wants done at its exit is the workers'


def _wanted(link: socket.socket) -> tuple[str, int] | None:
    """What is asked of the next; None: no more are."""
    try:
        asked, descriptors, _, _ = socket.recv_fds(link, MESSAGE_BYTES_MAX, 1)
    except (OSError, KeyboardInterrupt):
        return None
    return (asked.decode(), descriptors[0]) if asked else None


def copy(link: socket.socket) -> int:
    """Fork a process whose parent has ended when this returns: it is the supervisor's child then. 0 in that process.

    Answers with its number, or with the reason why there is none.
    """
    for stream in (sys.stdout, sys.stderr):  # what is buffered is written once
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    ours, theirs = os.pipe()
    failed, between = 0, 0
    try:
        between = os.fork()
    except OSError as error:
        failed = error.errno or errno.EAGAIN
    if not (failed or between):
        _fork_and_end(theirs)  # returns in the worker alone
        os.close(ours)
        os.close(theirs)
        os.setpgid(0, 0)  # what is typed at a terminal is the supervisor's to pass on
        name(WORKER)
        return 0
    os.close(theirs)
    with os.fdopen(ours, "rb") as told:
        number = int(told.read() or b"0")
    if between:
        _, status = os.waitpid(between, 0)
        failed = os.waitstatus_to_exitcode(status)
    if number:
        answer(link, process=number)
    else:
        answer(link, failure=os.strerror(failed) if failed >= 0 else f"signal {-failed}")
    return number or -1


def _fork_and_end(theirs: int) -> None:
    """The process between: forks once more, tells the number, and ends."""
    try:
        worker = os.fork()
    except OSError as error:
        os._exit(error.errno or errno.EAGAIN)
    if worker:
        with suppress(OSError):  # the zygote has been killed: the worker ends by its link
            os.write(theirs, str(worker).encode())
        os._exit(0)


def answer(link: socket.socket, **said: object) -> None:
    """Tell the supervisor, if it is there yet."""
    with suppress(OSError):
        link.send(json.dumps(said).encode())


def name(shown: str) -> None:
    """Have tools that show processes tell this one from others of the same program."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(shown)


def is_from(process: int, descriptor: int) -> bool:
    """Whether that process made this socket and has handed it down; not so in a worker's child, which has no more than
    the variable.
    """
    size = struct.calcsize("3i")
    try:
        with socket.socket(fileno=os.dup(descriptor)) as link:
            made_by, _, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    except OSError:
        return False
    return bool(made_by == process)


def _taken() -> Zygote | None:
    told = os.environ.pop(VARIABLE, "")
    if not told:
        return None
    zygote = Zygote(**json.loads(told))
    if not is_from(zygote.supervisor, zygote.link):
        return None
    os.set_inheritable(zygote.link, False)
    return zygote


_zygote: Zygote | None = _taken()


def zygote_of_process() -> Zygote | None:
    """Of this process, or of the one that it is a copy of; None where there is none."""
    return _zygote
