"""Workers of another server's: each has its own hub, and they find each other at a Unix socket that they agree on.

Whoever holds a lock beside the socket orders the publications of all. When that one ends, another does. Not here: what
is ordered.
"""

import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

import anyio

from fanwire._engine import Engine, Sequencer, Settings
from fanwire.backbone import Backbone, for_engine
from fanwire.errors import ListenFailed
from fanwire.logs import workers_log

NUMBERS = 256
"""An id has eight bits for the worker. The lock behind those is that of who orders."""
LOOK_S = 0.1
"""So often one that is apart from the others looks whether it has to order for them."""


class Sibling:
    """This process, under a number that no other of them has, for as long as it serves.

    Args:
        path: the socket. Beside it, in ``PATH.d``, are their numbers, their key and sockets of their own.
        backbone: what orders for several machines, in their place.

    Raises:
        OSError: the folder cannot be made, or others than this user may write to it.
        RuntimeError: 256 are there.
    """

    def __init__(self, path: str, backbone: Backbone | None = None) -> None:
        self._backbone = backbone
        self.spans_machines: bool = backbone is not None
        """Whether others of this hub may be on other machines."""
        self._own_folder: Path | None = None
        self.sequencer: str = path
        """The Unix socket at which one of them orders publications."""
        self.folder: str = f"{path}.d"
        """Where sockets of theirs stand."""
        self._sequencer: Sequencer | None = None
        with suppress(FileExistsError):
            Path(self.folder).mkdir(mode=0o700)
        found = Path(self.folder).lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(f"{self.folder} must be a folder of user {os.getuid()} that nobody else may write to")
        self._locks = os.open(f"{self.folder}/numbers", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.key: str = self._agreed_key()
            """What all of them sign with: 64 hexadecimal digits, a secret."""
            self.number: int = self._free_number()
            """0 to 255: ids of its connections begin with it."""
        except BaseException:
            os.close(self._locks)
            raise

    @classmethod
    def alone(cls, backbone: Backbone) -> Self:
        """One that meets nobody on this machine: its place is its own."""
        folder = Path(tempfile.mkdtemp(prefix="fanwire-"))
        try:
            one = cls(str(folder / "hub"), backbone)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        one._own_folder = folder
        return one

    def _agreed_key(self) -> str:
        """That of whoever came first."""
        key, own = Path(self.folder, "key"), Path(self.folder, f"key.{os.getpid()}")
        with suppress(FileNotFoundError):
            return key.read_text()
        own.touch(mode=0o600)
        own.write_text(secrets.token_hex(32))
        with suppress(FileExistsError):
            key.hardlink_to(own)
        own.unlink()
        return key.read_text()

    def _has(self, place: int) -> bool:
        """Whether a lock is this process's from now on, until that ends, however it does (fcntl(2))."""
        import fcntl  # not on Windows, where nobody gets here

        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _free_number(self) -> int:
        # Two hubs of one process would both have any lock: the second one's socket says so.
        # In turn, as a supervisor's: a token of SignalR's names its worker, and a new one is not to be taken for it.
        last = os.pread(self._locks, 1, 0)
        for step in range(NUMBERS):
            number = (last[0] + 1 + step) % NUMBERS if last else step
            if self._has(number):
                os.pwrite(self._locks, bytes([number]), 0)
                return number
        raise RuntimeError(f"{self.sequencer}: {NUMBERS} workers are there, and no more can be")

    def order(self, settings: Settings) -> None:
        """Order the publications of all, if nobody does.

        Raises:
            ListenFailed: the socket cannot be had.
        """
        if self._sequencer is not None or not self._has(NUMBERS):
            return
        try:
            self._sequencer = Sequencer(settings, self.sequencer, for_engine(self._backbone))
        except OSError as error:
            raise ListenFailed(error.errno or 0, str(error), f"unix:{self.sequencer}") from error
        if self._own_folder is None:
            workers_log.info("this process orders the publications of all at %s", self.sequencer)

    async def keep(self, engine: Engine, settings: Settings) -> None:
        """See to it that somebody orders. For a task, which is cancelled."""
        while True:
            await anyio.sleep(LOOK_S)
            if self._sequencer is not None:
                self._tell()
            elif engine.is_apart:
                try:
                    self.order(settings)
                except ListenFailed as error:
                    workers_log.error("%s", error)

    def _tell(self) -> None:
        assert self._sequencer is not None
        lines, failure = self._sequencer.take_lines()
        for level, line in lines:
            workers_log.log(level, "%s", line)
        if failure is not None:
            workers_log.error("what orders the publications of all workers has died: %s", failure)
            self._sequencer.close()
            self._sequencer = None  # the lock is ours: it is made anew

    def close(self) -> None:
        """Leave: another orders now, and the number is free."""
        if self._sequencer is not None:
            self._sequencer.close()
            self._sequencer = None
        os.close(self._locks)
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)
