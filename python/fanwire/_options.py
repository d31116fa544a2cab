"""The type of a hub's options. Made of the table of settings by tests/support/settings_page.py alone."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict


class Options(TypedDict, total=False):
    """What ``Hub(...)`` takes as defaults, and ``serve`` and ``run`` for one serving: docs/settings.md."""

    poller: str | None
    """Name of the system interface that carries writes; ``"epoll"``, ``"uring"``; ``uring`` is io_uring; default
    None: what the variable ``FANWIRE_POLLER`` says, else the better one that the kernel allows."""
    pin_shards: bool
    """Whether shard i stays on the i-th CPU that the process may use; False, True; default False."""
    backlog: int
    """Connections that wait for ``accept``; 1 to 65,536; default 4,096."""
    unix_mode: int
    """Permissions of a Unix socket, such as ``0o600``; 0o0 to 0o777; default 0o660; its owner and its group may
    connect."""
    congestion_control: str | None
    """Name of TCP's algorithm, ``TCP_CONGESTION``, such as ``cubic``; what
    ``net.ipv4.tcp_available_congestion_control`` has and the process may use; the kernel is asked when the hub is
    made; default None: the system's."""
    notsent_lowat: int
    """Bytes of a slow client's backlog that the kernel takes, ``TCP_NOTSENT_LOWAT``; 0 to 1 GiB; 0 leaves the
    kernel's; default 16 KiB."""
    origins: str | Sequence[str] | None
    """List of ``Origin`` values that may connect, such as ``https://bets.example``, or ``"*"``; a request without
    one is let in; ``SCHEME://HOST`` or ``SCHEME://HOST:PORT``; case, a trailing slash and a default port do not
    count; a bare host, a path or a ``*`` in one is an error; default None: all, as ``"*"``."""
    head_bytes_max: int
    """Bytes of a request's head; 256 to 1 MiB; default 16 KiB."""
    body_bytes_max: int
    """Bytes of a request's body, on a path whose owner takes bodies; a bigger one is answered with 413; 1 to 1 GiB;
    default 1 MiB."""
    handshake_timeout: float
    """Seconds from accept to the answered upgrade, your callbacks included; then 408, or 503 if it waits for them;
    0.1 to 86,400; default 10."""
    message_bytes_max: int
    """Bytes of a message over all its fragments; a bigger one closes with 1009; 1 to 1 GiB; default 64 KiB."""
    messages_pending_max: int
    """Messages of one client that callbacks have not dealt with; 1 to 32,768; default 16."""
    events_pending_max: int
    """Events of one shard that wait for Python; 16 to 16,777,216; default 16,384."""
    subscriptions_max: int
    """Channels of one client; 1 to 1,048,576; default 1,000."""
    edge_subscriptions_max: int
    """Channels of one edge, which passes them on to clients of its own; 0: no edges; 0 to 1,048,576; default 20,000."""
    channels_max: int
    """Channels that exist at once; 1 to 16,777,216; default 1,000,000."""
    outbox_bytes_max: int
    """Private bytes that wait for one client: pongs, replies, ``send``; 256 to 1 GiB; default 256 KiB; 2 MiB on a
    hub that relays."""
    permessage_deflate: bool
    """Whether WebSockets agree on permessage-deflate (RFC 7692), where a client offers it; False, True; default
    True."""
    gzip: bool
    """Whether event streams are gzip (RFC 1952), where a client accepts it; False, True; default True."""
    ping_interval: float
    """Seconds of silence before a ping; of an event stream, between two keepalives; 0.1 to 86,400; default 25."""
    ping_timeout: float
    """Seconds of silence after that ping; then 1011 is the close code; 0.1 to 86,400; default 20."""
    close_timeout: float
    """Seconds for a close handshake or a last answer; 0.1 to 86,400; default 5."""
    publication_bytes_max: int
    """Bytes of a payload, in the longest form that the hub has; a bigger one is ``PayloadTooBig``; 1 to 1 GiB;
    default 1 MiB."""
    unsent_bytes_max: int
    """Bytes of one channel's log in one format that some shard has not fanned out; 1 KiB to 1 TiB; default 64 MiB."""
    signalr_keepalive: float
    """Seconds between two pings to a client; 0.1 to 86,400; default 15."""
    signalr_client_timeout: float
    """Seconds of silence after which a client that has pinged is given up; 0.1 to 86,400; default 30."""
    signalr_handshake_timeout: float
    """Seconds from the transport to the hub protocol's handshake; 0.1 to 86,400; default 15."""
    signalr_disconnect_timeout: float
    """Seconds from a negotiate to its transport, from one poll to the next, from one socket to the next; 0.1 to
    86,400; default 15."""
    signalr_poll_timeout: float
    """Seconds that a poll waits for messages; 0.1 to 86,400; default 90."""
    signalr_message_bytes_max: int
    """Bytes of one message of a client; a bigger one ends the connection with an error; 64 to 1 GiB; default 32 KiB."""
    drain_timeout: float
    """Seconds that serving waits, at its end, for clients to answer the close; ≥ 0; ``math.inf``: for as long as it
    takes; default 5."""
    drain_spread: float
    """Seconds over which the closes are spread before that, so that not all clients come back at once; 0 to 3,600;
    default 0."""
    drain_code: int
    """The close code at the end of serving; SignalR clients get 1000, which they take as a reason to reconnect; a
    close code, 1000 to 1003, 1007 to 1009, 1011 to 1014 or 3000 to 4999 (RFC 6455 §7.4); default 1001."""
    detailed_errors: bool
    """Whether clients are told class and text of exceptions, as ``EnableDetailedErrors`` has it in ASP.NET Core;
    False, True; default False."""
    subprotocols: Sequence[str]
    """List of subprotocols of WebSockets that are accepted without a callback: of those that a client offers the
    first that is here; RFC 9110 tokens; ``msgpack`` is the engine's own; default none."""
    openings_max: int
    """``authenticate`` and ``authorize`` of connections at work at once, if async; the others wait in order; 1 to
    2³¹ − 1; default 256."""
    client_bytes_max: int
    """Bytes of all that waits in Python on behalf of one client, with what an entry itself costs: calls, uploads,
    questions, what a relay has yet to pass on; 64 KiB to 1 TiB; default 1 MiB."""
    signalr_paths: Sequence[str]
    """List of paths that have the hub's own methods; ``Hub.endpoint`` adds others; each begins with ``/``, ends
    without, and is none of the hub's own; at most 255, relays' included; default ``"/signalr"``."""
    signalr_parallel_max: int
    """Invocations of one client at work at once; streams do not count; 1 to 2³¹ − 1; default 1."""
    signalr_transports: Sequence[str] | None
    """List of those of ``WebSockets``, ``ServerSentEvents``, ``LongPolling`` that clients may use;
    ``Hub.endpoint(path, transports=…)`` has its own; one at least; default None: all."""
    signalr_streams_max: int
    """Streams of one client at once; 1 to 2³¹ − 1; default 100."""
    signalr_questions_max: int
    """``Client.invoke`` of one client that it has not answered; 1 to 2³¹ − 1; default 100."""
    formats: Sequence[str]
    """List of what clients may ask for; ``("json", "msgpack")``, ``("json",)``; default ``"json"``, ``"msgpack"``."""
    encode: Callable[[Any], Any] | None
    """A function of one object of a class that has no form here, which gives what is written in its place, as
    msgspec's ``enc_hook``; it raises NotImplementedError for one that it does not know; –; default None: an object
    of an unknown class is ``UnsupportedType``."""
    decimal: str | None
    """Name of the form in which a ``Decimal`` is written; ``"number"``, ``"string"``; of JSON alone: MessagePack has
    text; default None: a number to SignalR's clients, as .NET has it, a string to others."""
    duration: str | None
    """Name of the form in which a ``timedelta`` is written; ``"dotnet"``, ``"iso8601"``; ``"dotnet"`` is
    ``[-][d.]hh:mm:ss[.fffffff]``, in MessagePack ticks of 100 ns, at most 10,675,199 days; default None:
    ``"dotnet"`` to SignalR's clients, ``"iso8601"`` to others."""
