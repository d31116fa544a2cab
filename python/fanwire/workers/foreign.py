"""Workers of other servers: whether this process is one of several, each with hubs of its own."""

import sys

from fanwire.logs import hub_log

TEXT = (
    "this process is one of %d workers, and each has a hub of its own: what is published here reaches the clients of "
    "this process alone; with --workers 1 there is one hub for all"
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
