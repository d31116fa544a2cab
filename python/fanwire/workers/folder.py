"""The folder of one supervisor and its workers, where their sockets stand, and how another program finds it."""

import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

SOCKET = "supervisor"
LONGEST = "4194304-xxxxxxxx/worker-255.sock"
"""The longest path in a place: a process's number, eight letters, a worker's socket."""
PATH_BYTES_MAX = 107
"""Of a Unix socket (unix(7))."""
ANSWER_BYTES_MAX = 4_096


def places(environment: Mapping[str, str]) -> list[Path]:
    """Where this user's supervisors may have their folders: systemd's runtime directory, the user's own, or /tmp."""
    given = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0], environment.get("XDG_RUNTIME_DIR", "")
    return [*(Path(one, "fanwire") for one in given if one), Path(tempfile.gettempdir(), f"fanwire-{os.getuid()}")]


def made(place: Path) -> Path:
    """The place, which is there then. Raises OSError where others could put sockets there."""
    with suppress(FileExistsError):
        place.mkdir(mode=0o700)
    if not is_ours(place):
        raise PermissionError(f"{place} must be a folder of user {os.getuid()} that nobody else may write to")
    return place


def is_ours(place: Path) -> bool:
    """Whether it is a folder of this user that nobody else may write to."""
    try:
        found = place.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


class Folder:
    """A supervisor's own, for as long as it lives; others ask it at its socket.

    Raises:
        OSError: it cannot be made, or others than this user could put sockets there.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        allowed = places(environment)
        place = made(next((one for one in allowed if _has_room(one)), allowed[-1]))
        for left in place.iterdir():
            if not _is_anybodys(left):
                shutil.rmtree(left, ignore_errors=True)  # of one that was killed
        self.path: Path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=place))
        """Where sockets of the supervisor and its workers stand."""
        self.socket: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        """Listens, without waiting."""
        try:
            self.socket.bind(str(self.path / SOCKET))
            self.socket.listen(16)
            self.socket.setblocking(False)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Take it away."""
        self.socket.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _has_room(place: Path) -> bool:
    """Whether a Unix socket may have so long a path."""
    return len(os.fsencode(place / LONGEST)) <= PATH_BYTES_MAX


def _is_anybodys(folder: Path) -> bool:
    """Whether its process lives, and may be about to make its socket; or somebody is at the socket, in a container."""
    process = folder.name.partition("-")[0]
    if not process.isdecimal() or Path("/proc", process).exists():
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.setblocking(False)
        try:
            asked.connect(str(folder / SOCKET))
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


class RunningSupervisor:
    """One that lives, as another program sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rwb")
        self._connection = connection
        about = json.loads(self._file.readline(ANSWER_BYTES_MAX))
        self.address: str = about["address"]
        """Where it listens."""
        self.process: int = about["process"]
        """Its number."""
        self.workers: int = about["workers"]
        """How many it has."""

    def restart(self) -> str:
        """Have it restart its workers, and wait until that is over. Gives what went wrong, or nothing."""
        self._file.write(b"restart\n")
        self._file.flush()
        answer: dict[str, Any] = json.loads(self._file.readline(ANSWER_BYTES_MAX) or b'{"failure": "it ended"}')
        return str(answer["failure"])

    def close(self) -> None:
        """Leave it alone."""
        self._file.close()
        self._connection.close()


def supervisors(environment: Mapping[str, str]) -> Iterator[RunningSupervisor]:
    """All of this user's that live."""
    for folder in (folder for place in places(environment) if is_ours(place) for folder in sorted(place.iterdir())):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(folder / SOCKET))
            yield RunningSupervisor(connection)
        except (OSError, ValueError, KeyError):
            connection.close()  # it has just ended, or somebody else stands there
