"""What a client shows: headers and the query. Nothing here reads them, but for when a token says that it expires.

They are passed on to the backend as they are, and are in no ``repr``.
"""

from base64 import urlsafe_b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from sys import intern
from time import time
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from fanwire._engine import Opening
from fanwire.relay.headers import Pairs, Passing, address_of, values_in, with_query, without
from fanwire.relay.upstreams import HeaderFields

OWN_HEADERS = ("authorization", "cookie")
"""Who a client is: with one of them it is more than anybody."""
OF_CONNECTION = ("id", "negotiateVersion", "useStatefulReconnect")
"""Of a client's query, what is between it and fanwire."""
MAX_EXPIRY = 1e12
"""Of a JWT; what is later is as good as never."""
OF_EVERYBODY = ("x-forwarded-host", "x-forwarded-proto")
"""Headers that say how a visitor came, and not who it is."""
WORDS = {
    *("accept", "accept-encoding", "accept-language", "cache-control", "dnt", "host", "origin", "pragma", "priority"),
    *("sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site"),
    *("sec-gpc", "upgrade-insecure-requests", "user-agent", "x-requested-with", "x-signalr-user-agent"),
    *OF_EVERYBODY,
}
"""Headers whose values many have, and that are no secret."""
OF_UPGRADES = {
    "connection",
    "content-length",
    "content-type",
    "sec-websocket-extensions",
    "sec-websocket-version",
    "upgrade",
}
"""Those that go no further."""
WORD_MAX = 512
"""Characters of such a value that is kept for others."""
ALIKE_MAX = 512
"""Things of a kind that are kept for others."""
ALIKE_BYTES_MAX = 4096
"""Of a request's headers that are."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What a client showed but for its address: one for all who show the same, where that tells nobody from others."""

    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """Those that go on."""
    query: str = field(repr=False)
    """As sent, without what is between the client and fanwire."""
    has_token: bool
    """In the query."""
    host: str = ""
    """That was asked for."""
    passing: Passing | None = field(default=None, repr=False)
    """Says where the client came from; None where the headers do."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client showed, and what the backend is to know of it."""

    shown: Shown = field(repr=False)
    address: str = field(repr=False)

    @property
    def headers(self) -> HeaderFields:
        """For the backend."""
        shown = self.shown
        if shown.passing is None:
            return shown.headers
        return (*shown.headers, *shown.passing.origin([("host", shown.host)], self.address, is_trusted=False))

    @property
    def are_any(self) -> bool:
        """Whether the client is more than anybody."""
        return self.shown.has_token or any(name in OWN_HEADERS for name, _ in self.shown.headers)

    def urls(self, urls: Sequence[str]) -> list[str]:
        """The backend's addresses with the client's query."""
        return with_query(urls, self.shown.query)

    def expires_in(self) -> float:
        """Seconds until a token among them expires, as the token says; infinite where none says so."""
        tokens = [value.partition(" ")[2] for name, value in self.shown.headers if name == "authorization"]
        tokens += tokens_in(self.shown.query)
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


class Alike:
    """Gives one thing for all that are equal to it, as long as they are not too many: then it begins anew."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        """What is kept under this key."""
        return self._known.get(key)

    def keep(self, key: Any, thing: T) -> T:
        """Keep a thing; gives that which was kept before, if one was."""
        if len(self._known) >= ALIKE_MAX:
            self._known.clear()
        found: T = self._known.setdefault(key, thing)
        return found

    def headers(self, headers: Pairs) -> tuple[tuple[str, str], ...]:
        """These headers, each the same for all who have it, where it tells nobody from others."""
        return tuple(map(self._header, headers))

    def _header(self, header: tuple[str, str]) -> tuple[str, str]:
        name, value = header
        if name.lower() in WORDS and len(value) <= WORD_MAX:
            return self.keep(header, header)
        return intern(name), value


class Reader:
    """Reads what visitors show, by a relay's rules. What many show alike is read once, and kept once.

    Of what may tell one from another nothing is kept here: it goes with the client.
    """

    __slots__ = ("_alike", "_credentials", "_passing", "_shares", "_shown")

    def __init__(self, passing: Passing) -> None:
        self._passing = passing
        # Else what decides who may connect is another for each address.
        self._shares = passing.ignores_addresses
        self._shown = Alike()
        self._alike = Alike()
        self._credentials = Alike()

    def read(self, headers: Pairs, query: str, peer: str) -> tuple[Credentials, Pairs]:
        """What a request shows, by headers and query; and of its headers those that decide who may connect."""
        address, query = address_of(peer), without(query, OF_CONNECTION)
        is_trusted = self._passing.trusts(address)
        if query or is_trusted or not self._shares:
            shown, important = self._read(headers, query, address, is_trusted=is_trusted)
            return Credentials(shown, address), important
        seen = tuple([pair for pair in headers if pair[0] != "sec-websocket-key"])
        known = self._shown.get(seen)
        if known is None:
            known = shown, important = self._read(headers, query, address, is_trusted=False)
            if not is_anybodys(seen):
                return Credentials(shown, address), important
            self._shown.keep(seen, known)
        shown, important = known
        return self.alike(shown, address), important

    def alike(self, shown: Shown, address: str) -> Credentials:
        """Of one that shows what many show, from this address."""
        known: Credentials | None = self._credentials.get((shown, address))
        return known or self._credentials.keep((shown, address), Credentials(shown, address))

    def shown_by_many(self, headers: Pairs, target: str) -> Shown | None:
        """What a request shows that was read, if nothing in it may be one client's alone, nor says who that is."""
        passing = self._passing
        if without(target.partition("?")[2], OF_CONNECTION) or passing.trusted or passing.trusts_unix:
            return None
        known = self._shown.get(tuple([pair for pair in headers if pair[0] != "sec-websocket-key"]))
        return None if known is None else known[0]

    def _read(self, headers: Pairs, query: str, address: str, *, is_trusted: bool) -> tuple[Shown, Pairs]:
        passing, has_token = self._passing, bool(tokens_in(query))
        kept = self._alike.headers(passing.end_to_end(headers, is_trusted=is_trusted))
        origin = self._alike.headers(passing.origin(headers, address, is_trusted=is_trusted))
        important = passing.important((*kept, *origin))
        if is_trusted:
            return Shown((*kept, *origin), query, has_token), important
        hosts = self._alike.headers([("host", ", ".join(values_in(headers, "host")))])
        return Shown(kept, query, has_token, hosts[0][1], passing), important


def is_anybodys(headers: Pairs) -> bool:
    """Whether nothing in them may be one client's alone, and they are no more than others' are."""
    size = sum(len(name) + len(value) for name, value in headers)
    return size <= ALIKE_BYTES_MAX and all(name in WORDS or name in OF_UPGRADES for name, _ in headers)


@dataclass(frozen=True, slots=True)
class Visitor:
    """A client that asks to connect: what it shows, and what it wants."""

    credentials: Credentials
    query: str = field(repr=False)
    """That the backend is to see."""
    subprotocols: tuple[str, ...] = ()
    """Those that it offers."""
    important: Pairs = field(default=(), repr=False)
    """Those of its headers by which the backend may tell one client from another."""

    @property
    def is_anybody(self) -> bool:
        """Whether it shows nothing by which a backend could tell it from others, its query aside."""
        return not any(name not in OF_EVERYBODY for name, _ in self.important)

    def key(self) -> tuple[object, ...]:
        """Equal for visitors that are the same to the backend."""
        return self.important, self.query, self.subprotocols

    def shown(self) -> tuple[object, ...]:
        """All that the backend sees: equal for visitors that no backend can tell apart."""
        return tuple(self.credentials.headers), self.query, self.subprotocols

    def as_nobody(self) -> "Visitor":
        """The same subprotocols, and nothing shown."""
        return Visitor(NOBODY, "", self.subprotocols)


NOBODY = Credentials(Shown((), "", has_token=False), "")
"""What nobody shows."""


def visitor_of(opening: Opening, reader: Reader) -> Visitor:
    """The client of a plain opening."""
    headers, query = opening.headers, opening.target.partition("?")[2]
    offered = (name.strip() for line in values_in(headers, "sec-websocket-protocol") for name in line.split(","))
    credentials, important = reader.read(headers, query, opening.peer)
    return Visitor(credentials, query, tuple(filter(None, offered)), important)
