"""From the engine's events to the application's callbacks and back. ✗ registering ✗ lifetimes.

Order: what one client sent is dealt with one after another. A sync callback runs at once, in the pump; an async one
runs in a task that lives as long as this client has work, and holds up nobody else. Only when a message is dealt with
is it acknowledged, and a client with ``messages_pending_max`` of them pending is not read from: nothing piles up.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from fanwire._engine import (
    Asking,
    Call,
    Closed,
    Connected,
    Drained,
    HubMessage,
    Message,
    Opening,
    Record,
    Subscribing,
)
from fanwire._loop import Callback, Loop, finish, readable
from fanwire.auth import Refused, Request, identity_of
from fanwire.client import Client, Link
from fanwire.errors import ClientGone, FanwireError, LimitReached
from fanwire.logs import engine_log, hub_log
from fanwire.methods import INTERNAL_ERROR, TOLD, Methods, reply_error, tell_error
from fanwire.metrics import CONTENT_TYPE, Metrics
from fanwire.signalr import Calls

Sent = Message | Call | Subscribing
"""What a client sent, each to be acknowledged once."""


@dataclass(slots=True)
class Callbacks:
    """What the application registered with its hub."""

    authenticate: Callback | None = None
    authorize: Callback | None = None
    on_message: Callback | None = None
    methods: Methods = field(default_factory=Methods)
    endpoints: dict[str, Methods] = field(default_factory=dict)


class Pump:
    """Takes the events of one engine and calls back, until it is cancelled. All state is the loop's thread's own."""

    def __init__(
        self,
        link: Link,
        callbacks: Callbacks,
        loop: Loop,
        tasks: TaskGroup,
        *,
        openings_max: int,
        signalr_paths: Sequence[str],
        signalr_parallel_max: int,
    ) -> None:
        engine = link.require()
        self._link = link
        self._engine = engine
        self._callbacks = callbacks
        self._loop = loop
        self._tasks = tasks
        self._metrics = Metrics(engine.stats)
        # Those that events or an opening told of; an idle connection that was never asked about costs nothing here.
        self._clients: dict[int, Client] = {}
        # Connections of messages that are dealt with, to be acknowledged in one call.
        self._dealt: list[int] = []
        self._acknowledging = False
        # Openings in their order, and how many tasks are at work on them.
        self._openings: deque[tuple[Client, Opening]] = deque()
        self._openers = 0
        self._openers_max = openings_max
        # By the number that the engine has for each SignalR hub.
        self._hubs = [callbacks.endpoints.get(path, callbacks.methods) for path in signalr_paths]
        self._parallel_max = signalr_parallel_max
        link.make_calls_by(self._make_calls)
        self._handlers: dict[type, Callable[[Any], None]] = {
            Message: self._sent,
            Call: self._sent,
            Subscribing: self._sent,
            HubMessage: self._hub_message,
            Connected: self._connected,
            Drained: self._drained,
            Opening: self._opening,
            Closed: self._closed,
            Asking: self._asking,
            Record: self._record,
        }

    async def run(self) -> None:
        """Deal with events for ever. Cancelled, it leaves no event half dealt with, but for those in tasks."""
        take_events = self._engine.take_events
        descriptor = self._engine.event_fd
        handlers = self._handlers
        while True:
            events = take_events()
            for event in events:
                handlers[type(event)](event)
            if self._dealt:
                self._acknowledge()
            if events:
                await checkpoint()
            else:
                await readable(descriptor)

    # Openings

    def _opening(self, event: Opening) -> None:
        client = self._clients[event.connection] = Client(event.connection, self._link)
        authenticate, authorize = self._callbacks.authenticate, self._callbacks.authorize
        may_wait = bool((authenticate and authenticate.is_async) or (authorize and authorize.is_async))
        if not may_wait:
            finish(self._open(client, event))
            return
        self._openings.append((client, event))
        if self._openers < self._openers_max:
            self._openers += 1
            self._tasks.start_soon(self._work_off_openings)

    async def _work_off_openings(self) -> None:
        try:
            while self._openings:
                client, event = self._openings.popleft()
                if client.id in self._clients:  # else it left while it waited for its turn
                    await self._open(client, event)
        finally:
            self._openers -= 1

    async def _open(self, client: Client, event: Opening) -> None:
        engine = self._engine
        try:
            if self._callbacks.authenticate is not None:
                client._identity = identity_of(await self._callbacks.authenticate(Request(event)))
            for channel in event.channels:
                if not await self._may_watch(client, channel):
                    raise Refused(not_authorized([channel]), status=403)
            identity = client.identity
            engine.accept(event.connection, event.channels, None if identity is None else identity.id)
            if event.protocol == "signalr" and event.method == "POST":  # a negotiate: its transport is asked about, too
                del self._clients[client.id]
        except Refused as refused:
            self._refuse(event, refused.status, refused.reason)
        except LimitReached as error:
            self._refuse(event, 503, str(error))
        except FanwireError as error:  # a channel that cannot be
            self._refuse(event, 400, str(error))
        except Exception:
            hub_log.exception("authenticate or authorize raised on the opening of client %d", client.id)
            self._refuse(event, 500, INTERNAL_ERROR)

    def _refuse(self, event: Opening, status: int, reason: str) -> None:
        try:
            self._engine.refuse(event.connection, status, reason)
        except Exception:  # such as a reason that is no UTF-8
            hub_log.exception("client %d cannot be refused with status %d and this reason", event.connection, status)
            self._engine.refuse(event.connection, 500, INTERNAL_ERROR)

    async def _may_watch(self, client: Client, channel: str) -> bool:
        authorize = self._callbacks.authorize
        return authorize is None or bool(await authorize(client, channel))

    # Messages, calls and subscriptions of clients

    def _sent(self, event: Sent) -> None:
        connection = event.connection
        client = self._clients.get(connection)
        if client is None:
            client = self._clients[connection] = Client(connection, self._link)
        if client._waiting is not None:
            client._waiting.append(event)
        elif self._may_wait(event):
            client._waiting = deque((event,))
            self._tasks.start_soon(self._work_off, client, client._waiting)
        else:
            finish(self._deal_with(client, event))
            self._dealt.append(connection)

    def _may_wait(self, event: Sent) -> bool:
        callbacks = self._callbacks
        if isinstance(event, Message):
            return callbacks.on_message is not None and callbacks.on_message.is_async
        if isinstance(event, Call):
            method = callbacks.methods.get(event.target)
            return method is not None and method.callback.is_async
        return callbacks.authorize is not None and callbacks.authorize.is_async

    async def _work_off(self, client: Client, waiting: deque[Sent]) -> None:
        try:
            while waiting:
                event = waiting.popleft()
                try:
                    await self._deal_with(client, event)
                finally:
                    self._acknowledge_soon(client.id)
        finally:  # also when a callback let asyncio's CancelledError escape: the client's next messages are dealt with
            client._waiting = None
            for _ in waiting:
                self._acknowledge_soon(client.id)

    async def _deal_with(self, client: Client, event: Sent) -> None:
        """Have the event's callback deal with it. Raises nothing but cancellation: the hub outlives any callback."""
        try:
            if isinstance(event, Message):
                await self._message(client, event)
            elif isinstance(event, Call):
                method = self._callbacks.methods.get(event.target)
                if method is None:
                    reply_error(client, event.id, f"no method {event.target!r}")
                else:
                    await method.answer(client, event)
            else:
                await self._subscribing(client, event)
        except Exception:  # such as an engine that has just stopped
            hub_log.exception("client %d could not be answered", client.id)

    async def _message(self, client: Client, event: Message) -> None:
        on_message = self._callbacks.on_message
        if on_message is None:
            return
        try:
            await on_message(client, event.data)
        except TOLD as error:
            tell_error(client, None, str(error))
        except Exception:
            hub_log.exception("on_message, for client %d, raised", client.id)
            tell_error(client, None, INTERNAL_ERROR)

    async def _subscribing(self, client: Client, event: Subscribing) -> None:
        granted: list[str] = []
        denied: list[str] = []
        errors: list[str] = []
        for channel in event.channels:
            try:
                (granted if await self._may_watch(client, channel) else denied).append(channel)
            except Refused as refused:
                errors.append(refused.reason)
            except Exception:
                hub_log.exception("authorize, for client %d, raised", client.id)
                errors.append(INTERNAL_ERROR)
        if denied:
            errors.insert(0, not_authorized(denied))
        self._engine.grant(client.id, granted, event.id, "; ".join(errors) or None)

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
            engine.acknowledge(dealt)

    # SignalR

    def _connected(self, event: Connected) -> None:
        """The client has shaken hands: from now on this is its number."""
        client = self._clients.pop(event.opened_as, None) or Client(event.connection, self._link)
        client.id = event.connection
        client.connection_id = event.connection_id
        client.transport = event.transport
        client.hub_protocol = "json" if event.is_json else "messagepack"
        self._clients[client.id] = client
        client._hub = event.hub

    def _make_calls(self, client: Client) -> Calls:
        is_json = client.hub_protocol == "json"
        acknowledge = partial(self._acknowledge_soon, client.id)
        methods, parallel_max = self._hubs[client._hub], self._parallel_max
        return Calls(client, self._engine, self._tasks, methods, parallel_max, is_json, acknowledge)

    def _hub_message(self, event: HubMessage) -> None:
        client = self._clients.get(event.connection)
        if client is None:
            return
        calls = client._calls
        if calls is None:
            calls = client._calls = self._make_calls(client)
        calls.take(event)

    def _drained(self, event: Drained) -> None:
        client = self._clients.get(event.connection)
        if client is not None and client._calls is not None:
            client._calls.drained()

    # The rest

    def _closed(self, event: Closed) -> None:
        client = self._clients.pop(event.connection, None)
        if client is None:
            return
        if client._waiting:
            client._waiting.clear()
        if client._calls is not None:
            client._calls.end(ClientGone(event.code, event.reason, event.by))

    def _asking(self, event: Asking) -> None:
        if event.target.partition("?")[0] != "/metrics":
            self._engine.refuse(event.connection, 404, "not found")
            return
        try:
            self._engine.respond(event.connection, 200, CONTENT_TYPE, self._metrics.render())
        except Exception:
            hub_log.exception("/metrics could not be rendered")
            self._engine.refuse(event.connection, 500, INTERNAL_ERROR)

    def _record(self, event: Record) -> None:
        engine_log.log(event.level, "%s", event.text)


def not_authorized(channels: list[str]) -> str:
    """The refusal that names what may not be watched."""
    return f"not authorized for channel{'s'[: len(channels) > 1]} {', '.join(map(repr, channels))}"
