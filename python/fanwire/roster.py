"""Who is connected, by user. Not here: who may be."""

from collections.abc import Iterable

from fanwire.client import Client


class Roster:
    """Accepted clients of one serving. Changed in the event loop's thread; read in any."""

    __slots__ = ("_all", "_of_users")

    def __init__(self) -> None:
        # Dicts keep the order of arrival; the values mean nothing.
        self._all: dict[Client, None] = {}
        self._of_users: dict[str, dict[Client, None]] = {}

    def add(self, client: Client) -> None:
        """It was accepted. Twice is once."""
        if client in self._all:
            return
        self._all[client] = None
        user = _user_of(client)
        if user is not None:
            self._of_users.setdefault(user, {})[client] = None

    def drop(self, client: Client) -> None:
        """It is gone. One that is not here is no error."""
        if client not in self._all:
            return
        del self._all[client]
        user = _user_of(client)
        if user is not None:
            theirs = self._of_users[user]
            del theirs[client]
            if not theirs:
                del self._of_users[user]

    def clients(self, user: str | None = None) -> list[Client]:
        """Those who are there, or those of one user, in the order in which they came."""
        found: Iterable[Client] = self._all if user is None else self._of_users.get(user, ())
        return [client for client in list(found) if not client._is_turned_away]


def _user_of(client: Client) -> str | None:
    return None if client.identity is None else client.identity.id
