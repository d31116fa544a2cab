"""A connection that is given away: its socket goes to somebody else, and the transport lets go of it, unsaid."""

import asyncio
import os
from collections.abc import Callable

LOOPS = frozenset({"asyncio", "uvloop"})
"""Whose transports are known: by the first part of the module's name."""


def give_away(transport: asyncio.Transport, to: Callable[[int], object]) -> bool:
    """Hand a duplicate of the socket to `to`, which owns it then, and close the transport's own; False: it cannot be.

    Raises OSError where there is no descriptor left, and what `to` raises; then all is as it was.
    """
    if transport.is_closing() or transport.get_extra_info("sslcontext") is not None:
        return False
    if type(transport).__module__.partition(".")[0] not in LOOPS or transport.get_write_buffer_size():
        return False
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    try:
        to(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    transport.abort()  # which closes its descriptor; the connection ends with the last one
    return True
