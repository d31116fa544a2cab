"""fanwire: publish once, thousands of sockets, at the kernel's floor. The public names, and nothing else."""

from fanwire import to
from fanwire._engine import Arguments, Position, Publication, __version__
from fanwire.adopt.broadcast import broadcast
from fanwire.attendance import PresenceChange
from fanwire.auth import Identity, Request
from fanwire.channel import Channel
from fanwire.client import Client
from fanwire.deliveries import Delivery
from fanwire.errors import (
    AdoptionError,
    CallFailed,
    ClientGone,
    ConfigError,
    EncodeError,
    EngineFailed,
    EngineMissing,
    FanwireError,
    HubError,
    HubStopped,
    InvalidChannel,
    LimitReached,
    ListenFailed,
    NotPublished,
    Overtaken,
    PayloadTooBig,
    Refused,
    Told,
    UnsupportedType,
    UnsupportedValue,
)
from fanwire.hearing import Heard
from fanwire.hub import Hub
from fanwire.methods import Endpoint
from fanwire.publisher import Publisher

__all__ = [
    "AdoptionError",
    "Arguments",
    "CallFailed",
    "Channel",
    "Client",
    "ClientGone",
    "ConfigError",
    "Delivery",
    "EncodeError",
    "Endpoint",
    "EngineFailed",
    "EngineMissing",
    "FanwireError",
    "Heard",
    "Hub",
    "HubError",
    "HubStopped",
    "Identity",
    "InvalidChannel",
    "LimitReached",
    "ListenFailed",
    "NotPublished",
    "Overtaken",
    "PayloadTooBig",
    "Position",
    "PresenceChange",
    "Publication",
    "Publisher",
    "Refused",
    "Request",
    "Told",
    "UnsupportedType",
    "UnsupportedValue",
    "__version__",
    "broadcast",
    "to",
]
