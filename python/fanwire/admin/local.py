"""Sockets for this user alone, where programs of this machine find the admin sides that run here.

Each stands in the user's folder for supervisors (``workers.folder``) as ``PROCESS-LETTERS.admin``. One that nobody
listens at any more is taken away by whoever comes next.
"""

import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fanwire.admin.config import AdminConfig
from fanwire.logs import hub_log
from fanwire.workers.folder import PATH_BYTES_MAX, is_ours, made, places

SUFFIX = ".admin"
LONGEST = f"4194304-xxxxxxxx{SUFFIX}"


def addresses_of(config: AdminConfig, environment: Mapping[str, str]) -> Sequence[str]:
    """Where an admin side listens: as it is told, and at a local socket, whose folder is there then."""
    given = [] if config.listen is None else [config.listen]
    if not config.local:
        return given
    try:
        return [*given, f"unix:{_new_path(environment)}"]
    except OSError as error:
        hub_log.info("there is no local socket for `fanwire clients` and the like: %s", error)
        return given


def _new_path(environment: Mapping[str, str]) -> Path:
    allowed = places(environment)
    fits = (one for one in allowed if len(os.fsencode(one / LONGEST)) <= PATH_BYTES_MAX)
    place = made(next(fits, allowed[-1]))
    for path in place.glob(f"*{SUFFIX}"):
        if _is_left(path):
            with suppress(OSError):
                path.unlink()
    return place / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"


def _is_left(path: Path) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.setblocking(False)
        try:
            asked.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:  # it is there and busy, or somebody has just taken it away
            return False
    return False


def local_sockets(environment: Mapping[str, str]) -> Iterator[tuple[int, Path]]:
    """Those of this user at which somebody listens, with the numbers of their processes."""
    for place in filter(is_ours, places(environment)):
        for path in sorted(place.glob(f"*{SUFFIX}")):
            process = path.name.partition("-")[0]
            if process.isdecimal() and not _is_left(path):
                yield int(process), path
