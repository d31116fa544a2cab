"""The options of serving, one field each. Times are seconds, sizes bytes, unless a field says otherwise."""

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, TypedDict

from fanwire._engine import Encoder, Settings
from fanwire.addresses import origins_of
from fanwire.channel import Channel
from fanwire.values import (
    SIZE_MAX,
    TRUTH,
    Choice,
    Listed,
    Mistake,
    OrNone,
    Rule,
    Seconds,
    Whole,
    WrongType,
    checked,
    unknown,
)


class Options(TypedDict, total=False):
    """What ``Hub(...)`` takes as defaults, and ``serve`` and ``run`` for one serving. The engine checks the values."""

    poller: str | None
    """``epoll`` or ``uring``; None (default) takes ``FANWIRE_POLLER``, else the better one that the kernel allows."""
    origins: str | Sequence[str] | None
    """The ``Origin`` values that may connect, such as ``https://bets.example``; None (default) and ``"*"`` let all in.
    A request without one is let in anyway."""
    detailed_errors: bool
    """Whether clients are told the class and text of exceptions, as ``EnableDetailedErrors`` has it in ASP.NET Core;
    default False. For development: texts of exceptions hold secrets."""
    subprotocols: Sequence[str]
    """Subprotocols of WebSockets that are accepted without a callback: of those that a client offers the first that is
    here is chosen; default none. ``msgpack`` is the engine's own. A browser that offers some, and gets none, fails."""
    formats: Sequence[str]
    """What clients may ask for: ``json`` and, by default, ``msgpack``. With ``("json",)`` publications may hold what
    MessagePack cannot: integers beyond 64 bits."""
    encode: Callable[[Any], Any] | None
    """Given an object of a class that has no form here, returns what is to be written in its place, as msgspec's
    ``enc_hook``; raises NotImplementedError for one that it does not know. Without (default) that is an error."""
    decimal: str | None
    """How a ``Decimal`` is written in JSON: ``string`` or ``number``; None (default) is ``number``, as .NET has it, for
    SignalR's clients, and ``string`` for others. In MessagePack it is always a string."""
    duration: str | None
    """How a ``timedelta`` is written: ``iso8601`` or ``dotnet`` (``[-][d.]hh:mm:ss[.fffffff]``, in MessagePack ticks of
    100 ns); None (default) is ``dotnet`` for SignalR's clients, and ``iso8601`` for others."""
    drain_timeout: float
    """How long serving waits, at its end, for clients to answer the close; ``math.inf`` for as long as it takes;
    default 5."""
    drain_spread: float
    """Over how long, before that, the closes are spread, so that not all clients come back at once; default 0."""
    drain_code: int
    """The close code at the end of serving; default 1001. SignalR clients get 1000, which they take as a reason to
    reconnect."""
    openings_max: int
    """How many openings async callbacks (``authenticate``, ``authorize``) are at work on at once; the others wait in
    order. Default 256."""
    head_bytes_max: int
    """A request's head; default 16 KiB. Costs that much a connection while it connects."""
    message_bytes_max: int
    """A message from a client; default 64 KiB. A bigger one closes with 1009."""
    publication_bytes_max: int
    """A publication's payload; default 1 MiB. A bigger one is ``PayloadTooBig``."""
    unsent_bytes_max: int
    """Bytes of one channel that wait for the shards; default 64 MiB. At the bound ``publish`` raises LimitReached."""
    outbox_bytes_max: int
    """Private bytes that wait for one client; default 256 KiB. More closes with 1013."""
    subscriptions_max: int
    """Channels that one client may watch; default 1,000."""
    channels_max: int
    """Channels that may have a log at once; default 1,000,000."""
    messages_pending_max: int
    """Messages of one client that callbacks have yet to deal with; default 16. At the bound it is not read from."""
    client_bytes_max: int
    """Bytes of all that waits in Python on behalf of one client: calls, uploads, questions, what a relay has yet to
    pass on; default 1 MiB. At the bound it is not read from, or answered with an error that names this."""
    events_pending_max: int
    """Events of one shard that wait for Python; default 16,384. At the bound its clients are not read from."""
    handshake_timeout: float
    """From the connection to its answered upgrade, callbacks included; default 10. Then 408, or 503 if it waits for
    them."""
    ping_interval: float
    """Silence after which a client is pinged; default 25."""
    ping_timeout: float
    """How long it may take to answer; default 20, then 1011 is the close code."""
    signalr_paths: Sequence[str]
    """Where SignalR clients find the hub's own methods; default ``("/signalr",)``. ``Hub.endpoint`` adds other hubs."""
    signalr_transports: Sequence[str] | None
    """Which of ``WebSockets``, ``ServerSentEvents`` and ``LongPolling`` SignalR clients may use; None (default): all.
    ``Hub.endpoint`` may have its own."""
    signalr_parallel_max: int
    """Invocations of one SignalR client at work at once; default 1. Streams do not count."""
    signalr_streams_max: int
    """Streams that a SignalR client may have open at once; default 100. One more is answered with an error."""
    signalr_questions_max: int
    """``Client.invoke`` that a SignalR client has yet to answer; default 100. One more raises ``LimitReached``."""
    signalr_keepalive: float
    """Between two pings to a SignalR client; default 15."""
    signalr_client_timeout: float
    """Silence after which a SignalR client that has pinged is given up; default 30."""
    signalr_handshake_timeout: float
    """From a SignalR transport to the hub protocol's handshake; default 15."""
    signalr_disconnect_timeout: float
    """From a negotiate to its transport, and between two long polls; default 15."""
    signalr_poll_timeout: float
    """How long a poll waits for messages; default 90."""
    signalr_message_bytes_max: int
    """A message from a SignalR client; default 32 KiB. A bigger one ends the connection with an error."""
    close_timeout: float
    """How long a client may take to answer a close; default 5."""
    notsent_lowat: int
    """``TCP_NOTSENT_LOWAT``: what the kernel takes of a slow client's backlog; default 16 KiB."""
    congestion_control: str | None
    """``TCP_CONGESTION`` of accepted sockets, such as ``cubic``; None (default) leaves the kernel's."""
    backlog: int
    """Connections that the kernel keeps for accepting; default 4,096."""
    unix_mode: int
    """Permissions of a Unix socket, such as ``0o600``; default ``0o660``: its owner and its group may connect."""
    pin_shards: bool
    """Whether each shard's thread stays on one core; default False."""


HANDSHAKE_TIMEOUT_S = 10.0
"""The default, which relays keep to as well as the engine."""
FORMATS = ("json", "msgpack")
"""What clients may ask for, where nothing else is said."""
OWN: dict[str, Any] = {
    "formats": FORMATS,
    "encode": None,
    "decimal": None,
    "duration": None,
    "drain_timeout": 5.0,
    "drain_spread": 0.0,
    "drain_code": 1001,
    "detailed_errors": False,
    "openings_max": 256,
    "client_bytes_max": 1 << 20,
    "signalr_paths": ("/signalr",),
    "signalr_transports": None,
    "subprotocols": (),
    "signalr_parallel_max": 1,
    "signalr_streams_max": 100,
    "signalr_questions_max": 100,
}
"""Those that are the hub's, with their defaults; the others go to the engine as they are."""
TOKEN = re.compile(r"[!#-'*+.^-`|~0-9A-Za-z-]{1,255}")
CLOSE_CODES = "1000 to 1003, 1007 to 1014 or 3000 to 4999"
"""The close codes that a server may send (RFC 6455 §7.4)."""


def may_be_sent(code: int) -> bool:
    """Whether `code` is one of them."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_paths(signalr_paths: Sequence[str]) -> None:
    """Raises ValueError for paths of which one would hide the other: they are found whatever the case."""
    known: dict[str, str] = {}
    for path in signalr_paths:
        folded = path.casefold()
        for other in (folded, folded.removesuffix("/negotiate"), f"{folded}/negotiate"):
            if other in known:
                raise ValueError(f"a hub at {path!r} and one at {known[other]!r} would hide each other")
        known[folded] = path


PLAIN_HTTP = "is none of fanwire: it speaks plain HTTP, and a proxy in front ends TLS, as docs/proxy.md shows"
IN_ADDRESS = "is part of the address: hub.serve('HOST:PORT')"
SHARDS = "is called shards here, threads in one process: hub.serve(address, shards=2)"
ELSEWHERE = {
    "address": "is the first argument of serve, start and run",
    **dict.fromkeys(("host", "port", "bind", "listen"), IN_ADDRESS),
    **dict.fromkeys(("unix", "uds", "unix_socket", "socket_path"), "is an address: hub.serve('unix:PATH')"),
    "shards": "is an argument of serve, start and run: hub.serve(address, shards=2)",
    **dict.fromkeys(("workers", "threads", "processes", "num_workers"), SHARDS),
    "channels": "is the first argument of Hub(...)",
    **{name: f"belongs to a channel: Hub({{'odds:*': Channel({name}=…)}})" for name in Channel.__dataclass_fields__},
    **dict.fromkeys(
        ("upstream", "share", "lanes", "linger", "admit"), "belongs to a relay: hub.relay(RelayConfig(...))"
    ),
    "transports": "is called signalr_transports here, and transports of hub.endpoint(...)",
    **{
        name: f"is registered: @hub.{name}"
        for name in ("authenticate", "authorize", "on_connect", "on_disconnect", "on_message", "on_presence", "method")
    },
    **dict.fromkeys(("tls", "ssl", "ssl_context", "certfile", "keyfile", "ssl_certfile", "ssl_keyfile"), PLAIN_HTTP),
    **dict.fromkeys(
        ("compression", "compress", "permessage_deflate", "perMessageDeflate", "ws_per_message_deflate"),
        "is none of fanwire: it does not compress",
    ),
    **dict.fromkeys(
        ("max_connections", "connections_max", "limit_concurrency"),
        "is none of fanwire: the limit of open files bounds the connections, and callbacks may refuse some",
    ),
    **{
        theirs: f"is called {ours} here"
        for ours, names in {
            "message_bytes_max": "max_message_size max_size max_msg_size ws_max_size max_http_buffer_size maxPayload",
            "signalr_message_bytes_max": "maximum_receive_message_size MaximumReceiveMessageSize",
            "messages_pending_max": "max_queue ws_max_queue max_queue_size",
            "outbox_bytes_max": "write_limit max_backpressure send_buffer_size",
            "ping_interval": "heartbeat heartbeat_interval ws_ping_interval keep_alive keepalive",
            "ping_timeout": "ws_ping_timeout heartbeat_timeout",
            "handshake_timeout": "open_timeout connect_timeout",
            "drain_timeout": "graceful_timeout shutdown_timeout timeout_graceful_shutdown",
            "origins": "cors allowed_origins allow_origins cors_origins cors_allowed_origins",
            "encode": "enc_hook default encoder json_encoder dumps",
            "detailed_errors": "debug EnableDetailedErrors enable_detailed_errors",
            "signalr_paths": "path paths",
            "signalr_parallel_max": "MaximumParallelInvocationsPerClient maximum_parallel_invocations_per_client",
            "signalr_keepalive": "KeepAliveInterval keep_alive_interval",
            "signalr_client_timeout": "ClientTimeoutInterval client_timeout_interval",
        }.items()
        for theirs in names.split()
    },
}
"""What is no option, and where it belongs; names of other libraries, and ours."""
TRANSPORTS = ("WebSockets", "ServerSentEvents", "LongPolling")
"""How SignalR clients may connect, as SignalR calls it; best first."""
SHARDS_RULE = Whole(1, 64)
"""What ``shards`` may be."""
PATHS_MAX = 255
"""Paths of SignalR that one hub may have, relays' included."""


def read_path(value: Any) -> str:
    """A path that SignalR clients may have, as it is. Raises Mistake."""
    must = "must be a path such as '/live'"
    if not isinstance(value, str):
        raise WrongType(must)
    try:
        Settings(signalr_paths=[value])
    except ValueError as error:  # a lone surrogate is one, too
        raise Mistake(f"must {str(error).partition(': must ')[2]}" if ": must " in str(error) else must) from error
    return value


def _read_paths(value: Any) -> tuple[str, ...]:
    paths = Listed(read_path, "paths such as '/live'")(value)
    if len(paths) > PATHS_MAX:
        raise Mistake(f"must be {PATHS_MAX} paths at most", told=f"{len(paths)}")
    try:
        check_paths(paths)
    except ValueError as error:
        raise Mistake(f"must be apart: {error}") from error
    return paths


def _read_token(value: Any) -> str:
    must = "must be a token (RFC 9110 §5.6.2) such as 'chat.v2'"
    if not isinstance(value, str):
        raise WrongType(must)
    if not TOKEN.fullmatch(value):
        raise Mistake(must)
    return value


def _read_formats(value: Any) -> tuple[str, ...]:
    must = "must be ('json', 'msgpack') or ('json',)"
    if isinstance(value, str):
        raise WrongType(must)
    formats: tuple[str, ...] = Listed(Choice(FORMATS), "formats: ('json', 'msgpack') or ('json',)")(value)
    if "json" not in formats:
        raise Mistake(must)
    return formats


def _read_function(value: Any) -> Callable[[Any], Any]:
    if not callable(value):
        raise WrongType("must be a function of one object")
    function: Callable[[Any], Any] = value
    return function


@dataclass(frozen=True, slots=True)
class CloseCode:
    """A close code that a server may send; `must` says so where a value is none."""

    must: str = f"must be {CLOSE_CODES}"

    def __call__(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise WrongType(self.must)
        if not may_be_sent(value):
            raise Mistake(self.must)
        return value


def _read_congestion_control(value: Any) -> str:
    """The kernel is asked: what it does not know, or does not let this process have, would fail when serving begins."""
    must = "must be a name that the kernel knows, such as 'cubic'"
    if not isinstance(value, str):
        raise WrongType(must)
    if not re.fullmatch("[!-~]{1,15}", value):
        raise Mistake(must)
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        try:
            tried.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, value.encode())
        except FileNotFoundError as error:
            with suppress(OSError):
                must = f"must be one that the kernel knows: {', '.join(CONGESTION_CONTROLS.read_text().split())}"
            raise Mistake(must) from error
        except PermissionError as error:
            raise Mistake("must be one that the kernel lets this process have") from error
    return value


CONGESTION_CONTROLS = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
TIME = Seconds(0.1)
DRAIN_SPREAD = Seconds(0, 3600)
RULES: dict[str, Rule] = {
    "poller": Choice(("epoll", "uring", None)),
    "origins": origins_of,
    "detailed_errors": TRUTH,
    "subprotocols": Listed(_read_token, "tokens such as 'chat.v2'"),
    "formats": _read_formats,
    "encode": OrNone(_read_function),
    "decimal": Choice(("number", "string", None)),
    "duration": Choice(("dotnet", "iso8601", None)),
    "drain_timeout": Seconds(0, inf),
    "drain_spread": DRAIN_SPREAD,
    "drain_code": CloseCode(),
    "openings_max": Whole(),
    "head_bytes_max": Whole(256, 1 << 20, is_bytes=True),
    "message_bytes_max": Whole(1, 1 << 30, is_bytes=True),
    "publication_bytes_max": Whole(1, 1 << 30, is_bytes=True),
    "unsent_bytes_max": Whole(1 << 10, 1 << 40, is_bytes=True),
    "outbox_bytes_max": Whole(256, 1 << 30, is_bytes=True),
    "subscriptions_max": Whole(1, 1 << 20),
    "channels_max": Whole(1, 1 << 24),
    "messages_pending_max": Whole(1, 1 << 15),
    "client_bytes_max": Whole(65_536, SIZE_MAX, is_bytes=True),
    "events_pending_max": Whole(16, 1 << 24),
    "handshake_timeout": TIME,
    "ping_interval": TIME,
    "ping_timeout": TIME,
    "signalr_paths": _read_paths,
    "signalr_transports": OrNone(Listed(Choice(TRANSPORTS), "transports such as 'WebSockets'", is_empty_allowed=False)),
    "signalr_parallel_max": Whole(),
    "signalr_streams_max": Whole(),
    "signalr_questions_max": Whole(),
    "signalr_keepalive": TIME,
    "signalr_client_timeout": TIME,
    "signalr_handshake_timeout": TIME,
    "signalr_disconnect_timeout": TIME,
    "signalr_poll_timeout": TIME,
    "signalr_message_bytes_max": Whole(64, 1 << 30, is_bytes=True),
    "close_timeout": TIME,
    "notsent_lowat": Whole(0, 1 << 30, is_bytes=True),
    "congestion_control": OrNone(_read_congestion_control),
    "backlog": Whole(1, 1 << 16),
    "unix_mode": Whole(0, 0o777, is_octal=True),
    "pin_shards": TRUTH,
}
"""What each option may be; for the engine's they are its own ranges, which a test compares."""


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as they are kept: lists as tuples, origins as browsers write them.

    Raises TypeError for an unknown option, naming the nearest known one or where it belongs, and for a value of a wrong
    type; ValueError for a value that is out of range.
    """
    for name in options:
        if name not in RULES:
            raise TypeError(unknown("option", name, RULES, ELSEWHERE))
    return {name: checked(name, value, RULES[name]) for name, value in options.items()}


def encoder_of(options: Mapping[str, Any]) -> Encoder:
    """What writes objects as `options`, which are checked, say."""
    own = {**OWN, **options}
    msgpack = "msgpack" in own["formats"]
    return Encoder(hook=own["encode"], msgpack=msgpack, decimal=own["decimal"], duration=own["duration"])
