"""Asks the admin side for what somebody wants to see, one request after another. Not here: when, and what is shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from fanwire.cli.instance import Instance, NotAnswered
from fanwire.top.differences import Baseline, Totals, per_second, totals
from fanwire.top.figures import text
from fanwire.top.listings import CLIENT, Entry, Listing
from fanwire.top.wishes import ROWS, Preference, arranged, questions

TOKENS = ("no_token", "wrong_token")
REASON = "closed by an operator"
MISREAD = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What an answer raises that is not what the contract says."""


@dataclass(frozen=True, slots=True)
class ListedPage:
    """One listing as it is now."""

    listing: Listing
    entries: Sequence[Entry] = ()
    silent: Sequence[int] = ()
    """Workers that have not answered."""
    trouble: str = ""
    """Why there are no entries."""
    beside: str = ""
    """What else was answered, in a few words."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen at one time. Where `trouble` says why the hub could not be asked, the rest is of before."""

    totals: Totals | None = None
    shown: Mapping[str, ListedPage] = field(default_factory=dict)
    trouble: str = ""


class Observer:
    """Sees what somebody wants to see. One call at a time, from any thread.

    Args:
        find: finds the hub, again each time that it has gone; raises NotAnswered with why there is none.
    """

    def __init__(self, find: Callable[[], Instance]) -> None:
        self._find = find
        self._hub: Instance | None = None
        self._stats: Baseline[Mapping[str, Any]] = Baseline()
        self._entries: dict[str, Baseline[dict[str, Entry]]] = {}
        self._seen = Observed()

    def look(self, wishes: Mapping[Listing, Preference], client: str | None = None) -> Observed:
        """Ask for the totals, for the first page of each listing, and for one client.

        Raises NotAnswered only where the token is wrong or missing: to go on would be of no use.
        """
        try:
            stats = self._reach().get("/api/stats")
            before = self._stats.before(stats["at"], stats)
            told = totals(stats, None if before is None else before[1])
            shown = {one.name: self._listed(one, wish, told.at) for one, wish in wishes.items()}
            if client is not None:
                shown[CLIENT.name] = self._listed(CLIENT, client, told.at)
            self._seen = Observed(told, shown)
        except NotAnswered as error:
            if error.code in TOKENS:
                raise
            if not error.code:
                self._hub = None
            self._seen = replace(self._seen, trouble=text(error))
        except MISREAD as error:
            why = f"{type(error).__name__} {error}"
            self._seen = replace(self._seen, trouble=text(f"the answer is not understood: {why}"))
        return self._seen

    def disconnect(self, client: str) -> str:
        """Close a client's connection; what is to be said of it."""
        try:
            self._reach().post("/api/disconnect", {"client": client, "reason": REASON})
        except NotAnswered as error:
            return f"{text(client)} is not disconnected: {text(error)}"
        return f"{text(client)} is disconnected"

    def _reach(self) -> Instance:
        if self._hub is None:
            self._hub = self._find()
            self._stats = Baseline()  # it may be another life, whose counters are others
            self._entries.clear()
        return self._hub

    def _listed(self, listing: Listing, wish: Preference | str, at: float) -> ListedPage:
        """One listing; what is wrong with it is its own."""
        queries = [{"client": wish}] if isinstance(wish, str) else questions(listing, wish)
        found: dict[str, Entry] = {}
        silent: set[int] = set()
        beside = ""
        try:
            for query in queries:
                answer = self._reach().get(listing.path, **query)
                silent.update(answer.get("silent", ()))
                beside = _beside(answer)
                for entry in listing.entries(answer):
                    found.setdefault(listing.key(entry), entry)
                if len(found) >= ROWS:
                    break
        except NotAnswered as error:
            if not error.code or error.code in TOKENS:
                raise
            return ListedPage(listing, trouble=text(error))
        entries = self._measured(listing, found, at)
        arrangement = entries if isinstance(wish, str) else arranged(listing, wish, entries)
        return ListedPage(listing, arrangement, sorted(silent), beside=beside)

    def _measured(self, listing: Listing, found: dict[str, Entry], at: float) -> list[Entry]:
        """With rates since they were seen last."""
        now = monotonic()
        earlier = None
        if listing.counters:
            earlier = self._entries.setdefault(listing.name, Baseline()).before(now, found)
        then, before = earlier or (now, {})
        return [
            {**entry, "at": at, "per_s": per_second(entry, before.get(key, {}), listing.counters, now - then)}
            for key, entry in found.items()
        ]


def _beside(answer: Mapping[str, Any]) -> str:
    backbone = answer.get("backbone")
    return "" if backbone is None else f"backbone {text(backbone['state'])}: {text(backbone['url'])}"
