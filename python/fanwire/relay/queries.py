"""Queries of clients in two parts: what is shared, and the rest, which stays as it was sent."""

from collections.abc import Sequence
from urllib.parse import quote, unquote_plus, urlencode


def values_of(query: str, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The values of each of `names`, decoded, in the order sent."""
    pairs = [
        (unquote_plus(name), unquote_plus(value))
        for name, _, value in (pair.partition("=") for pair in query.split("&") if pair)
    ]
    return tuple(tuple(value for known, value in pairs if known == name) for name in names)


def without(query: str, names: Sequence[str]) -> str:
    """The query without these names, otherwise as it was sent."""
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
