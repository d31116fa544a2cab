"""fanwire: publish once, thousands of sockets, at the kernel's floor. The public names, and nothing else."""

from fanwire._engine import Arguments, Position, __version__
from fanwire.auth import Identity, Request
from fanwire.channel import Channel
from fanwire.client import Client
from fanwire.errors import (
    CallFailed,
    ClientGone,
    ConfigError,
    EncodeError,
    FanwireError,
    HubError,
    HubStopped,
    InvalidChannel,
    LimitReached,
    ListenFailed,
    PayloadTooBig,
    Refused,
    UnsupportedType,
    UnsupportedValue,
)
from fanwire.hub import Endpoint, Hub

__all__ = [
    "Arguments",
    "CallFailed",
    "Channel",
    "Client",
    "ClientGone",
    "ConfigError",
    "EncodeError",
    "Endpoint",
    "FanwireError",
    "Hub",
    "HubError",
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
