"""The hub: what the application registers, serves with and publishes to. ✗ bytes of any protocol ✗ event loops.

Who may do what where: ``serve`` lives in one task of one event loop, and callbacks run there. ``publish`` and the other
verbs may be called from any thread at any time; before and after serving they raise HubStopped.
"""

import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any, NoReturn, TypeVar, Unpack, overload

import anyio
from anyio.lowlevel import checkpoint

from fanwire._engine import Engine, Position, Settings, Stats, matches
from fanwire._loop import Callback, Loop, background_tasks, run, watch_signals
from fanwire.auth import Identity
from fanwire.channel import Channel
from fanwire.client import Client, Link
from fanwire.config.paths import dotted
from fanwire.deliveries import Delivery
from fanwire.endpoint import Endpoint
from fanwire.errors import HubStopped
from fanwire.logs import hub_log
from fanwire.methods import Methods
from fanwire.options import HANDSHAKE_TIMEOUT_S, OWN, Options, check_options, check_paths
from fanwire.presence import presence_patterns, rules_of
from fanwire.pump import PRESENCE_INTERVAL_S, Callbacks, Pump
from fanwire.relay.config import RelayConfig
from fanwire.relay.stats import RelayStats
from fanwire.snapshots import SnapshotRule, check_snapshot

F = TypeVar("F", bound=Callable[..., Any])

NOT_STARTED = "the hub is not serving yet: publish inside `async with hub.serve(...)`"
STOPPED = "the hub was stopped: its `async with hub.serve(...)` has ended"
RELAY_OUTBOX_BYTES_MAX = 2 << 20
"""With a relay: a backend's largest message and what may wait before it; see ``outbox_bytes_max``."""
HURRIED_DRAIN_S = 1.0
"""How long clients get to answer the close when serving ends by cancellation or an exception, at most."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What ``async with hub.serve(...)`` gives."""

    address: str
    """Where the hub listens, as bound: with the port that the kernel chose where 0 was asked for."""
    poller: str
    """``epoll`` or ``uring``."""


class Hub:
    """A WebSocket and SSE server of channels; Python decides, the Rust engine owns the sockets.

    Args:
        channels: patterns of channel names and what such a channel promises; the first match wins, and a channel that
            matches none, or was never named, has the defaults of ``Channel``.
        options: defaults for ``serve``, see ``fanwire.options.Options``.

    Raises:
        TypeError, ValueError: a bad pattern, bound or option.
    """

    def __init__(self, channels: Mapping[str, Channel] | None = None, **options: Unpack[Options]) -> None:
        check_options(options)
        self._options = options
        self._channels = dict(channels or {})
        self._rules = rules_of(self._channels)
        self._callbacks = Callbacks()
        self._relays: list[RelayConfig] = []
        self._is_serving = False
        # Guards _is_serving: two threads may try to serve the same hub.
        self._serve_lock = threading.Lock()
        # What publish needs, bound once by serve; without an engine _publish is what raises HubStopped.
        self._thread = -1
        self._call_soon: Callable[[Callable[[], object]], object] = _nowhere
        self._is_flush_due = False
        self._main_path = ""
        self._publish: Callable[..., Position]
        self._relay_stats: Callable[[], list[RelayStats]]
        self._members: Callable[[str], list[str]]
        self._delivered: Callable[[Position, float], Awaitable[Delivery]]
        self._engine_flush: Callable[[], None]
        self._unlink(NOT_STARTED)
        _hubs.add(self)

    # Registering callbacks

    def authenticate(self, function: F) -> F:
        """Have `function(request)` say who connects, once for each connection; sync or async; for use as a decorator.

        It returns ``Identity``, a ``str`` (its id) or None for an anonymous client, or raises
        ``Refused(reason, status=401)``. Another exception is logged and answered with 500. A connection is accepted
        only afterwards; at most ``openings_max`` async calls are at work at once.
        """
        self._may_register("authenticate", self._callbacks.authenticate)
        self._callbacks.authenticate = Callback(function)
        return function

    def authorize(self, function: F) -> F:
        """Have `function(client, channel) -> bool` allow each subscription that a client asks for; sync or async.

        Channels of the query are asked about before the connection is accepted: one denial refuses it with 403.
        A later denial is answered with an error, and the client's other channels stay. ``Hub.subscribe`` does not ask.
        """
        self._may_register("authorize", self._callbacks.authorize)
        self._callbacks.authorize = Callback(function)
        return function

    def on_connect(self, function: F) -> F:
        """Have `function(client)` hear of each client once it is connected, before its first message; sync or async.

        Of a SignalR client that is after its handshake. What the client sends waits until it returns. If it raises, the
        client is turned away: with 1008 and the text of a ``Refused``, ``CallFailed`` or ``HubError``, else with 1011;
        a SignalR client with a Close message.
        """
        self._may_register("on_connect", self._callbacks.on_connect)
        self._callbacks.on_connect = Callback(function)
        return function

    def on_disconnect(self, function: F) -> F:
        """Have `function(client, gone)` hear of the end of each connected client, once and last; sync or async.

        `gone` is a ``ClientGone``: by whom, with which close code and reason. Not called for a client that
        ``on_connect`` turned away, nor for those that are still there when ``drain_timeout`` is over.
        """
        self._may_register("on_disconnect", self._callbacks.on_disconnect)
        self._callbacks.on_disconnect = Callback(function)
        return function

    def on_message(self, function: F) -> F:
        """Have `function(client, data)` take what else a client of the raw protocol sends; sync or async.

        One client's messages come one after another, in order. Without it such messages are dropped. If it raises, that
        is logged and the client told ``{"error":"internal error"}``, or what a ``CallFailed`` or ``Refused`` says.
        """
        self._may_register("on_message", self._callbacks.on_message)
        self._callbacks.on_message = Callback(function)
        return function

    def on_presence(self, function: F) -> F:
        """Have `function(change)`, a ``PresenceChange``, hear who came to channels with ``presence`` and who went.

        Sync or async; changes of a quarter of a second come together, a channel's in their order.
        """
        self._may_register("on_presence", self._callbacks.on_presence)
        self._callbacks.on_presence = Callback(function)
        return function

    def snapshot(
        self, pattern: str, *, interval: float = 1.0, timeout: float = 5.0, event: str | None = None
    ) -> Callable[[F], F]:
        """Have `function(channel)` give the state of a channel that matches `pattern`, for new subscribers alone.

        Asked at most once in `interval` seconds a channel, however many join: they wait for what it returns, begin with
        that, as an `event`, and get what was published after it. If it returns None, raises or takes longer than
        `timeout` seconds, they begin live and are told so. Sync or async; a sync one sees the state at its place in
        the log. For those whose ``start`` is ``keyframe``; the first pattern that matches counts.
        """
        check_snapshot(interval, timeout)
        matches(pattern, "")  # raises InvalidChannel for a pattern that cannot be one
        self._may_register(f"snapshot of {pattern!r}")

        def register(function: F) -> F:
            rule = SnapshotRule(pattern, Callback(function), interval, timeout, event)
            self._callbacks.snapshots.append(rule)
            return function

        return register

    @overload
    def method(self, name: F) -> F: ...
    @overload
    def method(self, name: str) -> Callable[[F], F]: ...
    def method(self, name: Any) -> Any:
        """Let clients call `function(client, *args)` as `name` (bare: as the function's own name); sync or async.

        Arguments are read as the annotations say, and a call whose arguments are wrong is an error. What the function
        returns is the reply. ``HubError``, ``CallFailed`` and ``Refused`` are answered with their text; another
        exception is logged, and the client told that there was one. To SignalR clients an async generator is a stream,
        and a parameter annotated ``AsyncIterator[T]`` takes a stream of theirs.
        """
        return Endpoint("", self._callbacks.methods, self._may_register).method(name)

    def endpoint(self, path: str) -> Endpoint:
        """Another SignalR hub, at `path`, with methods of its own; channels, callbacks and options are this hub's."""
        self._may_register(f"endpoint {path!r}", self._callbacks.endpoints.get(path))
        methods = self._callbacks.endpoints[path] = Methods()
        return Endpoint(path, methods, self._may_register)

    def relay(self, config: RelayConfig) -> None:
        """Relay the clients of ``config.path`` to a backend; see ``fanwire.relay``. Before the hub serves.

        Who may connect there is the backend's to say; this hub's callbacks are not asked about them. Raises ValueError
        for what is wrong between the fields, and for a path that is taken.
        """
        for path, message in config.faults():
            raise ValueError(f"relay {config.path}: {dotted(path)} {message}")
        is_taken = config.path.casefold() in {path.casefold() for path in self._callbacks.endpoints}
        is_taken |= any(config.meets(relay) for relay in self._relays)
        self._may_register(f"a hub at {config.path!r}", config if is_taken else None)
        self._relays.append(config)

    def _may_register(self, what: str, before: object = None) -> None:
        if self._is_serving:
            raise RuntimeError(f"{what} must be registered before the hub serves")
        if before is not None:
            raise ValueError(f"{what} is registered already")

    # Serving

    @asynccontextmanager
    async def serve(self, address: str, *, shards: int = 1, **options: Unpack[Options]) -> AsyncIterator[Serving]:
        """Serve on `address` for as long as the context lasts; ready, the port bound, when it is entered.

        At its end every client is closed with ``drain_code`` and gets ``drain_timeout`` to answer; ended by
        cancellation or an exception it is at most a second. Callbacks that are then still at work are cancelled.
        Afterwards no thread, task or descriptor is left, and the hub may serve again (as a new life: positions start
        anew).

        Args:
            address: ``HOST:PORT`` (port 0: any free one), ``[V6]:PORT`` or ``unix:PATH``.
            shards: threads that own the connections, > 0.
            options: as for ``Hub(...)``, whose values they replace.

        Raises:
            ListenFailed: the address cannot be had.
            RuntimeError: the hub is serving already, or in the process of which this one is a fork.
            TypeError, ValueError: a bad option.
        """
        check_options(options)
        merged: dict[str, Any] = {**OWN, **self._options, **options}
        own = {name: merged.pop(name) for name in OWN}
        own["handshake_timeout"] = merged.setdefault("handshake_timeout", HANDSHAKE_TIMEOUT_S)
        own["signalr_paths"] = [*own["signalr_paths"], *self._callbacks.endpoints]
        self._main_path = next(iter(own["signalr_paths"]), "")
        check_paths(own["signalr_paths"])
        hubs = len(own["signalr_paths"])
        own["signalr_paths"] += [relay.path for relay in self._relays if relay.protocol == "signalr"]
        if self._relays:
            merged.setdefault("outbox_bytes_max", RELAY_OUTBOX_BYTES_MAX)
        if merged.get("poller") is None:
            merged["poller"] = os.environ.get("FANWIRE_POLLER") or None
        settings = Settings(
            shards=shards,
            channels=self._rules,
            snapshots=[
                *((pattern, PRESENCE_INTERVAL_S) for pattern in presence_patterns(self._channels)),
                *((rule.pattern, rule.interval) for rule in self._callbacks.snapshots),
            ],
            ask_opening=bool(self._callbacks.authenticate or self._callbacks.authorize or self._relays),
            ask_subscribing=self._callbacks.authorize is not None,
            tell_connected=bool(self._callbacks.on_connect or self._callbacks.on_disconnect or self._relays),
            signalr_paths=own["signalr_paths"],
            **merged,
        ).relaying(
            range(hubs, len(own["signalr_paths"])),
            [relay.path for relay in self._relays if relay.protocol == "websocket"],
        )
        await checkpoint()
        with self._serve_lock:
            if self._is_serving:
                raise RuntimeError(self._link.why or "the hub is serving already")
            self._is_serving = True
        try:
            engine = Engine(settings)
            link = Link(engine)
            try:
                engine.start()
                bound = engine.listen(address)
                async with self._pumping(link, **own):
                    yield Serving(bound, engine.stats().poller)
            finally:
                self._unlink(STOPPED)
                link.end(STOPPED)
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(engine.stop)
        finally:
            self._is_serving = False

    @asynccontextmanager
    async def _pumping(
        self, link: Link, *, drain_timeout: float, drain_spread: float, drain_code: int, **options: Any
    ) -> AsyncIterator[None]:
        """Deal with the engine's events while the context lasts, then drain it."""
        engine = link.require()
        async with background_tasks() as tasks:
            loop = Loop()
            pump = Pump(link, self._callbacks, loop, tasks, relays=self._relays, channels=self._channels, **options)
            tasks.start_soon(pump.run)
            self._link_to(link, engine, loop)
            self._relay_stats = pump.relay_stats
            self._members = pump.presences.members
            self._delivered = pump.deliveries.wait
            hurry = min(drain_timeout, HURRIED_DRAIN_S)
            try:
                yield
            except anyio.get_cancelled_exc_class():
                await _drain(engine, pump, drain_code, hurry, shield=True)
                raise
            except BaseException:
                await _drain(engine, pump, drain_code, hurry)
                raise
            else:
                await _drain(engine, pump, drain_code, drain_timeout, drain_spread)
            finally:
                pump.end(HubStopped(STOPPED))

    def run(self, address: str, *, shards: int = 1, **options: Unpack[Options]) -> None:
        """Serve until SIGINT or SIGTERM, under uvloop where it can be imported; for the main thread of a program.

        The signal closes every client with 1001 and returns once they are gone or ``drain_timeout`` is over; a second
        one does not wait. Arguments and errors are those of ``serve``.
        """

        async def main() -> None:
            signalled = anyio.Event()
            async with background_tasks() as tasks:
                await tasks.start(watch_signals, signalled.set, tasks.cancel_scope.cancel)
                async with self.serve(address, shards=shards, **options) as serving:
                    hub_log.info("serving on %s with %s", serving.address, serving.poller)
                    await signalled.wait()
                    hub_log.info("draining")

        run(main)

    def _link_to(self, link: Link, engine: Engine, loop: Loop) -> None:
        self._link = link
        self._publish = engine.publish
        self._engine_flush = engine.flush
        self._call_soon = loop.call_soon
        self._is_flush_due = False
        self._thread = loop.thread

    def _unlink(self, why: str) -> None:
        def refuse(*arguments: object) -> NoReturn:
            raise HubStopped(why)

        self._thread = -1
        self._link = Link(None, why)
        self._publish = refuse
        self._relay_stats = refuse
        self._members = refuse
        self._delivered = refuse
        self._engine_flush = refuse

    # Publishing

    def publish(
        self,
        channel: str,
        data: str | bytes | object,
        *,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        keyframe: bool = False,
        exclude: Client | Iterable[Client] = (),
    ) -> Position:
        """Append one publication to a channel's log and wake the shards that watch it.

        Never waits; O(1) in subscribers; any thread. Two calls from one thread for one channel reach its subscribers in
        that order; of several channels each keeps its own.
        In the event loop's own thread the shards are woken when the loop turns, so that what is published back to back
        goes out as one write for each socket.

        Args:
            channel: 1 to 255 bytes of UTF-8, no control characters.
            data: ``str`` goes out as text, ``bytes`` as binary, anything else as JSON, and as
                MessagePack for subscribers that speak it, encoded once each; copied once, into the log.
            event: the name of the SSE event.
            key: the conflation key, at most 255 bytes of UTF-8; only policy ``latest`` looks at it.
            ttl: seconds, > 0; a subscriber not yet written to after that skips it.
            keyframe: new subscribers begin here, while it is kept: it and what follows, within the channel's backlog.
            exclude: subscribers that it is not for.

        Returns:
            Its place in the channel's log.

        Raises:
            InvalidChannel: no channel can have such a name.
            PayloadTooBig: the payload exceeds ``publication_bytes_max``; carries both numbers.
            UnsupportedType, UnsupportedValue: `data` has no form in one of the formats in use.
            LimitReached: there are ``channels_max`` channels already, or ``unsent_bytes_max`` wait for the shards.
            HubStopped: the hub does not serve, or no longer, or this process is a fork of the one that does.
        """
        excluded = _ids(exclude) if exclude else ()
        if get_ident() != self._thread:
            return self._publish(channel, data, event, key, ttl, False, excluded, keyframe)
        position = self._publish(channel, data, event, key, ttl, True, excluded, keyframe)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._call_soon(self._flush)
        return position

    def publish_many(
        self,
        channel: str,
        items: Iterable[str | bytes | object],
        *,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
    ) -> list[Position]:
        """Publish each of `items` as ``publish`` does, and wake the shards once: one write for each socket.

        Args:
            items: the data of each publication, in order; the other arguments are those of ``publish``, for each.

        Returns:
            The position of each, in the order of `items`.

        Raises:
            What ``publish`` raises, with a note that tells the item's index; those before it are published.
        """
        publish = self._publish
        positions: list[Position] = []
        try:
            for item in items:
                positions.append(publish(channel, item, event, key, ttl, True))
        except Exception as error:
            error.add_note(f"raised by item {len(positions)} of publish_many; those before it are published")
            raise
        finally:
            if positions:
                self._engine_flush()
        return positions

    def publish_to_user(
        self,
        identity: Identity | str,
        data: str | bytes | object,
        *,
        event: str | None = None,
        ttl: float | None = None,
    ) -> Position:
        """Publish to every connection that was accepted as this user's, as ``publish`` does to a channel's subscribers.

        Args:
            identity: what ``authenticate`` answered, or its id.
        """
        user = identity if isinstance(identity, str) else identity.id
        if user is None:
            raise ValueError("an anonymous identity has no connections to publish to")
        return self._link.require().publish_to_user(user, data, event, ttl)

    def publish_to_all(
        self,
        data: str | bytes | object,
        *,
        event: str | None = None,
        ttl: float | None = None,
        path: str | None = None,
        exclude: Client | Iterable[Client] = (),
    ) -> Position:
        """Publish to every SignalR client of one hub, as ``publish`` does to a channel's subscribers.

        Args:
            path: that hub's; by default the first of ``signalr_paths``.
        """
        engine = self._link.require()
        return engine.publish_to_hub(self._main_path if path is None else path, data, event, ttl, False, _ids(exclude))

    def _flush(self) -> None:
        self._is_flush_due = False
        engine = self._link.engine
        if engine is not None:
            engine.flush()

    # Single clients, and what is known of all

    def send(self, client: Client, data: str | bytes | object, *, event: str | None = None) -> None:
        """Send to one client alone; see ``Client.send``. Raises HubStopped besides."""
        self._link.require()
        client.send(data, event=event)

    def disconnect(self, client: Client, code: int = 1000, reason: str = "") -> None:
        """Start the close handshake with one client; see ``Client.close``. Raises HubStopped besides."""
        self._link.require()
        client.close(code, reason)

    def subscribe(
        self, client: Client, channel: str, *, since: Position | None = None, start: str | None = None
    ) -> None:
        """Have publications made after this call reach the client; ``authorize`` is not asked.

        Args:
            since: the last publication that it had: it gets what it missed; if that is lost, it begins at `start`.
            start: ``live``, ``keyframe`` or ``history``; None is as the channel has it.

        Raises:
            InvalidChannel: no channel can have such a name.
            ValueError: there is no such start.
            HubStopped: the hub does not serve.
        """
        engine = self._link.require()
        if client._link is self._link:
            engine.subscribe(client.id, channel, since, start)

    def unsubscribe(self, client: Client, channel: str) -> None:
        """Have publications made after this call no longer reach the client. Raises HubStopped."""
        engine = self._link.require()
        if client._link is self._link:
            engine.unsubscribe(client.id, channel)

    def occupancy(self, channel: str) -> int:
        """How many connections are subscribed to `channel`, now. Raises HubStopped."""
        return self._link.require().occupancy(channel)

    def presence(self, channel: str) -> list[str]:
        """Ids of the users who are subscribed to a channel with ``presence``, or left it just now; sorted.

        In the event loop's thread. Raises HubStopped.
        """
        return self._members(channel)

    async def delivered(self, position: Position, fraction: float = 0.99) -> Delivery:
        """Wait until so many of a channel's subscribers have a publication, or went past it; in the loop's own thread.

        Args:
            position: what ``publish`` returned.
            fraction: of the subscribers, > 0 and <= 1.

        Returns:
            How far it has come then; all zero where nobody subscribes, or the channel is gone.

        Raises:
            ValueError: `fraction` is out of range, or nothing was published at `position` yet.
            LimitReached: 1,024 are waited for already.
            HubStopped: the hub does not serve, or no longer.
        """
        return await self._delivered(position, fraction)

    def stats(self) -> Stats:
        """The engine's counters since the start of serving, and gauges of now. Raises HubStopped."""
        return self._link.require().stats()

    def relay_stats(self) -> list[RelayStats]:
        """How each relay stands, now; in the event loop's thread. Raises HubStopped."""
        return self._relay_stats()


def _ids(clients: Client | Iterable[Client]) -> list[int]:
    return [client.id for client in ((clients,) if isinstance(clients, Client) else clients)]


async def _drain(
    engine: Engine, pump: Pump, code: int, timeout: float, spread: float = 0.0, *, shield: bool = False
) -> None:
    """Close every connection, over `spread` seconds; returns when none is left and all are told of.

    Or, if that takes longer, `timeout` seconds after the last was closed.
    """
    engine.drain(code, "", spread)
    pause = 0.001
    with anyio.move_on_after(spread + timeout, shield=shield):
        while engine.stats().connections or pump.is_parting:
            await anyio.sleep(pause)
            pause = min(pause * 2, 0.05)


def _nowhere(function: Callable[[], object]) -> NoReturn:
    raise AssertionError("no loop serves this hub")


_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()
"""Those of this process, for _after_fork."""


def _after_fork() -> None:
    """The engine's threads stayed in the parent: what the child inherited refuses, and says what to do."""
    for hub in _hubs:
        if hub._is_serving:
            why = (
                f"this hub serves in process {os.getppid()}, of which this one is a fork; "
                "make a new Hub here, or publish through the other process"
            )
            hub._link.end(why, is_forked=True)
            hub._unlink(why)


os.register_at_fork(after_in_child=_after_fork)
