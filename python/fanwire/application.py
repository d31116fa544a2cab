"""The application as an owner of paths: from its clients' events to its callbacks and back.

Order: what one client sent is dealt with one after another. A sync callback runs at once, in the pump; an async one
runs in a task that lives as long as this client has work, and holds up nobody else. Only when a message is dealt with
is it acknowledged, and a client with ``messages_pending_max`` of them pending is not read from: nothing piles up.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fanwire._engine import (
    Call,
    Closed,
    Connected,
    Filter,
    HubMessage,
    Message,
    Opening,
    Relayed,
    Subscribing,
)
from fanwire._loop import ends_task, finish
from fanwire.auth import Identity
from fanwire.budget import Budgets
from fanwire.callbacks import Callbacks, Conversations
from fanwire.client import Client, Link
from fanwire.errors import ClientGone, HubStopped, Told
from fanwire.faults import Tasks
from fanwire.hosting import Hosting
from fanwire.methods import reply_error, tell_error
from fanwire.openings import Openings, not_authorized
from fanwire.presence import Roster
from fanwire.signalr import CallContext, Calls
from fanwire.wording import CLOSED_WITH_ERROR, INTERNAL_ERROR, sendable

Sent = Message | Call | Subscribing
"""What a client sent, each to be acknowledged once."""
InTurn = Sent | HubMessage | Connected | Closed
"""What is dealt with in its turn, client by client."""


@dataclass(frozen=True, slots=True)
class ApplicationStats:
    """How the application's clients stand."""

    clients: int
    """Those that it was told or asked of; an idle one that it was never asked about is none of them."""
    openings: int
    """Those who wait for its answer."""
    parting: int
    """Those who are gone and wait for ``on_disconnect``."""


class Application(Hosting):
    """What the application registered, for one serving. All state is the loop's thread's own.

    Args:
        link: how its clients reach the engine.
        callbacks: what it registered.
        tasks: where its async callbacks run.
        own: the hub's own options.
        budgets: what may wait for each client.
        dealt: called with the connection of a message that was dealt with at once.
        acknowledge: the same of one that was dealt with later.
    """

    def __init__(
        self,
        link: Link,
        callbacks: Callbacks,
        tasks: Tasks,
        own: Mapping[str, Any],
        budgets: Budgets,
        dealt: Callable[[int], None],
        acknowledge: Callable[[int], None],
    ) -> None:
        super().__init__(link)
        self._engine = link.require()
        self._faults = link.faults
        self._callbacks = callbacks
        self._tasks = tasks
        self._dealt, self._acknowledge = dealt, acknowledge
        # Clients that are gone and wait for on_disconnect.
        self._parting = 0
        openings = Openings if callbacks.tracing is None else callbacks.tracing.openings
        self._openings: Openings = openings(link, callbacks, tasks, self._clients, own["openings_max"])
        self._conversations = Conversations(callbacks.client, tasks, link.wording, self._turn_away)
        self._context = CallContext(self._engine, tasks, budgets, link.wording, own, set())
        link.make_calls_by(self._make_calls)

    @property
    def roster(self) -> Roster:
        """Who is connected."""
        return self._openings.roster

    def identify(self, connection: int) -> Identity | None:
        """Who it is, if it is a client that is known and somebody."""
        client = self._clients.get(connection)
        return None if client is None else client.identity

    @property
    def is_parting(self) -> bool:
        """Whether ``on_disconnect`` has yet to be called for a client, or is at work, or a client's own function is.

        Or the method of a stream that is over has yet to let go.
        """
        is_told = self._callbacks.on_disconnect is not None
        return bool(
            self._conversations.count or self._context.closing or (is_told and (self._clients or self._parting))
        )

    def stats(self) -> ApplicationStats:
        """How it stands, now."""
        return ApplicationStats(len(self._clients), self._openings.count, self._parting)

    def opening(self, event: Opening) -> None:
        """Somebody asks to connect."""
        self._openings.take(event)

    def _call_off(self, connection: int) -> None:
        self._openings.gone(connection)

    def end(self, error: HubStopped) -> None:
        """Nothing is answered any more: whoever waits for a client is told."""
        for client in self._clients.values():
            client._gone = error
            if isinstance(client._calls, Calls):
                with self._faults.contained("pump.end", "the calls of client %s could not be ended", client):
                    client._calls.end(error)
            client._calls = None  # whoever holds the client does not hold what it had
            if client._inbox is not None:
                client._inbox.end()

    def _note_raised(self, name: str, client: Client, error: BaseException) -> None:
        """Note what the callback of this name raised, with what the application calls it."""
        client._note(name, error, "%s %s, for client %s, raised", name, getattr(self._callbacks, name), client)

    # Messages, calls and subscriptions of clients

    def message(self, event: Message | Relayed | HubMessage) -> None:
        """A client of SignalR has sent something, or one of the raw protocol what is no request."""
        if isinstance(event, HubMessage):
            self._hub_message(event)
        elif isinstance(event, Message):
            self.call(event)

    def call(self, event: Sent) -> None:
        """A client of the raw protocol has sent something, to be dealt with in its turn."""
        connection = event.connection
        client = self._clients.get(connection)
        if client is None:
            client = self._clients[connection] = Client(connection, self._link)
        if self._take(client, event):
            self._dealt(connection)

    def _take(self, client: Client, event: InTurn) -> bool:
        """Deal with it now, or in its turn; True when that is done."""
        if client._waiting is not None:
            client._waiting.append(event)
        elif self._may_wait(event):
            client._waiting = deque((event,))
            self._tasks.start_soon(self._work_off, client, client._waiting)
        else:
            finish(self._deal_with(client, event))
            return True
        return False

    def _may_wait(self, event: InTurn) -> bool:
        callbacks = self._callbacks
        if isinstance(event, HubMessage):
            return False  # its calls have turns of their own
        if isinstance(event, Connected):
            return callbacks.on_connect is not None and callbacks.on_connect.is_async
        if isinstance(event, Closed):
            return callbacks.on_disconnect is not None and callbacks.on_disconnect.is_async
        if isinstance(event, Message):
            return callbacks.on_message is not None and callbacks.on_message.is_async
        if isinstance(event, Call):
            method = callbacks.methods.get(event.target)
            return method is not None and method.callback.is_async
        return callbacks.authorize is not None and callbacks.authorize.is_async

    async def _work_off(self, client: Client, waiting: deque[InTurn]) -> None:
        try:
            while waiting:
                event = waiting.popleft()
                try:
                    await self._deal_with(client, event)
                finally:
                    self._acknowledge_sent(event)
        finally:  # also when a callback let asyncio's CancelledError escape: the client's next messages are dealt with
            client._waiting = None
            for event in waiting:
                self._acknowledge_sent(event)

    def _acknowledge_sent(self, event: InTurn) -> None:
        if isinstance(event, Sent):
            self._acknowledge(event.connection)

    async def _deal_with(self, client: Client, event: InTurn) -> None:
        """Have the event's callback deal with it. Raises nothing but cancellation: the hub outlives any callback."""
        if client._is_turned_away and not isinstance(event, (Closed, HubMessage)):
            return
        try:
            if isinstance(event, Message):
                await self._message(client, event)
            elif isinstance(event, Call):
                method = self._callbacks.methods.get(event.target)
                if method is None:
                    reply_error(client, event.id, f"no method {event.target!r}")
                else:
                    await method.answer(client, event)
            elif isinstance(event, HubMessage):
                self._hand_on(client, event)
            elif isinstance(event, Connected):
                await self._greet(client)
            elif isinstance(event, Closed):
                await self._part(client, event)
            else:
                await self._subscribing(client, event)
        except BaseException as error:  # what a callback raises does not come here
            if ends_task(error):
                raise
            self._faults.note("pump.answer", error, "client %s could not be answered", client)
            if isinstance(event, (Call, Subscribing)):
                reply_error(client, event.id, INTERNAL_ERROR)
            elif isinstance(event, (Connected, HubMessage)):
                self._turn_away(client, 1011, INTERNAL_ERROR)

    async def _message(self, client: Client, event: Message) -> None:
        on_message = self._callbacks.on_message
        if on_message is None:
            return
        try:
            await on_message(client, event.data)
        except Exception as error:
            if not isinstance(error, Told):
                self._note_raised("on_message", client, error)
            tell_error(client, None, self._link.wording.raw(error))

    async def _subscribing(self, client: Client, event: Subscribing) -> None:
        granted: list[str] = []
        filters: list[Filter | None] = []
        denied: list[str] = []
        errors: list[str] = []
        for channel in event.channels:
            if client._gone is not None:
                return  # and nobody is asked about the rest
            try:
                is_allowed, filter = await self._callbacks.may_watch(client, channel, event.filter)
                (granted if is_allowed else denied).append(channel)
                filters += [filter] * is_allowed
            except Told as told:
                errors.append(sendable(told))
            except Exception as error:
                self._note_raised("authorize", client, error)
                errors.append(INTERNAL_ERROR)
        if denied:
            errors.insert(0, not_authorized(denied))
        answer = sendable("; ".join(errors)) if errors else None
        self._engine.grant(client.id, granted, event.id, answer, event.wanted, filters)

    # The first and the last of a client

    def connected(self, event: Connected) -> None:
        """The client is there; one that polls has its number from now on."""
        client = self._arrived(event)
        self.roster.add(client)
        self._take(client, event)

    async def _greet(self, client: Client) -> None:
        if self._callbacks.on_connect is not None:
            try:
                await self._callbacks.on_connect(client)
            except Exception as error:
                is_told, wording = isinstance(error, Told), self._link.wording
                if not is_told:
                    self._note_raised("on_connect", client, error)
                if client.connection_id is not None:
                    self._turn_away(client, 1008, wording.of(CLOSED_WITH_ERROR, error))
                else:
                    self._turn_away(client, 1008 if is_told else 1011, wording.raw(error))
                return
        client._is_connected = True
        self._conversations.begin(client)

    async def _part(self, client: Client, event: Closed) -> None:
        try:
            if client._is_connected:
                assert self._callbacks.on_disconnect is not None
                await self._callbacks.on_disconnect(client, ClientGone(event.code, event.reason, event.by))
        except Exception as error:
            self._note_raised("on_disconnect", client, error)
        finally:
            self._parting -= 1

    # SignalR

    def _make_calls(self, client: Client) -> Calls:
        is_json = client.hub_protocol == "json"
        acknowledge = partial(self._acknowledge, client.id)
        methods = self._callbacks.endpoints.get(client._path, self._callbacks.methods)
        return Calls(client, self._context, methods, is_json, acknowledge)

    def _hub_message(self, event: HubMessage) -> None:
        client = self._clients.get(event.connection)
        if client is None:
            return
        if client._waiting is None:
            self._hand_on(client, event)
        else:
            client._waiting.append(event)  # on_connect is at work

    def _hand_on(self, client: Client, event: HubMessage) -> None:
        if client._is_turned_away:
            self._acknowledge(client.id)
            return
        if client._calls is None:
            client._calls = self._make_calls(client)
        client._calls.take(event)

    def closed(self, event: Closed) -> None:
        """The client is gone, connected or not."""
        gone = ClientGone(event.code, event.reason, event.by)
        client = self._left(event.connection, gone)
        if client is None:
            return
        self.roster.drop(client)
        if client._waiting:
            client._waiting.clear()
        if client._inbox is not None:
            client._inbox.end()
        contained = self._faults.contained
        with contained("pump.closed", "the opening of client %s could not be ended", client):
            self._call_off(event.connection)
        with contained("pump.closed", "the calls of client %s could not be ended", client):
            if client._calls is not None:
                client._calls.end(gone)
                client._calls = None
        if self._callbacks.on_disconnect is not None:
            self._parting += 1
            self._take(client, event)
