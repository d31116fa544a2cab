"""What systemd is told (sd_notify(3)) and what it gives (sd_listen_fds(3)). Elsewhere all of it does nothing."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""What is meant for one process, and not for those that it starts."""


class Notifier:
    """Tells the service manager of `environment`, if there is one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._path = f"\0{path[1:]}" if path.startswith("@") else path
        self.watchdog_s: float = self._interval(environment)
        """It wants to hear every so many seconds; 0: never."""

    def _interval(self, environment: Mapping[str, str]) -> float:
        is_for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        time = environment.get("WATCHDOG_USEC", "")
        return int(time) / 2e6 if self._path and is_for_us and time.isdecimal() else 0.0

    def tell(self, *said: str) -> None:
        """Tell, such as ``READY=1``. Whoever does not listen is nobody's trouble."""
        if self._path:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
                made.setblocking(False)
                made.sendto("\n".join(said).encode(), self._path)
