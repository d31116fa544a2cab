"""The options of serving: what each may be, and what is said of names that are none."""

import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from fanwire._engine import ROUTES_MAX, Encoder, Route, may_be_sent
from fanwire._options import Options
from fanwire.addresses import origins_of
from fanwire.channel import Channel
from fanwire.values import (
    TABLE,
    Choice,
    Listed,
    Mistake,
    OrNone,
    Rule,
    Whole,
    WrongType,
    checked,
    rows_of,
    rule_in,
    rule_of,
    unknown,
)

__all__ = ["Options"]


ROWS = rows_of("engine", "hub")
"""The table of what a hub can be set to."""
OWN: dict[str, Any] = {row.name: row.default for row in ROWS.values() if row.scope == "hub"}
"""Those that are the hub's, with their defaults; the others go to the engine as they are."""
FORMATS: tuple[str, ...] = OWN["formats"]
"""What clients may ask for, where nothing else is said."""
TOKEN = re.compile(r"[!#-'*+.^-`|~0-9A-Za-z-]{1,255}")


def clash(route: Route, others: Iterable[Route]) -> str | None:
    """The path of the first of `others` that a request for this one could mean as well; the rule is the engine's."""
    return next((other.path for other in others if other.clashes_with(route)), None)


def check_paths(signalr_paths: Sequence[str]) -> None:
    """Raises ValueError for paths of SignalR of which one would hide the other."""
    known: list[Route] = []
    for route in (Route(path, "signalr") for path in signalr_paths):
        other = clash(route, known)
        if other is not None:
            raise ValueError(f"a hub at {route.path!r} and one at {other!r} would hide each other")
        known.append(route)


def signalr_key(path: str) -> str:
    """What is the same for all that a request may write for a path of SignalR; what no request can have is itself."""
    try:
        return Route(path, "signalr").key
    except ValueError:
        return path


def check_room(path: str, others: int) -> None:
    """Raises ValueError where a hub with so many other paths of any kind may not have this one, too."""
    if others >= ROUTES_MAX:
        raise ValueError(
            f"path {path!r} would be number {others + 1:,} of the hub's paths, of which there may be {ROUTES_MAX:,}"
        )


def check_count(count: int) -> None:
    """Raises ValueError for more paths of SignalR than one hub may have."""
    if count > PATHS_MAX:
        raise ValueError(f"there must be {PATHS_MAX} SignalR paths at most, not {count}")


PLAIN_HTTP = "is none of fanwire: it speaks plain HTTP, and a proxy in front ends TLS, as docs/proxy.md shows"
IN_ADDRESS = "is part of the address: hub.serve('HOST:PORT')"
SHARDS = "is called shards here, threads in one process: hub.serve(address, shards=2)"
WORKERS = "is an argument of run: hub.run(address, workers=2)"
MANY_WORKERS = "is called workers here: hub.run(address, workers=2)"
ELSEWHERE = {
    "address": "is the first argument of serve, start and run",
    **dict.fromkeys(("host", "port", "bind", "listen"), IN_ADDRESS),
    **dict.fromkeys(("unix", "uds", "unix_socket", "socket_path"), "is an address: hub.serve('unix:PATH')"),
    "shards": "is an argument of serve, start and run: hub.serve(address, shards=2)",
    "threads": SHARDS,
    **dict.fromkeys(("workers", "worker_timeout"), WORKERS),
    **dict.fromkeys(("processes", "num_workers"), MANY_WORKERS),
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
        ("compress", "perMessageDeflate", "ws_per_message_deflate", "deflate"), "is called permessage_deflate here"
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
PATHS_MAX = 255
"""Paths of SignalR that one hub may have, relays' included."""


OWN_PATHS = {
    "/": "websocket",
    "/ws": "websocket",
    "/events": "events",
    "/metrics": "metrics",
    "/healthz": "health",
    "/readyz": "ready",
}
"""What each hub has, and what is spoken there."""


OWN_ROUTES = [Route(path, "health") for path in OWN_PATHS]


def read_path(value: Any, wire: str = "plain") -> str:
    """A path that clients may have, as it is: what the engine takes beside the hub's own. Raises Mistake."""
    must = "must be a path such as '/live'"
    if not isinstance(value, str):
        raise WrongType(must)
    try:
        route = Route(value, wire)
    except ValueError as error:  # a lone surrogate is one, too
        raise Mistake(rule_in(error, must)) from error
    if clash(route, OWN_ROUTES) is not None:
        raise Mistake("must be none of the hub's own paths" + ", whatever the case" * (value not in OWN_PATHS))
    return value


read_signalr_path = partial(read_path, wire="signalr")
"""The same of SignalR clients, which is found whatever the case."""


def _read_paths(value: Any) -> tuple[str, ...]:
    paths = Listed(read_signalr_path, "paths such as '/live'", most=PATHS_MAX)(value)
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


def read_close_code(value: Any) -> int:
    """A close code that a server may send. Raises Mistake."""
    must = f"must be {ROWS['drain_code'].must}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise WrongType(must)
    if not may_be_sent(value):
        raise Mistake(must)
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
            tried.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, value.encode())
        except FileNotFoundError as error:
            with suppress(OSError):
                must = f"must be one that the kernel knows: {', '.join(CONGESTION_CONTROLS.read_text().split())}"
            raise Mistake(must) from error
        except PermissionError as error:
            raise Mistake("must be one that the kernel lets this process have") from error
    return value


TCP_CONGESTION = getattr(socket, "TCP_CONGESTION", 13)
"""Linux's number, which others refuse: there it is not asked for."""
CONGESTION_CONTROLS = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
READERS: dict[str, Rule] = {
    "origins": origins_of,
    "subprotocols": Listed(_read_token, "tokens such as 'chat.v2'"),
    "formats": _read_formats,
    "encode": OrNone(_read_function),
    "drain_code": read_close_code,
    "signalr_paths": _read_paths,
    "signalr_transports": OrNone(Listed(Choice(TRANSPORTS), "transports such as 'WebSockets'", is_empty_allowed=False)),
    "congestion_control": OrNone(_read_congestion_control),
}
RULES: dict[str, Rule] = {name: rule_of(row, READERS) for name, row in ROWS.items()}
"""What each option may be."""
WORKERS_MAX = 128


def read_workers(value: Any) -> Any:
    """How many processes serve, or ``auto``. Raises Mistake."""
    if isinstance(value, str) and value == "auto":
        return "auto"
    try:
        return Whole(0, WORKERS_MAX)(value)
    except Mistake as mistake:
        raise type(mistake)(f"{mistake}, or 'auto'", told=mistake.told) from None


def count_of_workers(workers: int | str) -> int:
    """How many processes serve: ``auto`` is as many as this one may use CPUs."""
    return min(len(os.sched_getaffinity(0)), WORKERS_MAX) if isinstance(workers, str) else workers


WORKERS_RULE: Rule = read_workers
"""What ``workers`` may be."""
WORKER_TIMEOUT_RULE: Rule = rule_of(TABLE["worker_timeout"], {})
"""What ``worker_timeout`` may be."""
SHARDS_RULE: Rule = rule_of(TABLE["shards"], {})
"""What ``shards`` may be."""


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
