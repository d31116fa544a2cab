"""What differs between backends of SignalR and of plain WebSockets: requests, answers, refusals, gaps. Bytes and words.

A wire of either kind says what a lane asks for, and reads off an event what has happened to it (``machine.Event``).

Here is also whose fault it is that the backend ends a shared connection: one way for lanes, pools and those who leave.
Guilty is a call that the backend had alone when it ended the connection: at once where it says so (a Close message with
an error, as ASP.NET Core sends at what it cannot take); else, where others wait for it, when that happens again. Who
made it is answered with an error, and the others are made again, one by one. A call that is merely slow has the backend
to itself only for so long.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from fanwire._engine import Upstream
from fanwire.relay.config import CallShare
from fanwire.relay.machine import Event
from fanwire.relay.shared import SharedCall
from fanwire.relay.stats import SHOWN_MAX
from fanwire.relay.turns import Charged
from fanwire.relay.upstreams import REFUSING
from fanwire.wording import brief

UNREACHABLE = "The backend cannot be reached."
"""What a client is told: where the backend is, and what is wrong with it, is in the log."""
NOT_ANSWERED = "The backend has not answered."
"""What a client is told whose call the backend has taken, and kept."""
NO_TURN = "The connection to the backend was lost before it answered, and the call did not get its turn again in time."
"""What a client is told whose call was lost with others, and waits for too long for those before it."""
LOST = "The connection to the backend was lost before it answered."
AWAY = {1001, 1006, 1012, 1013, 1014}
"""Close codes of a backend that is not well, whatever it was told (RFC 6455 §7.4 and its registry)."""
ALONE_S = 1.0
"""How long a call that was made again, or is made for others, has the backend to itself, at most."""
SLOW_MAX = 3
"""Calls that may use up that time before the others are dealt with in another way."""


class Outcome(Protocol):
    """How a call ended."""

    @property
    def outcome(self) -> str:
        """``error``, ``void`` or ``result``."""

    @property
    def body(self) -> bytes:
        """The text of the error, or the value, raw."""


class Asked(NamedTuple):
    """A client's call while it waits: the bytes that it came in are not kept."""

    id: str
    """Empty where no answer is wanted."""
    target: str
    """The method, as the client writes it."""


class Caller(Charged, Protocol):
    """A client, as whoever makes its call sees it."""

    id: int

    def complete(self, call: Asked, outcome: Outcome) -> None:
        """The call ended so."""

    def failed(self, call: Asked, why: str) -> None:
        """The call could not be made."""


NO_CALL = Asked("", "")
"""Of who waits, or sends, without having called."""


class Lifetime(NamedTuple):
    """How a lane stood when its connection ended."""

    is_asking: bool
    lived: float | None
    """Seconds since the backend agreed; None where it had not."""
    lasting: float
    """Seconds after which the end is not for what was said at the beginning."""


class Wire(Protocol):
    """What a lane asks of its backend, and how its end is read."""

    method: str
    """How it is watched, for people."""
    protocol: str
    """``json``, ``messagepack`` or ``websocket``."""
    shown: str
    """What is watched, for people."""
    extra_bytes: int
    """Of what it asks for."""

    def told_of_gap(self, since: float, until: float) -> dict[str, Any]:
        """What clients read when it is live again, with the times of the wall clock."""

    def end_of(self, event: Upstream, lifetime: Lifetime) -> Event:
        """How the connection has ended: lost, for what was said on it, or so that nobody need wait for another."""


@dataclass(slots=True)
class CallWire:
    """A call of a SignalR backend, which is answered."""

    share: CallShare
    call: SharedCall
    method: str = field(init=False)
    protocol: str = field(init=False)
    shown: str = field(init=False)
    extra_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.method, self.protocol, self.shown = self.call.method, self.call.protocol, shown(self.call)
        self.extra_bytes = len(self.call.arguments)

    def told_of_gap(self, since: float, until: float) -> dict[str, Any]:
        """See ``Wire``."""
        return {"call": self.share.subscribe, "since": since, "until": until}

    def end_of(self, event: Upstream, lifetime: Lifetime) -> Event:
        """It was the call's fault where the backend says so while it has one; the lane is let in, or it is not."""
        if event.status in REFUSING:
            return Event.BARRED
        return Event.BLAMED if lifetime.is_asking and is_said(event) else Event.LOST


@dataclass(slots=True)
class PlainWire:
    """A URL of a plain backend, and the message that says what is watched there, which nothing answers."""

    method: str
    message: bytes | None
    """The one form of what each client sent; None where the URL says it, and clients wait to be let in."""
    what: Any
    shown: str = field(init=False)
    protocol: str = "websocket"
    extra_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        what = msgspec.json.encode(self.what)
        self.shown, self.extra_bytes = brief(what.decode(), SHOWN_MAX), len(what) + len(self.message or b"")

    def told_of_gap(self, since: float, until: float) -> dict[str, Any]:
        """See ``Wire``."""
        return {"gap": {"watching": self.what, "since": since, "until": until}}

    def end_of(self, event: Upstream, lifetime: Lifetime) -> Event:
        """A hang-up soon after the message is for the message, unless the backend says that it is not well."""
        if lifetime.lived is None:
            is_for_all = self.message is None or event.status in REFUSING  # who is not let in yet waits for one attempt
            return Event.BARRED if is_for_all else Event.LOST
        is_early = lifetime.lived < lifetime.lasting
        is_meant = event.code is not None and event.code not in AWAY
        return Event.BLAMED if self.message is not None and is_early and is_meant else Event.LOST


def shown(call: SharedCall) -> str:
    """A lane's arguments for people: as JSON, where MessagePack has more, the nearest."""
    if call.protocol == "json":
        text = call.arguments.decode()
    else:
        text = msgspec.json.encode(msgspec.msgpack.decode(call.arguments)).decode()
    return brief(text, SHOWN_MAX)


def is_said(event: Upstream) -> bool:
    """Whether the backend says that it ends the connection for what it was sent, and not for reasons of its own."""
    return event.said and bool(event.text)
