"""Queries of clients in two parts: what is shared, and the rest, which stays as it was sent."""

from collections.abc import Sequence
from urllib.parse import quote, unquote_plus, urlencode


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
