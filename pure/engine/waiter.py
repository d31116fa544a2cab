"""The one thread: it waits until sockets that were full have room, or those that are closed have had their time."""

import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .seat import Seat

WATCHED_MAX = 500
"""Sockets that are watched at once: `select` of Windows takes 512. The others are tried one after another."""
TRY_AGAIN_S = 0.05


class Waiter:
    """Begun with the first socket that is full."""

    def __init__(self, has_room: Callable[["Seat"], None]) -> None:
        self._has_room = has_room
        self._waiting: dict[Seat, float | None] = {}
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)
        self._is_over = False
        self._thread = Thread(target=self._run, name="fanwire-pure", daemon=True)
        self._thread.start()

    def wait(self, seat: "Seat", deadline: float | None) -> None:
        """Say once that its socket has room, or that its time is over. The engine's lock is held."""
        self._waiting[seat] = deadline
        self._wake()

    def take(self, seat: "Seat") -> bool | None:
        """Whether its time is over; None: it does not wait any more. The engine's lock is held."""
        if seat not in self._waiting:
            return None
        deadline = self._waiting.pop(seat)
        return deadline is not None and deadline <= monotonic()

    def forget(self, seat: "Seat") -> None:
        """Its socket is about to be closed. The engine's lock is held."""
        if self._waiting.pop(seat, self) is not self:
            self._wake()

    def end(self) -> None:
        """Wait for the thread's end. The engine's lock is not held."""
        self._is_over = True
        self._wake()
        self._thread.join()
        self._ours.close()
        self._theirs.close()

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            self._theirs.send(b"\0")

    def _run(self) -> None:
        while not self._is_over:
            waiting = self._waiting.copy()
            ready = self._ready(waiting)
            now = monotonic()
            due = [seat for seat, deadline in waiting.items() if deadline is not None and deadline <= now]
            for seat in {**dict.fromkeys(ready), **dict.fromkeys(due)}:
                self._has_room(seat)

    def _ready(self, waiting: dict["Seat", float | None]) -> list["Seat"]:
        """Wait until one of them has room, or one's time is over, or there are others; those that have, or may have."""
        deadlines = [deadline for deadline in waiting.values() if deadline is not None]
        timeout = max(min(deadlines) - monotonic(), 0) if deadlines else None
        tried = list(waiting)[WATCHED_MAX:]
        if tried:
            timeout = TRY_AGAIN_S if timeout is None else min(timeout, TRY_AGAIN_S)
        with selectors.DefaultSelector() as selector:
            selector.register(self._ours, selectors.EVENT_READ)
            for seat in list(waiting)[:WATCHED_MAX]:
                with suppress(OSError, ValueError):  # it was closed meanwhile
                    if seat.socket is not None:
                        selector.register(seat.socket, selectors.EVENT_WRITE, seat)
            try:
                found = selector.select(timeout)
            except OSError:  # one of them was
                return []
        with suppress(BlockingIOError):
            self._ours.recv(4096)
        return [key.data for key, _ in found if key.data is not None] + tried
