"""Who is there: accepted clients by user; and who is in a channel, told once it is sure that who went stays away."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import anyio
from anyio.lowlevel import checkpoint

from fanwire._engine import ChannelRule, Engine, Presence, matches
from fanwire._loop import Callback, ends_task, outlive_cancellation
from fanwire.attendance import Attendance, Entry, PresenceChange, merged
from fanwire.auth import Identity
from fanwire.channel import Channel, check_pattern
from fanwire.client import Client
from fanwire.errors import InvalidChannel
from fanwire.faults import Tasks
from fanwire.values import told
from fanwire.workers.attending import Attending
from fanwire.workers.bus import Bus

PREFIX = "presence:"
"""Before a channel's name: where its presence is published."""
BATCH_S = 0.25
"""For so long comings and goings are gathered."""
CHANNELS_AT_ONCE = 128
"""Of so many it is told before the loop has a turn: one client can come and go in a thousand at once."""
AGAIN_MAX = 8
"""So often another machine is asked for a snapshot while it tells more; then what is known here is one."""
AT_WORK_MAX = 64
"""Channels of whose presence the application hears at once; the others wait in order."""


class Presences:
    """The channels whose presence is told. All state is the loop's thread's own.

    Args:
        bus: to the other workers, where there are any. Each knows who is in a channel; the eldest of them tells it.
    """

    def __init__(
        self,
        engine: Engine,
        channels: Mapping[str, Channel],
        callback: Callback | None,
        identify: Callable[[int], Identity | None],
        tasks: Tasks,
        bus: Bus | None = None,
    ) -> None:
        self._engine = engine
        self._tasks, self._faults = tasks, tasks.faults
        self._channels = channels
        self._callback = callback
        self._identify = identify
        self._rooms: dict[str, Attendance] = {}
        # Channels with something to tell, those from which somebody is going, and what wakes up who tells it.
        self._changed: set[str] = set()
        self._going: set[str] = set()
        self._wakes = anyio.Event()
        # What is told by the next ``_flush``, and whether the application hears of it, too.
        self._due: list[tuple[PresenceChange, bool]] = []
        # By channel, what the application hears next; None while it hears the last.
        self._telling: dict[str, PresenceChange | None] = {}
        self._at_work = anyio.CapacityLimiter(AT_WORK_MAX)
        self._is_eldest = False
        self._attending: Attending | None = None
        if bus is not None:
            self._attending = Attending(
                bus,
                tasks,
                self._rooms,
                take=self._take_elsewhere,
                take_told=self._take_told,
                drop=self._drop_worker,
                snapshot=self.publish_snapshot,
                content=self._snapshot,
                woken=self._look_who_tells,
            )

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
            elif stays[channel, connection]:  # else it is over already, and nobody knows who it was
                identity = self._identify(connection)
                room.join(connection, None if identity is None else identity.id)
            self._note(channel, room)

    def _note(self, channel: str, room: Attendance) -> None:
        """It has changed."""
        if room.going:
            self._going.add(channel)
        self._changed.add(channel)
        self._wakes.set()

    def members(self, channel: str) -> list[str]:
        """Users who are there, or have just gone. Raises LookupError for a channel whose users are not noted."""
        if self._promise(channel).presence is not True:
            raise LookupError(f"channel {channel!r} has no presence: name it in Hub(channels) with presence=True")
        room = self._rooms.get(channel)
        return [] if room is None else sorted({*room.announced, *room.coming})

    def occupancy(self, channel: str) -> int:
        """Connections that are subscribed: of this process, and where there is presence, of other workers as well."""
        room = self._rooms.get(channel)
        return self._engine.occupancy(channel) + (0 if room is None else room.occupancy_elsewhere)

    def publish_snapshot(self, channel: str) -> bool:
        """Publish what a new subscriber of a presence channel gets first, at its place among what is told. True."""
        self._engine.publish_snapshot(channel, self._snapshot(channel), "presence")
        return True

    async def have_snapshot(self, channel: str) -> bool:
        """The same by the worker that tells, which alone knows what was told before; by this one, if that does not."""
        attending = self._attending
        if attending is None or attending.is_eldest:
            return self.publish_snapshot(channel)
        if attending.is_told_elsewhere:
            return await self._have_content(attending, channel)
        return await attending.ask_for_snapshot(channel) or self.publish_snapshot(channel)

    async def _have_content(self, attending: Attending, channel: str) -> bool:
        """The same by a worker of another machine, whose words are published here: at a place that has no more."""
        for _ in range(AGAIN_MAX):
            before = self._engine.position(channel)
            content = await attending.ask_for_content(channel)
            if content is None:
                break
            if self._engine.position(channel) == before:
                self._engine.publish_snapshot(channel, content, "presence")
                return True
        return self.publish_snapshot(channel)

    def _snapshot(self, channel: str) -> object:
        name = channel.removeprefix(PREFIX)
        room = self._rooms.get(name)
        if room is None:
            room = Attendance(0, has_names=self._promise(name).presence is True)
        members = {"members": list(room.announced)} if room.has_names else {}
        return {"channel": name, **members, "occupancy": room.told}

    def part(self) -> None:
        """This worker ends."""
        if self._attending is not None:
            self._attending.part()

    async def run(self) -> None:
        """Tell what has changed, for ever."""
        while True:
            if not (self._changed or self._due or (self._going and self.is_eldest) or self._owes):
                await self._wakes.wait()
            self._wakes = anyio.Event()
            await anyio.sleep(BATCH_S)
            await self._tell()

    @property
    def is_eldest(self) -> bool:
        """Whether this worker does what one is to do for all: it tells the clients and the application."""
        return self._attending is None or self._attending.is_eldest

    @property
    def _owes(self) -> bool:
        return self._attending is not None and self._attending.owes

    async def _tell(self) -> None:
        if self._attending is not None and self._attending.is_apart:
            return  # it is told when the supervisor can be reached
        tells = self.is_eldest
        names, self._changed = sorted(self._changed | (self._going if tells else set())), set()
        for index, name in enumerate(names):
            if index and index % CHANNELS_AT_ONCE == 0:
                self._flush()
                await checkpoint()
            self._changed.discard(name)  # what changed meanwhile is told of as well
            now = anyio.current_time()
            with self._faults.contained("presence", "the presence of channel %r could not be told", name):
                self._tell_of(name, now, tells)
        self._flush()

    def _flush(self) -> None:
        if self._attending is not None:
            with self._faults.contained("presence", "other workers could not be told of presence"):
                self._attending.flush()
        due, self._due = self._due, []
        for change, is_new in due:
            self._publish(change, has_names=self._promise(change.channel).presence is True)
            if is_new and self._callback is not None:
                self._call_back(self._tasks, change)

    def _tell_of(self, name: str, now: float, tells: bool) -> None:
        room = self._rooms.get(name)
        if room is None:
            self._going.discard(name)
            return
        if self._attending is None:
            room.moved.clear()
        else:
            self._attending.note(name, room)
        change = room.change(name, now) if tells else None
        if not room.going:
            self._going.discard(name)
        if room.is_empty():
            del self._rooms[name]
        if change is not None:
            self._due.append((change, True))
            if self._attending is not None:
                self._attending.note_told(change)

    # What other workers tell

    def _take_elsewhere(self, worker: int, entry: Entry) -> None:
        if self._promise(entry[0]).presence is False:
            return  # it is of another version of the program
        room = self._room(entry[0])
        room.take(worker, entry, anyio.current_time())
        self._note(entry[0], room)

    def _take_told(self, entry: Entry) -> None:
        if self._promise(entry[0]).presence is False:
            return
        room = self._room(entry[0])
        room.note_told(entry, anyio.current_time())
        self._note(entry[0], room)

    def _drop_worker(self, worker: int) -> None:
        now = anyio.current_time()
        for name, room in self._rooms.items():
            if room.drop(worker, now):
                self._note(name, room)

    def _look_who_tells(self) -> None:
        """This worker may be the one that tells from now on."""
        is_eldest = self.is_eldest
        if is_eldest and not self._is_eldest:
            if self._attending is not None:
                self._due += [(change, False) for change in self._attending.take_recent()]
            self._changed.update(self._rooms)
            self._going.update(name for name, room in self._rooms.items() if room.going)
            self._wakes.set()
        self._is_eldest = is_eldest

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

    def _room(self, channel: str) -> Attendance:
        room = self._rooms.get(channel)
        if room is None:
            promise = self._promise(channel)
            room = self._rooms[channel] = Attendance(promise.presence_linger, has_names=promise.presence is True)
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

    def __contains__(self, client: Client) -> bool:
        return client in self._all

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
