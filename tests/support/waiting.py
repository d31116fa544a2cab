"""Waiting for something to become true, through the public API and with a deadline."""

import threading
import time
from collections.abc import Callable

import anyio

DEADLINE_S = 60.0
TURN_S = 0.002


async def until(condition: Callable[[], object], seconds: float = DEADLINE_S) -> None:
    """Return once `condition()` is true; TimeoutError after `seconds`."""
    with anyio.fail_after(seconds):
        while not condition():
            with anyio.move_on_after(TURN_S):
                await anyio.Event().wait()


def until_in_thread(condition: Callable[[], object], seconds: float = DEADLINE_S) -> None:
    """The same where there is no event loop."""
    deadline = time.monotonic() + seconds
    never = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {seconds} s")
        never.wait(TURN_S)
