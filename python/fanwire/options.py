"""The options of serving, one field each. Times are seconds, sizes bytes, unless a field says otherwise."""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from math import inf
from typing import Any, TypedDict

from fanwire._engine import Encoder, Settings
from fanwire.addresses import origins_of


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
LEAST = {
    "openings_max": 1,
    "client_bytes_max": 65536,
    "signalr_parallel_max": 1,
    "signalr_streams_max": 1,
    "signalr_questions_max": 1,
}
"""The least value of those that are a number."""


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


ELSEWHERE = {
    "address": "is the first argument of serve, start and run",
    "host": "is part of the address: hub.serve('HOST:PORT')",
    "port": "is part of the address: hub.serve('HOST:PORT')",
    "shards": "is an argument of serve, start and run: hub.serve(address, shards=2)",
    "channels": "is the first argument of Hub(...)",
}
"""What is no option, and where it belongs."""
TOKEN = re.compile(r"[!#-'*+.^-`|~0-9A-Za-z-]{1,255}")
SECONDS = {"drain_timeout": inf, "drain_spread": 3600.0}
"""The hub's own times, with their upper bounds."""


TRANSPORTS = ("WebSockets", "ServerSentEvents", "LongPolling")
"""How SignalR clients may connect, as SignalR calls it; best first."""


def check_transports(transports: Sequence[str] | None) -> None:
    """Raises TypeError or ValueError for what is no choice of ``TRANSPORTS``; None is all of them."""
    if transports is None:
        return
    if isinstance(transports, str):
        raise TypeError("signalr_transports must be a sequence of names, not a str")
    for name in transports:
        if name not in TRANSPORTS:
            raise ValueError(f"signalr_transports: {name!r} is none of {', '.join(TRANSPORTS)}")
    if not transports:
        raise ValueError(f"signalr_transports must have at least one of {', '.join(TRANSPORTS)}")


def check_options(options: Mapping[str, Any]) -> None:
    """Raises TypeError for an unknown option, naming the nearest known one, and for a value of a wrong type.

    Raises ValueError for a value that is out of range.
    """
    known = Options.__annotations__
    for name in options:
        if name in ELSEWHERE:
            raise TypeError(f"{name} is no option: it {ELSEWHERE[name]}")
        if name not in known:
            nearest = get_close_matches(name, known, 1)
            hint = f"; the nearest known one is {nearest[0]!r}" if nearest else ""
            raise TypeError(f"unknown option {name!r}{hint}")
    for name, most in SECONDS.items():
        value = options.get(name, 0)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"{name} must be >= 0 seconds, a number, not {value!r}")
        if not 0 <= value <= most:
            bounds = ">= 0 seconds" if most == inf else f">= 0 and <= {most:g} seconds"
            raise ValueError(f"{name} must be {bounds}, not {value}")
    for name, least in LEAST.items():
        value = options.get(name, least)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be >= {least}, a whole number, not {value!r}")
        if value < least:
            raise ValueError(f"{name} must be >= {least}, not {value}")
    code = options.get("drain_code", 1001)
    if not isinstance(code, int) or isinstance(code, bool) or not may_be_sent(code):
        raise ValueError(f"drain_code must be {CLOSE_CODES}, not {code!r}")
    if isinstance(options.get("signalr_paths"), str):
        raise TypeError("signalr_paths must be a sequence of paths, not a str")
    check_transports(options.get("signalr_transports"))
    subprotocols = options.get("subprotocols", ())
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols must be a sequence of names, not a str")
    for name in subprotocols:
        if not isinstance(name, str) or not TOKEN.fullmatch(name):
            raise ValueError(f"subprotocols must be tokens (RFC 9110 §5.6.2) such as 'chat.v2', not {name!r}")
    encoder_of(options)
    origins_of(options.get("origins"))
    for name, value in options.items():
        kind = known[name]
        if kind in (int, float) and (
            isinstance(value, bool) or not isinstance(value, int if kind is int else int | float)
        ):
            what = "a whole number" if kind is int else "a number of seconds"
            raise TypeError(f"{name} must be {what}, not {value!r}")
    Settings(**{name: value for name, value in options.items() if name not in OWN and name != "origins"})


def encoder_of(options: Mapping[str, Any]) -> Encoder:
    """What writes objects as `options` say. Raises TypeError, ValueError for a bad one."""
    own = {**OWN, **options}
    formats, hook = own["formats"], own["encode"]
    if isinstance(formats, str) or "json" not in formats or not set(formats) <= set(FORMATS):
        raise ValueError(f"formats must be ('json', 'msgpack') or ('json',), not {formats!r}")
    if hook is not None and not callable(hook):
        raise TypeError(f"encode must be a function of one object, not {hook!r}")
    return Encoder(hook=hook, msgpack="msgpack" in formats, decimal=own["decimal"], duration=own["duration"])
