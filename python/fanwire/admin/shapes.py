"""What is asked and answered, as the OpenAPI document has it: queries, bodies and answers; docs/admin.md tells them."""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

LIMIT, LIMIT_MAX = 100, 500
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=LIMIT_MAX)]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=255)]
ClientName: TypeAlias = Annotated[str, Meta(min_length=4, max_length=64)]
PositionText: TypeAlias = Annotated[str, Meta(pattern="^[0-9]{1,20}-[0-9]{1,20}$")]
Cursor: TypeAlias = Annotated[str, Meta(max_length=8_192)]
Tags: TypeAlias = dict[str, str | int | float | bool]


class Nothing(Struct, forbid_unknown_fields=True):
    """No parameters; and an answer that says no more than that it is done."""


# Stats and workers


class Completion(Struct):
    """How long something took: cumulative buckets, an upper bound in seconds (null: any) and a count; and their sum."""

    buckets: list[tuple[float | None, int]]
    seconds: float


class Taken(Struct):
    """The same of sampled publications, until such a fraction of their subscribers had them."""

    fraction: float
    buckets: list[tuple[float | None, int]]
    seconds: float


class StatsAnswer(Struct):
    """Counters since each worker's start, and gauges of now, of all that have answered."""

    at: float
    version: str
    workers: list[int]
    silent: list[int]
    connections: int
    connections_total: int
    subscriptions: int
    channels: int
    publications: int
    deliveries: int
    writes: int
    bytes_out: int
    bytes_in: int
    lagging: int
    overtaken: int
    expired: int
    accept_pauses: int
    handshakes_refused: int
    tokens_refused: int
    passed_on: int
    compression_seconds: float
    compression_rests: int
    closes: dict[str, int]
    skipped: dict[str, int]
    compression_readers: dict[str, int]
    compression_sent_bytes: dict[str, int]
    compression_plain_bytes: dict[str, int]
    compression_joins: dict[str, int]
    compression_fallbacks: dict[str, int]
    faults: dict[str, int]
    completion: Completion
    taken: list[Taken]
    cpu: float
    memory: int | None


class WorkerRow(Struct):
    """How one process stands."""

    worker: int
    host: str
    process: int
    since: float
    answered: bool
    connections: int
    subscriptions: int
    channels: int
    publications: int
    deliveries: int
    bytes_out: int
    bytes_in: int
    lagging: int
    cpu: float
    memory: int | None
    descriptors: int | None
    descriptors_max: int
    address: str
    poller: str
    shards: int
    apart: bool


class BackboneRow(Struct):
    """What several machines have in common."""

    url: str
    state: str | None


class WorkersAnswer(Struct):
    """All processes of this hub."""

    workers: list[WorkerRow]
    silent: list[int]
    backbone: BackboneRow | None


# Channels


class ChannelsQuery(Struct, forbid_unknown_fields=True):
    """Which channels, and how many."""

    match: Text | None = None
    sort: Literal["subscribers", "rate", "deliveries", "backlog"] | None = None
    limit: Limit = LIMIT
    after: Cursor | None = None


class ChannelRow(Struct):
    """How a channel stands."""

    channel: str
    pattern: str | None
    policy: str
    subscribers: int
    workers: list[int]
    position: str
    published: int
    rate: float | None
    deliveries: float | None
    idle: float | None
    backlog: int
    backlog_bytes: int
    unsent_bytes: int
    kept: int
    kept_bytes: int
    presence: bool


class ChannelsAnswer(Struct):
    """A page of channels."""

    channels: list[ChannelRow]
    next: str | None
    silent: list[int]


class ChannelQuery(Struct, forbid_unknown_fields=True):
    """Which channel."""

    channel: Text


class HistoryQuery(Struct, forbid_unknown_fields=True):
    """Of which channel, and from where on."""

    channel: Text
    since: PositionText | None = None
    limit: Limit = LIMIT


class PublicationRow(Struct):
    """A publication that is kept."""

    position: str
    data: Any
    event: str | None
    at: float
    keyframe: bool


class HistoryAnswer(Struct):
    """What a channel keeps, oldest first."""

    channel: str
    position: str
    complete: bool
    publications: list[PublicationRow]


class PresenceAnswer(Struct):
    """Who is subscribed."""

    channel: str
    count: int
    users: list[str]


# Clients


class ClientsQuery(Struct, forbid_unknown_fields=True):
    """Which clients, and how many; those given all have to fit."""

    user: Text | None = None
    channel: Text | None = None
    path: Text | None = None
    lagging: bool = False
    sort: Literal["lag", "lag_bytes", "sent", "waiting"] | None = None
    limit: Limit = LIMIT
    after: Cursor | None = None


class LagRow(Struct):
    """How far a client is behind in its worst subscription, and why."""

    channel: str | None
    publications: int
    bytes: int
    seconds: float
    why: Literal["socket_full", "replaying", "awaits_keyframe", "away", "behind"]
    text: str


class ClientRow(Struct):
    """How a client stands."""

    client: str
    worker: int
    user: str | None
    address: str
    path: str | None
    transport: Literal["websocket", "events", "long_polling", "adopted"]
    protocol: str
    connection_id: str | None
    since: float
    channels: list[str]
    channels_count: int
    sent_bytes: int | None
    waiting_bytes: int
    pending: int
    rtt: float | None
    lag: LagRow | None


class ClientsAnswer(Struct):
    """A page of clients."""

    clients: list[ClientRow]
    next: str | None
    silent: list[int]


class ClientQuery(Struct, forbid_unknown_fields=True):
    """Which client."""

    client: ClientName


# Relays


class UpstreamRow(Struct):
    """How one of a relay's upstreams stands."""

    url: str
    state: str
    why: str
    connects: int
    failures: int


class RelayRow(Struct):
    """How a relay stands in one worker."""

    worker: int
    path: str
    lanes: dict[str, int]
    watching: int
    private_lanes: int
    gaps: int
    unused: int
    broadcasts: dict[str, str]
    refused: dict[str, int]
    upstreams: list[UpstreamRow]


class RelaysAnswer(Struct):
    """All relays of all workers."""

    relays: list[RelayRow]
    silent: list[int]


class LanesQuery(Struct, forbid_unknown_fields=True):
    """Of which relay, and how many."""

    path: Text | None = None
    limit: Limit = LIMIT
    after: Cursor | None = None


class LaneRow(Struct):
    """How a lane stands in one worker."""

    worker: int
    path: str
    method: str
    arguments: str
    protocol: str
    state: str
    clients: int
    gap_since: float | None
    gaps: int
    why: str
    held_by: int | None


class LanesAnswer(Struct):
    """A page of lanes."""

    lanes: list[LaneRow]
    next: str | None
    silent: list[int]


# Settings


class SettingRow(Struct):
    """A setting, its value as text, and where that is from."""

    key: str
    value: str
    source: str


class SettingsAnswer(Struct):
    """All settings."""

    settings: list[SettingRow]


# What acts


class PublishBody(Struct, forbid_unknown_fields=True):
    """One publication, to a channel or to a user."""

    data: Any
    channel: Text | None = None
    user: Text | None = None
    event: str | None = None
    key: str | None = None
    ttl: Annotated[float, Meta(gt=0, le=31_622_400)] | None = None
    keyframe: bool = False
    tags: Tags | None = None


class PublishAnswer(Struct):
    """Where it stands; null of what went to a user."""

    position: str | None


class PublishManyBody(Struct, forbid_unknown_fields=True):
    """Several publications."""

    publications: Annotated[list[PublishBody], Meta(min_length=1, max_length=1_000)]


class PublishManyAnswer(Struct):
    """Where they stand, in their order."""

    positions: list[str | None]


class SendBody(Struct, forbid_unknown_fields=True):
    """A message to one client."""

    client: ClientName
    data: Any
    event: str | None = None


class DisconnectBody(Struct, forbid_unknown_fields=True):
    """Whom to close: a client or all connections of a user."""

    client: ClientName | None = None
    user: Text | None = None
    code: Annotated[int, Meta(ge=1_000, le=4_999)] = 1_008
    reason: Annotated[str, Meta(max_length=123)] = ""


class DisconnectAnswer(Struct):
    """How many were closed; null where other workers may have closed some."""

    closed: int | None


class SubscribeBody(Struct, forbid_unknown_fields=True):
    """What a client is to watch from now on."""

    client: ClientName
    channel: Text
    since: PositionText | None = None
    start: Literal["live", "keyframe", "history"] | None = None


class UnsubscribeBody(Struct, forbid_unknown_fields=True):
    """What it is to watch no more."""

    client: ClientName
    channel: Text
