"""The publishing half of a ``Hub``: what goes to channels, users and clients, and what is known of them.

``Hub`` binds what these calls need when a serving begins. Without one ``_publish`` and its like raise HubStopped.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from threading import get_ident
from typing import NoReturn

from fanwire import to
from fanwire._engine import Engine, Position, Publication, Stats, matches
from fanwire._loop import ends_task
from fanwire.across import Across
from fanwire.auth import Identity
from fanwire.calls import (
    check_channel,
    check_code,
    check_event,
    check_fraction,
    check_items,
    check_key,
    check_keyframe,
    check_position,
    check_reason,
    check_since,
    check_start,
    check_tags,
    check_text,
    check_ttl,
    explain,
    read_filter,
    wrong,
)
from fanwire.client import Client, Link
from fanwire.deliveries import Delivery
from fanwire.hearing import Listeners, Listening
from fanwire.options import signalr_key
from fanwire.registering import Registering
from fanwire.relay.stats import RelayStats
from fanwire.to import Target, ToAll, ToClient, ToUser, user_id
from fanwire.workers.stats import StatsOfAll

NOBODY: tuple[()] = ()
"""Whom a publication is not for, where nothing is said."""
PRIVATE = Publication()
"""What publishing to one client gives."""


class Publishing(Registering):
    """The calls of a hub that serves, in any thread but where the first words are: in the event loop's thread."""

    def __init__(self, own_paths: Sequence[str]) -> None:
        super().__init__(own_paths)
        self._link: Link
        self._thread = -1
        self._call_soon: Callable[[Callable[[], object]], object] = _nowhere
        self._is_flush_due = False
        self._publish: Callable[..., Publication]
        self._relay_stats: Callable[[], list[RelayStats]]
        self._members: Callable[[str], list[str]]
        self._listeners: Callable[[], Listeners]
        self._roster: Callable[[str | None], list[Client]]
        self._delivered: Callable[[Position, float], Awaitable[Delivery]]
        self._occupancy: Callable[[str], int]
        self._across: Callable[[], Across]
        self._engine_flush: Callable[[], None]

    # Publishing

    def publish(
        self,
        channel: str | Target,
        data: str | bytes | object,
        *,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        keyframe: bool = False,
        tags: Mapping[str, str | int | float | bool] | None = None,
        exclude: Client | Iterable[Client] = NOBODY,
    ) -> Publication:
        """Append one publication to a log, that of a channel or of another target, and wake the shards that watch it.

        Never waits; O(1) in subscribers; any thread. Two calls from one thread for one channel reach its subscribers in
        that order; of several channels each keeps its own.
        In the event loop's own thread the shards are woken when the loop turns. So what is published back to back goes
        out as one write for each socket.

        Args:
            channel: 1 to 255 bytes of UTF-8, no control characters and no ``*``; or one of ``fanwire.to``: a user, all
                clients of a SignalR path, one client.
            data: ``str`` goes out as text, ``bytes`` as binary, anything else as JSON, and as MessagePack for
                subscribers that speak it, encoded once each; copied once, into the log. Of what it may consist and in
                which form it goes out stands in docs/types.md: what msgspec encodes, pydantic models, and whatever
                ``Hub(encode=…)`` knows. Whether it may does not depend on who listens.
            event: a name without line breaks. It is the ``event:`` of Server-Sent Events, the target of a SignalR
                invocation (``message`` where there is none), and ``"event"`` in an envelope; a raw frame is the data
                alone, and does not tell it.
            key: the conflation key, at most 255 bytes of UTF-8; only policy ``latest`` looks at it.
            ttl: seconds, > 0; a subscriber not yet written to after that skips it.
            keyframe: new subscribers begin here, while it is kept: it and what follows, within the channel's backlog.
            tags: what filters of subscriptions look at (docs/filters.md): at most 16, each a str, a number or a bool.
            exclude: subscribers that it is not for.

        Returns:
            Its place in the log: ``publication.position``, or ``await publication``; and it is itself that position,
            wherever one is taken. What went to one client has none.

        Raises:
            InvalidChannel: no channel can have such a name.
            PayloadTooBig: the payload exceeds ``publication_bytes_max``, or to one client ``outbox_bytes_max``; carries
                both numbers.
            UnsupportedType, UnsupportedValue: `data` has no form in one of the hub's ``formats``; with the path.
            LimitReached: there are ``channels_max`` channels already, or ``unsent_bytes_max`` wait for the shards.
            LookupError: to a user, and no ``authenticate`` is registered, so that no connection is any user's.
            TypeError, ValueError: another argument is not what it may be, or means nothing for such a target: a `key`,
                a `keyframe`, and to one client a `ttl` and an `exclude`. It is named.
            HubStopped: the hub does not serve, or no longer, or this process is a fork of the one that does.
        """
        excluded = NOBODY if exclude is NOBODY else self._ids(exclude)
        try:
            # `require` raises where the loop is closed.
            is_in_loop = get_ident() == self._thread or not self._link.require()
            publication = self._publish(channel, data, event, key, ttl, is_in_loop, excluded, keyframe, tags)
        except (TypeError, ValueError) as error:
            if not isinstance(channel, Target):  # the engine takes none; asked before, it would cost every channel 3 %
                explain(error, channel=channel, event=event, key=key, ttl=ttl, keyframe=keyframe, tags=tags)
                raise
        else:
            if is_in_loop and not self._is_flush_due:
                self._is_flush_due = True
                try:
                    self._call_soon(self._flush)
                except RuntimeError:
                    self._lose_loop()
                    raise
            return publication
        channel.check(key, ttl, keyframe, excluded, tags)
        return self._publish_to(channel, data, event, ttl, excluded)

    def _publish_to(
        self, target: Target, data: object, event: str | None, ttl: float | None, excluded: Sequence[int]
    ) -> Publication:
        try:
            return self._way_to(target, event, ttl, excluded)(data)
        except (TypeError, ValueError) as error:
            explain(error, event=event, ttl=ttl)
            raise

    def _way_to(
        self, target: Target, event: str | None, ttl: float | None, excluded: Sequence[int]
    ) -> Callable[..., Publication]:
        """What publishes to `target` each data that it is given, and with ``deferred=True`` wakes no shard."""
        engine = self._link.require()
        match target:
            case ToUser(user):
                if self._callbacks.authenticate is None:
                    told = "reaches connections by what authenticate answered; none is registered"
                    raise LookupError(f"to.user {told}")
                return partial(engine.publish_to_user, user, event=event, ttl=ttl, excluded=excluded)
            case ToAll(path):
                return partial(engine.publish_to_hub, self._path(path), event=event, ttl=ttl, excluded=excluded)
            case ToClient(client):
                is_here = self._engine_of(client) is not None

                def send(data: object, *, deferred: bool = False) -> Publication:
                    if is_here:
                        client.send(data, event=event)
                    return PRIVATE

                return send
        raise AssertionError(target)  # there is no other

    def publish_many(
        self,
        channel: str | Target,
        items: Iterable[str | bytes | object],
        *,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        keyframe: bool = False,
        tags: Mapping[str, str | int | float | bool] | None = None,
        exclude: Client | Iterable[Client] = NOBODY,
    ) -> list[Publication]:
        """Publish each of `items` as ``publish`` does, and wake the shards once: one write for each socket.

        Args:
            channel: as for ``publish``, or another target.
            items: the data of each publication, in order; the other arguments are those of ``publish``, for each.

        Returns:
            What ``publish`` returns for each, in the order of `items`.

        Raises:
            What ``publish`` raises, with a note that tells the item's index; those before it are published.
            TypeError: `items` is one thing, such as a str, and nothing is published.
        """
        check_items(items)
        excluded = NOBODY if exclude is NOBODY else self._ids(exclude)
        if isinstance(channel, Target):
            channel.check(key, ttl, keyframe, excluded, tags)
        else:
            check_channel(channel)
        check_event(event)
        check_key(key)
        check_ttl(ttl)
        check_keyframe(keyframe)
        check_tags(tags)
        if isinstance(channel, Target):
            publish = self._way_to(channel, event, ttl, excluded)
        else:
            self._link.require()
            terms = {"event": event, "key": key, "ttl": ttl, "excluded": excluded, "keyframe": keyframe}
            publish = partial(self._publish, channel, **terms, tags=tags)
        publications: list[Publication] = []
        try:
            for item in items:
                publications.append(publish(item, deferred=True))
        except Exception as error:
            error.add_note(f"raised by item {len(publications)} of publish_many; those before it are published")
            raise
        finally:
            if publications:
                self._engine_flush()
        return publications

    def remove(
        self,
        channel: str,
        *,
        key: str,
        data: str | bytes | object = None,
        event: str | None = None,
        tags: Mapping[str, str | int | float | bool] | None = None,
        exclude: Client | Iterable[Client] = NOBODY,
    ) -> Publication:
        """End a key of a channel of policy ``latest``: what was published with it is no longer kept for anybody.

        Any thread. It is a publication itself, in its place among the others: who watches is told, and so is who lags
        or comes back with a position from before it. Who comes later gets no value of the key, from the history or as a
        keyframe, and neither does who comes back. Publishing the key again begins it anew.

        Args:
            channel: one of policy ``latest``.
            key: which; one that has no value is no error.
            data: what the others are told; None: ``{"removed": key}``.
            event: as for ``publish``, and so is `exclude`.
            tags: who is told, of those with filters; with None all of them are.

        Returns:
            The removal's place in the log.

        Raises:
            ValueError: the channel has another policy, which keeps nothing by key.
            What ``publish`` raises.
        """
        excluded = NOBODY if exclude is NOBODY else self._ids(exclude)
        engine = self._link.require()
        told = {"removed": key} if data is None else data
        try:
            return engine.remove(channel, told, key, event, excluded, tags)
        except (TypeError, ValueError) as error:
            explain(error, channel=channel, event=event, tags=tags)
            if key is None:
                wrong("key", "a str of at most 255 bytes", key)
            explain(error, key=key)
            raise

    def publish_to_user(
        self,
        identity: Identity | str,
        data: str | bytes | object,
        *,
        event: str | None = None,
        ttl: float | None = None,
        exclude: Client | Iterable[Client] = NOBODY,
    ) -> Publication:
        """``publish(to.user(identity), …)``."""
        target = ToUser(user_id("identity", identity))
        return self._publish_to(target, data, event, ttl, NOBODY if exclude is NOBODY else self._ids(exclude))

    def publish_to_all(
        self,
        data: str | bytes | object,
        *,
        event: str | None = None,
        ttl: float | None = None,
        path: str | None = None,
        exclude: Client | Iterable[Client] = NOBODY,
    ) -> Publication:
        """``publish(to.all(path), …)``."""
        target = to.all(path)
        return self._publish_to(target, data, event, ttl, NOBODY if exclude is NOBODY else self._ids(exclude))

    def _path(self, path: str | None) -> str:
        known = list(self._paths.values())
        if not known:
            raise ValueError("to.all reaches nobody: signalr_paths is empty, and there is no endpoint")
        if path is None:
            return known[0]
        found = self._paths.get(signalr_key(path))
        if found is None:
            wrong("path", f"{', '.join(map(repr, known))} or None", path, ValueError)
        return found

    def _ids(self, exclude: Client | Iterable[Client]) -> Sequence[int]:
        """Who is excluded. Clients of another serving are left out: their numbers are other clients' here."""
        must = "a Client or several"
        if isinstance(exclude, str | bytes) or not isinstance(exclude, Client | Iterable):
            wrong("exclude", must, exclude)
        link, ids = self._link, []
        for client in (exclude,) if isinstance(exclude, Client) else exclude:
            if not isinstance(client, Client):
                wrong("exclude", f"{must}, each a Client", client)
            if client._link is link:
                ids.append(client.id)
        return ids

    def _engine_of(self, client: Client) -> Engine | None:
        """The engine, for a client that is one of this serving; None for one of an earlier one, which is gone."""
        if not isinstance(client, Client):
            wrong("client", "a Client", client)
        engine = self._link.require()
        if client._link is self._link:
            return engine
        if client._link.engine is not None:
            raise ValueError(f"client must be one of this hub, not {client}, which is connected to another one")
        return None

    def _lose_loop(self) -> None:
        """The loop does not take what is to run soon. Raises HubStopped where it was closed: serving is over then."""

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
        """``publish(to.client(client), …)``."""
        self._publish_to(to.client(client), data, event, None, NOBODY)

    def disconnect(self, client: Client, code: int = 1000, reason: str = "") -> None:
        """Start the close handshake with one client; see ``Client.close``.

        Raises HubStopped besides, ValueError for another hub's client.
        """
        if self._engine_of(client) is not None:
            client.close(code, reason)

    def clients(self, user: Identity | str | None = None) -> list[Client]:
        """Who is connected now, or as whom `user` is connected, in the order of arrival; any thread.

        Relayed clients are none of them. A user's connections are found in O(1), each costs its place in the list.
        With workers they are those of this one: callbacks run where a client is, and so does what is done with it.

        Args:
            user: what ``authenticate`` answered, or its id; None: everybody.

        Raises:
            LookupError: the hub knows its clients only where ``authenticate``, ``authorize``, ``on_connect`` or
                ``on_disconnect`` is registered, and none is.
            TypeError, ValueError: `user` is neither, or anonymous.
            HubStopped: the hub does not serve.
        """
        return self._roster(None if user is None else user_id("user", user))

    def disconnect_user(self, user: Identity | str, code: int = 1000, reason: str = "") -> int:
        """Start the close handshake with each connection of a user, as when they sign out; how many there were.

        Those that ``authenticate`` is still asked about are none of them: have it say no from now on, first.
        With workers the others do so with theirs as soon as they hear of it, and the number is this one's.

        Raises:
            What ``clients`` and ``Client.close`` raise; TypeError for None, which would be everybody.
            LimitReached, WorkersApart: the other workers cannot be told; nobody was closed.
        """
        check_code(code)
        check_reason(reason)
        name = user_id("user", user)
        theirs = self._roster(name)
        self._across().disconnect_user(name, code, reason)
        for client in theirs:
            client.close(code, reason)
        return len(theirs)

    def subscribe(
        self,
        client: Client,
        channel: str,
        *,
        since: Position | None = None,
        start: str | None = None,
        filter: Mapping[str, object] | None = None,
    ) -> None:
        """Have publications made after this call reach the client; ``authorize`` is not asked.

        Args:
            since: the last publication that it had: it gets what it missed; if that is lost, it begins at `start`.
            start: ``live``, ``keyframe`` or ``history``; None is as the channel has it.
            filter: what publications have to be tagged with, as ``{"league": ["seriea", "laliga"], "live": True}``: all
                of it has to hold. None: it gets all. See docs/filters.md.

        Raises:
            InvalidChannel: no channel can have such a name.
            LimitReached: the channel has ``filters_max`` other filters.
            TypeError, ValueError: there is no such start, `filter` is none, or it is another hub's client.
            HubStopped: the hub does not serve.
        """
        engine = self._engine_of(client)
        check_channel(channel)
        check_since(since)
        check_start(start)
        read = read_filter("filter", filter)
        if engine is not None:
            engine.subscribe(client.id, channel, since, start, read)

    def unsubscribe(self, client: Client, channel: str) -> None:
        """Have publications made after this call no longer reach the client. Raises what ``subscribe`` raises."""
        engine = self._engine_of(client)
        check_channel(channel)
        if engine is not None:
            engine.unsubscribe(client.id, channel)

    def occupancy(self, channel: str) -> int:
        """How many connections are subscribed to `channel`, now. Any thread.

        With workers those of this one; where the channel has ``presence``, of all, as the others told within the last
        half a second. ``occupancy_of_all`` asks them.

        Raises:
            TypeError, InvalidChannel: no channel can have such a name.
            HubStopped: the hub does not serve.
        """
        return self._occupancy(check_channel(channel))

    async def occupancy_of_all(self, channel: str) -> int:
        """In the event loop's thread: how many connections of all workers are subscribed to `channel`.

        They are asked; one that does not answer within a second is left out. Without workers it is ``occupancy``.

        Raises:
            TypeError, InvalidChannel: no channel can have such a name.
            RuntimeError: this is another thread.
            HubStopped: the hub does not serve.
        """
        check_channel(channel)
        self._link.require_loop("occupancy_of_all")
        return await self._across().occupancy(channel)

    def presence(self, channel: str) -> list[str]:
        """Ids of the users who are subscribed to a channel with ``presence``, or left it just now; sorted. Any thread.

        With workers of all of them, as the others told within the last half a second.

        Raises:
            TypeError, InvalidChannel: no channel can have such a name.
            LookupError: it is none of those with ``presence=True``, so that nobody's coming is noted.
            HubStopped: the hub does not serve.
        """
        return self._members(check_channel(channel))

    async def delivered(self, position: Position, fraction: float = 0.99) -> Delivery:
        """In the event loop's thread: wait until so many of a channel's subscribers have it, or went past it.

        With workers it is those of all of them.

        Args:
            position: what ``publish`` returned.
            fraction: of the subscribers, > 0 and <= 1.

        Returns:
            How far it has come then; all zero where nobody subscribes, or the channel is gone.

        Raises:
            TypeError: `position` is none, or `fraction` is no number.
            ValueError: `fraction` is out of range, or nothing was published at `position` yet, which with workers is
                not known: then all is zero.
            LimitReached: 1,024 are waited for already, or too much waits for other workers.
            WorkersApart: they cannot be reached.
            RuntimeError: this is another thread.
            HubStopped: the hub does not serve, or no longer.
        """
        check_position(position)
        check_fraction(fraction)
        self._link.require_loop("delivered")
        return await self._delivered(position, fraction)

    def position(self, channel: str) -> Position:
        """Where a channel is now: at its newest publication; any thread. What is published later comes behind it.

        For a page that shows a state and then follows it: take the position, then read the state, and have the page
        subscribe with ``since`` that position. See docs/promises.md.

        Returns:
            Its epoch, and the number of its newest publication: 0 where nothing was published yet.

        Raises:
            TypeError, InvalidChannel: no channel can have such a name.
            LimitReached: it is a new one, and there are ``channels_max`` already.
            HubStopped: the hub does not serve.
        """
        return self._link.require().position(check_channel(channel))

    def listen(self, pattern: str) -> Listening:
        """In the event loop's thread: hear in the program itself what is published to the channels of a pattern.

        ``async with hub.listen("odds:*") as publications:``, and in it ``async for heard in publications:``, gives each
        ``Heard`` that is published from then on. Those of a channel come in their order, and channels that are made
        later are heard as well.
        Whoever hears is a client among the others: what it has not taken waits in the channel's log, within the
        backlog, and the channel's policy says what becomes of the rest. It is nobody's subscriber: it counts in no
        occupancy, and keeps no channel. The iteration ends when serving ends.

        Args:
            pattern: of names, in which ``*`` is any run of characters; a name is heard alone.

        Raises:
            TypeError, InvalidChannel: no channel's name can match it.
            LimitReached: 1,024 listen by a pattern already, or 262,144 by a name; when it is entered.
            Overtaken: in the iteration: the backlog of a channel that promises every publication went past it.
            RuntimeError: this is another thread.
            HubStopped: the hub does not serve.
        """
        matches(check_text("pattern", pattern, "a str such as 'odds:*'"), "")
        self._link.require_thread("listen")
        return Listening(pattern, self._serving_listeners)

    def _serving_listeners(self) -> Listeners:
        self._link.require_loop("listen")
        return self._listeners()

    def stats(self) -> Stats:
        """The engine's counters since the start of serving, and gauges of now. Any thread. Raises HubStopped.

        With workers those of this one; see ``stats_of_all``.
        """
        return self._link.require().stats()

    async def stats_of_all(self) -> StatsOfAll:
        """In the event loop's thread: the sums of all workers that are there. They are asked, and have a second.

        Raises HubStopped, RuntimeError in another thread.
        """
        self._link.require_loop("stats_of_all")
        return await self._across().stats()

    def relay_stats(self) -> list[RelayStats]:
        """In the event loop's thread: how each relay stands, now. Raises HubStopped, RuntimeError in another thread.

        With workers as this one has it; see ``relay_stats_of_all``.
        """
        self._link.require_thread("relay_stats")
        return self._relay_stats()

    async def relay_stats_of_all(self) -> dict[int, list[RelayStats]]:
        """In the event loop's thread: the same of each worker, by its number. They are asked, and have a second.

        One that does not answer is left out, and so is one whose answer has more than 1 MiB: some 5,000 lanes. Without
        workers this process is number 0. Raises HubStopped, RuntimeError in another thread.
        """
        self._link.require_loop("relay_stats_of_all")
        return await self._across().relay_stats()


def _nowhere(function: Callable[[], object]) -> NoReturn:
    raise AssertionError("no loop serves this hub")
