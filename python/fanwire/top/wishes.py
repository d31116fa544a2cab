"""What a person asks to see: views, filters and sorting, and what the admin side is asked for them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fanwire.top.listings import CHANNELS, CLIENTS, LANES, UPSTREAMS, WORKERS, Entry, Listing

ROWS, LANES_ROWS = 100, 500
"""Of a listing at most: its first page."""
CLIENT_TERMS = ("user", "channel", "path")


@dataclass(frozen=True, slots=True)
class View:
    """What is on the screen at once."""

    name: str
    listings: tuple[Listing, ...]


VIEWS = (
    View("overview", (CHANNELS, CLIENTS)),
    View("channels", (CHANNELS,)),
    View("clients", (CLIENTS,)),
    View("relay", (UPSTREAMS, LANES)),
    View("workers", (WORKERS,)),
)


@dataclass(frozen=True, slots=True)
class Preference:
    """How one listing is wanted."""

    sort: str = ""
    """Empty: the listing's default."""
    filter: str = ""
    terms: Mapping[str, str] = field(default_factory=dict)
    """Of clients: what the filter means."""

    def filtered(self, listing: Listing, text: str) -> "Preference":
        """The same with what a person has typed. Raises ValueError with what is wrong."""
        text = text.strip()
        if listing is CLIENTS:
            return replace(self, filter=text, terms=terms_of(text))
        return replace(self, filter=text, terms={})

    def next_sort(self, listing: Listing) -> "Preference":
        """The same sorted by what comes next."""
        at = listing.sorts.index(self.sort_of(listing))
        return replace(self, sort=listing.sorts[(at + 1) % len(listing.sorts)])

    def sort_of(self, listing: Listing) -> str:
        """By what it is sorted."""
        return self.sort or listing.sorts[0]


def clients_of(channel: str) -> Preference:
    """Those who watch a channel."""
    return Preference(filter=f"channel={channel}", terms={"channel": channel})


def terms_of(text: str) -> dict[str, str]:
    """``user=anna channel=odds:7`` as terms; a text without such a word is a user's name.

    Values go on to the next such word, so names may have spaces. Raises ValueError where one is empty or there twice.
    """
    names = "|".join(CLIENT_TERMS)
    first, *rest = re.split(rf"(?:^|\s)({names})=", text)
    pairs = [("user", first)] if first.strip() else []
    pairs += zip(rest[::2], rest[1::2], strict=True)
    terms: dict[str, str] = {}
    for name, value in pairs:
        if name in terms:
            raise ValueError(f"{name}= is there twice")
        if not value.strip():
            raise ValueError(f"{name}= has no value")
        terms[name] = value.strip()
    return terms


def questions(listing: Listing, wish: Preference) -> list[dict[str, str]]:
    """The queries to ask, one after another, until there are ROWS: the first page each, by what is most.

    By lag the admin side gives those that lag alone, and looks at nobody else: of those who are looked for there may be
    others, who keep up.
    """
    if listing is CHANNELS:
        pattern = wish.filter if "*" in wish.filter else f"*{wish.filter}*"
        match = {"match": pattern} if wish.filter else {}
        return [{"sort": wish.sort_of(listing), "limit": str(ROWS), **match}]
    if listing is CLIENTS:
        page = {"limit": str(ROWS), **wish.terms}
        most = {"sort": wish.sort_of(listing), **page}
        return [most, page] if wish.terms else [most]
    if listing is LANES:
        return [{"limit": str(LANES_ROWS)}]
    return [{}]


def nothing(listing: Listing, wish: Preference) -> tuple[str, str]:
    """What is said where there is none, and the mood of that."""
    if wish.filter:
        return "none such", "warning"
    if listing is CLIENTS:
        return {"waiting": "nothing waits for anybody", "sent": "nobody is here"}.get(
            wish.sort_of(listing), "nobody lags"
        ), "good"
    return listing.nothing, "quiet"


def arranged(listing: Listing, wish: Preference, entries: Sequence[Entry]) -> list[Entry]:
    """What the admin side gave, filtered and sorted as far as that is done here."""
    if listing.measures is None:
        return list(entries)[:ROWS]
    wanted = wish.filter.casefold()
    found = [one for one in entries if any(wanted in column.show(one).casefold() for column in listing.columns)]
    return sorted(found, key=listing.measures[wish.sort_of(listing)], reverse=True)[:ROWS]
