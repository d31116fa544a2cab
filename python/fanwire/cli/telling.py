"""What is said of a file and of what is in it, wherever that is read."""

import sys
from pathlib import Path
from typing import NoReturn

from fanwire.config.kinds import shown
from fanwire.relay.config import RelayConfig

UNREADABLE = 2
"""The exit status where the file cannot be read; 1 where something is wrong in it."""


def complain(file: Path | None, error: Exception) -> NoReturn:
    """Print on stderr what ``load`` raised, a line for each error, and end the program."""
    if isinstance(error, ExceptionGroup):
        print(*error.exceptions, sep="\n", file=sys.stderr)
        raise SystemExit(1)
    why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
    print(f"{file}: {why}", file=sys.stderr)
    raise SystemExit(UNREADABLE)


def route(relay: RelayConfig) -> str:
    """``/live → http://127.0.0.1:5000/live (signalr)``."""
    upstream = ", then ".join(shown(url).strip('"') for url in relay.upstream)
    return f"{relay.path} → {upstream} ({relay.protocol})"
