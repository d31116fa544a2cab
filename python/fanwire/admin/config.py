"""Where the admin side listens, and who may ask."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any, TypeAlias

from fanwire.addresses import ORIGIN_FORM, origins_of
from fanwire.config.building import Built
from fanwire.config.kinds import Address, Boolean, Leaf, Secret, Text, text
from fanwire.config.sources import Path
from fanwire.values import Mistake

TOKEN_MUST = 'a string of 16 to 256 characters of visible ASCII, or { env = "NAME" }'
TOKEN = text(TOKEN_MUST, "[!-~]{16,256}")
NO_TOKEN = "is missing: {} is not loopback, and whoever reaches it could do all that there is to do"


def _read_token(value: Any) -> Secret:
    return Secret(TOKEN.read(value.reveal() if isinstance(value, Secret) else value))


def _read_origins(value: Any) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, Text) else value
    origins = origins_of([given] if isinstance(given, str) else given)
    if origins is None:
        raise Mistake(f"must be {ORIGIN_FORM}; not all")
    return origins


Token: TypeAlias = Annotated[Secret, Leaf(_read_token, _read_token, TOKEN_MUST, is_secret=True)]
OwnOrigins: TypeAlias = Annotated[tuple[str, ...], Leaf(_read_origins, _read_origins, "a list of origins")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig(Built):
    """The admin side of a hub."""

    listen: Address | None = None
    """``127.0.0.1:9001`` or ``unix:/run/fanwire/admin.sock``; None: at the local socket alone. Worst cost: whoever
    reaches it and has the token, or needs none, publishes, disconnects and sees who is connected."""
    token: Token | None = None
    """What ``Authorization: Bearer`` has to bring; required on an address that is not loopback. Worst cost: without one
    every process of this machine may do all."""
    origins: OwnOrigins = ()
    """Origins of pages that may ask, such as a console behind a proxy; those of `listen` itself always may. Worst cost:
    a page of such an origin may do what its user's token allows."""
    local: Boolean = True
    """Whether there is also a Unix socket for this user alone, where ``fanwire clients`` and the like find the hub.
    Worst cost: every process of this user may do all."""

    def faults(self) -> Iterator[tuple[Path, str]]:
        """What is wrong between the fields."""
        if self.listen is not None and self.token is None and not is_loopback(self.listen):
            yield ("token",), NO_TOKEN.format(self.listen)


def is_loopback(address: str) -> bool:
    """Whether nobody on another machine can reach it; of an inherited socket nobody knows."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def config_of(given: "AdminConfig | str | None") -> "AdminConfig | None":
    """The admin side that a program asks for: an address stands for a side that listens there.

    Raises:
        TypeError, ValueError: it is neither, or a token is missing.
    """
    if given is None or isinstance(given, AdminConfig):
        return given
    return AdminConfig(listen=given)
