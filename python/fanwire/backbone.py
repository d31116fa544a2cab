"""The backbone: a server outside that orders what hubs on many machines publish, and keeps it for who comes back.

Or it is a hub, the origin, which this one is an edge of: it passes on what is published there.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from fanwire._engine import BackboneForeign
from fanwire.wording import brief

ORIGINS = ("fanwire", "fanwires")
SCHEMES = ("redis", "rediss", "valkey", "valkeys", "nats", "tls", *ORIGINS)
PREFIX_CHARACTERS_MAX = 128
PREFIX = "fanwire"
PREFIX_MUST = f"1 to {PREFIX_CHARACTERS_MAX} printable characters without braces"
URL_MUST = "the URL of a Redis, Valkey or NATS server, as redis://HOST:PORT, or of an origin, as fanwire://HOST:PORT"

OnDown = Literal["buffer", "fail", "local"]
"""What becomes of publications while it is out of reach: they wait, up to 16 MiB; they fail; they are the machine's."""
ON_DOWN: tuple[OnDown, ...] = get_args(OnDown)


@dataclass(frozen=True, slots=True)
class Backbone:
    """Where it is. What names this machine's hub among others is new each time that it is begun with."""

    url: str
    prefix: str
    on_down: OnDown


class Reached:
    """Whether it is, as far as is known: for ``/metrics`` and ``/readyz``."""

    __slots__ = ("downs", "foreign", "state")

    def __init__(self) -> None:
        self.state: Literal["up", "down", "alone"] | None = None
        """None where there is none, or nobody knows yet."""
        self.downs = 0
        """How often it was found to be out of reach."""
        self.foreign = 0
        """Records that nobody of the prefix has published."""

    def note(self, state: Literal["up", "down", "alone"], why: str, *, counts: bool = True) -> str:
        """It is so from now on. Gives why this machine is not ready for clients; empty where it is.

        All workers of a machine have one link, and one of them `counts`.
        """
        self.downs += counts and state != "up" and self.state in (None, "up")
        self.state = state
        waits = "what is published elsewhere does not come"
        return f"it is out of reach, and {waits}: {brief(why)}" if state == "down" else ""

    def note_foreign(self, event: BackboneForeign) -> None:
        """More have come."""
        self.foreign += event.count


def for_engine(backbone: Backbone | None) -> tuple[str, str, int, str] | None:
    """As a sequencer takes it, if there is one. A machine's number begins with a zero, as docs/records.md says."""
    if backbone is None:
        return None
    # Nothing is published at an edge, so nothing waits for the origin.
    on_down = "fail" if is_origin(backbone.url) else backbone.on_down
    return (backbone.url, backbone.prefix, secrets.randbits(56) << 8, on_down)


def is_origin(url: str) -> bool:
    """Whether a URL is that of a hub, of which this one is an edge."""
    return url.partition(":")[0] in ORIGINS


def check_edge(backbone: Backbone | None, with_presence: Iterable[str]) -> None:
    """Refuse a hub that is an edge and has these patterns of channels with presence.

    Raises:
        ValueError: it tells none: nobody knows the clients of all edges.
    """
    found = next(iter(with_presence), None)
    if backbone is not None and is_origin(backbone.url) and found is not None:
        raise ValueError(f"channels: an edge tells no presence, and {found!r} has presence: leave it out here")


def check_prefix(prefix: str) -> str:
    """Take what the names of keys and channels there begin with.

    Raises:
        ValueError: it cannot be.
    """
    if not 0 < len(prefix) <= PREFIX_CHARACTERS_MAX or set(prefix) & set("{}") or not prefix.isprintable():
        raise ValueError(f"must be {PREFIX_MUST}, not {prefix!r}")
    return prefix


def check_url(url: str) -> str:
    """Take a URL, which no error shows: it may hold a password.

    Raises:
        ValueError: its scheme is none that is known.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme not in SCHEMES or "://" not in url:
        raise ValueError(f"must be {URL_MUST}; its scheme may be {', '.join(SCHEMES)}")
    return url


def backbone_of(
    url: str | None,
    prefix: str,
    on_down: str = "buffer",
    called: tuple[str, str] = ("backbone", "backbone_prefix"),
    *,
    may_be_edge: bool = False,
) -> Backbone | None:
    """What ``Hub(backbone=…, backbone_prefix=…, backbone_on_down=…)`` names.

    Raises:
        TypeError, ValueError: it is none. A URL is not shown: it may hold a password.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"{called[1]} must be text, not {prefix!r}")
    try:
        check_prefix(prefix)
    except ValueError as error:
        raise ValueError(f"{called[1]} {error}") from None
    chosen = next((one for one in ON_DOWN if one == on_down), None)
    if chosen is None:
        raise ValueError(f"backbone_on_down must be one of {', '.join(ON_DOWN)}, not {on_down!r}")
    if url is None:
        return None
    if not isinstance(url, str):
        raise TypeError(f"{called[0]} must be {URL_MUST}, not {type(url).__name__}")
    try:
        check_url(url)
    except ValueError as error:
        raise ValueError(f"{called[0]} {error}") from None
    if is_origin(url):
        if not may_be_edge:
            raise ValueError(f"{called[0]} is that of an origin, and only hubs are edges: publish at the origin")
        if chosen == "local":
            raise ValueError("backbone_on_down is 'local', and an edge publishes nothing: leave it out")
    return Backbone(url, prefix, chosen)
