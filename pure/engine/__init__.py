"""``fanwire._engine`` of the pure-Python wheel: what attached connections need, in Python; the rest is refused.

It is for development and tests where the compiled engine cannot be had. Its names are those of ``_engine.pyi``.
"""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from .encoder import Arguments, Encoder, encode_json, encode_msgpack
from .engine import Engine
from .events import (
    Admitted,
    Asking,
    Audible,
    BackboneChanged,
    BackboneForeign,
    Call,
    Closed,
    CloseFrame,
    Connected,
    Drained,
    HubMessage,
    Joined,
    Message,
    MirrorLost,
    Misdeed,
    Moved,
    Opening,
    Ping,
    Placed,
    Pong,
    Presence,
    Progress,
    Record,
    Relayed,
    Released,
    SnapshotWanted,
    Stats,
    Subscribing,
    Upstream,
    Wanted,
    WorkerChanged,
    WorkerTold,
)
from .listener import Listener
from .missing import (
    Answer,
    BackboneLink,
    HeldAddress,
    Look,
    Roots,
    Sequencer,
    WebSocketCodec,
    WebSocketHandshake,
    adopt_orphans,
    canonical,
    invocation,
    read_handshake,
    response_head,
    toml_lines,
)
from .names import check_headers, matches, may_be_received, may_be_sent
from .position import Position, Publication
from .routes import ROUTES_MAX, Route
from .seat import Adopted
from .settings import VERSION as __version__
from .settings import ChannelRule, Setting, Settings, number_text, settings_table
from .tags import Filter

__all__ = [
    "FAILING_STATUSES",
    "PUBLISH_SCRIPT",
    "ROUTES_MAX",
    "Admitted",
    "Adopted",
    "Answer",
    "Arguments",
    "Asking",
    "Audible",
    "BackboneChanged",
    "BackboneForeign",
    "BackboneLink",
    "Call",
    "ChannelRule",
    "CloseFrame",
    "Closed",
    "Connected",
    "Drained",
    "Encoder",
    "Engine",
    "Filter",
    "HeldAddress",
    "HubMessage",
    "Joined",
    "Listener",
    "Look",
    "Message",
    "MirrorLost",
    "Misdeed",
    "Moved",
    "Opening",
    "Ping",
    "Placed",
    "Pong",
    "Position",
    "Presence",
    "Progress",
    "Publication",
    "Record",
    "Relayed",
    "Released",
    "Roots",
    "Route",
    "Sequencer",
    "Setting",
    "Settings",
    "SnapshotWanted",
    "Stats",
    "Subscribing",
    "Upstream",
    "Wanted",
    "WebSocketCodec",
    "WebSocketHandshake",
    "WorkerChanged",
    "WorkerTold",
    "__version__",
    "adopt_orphans",
    "build_info",
    "canonical",
    "check_headers",
    "encode_json",
    "encode_msgpack",
    "invocation",
    "matches",
    "may_be_received",
    "may_be_sent",
    "number_text",
    "read_handshake",
    "response_head",
    "settings_table",
    "toml_lines",
]

PUBLISH_SCRIPT = ""
"""There is no backbone."""
FAILING_STATUSES: tuple[int, ...] = (404, 500, 502, 503)
"""Statuses with which a backend's server is as good as down."""


def build_info() -> dict[str, str]:
    """Version, and ``pure`` as the profile."""
    return {"version": __version__, "profile": "pure", "target": "any", "rustc": ""}


_compiled = [one.name for suffix in EXTENSION_SUFFIXES for one in Path(__file__).parent.parent.glob(f"_engine{suffix}")]
if _compiled:
    raise ImportError(
        f"fanwire is installed twice, with {_compiled[0]} and with the pure-Python stand-in for it: "
        "pip uninstall fanwire, until there is none, and pip install fanwire"
    )
