"""The extension of an ASGI scope by which a hub finds what writes to a WebSocket: ``scope["extensions"]["fanwire"]``.

Specified in docs/scope.md, for servers other than uvicorn too: nothing here knows uvicorn.
"""

from collections.abc import MutableMapping
from typing import Any, Protocol, TypedDict

VERSION = "1"
"""Of the specification; it changes where who reads it has to."""


class Holder(Protocol):
    """What writes to one WebSocket, and does so through one attribute."""

    transport: Any
    """An `asyncio.Transport`, or what stands for one. Who sets it has to set it back before it ends."""


class Extension(TypedDict):
    """What a server says of one WebSocket."""

    version: str
    """Of the specification, ``"1"``."""
    holder: Holder
    """What writes, all of it through its attribute ``transport``."""
    deflate: bool
    """Whether permessage-deflate was negotiated."""


def extend(scope: MutableMapping[str, Any], holder: Holder, *, deflate: bool) -> None:
    """Put the extension into the scope of a WebSocket, beside those that are there."""
    extension: Extension = {"version": VERSION, "holder": holder, "deflate": deflate}
    scope["extensions"] = {**(scope.get("extensions") or {}), "fanwire": extension}
