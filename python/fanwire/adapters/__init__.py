"""Which framework a connection is of. A file here for each of them, which imports nothing of it."""

from collections.abc import Mapping
from typing import Any

from fanwire.adapters.aiohttp import AiohttpSocket
from fanwire.adapters.asgi import AsgiSocket
from fanwire.adapters.foreign import Foreign
from fanwire.adapters.starlette import StarletteSocket
from fanwire.adapters.websockets import AsyncioConnection, TrioConnection

FRAMEWORKS: Mapping[tuple[str, str], type[Foreign]] = {
    kind.named: kind for kind in (StarletteSocket, AiohttpSocket, AsyncioConnection, TrioConnection, AsgiSocket)
}
"""What can be attached, by module and name of the framework's class."""


def foreign_of(connection: Any) -> Foreign | None:
    """The connection as the hub sees it; None for what is of no framework that is known."""
    for kind in type(connection).__mro__:
        found = FRAMEWORKS.get((kind.__module__, kind.__name__))
        if found is not None:
            return found(connection)
    return None
