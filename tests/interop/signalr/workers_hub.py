"""The live hub, served by four workers.

`python workers_hub.py HOST:PORT`
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import live_hub


class Tasks:
    """What goes on behind a method's answer, without a task group: `run` has none to give."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    def start_soon(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """As a task group's."""
        task = asyncio.ensure_future(function(*arguments))
        self._running.add(task)
        task.add_done_callback(self._running.discard)


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    live_hub.tasks = Tasks()  # type: ignore[assignment]
    live_hub.hub.run(sys.argv[1], workers=4)
