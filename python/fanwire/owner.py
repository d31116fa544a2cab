"""Who answers for a path: what the pump asks and tells of the path's clients.

The application is an owner, as is each relay. Of a path's clients an owner hears only what its routes ask for
(``serving``, ``rust/core/src/routes/mod.rs``), and of others' nothing: a path costs its own clients only.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from fanwire._engine import (
    Admitted,
    Asking,
    Call,
    Closed,
    Connected,
    Drained,
    HubMessage,
    Joined,
    Message,
    Moved,
    Opening,
    Relayed,
    Subscribing,
)

APPLICATION = 0
"""The application's number."""
SCRAPES = 1
"""That of the answer to ``/metrics``."""
RELAYS = 2
"""That of the first relay; the others follow in their order."""
ClientEvent: TypeAlias = (
    Opening
    | Admitted
    | Asking
    | Moved
    | Connected
    | Message
    | Relayed
    | HubMessage
    | Joined
    | Call
    | Subscribing
    | Drained
    | Closed
)
"""What happens on one connection."""


class Owner:
    """One of them; what it is not asked it leaves out. All is called in the event loop's thread and returns at once.

    What a method raises ends the event's request or connection, and nothing else.
    """

    def opening(self, event: Opening) -> None:
        """Somebody asks to connect: to be accepted or refused, now or later."""

    def admitted(self, event: Admitted) -> None:
        """One was let in without a question that shows the same as another, as this owner wanted it."""

    def asking(self, event: Asking) -> None:
        """A plain request, to be answered, now or later."""

    def moved(self, event: Moved) -> None:
        """Who was accepted has a number of its own from now on: its first poll came over a connection of many."""

    def connected(self, event: Connected) -> None:
        """A client is there, and has its number."""

    def message(self, event: Message | Relayed | HubMessage) -> None:
        """A client has sent something; to be acknowledged once."""

    def joined(self, event: Joined) -> None:
        """A client's first message was a call that it offered: it has joined, and is answered."""

    def call(self, event: Call | Subscribing) -> None:
        """A client of the raw protocol calls a method or asks for channels; to be answered, and acknowledged once."""

    def drained(self, event: Drained) -> None:
        """A client's socket has taken all that was sent."""

    def closed(self, event: Closed) -> None:
        """A client is gone, or somebody who asked to connect has left."""

    def failed(self, event: ClientEvent) -> None:
        """Something went wrong with an event that nobody expected; its connection is ended behind this call."""

    def stats(self) -> object:
        """How it stands, now."""
        return None


def handlers_of(owner: Owner) -> dict[type, Callable[[Any], None]]:
    """What deals with each class of event."""
    return {
        Opening: owner.opening,
        Admitted: owner.admitted,
        Asking: owner.asking,
        Moved: owner.moved,
        Connected: owner.connected,
        Message: owner.message,
        Relayed: owner.message,
        HubMessage: owner.message,
        Joined: owner.joined,
        Call: owner.call,
        Subscribing: owner.call,
        Drained: owner.drained,
        Closed: owner.closed,
    }
