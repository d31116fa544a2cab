"""What this process has open."""

from contextlib import suppress
from pathlib import Path


def sockets() -> int:
    """How many this process has."""
    descriptors = list(Path("/proc/self/fd").iterdir())
    found = 0
    for descriptor in descriptors:
        with suppress(OSError):  # that of the listing itself
            found += str(descriptor.readlink()).startswith("socket:")
    return found
