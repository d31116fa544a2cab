"""A WebSocket of an ASGI server that the engine serves itself, from its handshake on: no message passes through Python.

A server offers that by the scope's extension (docs/scope.md). It is done where nobody stands between it and the hub
who would want to see the messages.
"""

from collections.abc import Mapping
from functools import partial
from types import FunctionType
from typing import Any

from fanwire._engine import Engine
from fanwire.asgi.heads import BadRequest, client_of, upgrade_head
from fanwire.scope import taker_of

TRANSPARENT = frozenset({"starlette", "fastapi"})
"""Whose layers around ``send`` look at responses of HTTP alone: by the first part of the module's name."""


def hand_over(engine: Engine, scope: Mapping[str, Any], receive: Any, send: Any) -> bool:
    """Whether the engine has the connection now.

    Raises what ``Engine.welcome`` raises, or where no descriptor is left; then nothing was done.
    """
    take = taker_of(scope)
    if take is None:
        return False
    try:
        head = upgrade_head(scope, is_clients=True)
    except BadRequest:  # which is answered as ever
        return False
    welcome = partial(engine.welcome, client=client_of(scope), read=head)
    return bool(take(welcome, receive=beneath(receive, "receive"), send=beneath(send, "send")))


def beneath(call: Any, name: str) -> Any:
    """What the layers of frameworks that are transparent call in the end: a variable of that name."""
    while isinstance(call, FunctionType) and call.__module__.partition(".")[0] in TRANSPARENT:
        variables = call.__code__.co_freevars
        if name not in variables or call.__closure__ is None:
            break
        call = call.__closure__[variables.index(name)].cell_contents
    return call
