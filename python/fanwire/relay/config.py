"""The settings of one ``[[relay]]``. Times are seconds and sizes bytes here; the file writes them with units."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from fanwire.config.building import Built
from fanwire.config.kinds import (
    ONE_OR_MORE,
    Boolean,
    Bundle,
    Count,
    Duration,
    Few,
    Header,
    HeaderPattern,
    Hidden,
    Interval,
    MessageSize,
    Name,
    Parameter,
    Pause,
    Pointer,
    Proxy,
    Size,
    Url,
    text,
)
from fanwire.config.reading import Chosen, apart
from fanwire.config.sources import Path, dotted
from fanwire.options import read_path, read_signalr_path, signalr_key
from fanwire.relay.headers import UNIMPORTANT
from fanwire.relay.readiness import Ready
from fanwire.values import Mistake

ServedPath: TypeAlias = Annotated[str, text("a path such as /live", "/.*", read_path, most=inf)]
"""What the engine takes as a path of clients, whatever they speak."""

NEGOTIATE = "/negotiate"
SIGNALR_ALONE = 'belongs to protocol = "signalr"'
LATE = ("snapshot", "fresh", "snapshot_messages_max")
FORWARD_IS_GONE = "is no more: all end-to-end headers are forwarded, private.drop names exceptions"
NO_BACKBONE = 'is "shared", and there is no backbone by which machines could hear of each other'
UNNAMED = 'looks as if protocol = "websocket" were missing'


@dataclass(frozen=True, slots=True, kw_only=True)
class CallShare(Built):
    """Calls of a SignalR backend that mean 'watch': clients that make equal ones share a lane."""

    subscribe: Name
    """The method that subscribes; the lane's key is the method with its arguments. Worst cost: a client that makes
    arguments up opens a lane each, up to `lanes.max`."""
    unsubscribe: Name | None = None
    """The method that ends it, with equal arguments; without one the lane is left when the client leaves. Worst cost:
    none."""
    snapshot: Name | None = None
    """The target whose newest message a late joiner gets first. Worst cost: none."""
    fresh: Duration = 5.0
    """How old what a late joiner begins with may be: the `snapshot`, or without one the result of `subscribe`. Where it
    is older the backend is asked again, for newcomers alone, and once for all that come meanwhile. Worst cost: the
    smaller, the more often the backend is asked: `lanes.subscribe_rate` a client at most."""
    snapshot_messages_max: Count = 256
    """Messages since the `snapshot` that a late joiner is given at most; when more came the backend is asked for a
    newer one, as above. Worst cost: as `fresh`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryShare(Built):
    """Connections to a WebSocket backend that watch the same: those of equal path and equal query parameters share."""

    LATER: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("subscribe", "unsubscribe"), "and query exclude each other: each has a [[relay.share]] of its own"
        ),
        **dict.fromkeys(LATE, SIGNALR_ALONE),
    }
    """Keys of the other shares, and what is said of them here."""

    query: tuple[Parameter, ...]
    """The parameters that must be equal; without any (``[]``) the path alone counts. Worst cost: a client that makes
    values up opens a lane each, up to `lanes.max`."""

    def faults(self) -> Iterator[tuple[Path, str]]:
        """What is wrong between the fields."""
        for index, name in enumerate(self.query):
            if name in self.query[:index]:
                yield ("query", index), f'is "{name}", which is query[{self.query.index(name)}] already'


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageShare(Built):
    """Text messages to a WebSocket backend that mean 'watch': those of equal value, read as JSON, share a lane."""

    LATER: ClassVar[Mapping[str, str]] = dict.fromkeys(LATE, SIGNALR_ALONE)
    """Keys of the other shares, and what is said of them here."""

    subscribe: Pointer
    """Where a text message that subscribes has a value, which is the lane's key. Worst cost: as `query`."""
    unsubscribe: Pointer | None = None
    """The same of a message that ends it; without one the lane is left when the client leaves. Worst cost: none."""


Share: TypeAlias = CallShare | QueryShare | MessageShare


@dataclass(frozen=True, slots=True, kw_only=True)
class Everyone(Built):
    """What the backend sends to all its clients: taken from one lane, and given to each client once."""

    targets: tuple[Name, ...] = ()
    """Targets of messages that the backend sends to all its clients: taken from one lane. Worst cost: none."""
    welcome: tuple[Name, ...] = ()
    """Targets that it sends to each connection: each client gets the newest. One may be in both lists; who was there
    before its first greeting may get that twice. Worst cost: what is meant for one client reaches all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Private(Built):
    """All other calls: they go over a connection of the client's own, a private lane."""

    idle: Duration = 60.0
    """How long a private lane outlives its last call. Worst cost: a connection to the backend for each client that
    calls."""
    eager: Boolean = False
    """Whether a client that shows credentials has its private lane from its connecting on: then it hears what the
    backend sends to its user though it never calls. Worst cost: a connection to the backend for each such client."""
    pooled: tuple[Name, ...] = ()
    """Methods that may go over a few shared connections. Worst cost: the backend cannot tell their callers apart."""
    pool_size: Few = 4
    """Connections that the pooled methods share. Worst cost: so many connections to the backend for each hub
    protocol."""
    drop: tuple[Header, ...] = ()
    """Request headers of a client that are not passed on; all others that are end to end are. Worst cost: none."""
    rate: Count = 200
    """Private lanes opened in a second, by all workers together, an equal part each; the others wait in order. Worst
    cost: so many negotiations and upgrades of the backend's a second."""
    per_relay_max: Count = 10_000
    """Private lanes open at once, in each worker; beyond that a call is answered with an error. Worst cost: as many
    connections of each worker to the backend."""

    LATER: ClassVar[Mapping[str, str]] = {"forward": FORWARD_IS_GONE}
    """A key of earlier versions, and what is said of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes(Built):
    """The shared connections to the backend: how many, as whom, and what happens when one is lost."""

    max: Count = 10_000
    """Lanes open at once, of all workers together, and a few more where several open the last ones at one moment; one
    that lingers makes room for a new one, and beyond that a subscription is answered with an error. Worst cost: as
    many connections to the backend, and each of them mirrored in every worker."""
    per_client_max: Count = 100
    """Lanes that one client may watch. Worst cost: a few clients can have all of `max`."""
    subscribe_rate: Count = 50
    """Subscriptions of one client in a second. Worst cost: as many calls to the backend."""
    token: Hidden | None = None
    """The bearer token with which lanes connect. Worst cost: what its bearer may see is what each client of a lane
    sees."""
    headers: Mapping[Header, Hidden] = field(default_factory=dict)
    """Request headers with which lanes connect. Worst cost: as `token`."""
    keepalive: Interval = 15.0
    """Between two pings to the backend. Worst cost: a ping for each connection that often."""
    server_timeout: Interval = 30.0
    """Silence of the backend after which a lane is lost; more than `keepalive`. Worst cost: messages may be missed for
    so long."""
    connect_timeout: Interval = 15.0
    """How long connecting may take, the handshake included: of all addresses of `upstream` together, each an equal
    part. Worst cost: a client that asks waits so long for its error."""
    backoff_min: Pause = 0.2
    """The pause before the first attempt to connect again, which doubles. Worst cost: an attempt for each lane that
    often."""
    backoff_max: Pause = 1.5
    """The longest such pause, not less than `backoff_min`. Worst cost: an attempt for each lane that often, and lanes
    that are back as much later than the backend."""
    on_gap: Literal["nothing", "message", "close"] = "nothing"
    """What clients are told when a lane was lost and is back, as messages may be missing: ``message`` sends
    `gap_target`, ``close`` closes them. Worst cost: with ``nothing`` nobody knows; with ``close`` all of a lane come
    back at once."""
    gap_target: Name = "fanwire:gap"
    """The target of that message. Worst cost: none."""
    machines: Literal["own", "shared"] = "own"
    """Over machines that a backbone joins: each holds lanes of its own, or with ``shared`` one of all holds each, and
    the others hear of it by the backbone. Worst cost: what comes on a lane crosses the backbone once for each machine
    that watches it, and a machine that is lost has its lanes missed for some 6 s."""
    snapshot_bytes_max: Size = 65_536
    """How much of a lane's log is kept for late joiners. Worst cost: so much each lane, and 1 MiB more until the
    backend has answered."""

    def faults(self) -> Iterator[tuple[Path, str]]:
        """What is wrong between the fields."""
        yield from apart(self._faults_of_silence(), self._faults_of_backoff())

    def _faults_of_silence(self) -> Iterator[tuple[Path, str]]:
        if self.server_timeout <= self.keepalive:
            yield ("server_timeout",), "must be more than keepalive, or a quiet backend is taken for a lost one"

    def _faults_of_backoff(self) -> Iterator[tuple[Path, str]]:
        if self.backoff_max < self.backoff_min:
            yield ("backoff_max",), "must not be less than backoff_min"


def _share_of(share: Mapping[str, Any], relay: Mapping[str, Any]) -> type[Share]:
    """By its keys where it can: that it is of another protocol than its relay is said by the relay's faults."""
    if "query" in share:
        return QueryShare
    protocol = relay.get("protocol", "signalr")
    if isinstance(protocol, dict):  # { env = "NAME" }, which is not read yet
        protocol = "websocket" if str(share.get("subscribe")).startswith("/") else "signalr"
    return MessageShare if protocol == "websocket" else CallShare


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig(Built):
    """One path of clients, and the backend behind it."""

    path: ServedPath
    """What clients connect to. Of ``signalr`` it is found whatever the case, does not end in ``/negotiate``, and is
    none of the hub's own in any case; of ``websocket`` case matters. Percent-encoded or not, ``/caf%C3%A9`` or
    ``/café``: a request finds it however it is encoded itself. At most 255 bytes, percent-encoded. Worst cost: none."""
    upstream: Annotated[tuple[Url, ...], ONE_OR_MORE]
    """The backend's URL, without user and password; of several the next is tried when one fails, and the one that
    answered last is asked first. In a file it may be an origin's, ``fanwire://HOST:PORT``, alone: docs/machines.md.
    Worst cost: none."""
    ca: Bundle | None = None
    """The certificates of the authorities by which the upstreams' own are signed (https, wss): these alone are trusted,
    without it those of the system, or of ``SSL_CERT_FILE``. Of 16 MiB at most; read when the settings are, and when
    serving begins. Worst cost: who has a key of theirs is the backend."""
    ready: Ready = "any"
    """When ``/readyz`` answers 503 for this relay: ``any``: every upstream is down; ``all``: one is; ``ignore``: never.
    Worst cost: a balancer takes this instance out until an upstream is back, the other relays with it; no client can
    bring that about."""
    protocol: Literal["signalr", "websocket"] = "signalr"
    """What clients and backend speak. Worst cost: none."""
    negotiate: Boolean = True
    """Whether the backend is asked for ``/negotiate`` (SignalR); if not, the WebSocket is opened at once. Worst cost:
    none."""
    linger: Duration = 30.0
    """How long a lane outlives its last client, where not too many do: docs/relay.md, Limits. Worst cost: a connection
    to the backend for so long."""
    admit: Literal["negotiate", "anyone"] = "negotiate"
    """Who may connect: ``negotiate``: the backend is asked once for each distinct set of headers (but those of
    `admit_ignore`) and query; ``anyone``: nobody is. Worst cost: with ``anyone`` what is shared is public."""
    upstream_message_bytes_max: MessageSize = 32_768
    """One message on a shared connection, all that fanwire adds included; a stock SignalR backend takes the default.
    Worst cost: over it the client that asked gets an error; above the backend's own bound, a client could end shared
    connections."""
    admit_for: Duration = 60.0
    """How long its yes is remembered, and a 401 or 403 for who shows the very same, ignored headers included; no longer
    than a JWT that is shown says with its ``exp``; with 0 each client is asked about. Worst cost: who was shut out may
    connect for so long."""
    admit_ignore: tuple[HeaderPattern, ...] = UNIMPORTANT
    """Headers by which the backend does not decide, ``*`` at the end for any more: who differs in no other header is
    let in by one yes, but by nobody else's no shut out. Worst cost: a header too many: one client's yes is another's;
    one too few: the backend is asked more often."""
    trusted_proxies: tuple[Proxy, ...] = ()
    """Addresses and networks, or ``unix``, whose ``X-Forwarded-*`` and ``Forwarded`` are kept and appended to; those of
    others are replaced. Worst cost: who is in them says where clients come from."""
    share: Annotated[tuple[Share, ...], Chosen(_share_of)] = ()
    """What may be shared, below; nothing: each client has connections of its own. Worst cost: as of each."""
    everyone: Everyone = Everyone()
    """What all clients get, below. Worst cost: as of each."""
    private: Private = Private()
    """What is one client's alone, below. Worst cost: as of each."""
    lanes: Lanes = field(default_factory=Lanes)
    """The shared connections, below. Worst cost: as of each."""

    def faults(self) -> Iterator[tuple[Path, str]]:
        """What is wrong between the fields."""
        if self.protocol == "websocket":
            foreign = (self._fault_of_foreign(path, check) for path, check in self._foreign())
            yield from apart(*foreign, self._faults_of_queries(), self._faults_of_calls())
        else:
            shares = (self._faults_of_signalr_share(index) for index in range(len(self.share)))
            yield from apart(self._faults_of_path(), *shares, self._faults_of_calls())

    def _faults_of_calls(self) -> Iterator[tuple[Path, str]]:
        names: dict[str, Path] = {}
        for path, call in self._calls():
            known = call if self.protocol == "websocket" else call.casefold()  # as the backend finds its methods
            above = next((name for name in names if known.startswith(f"{name}/")), None)
            if known in names:
                yield path, f'is "{call}", which is {dotted(names[known])} already'
            elif self.protocol == "websocket" and above is not None:
                yield path, f'is "{call}", below "{above}", which is {dotted(names[above])} already'
            names.setdefault(known, path)

    def _foreign(self) -> Iterator[tuple[Path, Callable[[], bool]]]:
        """What belongs to SignalR alone, and whether it is set."""
        yield ("negotiate",), lambda: not self.negotiate
        yield ("everyone",), lambda: self.everyone != Everyone()
        yield ("private", "pooled"), lambda: bool(self.private.pooled)
        for index, share in enumerate(self.share):
            yield ("share", index), partial(isinstance, share, CallShare)

    def _fault_of_foreign(self, path: Path, is_set: Callable[[], bool]) -> Iterator[tuple[Path, str]]:
        if is_set():
            yield path, SIGNALR_ALONE

    def _faults_of_queries(self) -> Iterator[tuple[Path, str]]:
        whole: int | None = None
        takers: dict[str, int] = {}
        for index, share in enumerate(self.share):
            if not isinstance(share, QueryShare):
                continue
            where: Path = ("share", index, "query")
            if whole is not None:
                yield where, f"comes behind share[{whole}], which has all connections already"
            elif not share.query:
                whole = index
            elif takers.keys() >= set(share.query):
                before = " and ".join(f"share[{one}]" for one in sorted({takers[name] for name in share.query}))
                yield where, f"comes behind {before}: no connection with these parameters is left"
            for name in share.query:
                takers.setdefault(name, index)

    def _faults_of_path(self) -> Iterator[tuple[Path, str]]:
        if signalr_key(str(self.path)).endswith(NEGOTIATE):
            yield ("path",), f'is "{self.path}", must not end in {NEGOTIATE}, which clients ask for below a path'
        try:
            read_signalr_path(str(self.path))
        except Mistake as mistake:
            yield ("path",), f'is "{self.path}", {mistake}'

    def _faults_of_signalr_share(self, index: int) -> Iterator[tuple[Path, str]]:
        share, at = self.share[index], ("share", index)
        if isinstance(share, QueryShare):
            yield (*at, "query"), UNNAMED
        elif share.subscribe.startswith("/"):
            yield (*at, "subscribe"), f'is "{share.subscribe}", which {UNNAMED}'
        elif isinstance(share, CallShare):
            everyones = dict.fromkeys(self.everyone.welcome, "everyone.welcome")
            everyones |= dict.fromkeys(self.everyone.targets, "everyone.targets")
            if share.snapshot in everyones:
                why = f"which is in {everyones[share.snapshot]}: lanes drop it"
                yield (*at, "snapshot"), f'is "{share.snapshot}", {why}'

    def _calls(self) -> Iterator[tuple[Path, str]]:
        for index, share in enumerate(self.share):
            if not isinstance(share, QueryShare):
                yield ("share", index, "subscribe"), share.subscribe
                if share.unsubscribe is not None:
                    yield ("share", index, "unsubscribe"), share.unsubscribe
        for index, method in enumerate(self.private.pooled):
            yield ("private", "pooled", index), method
