"""All endpoints of the admin side, each once: what serves, the OpenAPI document and the shell go by it."""

from dataclasses import dataclass
from typing import Any

from fanwire.admin import shapes

LIVE = "/api/live"
OPENAPI = "/api/openapi.json"


@dataclass(frozen=True, slots=True)
class Operation:
    """One of them."""

    method: str
    path: str
    room: str
    """Which of the side's rooms does it."""
    call: str
    """What is called there, with the query or the body."""
    summary: str
    takes: type[Any]
    """The query of a GET, the body of a POST."""
    answer: type[Any]
    codes: tuple[str, ...] = ()
    """What else may be wrong than with every request."""
    is_once: bool = False
    """Whether an ``Idempotency-Key`` makes it safe to repeat."""


ENDPOINTS: tuple[Operation, ...] = (
    Operation(
        "GET", "/api/stats", "overview", "stats", "Counters and gauges of all.", shapes.Nothing, shapes.StatsAnswer
    ),
    Operation("GET", "/api/workers", "overview", "workers", "Each process.", shapes.Nothing, shapes.WorkersAnswer),
    Operation(
        "GET",
        "/api/channels",
        "channels",
        "page",
        "A page of channels.",
        shapes.ChannelsQuery,
        shapes.ChannelsAnswer,
        ("bad_cursor", "apart"),
    ),
    Operation(
        "GET",
        "/api/channel",
        "channels",
        "one",
        "One channel.",
        shapes.ChannelQuery,
        shapes.ChannelRow,
        ("no_such_channel",),
    ),
    Operation(
        "GET",
        "/api/history",
        "channels",
        "history",
        "What a channel keeps.",
        shapes.HistoryQuery,
        shapes.HistoryAnswer,
        ("no_such_channel",),
    ),
    Operation(
        "GET",
        "/api/presence",
        "channels",
        "presence",
        "Who is in a channel.",
        shapes.ChannelQuery,
        shapes.PresenceAnswer,
        ("no_presence", "invalid_channel"),
    ),
    Operation(
        "GET",
        "/api/clients",
        "clients",
        "page",
        "A page of clients.",
        shapes.ClientsQuery,
        shapes.ClientsAnswer,
        ("bad_cursor", "apart"),
    ),
    Operation(
        "GET",
        "/api/client",
        "clients",
        "one",
        "One client.",
        shapes.ClientQuery,
        shapes.ClientRow,
        ("no_such_client", "apart"),
    ),
    Operation("GET", "/api/relays", "overview", "relays", "Relays, as sums.", shapes.Nothing, shapes.RelaysAnswer),
    Operation(
        "GET",
        "/api/lanes",
        "overview",
        "lanes",
        "A page of lanes.",
        shapes.LanesQuery,
        shapes.LanesAnswer,
        ("bad_cursor", "apart"),
    ),
    Operation("GET", "/api/settings", "settings", "all", "All settings.", shapes.Nothing, shapes.SettingsAnswer),
    Operation(
        "POST",
        "/api/publish",
        "acting",
        "publish",
        "Publish to a channel or a user.",
        shapes.PublishBody,
        shapes.PublishAnswer,
        ("invalid_channel", "limit_reached", "apart"),
        is_once=True,
    ),
    Operation(
        "POST",
        "/api/publish_many",
        "acting",
        "publish_many",
        "Publish several.",
        shapes.PublishManyBody,
        shapes.PublishManyAnswer,
        ("invalid_channel", "limit_reached", "apart"),
        is_once=True,
    ),
    Operation(
        "POST",
        "/api/send",
        "acting",
        "send",
        "Send to one client.",
        shapes.SendBody,
        shapes.Nothing,
        ("no_such_client", "apart"),
    ),
    Operation(
        "POST",
        "/api/disconnect",
        "acting",
        "disconnect",
        "Close a client, or a user's connections.",
        shapes.DisconnectBody,
        shapes.DisconnectAnswer,
        ("no_such_client", "apart"),
    ),
    Operation(
        "POST",
        "/api/subscribe",
        "acting",
        "subscribe",
        "Have a client watch a channel.",
        shapes.SubscribeBody,
        shapes.Nothing,
        ("no_such_client", "invalid_channel", "apart"),
    ),
    Operation(
        "POST",
        "/api/unsubscribe",
        "acting",
        "unsubscribe",
        "Have it watch it no more.",
        shapes.UnsubscribeBody,
        shapes.Nothing,
        ("no_such_client", "invalid_channel", "apart"),
    ),
)
