"""Who waits until a publication has its place among those of other workers. Not here: who gives it."""

from collections.abc import Callable
from contextlib import suppress

import anyio

from fanwire._engine import Placed, Publication
from fanwire._loop import Loop
from fanwire.errors import HubStopped

_waiting: dict[int, Callable[[], object]] = {}
"""By the number that the event has, of all hubs of the process."""
STOPPED = "the hub stopped before it was known where the publication stands, and whether it was published"


async def placed(publication: Publication, token: int) -> None:
    """Return once its place is known; in any event loop. Raises HubStopped where it will never be."""
    loop, is_over = Loop(), anyio.Event()
    _waiting[token] = lambda: loop.call_from_any_thread(is_over.set)
    try:
        if not publication.is_placed:  # else it was told before this was there
            await is_over.wait()
    finally:
        del _waiting[token]
    if not publication.is_placed:
        raise HubStopped(STOPPED)


def take(event: Placed) -> None:
    """One has its place."""
    _wake(_waiting.get(event.token))


def end() -> None:
    """A hub has stopped: nobody is told any more."""
    for wake in list(_waiting.values()):
        _wake(wake)


def _wake(wake: Callable[[], object] | None) -> None:
    if wake is not None:
        with suppress(RuntimeError):  # its loop has ended
            wake()
