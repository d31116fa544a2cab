"""What happened, for the pump; the events of clients of the hub's own listeners never come here."""

from dataclasses import dataclass, field
from typing import Any

from .missing import Refused


@dataclass(slots=True)
class Released:
    """An adopted connection is given up: once for each."""

    connection: int
    owner: int
    why: str
    code: int
    reason: str


@dataclass(slots=True)
class SnapshotWanted:
    """New subscribers of a channel wait for ``publish_snapshot`` or ``give_up_snapshot``."""

    channel: str
    again: bool = False


@dataclass(slots=True)
class Presence:
    """Who came to channels with presence and who went, in order."""

    changes: list[tuple[str, int, bool]]


@dataclass(slots=True)
class Audible:
    """There is something to read for a listener."""

    token: int


@dataclass(slots=True)
class Placed:
    """What became of a publication is known, for which somebody waits."""

    token: int


@dataclass(slots=True)
class MirrorLost:
    """Something has not come to what this worker mirrors."""

    worker: int
    id: bytes


@dataclass(slots=True)
class WorkerTold:
    """Another worker tells this."""

    worker: int
    message: bytes
    is_for_all: bool


@dataclass(slots=True)
class WorkerChanged:
    """Another worker has come, or gone."""

    number: int
    has_come: bool
    age: int


@dataclass(slots=True)
class BackboneChanged:
    """The backbone is reached, or out of reach."""

    state: str
    why: str


@dataclass(slots=True)
class BackboneForeign:
    """Records have come from the backbone that nobody of the prefix has published."""

    count: int


@dataclass(slots=True)
class Progress:
    """How far a publication has come among its channel's subscribers."""

    token: int
    part: int
    subscribers: int
    behind: int
    skipped: int


@dataclass(slots=True)
class Record:
    """A line for ``logging``."""

    level: int
    text: str


@dataclass(slots=True)
class Stats:
    """Counters since start and gauges now."""

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
    refused: dict[int, int]
    tokens_refused: int
    passed_on: int
    closes: dict[int, int]
    completion_buckets: list[tuple[float, int]]
    completion_seconds: float
    skipped: dict[str, int]
    taken: list[tuple[float, list[tuple[float, int]], float]]
    openings: list[tuple[str, list[tuple[float, int]], float]]
    subscribing: tuple[list[tuple[float, int]], float]
    poller: str
    compression_readers: dict[str, int] = field(default_factory=dict)
    compression_sent_bytes: dict[str, int] = field(default_factory=dict)
    compression_plain_bytes: dict[str, int] = field(default_factory=dict)
    compression_joins: dict[str, int] = field(default_factory=dict)
    compression_fallbacks: dict[str, int] = field(default_factory=dict)
    compression_seconds: float = 0.0
    compression_rests: int = 0


class Listened(Refused):
    """The base of events and tools of the hub's own clients, which there are none of."""

    WHAT = "a listener"


def _event(name: str, said: str) -> Any:
    return type(name, (Listened,), {"__doc__": said, "__module__": __name__})


Admitted = _event("Admitted", "A client was let in that shows the same as another.")
Asking = _event("Asking", "A plain HTTP request for a path that Python answers.")
Call = _event("Call", "A call of a client of the raw protocol.")
Closed = _event("Closed", "A client's connection is gone.")
CloseFrame = _event("CloseFrame", "The peer's Close frame.")
Connected = _event("Connected", "A client is connected.")
Drained = _event("Drained", "A client's socket has taken all private bytes.")
HubMessage = _event("HubMessage", "What a SignalR client sent.")
Joined = _event("Joined", "A client's first call has taken up an offer.")
Message = _event("Message", "What a client of the raw protocol sent.")
Misdeed = _event("Misdeed", "The peer broke a rule.")
Moved = _event("Moved", "Who a SignalR client of long polling is from now on.")
Opening = _event("Opening", "A connection whose upgrade request waits to be accepted.")
Ping = _event("Ping", "A ping.")
Pong = _event("Pong", "A pong.")
Relayed = _event("Relayed", "What a client sent on a path whose WebSockets are relayed.")
Subscribing = _event("Subscribing", "A client asks for channels.")
Upstream = _event("Upstream", "What happened on a connection to a backend.")
Wanted = _event("Wanted", "Where a client wants to begin in the channels that it asks for.")
