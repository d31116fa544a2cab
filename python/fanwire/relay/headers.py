"""Which headers of a client go on to its backend, what is said of where they came from, and which of them decide.

Header values are bytes; here they are text as latin-1 decodes it, and go up as the same bytes.
Queries fall into two parts: what is shared, and the rest, which stays as it was sent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import quote, unquote_plus, urlencode

Pairs: TypeAlias = Sequence[tuple[str, str]]
Network: TypeAlias = IPv4Network | IPv6Network

NOT_PASSED_ON = {
    *("accept", "accept-encoding", "connection", "expect", "forwarded", "host", "http2-settings", "keep-alive"),
    *("range", "te", "trailer", "transfer-encoding", "upgrade"),
    *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
}
"""Of one connection (RFC 9110 §7.6.1), of the body and the answer that are not passed on, or said anew.

``Accept`` is the answer's, too: a client of an event stream asks for ``text/event-stream``, and the WebSocket that goes
up for it would be taken for one."""
NOT_PASSED_ON_BEGINNINGS = ("content-", "if-", "proxy-", "sec-websocket-")
ORIGIN_BEGINNINGS = (
    *("x-forwarded-", "x-real-ip", "true-client-ip", "x-original-url", "x-original-host", "x-rewrite-url"),
)
"""What only a trusted proxy says of where a request came from; many backends read ``_`` as ``-``."""

UNIMPORTANT = (
    *("user-agent", "accept", "accept-*", "cache-control", "pragma", "priority", "dnt", "referer"),
    # By name: a name of one's own may begin so (`Sec-Api-Key`), and says who somebody is.
    *("sec-fetch-*", "sec-ch-*", "sec-gpc", "sec-purpose"),
    *("x-requested-with", "x-signalr-user-agent", "upgrade-insecure-requests"),
    # Tracing ids, which differ from request to request.
    *("traceparent", "tracestate", "baggage", "request-id", "x-request-id", "correlation-id", "x-correlation-id"),
    *("correlation-context", "b3", "x-b3-*", "x-amzn-trace-id", "x-cloud-trace-context", "x-datadog-*"),
    # Addresses: a backend that admits by address needs a list without them.
    *("forwarded", "x-forwarded-for", "x-forwarded-port", "x-real-ip", "true-client-ip", "via", "cdn-loop"),
    # Of Cloudflare by name: `Cf-Access-Jwt-Assertion` says who somebody is.
    *("cf-connecting-ip", "cf-connecting-ipv6", "cf-pseudo-ipv4", "cf-ray", "cf-ipcountry", "cf-visitor", "cf-worker"),
    *("cf-ew-via", "cf-warp-tag-id"),
)
"""Headers by which a backend does not decide who may connect, in lower case; ``*`` at the end stands for any more."""


@dataclass(frozen=True, slots=True)
class Passing:
    """A relay's rules; see the settings ``private.drop``, ``trusted_proxies`` and ``admit_ignore``."""

    dropped: frozenset[str]
    unwanted: frozenset[str]
    """All that is not passed on, by its whole name."""
    trusted: Sequence[Network]
    trusts_unix: bool
    ignored: frozenset[str]
    ignored_beginnings: tuple[str, ...]

    @classmethod
    def of(cls, drop: Iterable[str], trusted_proxies: Iterable[str], admit_ignore: Iterable[str]) -> "Passing":
        """The rules as the settings write them, which have been checked."""
        proxies, ignored = list(trusted_proxies), [name.lower() for name in admit_ignore]
        dropped = frozenset(name.lower() for name in drop)
        return cls(
            dropped,
            dropped | NOT_PASSED_ON,
            [ip_network(each) for each in proxies if each != UNIX],
            UNIX in proxies,
            frozenset(name for name in ignored if not name.endswith("*")),
            tuple(name[:-1] for name in ignored if name.endswith("*")),
        )

    def end_to_end(self, headers: Pairs, *, is_trusted: bool) -> Pairs:
        """What the client's own connection to the backend would have carried."""
        named = {name.strip().lower() for line in values_in(headers, "connection") for name in line.split(",")}
        claims = () if is_trusted else ORIGIN_BEGINNINGS
        return [
            (name, value)
            for name, value in headers
            if name not in self.unwanted
            and name not in named
            and not name.startswith(NOT_PASSED_ON_BEGINNINGS)
            and not (claims and name.replace("_", "-").startswith(claims))
        ]

    def origin(self, headers: Pairs, address: str, *, is_trusted: bool) -> Pairs:
        """Who the client was, which came from this address with these headers."""
        return [
            pair for pair in _origin_of(headers, address, is_trusted=is_trusted) if pair[0].lower() not in self.dropped
        ]

    def trusts(self, address: str) -> bool:
        """Whether what comes from there may say who it comes from."""
        if address == UNIX:
            return self.trusts_unix
        if not self.trusted:
            return False
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(ip, "ipv4_mapped", None)
        return any(one in network for one in (ip, mapped) if one for network in self.trusted)

    @property
    def ignores_addresses(self) -> bool:
        """Whether who may connect has nothing to do with where from."""
        names = "x-forwarded-for", "forwarded"
        return all(name in self.ignored or name.startswith(self.ignored_beginnings) for name in names)

    def important(self, headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Those by which a backend may tell one client from another."""
        return tuple(
            (name, value)
            for name, value in ((name.lower(), value) for name, value in headers)
            if name not in self.ignored and not name.startswith(self.ignored_beginnings)
        )


UNIX = "unix"
"""Among ``trusted_proxies``: who connects by a Unix socket."""


def address_of(peer: str) -> str:
    """An engine's peer without its port: ``127.0.0.1``, ``::1`` or ``unix``."""
    return peer.rpartition(":")[0].strip("[]")


def _origin_of(headers: Pairs, address: str, *, is_trusted: bool) -> Pairs:
    """Where it came from: what a trusted proxy says is appended to, what others say is replaced."""
    host = ", ".join(values_in(headers, "host"))
    chain, told = [values_in(headers, name) if is_trusted else [] for name in ("x-forwarded-for", "forwarded")]
    origin = []
    if (chain or not told) and (chain or address != UNIX):
        origin.append(("X-Forwarded-For", ", ".join([*chain, *([address] if address != UNIX else [])])))
    for name, own in (("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", host)):
        kept = values_in(headers, name.lower()) if is_trusted else []
        if kept or own:
            origin.append((name, ", ".join(kept or [own])))
    if told or not chain:
        origin.append(("Forwarded", ", ".join([*told, forwarded(address, host)])))
    return origin


def values_in(headers: Pairs, name: str) -> list[str]:
    """Of this header, whose name is in lower case, as all are that a request came with."""
    return [value for known, value in headers if known == name]


def forwarded(peer: str, host: str) -> str:
    """One element of ``Forwarded`` (RFC 7239 §4)."""
    node = "unknown" if peer == UNIX else f'"[{peer}]"' if ":" in peer else peer
    escaped = host.replace("\\", "\\\\").replace('"', '\\"')
    return ";".join([f"for={node}", *([f'host="{escaped}"'] if host else []), "proto=http"])


def values_of(query: str, names: Sequence[str]) -> tuple[tuple[str, ...], ...] | None:
    """The values of each of `names`, decoded, in the order sent.

    None where they could not be asked for in one client's words for another: a value that is no UTF-8, or a name that
    is one of `names` but for its case, which some backends take for the same.
    """
    folded = {name.casefold() for name in names}
    pairs = []
    for name, _, value in (pair.partition("=") for pair in query.split("&") if pair):
        known = unquote_plus(name)
        if known.casefold() not in folded:
            continue
        if known not in names:
            return None
        try:
            pairs.append((known, unquote_plus(value, errors="strict")))
        except UnicodeDecodeError:
            return None
    return tuple(tuple(value for known, value in pairs if known == name) for name in names)


def names_in(query: str) -> list[str]:
    """The names of its parameters, decoded, in the order sent."""
    return [unquote_plus(pair.partition("=")[0]) for pair in query.split("&") if pair]


def without(query: str, names: Sequence[str]) -> str:
    """The query without these names, otherwise as it was sent."""
    if not query:
        return ""
    kept = (pair for pair in query.split("&") if pair and unquote_plus(pair.partition("=")[0]) not in names)
    return "&".join(kept)


def query_of(names: Sequence[str], values: Sequence[Sequence[str]]) -> str:
    """A query of these names with so many values each."""
    pairs = [(name, value) for name, several in zip(names, values, strict=True) for value in several]
    return urlencode(pairs, quote_via=quote)


def with_query(urls: Sequence[str], query: str) -> list[str]:
    """URLs with this query added to their own."""
    if not query:
        return list(urls)
    return [f"{url}{'&' if '?' in url else '?'}{query}" for url in urls]
