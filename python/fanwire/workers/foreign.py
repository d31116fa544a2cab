"""Workers of other servers: whether this process is one of several, each with hubs of its own."""

import sys
from pathlib import Path

from fanwire.logs import hub_log

TEXT = (
    "this process is one of %d workers, and each has a hub of its own: what is published here reaches the clients of "
    'this process alone; Hub(workers="unix:PATH") makes one of them'
)
_told: list[int] = []
"""What was told, once a process."""


def count_of_siblings() -> int:
    """How many, as uvicorn's ``--workers`` or hypercorn's said; 1 where that is not known."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is None:
        return 1
    # Both start a worker with their configuration as an argument of that name.
    given = getattr(multiprocessing.current_process(), "_kwargs", None) or {}
    workers = getattr(given.get("config"), "workers", None)
    return workers if isinstance(workers, int) else 1


def tell_of_workers() -> None:
    """Say in the log what several mean, once a process."""
    count = count_of_siblings()
    if count > 1 and not _told:
        _told.append(count)
        hub_log.warning(TEXT, count)


SCHEME = "unix:"


def path_of_siblings(workers: str) -> str:
    """Of the socket at which other processes' hubs are met. Raises TypeError, ValueError for what is none."""
    must = "workers must be unix:PATH, a socket that the hubs of all processes name"
    if not isinstance(workers, str):
        raise TypeError(f"{must}, not {workers!r}; how many serve is an argument of run: hub.run(address, workers=2)")
    path = workers.removeprefix(SCHEME)
    if path == workers or not path:
        raise ValueError(f"{must}, not {workers!r}")
    return str(Path(path).absolute())
