"""fanwire: publish once, thousands of sockets, at the kernel's floor. The public names, and nothing else."""

from fanwire._engine import Position, __version__
from fanwire.auth import Identity, Request
from fanwire.channel import Channel
from fanwire.client import Client
from fanwire.errors import (
    CallFailed,
    ClientGone,
    ConfigError,
    EncodeError,
    FanwireError,
    HubStopped,
    InvalidChannel,
    LimitReached,
    ListenFailed,
    PayloadTooBig,
    Refused,
    UnsupportedType,
    UnsupportedValue,
)
from fanwire.hub import Hub

__all__ = [
    "CallFailed",
    "Channel",
    "Client",
    "ClientGone",
    "ConfigError",
    "EncodeError",
    "FanwireError",
    "Hub",
    "HubStopped",
    "Identity",
    "InvalidChannel",
    "LimitReached",
    "ListenFailed",
    "PayloadTooBig",
    "Position",
    "Refused",
    "Request",
    "UnsupportedType",
    "UnsupportedValue",
    "__version__",
]
