"""Clients that the engine lets in by itself: who shows the very same as another that the backend has let in.

Most of a crowd shows nothing by which one could be told from another, and the backend's yes is for all of them. The
engine is given what they show; it is asked for no longer than the yes holds, and not while there is any no.
"""

from typing import Protocol

from fanwire._engine import Admitted, Engine, Opening
from fanwire.faults import Faults
from fanwire.relay.credentials import Credentials, Reader, Shown
from fanwire.relay.headers import address_of

KINDS_MAX = 256
"""Kinds of clients that the engine is to know at once, of a relay."""
VALID_S_MAX = 3_600.0
"""It is told again after that."""


class LettingIn(Protocol):
    """A relay."""

    faults: Faults

    @property
    def engine(self) -> Engine:
        """What has its clients."""


class AlikeClients:
    """Those of a relay."""

    __slots__ = ("_kinds", "_owner", "_reader", "_relay")

    def __init__(self, relay: LettingIn, reader: Reader) -> None:
        self._relay, self._reader = relay, reader
        self._owner: int | None = None
        # By the engine's numbers.
        self._kinds: dict[int, Shown] = {}

    def let_in(self, event: Opening, valid_s: float) -> None:
        """One was let in, and so is whoever shows the same, for so long. Raises nothing."""
        shown = None if event.subprotocols else self._reader.shown_by_many(event.headers, event.target)
        if shown is None or valid_s <= 0:
            return
        if len(self._kinds) >= KINDS_MAX:
            self.ask_about_all()
        self._owner = event.owner
        with self._relay.faults.contained("relay.admission", "who shows the same as others is asked about one by one"):
            number = self._relay.engine.admit_alike(event.owner, event.headers, min(valid_s, VALID_S_MAX))
            self._kinds[number] = shown

    def ask_about_all(self) -> None:
        """Nobody is let in any more without a question. Raises nothing."""
        self._kinds.clear()
        if self._owner is not None:
            with self._relay.faults.contained("relay.admission", "who shows the same as others is let in still"):
                self._relay.engine.ask_about_all(self._owner)

    def credentials(self, event: Admitted) -> Credentials:
        """Of one that the engine has let in."""
        shown = self._kinds.get(event.admission)
        if shown is None:  # it is asked about meanwhile
            return self._reader.read(event.headers, "", event.peer)[0]
        return self._reader.alike(shown, address_of(event.peer))
