"""A connection that is given away: its socket goes to somebody else, and the transport lets go of it, unsaid."""

import asyncio
import os
from collections.abc import Callable

from fanwire._loop import is_transport


def give_away(transport: asyncio.Transport, to: Callable[[int], object]) -> bool:
    """Hand a duplicate of the socket to `to`, which owns it then, and close the transport's own; False: it cannot be.

    Raises OSError where there is no descriptor left, and what `to` raises; then all is as it was.
    """
    if transport.is_closing() or transport.get_extra_info("sslcontext") is not None:
        return False
    if not is_transport(transport) or transport.get_write_buffer_size():
        return False
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    try:
        to(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    transport.abort()  # which closes its descriptor; the connection ends with the last one
    return True
