"""The Rust engine, as Python sees it. ``hub.py`` is the only caller; the public names stand in ``fanwire/__init__.py``.

Every method may be called from any thread and none waits for a socket. A connection is an ``int`` that is never used
twice in the life of an engine; a call that names one which is gone does nothing (its ``Closed`` event is on its way).
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, final

from typing_extensions import disjoint_base

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

__version__: str

PUBLISH_SCRIPT: str
"""What a backbone of Redis or Valkey runs for each publication: docs/records.md."""
ROUTES_MAX: int
"""Paths that an engine may have at once."""

FAILING_STATUSES: tuple[int, ...]
"""Statuses with which a backend's server is as good as down: another one is asked."""

def adopt_orphans(wanted: bool) -> None:
    """Whether processes below this one whose parents have ended are its own children from now on, as those of PID 1 are
    otherwise (PR_SET_CHILD_SUBREAPER, prctl(2)). Raises OSError where the system does not allow it."""

def build_info() -> dict[str, str]:
    """Version, profile (``release`` or ``debug``), target and Rust compiler of the extension."""

def check_headers(headers: _Headers) -> None:
    """Raises ValueError for headers that no response of the application's may have together: one by itself, or all
    take more than 16 KiB. Names the header; its value is not shown."""

def encode_json(data: Any) -> bytes:
    """JSON of `data` as UTF-8, as ``publish`` of a hub without options sends it. Raises what ``publish`` raises."""

def encode_msgpack(data: Any) -> bytes:
    """MessagePack of `data`, as ``publish`` of a hub without options sends it. Raises what ``publish`` raises."""

def canonical(protocol: str, value: bytes) -> bytes | None:
    """The one form of a JSON text (`protocol` ``json``) or MessagePack value (``messagepack``); None where it has none.

    Equal values give equal bytes, which say all that `value` said: sorted members, no white space, shortest numbers.
    What is malformed has none. Nor has a value with a repeated member (also where names differ in case only), with a
    number that neither 64 bits nor a double hold exactly, with NaN or half a surrogate pair. Extensions, names that are
    no strings, and more than 64 levels have none. Raises ValueError of another protocol.
    """

def invocation(protocol: str, id: str, target: str, arguments: bytes) -> bytes:
    """A whole SignalR record that calls `target` with raw arguments, without headers; an empty `id` is none.
    Raises ValueError of another protocol.
    """

def matches(pattern: str, name: str) -> bool:
    """Whether a channel's name matches a pattern, in which ``*`` is any run of characters. Raises InvalidChannel."""

@disjoint_base
class Position:
    """A publication's place in its channel: (epoch, offset). Ordered, hashable, unpacks like a tuple."""

    def __new__(cls, epoch: int, offset: int) -> Position: ...
    @property
    def epoch(self) -> int:
        """Which life of the channel's log, > 0."""
    @property
    def offset(self) -> int:
        """The publication's number in that life, from 1."""
    def __iter__(self) -> Any: ...
    def __lt__(self, other: Position, /) -> bool: ...
    def __le__(self, other: Position, /) -> bool: ...
    def __gt__(self, other: Position, /) -> bool: ...
    def __ge__(self, other: Position, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Publication(Position):
    """What ``publish`` gives: the position of what was published, wherever one is taken.

    Awaited it gives the position as well. In one of several workers that is later than now: until then its position,
    epoch and offset raise LookupError. ``Publication()`` is what went to one client alone, which stands in no log.
    Pickled it is a ``Position``.
    """

    def __new__(cls) -> Publication: ...
    @property
    def position(self) -> Position:
        """The place in the log. Raises LookupError where there is none, or none yet; RuntimeError if it was refused."""
    @property
    def is_placed(self) -> bool:
        """Whether what became of it is known."""
    def await_place(self) -> int | None:
        """The number under which Placed tells that what became of it is known; None if it is."""
    def __await__(self) -> Generator[Any, None, Position]: ...

@final
class ChannelRule:
    """What the channels promise whose name matches `pattern`; the first match wins. `values` are the table's."""

    def __new__(
        cls,
        pattern: str,
        *,
        presence: bool = False,
        **values: Any,
    ) -> ChannelRule: ...

@final
class Setting:
    """What there is to know of a setting: one row of the table."""

    name: str
    scope: str
    """Whose it is: ``serve``'s argument, an option of a hub that the ``engine`` keeps or the ``hub`` itself, or a
    ``channel``'s."""
    group: str
    """Under which heading docs/settings.md tells of it."""
    meaning: str
    """What it is, and in what unit."""
    kind: str
    """``seconds``, ``bytes``, ``whole``, ``permissions``: between `least` and `most`; ``truth``; ``choice``: one of
    `choices`; ``other``."""
    least: float
    most: float
    choices: list[str]
    must: str
    """What it must be, in words."""
    limits: str
    """More about that, for the docs."""
    default: Any
    usual: str
    """More about the default, for the docs."""
    cost: str
    """The worst that it may cost, and what an attacker gains."""

def settings_table() -> list[Setting]:
    """All that can be set, a row each."""

def number_text(kind: str, least: float, most: float) -> str:
    """What a number of a kind (``Setting.kind``) must be, between two bounds, in words."""

def toml_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """The line, from 1, of each table, key and element of a list of a TOML text, by its path: names and indexes.

    Raises ValueError for what is no TOML, and RecursionError for what is nested too deeply.
    """

def may_be_received(code: object) -> bool:
    """Whether it is a close code that a client may send (RFC 6455 §7.4)."""

def may_be_sent(code: object) -> bool:
    """Whether it is a close code that a server may send (RFC 6455 §7.4)."""

@final
class Settings:
    """All limits and options of an engine, frozen; `values` are the table's. A bad one is a ``ValueError``.

    `siblings` are the other workers of a supervisor: the folder where each has a socket, and the key with which all of
    them sign tokens of SignalR connections. With `verify_compression` all that is compressed is decoded again, as its
    readers will, and a difference is a panic.
    """

    def __new__(
        cls,
        *,
        channels: Sequence[ChannelRule] = ...,
        snapshots: Sequence[tuple[str, float]] = ...,
        tell_details: bool = False,
        descriptors_spare: int = 0,
        worker: int = 0,
        siblings: tuple[str, bytes] | None = None,
        verify_compression: bool = False,
        **values: Any,
    ) -> Settings: ...

@final
class Route:
    """A path, and who answers for it.

    A segment ``{name}`` of a `path` of WebSockets or event streams stands for any text but none; in the name of the
    `channel` that its clients watch from their opening on, it stands for what the path has there, decoded. A path that
    no request can have, a channel that cannot be and an unknown name are a ``ValueError``.
    """

    def __new__(
        cls,
        path: str,
        wire: str,
        owner: int = 0,
        *,
        channel: str | None = None,
        transports: Sequence[str] | None = None,
        asks: Sequence[str] = ...,
        origins: Sequence[str] | None = None,
        message_bytes_max: int | None = None,
    ) -> Route:
        """Of which `wire` (``websocket``, ``events``, ``signalr``, ``plain``, ``request``, ``health``, ``ready``).

        `owner` is what its clients' events carry, 0 to 65,535. It is asked and told what `asks` has: of each
        ``opening``, ``subscribing`` and connection that is ``connected``, of ``messages`` that are no requests, of
        ``records`` (``HubMessage.record``), and on a path of wire ``request`` of any method with its whole body, up to
        ``body_bytes_max`` (``bodies``). Without `origins` and `message_bytes_max` those of the settings count.
        """
    @property
    def path(self) -> str:
        """As given."""
    @property
    def key(self) -> str:
        """In the one form in which requests are compared with it: percent-encoded, of SignalR in lower case."""
    def clashes_with(self, other: Route) -> bool:
        """Whether a request could mean either with equal right."""

@final
class Encoder:
    """How a hub writes objects: the options ``encode``, ``formats``, ``decimal`` and ``duration``.

    What it refuses does not depend on the format that is asked for.
    """

    def __new__(
        cls,
        *,
        hook: Callable[[Any], Any] | None = None,
        msgpack: bool = True,
        decimal: str | None = None,
        duration: str | None = None,
    ) -> Encoder: ...
    def json(self, data: Any, *, hub: bool = False) -> bytes:
        """`data` as JSON; with `hub` as SignalR's clients get it. Raises UnsupportedType, UnsupportedValue."""
    def msgpack(self, data: Any, *, hub: bool = False) -> bytes:
        """`data` as MessagePack; with `hub` as SignalR's clients get it. Raises what ``json`` raises."""

@final
class Filter:
    """Which publications of a channel a subscription is to get. Those that ask for the same are equal."""

    @staticmethod
    def parse(json: str) -> Filter | None:
        """Read an object of JSON; None where it asks for nothing. Raises ValueError, which names what is wrong."""
    def both(self, other: Filter) -> Filter | None:
        """What both let through. Raises ValueError where that are too many conditions."""
    def __hash__(self) -> int: ...

@final
class Wanted:
    """Where a client wants to begin in the channels that it asks for; given back as it came."""

@final
class SnapshotWanted:
    """New subscribers of a channel wait for ``publish_snapshot`` or ``give_up_snapshot``."""

    channel: str
    again: bool
    """Other workers have published while the last one was made."""

@final
class Presence:
    """Who came to channels with presence and who went, in order."""

    changes: list[tuple[str, int, bool]]
    """Channel, connection, and whether it came."""

@final
class Sequencer:
    """Orders the publications of the workers that join at a Unix socket, in a thread of its own."""

    def __new__(cls, settings: Settings, path: str, backbone: tuple[str, str, int, str] | None = None) -> Sequencer:
        """Listen there; `settings` are what all workers have to have.

        With a `backbone` (URL, prefix, a number that names this machine, what becomes of publications while it is
        away) a server there orders, for others as well.
        Raises OSError, also where another listens; ValueError of a URL.
        """
    def take_lines(self) -> tuple[list[tuple[int, str]], str | None]:
        """Lines for ``logging`` since the last call, and what the thread has died of."""
    def close(self) -> None:
        """End it. Idempotent."""

@final
class Answer:
    """What becomes of a publication that a backbone is asked for."""

    def wait(self, timeout: float) -> Position | None:
        """Its place; None where it is not known after so many seconds. Other threads run. Raises NotPublished."""
    @property
    def is_known(self) -> bool:
        """Whether it is known what became of it."""
    def fileno(self) -> int:
        """A descriptor that can be read from once it is known; closed with this object. Raises OSError."""

@final
class BackboneLink:
    """A link to a backbone by which programs publish and hear one another, with a thread of its own. No fork has it.

    While 16 MiB or 65,536 messages of other programs wait, what comes is left out, and counted.
    """

    def __new__(cls, url: str, prefix: str, settings: Settings, asks: bool, encoder: Encoder) -> BackboneLink:
        """Begin to connect. With `asks` the channels are those of hubs, in the place of the settings'.

        Raises ValueError of a URL or a prefix.
        """
    def prepare(self) -> Answer | None:
        """What has to be known before the first publication. Raises NotPublished where it is closed."""
    def publish(
        self,
        kind: str,
        name: str,
        data: Any,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        keyframe: bool = False,
        removal: bool = False,
        idempotency_key: str | None = None,
        tags: Mapping[str, str | int | float | bool] | None = ...,
    ) -> Answer:
        """Publish to a ``channel``, a ``user``, a ``hub`` or ``programs``; never waits.

        Raises what ``Engine.publish`` raises, LimitReached of what waits, NotPublished where it is closed.
        """
    def hear(self, name: str) -> Answer:
        """Have what is published to ``programs`` under this name come, also after a reconnect. Known once it does."""
    def hear_no_more(self, name: str) -> None:
        """No more of it."""
    def take(self) -> list[tuple[str | None, bytes]]:
        """Names and messages since the last call; without a name ``down``, ``up``, or how many were left out."""
    def fileno(self) -> int:
        """A descriptor that can be read from once there is something to take; closed with this object."""
    def take_lines(self) -> list[tuple[int, str]]:
        """Lines for ``logging`` since the last call."""
    def close(self) -> None:
        """End it, and its thread; what is under way is answered by NotPublished. Idempotent."""

@final
class HeldAddress:
    """An address that this process listens at without accepting, for those who inherit its descriptors and do.

    What waits is theirs, whichever of them comes or goes. A forked child has the descriptors, too.
    """

    def __new__(cls, settings: Settings, address: str) -> HeldAddress:
        """Listen as ``Engine.listen`` does. Raises ListenFailed."""

    @property
    def address(self) -> str:
        """As bound."""

    @property
    def descriptors(self) -> list[int]:
        """The numbers that are to be inherited: ``fd:N`` or ``fd:N,M`` is the address there. None once closed."""

    def close(self) -> None:
        """Listen no more; unless the address was inherited, who waits and whoever inherited is cut off."""

@final
class Listener:
    """Somebody that hears channels, as ``Engine.listen_to`` gives it."""

    def hear(self, count_max: int) -> list[tuple[str, Position, Any, bool, str | None, bool]]:
        """At most so many publications: channel, position, data, whether that is JSON, event, whether it is a keyframe.

        With none the next one is told of. Raises Overtaken, HubStopped.
        """
    def end(self) -> None:
        """Hear no more."""

@final
class Audible:
    """There is something to read for a listener."""

    token: int
    """The one that it began with."""

@final
class Progress:
    """How far a publication has come among one shard's subscribers in one format."""

    token: int
    part: int
    subscribers: int
    behind: int
    """Those whose sockets have not taken it."""
    skipped: int
    """Those who went past it, so far."""

@final
class Placed:
    """What became of a publication is known, for which somebody waits."""

    token: int
    """What ``Publication.await_place`` gave."""

@final
class MirrorLost:
    """Something of what a worker holds has not come to what mirrors it here: that begins anew."""

    worker: int
    """That holds it."""
    id: bytes
    """Of what is held."""

@final
class WorkerTold:
    """Another worker tells this."""

    worker: int
    """Its number; above 255 it is of another machine."""
    message: bytes
    is_for_all: bool
    """Whether it was told with ``is_for_all``."""

@final
class WorkerChanged:
    """Another worker has come, or gone."""

    number: int
    """Above 255 it is of another machine."""
    has_come: bool
    age: int
    """When its machine came: 0 for this one, less for one that was there before, more for one that came later."""

@final
class BackboneChanged:
    """The backbone is reached, or out of reach."""

    state: Literal["up", "down", "alone"]
    """``alone``: it is out of reach, and this machine goes on by itself."""
    why: str

@final
class BackboneForeign:
    """Records have come from the backbone that nobody of the prefix has published; of several workers one is told."""

    count: int
    """So many more."""

@final
class Opening:
    """A connection whose upgrade request waits for ``accept`` or ``refuse`` (only with ``ask_opening``)."""

    connection: int
    owner: int
    method: str
    target: str
    """Path and query as they came, percent-encoded."""
    headers: list[tuple[str, str]]
    """Names in lower case, values decoded as latin-1, in the order of arrival."""
    peer: str
    """``127.0.0.1:51234``, ``[::1]:51234`` or ``unix:``."""
    channels: list[str]
    """What the query asks to watch, decoded."""
    protocol: str
    """``raw``, ``sse``, ``signalr``, or ``websocket`` on a path whose WebSockets are relayed."""
    subprotocols: list[str]
    """What its upgrade offers, the preferred first."""
    filter: Filter | None
    """Of the channels: what it wants of them."""

@final
class Admitted:
    """A client was let in that shows the same as another: see ``Engine.admit_alike``. Nothing is to be answered."""

    connection: int
    owner: int
    admission: int
    """What ``admit_alike`` gave."""
    headers: list[tuple[str, str]]
    """That it has shown, but for the key of its handshake."""
    peer: str
    """As of an ``Opening``."""

@final
class Asking:
    """A plain HTTP request for a path that Python answers (``/metrics``) with ``respond``."""

    connection: int
    owner: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    peer: str
    body: bytes
    """All of it, where the route asks for ``bodies``."""

@final
class Subscribing:
    """``{"subscribe": […]}`` from a client, waiting for ``grant`` (only with ``ask_subscribing``)."""

    connection: int
    owner: int
    channels: list[str]
    id: str | None
    """The message's ``id`` as JSON text, to be answered when it is not None."""
    wanted: Wanted
    filter: Filter | None
    """What it wants of the channels."""

@final
class Message:
    """What a client of the raw protocol sent and the engine has no meaning for."""

    connection: int
    owner: int
    data: str | bytes

@final
class Relayed:
    """What a client sent on a path whose WebSockets are relayed, as it came; to be acknowledged."""

    connection: int
    owner: int
    data: bytes
    is_text: bool
    """Then `data` is UTF-8."""

@final
class Call:
    """``{"call": target, "args": […], "id": …}`` from a client of the raw protocol."""

    connection: int
    owner: int
    target: str
    arguments: str
    """The ``args`` as JSON text; ``[]`` when absent."""
    id: str | None
    """The ``id`` as JSON text."""

@final
class Connected:
    """A client is connected, and, if it is a SignalR client, has shaken hands; None where it is not one.

    Comes before its first message, or at once where the route asks for it; of other clients only then.
    """

    connection: int
    """Its number."""
    owner: int
    path: str | None
    """The path of its route, as that was given."""
    connection_id: str | None
    """What the client and its hub call it."""
    transport: str | None
    """``WebSockets``, ``ServerSentEvents`` or ``LongPolling``."""
    hub_protocol: str | None
    """``json`` or ``messagepack``."""

@final
class Moved:
    """Who was accepted as `connection` is called `to` from now on: a SignalR client of long polling.

    The connection that its first poll came over carries others' requests, too, as one from a reverse proxy does.
    """

    connection: int
    owner: int
    to: int

@final
class HubMessage:
    """What a SignalR client sent, to be acknowledged."""

    connection: int
    owner: int
    kind: str
    """``invocation``, ``stream``, ``item``, ``result``, ``void``, ``error`` or ``cancel``."""
    id: str
    """Of the invocation, or of what an item, end or cancellation belongs to; empty where there is none."""
    target: str
    body: bytes
    """Arguments, an item or a result in the connection's hub protocol; the text of an error."""
    record: bytes | None
    """Where the route asks for it the whole message as it came."""
    stream_ids: list[str]

@final
class Joined:
    """A client's first call has taken up an offer: it has joined that lane and is answered. Not to be acknowledged."""

    connection: int
    owner: int
    offer: int
    """What ``offer_lane`` gave."""

@final
class Drained:
    """The socket has taken all private bytes, as ``ask_drained`` wanted to know."""

    connection: int
    owner: int

@final
class Released:
    """An adopted connection is given up: once for each, and the engine has no descriptor of it any more."""

    connection: int
    owner: int
    why: str
    """``released``: as was asked, or by a drain; all that was accepted is with the socket. ``ended``: the peer has
    ended its half; the channels were left, what was accepted is with the socket. ``broken``: the socket broke.
    ``closed``: by a policy or ``disconnect``; a Close frame was written behind a whole frame, where one could be.
    ``aborted``: at once, as was asked, or by the end of the engine. Of the last three, what waited is lost.
    """
    code: int
    """Of ``closed`` the close code, of ``broken`` the errno, else 0."""
    reason: str
    """Of ``closed`` that of the Close frame, of ``broken`` the system's word."""

@final
class Closed:
    """A connection that Python has heard of (any event above, or ``accept``) is gone."""

    connection: int
    owner: int
    code: int
    """The close code, RFC 6455 §7.4; 1006 when the socket broke, 1005 when the peer gave none."""
    reason: str
    by: str
    """``client``, ``server`` or ``network``."""

@final
class Record:
    """A line for ``logging``: `level` as there (30 is a warning), `text` ready to print."""

    level: int
    text: str

@final
class Upstream:
    """What happened on a connection to a backend. Members that a kind does not name are empty."""

    session: int
    kind: str
    """``opened``; ``unreached`` (`text`, `status`: a URL that failed); ``completion`` (`id`, `outcome`, `body`);
    ``welcome`` (`id` is the target, `body` the newest record); ``unnamed`` and ``came`` (`id` is the target: the first
    of it over the broadcast lane or a lane);
    ``idle``; ``drained``; ``negotiated`` (`status`, 0 without an answer, `body`, `cookies`, `fault`); ``closed``, the
    last (`text`, `status`, `said`, `may_reconnect`, `was_open`, `pending`, `fault`, `body`)."""
    id: str
    outcome: str
    """``result`` with a raw value in `body`, ``void``, or ``error`` with its text in `body`."""
    body: bytes
    text: str
    """Why it was closed: the error of the backend's Close message, if it sent one, else what broke."""
    status: int | None
    """HTTP's, of a backend that refused."""
    said: bool
    """The backend sent a Close message."""
    may_reconnect: bool
    """That message allows the client to come back."""
    was_open: bool
    """The backend had shaken hands."""
    pending: list[str]
    """Ids of calls that have got no answer."""
    subprotocol: str | None
    """What a plain backend chose, in ``opened``."""
    url_index: int
    """Which of the URLs, in ``opened`` and ``unreached``."""
    code: int | None
    """Of the WebSocket's Close frame that the backend sent, in ``closed``; 1005 where that has none."""
    reason: str
    """Of the same."""
    cookies: list[str]
    """The values of the answer's ``Set-Cookie``, decoded as latin-1."""
    fault: str
    """Whose doing it is that there was no answer, or no session: ``server``; ``request``, which cannot be sent or was
    refused in the backend's words; ``machine``, which has no descriptor, port or memory left; ``handshake``, which the
    hub refused with the words in `body`."""

@final
class Roots:
    """Certificates of authorities, by which backends of ``https`` and ``wss`` are checked."""

    def __new__(cls, pem: bytes) -> Roots:
        """Those of a PEM bundle. Raises ValueError: it holds none, or one that cannot be used."""

_FromClients = Opening | Asking | Subscribing | Message | Call | Relayed | Connected | HubMessage | Drained | Closed
_Event = (
    _FromClients
    | Released
    | Placed
    | WorkerTold
    | WorkerChanged
    | BackboneChanged
    | BackboneForeign
    | MirrorLost
    | Record
    | Upstream
)
_Headers = Sequence[tuple[str, str]]

@final
class Stats:
    """Counters since start and gauges now, summed over the shards."""

    connections: int
    connections_total: int
    subscriptions: int
    channels: int
    publications: int
    deliveries: int
    """Frames of publications handed whole to a socket."""
    writes: int
    """System calls or ring entries that carried them."""
    bytes_out: int
    bytes_in: int
    lagging: int
    """Connections whose socket is full, now."""
    overtaken: int
    """Connections closed because a channel's bound overtook them."""
    expired: int
    """Frames that a subscriber skipped because their time to live was over."""
    accept_pauses: int
    """Times that accepting paused for want of descriptors."""
    handshakes_refused: int
    """Requests answered with an error."""
    refused: dict[int, int]
    """The same by status."""
    tokens_refused: int
    """SignalR requests with a token that none of these workers has signed; without workers they are not told apart."""
    passed_on: int
    """SignalR requests and sockets that were passed on to the worker that has their connection, or searched for."""
    closes: dict[int, int]
    """Closed connections by close code."""
    completion_buckets: list[tuple[float, int]]
    """Fan-out completion: (upper bound in seconds, publications' turns at or under it), cumulative; the last is inf."""
    completion_seconds: float
    """Sum of all completions, seconds."""
    skipped: dict[str, int]
    """Publications that subscribers went past under the policy of their channel, by policy."""
    taken: list[tuple[float, list[tuple[float, int]], float]]
    """Of sampled publications, until a share of a shard's subscribers had them: share, buckets and sum as above."""
    openings: list[tuple[str, list[tuple[float, int]], float]]
    """From a client's request until it was let in: what it opened, buckets and sum as above."""
    subscribing: tuple[list[tuple[float, int]], float]
    """From a client's request to subscribe until it was settled, where the application is asked."""
    compression_readers: dict[str, int]
    """Subscriptions that read compressed publications, now, by coding: ``alone9``, ``alone12``, ``shared9``,
    ``shared12`` or ``shared15``, with a window of so many bits, each by itself or with what came before."""
    compression_sent_bytes: dict[str, int]
    """Bytes of frames that those were sent, by coding."""
    compression_plain_bytes: dict[str, int]
    """The same, if nothing had been compressed."""
    compression_joins: dict[str, int]
    """How often a subscription went on in another coding: ``at_once`` with context, ``alone`` with messages that are
    compressed each by itself, or ``climbed`` from there to more context."""
    compression_fallbacks: dict[str, int]
    """How often one went back to what is not compressed: it was ``overtaken``, it lagged and what it missed was
    ``replaced``, or another subscription of its connection brings more and the window ``moved`` to that."""
    compression_seconds: float
    """Time in which publications were compressed, of all threads, seconds."""
    compression_rests: int
    """How often compression was found not to pay in a channel, whose next MiB then went out as it is."""
    poller: str
    """``epoll`` or ``uring``, as chosen."""

@final
class Arguments:
    """Several arguments for ``publish`` and ``send``: to SignalR clients as such, to others an array."""

    def __new__(cls, *items: Any) -> Arguments: ...

@final
class Adopted:
    """A connection that a framework reads and frames for, and the engine writes to.

    What one thread asks is done in the order of its calls, publications of the channels included. Any thread may call.
    Its end is told by Released. When the last reference goes it is given up at once. All methods raise HubStopped.
    """

    @property
    def connection(self) -> int:
        """The id: as ``excluded`` of a publication may have it, and as events name it."""
    @property
    def waiting(self) -> int:
        """Private bytes that the socket has not taken; 0 once it is given up."""
    def begin(self) -> None:
        """What the framework wrote before is with the socket: from now on the engine writes."""
    def write(self, data: bytes | bytearray | memoryview, *, wakes: bool = True) -> int | None:
        """Write bytes that are framed as a server's, in any pieces; publications go between whole messages.

        What was published in its channels before this call goes out before, what is published after it after. Gives how
        many private bytes wait now. None: nothing was taken, as it is over or being released; what is yet to be written
        belongs to the framework's own transport, and there only behind Released. Without `wakes` the engine is woken by
        ``flush``. Raises TypeError for anything that is no bytes.
        """
    def subscribe(
        self,
        channel: str,
        since: Position | None = None,
        start: str | None = None,
        filter: Filter | None = None,
    ) -> None:
        """As the engine's: publications made after this call go out, behind what was written before it.
        Raises InvalidChannel, LimitReached.
        """
    def unsubscribe(self, channel: str) -> None:
        """What was published before this call still goes out, what is published after it does not.
        Raises InvalidChannel.
        """
    def notify(self, below: int) -> None:
        """One Drained once no more than `below` private bytes wait."""
    def release(self) -> None:
        """Give it up once all that was asked until now is with the socket, due publications included."""
    def abort(self) -> None:
        """Give it up at once: what waits is lost, the socket is shut down both ways."""

@final
class Engine:
    """The shards, their sockets and the channels' logs."""

    def __new__(cls, settings: Settings, encoder: Encoder | None = None) -> Engine: ...
    def encode_json(self, data: Any) -> bytes:
        """`data` as JSON, as clients that do not speak SignalR get it. Raises what ``publish`` raises."""
    def add_route(self, route: Route) -> None:
        """Have requests that begin after this call find a path, before or while it serves.

        Raises ValueError for one that would hide another, and for one over 1,024.
        """
    def remove_route(self, path: str, code: int | None = None) -> bool:
        """Have requests that begin after this call not find a path. False if there was none.

        Its clients stay, or are closed with `code`, 1,024 of a shard in a tenth of a second; who asks to connect is
        answered with 404.
        """
    def start(self) -> None:
        """Start the shards' threads. Once. Raises OSError where a poller can't be had."""
    def join(self, path: str) -> None:
        """Be one of the workers whose Sequencer listens at this Unix socket; once, running, before it listens.

        From then on what is published is in order with what the others publish. Waits for an answer, ten seconds at
        most. Raises OSError, and WorkersApart where it is refused: the others are set to something else.
        """
    @property
    def worker(self) -> int | None:
        """Its number among the others, once it has joined them."""
    @property
    def is_apart(self) -> bool:
        """Whether it has joined others, and nobody orders their publications now."""
    def tell(self, to: int | None, message: bytes, *, is_for_all: bool = False) -> None:
        """Have another worker take WorkerTold, or with None all others. Any thread, never waits.

        With `is_for_all` it may be one of another machine, and None is all others of all machines.

        Raises WorkersApart, LimitReached, HubStopped.
        """
    def listen(self, address: str) -> str:
        """Listen on ``HOST:PORT``, ``[V6]:PORT`` or ``unix:PATH``, or with inherited sockets, ``fd:N`` or ``fd:N,M``.

        Returns the bound address. Raises ListenFailed.
        """
    def welcome(self, fd: int, client: str = "", read: bytes | None = None) -> None:
        """Serve a connected stream socket as one that was accepted. The engine owns the descriptor then, and closes it.

        `client` is what ``Request.peer`` is to say, at most 262 bytes of visible ASCII; empty, it is where the socket's
        other end is. `read` is what was read from it before, if anything: the head of its first request. Any thread.
        Raises OSError for no such socket, or where only spare descriptors are left, and HubStopped; the descriptor is
        still the caller's.
        """
    def adopt(self, fd: int, *, msgpack: bool = False) -> Adopted:
        """Take the write side of a stream socket that somebody else goes on reading; never waits for a shard.

        The engine writes to a duplicate of the descriptor, and nothing until ``begin``. With `msgpack`, objects that
        are published go out as MessagePack in binary frames, else as JSON in text frames. Raises OSError where the
        descriptor is none of a stream socket or no other one is to be had, LimitReached, HubStopped.
        """
    def broadcast(self, adopted: list[Adopted], frame: bytes, *, above: int) -> list[tuple[int, int | None]]:
        """Have each of these write one message, framed as a server's: ``Adopted.write`` of each, at far less cost.

        The engine is woken by ``flush``. Gives, by their places in the list, those for whom more than `above` private
        bytes wait now, with how many, and with None those that took nothing, as they are over or being released. No
        other thread is to ask anything of them meanwhile. Raises HubStopped, TypeError.
        """
    @property
    def event_fd(self) -> int:
        """An eventfd that is readable when events wait. Only ``take_events`` reads it."""
    def take_events(self, count_max: int = 1024) -> list[_Event]:
        """What happened since the last call, oldest first for each connection. Never waits.

        Raises EngineFailed once one of the engine's threads has died; ``event_fd`` is readable for that, too.
        """
    def acknowledge(self, connections: Sequence[int]) -> None:
        """One entry for each Message, Call, Relayed or Subscribing that is dealt with: its client may send more."""
    def publish(
        self,
        channel: str,
        data: Any,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        deferred: bool = False,
        excluded: Sequence[int] = ...,
        keyframe: bool = False,
        tags: Mapping[str, str | int | float | bool] | None = ...,
    ) -> Publication:
        """Append one publication; with `deferred` the shards are woken by ``flush`` (or when 64 KiB wait).

        The connections in `excluded` do not get it.
        Raises InvalidChannel, PayloadTooBig, UnsupportedType, UnsupportedValue, LimitReached, HubStopped.
        """
    def remove(
        self,
        channel: str,
        data: Any,
        key: str,
        event: str | None = None,
        excluded: Sequence[int] = ...,
        tags: Mapping[str, str | int | float | bool] | None = ...,
    ) -> Publication:
        """End a key, in a channel of policy ``latest``: ``publish`` of `data`, after which no value of it is kept.

        Raises ValueError where the channel has another policy, and what ``publish`` raises.
        """
    def publish_to_user(
        self,
        user: str,
        data: Any,
        event: str | None = None,
        ttl: float | None = None,
        deferred: bool = False,
        excluded: Sequence[int] = ...,
    ) -> Publication:
        """As ``publish``, to the connections that were accepted as this user's."""
    def publish_to_hub(
        self,
        path: str,
        data: Any,
        event: str | None = None,
        ttl: float | None = None,
        deferred: bool = False,
        excluded: Sequence[int] = ...,
    ) -> Publication:
        """As ``publish``, to the SignalR connections of this path."""
    def flush(self) -> None:
        """Wake the shards for what was published with `deferred`."""
    def accept(
        self,
        connection: int,
        channels: Sequence[str],
        user: str | None = None,
        headers: _Headers = ...,
        subprotocol: str | None = None,
        filters: Sequence[Filter | None] | None = None,
    ) -> None:
        """Finish an Opening: answer it with success, subscribed to `channels` from its first byte, as `user`'s.

        `filters` are those of the channels, in their order.

        `headers` are added to the response; `subprotocol` is one of those that a WebSocket offers, or none.
        Raises ValueError for a header whose name is no token or the engine's own, or whose value is no visible ASCII.
        """
    def accept_relayed(self, connection: int, subprotocol: str | None = None, headers: _Headers = ...) -> None:
        """Finish an Opening of protocol ``websocket`` with its backend's subprotocol. Headers as in ``accept``."""
    def refuse(self, connection: int, status: int, reason: str, headers: _Headers = ...) -> None:
        """Answer an Opening or Asking with an error status and `reason` as plain text. Headers as in ``accept``."""
    def respond(self, connection: int, status: int, content_type: str, body: bytes, headers: _Headers = ...) -> None:
        """Answer an Asking. Headers as in ``accept``."""
    def publish_snapshot(self, channel: str, data: Any, event: str | None = None) -> Publication:
        """Append the state of a channel, for subscribers that wait for it alone. Raises as ``publish``."""
    def give_up_snapshot(self, channel: str, why: str) -> None:
        """Have subscribers that wait for a keyframe begin where they came, and tell them why."""
    def position(self, channel: str) -> Position:
        """Where a channel, made if need be, is now. Raises InvalidChannel, LimitReached, HubStopped."""
    def listen_to(self, pattern: str, token: int) -> Listener:
        """Hear the channels of a pattern from now on; Audible with `token` tells of something to hear.

        Raises InvalidChannel, LimitReached, HubStopped.
        """
    def track(self, position: Position) -> tuple[int, int]:
        """Have shards report, as Progress, how far a publication has come: the token of the reports, how many parts.
        Raises ValueError for a position at which nothing was published yet.
        """
    def untrack(self, token: int) -> None:
        """End the reports of a token."""
    def subscribe(
        self,
        connection: int,
        channel: str,
        since: Position | None = None,
        start: str | None = None,
        filter: Filter | None = None,
    ) -> None:
        """Publications made after this call reach the connection, which begins at `since` or `start`.
        Raises InvalidChannel, LimitReached, and ValueError for a start that does not exist.
        """
    def grant(
        self,
        connection: int,
        channels: Sequence[str],
        id: str | None = None,
        error: str | None = None,
        wanted: Wanted | None = None,
        filters: Sequence[Filter | None] | None = None,
    ) -> None:
        """Decide on a Subscribing: subscribe to `channels`, each with its one of `filters`, then answer.

        That is with `error`, or with what could not be had.

        Where all is well a request with an `id`, or one that says where it was, is answered with the channels and
        where each begins; another one not at all.
        """
    def unsubscribe(self, connection: int, channel: str) -> None:
        """Publications made after this call no longer reach the connection. Raises InvalidChannel."""
    def send(self, connection: int, data: Any, event: str | None = None) -> None:
        """Private data, in the connection's format, between publications. Raises what ``publish`` raises.

        A full outbox closes the connection with 1013.
        """
    def reply(self, connection: int, text: str) -> None:
        """A reply to a call of the raw protocol: text in any of its formats. Raises PayloadTooBig."""
    def invoke(self, connection: int, target: str, arguments: tuple[Any, ...], id: str | None) -> None:
        """Call a method of a SignalR client; with an `id` it answers. Raises what ``send`` does, as the next four."""
    def complete(self, connection: int, id: str, result: Any) -> None:
        """Answer a SignalR client's invocation with a result."""
    def complete_void(self, connection: int, id: str) -> None:
        """Answer a SignalR client's invocation, or end its stream, without a result."""
    def complete_error(self, connection: int, id: str, error: str) -> None:
        """Answer a SignalR client's invocation, or end its stream, with an error."""
    def stream_item(self, connection: int, id: str, item: Any) -> int:
        """Send an item of the stream that a SignalR client invoked; gives the item's bytes."""
    def complete_raw(self, connection: int, id: str, outcome: str, body: bytes) -> None:
        """Answer an invocation with what a backend answered: ``Upstream.outcome`` and ``body`` in the same protocol."""
    def send_records(self, connection: int, records: bytes) -> None:
        """Send whole messages of its hub protocol to a SignalR client, as they are."""
    def publish_to_lane(self, lane: str, data: Any, event: str) -> Publication:
        """As ``publish``, to the clients of a lane."""
    def set_beginning(self, lane: str, bytes_max: int) -> None:
        """Have newcomers of a lane begin here, or at a later snapshot, with what follows: up to `bytes_max`."""
    def bound_beginning(self, lane: str, bytes_max: int) -> None:
        """Keep so much for newcomers of a lane from now on; what is more is lost, until the next snapshot."""
    def forget_beginning(self, lane: str) -> None:
        """Have newcomers of a lane begin with what comes from now on."""
    def expect_snapshot(self, lane: str, is_expected: bool = True) -> None:
        """Show the lane's next snapshot to nobody but newcomers, for whom it was asked; or no longer."""
    def join_lane(
        self,
        connection: int,
        lane: str,
        is_subscribed: bool = False,
        messages_max: int | None = None,
        age_max: float | None = None,
    ) -> bool:
        """Subscribe a client to a lane, from its beginning on; one that `is_subscribed` begins once more there.

        False when that is lost, or more than `messages_max` came since its snapshot, or that is older than `age_max`
        seconds or not there: then nothing was done.
        """
    def join_live(self, connection: int, lane: str) -> None:
        """Subscribe to a lane from here on, wherever it begins."""
    def leave_lane(self, connection: int, lane: str) -> None:
        """End a client's subscription to a lane."""
    def offer_lane(
        self,
        lane: str,
        call: tuple[int, str, str, bytes],
        end: tuple[str, bytes],
        terms: tuple[float, int | None, float | None],
    ) -> int:
        """Have who makes this call as its first message join a lane and be answered by the engine, which tells of it.

        As by ``join_lane`` and ``complete_raw``; where that cannot be it is a message like any other. Gives a number.

        Args:
            call: the owner of the path, the hub protocol, the method, in ASCII, and the ``canonical`` arguments.
            end: of the call: ``result`` and a value in that protocol, or ``void``.
            terms: for so many seconds any beginning is new enough; `messages_max`; and `age_max` then, None where it is
                over then.

        Raises:
            LimitReached: A million offers stand.
        """
    def admit_alike(self, owner: int, headers: Sequence[tuple[str, str]], valid_for: float) -> int:
        """Let in without a question who shows these headers, for so many seconds; gives the number of an ``Admitted``.

        At a SignalR path of this owner whose messages are passed on, with nothing in its query but what is between it
        and the engine. The key of a WebSocket's handshake is not looked at.

        Raises:
            LimitReached: There are too many kinds of clients.
        """
    def ask_about_all(self, owner: int) -> None:
        """Let nobody in any more at this owner's paths without a question."""
    def withdraw_lane(self, offer: int) -> int:
        """Take an offer back; gives how many have taken it up: a ``Joined`` tells of each, or will."""
    def mirror(
        self,
        name: str,
        source: tuple[bytes, str | None],
        tie: tuple[int, int],
        newest: tuple[int | None, float | None, bool],
    ) -> bool:
        """Have a worker mirror what comes on a lane from now on; what newcomers begin with is sent once for each tie.

        False where that is lost or over the bounds: then nothing was done.

        Args:
            name: of the lane; with a protocol the path of the hub, and it is what comes for all in that.
            source: 16 bytes that name it to all workers, and that protocol.
            tie: the worker, 0 to 255, and its number for this attempt.
            newest: `messages_max` and `age_max` of `join_lane`; whether the worker comes late, and is sent nothing.
        """
    def unmirror(self, name: str, source: tuple[bytes, str | None], worker: int) -> None:
        """That worker mirrors it no longer."""
    def follow(self, name: str, source: tuple[bytes, str | None], tie: tuple[int, int], lost: float | None) -> None:
        """Have what a worker holds come on a lane here, or to the hub at a path, once its dump for this tie has come.

        Args:
            tie: the worker that holds it, and this one's number for the attempt.
            lost: seconds since when who watches has missed what came; None where nobody has.
        """
    def unfollow(self, id: bytes, worker: int) -> float | None:
        """Nothing of that comes any more, from when this returns. Gives for how many seconds nothing has come.

        None where nothing ever did.
        """
    def upstream_open(
        self,
        session: int,
        urls: Sequence[str],
        headers: Sequence[tuple[str, str]],
        protocol: str,
        route: tuple[Any, ...],
        *,
        negotiates: bool,
        keepalive: float,
        server_timeout: float,
        connect_timeout: float,
        idle: float | None,
        record_bytes_max: int,
        queue_bytes_max: int,
        roots: Roots | None = None,
    ) -> None:
        """Connect to a backend. `route` says where goes what comes:

        ``("lane", lane, everyone, snapshot)``, ``("broadcast", path, everyone, welcome)``, ``("private", connection,
        dropped, reported)``, ``("calls",)``. Targets, and methods whose calls' ends are reported, are sets of ``str``.
        """
    def upstream_send(self, session: int, records: bytes) -> int | None:
        """Queue whole messages for a backend; gives how many bytes wait, None where the session is closed."""
    def upstream_open_plain(
        self,
        session: int,
        urls: Sequence[str],
        headers: Sequence[tuple[str, str]],
        subprotocols: Sequence[str],
        route: tuple[Any, ...],
        *,
        keepalive: float,
        server_timeout: float,
        connect_timeout: float,
        idle: float | None,
        message_bytes_max: int,
        queue_bytes_max: int,
        roots: Roots | None = None,
    ) -> None:
        """Connect to a plain WebSocket backend. `route` says where goes what comes:

        ``("lane", lane)``, ``("private", connection, accepts)``, where the connection may wait to be accepted once the
        backend has agreed, or ``("nowhere",)``.
        """
    def upstream_send_message(self, session: int, data: bytes, is_text: bool) -> int | None:
        """Queue a message for a plain backend; gives what ``upstream_send`` gives."""
    def upstream_close(self, session: int, farewell: tuple[int, str] | None = None) -> None:
        """End a session, with this code and reason in the Close frame; ``closed`` comes all the same.

        A negotiation is called off; ``negotiated`` comes all the same.
        """
    def upstream_negotiate(
        self,
        request: int,
        url: str,
        headers: Sequence[tuple[str, str]],
        timeout: float,
        roots: Roots | None = None,
    ) -> None:
        """Ask what a backend would answer; ``negotiated`` comes with `request` as its session, within the timeout."""
    def set_unready(self, why: str | None, others_serve: bool = False) -> None:
        """Have ``/readyz`` answer 503 with this text from now on, or, with None, 200 again.

        It says 503 while this process drains, but where others serve its port.
        """
    def ask_drained(self, connection: int) -> None:
        """Have a Drained event come once the socket has taken all private bytes."""
    def disconnect(self, connection: int, code: int = 1000, reason: str = "") -> None:
        """The close handshake of RFC 6455 §7. ValueError: a code that may not be sent, a reason over 123 bytes."""
    def channels(self, connection: int) -> list[str]:
        """What the connection is subscribed to, now."""
    def occupancy(self, channel: str) -> int:
        """Subscribers of the channel, now."""
    def stats(self) -> Stats:
        """All counters and gauges, now."""
    def drain(self, code: int = 1001, reason: str = "", spread: float = 0.0) -> None:
        """Stop accepting, then close every connection in an orderly way, evenly over `spread` seconds."""
    def stop(self) -> None:
        """End the threads and close every socket. Idempotent; waits for the threads with the GIL released.

        Two eventfds live on until the engine is no longer referenced: another thread may still ring one.
        """

@final
class Look:
    """What an operator is shown of an engine. Each call is bounded, and lets go of the GIL; any thread."""

    def __new__(cls, engine: Engine) -> Look: ...
    @property
    def shards(self) -> int:
        """How many there are."""
    @property
    def next_epoch(self) -> int:
        """Channels that are there now have a lower ``made`` than this."""
    def connections(
        self,
        shard: int,
        from_slot: int,
        count_max: int,
        *,
        looks_max: int = 4096,
        channel: str | None = None,
        path: str | None = None,
        lagging: bool = False,
        by: str | None = None,
    ) -> tuple[list[dict[str, Any]], int | None] | None:
        """Connections of a shard in the order of their slots, and where it goes on; None at the end.

        So many at most, of so many slots, and only those that are meant; `by` has those of whom ``lag``, ``lag_bytes``,
        ``sent`` or ``waiting`` is most, of these slots. Waits for the shard's turn, a second at most:
        None where it does not answer, or there is no such shard.
        """
    def of(
        self,
        connections: Sequence[int],
        *,
        channel: str | None = None,
        path: str | None = None,
        lagging: bool = False,
    ) -> list[dict[str, Any]]:
        """Those of them that are there and meant."""
    def channels(self, place: tuple[int, int], count_max: int) -> tuple[list[dict[str, Any]], tuple[int, int] | None]:
        """Channels behind a place, (0, 0) at the beginning, and the place behind the last; None at the end."""
    def channel(self, name: str) -> dict[str, Any] | None:
        """One, if it exists."""
    def history(
        self, name: str, since: Position | None, count_max: int
    ) -> tuple[Position, list[dict[str, Any]], bool] | None:
        """The newest position; what is kept behind `since`, oldest first, or the newest of it; whether that is all."""

def read_handshake(head: bytes, *, deflates: bool) -> WebSocketHandshake | bytes:
    """Read a request's whole head that asks for a WebSocket (RFC 6455 §4.2); or give the response that refuses it.

    With `deflates` the first acceptable offer of permessage-deflate is taken (RFC 7692).
    """

def response_head(status: int, headers: Sequence[tuple[Any, Any]]) -> bytes:
    """The head of a response, with its empty line. ValueError for a header by which another one would be forged."""

@final
class WebSocketHandshake:
    """A request that asks rightly for a WebSocket."""

    raw_path: bytes
    """As sent, percent-encoded."""
    query: bytes
    """What follows the ``?``, as sent."""
    headers: list[tuple[bytes, bytes]]
    """As sent, the names in lower case."""
    subprotocols: list[str]
    """What the client offers, the preferred one first."""
    @property
    def deflates(self) -> bool:
        """Whether permessage-deflate was agreed."""
    def accept(self, subprotocol: str | None, headers: Sequence[tuple[Any, Any]]) -> bytes:
        """The response that opens the WebSocket. ValueError for a header that is the handshake's or forges another."""
    def codec(self, message_bytes_max: int) -> WebSocketCodec:
        """What comes after it; no message of the client's may have more than so many bytes, inflated."""

@final
class Ping:
    """A ping, to be answered by a pong of the same payload."""

    payload: bytes

@final
class Pong:
    """A pong."""

    payload: bytes

@final
class CloseFrame:
    """The peer's Close frame, the last that is heard."""

    code: int
    """1005 where there was none."""
    reason: str

@final
class Misdeed:
    """The peer broke a rule: nothing is heard behind it."""

    code: int
    """What the connection is to be closed with."""
    reason: str

@final
class WebSocketCodec:
    """The state of a WebSocket after its handshake, of the server's side. It has no socket and no clock."""

    def receive(self, data: Any, messages_max: int) -> list[str | bytes | Ping | Pong | CloseFrame | Misdeed]:
        """What becomes whole by these bytes, in order; text and binary messages as ``str`` and ``bytes``.

        It stops behind `messages_max` messages, or once they have as many bytes as one may have; what is left over
        waits for the next call, which may bring nothing new.
        """
    @property
    def has_rest(self) -> bool:
        """Whether something is left over."""
    def text(self, text: str) -> bytes:
        """A frame of a text message. UnicodeEncodeError for half a surrogate pair."""
    def binary(self, data: Any) -> bytes:
        """A frame of a binary message."""
    @staticmethod
    def ping(payload: bytes) -> bytes:
        """A ping; at most 125 bytes of payload."""
    @staticmethod
    def pong(payload: bytes) -> bytes:
        """A pong; at most 125 bytes of payload."""
    @staticmethod
    def close(code: int | None, reason: str = "") -> bytes:
        """A Close frame, empty for None; the reason is cut to 123 bytes. ValueError: a code that may not be sent."""
