"""Every exception that fanwire raises or lets an application raise.

::

    FanwireError
    ├ HubStopped(RuntimeError)
    ├ EngineFailed(RuntimeError)        thread, reason
    ├ EngineMissing(RuntimeError)       what, where
    ├ ListenFailed(OSError)             errno, strerror, address
    ├ ConfigError(ValueError)           file, line, key
    ├ InvalidChannel(ValueError)        channel
    ├ PayloadTooBig(ValueError)         payload_bytes, bytes_max, name
    ├ Overtaken                         channel
    ├ LimitReached                      name, value, bound
    ├ NotPublished(RuntimeError)        may_stand
    ├ AdoptionError(RuntimeError)       what, why
    ├ EncodeError                       path
    │  ├ UnsupportedType(TypeError)
    │  └ UnsupportedValue(ValueError)
    ├ ClientGone                        close_code, reason, by
    └ Told                              its text is for the client; raised by the application
       ├ CallFailed                     answer
       ├ HubError
       └ Refused                        reason, status

The second base keeps ``except ValueError`` and its like working. What is known stands in attributes, the cause in
``__cause__``. No message shows a token or a payload. All of them can be pickled.
"""

import sys
from copy import copy

__all__ = [
    "AdoptionError",
    "CallFailed",
    "ClientGone",
    "ConfigError",
    "EncodeError",
    "EngineFailed",
    "EngineMissing",
    "FanwireError",
    "HubError",
    "HubStopped",
    "InvalidChannel",
    "LimitReached",
    "ListenFailed",
    "NotPublished",
    "Overtaken",
    "PayloadTooBig",
    "Refused",
    "Told",
    "UnsupportedType",
    "UnsupportedValue",
]


class FanwireError(Exception):
    """The root: ``except FanwireError`` catches whatever fanwire raises on purpose."""


def anew(error: Exception) -> Exception:
    """An exception that says the same, to be raised to one of several who are told, or who ask again.

    One object would gather in its traceback the frames of everybody who got it, with all that these hold.
    """
    fresh = copy(error)
    fresh.__cause__ = error.__cause__
    return fresh


class HubStopped(FanwireError, RuntimeError):
    """The hub was stopped, or has not been started; the call did nothing."""

    def __init__(self, message: str = "the hub is stopped") -> None:
        super().__init__(message)


class EngineFailed(FanwireError, RuntimeError):
    """A thread of the engine has died of a panic, a mistake of fanwire's; serving ends with this."""

    thread: str
    """``fanwire-0`` and so on, or ``fanwire-upstream``."""
    reason: str
    """What it panicked with."""

    def __init__(self, thread: str, reason: str) -> None:
        super().__init__(thread, reason)
        self.thread = thread
        self.reason = reason

    def __str__(self) -> str:
        return f"the engine's thread {self.thread} has died: {self.reason}"


class EngineMissing(FanwireError, RuntimeError):
    """This needs the compiled engine, and what is installed is the pure-Python wheel: docs/install.md."""

    what: str
    """What was asked for."""
    where: str
    """The machine: ``darwin, macosx-14.0-arm64``."""

    def __init__(self, what: str) -> None:
        import sysconfig  # for this alone

        super().__init__(what)
        self.what = what
        self.where = f"{sys.platform}, {sysconfig.get_platform()}"

    def __str__(self) -> str:
        return (
            f"{self.what} needs fanwire's engine, which the pure-Python wheel does not have ({self.where}): "
            "run it on Linux, x86-64 or aarch64, where pip installs the wheel with the engine"
        )


class NotPublished(FanwireError, RuntimeError):
    """A backbone gave a publication no place, or nobody knows whether it did."""

    may_stand: bool
    """It may have been published all the same. With an ``idempotency_key`` it can be published again."""

    def __init__(self, message: str, may_stand: bool = False) -> None:
        super().__init__(message, may_stand)
        self.may_stand = may_stand

    def __str__(self) -> str:
        return str(self.args[0])


class ListenFailed(FanwireError, OSError):
    """An address cannot be listened on; ``errno`` and ``strerror`` are the operating system's."""

    address: str
    """As it was given: ``HOST:PORT``, ``[V6]:PORT`` or ``unix:PATH``."""

    def __init__(self, errno: int, strerror: str, address: str) -> None:
        super().__init__(errno, strerror, address)
        self.address = address

    def __str__(self) -> str:
        number = f" (errno {self.errno})" if self.errno else ""  # a resolver's errors have none
        return f"cannot listen on {self.address}: {self.strerror}{number}"


class ConfigError(FanwireError, ValueError):
    """A setting is unknown, malformed or out of its bounds; the message goes on where the key ends: ``is unknown``."""

    file: str | None
    """The TOML file, or None for an environment variable or an option."""
    line: int | None
    """The line in `file`, from 1."""
    key: str | None
    """The setting, as it is written where it came from."""

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, key: str | None = None
    ) -> None:
        super().__init__(message)
        self.file = file
        self.line = line
        self.key = key

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        what = " ".join(part for part in (self.key, str(self.args[0])) if part)
        return f"{place}: {what}" if place else what


class InvalidChannel(FanwireError, ValueError):
    """A channel's name is not 1 to 255 bytes of UTF-8 without control characters and ``*``."""

    channel: str
    """The name as it was given."""
    why: str

    def __init__(self, channel: str, why: str = "not 1 to 255 bytes of UTF-8 without control characters and *") -> None:
        super().__init__(channel, why)
        self.channel = channel
        self.why = why

    def __str__(self) -> str:
        shown = self.channel if len(self.channel) <= 64 else f"{self.channel[:64]}…"
        return f"channel {shown!a}: {self.why}"


class PayloadTooBig(FanwireError, ValueError):
    """A publication or a private message is over the bound; nothing was appended or sent."""

    payload_bytes: int
    bytes_max: int
    name: str
    """The option that holds the bound: ``publication_bytes_max`` or ``outbox_bytes_max``."""

    def __init__(self, payload_bytes: int, bytes_max: int, name: str = "the bound") -> None:
        super().__init__(payload_bytes, bytes_max, name)
        self.payload_bytes = payload_bytes
        self.bytes_max = bytes_max
        self.name = name

    def __str__(self) -> str:
        return f"payload of {self.payload_bytes:,} bytes is over {self.name}, which is {self.bytes_max:,}"


class WorkersApart(FanwireError):
    """This worker cannot reach the supervisor, or is refused there: what it publishes would not reach everyone."""


class Overtaken(FanwireError):
    """Whoever listens to a channel that promises every publication fell behind its backlog, and has lost some."""

    channel: str

    def __init__(self, channel: str) -> None:
        super().__init__(channel)
        self.channel = channel

    def __str__(self) -> str:
        return f"channel {self.channel!a} promises every publication, and its backlog went past this listener"


class LimitReached(FanwireError):
    """A bound of the hub is reached: what would go over it was not done."""

    name: str
    """The setting that holds the bound, such as ``channels_max``."""
    value: int
    """What it would have come to."""
    bound: int

    def __init__(self, name: str, value: int, bound: int) -> None:
        super().__init__(name, value, bound)
        self.name = name
        self.value = value
        self.bound = bound

    def __str__(self) -> str:
        return f"{self.name}: {self.value} is over the bound of {self.bound}"


class AdoptionError(FanwireError, RuntimeError):
    """A connection of a framework cannot be attached; nothing was done."""

    what: str
    """What it is, such as ``a WebSocket of Starlette``."""
    why: str

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what = what
        self.why = why

    def __str__(self) -> str:
        return f"{self.what} cannot be attached: {self.why}"


class EncodeError(FanwireError):
    """An object cannot be written as JSON or MessagePack; one of the two classes below."""

    path: str
    """Where in the object: ``$.odds[3].since``, where ``$`` is the object itself. A refused key has its dict's path."""

    def __init__(self, what: str, path: str = "$") -> None:
        super().__init__(what, path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.args[0]} (at {self.path})"


class UnsupportedType(EncodeError, TypeError):
    """There is no form of such a type, and ``Hub(encode=…)`` knows none."""


class UnsupportedValue(EncodeError, ValueError):
    """One of the hub's formats has the type but not this value: NaN, a lone surrogate, an ``int`` beyond 64 bits."""


class ClientGone(FanwireError):
    """The client that was asked or written to has left."""

    close_code: int
    """RFC 6455 §7.4; 1006 when the socket broke, 1005 when the peer gave none."""
    reason: str
    by: str
    """``client``, ``server`` or ``network``."""

    def __init__(self, close_code: int, reason: str = "", by: str = "network") -> None:
        super().__init__(close_code, reason, by)
        self.close_code = close_code
        self.reason = reason
        self.by = by

    def __str__(self) -> str:
        because = f" ({self.reason})" if self.reason else ""
        return f"closed by {self.by} with {self.close_code}{because}"


class Told(FanwireError):
    """Raise it in a callback or a method to tell the client its text; the root of those that say something to clients.

    A call or a subscription is answered with the text, an opening is refused with it and with 403. Where ``on_connect``
    or a client's own function raises it, the client is closed with it and 1008. The text of any other exception stays
    here: it is logged, and the client told that there was one.
    """

    status: int = 403
    """What an opening handshake is answered with."""


class CallFailed(Told):
    """The other side of a call answered with an error. Raised on, its text goes to the client."""

    answer: str
    """What it answered."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.answer = answer


class HubError(Told):
    """``Told`` by the name that SignalR has for it: what ``HubException`` is in ASP.NET Core."""


class Refused(Told):
    """``Told`` with a status: ``raise Refused("no such user")``.

    At the opening handshake the client is answered with `status` and `reason`; later, with `reason` alone.

    Args:
        reason: plain text for the client to read.
        status: 400 to 599. 401 asks for (other) credentials, 403 says that none will do.

    Raises:
        TypeError: `reason` is no str, such as a status in its place, or `status` is no int.
        ValueError: `status` is no error status of HTTP (RFC 9110 §15).
    """

    reason: str
    status: int

    def __init__(self, reason: str = "", *, status: int = 401) -> None:
        if not isinstance(reason, str):
            hint = f"; a status is named: Refused('why', status={reason})" if isinstance(reason, int) else ""
            raise TypeError(f"reason must be a str, not {reason!r}{hint}")
        if not isinstance(status, int) or isinstance(status, bool):
            raise TypeError(f"status must be a whole number, 400 to 599, not {status!r}")
        if not 400 <= status <= 599:
            raise ValueError(f"status must be a whole number, 400 to 599, not {status}")
        super().__init__(reason)
        self.reason = reason
        self.status = status
