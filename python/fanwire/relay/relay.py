"""One relay: a path whose clients are a backend's, over as few connections to it as there are things watched.

It says who may connect (``admit``), and has its clients (``client``); what they share is in ``calls``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from fanwire._engine import Admitted, Closed, Connected, HubMessage, Joined, Message, Moved, Opening, Relayed
from fanwire._loop import ends_task
from fanwire.auth import MSGPACK, ResponseHeaders, is_negotiate
from fanwire.errors import ClientGone, LimitReached
from fanwire.logs import name_of, relay_log
from fanwire.owner import ClientEvent
from fanwire.relay.admit import HubAdmission, Verdict, nothing
from fanwire.relay.alike import AlikeClients
from fanwire.relay.backed import Surroundings
from fanwire.relay.calls import CallRelay
from fanwire.relay.client import RelayedClient
from fanwire.relay.config import RelayConfig
from fanwire.relay.credentials import Visitor
from fanwire.wording import INTERNAL_ERROR

NOT_SPOKEN = 1003
"""The close code of a client whose hub protocol the backend does not speak: it is not to come back with it."""


class Relay(CallRelay):
    """See the module."""

    def __init__(self, config: RelayConfig, around: Surroundings) -> None:
        super().__init__(config, around, self._cannot_speak, self._present)
        # Whoever asks to connect or is connected.
        self._clients: dict[int, RelayedClient] = {}
        # Of those who are asked about: what cancels that.
        self._at_work: dict[int, Callable[[], object]] = {}
        self._admission = HubAdmission(
            self._upstreams,
            replace(self._own, connect_timeout=self._answer_s),
            asks=config.admit == "negotiate",
            admit_for=config.admit_for,
            passing=self._passing,
        )
        self._share_admission(self._admission)
        self._alike = AlikeClients(self, self._admission.reader)
        self._admission.refused = self._alike.ask_about_all

    # Clients

    def opening(self, event: Opening) -> None:
        """Somebody asks to connect, or what to connect with; the backend's answer may come later."""
        visitor = self._admission.visitor(event)
        id, self.offers.owner = event.connection, event.owner
        self._clients[id] = RelayedClient(self, id, visitor.credentials)  # the same number, not an equal one
        if self._door.is_shut:
            self._at_work[id] = self._door.wait(id, partial(self._ask, event, visitor))
        else:
            self._ask(event, visitor)

    def _ask(self, event: Opening, visitor: Visitor) -> None:
        call_off = self._admission.ask(visitor, partial(self._answered, event))
        if call_off is not nothing:
            self._at_work[event.connection] = call_off

    def _answered(self, event: Opening, verdict: Verdict, cookies: Sequence[str]) -> None:
        """What the backend says of one that asks to connect."""
        id, headers = event.connection, ResponseHeaders()
        self._at_work.pop(id, None)
        try:
            if cookies:
                self._admission.give(cookies, headers)
            if not 100 <= verdict.status < 300:
                self.endings.refuse(id, *verdict.refusal, list(headers))
            elif event.method == "POST" and verdict.body:  # an error in the backend's own words, to be read
                self.engine.respond(id, 200, "application/json", verdict.body, list(headers))
            else:
                subprotocol = MSGPACK if MSGPACK in event.subprotocols else None
                self.engine.accept(id, event.channels, None, list(headers), subprotocol)
                if is_negotiate(event):  # its transport is asked about, too
                    self._clients.pop(id, None)
                if not (cookies or self._door.is_shut):
                    self._alike.let_in(event, self._admission.holds_s(verdict))
        except LimitReached as error:
            self.endings.refuse(id, 503, error)
        except BaseException as error:
            if ends_task(error):
                raise
            text = "the relay at %s, on the opening of client %s, raised"
            self.faults.note("opening", error, text, self.config.path, name_of(id))
            self.endings.refuse(id, 500, INTERNAL_ERROR)

    def admitted(self, event: Admitted) -> None:
        """One was let in that shows the same as another."""
        id, self.offers.owner = event.connection, event.owner
        self._clients[id] = RelayedClient(self, id, self._alike.credentials(event))

    def moved(self, event: Moved) -> None:
        """What was asked about it is its own, and not the next one's whose request comes over that connection."""
        client = self._clients.pop(event.connection, None)
        if client is not None:
            client.id = id = event.to
            self._clients[id] = client

    def connected(self, event: Connected) -> None:
        """A client has shaken hands: it hears from now on what is sent to all."""
        client = self._clients[event.connection]  # it was asked about
        client.connected(event)
        if self.broadcasts.came(client.id, client.protocol) and self.config.private.eager:
            client.hold()

    def joined(self, event: Joined) -> None:
        """A client has called for the first time, and has joined what is offered."""
        lane, client = self.offers.lane_of(event.offer), self._clients.get(event.connection)
        if lane is None:
            return  # it could not be taken back, and is over
        if client is None or client.is_turned_away:
            lane.came(None, event.offer)
        else:
            client.joined(lane, event.offer)

    def message(self, event: Message | Relayed | HubMessage) -> None:
        """A client has sent a message of the hub protocol."""
        assert isinstance(event, HubMessage)  # the wire of its path
        client = self._clients.get(event.connection)
        if client is None:
            return
        if client.is_turned_away:
            self.acknowledge(client.id)
        else:
            client.take(event)

    def closed(self, event: Closed) -> None:
        """A client is gone, or somebody who asked to connect has left."""
        self._part(event.connection)

    def failed(self, event: ClientEvent) -> None:
        """Something went wrong with an event that nobody expected: its connection is being ended."""
        if isinstance(event, Opening):
            self._clients.pop(event.connection, None)
            self._call_off(event.connection)
        elif not isinstance(event, Closed) and (client := self._clients.get(event.connection)) is not None:
            client.is_turned_away = True

    def _present(self, protocol: str) -> Iterator[int]:
        """Clients that have shaken hands and speak this."""
        return (id for id, client in self._clients.items() if client.protocol == protocol)

    def _part(self, id: int) -> None:
        self._call_off(id)
        client = self._clients.pop(id, None)
        if client is not None and client.protocol:
            self.broadcasts.left(client.protocol)
            client.end()

    def _call_off(self, connection: int) -> None:
        call_off = self._at_work.pop(connection, None)
        if call_off is not None:
            relay_log.debug("client %s left before it was answered", name_of(connection))
            call_off()

    def _cannot_speak(self, id: int, words: str) -> None:
        self._clients[id].is_turned_away = True
        self.endings.close(id, NOT_SPOKEN, words, is_hub=True)

    def parted(self, worker: int) -> None:
        """See ``Sharer``."""
        super().parted(worker)
        if self._door.is_shut:
            self._alike.ask_about_all()

    def _part_with_all(self, gone: ClientGone) -> None:
        self._alike.ask_about_all()
        for id in [*self._at_work, *self._clients]:
            with self.faults.contained("relay.end", "client %s could not be parted with", name_of(id)):
                self._part(id)
        self.broadcasts.end()
