"""The hub: what the application registers, serves with and publishes to. ✗ bytes of any protocol ✗ event loops.

Who may do what where: ``serve`` lives in one task of one event loop, and callbacks run there. ``publish`` and the other
verbs may be called from any thread at any time; before and after serving they raise HubStopped.
"""

import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from threading import get_ident
from typing import Any, NoReturn, Unpack

import anyio
from anyio.lowlevel import checkpoint

from fanwire._engine import Position, Stats
from fanwire._loop import Interrupt, background_tasks, ends_task, run, watch_signals
from fanwire.addresses import address_of
from fanwire.auth import Identity
from fanwire.channel import Channel
from fanwire.client import Client, Link
from fanwire.deliveries import Delivery
from fanwire.errors import HubStopped
from fanwire.logs import hub_log
from fanwire.options import OWN, Options, check_options
from fanwire.presence import check_channels
from fanwire.registering import Registering
from fanwire.relay.stats import RelayStats
from fanwire.serving import STOPPED, Life, Serving, plan

NOT_STARTED = "the hub is not serving yet: publish inside `async with hub.serve(...)`, or after `await hub.start(...)`"


class Hub(Registering):
    """A WebSocket and SSE server of channels; Python decides, the Rust engine owns the sockets.

    Args:
        channels: patterns of channel names and what such a channel promises; the first match wins, and a channel that
            matches none, or was never named, has the defaults of ``Channel``.
        options: defaults for ``serve``, see ``fanwire.options.Options``.

    Raises:
        TypeError, ValueError: a bad pattern, bound or option.
    """

    def __init__(self, channels: Mapping[str, Channel] | None = None, **options: Unpack[Options]) -> None:
        self._options = check_options(options)
        super().__init__(self._options.get("signalr_paths", OWN["signalr_paths"]))
        self._channels = check_channels(channels)
        self._life: Life | None = None
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
        self._roster: Callable[[str | None], list[Client]]
        self._delivered: Callable[[Position, float], Awaitable[Delivery]]
        self._engine_flush: Callable[[], None]
        self._unlink(NOT_STARTED)
        _hubs.add(self)

    def __repr__(self) -> str:
        serving = f"serving on {self._life.serving.address}" if self._is_serving and self._life else "not serving"
        counts = {
            "channel pattern": len(self._channels),
            "endpoint": len(self._callbacks.endpoints),
            "relay": len(self._relays),
        }
        parts = [f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items() if count]
        return f"<fanwire.Hub {', '.join([serving, *parts])}>"

    # Serving

    async def start(self, address: str | int, *, shards: int = 1, **options: Unpack[Options]) -> Serving:
        """Begin to serve on `address`; returns ready, the port bound. ``stop`` ends it, from any task of this loop.

        For fixtures and hooks of frameworks, whose setup and teardown may be different tasks; ``serve`` is both as one
        context. The callbacks run in tasks that belong to the loop. Stopped, the hub may serve again (as a new life:
        positions start anew).

        Args:
            address: ``HOST:PORT`` (port 0: any free one), ``[V6]:PORT`` or ``unix:PATH``; a port alone is on
                127.0.0.1, and ``:PORT`` on all addresses.
            shards: threads that own the connections, > 0.
            options: as for ``Hub(...)``, whose values they replace.

        Raises:
            ListenFailed: the address cannot be had.
            RuntimeError: the hub is serving already, or in the process of which this one is a fork.
            TypeError, ValueError: a bad address or option.
        """
        return await self._begin(address, shards, options)

    async def stop(self) -> None:
        """End what ``start`` began: close every client with ``drain_code`` and wait until all is over.

        Clients get ``drain_timeout`` to answer the close. Callbacks that are then still at work are cancelled, the
        caller as well if it is one. Afterwards no thread, task or descriptor is left. Cancelled, it no longer waits for
        clients, and the serving ends by itself. Does nothing where nothing is served.

        Raises:
            What ended the serving before it was asked to, once.
            RuntimeError: this is not the thread of the event loop that serves; see ``stop_soon``.
        """
        life = self._life
        if life is None:
            return
        if get_ident() != life.loop.thread and not life.is_over:
            raise RuntimeError("stop is for the event loop that serves; another thread calls stop_soon")
        try:
            await life.end()
        finally:
            self._forget(life)

    def stop_soon(self) -> None:
        """Have the serving end as ``stop`` does; any thread, callbacks as well. Returns at once; ``run`` ends, too."""
        life = self._life
        if life is not None:
            life.end_soon()

    @asynccontextmanager
    async def serve(self, address: str | int, *, shards: int = 1, **options: Unpack[Options]) -> AsyncIterator[Serving]:
        """Serve on `address` for as long as the context lasts: ``start`` and ``stop`` as one.

        At its end every client is closed with ``drain_code`` and gets ``drain_timeout`` to answer; ended by
        cancellation or an exception it is at most a second. What ends the serving itself, such as an engine's thread
        that fails, ends the context with that error.

        Arguments and errors are those of ``start``.
        """
        serving = await self._begin(address, shards, options)
        life = self._life
        assert life is not None
        try:
            with Interrupt() as life.interrupt:
                yield serving
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await life.leave(is_hurried=True)
            raise
        except BaseException:
            await life.leave(is_hurried=True)
            raise
        else:
            await life.leave()
        finally:
            self._forget(life)

    async def _begin(self, address: str | int, shards: int, options: Mapping[str, Any]) -> Serving:
        options = {**self._options, **check_options(options)}
        address = address_of(address)
        planned = plan(self._callbacks, self._channels, self._relays, shards, options)
        await checkpoint()
        with self._serve_lock:
            if self._is_serving:
                raise RuntimeError(self._link.why or "the hub is serving already")
            self._is_serving = True
        try:
            self._main_path = planned.main_path
            life = Life(planned, self._linked, partial(self._unlink, STOPPED), self._ended)
        except BaseException:
            self._is_serving = False
            raise
        await life.begin(address)
        return life.serving

    def run(self, address: str | int, *, shards: int = 1, **options: Unpack[Options]) -> None:
        """Serve until SIGINT, SIGTERM or ``stop_soon``, under uvloop where it can be imported.

        A signal closes every client with 1001 and returns once they are gone or ``drain_timeout`` is over; a second
        one does not wait. In a thread that is not the program's main one there are no signals: ``stop_soon`` ends it.
        Arguments and errors are those of ``start``.
        """

        async def main() -> None:
            ending = anyio.Event()
            async with background_tasks() as tasks:
                if threading.current_thread() is threading.main_thread():
                    await tasks.start(watch_signals, ending.set, tasks.cancel_scope.cancel)
                async with self.serve(address, shards=shards, **options) as serving:
                    hub_log.info("serving on %s with %s", serving.address, serving.poller)
                    tasks.start_soon(self._tell_of_end, ending)
                    await ending.wait()
                    hub_log.info("draining")

        run(main)

    async def _tell_of_end(self, ending: anyio.Event) -> None:
        if self._life is not None:
            await self._life.wait_asked()  # by the one that serves now
        ending.set()

    def _linked(self, life: Life) -> None:
        self._life = life
        self._link = life.link
        self._publish = life.engine.publish
        self._engine_flush = life.engine.flush
        self._call_soon = life.loop.call_soon
        self._is_flush_due = False
        self._thread = life.loop.thread
        self._relay_stats = life.pump.relay_stats
        self._members = life.pump.presences.members
        self._roster = _unknown
        if self._callbacks.know_clients:
            self._roster = life.pump.roster.clients
        self._delivered = life.pump.deliveries.wait

    def _forget(self, life: Life) -> None:
        """Whoever ended it has been told all: its engine may go."""
        if self._life is life and life.is_over:
            self._life = None

    def _ended(self) -> None:
        self._is_serving = False

    def _unlink(self, why: str) -> None:
        def refuse(*arguments: object) -> NoReturn:
            raise HubStopped(why)

        self._thread = -1
        self._link = Link(None, why)
        self._publish = refuse
        self._relay_stats = refuse
        self._members = refuse
        self._roster = refuse
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
            data: ``str`` goes out as text, ``bytes`` as binary, anything else as JSON, and as MessagePack for
                subscribers that speak it, encoded once each; copied once, into the log. Of what it may consist and in
                which form it goes out stands in docs/types.md: what msgspec encodes, pydantic models, and whatever
                ``Hub(encode=…)`` knows. Whether it may does not depend on who listens.
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
            UnsupportedType, UnsupportedValue: `data` has no form in one of the hub's ``formats``; with the path.
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
        engine, faults = self._link.engine, self._link.faults
        if engine is not None:
            try:
                engine.flush()
            except BaseException as error:  # the loop calls this: trio would end for it
                if ends_task(error):
                    raise
                faults.note("hub.flush", error, "publications wait for the next ones: the shards were not woken")

    # Single clients, and what is known of all

    def send(self, client: Client, data: str | bytes | object, *, event: str | None = None) -> None:
        """Send to one client alone; see ``Client.send``. Raises HubStopped besides."""
        self._link.require()
        client.send(data, event=event)

    def disconnect(self, client: Client, code: int = 1000, reason: str = "") -> None:
        """Start the close handshake with one client; see ``Client.close``. Raises HubStopped besides."""
        self._link.require()
        client.close(code, reason)

    def clients(self, user: Identity | str | None = None) -> list[Client]:
        """Who is connected now, or as whom `user` is connected, in the order of arrival; any thread.

        Relayed clients are none of them. A user's connections are found in O(1), each costs its place in the list.

        Args:
            user: what ``authenticate`` answered, or its id; None: everybody.

        Raises:
            LookupError: the hub knows its clients only where ``authenticate``, ``authorize``, ``on_connect`` or
                ``on_disconnect`` is registered, and none is.
            HubStopped: the hub does not serve.
        """
        if isinstance(user, Identity):
            if user.id is None:
                raise ValueError("an anonymous identity is no user whose connections could be told")
            user = user.id
        return self._roster(user)

    def disconnect_user(self, user: Identity | str, code: int = 1000, reason: str = "") -> int:
        """Start the close handshake with each connection of a user, as when they sign out; how many there were.

        Those that ``authenticate`` is still asked about are none of them: have it say no from now on, first.

        Raises:
            What ``clients`` and ``Client.close`` raise.
        """
        theirs = self.clients(user)
        for client in theirs:
            client.close(code, reason)
        return len(theirs)

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


def _unknown(user: str | None) -> NoReturn:
    raise LookupError(
        "the hub knows its clients where authenticate, authorize, on_connect or on_disconnect is registered; none is"
    )


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
            hub._life = None  # its loop's wake-up is the parent's, too: nothing here may touch it


os.register_at_fork(after_in_child=_after_fork)
