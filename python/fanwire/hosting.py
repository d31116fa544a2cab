"""What owners of paths do alike that know each of their clients: who is there, and who is being turned away."""

from fanwire._engine import Closed, Connected, Drained, Moved, Opening
from fanwire.client import Client, Link
from fanwire.errors import ClientGone
from fanwire.owner import ClientEvent, Owner


class Hosting(Owner):
    """One of them, for one serving."""

    def __init__(self, link: Link) -> None:
        self._link = link
        # Those that events or an opening told of; an idle connection that was never asked about costs nothing here.
        self._clients: dict[int, Client] = {}

    def _arrived(self, event: Connected) -> Client:
        """The client is there."""
        client = self._clients.get(event.connection) or Client(event.connection, self._link)
        client._connected(event)
        self._clients[client.id] = client
        return client

    def client(self, connection: int) -> Client | None:
        """The client of this number, if anything was told or asked of it."""
        return self._clients.get(connection)

    def moved(self, event: Moved) -> None:
        """What was asked about it is its own, and not the next one's whose request comes over that connection."""
        client = self._clients.pop(event.connection, None)
        if client is not None:
            client.id = event.to
            self._clients[event.to] = client

    def _left(self, connection: int, gone: ClientGone) -> Client | None:
        """It is not any more, connected or not."""
        client = self._clients.pop(connection, None)
        if client is not None:
            client._gone = gone
        return client

    def _call_off(self, connection: int) -> None:
        """Nobody is to be at work any more for one who asked to connect."""

    def drained(self, event: Drained) -> None:
        """The socket has taken all that was sent."""
        client = self._clients.get(event.connection)
        if client is not None and client._calls is not None:
            client._calls.drained()

    def failed(self, event: ClientEvent) -> None:
        """Something went wrong with an event that nobody expected: its connection is being ended."""
        if isinstance(event, Opening):
            self._clients.pop(event.connection, None)
            self._call_off(event.connection)
        elif not isinstance(event, Closed) and (client := self._clients.get(event.connection)) is not None:
            client._is_turned_away = True  # what it sends until it is out is not dealt with

    def _turn_away(self, client: Client, code: int, reason: str) -> None:
        """Close it; nothing that it sent or sends is dealt with any more."""
        client._is_turned_away = True
        self._link.endings.close(client.id, code, reason, is_hub=client.connection_id is not None)
