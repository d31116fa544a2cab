"""A channel layer for Django Channels: ``"BACKEND": "fanwire.compat.django_channels.ChannelLayer"``.

Within one process, or with a backbone over many, by the specification of layers
(channels/docs/channel_layer_spec.rst). Several event loops and threads may use it at once; without a backbone it waits
for nobody, and no channel takes another's room. What is promised, and where it
differs, stands in docs/channels.md. It needs channels and django, which ``fanwire[channels]`` brings.
"""

import heapq
import json
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from functools import partial
from itertools import count
from secrets import token_hex
from threading import Lock, get_ident
from time import monotonic
from typing import Any, ClassVar, NamedTuple

import anyio
from anyio.lowlevel import checkpoint

from fanwire._loop import Loop, running
from fanwire.adapters.starlette import StarletteSocket
from fanwire.adopt.broadcast import turn
from fanwire.adopt.joining import JOINED_BYTES_MAX
from fanwire.adopt.outlets import Outlet, write_frames
from fanwire.compat.crossing import Crossing
from fanwire.frames import BINARY, TEXT, server_frame
from fanwire.values import Seconds, Whole, checked

try:
    from channels.exceptions import ChannelFull, MessageTooLarge
    from channels.layers import BaseChannelLayer
except ImportError as error:
    raise ImportError(
        "fanwire.compat.django_channels needs the packages channels and django: pip install 'fanwire[channels]'",
        name=error.name,
    ) from error

__all__ = ["ChannelLayer", "FanwireConsumer"]

DIRECT_TYPE = "fanwire.send"
"""The type of messages that go straight to WebSockets."""
GROUP_EXPIRY_S = 86_400
"""How long a membership lasts after its ``group_add``, as the specification has it."""
EXPIRY_MAX_S = 1e9
SWEEP_S = 60.0
"""So often memberships of groups that nobody sends to are looked at."""
PLAIN = frozenset((str, bytes, int, float, bool, type(None)))
"""What nobody can change under a receiver."""

log = logging.getLogger("fanwire.channels")


class Waiting(NamedTuple):
    """One that waits."""

    expires: float
    content: dict[str, Any]
    is_shared: bool
    """Whether other channels of a group have the same object, so that each receiver needs its own."""


class Receiver:
    """A task that waits in ``receive``, in its loop."""

    __slots__ = ("_event", "_loop", "is_woken")

    def __init__(self) -> None:
        self._loop = Loop()
        self._event = anyio.Event()
        self.is_woken = False

    def wake(self) -> bool:
        """Have it look again; any thread. False where its loop has ended: it never will."""
        self.is_woken = True
        if get_ident() == self._loop.thread and self._loop.is_current:
            self._event.set()
            return True
        try:
            self._loop.call_from_any_thread(self._event.set)
        except RuntimeError:
            return False
        return True

    async def wait(self) -> None:
        """Return when it was woken."""
        await self._event.wait()


class Mailbox:
    """One channel's messages, and who waits for them; under the layer's lock."""

    __slots__ = ("is_due", "messages", "receivers")

    def __init__(self) -> None:
        self.messages: deque[Waiting] = deque()
        self.receivers: deque[Receiver] = deque()
        self.is_due = False
        """Whether it stands among those that are looked at when their oldest message expires."""

    def __len__(self) -> int:
        return len(self.messages)

    def wake_one(self) -> None:
        """The receiver that has waited for longest; those whose loop has ended are passed by."""
        while self.receivers:
            if self.receivers.popleft().wake():
                return


class Seat(NamedTuple):
    """A consumer whose WebSocket can be written to directly, and the loop that it is of."""

    running: object
    loop: Loop
    outlet: Outlet


class Scoped(NamedTuple):
    """What is known of a WebSocket that is Channels' own."""

    scope: Any


class ChannelLayer(BaseChannelLayer):
    """The layer. Without a backbone all that is ``async`` here returns without waiting, but for ``receive``.

    Args:
        expiry: seconds that a message waits for a receiver; one that expires ends its channel's memberships.
        group_expiry: seconds that a membership lasts after its last ``group_add``.
        capacity: messages that may wait in a channel; names with the same part up to ``!`` share it, and
            ``new_channel`` gives each its own.
        channel_capacity: other capacities, by glob or compiled pattern; the first that matches counts.
        on_disconnect, on_reconnect: types of messages that every channel of this process gets when the backbone is lost
            and when it is back: what was sent meanwhile is lost. None: no message.
        backbone: the URL of a Redis or Valkey server: the layers of all processes and machines that name the same are
            one (docs/machines.md). None: this process alone.
        backbone_prefix: what names there begin with; layers with another one have nothing in common.

    Raises:
        TypeError, ValueError: a time or a capacity is out of range.
    """

    extensions: ClassVar[list[str]] = ["groups", "flush"]
    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: float = GROUP_EXPIRY_S,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        on_disconnect: str | None = None,
        on_reconnect: str | None = None,
        backbone: str | None = None,
        backbone_prefix: str = "fanwire",
    ) -> None:
        capacities = dict(channel_capacity or {})
        checked("capacity", capacity, Whole())
        for name, most in capacities.items():
            checked(f"channel_capacity[{name!r}]", most, Whole())
        super().__init__(
            expiry=checked("expiry", expiry, Seconds(0.001, EXPIRY_MAX_S)),
            capacity=capacity,
            channel_capacity=capacities,
        )
        self.channel_capacity = self.compile_capacities(capacities)
        self.group_expiry = checked("group_expiry", group_expiry, Seconds(0.001, EXPIRY_MAX_S))
        self.on_disconnect, self.on_reconnect = on_disconnect, on_reconnect
        self._lock = Lock()  # held for moments, never while anything is awaited
        self.channels: dict[str, Mailbox] = {}
        """Those in which messages wait, or that somebody waits at."""
        self.groups: dict[str, dict[str, float]] = {}
        """When each member was added, the one that was added first in front."""
        self._groups_of: dict[str, set[str]] = {}
        self._seats: dict[str, Seat] = {}
        self._taken: dict[str, int] = {}  # messages that wait below each name up to `!`
        self._due: list[tuple[float, int, str, Mailbox]] = []
        self._order = count()
        self._swept = monotonic()
        self._sweep_at = 1024  # so many channels are swept though nobody receives
        self._crossing = None if backbone is None else Crossing(backbone, backbone_prefix, self._came, self._changed)

    # Messages

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Have `message` wait in `channel`. The layer keeps a copy.

        Raises:
            ChannelFull: as many wait already as may.
            TypeError: no channel can have such a name, or `message` is no dict.
        """
        self.require_valid_channel_name(channel)
        content = copied(check_message(message))
        if self._crossing is not None and not self._crossing.is_own(channel):
            await self._crossing.send(channel, content)
            return
        with self._lock:
            if len(self.channels) >= self._sweep_at:
                self._expire()
                self._sweep_at = max(1024, 2 * len(self.channels))
            if not self._put(channel, content, False):
                self._expire()
                if not self._put(channel, content, False):
                    raise ChannelFull(channel)

    async def receive(self, channel: str) -> dict[str, Any]:
        """The next message in `channel`, once there is one. Cancelled, it takes none.

        Raises TypeError: no channel can have such a name.
        """
        self.require_valid_channel_name(channel)
        if self._crossing is not None:
            await self._crossing.receives(channel)
        box, is_new, receiver = Mailbox(), True, None
        try:
            while True:
                with self._lock:
                    if is_new:
                        self._expire()
                    if not box.messages:  # it may have been closed meanwhile, and another stand in its place
                        box = self.channels.setdefault(channel, box)
                    self._drop_expired(channel, box)
                    if box.messages and not (is_new and box.receivers):
                        return self._take(channel, box)
                    is_new, receiver = False, Receiver()
                    box.receivers.append(receiver)
                await receiver.wait()
        finally:
            with self._lock:
                if receiver is not None and receiver in box.receivers:
                    box.receivers.remove(receiver)
                if box.messages:
                    box.wake_one()  # this one may have been woken for a message that it did not take
                self._close_empty(channel, box)

    async def new_channel(self, prefix: str = "specific") -> str:
        """A name that nobody else has. Its ``!`` stands last, so that it has a capacity of its own."""
        name = token_hex(8)
        if self._crossing is not None:
            await self._crossing.began()
            name = self._crossing.new_name()
        return f"{prefix.rstrip('.')}.{name}!"

    async def flush(self) -> None:
        """Forget all messages and groups of this process. Who waits in ``receive`` goes on waiting."""
        with self._lock:
            if self._crossing is not None:
                self._crossing.leave_all(self.groups)
            self.groups.clear()
            self._groups_of.clear()
            self._taken.clear()
            self._due.clear()
            for channel, box in list(self.channels.items()):
                box.messages.clear()
                box.is_due = False
                self._close_empty(channel, box)

    async def close(self) -> None:
        """End the connection to the backbone, if there is one."""
        if self._crossing is not None:
            self._crossing.close()

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """Make `channel` a member, or one anew. Raises TypeError for a name that there cannot be."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        if self._crossing is not None:
            await self._crossing.began()
        with self._lock:
            self._sweep_groups()
            heard = None if self._crossing is None else self._crossing.hear(group)
            members = self.groups.setdefault(group, {})
            members.pop(channel, None)  # so that the one that was added last stands last
            members[channel] = monotonic()
            self._groups_of.setdefault(channel, set()).add(group)
        if self._crossing is not None and heard is not None:
            await self._crossing.heard(heard)

    async def group_discard(self, group: str, channel: str) -> None:
        """Make it a member no more; it need not be one. Raises TypeError for a name that there cannot be."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        with self._lock:
            self._discard(group, channel)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send `message` to all members; those that are full miss it, which is logged.

        One of type ``fanwire.send`` has a ``text``, ``bytes``, or something as ``json``. It is framed once, and written
        to the WebSockets of consumers that have nothing to do; others handle it, as ``FanwireConsumer`` does.

        Raises TypeError, ValueError: no group can have such a name, or `message` is no dict, or not what its type says.
        """
        self.require_valid_group_name(group)
        content = copied(check_message(message))
        if content.get("type") == DIRECT_TYPE:
            content = check_direct(content)
        if self._crossing is not None:
            await self._crossing.send_to_group(group, content)
            return
        seats = self._deliver(group, content)
        if seats:
            await write_to(seats, content)

    def _deliver(self, group: str, content: dict[str, Any]) -> list[Seat]:
        """To all members of this process; gives those that are written to directly."""
        is_direct = content.get("type") == DIRECT_TYPE
        size = len(content.get("text") or content.get("bytes") or "") if is_direct else 0
        seats: list[Seat] = []
        full = 0
        with self._lock:
            self._expire()
            self._expire_members(group)
            members = list(self.groups.get(group, ()))
            for channel in members:
                box = self.channels.get(channel)
                seat = self._seats.get(channel) if is_direct else None
                if box is not None and box.messages and self._drop_expired(channel, box):
                    continue  # it is no member any more
                if (
                    seat is not None
                    and box is not None
                    and not box.messages
                    and box.receivers
                    and seat.outlet.has_room(size)
                ):
                    seats.append(seat)
                else:
                    full += not self._put(channel, content, True)
        if full:
            log.info("%d of %d channels of group %s were over capacity and missed a message", full, len(members), group)
        return seats

    def _changed(self, is_down: bool) -> None:
        kind = self.on_disconnect if is_down else self.on_reconnect
        if kind is not None:
            self._came(None, None, {"type": kind})

    def _came(self, group: str | None, channel: str | None, content: dict[str, Any]) -> None:
        """Something of the backbone, in its thread: for a group, for a channel, or for all channels of this process."""
        if group is not None:
            seats = self._deliver(group, content)
            if seats:
                hand_over(seats, content)
            return
        with self._lock:
            self._expire()
            channels = [channel] if channel is not None else list({*self.channels, *self._groups_of})
            full = sum(not self._put(one, content, True) for one in channels)
        if full:
            log.info("%d of %d channels were over capacity and missed a message", full, len(channels))

    def seat(self, channel: str, seat: Seat | None) -> None:
        """Have the consumer that receives from `channel` be written to directly; None: no more."""
        with self._lock:
            if seat is None:
                self._seats.pop(channel, None)
            else:
                self._seats[channel] = seat

    # Under the lock

    def _put(self, channel: str, content: dict[str, Any], is_shared: bool) -> bool:
        """One more message, unless the channel is full."""
        box = self.channels.get(channel)
        taken = 0 if box is None else len(box.messages)
        if "!" in channel:
            shared = self.non_local_name(channel)
            taken = self._taken.get(shared, 0)
        if taken >= self.get_capacity(channel):
            return False
        if "!" in channel:
            self._taken[shared] = taken + 1
        if box is None:
            box = self.channels[channel] = Mailbox()
        expires = monotonic() + self.expiry
        box.messages.append(Waiting(expires, content, is_shared))
        if not box.is_due:
            box.is_due = True
            heapq.heappush(self._due, (expires, next(self._order), channel, box))
        box.wake_one()
        return True

    def _take(self, channel: str, box: Mailbox) -> dict[str, Any]:
        """The oldest message, as the receiver's own."""
        message = box.messages.popleft()
        if "!" in channel:
            shared = self.non_local_name(channel)
            left = self._taken.pop(shared, 1) - 1
            if left > 0:
                self._taken[shared] = left
        return copied(message.content) if message.is_shared else message.content

    def _drop_expired(self, channel: str, box: Mailbox) -> bool:
        """Drop what has waited too long; whether something had, so that the channel has lost its memberships."""
        now, has_expired = monotonic(), False
        while box.messages and box.messages[0].expires <= now:
            self._take(channel, box)
            has_expired = True
        if has_expired:
            for group in list(self._groups_of.get(channel, ())):
                self._discard(group, channel)
        return has_expired

    def _expire(self) -> None:
        """Drop what has waited too long in any channel, at a cost of those channels alone."""
        now = monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, channel, box = heapq.heappop(self._due)
            box.is_due = False
            self._drop_expired(channel, box)
            if box.messages:
                box.is_due = True
                heapq.heappush(self._due, (box.messages[0].expires, next(self._order), channel, box))
            self._close_empty(channel, box)

    def _close_empty(self, channel: str, box: Mailbox) -> None:
        if not box.messages and not box.receivers and self.channels.get(channel) is box:
            del self.channels[channel]

    def _discard(self, group: str, channel: str) -> None:
        members, groups = self.groups.get(group), self._groups_of.get(channel)
        if members is not None:
            members.pop(channel, None)
            if not members:
                del self.groups[group]
                if self._crossing is not None:
                    self._crossing.leave(group)
        if groups is not None:
            groups.discard(group)
            if not groups:
                del self._groups_of[channel]

    def _expire_members(self, group: str) -> None:
        since = monotonic() - self.group_expiry
        for channel, added in list(self.groups.get(group, {}).items()):
            if added > since:
                break
            self._discard(group, channel)

    def _sweep_groups(self) -> None:
        """Now and then, for groups that nobody sends to."""
        if monotonic() - self._swept > SWEEP_S:
            self._swept = monotonic()
            for group in list(self.groups):
                self._expire_members(group)


class FanwireConsumer:
    """Goes before Channels' own class: ``class Chat(FanwireConsumer, AsyncJsonWebsocketConsumer)``.

    Then groups that it is in may be sent messages of type ``fanwire.send``. For asynchronous consumers.

    Raises TypeError: the class is a synchronous one.
    """

    channel_layer: Any
    channel_name: str
    base_send: Any

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if getattr(cls, "_sync", False):
            raise TypeError(f"{cls.__name__}: FanwireConsumer goes before an asynchronous consumer of Channels")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one WebSocket."""

        async def sending(message: dict[str, Any]) -> None:
            if message["type"] == "websocket.close":
                self._unseat()
            await send(message)
            if message["type"] == "websocket.accept" and isinstance(self.channel_layer, ChannelLayer):
                socket = StarletteSocket(Scoped(scope))
                if socket.holders:
                    self.channel_layer.seat(self.channel_name, Seat(running(), Loop(), Outlet(socket)))

        try:
            await super().__call__(scope, receive, sending)  # type: ignore[misc]
        finally:
            self._unseat()

    def _unseat(self) -> None:
        if isinstance(getattr(self, "channel_layer", None), ChannelLayer):
            self.channel_layer.seat(self.channel_name, None)

    async def fanwire_send(self, event: dict[str, Any]) -> None:
        """Send one message that could not be written directly."""
        key = "text" if "text" in event else "bytes"
        await self.base_send({"type": "websocket.send", key: event[key]})


async def write_to(seats: list[Seat], content: dict[str, Any]) -> None:
    """Write one message to the WebSockets of consumers, each in its loop."""
    if hand_over(seats, content, running()) > JOINED_BYTES_MAX or turn.is_long:
        await checkpoint()


def hand_over(seats: list[Seat], content: dict[str, Any], here: object = None) -> int:
    """The same from any thread: at once in the loop that runs `here`, and in others soon. Gives the message's bytes."""
    text = content.get("text")
    data = content["bytes"] if text is None else text.encode()
    frame = server_frame(BINARY if text is None else TEXT, data)
    by_loop: dict[object, list[Seat]] = {}
    for seat in seats:
        by_loop.setdefault(seat.running, []).append(seat)
    for loop, there in by_loop.items():
        outlets = [seat.outlet for seat in there]
        if loop is here:
            write_frames(outlets, frame)
        else:
            with suppress(RuntimeError):  # it has ended, and its consumers with it
                there[0].loop.call_from_any_thread(partial(write_frames, outlets, frame))
    return len(data)


def check_direct(message: dict[str, Any]) -> dict[str, Any]:
    """A message of type ``fanwire.send``, as text or bytes. Raises TypeError, ValueError: no consumer is to."""
    given = message.keys() - {"type"}
    if len(given) != 1 or not given <= {"text", "bytes", "json"}:
        raise ValueError(f"a message of type {DIRECT_TYPE} has 'text', 'bytes' or 'json', not {sorted(given)}")
    (key,) = given
    value = message[key]
    if key == "json":
        return {"type": DIRECT_TYPE, "text": json.dumps(value)}
    if not isinstance(value, str if key == "text" else bytes):
        raise TypeError(f"{key!r} of a message of type {DIRECT_TYPE} is {type(value).__name__}")
    if isinstance(value, str):
        value.encode()  # each consumer would raise for a lone surrogate, which its client then pays for
    return message


def check_message(message: object) -> dict[str, Any]:
    """Raises TypeError, ValueError for what is no message."""
    if not isinstance(message, dict):
        raise TypeError(f"a message must be a dict, not {type(message).__name__}")
    if "__asgi_channel__" in message:
        raise ValueError("a message must not have the key '__asgi_channel__', which is the layers' own")
    return message


def copied(value: Any) -> Any:
    """A copy that shares nothing with it that can change; what the specification does not name is copied as well."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is dict:
        return {key: copied(one) for key, one in value.items()}
    if kind is list:
        return [copied(one) for one in value]
    return deepcopy(value)
