"""A client as the application sees it: a handle on a connection, which stays valid, and idle, when that is gone."""

from __future__ import annotations

from collections import deque
from sys import intern
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from fanwire._loop import Loop
from fanwire.arrivals import Arrivals
from fanwire.calls import (
    check_channel,
    check_code,
    check_reason,
    check_since,
    check_start,
    check_text,
    explain,
    read_filter,
)
from fanwire.endings import Endings
from fanwire.errors import ClientGone, HubStopped, anew
from fanwire.faults import Faults
from fanwire.logs import hub_log, name_of
from fanwire.wording import Wording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from fanwire._engine import Call, Closed, Connected, Engine, HubMessage, Message, Position, Subscribing
    from fanwire.auth import Identity, Request

    ClientEvent = Message | Call | Subscribing | HubMessage | Connected | Closed


class CallsInterface(Protocol):
    """The calls of a SignalR client, both ways; ``fanwire.signalr`` has them."""

    def take(self, event: HubMessage) -> None:
        """Deal with a message of the client."""

    def drained(self) -> None:
        """Hear that the socket has taken all that was sent."""

    def end(self, gone: ClientGone) -> None:
        """Hear that the client is gone."""

    async def ask(self, target: str, arguments: tuple[Any, ...]) -> Any:
        """Call the client and wait for what it answers."""


class Link:
    """The engine of one serving, shared by the hub and its clients; or why there is none.

    ``end`` cuts it, so that whoever holds it learns of the end at no cost while it lives.
    """

    __slots__ = ("_make_calls", "endings", "engine", "faults", "is_forked", "loop", "lost", "thread", "why", "wording")

    def __init__(self, engine: Engine | None, why: str = "") -> None:
        self.engine = engine
        """None once the serving ended."""
        self.faults = Faults()
        """Where what goes wrong in this serving is noted."""
        self.endings = Endings(lambda: self.engine, self.faults)
        """How its clients are told that something is over."""
        self.wording = Wording()
        """What its clients are told of exceptions."""
        self.is_forked = False
        """True in a child process that inherited it."""
        self.why = why
        """The text of the HubStopped that ``require`` raises."""
        self.thread = -1
        """That of the event loop, as ``threading.get_ident`` names it; -1 before there is one."""
        self.loop: Loop | None = None
        """The event loop itself."""
        self.lost: Callable[[], None] | None = None
        """What ends the serving whose event loop was closed."""
        self._make_calls: Callable[[Client], CallsInterface] | None = None

    def end(self, why: str, *, is_forked: bool = False) -> None:
        """Cut the link: from now on ``require`` raises HubStopped with `why`."""
        self.why = why
        self.is_forked = is_forked
        self.engine = None
        self._make_calls = None  # whoever holds a client for long does not hold the engine

    def make_calls_by(self, make: Callable[[Client], CallsInterface]) -> None:
        """Have ``calls_of`` ask `make`."""
        self._make_calls = make

    def calls_of(self, client: Client) -> CallsInterface:
        """The calls of a SignalR client, begun. Raises HubStopped when there is no engine."""
        self.require()
        assert self._make_calls is not None  # set before any client exists
        return self._make_calls(client)

    def require_thread(self, what: str) -> None:
        """Raises HubStopped when there is no engine, and RuntimeError in another thread than the event loop's."""
        self.require()
        if get_ident() != self.thread:
            raise RuntimeError(f"{what} is for the thread of the event loop that serves; this is another one")

    def require_loop(self, what: str) -> None:
        """The same for what waits: a thread may run several loops, one after another, and none wakes another's."""
        self.require_thread(what)
        if self.loop is not None and not self.loop.is_current:
            raise RuntimeError(f"{what} is for the event loop that serves; this is another one of the same thread")

    def require(self) -> Engine:
        """The engine. Raises HubStopped when there is none, or its event loop was closed: then `lost` ends it."""
        engine = self.engine
        if engine is None:
            raise HubStopped(self.why)
        if self.loop is not None and self.loop.is_closed and self.lost is not None:
            self.lost()
            raise HubStopped(self.why)
        return engine


class Client:
    """One connected client.

    Made by the hub on the first event of a connection. What is not ``async`` may be called from any thread and never
    waits; what is, and the messages, belong to the event loop's thread. Once the client is gone calls do nothing.
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_gone",
        "_identity",
        "_inbox",
        "_is_connected",
        "_is_turned_away",
        "_link",
        "_path",
        "_request",
        "_waiting",
        "connection_id",
        "data",
        "hub_protocol",
        "id",
        "transport",
    )

    def __init__(self, id: int, link: Link, identity: Identity | None = None) -> None:
        self.id: int = id
        """The connection's number, never used twice while the hub serves.

        64 bits without a sign. With at most 32 engine threads it is below 2**53, which JSON's readers keep whole.
        """
        self.connection_id: str | None = None
        """What a SignalR client and its hub call the connection; None for clients of other protocols."""
        self.transport: str | None = None
        """``WebSockets``, ``ServerSentEvents`` or ``LongPolling``; None for clients of other protocols than SignalR."""
        self.hub_protocol: str | None = None
        """``json`` or ``messagepack``; None for clients of other protocols than SignalR."""
        self.data: Any = None
        """The application's own; the hub never looks at it."""
        self._identity = identity
        self._link = link
        self._request: Request | None = None
        # What the function that @hub.client registered reads; None where there is none.
        self._inbox: Inbox | None = None
        # Of a SignalR client: the path of its route.
        self._path = ""
        # Its calls, if it is one of SignalR's and any were made.
        self._calls: CallsInterface | None = None
        # on_connect is through with it: on_disconnect will hear of its end.
        self._is_connected = False
        # Whether on_connect did not want it: then nothing that it sent is dealt with.
        self._is_turned_away = False
        # What ended it, or the hub.
        self._gone: Exception | None = None
        # What happened to this client while an async callback of its own is at work; None when none is.
        self._waiting: deque[ClientEvent] | None = None

    def __repr__(self) -> str:
        who = "anonymous" if self._identity is None or self._identity.id is None else repr(self._identity.id)
        return f"<Client {self} {who}>"

    def __str__(self) -> str:
        return name_of(self.id)

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """What the client sends that is no request, for the function that ``Hub.client`` registered; until it leaves.

        A message is dealt with when the next one is asked for. Raises TypeError where no such function is registered,
        and RuntimeError in a task that asks for one while another does.
        """
        if self._inbox is None:
            raise TypeError(f"client {self} is read in the function that @hub.client registers; none is at work for it")
        return self._inbox

    def _connected(self, event: Connected) -> None:
        """It is there."""
        self.connection_id = event.connection_id
        self.transport = event.transport
        self.hub_protocol = event.hub_protocol
        if event.path is not None:
            self._path = intern(event.path)

    @property
    def identity(self) -> Identity | None:
        """What ``authenticate`` answered; None for an anonymous client."""
        return self._identity

    @property
    def request(self) -> Request:
        """The request that the client connected with: path, query, headers and cookies.

        Kept where something can use it: where ``on_connect``, ``on_disconnect`` or ``authorize`` is registered, or
        ``authenticate`` and a method or ``on_message``. It costs about as much memory as the request's head has bytes,
        twice over, at most ``head_bytes_max``. Of a SignalR client it is its transport's.

        Raises:
            LookupError: nothing that has it kept was registered.
        """
        if self._request is None:
            raise LookupError(
                "requests are kept only where on_connect, on_disconnect, authorize or authenticate is registered"
            )
        return self._request

    @property
    def channels(self) -> list[str]:
        """The channels that the client is subscribed to, now."""
        engine = self._engine()
        return [] if engine is None else engine.channels(self.id)

    def send(self, data: str | bytes | object, *, event: str | None = None) -> None:
        """Send to this client alone, between two publications and never inside one.

        Args:
            event: the name of the SSE event; the target that a SignalR client invokes, ``message`` without.
            data: ``str`` goes out as a text frame, ``bytes`` as a binary frame, anything else as JSON, or as
                MessagePack to a client that speaks it.

        Raises:
            PayloadTooBig: the payload exceeds ``outbox_bytes_max``; nothing was sent.
            UnsupportedType, UnsupportedValue: `data` has no form in the client's format; nothing was sent.
            TypeError, ValueError: no event can have such a name.
            HubStopped: this process is a fork of the one that serves.
        """
        engine = self._engine()
        if engine is not None:
            try:
                engine.send(self.id, data, event)
            except (TypeError, ValueError) as error:
                explain(error, event=event)
                raise

    def _reply(self, text: str) -> None:
        """Answer a call of the raw protocol with JSON text, as it is. Raises what ``send`` raises."""
        engine = self._engine()
        if engine is not None:
            engine.reply(self.id, text)

    def _reply_result(self, id: str, result: object) -> None:
        """Answer a call of the raw protocol whose id, as JSON text, is `id`. Raises what ``send`` raises."""
        engine = self._engine()
        if engine is not None:
            engine.reply(self.id, f'{{"id":{id},"result":{engine.encode_json(result).decode()}}}')

    async def invoke(self, target: str, *arguments: object) -> Any:
        """In the event loop's thread: call a method of a SignalR client and wait for its result.

        Raises:
            CallFailed: the client answered with an error, or has no such method.
            ClientGone: it left before it answered.
            UnsupportedType, UnsupportedValue: an argument has no form in the client's protocol.
            TypeError: the client does not speak SignalR, or `target` is no str.
            RuntimeError: this is another thread.
            HubStopped: the hub does not serve.
        """
        check_text("target", target, "the name of a method of the client, a str")
        if self.connection_id is None:
            raise TypeError(f"client {self} cannot be invoked: it does not speak SignalR")
        if self._gone is not None:
            raise anew(self._gone)
        self._link.require_loop("invoke")
        if self._calls is None:
            self._calls = self._link.calls_of(self)
        return await self._calls.ask(target, arguments)

    def subscribe(
        self,
        channel: str,
        *,
        since: Position | None = None,
        start: str | None = None,
        filter: Mapping[str, object] | None = None,
    ) -> None:
        """Have publications made after this call reach the client; ``authorize`` is not asked. See ``Hub.subscribe``.

        Raises:
            InvalidChannel: no channel can have such a name.
            TypeError, ValueError: there is no such start, or `filter` is none.
            LimitReached: the channel has ``filters_max`` other filters.
            HubStopped: this process is a fork of the one that serves.
        """
        check_channel(channel)
        check_since(since)
        check_start(start)
        read = read_filter("filter", filter)
        engine = self._engine()
        if engine is not None:
            engine.subscribe(self.id, channel, since, start, read)

    def unsubscribe(self, channel: str) -> None:
        """Have publications made after this call no longer reach the client. Raises TypeError, InvalidChannel."""
        check_channel(channel)
        engine = self._engine()
        if engine is not None:
            engine.unsubscribe(self.id, channel)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the close handshake (RFC 6455 §7); what was sent before goes out first.

        Args:
            code: a close code that may be sent: 1000 to 1003, 1007 to 1009, 1011 to 1014, 3000 to
                4999. A SignalR client is told to come back by 1011, 1012 and 1013, and to stay away by the others.
            reason: at most 123 bytes of UTF-8; to a SignalR client it is the error, at most 4,096 bytes.

        Raises:
            TypeError, ValueError: such a code may not be sent, or the reason is no str or too long.
            HubStopped: this process is a fork of the one that serves.
        """
        check_code(code)
        check_reason(reason)
        engine = self._engine()
        if engine is not None:
            engine.disconnect(self.id, code, reason)

    def _note(self, where: str, error: BaseException, text: str, *arguments: object) -> None:
        """Note what a callback for this client raised, as ``Faults.note`` does.

        That it has left, or that serving has ended, is nobody's fault.
        """
        if self._gone is not None and is_leaving(error, type(self._gone)):
            hub_log.debug(text, *arguments, exc_info=error)
        else:
            self._link.faults.note(where, error, text, *arguments)

    def _engine(self) -> Engine | None:
        link = self._link
        if link.is_forked:
            raise HubStopped(link.why)
        return link.engine


def is_leaving(error: BaseException, gone: type[Exception]) -> bool:
    """Whether an exception says only that a client has left, or what `gone` says: that serving has ended."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_leaving(one, gone) for one in error.exceptions)
    return isinstance(error, (ClientGone, gone))


class Inbox:
    """Hands each message over as it is asked for; in the event loop's thread.

    Nothing piles up here: who offers a message waits until the next one is asked for, and so does the client.
    """

    __slots__ = ("_arrived", "_is_over", "_message", "_passed")

    def __init__(self) -> None:
        self._message: str | bytes | None = None
        self._arrived = Arrivals("the client")
        # The message that was offered last is dealt with.
        self._passed = anyio.Event()
        self._is_over = False

    async def offer(self, message: str | bytes) -> None:
        """Return when it was dealt with, or nobody reads any more; one at a time."""
        if self._is_over:
            return
        self._message = message
        self._passed = anyio.Event()
        self._arrived.come()
        await self._passed.wait()

    def end(self) -> None:
        """No more comes, or nobody reads. A message that was offered is still given out."""
        self._is_over = True
        self._arrived.come()
        self._passed.set()

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> str | bytes:
        self._passed.set()
        while self._message is None:
            if self._is_over:
                raise StopAsyncIteration
            await self._arrived.wait()
        message, self._message = self._message, None
        return message
