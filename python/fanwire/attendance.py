"""Who is in one channel, here and in other workers, and what of that is told. Not here: who tells it, and when."""

from collections import Counter
from dataclasses import dataclass, field

USERS_AT_ONCE = 1_000
"""Of one channel that one entry of a message to other workers has."""
Entry = tuple[str, int, list[str], list[str], bool]
"""A channel, connections or what was told of them, users who came, users who went, and whether nobody else is there."""


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """What has changed in a channel since the last one."""

    channel: str
    joined: tuple[str, ...]
    """Users who were not there before, by id, in the order of their coming; empty with ``presence="counts"``."""
    left: tuple[str, ...]
    """Users whose last connection is gone for ``presence_linger`` seconds; empty with ``presence="counts"``."""
    occupancy: int
    """Connections that are subscribed now, those of anonymous clients too."""


@dataclass(slots=True)
class Elsewhere:
    """Who is in the channel by another worker."""

    occupancy: int = 0
    users: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Attendance:
    """One channel's presence."""

    linger: float
    has_names: bool
    connections: dict[int, str | None] = field(default_factory=dict)
    """Of this process: each connection's user; None is anonymous."""
    users: Counter[str] = field(default_factory=Counter)
    """How many of these each has."""
    elsewhere: dict[int, Elsewhere] = field(default_factory=dict)
    """By the worker's number."""
    coming: dict[str, None] = field(default_factory=dict)
    """Those who are here, or elsewhere, and of whom it was not told."""
    announced: dict[str, None] = field(default_factory=dict)
    """Those of whom it was told that they are here."""
    going: dict[str, float] = field(default_factory=dict)
    """Those of the announced who have no connection anywhere, and when that is told."""
    told: int = 0
    """The occupancy that was told last."""
    moved: dict[str, bool] = field(default_factory=dict)
    """Users who came to this process or went from it since other workers were told; which of the two."""

    @property
    def occupancy(self) -> int:
        """Connections everywhere."""
        return len(self.connections) + self.occupancy_elsewhere

    @property
    def occupancy_elsewhere(self) -> int:
        """Those of other workers, as they have told."""
        return sum(one.occupancy for one in list(self.elsewhere.values()))

    def join(self, connection: int, user: str | None) -> None:
        """A connection of this process is there."""
        if connection in self.connections:
            return
        if not self.has_names:
            user = None
        self.connections[connection] = user
        if user is not None:
            self.users[user] += 1
            if self.users[user] == 1:
                self.moved[user] = True
                self._came(user)

    def leave(self, connection: int, now: float) -> None:
        """One is not any more."""
        user = self.connections.pop(connection, None)
        if user is None:
            return
        self.users[user] -= 1
        if not self.users[user]:
            del self.users[user]
            self.moved[user] = False
            self._went(user, now)

    def is_there(self, user: str) -> bool:
        """Whether a user has a connection anywhere."""
        return user in self.users or any(user in one.users for one in self.elsewhere.values())

    def change(self, channel: str, now: float) -> PresenceChange | None:
        """What is to be told now."""
        joined = tuple(self.coming)
        left = tuple(user for user, at in self.going.items() if at <= now)
        self.announced.update(self.coming)
        self.coming.clear()
        for user in left:
            del self.going[user], self.announced[user]
        occupancy = self.occupancy
        if not (joined or left or occupancy != self.told):
            return None
        self.told = occupancy
        return PresenceChange(channel, joined, left, occupancy)

    def is_empty(self) -> bool:
        """Whether there is nothing to remember."""
        return not (self.connections or self.elsewhere or self.announced or self.told)

    # What workers tell one another

    def moves(self, channel: str) -> list[Entry]:
        """Who came and went here since the last call."""
        moved, self.moved = self.moved, {}
        came, went = ([user for user, has_come in moved.items() if has_come is which] for which in (True, False))
        return _entries(channel, len(self.connections), came, went, is_whole=False)

    def all_here(self, channel: str) -> list[Entry]:
        """Who is here, for one who knows nothing of it."""
        return _entries(channel, len(self.connections), list(self.users), [], is_whole=True)

    def all_told(self, channel: str) -> list[Entry]:
        """Of whom it was told, for one who knows nothing of it."""
        return _entries(channel, self.told, list(self.announced), [], is_whole=True)

    def take(self, worker: int, entry: Entry, now: float) -> None:
        """Another worker's connections came and went."""
        _, occupancy, came, went, is_whole = entry
        there = self.elsewhere.setdefault(worker, Elsewhere())
        there.occupancy = occupancy
        gone = set(went) & there.users
        if is_whole:
            gone |= there.users.difference(came)
        new = [user for user in came if user not in there.users]
        there.users.difference_update(gone)
        there.users.update(new)
        if not (occupancy or there.users):
            del self.elsewhere[worker]
        for user in new:
            self._came(user)
        for user in gone:
            self._went(user, now)

    def drop(self, worker: int, now: float) -> bool:
        """Another worker is gone, and all that it had; whether that was anything."""
        there = self.elsewhere.pop(worker, None)
        if there is None:
            return False
        for user in there.users:
            self._went(user, now)
        return True

    def note_told(self, entry: Entry, now: float) -> None:
        """Another worker has told of who came and went."""
        _, self.told, joined, left, is_whole = entry
        gone = [*left, *(set(self.announced).difference(joined) if is_whole else ())]
        for user in gone:
            self.announced.pop(user, None)
            self.going.pop(user, None)
            if self.is_there(user):
                self.coming[user] = None
        for user in joined:
            self.announced[user] = None
            self.coming.pop(user, None)
            if user not in self.going and not self.is_there(user):
                self.going[user] = now + self.linger

    def _came(self, user: str) -> None:
        if user in self.announced:
            self.going.pop(user, None)
        else:
            self.coming[user] = None

    def _went(self, user: str, now: float) -> None:
        if self.is_there(user):
            return
        self.coming.pop(user, None)
        if user in self.announced:
            self.going[user] = now + self.linger


def _entries(channel: str, occupancy: int, came: list[str], went: list[str], *, is_whole: bool) -> list[Entry]:
    entries: list[Entry] = []
    for first in range(0, max(len(came), len(went), 1), USERS_AT_ONCE):
        behind = first + USERS_AT_ONCE
        entries.append((channel, occupancy, came[first:behind], went[first:behind], is_whole and not first))
    return entries


def merged(before: PresenceChange, after: PresenceChange) -> PresenceChange:
    """Two changes of a channel as one: who came and went, or went and came, is in neither list."""
    joined = [user for user in before.joined if user not in after.left]
    joined += [user for user in after.joined if user not in before.left]
    left = [user for user in before.left if user not in after.joined]
    left += [user for user in after.left if user not in before.joined]
    return PresenceChange(after.channel, tuple(joined), tuple(left), after.occupancy)
