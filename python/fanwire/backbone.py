"""The backbone: a server outside that orders what hubs on many machines publish, and keeps it for who comes back."""

import secrets
from dataclasses import dataclass

SCHEMES = ("redis", "rediss", "valkey", "valkeys", "nats", "tls")
PREFIX_CHARACTERS_MAX = 128


@dataclass(frozen=True, slots=True)
class Backbone:
    """Where it is. What names this machine's hub among others is new each time that it is begun with."""

    url: str
    prefix: str


def for_engine(backbone: Backbone | None) -> tuple[str, str, int] | None:
    """As a sequencer takes it, if there is one."""
    return None if backbone is None else (backbone.url, backbone.prefix, secrets.randbits(64))


def backbone_of(url: str | None, prefix: str) -> Backbone | None:
    """What ``Hub(backbone=…, backbone_prefix=…)`` names.

    Raises:
        TypeError, ValueError: it is none. A URL is not shown: it may hold a password.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"backbone_prefix must be text, not {prefix!r}")
    if not 0 < len(prefix) <= PREFIX_CHARACTERS_MAX or set(prefix) & set("{}") or not prefix.isprintable():
        must = f"1 to {PREFIX_CHARACTERS_MAX} printable characters without braces"
        raise ValueError(f"backbone_prefix must be {must}, not {prefix!r}")
    if url is None:
        return None
    must = "backbone must be the URL of a Redis, Valkey or NATS server, as redis://HOST:PORT or nats://HOST:PORT"
    if not isinstance(url, str):
        raise TypeError(f"{must}, not {type(url).__name__}")
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme not in SCHEMES:
        raise ValueError(f"{must}; its scheme may be {', '.join(SCHEMES)}")
    return Backbone(url, prefix)
