"""Who is there: accepted clients by user; and who is in a channel, told once it is sure that who went stays away."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from fanwire._engine import ChannelRule, Engine, Presence, matches
from fanwire._loop import Callback, ends_task, outlive_cancellation
from fanwire.auth import Identity
from fanwire.channel import Channel, check_pattern
from fanwire.client import Client
from fanwire.errors import InvalidChannel
from fanwire.faults import Faults, Tasks
from fanwire.values import told

PREFIX = "presence:"
"""Before a channel's name: where its presence is published."""
BATCH_S = 0.25
"""For so long comings and goings are gathered."""
CHANNELS_AT_ONCE = 128
"""Of so many it is told before the loop has a turn: one client can come and go in a thousand at once."""
AT_WORK_MAX = 64
"""Channels of whose presence the application hears at once; the others wait in order."""


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """What has changed in a channel since the last one."""

    channel: str
    joined: tuple[str, ...]
    """Users who were not there before, by id, in the order of their coming; empty with ``presence="counts"``."""
    left: tuple[str, ...]
    """Users whose last connection is gone for ``presence_linger`` seconds; empty with ``presence="counts"``."""
    occupancy: int
    """Connections that are subscribed now, those of anonymous clients too."""


@dataclass(slots=True)
class _Room:
    """One channel's presence."""

    linger: float
    has_names: bool
    connections: dict[int, str | None] = field(default_factory=dict)
    """Each connection's user; None is anonymous."""
    users: Counter[str] = field(default_factory=Counter)
    """How many connections each has."""
    announced: dict[str, None] = field(default_factory=dict)
    """Those of whom it was told that they are here."""
    going: dict[str, float] = field(default_factory=dict)
    """Those of the announced who have no connection, and when that is told."""
    told: int = 0
    """The occupancy that was told last."""

    def join(self, connection: int, user: str | None) -> None:
        if connection in self.connections:
            return
        self.connections[connection] = user
        if user is not None:
            self.users[user] += 1
            self.going.pop(user, None)

    def leave(self, connection: int, now: float) -> None:
        user = self.connections.pop(connection, None)
        if user is None:
            return
        self.users[user] -= 1
        if not self.users[user]:
            del self.users[user]
            if user in self.announced:
                self.going[user] = now + self.linger

    def change(self, channel: str, now: float) -> PresenceChange | None:
        """What is to be told now."""
        joined = tuple(user for user in self.users if user not in self.announced)
        left = tuple(user for user, at in self.going.items() if at <= now)
        self.announced.update(dict.fromkeys(joined))
        for user in left:
            del self.going[user], self.announced[user]
        occupancy = len(self.connections)
        if not (joined or left or occupancy != self.told):
            return None
        if not self.has_names:
            if occupancy == self.told:
                return None
            joined = left = ()
        self.told = occupancy
        return PresenceChange(channel, joined, left, occupancy)

    def is_empty(self) -> bool:
        return not (self.connections or self.announced or self.told)


def merged(before: PresenceChange, after: PresenceChange) -> PresenceChange:
    """Two changes of a channel as one: who came and went, or went and came, is in neither list."""
    joined = [user for user in before.joined if user not in after.left]
    joined += [user for user in after.joined if user not in before.left]
    left = [user for user in before.left if user not in after.joined]
    left += [user for user in after.left if user not in before.joined]
    return PresenceChange(after.channel, tuple(joined), tuple(left), after.occupancy)


class Presences:
    """The channels whose presence is told. All state is the loop's thread's own."""

    def __init__(
        self,
        engine: Engine,
        channels: Mapping[str, Channel],
        callback: Callback | None,
        identify: Callable[[int], Identity | None],
        faults: Faults,
    ) -> None:
        self._engine = engine
        self._faults = faults
        self._channels = channels
        self._callback = callback
        self._identify = identify
        self._rooms: dict[str, _Room] = {}
        # Channels with something to tell, those from which somebody is going, and what wakes up who tells it.
        self._changed: set[str] = set()
        self._going: set[str] = set()
        self._wakes = anyio.Event()
        # By channel, what the application hears next; None while it hears the last.
        self._telling: dict[str, PresenceChange | None] = {}
        self._at_work = anyio.CapacityLimiter(AT_WORK_MAX)

    def take(self, event: Presence) -> None:
        """Some came and some went."""
        now = anyio.current_time()
        stays = {(channel, connection): has_joined for channel, connection, has_joined in event.changes}
        for channel, connection, has_joined in event.changes:
            if channel.startswith(PREFIX):
                continue  # nobody is told who listens to presence
            room = self._room(channel)
            if not has_joined:
                room.leave(connection, now)
                if room.going:
                    self._going.add(channel)
            elif stays[channel, connection]:  # else it is over already, and nobody knows who it was
                identity = self._identify(connection)
                room.join(connection, None if identity is None else identity.id)
            self._changed.add(channel)
        self._wakes.set()

    def members(self, channel: str) -> list[str]:
        """Users who are there, or have just gone. Raises LookupError for a channel whose users are not noted."""
        if self._promise(channel).presence is not True:
            raise LookupError(f"channel {channel!r} has no presence: name it in Hub(channels) with presence=True")
        room = self._rooms.get(channel)
        return [] if room is None else sorted({*room.users, *room.going})

    def snapshot(self, channel: str) -> object:
        """What a new subscriber of a presence channel gets first."""
        name = channel.removeprefix(PREFIX)
        room = self._rooms.get(name)
        if room is None:
            room = _Room(0, has_names=self._promise(name).presence is True)
        members = {"members": list(room.announced)} if room.has_names else {}
        return {"channel": name, **members, "occupancy": room.told}

    async def run(self, tasks: Tasks) -> None:
        """Tell what has changed, for ever."""
        while True:
            if not (self._changed or self._going):
                await self._wakes.wait()
            self._wakes = anyio.Event()
            await anyio.sleep(BATCH_S)
            await self._tell(tasks)

    async def _tell(self, tasks: Tasks) -> None:
        names, self._changed = sorted(self._changed | self._going), set()
        for index, name in enumerate(names):
            if index and index % CHANNELS_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
            self._changed.discard(name)  # what changed meanwhile is told of as well
            now = anyio.current_time()
            with self._faults.contained("presence", "the presence of channel %r could not be told", name):
                self._tell_of(name, now, tasks)

    def _tell_of(self, name: str, now: float, tasks: Tasks) -> None:
        room = self._rooms[name]
        change = room.change(name, now)
        if not room.going:
            self._going.discard(name)
        if room.is_empty():
            del self._rooms[name]
        if change is not None:
            self._publish(change, has_names=room.has_names)
            if self._callback is not None:
                self._call_back(tasks, change)

    def _publish(self, change: PresenceChange, *, has_names: bool) -> None:
        names = {"joined": list(change.joined), "left": list(change.left)} if has_names else {}
        told = {"channel": change.channel, **names, "occupancy": change.occupancy}
        try:
            self._engine.publish(PREFIX + change.channel, told, "presence")
        except InvalidChannel:
            return  # its name is too long with the prefix: nobody can watch that
        except BaseException as error:
            if ends_task(error):
                raise
            self._faults.note("presence", error, "the presence of channel %r could not be published", change.channel)

    def _call_back(self, tasks: Tasks, change: PresenceChange) -> None:
        """Have the application hear of it: one change of a channel at a time, later ones together."""
        if change.channel in self._telling:
            before = self._telling[change.channel]
            self._telling[change.channel] = change if before is None else merged(before, change)
            return
        self._telling[change.channel] = change
        tasks.start_soon(self._tell_application, change.channel)

    async def _tell_application(self, channel: str) -> None:
        assert self._callback is not None
        async with self._at_work:
            while (change := self._telling[channel]) is not None:
                self._telling[channel] = None
                try:
                    await self._callback(change)
                except Exception as error:
                    self._faults.note("on_presence", error, "the presence of channel %r could not be told", channel)
                await outlive_cancellation()  # which is not the next one's
        del self._telling[channel]

    def _room(self, channel: str) -> _Room:
        room = self._rooms.get(channel)
        if room is None:
            promise = self._promise(channel)
            room = self._rooms[channel] = _Room(promise.presence_linger, has_names=promise.presence is True)
        return room

    def _promise(self, channel: str) -> Channel:
        found = (promise for pattern, promise in self._channels.items() if matches(pattern, channel))
        return next(found, Channel())


def presence_patterns(channels: Mapping[str, Channel]) -> Sequence[str]:
    """The patterns of the channels on which presence is published."""
    return [PREFIX + pattern for pattern, promise in channels.items() if promise.presence]


def rules_of(channels: Mapping[str, Channel]) -> list[ChannelRule]:
    """What the engine is told of channels; those of presence are as they come, unless named themselves."""
    named = {pattern: promise for pattern, promise in channels.items() if pattern.startswith(PREFIX)}
    presences = dict.fromkeys(presence_patterns(channels), Channel())
    return [promise.rule(pattern) for pattern, promise in {**named, **(presences | named), **channels}.items()]


def check_channels(channels: object) -> dict[str, Channel]:
    """What ``Hub(channels)`` was given, as it is kept.

    Raises:
        TypeError: no mapping, a pattern that is no str, or a promise that is no ``Channel``.
        InvalidChannel: no channel's name can match a pattern, or none that presence is told on.
    """
    example = "patterns of names, such as {'odds:*': Channel(history=10)}"
    if channels is None:
        return {}
    if not isinstance(channels, Mapping):
        raise TypeError(f"channels must be a mapping of {example}, not {told(channels)}")
    for pattern, promise in channels.items():
        if not isinstance(pattern, str):
            raise TypeError(f"channels must have {example}, not the key {told(pattern)}")
        check_pattern(pattern)
        if not isinstance(promise, Channel):
            raise TypeError(f"channels[{told(pattern)}] must be Channel(...), not {told(promise)}")
    rules_of(channels)
    return dict(channels)


class Roster:
    """Accepted clients of one serving. Changed in the event loop's thread; read in any."""

    __slots__ = ("_all", "_of_users")

    def __init__(self) -> None:
        # Dicts keep the order of arrival; the values mean nothing.
        self._all: dict[Client, None] = {}
        self._of_users: dict[str, dict[Client, None]] = {}

    def add(self, client: Client) -> None:
        """It was accepted. Twice is once."""
        if client in self._all:
            return
        self._all[client] = None
        user = _user_of(client)
        if user is not None:
            self._of_users.setdefault(user, {})[client] = None

    def drop(self, client: Client) -> None:
        """It is gone. One that is not here is no error."""
        if client not in self._all:
            return
        del self._all[client]
        user = _user_of(client)
        if user is not None:
            theirs = self._of_users[user]
            del theirs[client]
            if not theirs:
                del self._of_users[user]

    def clients(self, user: str | None = None) -> list[Client]:
        """Those who are there, or those of one user, in the order in which they came."""
        found: Iterable[Client] = self._all if user is None else self._of_users.get(user, ())
        return [client for client in list(found) if not client._is_turned_away]


def _user_of(client: Client) -> str | None:
    return None if client.identity is None else client.identity.id
