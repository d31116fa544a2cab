"""What this process takes of its machine, as the kernel tells without listing anything; None where it does not tell."""

import os
from pathlib import Path

SELF = Path("/proc/self")


def memory_bytes() -> int | None:
    """Memory that is resident."""
    try:
        pages = int((SELF / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):  # no Linux
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int | None:
    """How many are open; since Linux 6.2."""
    try:
        return (SELF / "fd").stat().st_size or None
    except OSError:
        return None
