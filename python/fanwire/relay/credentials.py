"""What a client shows: headers and the query. Nothing here reads them, but for when a token says that it expires.

They are passed on to the backend as they are, and are in no ``repr``.
"""

from base64 import urlsafe_b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from time import time
from urllib.parse import parse_qsl

import msgspec

from fanwire._engine import Opening
from fanwire.auth import Request
from fanwire.relay.headers import Passing, with_query, without
from fanwire.relay.upstreams import HeaderFields

OWN_HEADERS = ("authorization", "cookie")
"""Who a client is: with one of them it is more than anybody."""
OF_CONNECTION = ("id", "negotiateVersion", "useStatefulReconnect")
"""Of a client's query, what is between it and fanwire."""
MAX_EXPIRY = 1e12
"""Of a JWT; what is later is as good as never."""
OF_EVERYBODY = ("x-forwarded-host", "x-forwarded-proto")
"""Headers that say how a visitor came, and not who it is."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client showed, and what the backend is to know of it."""

    headers: HeaderFields = field(repr=False)
    query: str = field(repr=False)
    """As sent, without what is between the client and fanwire."""
    has_token: bool
    """In the query."""
    important: tuple[tuple[str, str], ...] = field(repr=False)
    """Those of the headers by which the backend may tell one client from another."""

    @property
    def are_any(self) -> bool:
        """Whether the client is more than anybody."""
        return self.has_token or any(name in OWN_HEADERS for name, _ in self.headers)

    def urls(self, urls: Sequence[str]) -> list[str]:
        """The backend's addresses with the client's query."""
        return with_query(urls, self.query)

    def expires_in(self) -> float:
        """Seconds until a token among them expires, as the token says; infinite where none says so."""
        tokens = [value.partition(" ")[2] for name, value in self.headers if name == "authorization"]
        tokens += tokens_in(self.query)
        return min((expiry_of(token) for token in tokens), default=inf) - time()


def tokens_in(query: str) -> list[str]:
    """Values of ``access_token``, which backends such as ASP.NET Core take whatever its case, and decoded."""
    return [value for name, value in parse_qsl(query) if name.casefold() == "access_token"]


def expiry_of(token: str) -> float:
    """A JWT's ``exp`` (RFC 7519 §4.1.4), in seconds since 1970; infinite of what is none. Nothing is verified."""
    claims = token.strip().split(".")[1:2]
    try:
        expiry = msgspec.json.decode(urlsafe_b64decode(claims[0] + "==")).get("exp")
    except Exception:  # whatever a stranger wrote there, nested without end too: it is no JWT
        return inf
    is_number = isinstance(expiry, int | float) and not isinstance(expiry, bool)
    return float(max(min(expiry, MAX_EXPIRY), 0)) if is_number else inf


def credentials_of(request: Request, passing: Passing) -> Credentials:
    """What a request shows, by a relay's rules."""
    headers = passing.end_to_end(request)
    query = without(request._query_text, OF_CONNECTION)
    return Credentials(headers, query, bool(tokens_in(query)), passing.important(headers))


@dataclass(frozen=True, slots=True)
class Visitor:
    """A client that asks to connect: what it shows, and what it wants."""

    credentials: Credentials
    query: str = field(repr=False)
    """That the backend is to see."""
    subprotocols: tuple[str, ...] = ()
    """Those that it offers."""

    @property
    def is_anybody(self) -> bool:
        """Whether it shows nothing by which a backend could tell it from others, its query aside."""
        return not any(name not in OF_EVERYBODY for name, _ in self.credentials.important)

    def key(self) -> tuple[object, ...]:
        """Equal for visitors that are the same to the backend."""
        return self.credentials.important, self.query, self.subprotocols

    def shown(self) -> tuple[object, ...]:
        """All that the backend sees: equal for visitors that no backend can tell apart."""
        return tuple(self.credentials.headers), self.query, self.subprotocols

    def as_nobody(self) -> "Visitor":
        """The same subprotocols, and nothing shown."""
        return Visitor(
            replace(self.credentials, headers=(), query="", has_token=False, important=()), "", self.subprotocols
        )


def visitor_of(opening: Opening, passing: Passing) -> Visitor:
    """The client of a plain opening, by a relay's rules."""
    request = Request(opening)
    offered = (name.strip() for line in request.headers.all("sec-websocket-protocol") for name in line.split(","))
    query = opening.target.partition("?")[2]
    return Visitor(credentials_of(request, passing), query, tuple(filter(None, offered)))
