"""From the engine's events to the application's callbacks and back. ✗ registering ✗ lifetimes.

Order: what one client sent is dealt with one after another. A sync callback runs at once, in the pump; an async one
runs in a task that lives as long as this client has work, and holds up nobody else. Only when a message is dealt with
is it acknowledged, and a client with ``messages_pending_max`` of them pending is not read from: nothing piles up.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from anyio.lowlevel import checkpoint

from fanwire._engine import (
    Asking,
    Audible,
    Call,
    Closed,
    Connected,
    Drained,
    HubMessage,
    Message,
    Opening,
    Presence,
    Progress,
    Record,
    Relayed,
    SnapshotWanted,
    Subscribing,
    Upstream,
)
from fanwire._loop import Callback, Loop, ends_task, finish, outlives, readable
from fanwire.auth import Identity
from fanwire.budget import Budgets
from fanwire.callbacks import Callbacks
from fanwire.channel import Channel
from fanwire.client import Client, Link
from fanwire.conversing import Conversations
from fanwire.deliveries import Deliveries
from fanwire.errors import ClientGone, EngineFailed, HubStopped, Told
from fanwire.faults import Tasks
from fanwire.hearing import Listeners
from fanwire.logs import engine_log
from fanwire.methods import reply_error, tell_error
from fanwire.openings import Openings, not_authorized
from fanwire.presence import Presences, presence_patterns
from fanwire.relay.client import RelayedClient
from fanwire.relay.config import RelayConfig
from fanwire.relay.plain import PlainRelay, PlainRelays
from fanwire.relay.relay import Relay
from fanwire.relay.stats import RelayStats
from fanwire.relay.upstreams import Upstreams
from fanwire.roster import Roster
from fanwire.scraping import Scraping
from fanwire.signalr import Calls, Terms
from fanwire.snapshots import SnapshotRule, Snapshots
from fanwire.texts import INTERNAL_ERROR, name_of, sendable
from fanwire.wording import CLOSED_WITH_ERROR

Sent = Message | Call | Subscribing
"""What a client sent, each to be acknowledged once."""
PRESENCE_INTERVAL_S = 0.25
"""For so long new subscribers of a presence channel begin at the same list."""
TAKING_ATTEMPTS_MAX = 3
"""How often in a row the engine's events cannot be taken before serving ends."""
EVENTS_MAX = 128
"""So many are dealt with before the loop has a turn: a flood of them is not to hold up who publishes."""
InTurn = Sent | HubMessage | Connected | Closed
"""What is dealt with in its turn, client by client."""


class Pump:
    """Takes the events of one engine and calls back, until it is cancelled. All state is the loop's thread's own."""

    def __init__(
        self,
        link: Link,
        callbacks: Callbacks,
        loop: Loop,
        tasks: Tasks,
        *,
        own: Mapping[str, Any],
        relays: Sequence[RelayConfig] = (),
        channels: Mapping[str, Channel],
    ) -> None:
        engine = link.require()
        self._link = link
        self._engine = engine
        self._faults, self._endings = link.faults, link.endings
        self._callbacks = callbacks
        self._loop = loop
        self._tasks = tasks
        # Those that events or an opening told of; an idle connection that was never asked about costs nothing here.
        self._clients: dict[int, Client] = {}
        # Connections of messages that are dealt with, to be acknowledged in one call.
        self._dealt: list[int] = []
        self._acknowledging = False
        # Clients that are gone and wait for on_disconnect.
        self._parting = 0
        # By the number that the engine has for each SignalR hub.
        paths: Sequence[str] = own["signalr_paths"]
        self._hubs = [callbacks.endpoints.get(path, callbacks.methods) for path in paths]
        # What waits for each client.
        self._budgets = Budgets(own["client_bytes_max"])
        upstreams = Upstreams(engine, link.faults, link.endings)
        relaying = engine, tasks, upstreams, self._acknowledge_soon, own["handshake_timeout"], self._budgets
        hubs = [config for config in relays if config.protocol == "signalr"]
        self._relays = {len(paths) - len(hubs) + index: Relay(config, *relaying) for index, config in enumerate(hubs)}
        plain = {config.path: PlainRelay(config, *relaying) for config in relays if config.protocol == "websocket"}
        self._plain = PlainRelays(plain)
        by_path = {relay.config.path.casefold(): relay for relay in self._relays.values()}
        self._openings = Openings(link, callbacks, tasks, self._clients, by_path, self._plain, own["openings_max"])
        self._all_relays: tuple[Relay | PlainRelay, ...] = (*self._relays.values(), *plain.values())
        scraping = Scraping(engine, link.faults, link.endings, refused=self._budgets.refused, relays=self._all_relays)
        self.deliveries = Deliveries(engine)
        self.listeners = Listeners(engine)
        self.presences = Presences(engine, channels, callbacks.on_presence, self._identify, link.faults)
        rules = [*self._presence_snapshots(channels), *callbacks.snapshots]
        self._snapshots = Snapshots(engine, rules, tasks, link.faults)
        self._conversations = Conversations(callbacks.client, tasks, link.wording, self._turn_away)
        self._terms = Terms(engine, tasks, self._budgets, link.wording, own)
        link.make_calls_by(self._make_calls)
        self._handlers: dict[type, Callable[[Any], None]] = {
            Message: self._sent,
            Call: self._sent,
            Relayed: self._plain.take,
            Subscribing: self._sent,
            HubMessage: self._hub_message,
            Connected: self._connected,
            Drained: self._drained,
            Opening: self._openings.take,
            Closed: self._closed,
            Asking: scraping.take,
            SnapshotWanted: self._snapshots.wanted,
            Presence: self.presences.take,
            Progress: self.deliveries.take,
            Audible: self.listeners.take,
            Record: self._record,
            Upstream: upstreams.dispatch,
        }

    def _presence_snapshots(self, channels: Mapping[str, Channel]) -> list[SnapshotRule]:
        """How a new subscriber of a presence channel learns who is there."""
        patterns = presence_patterns(channels)
        if patterns:
            self._tasks.start_soon(self.presences.run, self._tasks)
        callback = Callback(self.presences.snapshot)
        return [SnapshotRule(pattern, callback, PRESENCE_INTERVAL_S, 1.0, "presence") for pattern in patterns]

    async def run(self) -> None:
        """Deal with events for ever. Cancelled, it leaves no event half dealt with, but for those in tasks.

        What goes wrong with an event ends at most what it belongs to: this is the one guard around all of them.
        Raises what keeps it from taking any.
        """
        descriptor = self._engine.event_fd
        handlers = self._handlers
        while True:
            events = self._take_events()
            for event in events:
                try:
                    handlers[type(event)](event)
                except BaseException as error:
                    self._failed(event, error)
            if self._dealt:
                self._acknowledge()
            try:
                await (checkpoint() if events else readable(descriptor))
            except BaseException as error:  # a sync callback may have cancelled this task
                if not outlives(error):
                    raise

    def _take_events(self) -> Sequence[Any]:
        """What happened since the last call. Fails it again and again, nobody is served any more: that is raised."""
        for _ in range(TAKING_ATTEMPTS_MAX - 1):
            try:
                return self._engine.take_events(EVENTS_MAX)
            except EngineFailed:  # serving ends with it, and logs it
                self._faults.count("engine.thread")
                raise
            except BaseException as error:
                if ends_task(error):
                    raise
                self._faults.note("pump.take_events", error, "the engine's events could not be taken")
        return self._engine.take_events(EVENTS_MAX)

    def _failed(self, event: Any, error: BaseException) -> None:
        """End what an event belongs to that could not be dealt with: the request, the connection or nothing at all."""
        if ends_task(error):
            raise error
        kind = type(event).__name__.lower()
        connection = getattr(event, "connection", None)
        what = "" if connection is None else f" of client {name_of(connection)}"
        self._faults.note(f"pump.{kind}", error, "a %s event%s could not be dealt with", kind, what)
        with self._faults.contained("pump.ending", "what a %s event belongs to could not be ended", kind):
            if isinstance(event, Opening):
                self._openings.fail(event)
            elif isinstance(event, Asking):
                self._endings.refuse(event.connection, 500, INTERNAL_ERROR)
            elif isinstance(event, SnapshotWanted):
                self._snapshots.fail(event)
            elif connection is not None and not isinstance(event, Closed):
                client = self._clients.get(connection)
                if client is not None:
                    client._is_turned_away = True  # what it sends until it is out is not dealt with
                self._endings.close(connection, 1011, INTERNAL_ERROR)

    @property
    def roster(self) -> Roster:
        """Who is connected."""
        return self._openings.roster

    def relay_stats(self) -> list[RelayStats]:
        """How the relays stand."""
        return [relay.stats() for relay in self._all_relays]

    def end(self, error: HubStopped) -> None:
        """Nothing is answered any more: whoever waits for a client, or for a delivery, is told."""
        for client in self._clients.values():
            client._gone = error
            if isinstance(client._calls, Calls):
                with self._faults.contained("pump.end", "the calls of client %s could not be ended", client):
                    client._calls.end(error)
            if client._inbox is not None:
                client._inbox.end()
        self.deliveries.end(str(error))
        self.listeners.end()

    @property
    def is_parting(self) -> bool:
        """Whether ``on_disconnect`` has yet to be called for a client, or is at work, or a client's own function is."""
        is_told = self._callbacks.on_disconnect is not None
        return bool(self._conversations.count or (is_told and (self._clients or self._parting)))

    def _note_raised(self, name: str, client: Client, error: BaseException) -> None:
        """Note what the callback of this name raised, with what the application calls it."""
        client._note(name, error, "%s %s, for client %s, raised", name, getattr(self._callbacks, name), client)

    # Messages, calls and subscriptions of clients

    def _sent(self, event: Sent) -> None:
        connection = event.connection
        client = self._clients.get(connection)
        if client is None:
            client = self._clients[connection] = Client(connection, self._link)
        if self._take(client, event):
            self._dealt.append(connection)

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
            self._acknowledge_soon(event.connection)

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
        denied: list[str] = []
        errors: list[str] = []
        for channel in event.channels:
            if client._gone is not None:
                return  # and nobody is asked about the rest
            try:
                (granted if await self._callbacks.may_watch(client, channel) else denied).append(channel)
            except Told as told:
                errors.append(sendable(told))
            except Exception as error:
                self._note_raised("authorize", client, error)
                errors.append(INTERNAL_ERROR)
        if denied:
            errors.insert(0, not_authorized(denied))
        answer = sendable("; ".join(errors)) if errors else None
        self._engine.grant(client.id, granted, event.id, answer, event.wanted)

    def _identify(self, connection: int) -> Identity | None:
        client = self._clients.get(connection)
        return None if client is None else client.identity

    def _acknowledge_soon(self, connection: int) -> None:
        self._dealt.append(connection)
        if not self._acknowledging:
            self._acknowledging = True
            self._loop.call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledging = False
        dealt, self._dealt = self._dealt, []
        engine = self._link.engine
        if dealt and engine is not None:
            try:
                engine.acknowledge(dealt)
            except BaseException as error:  # nobody is to wait for ever, for what may be one's fault
                if ends_task(error):
                    raise
                self._faults.note("pump.acknowledge", error, "%d messages could not be acknowledged", len(dealt))
                for connection in dealt:
                    with self._faults.contained("pump.acknowledge", "client %s cannot go on", name_of(connection)):
                        engine.acknowledge([connection])

    # The first and the last of a client

    def _connected(self, event: Connected) -> None:
        """The client is there, and from now on this is its number."""
        client = self._clients.pop(event.opened_as, None) or Client(event.connection, self._link)
        client.id = event.connection
        client.connection_id = event.connection_id
        client.transport = event.transport
        client.hub_protocol = event.hub_protocol
        self._clients[client.id] = client
        client._hub = event.hub
        relay = self._relays.get(event.hub) if event.connection_id is not None else None
        if relay is not None:
            relay.connected(client)
        else:
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

    def _turn_away(self, client: Client, code: int, reason: str) -> None:
        """Close it; nothing that it sent or sends is dealt with any more."""
        client._is_turned_away = True
        self._endings.close(client.id, code, reason, is_hub=client.connection_id is not None)

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

    def _make_calls(self, client: Client) -> Calls | RelayedClient:
        relay = self._relays.get(client._hub)
        if relay is not None:
            return relay.calls_of(client)
        is_json = client.hub_protocol == "json"
        acknowledge = partial(self._acknowledge_soon, client.id)
        return Calls(client, self._terms, self._hubs[client._hub], is_json, acknowledge)

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
            self._acknowledge_soon(client.id)
            return
        if client._calls is None:
            client._calls = self._make_calls(client)
        client._calls.take(event)

    def _drained(self, event: Drained) -> None:
        client = self._clients.get(event.connection)
        if client is not None and client._calls is not None:
            client._calls.drained()

    # The rest

    def _closed(self, event: Closed) -> None:
        client = self._clients.pop(event.connection, None)
        if client is None:
            self._plain.closed(event.connection, lambda: ClientGone(event.code, event.reason, event.by))
            return
        client._gone = ClientGone(event.code, event.reason, event.by)
        self.roster.drop(client)
        if client._waiting:
            client._waiting.clear()
        if client._inbox is not None:
            client._inbox.end()
        contained = self._faults.contained
        with contained("pump.closed", "the opening of client %s could not be ended", client):
            self._openings.gone(event.connection)
        with contained("pump.closed", "client %s could not be taken from its relay", client):
            relay = self._relays.get(client._hub)
            if relay is not None:
                relay.gone(client.id)
        with contained("pump.closed", "the calls of client %s could not be ended", client):
            if client._calls is not None:
                client._calls.end(client._gone)
        if self._callbacks.on_disconnect is not None:
            self._parting += 1
            self._take(client, event)

    def _record(self, event: Record) -> None:
        self._faults.tell(engine_log, event.level, "what the engine tells", "%s", event.text)
