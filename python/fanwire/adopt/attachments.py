"""Which connections of frameworks are attached in one serving. Not here: how each of them is written to."""

import weakref
from collections.abc import Iterable
from typing import Any

from fanwire.adapters import FRAMEWORKS, foreign_of
from fanwire.adapters.foreign import Foreign
from fanwire.adopt.feeding import Feed
from fanwire.adopt.plain import Plain
from fanwire.errors import AdoptionError
from fanwire.faults import Tasks
from fanwire.hearing import Listeners
from fanwire.logs import hub_log

_attached: weakref.WeakKeyDictionary[Any, "Attachments"] = weakref.WeakKeyDictionary()
"""Whose each connection is, of all hubs of this process."""


class Attachments:
    """Those of one serving. All state is the loop's thread's own."""

    def __init__(self, listeners: Listeners, tasks: Tasks) -> None:
        self._listeners = listeners
        self._tasks = tasks
        self._plain: weakref.WeakKeyDictionary[Any, Plain] = weakref.WeakKeyDictionary()
        # What was told of in the log already.
        self._told: set[str] = set()

    def attach(self, connection: Any, channels: Iterable[str]) -> Foreign:
        """Have what is published from now on reach it. Raises what ``Hub.attach`` does; then nothing was done."""
        foreign = known(connection)
        owner = _attached.get(connection)
        if owner is not None and owner is not self:
            raise AdoptionError(foreign.what, "it is attached to another hub: detach it there first")
        if not foreign.is_begun:
            raise AdoptionError(foreign.what, f"it is not open yet: {foreign.how_to_begin}")
        if not foreign.is_open:
            raise AdoptionError(foreign.what, "it is closed, or being closed")
        plain = self._plain.get(connection)
        feed = Feed(self._listeners) if plain is None else plain.feed
        added: list[str] = []
        try:
            for channel in channels:
                if channel not in feed.channels:
                    feed.add(channel)
                    added.append(channel)
        except BaseException:
            for channel in added:
                feed.remove(channel)
            raise
        if plain is None:
            self._begin(foreign, feed)
        return foreign

    def _begin(self, foreign: Foreign, feed: Feed) -> None:
        plain = Plain(foreign, feed, self._tasks.faults, self._gone)
        self._plain[foreign.connection] = plain
        _attached[foreign.connection] = self
        self._tasks.start_soon(plain.run, where="adopt.plain")
        if not foreign.holders:
            self._tell_why(foreign)

    def _tell_why(self, foreign: Foreign) -> None:
        if foreign.what not in self._told:
            self._told.add(foreign.what)
            hub_log.info("%s is written to by its own send: %s", foreign.what, foreign.why_none)

    def detach(self, connection: Any, channels: Iterable[str] | None = None) -> int | None:
        """Have what is published from now on not reach it; of all channels, or of some.

        Gives the code with which the hub has closed it, if it has.
        """
        known(connection)
        plain = self._plain.get(connection)
        if plain is None:
            return None
        if channels is not None:
            for channel in channels:
                plain.feed.cut(channel)
        else:
            self._gone(plain)
            for channel in plain.feed.channels:
                plain.feed.cut(channel)
            plain.feed.finish()
        return plain.closed_with

    def _gone(self, plain: Plain) -> None:
        connection = plain.connection()
        if plain.closed_with is not None:
            return  # for who asks later; it is held weakly
        if connection is not None and self._plain.get(connection) is plain:
            del self._plain[connection], _attached[connection]

    def end(self) -> None:
        """Serving is over: nothing more comes, and the connections are their program's alone."""
        for connection in list(self._plain):
            _attached.pop(connection, None)
        self._plain.clear()


def known(connection: Any) -> Foreign:
    """The connection as the hub sees it. Raises AdoptionError for what is none."""
    foreign = foreign_of(connection)
    if foreign is None:
        kinds = ", ".join(kind.what for kind in FRAMEWORKS.values())
        name = f"{type(connection).__module__}.{type(connection).__qualname__}"
        raise AdoptionError(name, f"it must be one of these: {kinds}")
    return foreign
