"""Who asks to connect: the request as a callback sees it, and the identity that it answers with.

Queries, cookies, headers and subprotocols carry tokens: no ``repr`` here shows them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

from fanwire._engine import Opening, check_headers
from fanwire.errors import Refused

__all__ = ["Headers", "Identity", "Query", "Refused", "Request", "ResponseHeaders"]

MSGPACK = "msgpack"
"""The subprotocol that the engine chooses itself where it is offered: the client's format hangs on it."""
ASKS = "fanwire.ask.1"
"""Offered by an edge that asks about a client of its own: who would be let in is answered with 204, and no more."""
EDGES = ("fanwire.edge.1", "fanwire.edge.1.msgpack")
"""Subprotocols of edges, which the engine chooses, too."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is.

    Args:
        id: the user's name for the application, not empty; None for an anonymous client of whom something is known.
        claims: whatever else the application learned of the user; kept as it is, never shown in a ``repr``.
    """

    id: str | None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str | None):
            raise TypeError(f"an identity's id must be a str or None, not {type(self.id).__name__}")
        if self.id == "":
            raise ValueError("an identity's id must not be empty; None stands for an anonymous client")
        if self.id is not None and any("\ud800" <= character <= "\udfff" for character in self.id):
            raise ValueError("an identity's id must be Unicode text; this one has a lone surrogate")
        if not isinstance(self.claims, Mapping):  # not shown: whatever it is, it may be a token
            raise TypeError(f"an identity's claims must be a mapping, not {type(self.claims).__name__}")


class Query(Mapping[str, str]):
    """Names and values in their order, a name perhaps more than once: ``[name]`` is its first value."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(self._folded(name), []).append(value)

    @staticmethod
    def _folded(name: str) -> str:
        return name

    def __getitem__(self, name: str) -> str:
        return self._values[self._folded(name)][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(self._values)}>"

    def all(self, name: str) -> list[str]:
        """Every value of `name` in the order of arrival; none is an empty list."""
        return list(self._values.get(self._folded(name), ()))


class Headers(Query):
    """The fields of a request; names are compared without regard to case (RFC 9110 §5.1)."""

    __slots__ = ()

    @staticmethod
    def _folded(name: str) -> str:
        return name.lower()


class ResponseHeaders:
    """What a callback adds to the head of the answer, whether the connection is accepted or refused.

    Names are tokens, values visible ASCII, 16 KiB together; none that HTTP itself needs, such as ``Content-Length``,
    and no ``Sec-WebSocket-…``. What breaks this raises where it is set.
    """

    __slots__ = ("_pairs",)

    def __init__(self) -> None:
        self._pairs: list[tuple[str, str]] = []

    def add(self, name: str, value: str) -> None:
        """One more field, beside others of this name: ``Set-Cookie`` stands once for each cookie.

        Raises:
            TypeError, ValueError: no answer can have such a name or value, or the name is one that HTTP itself needs.
        """
        self._keep(self._pairs, name, value)

    def __setitem__(self, name: str, value: str) -> None:
        self._keep([pair for pair in self._pairs if pair[0].lower() != str(name).lower()], name, value)

    def _keep(self, others: list[tuple[str, str]], name: str, value: str) -> None:
        """These and one more. Where that raises, nothing has changed."""
        for what, text in (("name", name), ("value", value)):
            if not isinstance(text, str):
                raise TypeError(f"a response header's {what} must be a str, not {type(text).__name__}")
            if not text.isascii():
                raise ValueError(f"a response header's {what} must be of visible ASCII")  # unseen: it may be a cookie
        pairs = [*others, (name, value)]
        check_headers(pairs)
        self._pairs = pairs

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"<ResponseHeaders: {', '.join(name for name, _ in self._pairs)}>"


class Request:
    """The upgrade request of a connection that waits for ``authenticate``."""

    def __init__(self, opening: Opening) -> None:
        self.method: str = opening.method
        path, _, query = opening.target.partition("?")
        self.path: str = unquote(path)
        """The target without its query, decoded."""
        self.peer: str = opening.peer
        """``127.0.0.1:51234``, ``[::1]:51234`` or ``unix:``; behind a proxy it is the proxy."""
        self.channels: tuple[str, ...] = tuple(opening.channels)
        """What the query asks to watch."""
        self.protocol: str = opening.protocol
        """``raw``, ``sse`` or ``signalr``."""
        self.subprotocols: tuple[str, ...] = tuple(name for name in opening.subprotocols if name != ASKS)
        """What a WebSocket's client offers, the preferred ones first; browsers put tokens here, never log them."""
        self.only_asks: bool = ASKS in opening.subprotocols
        """Whether an edge asks about a client of its own, which has shown what is here, and will not connect here."""
        self.response_headers = ResponseHeaders()
        """What the answer says besides, a refusal, too; of no effect once it is answered."""
        self._subprotocol = MSGPACK if MSGPACK in self.subprotocols else None
        self._query_text = query
        self._header_pairs = opening.headers

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path} from {self.peer}>"

    @property
    def subprotocol(self) -> str | None:
        """The one of ``subprotocols`` that the answer chooses; a browser that offers some fails where none is.

        ``msgpack`` where that is offered, else the first that is among ``Hub(subprotocols=…)``, else None: assign the
        one that you take. ``["access_token", token]`` is the idiom for tokens out of a browser: take ``access_token``.

        Raises:
            ValueError: when assigned: it is not offered, or ``msgpack`` is chosen; the offered ones are not shown.
        """
        return self._subprotocol

    @subprotocol.setter
    def subprotocol(self, name: str | None) -> None:
        if self._subprotocol == MSGPACK and name != MSGPACK:
            raise ValueError("msgpack is chosen, as the client offers it: with ?format=msgpack it may offer another")
        if name is not None and name not in self.subprotocols:
            raise ValueError("only a subprotocol that the client offers can be chosen")
        self._subprotocol = name

    @cached_property
    def query(self) -> Query:
        """The names and values of the target's query, decoded."""
        return Query(parse_qsl(self._query_text, keep_blank_values=True))

    @cached_property
    def headers(self) -> Headers:
        """The fields of the request's head, values decoded as latin-1."""
        return Headers(self._header_pairs)

    @cached_property
    def cookies(self) -> Mapping[str, str]:
        """The request's cookies (RFC 6265 §4.2); the first of equal names counts, what is no pair is left out."""
        found: dict[str, str] = {}
        for line in self.headers.all("cookie"):
            for part in line.split(";"):
                name, equals, value = part.strip().partition("=")
                if equals and name:
                    quoted = len(value) > 1 and value[0] == value[-1] == '"'
                    found.setdefault(name, value[1:-1] if quoted else value)
        return found


def identity_of(answer: object) -> Identity | None:
    """What ``authenticate`` answered, as an identity: a ``str`` is its id, None an anonymous client."""
    if answer is None or isinstance(answer, Identity):
        return answer
    if isinstance(answer, str):
        return Identity(answer)
    raise TypeError(f"authenticate must return Identity, str or None, not {type(answer).__name__}")


def is_negotiate(event: Opening) -> bool:
    """Whether a SignalR client asks for what it will connect with, and is no client yet."""
    if event.method != "POST" or event.protocol != "signalr":
        return False
    return event.target.partition("?")[0].removesuffix("/").lower().endswith("/negotiate")
