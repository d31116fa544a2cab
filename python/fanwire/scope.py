"""The extension of an ASGI scope by which a WebSocket gets what is published: ``scope["extensions"]["fanwire"]``.

docs/scope.md specifies it, for any server and any application. A server in Python that has a transport calls `extend`.
Nothing here knows a server, a framework or the engine.
"""

import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Literal, Protocol, TypedDict

from fanwire.errors import HubStopped

NAME = "fanwire"
"""Of the extension."""
VERSION = "1"
"""Of the specification; it changes where who reads it has to."""
NOT_HERE = "no hub serves in this event loop: begin one, as by hub.lifespan, or say hub=…"

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Take = Callable[[Callable[[int], object]], bool]
"""Has a function take the socket as a descriptor; False where that cannot be."""
State = Literal["connecting", "open", "closed"]
"""Of a WebSocket: to be accepted yet; accepted; or that neither can be any more."""


class Holder(Protocol):
    """What writes to one WebSocket, and does so through one attribute; it can be referenced weakly."""

    transport: Any
    """An `asyncio.Transport`, or what stands for one. Who sets it has to set it back before it ends."""


class ServesHere(Protocol):
    """A ``Hub``, as the calls need it."""

    @property
    def _is_here(self) -> bool:
        """Whether it serves in the event loop that runs."""

    def attach(
        self, connection: Any, channels: Iterable[str], *, since: Mapping[str, Any] | None, start: str | None
    ) -> None:
        """``Hub.attach``."""

    def detach(self, connection: Any, channels: Iterable[str] | None) -> None:
        """``Hub.detach``."""

    def publish(self, channel: str, data: Any, *, event: str | None, key: str | None, ttl: float | None) -> Any:
        """``Hub.publish``."""


class Here(threading.local):
    """The hubs that have served in this thread."""

    def __init__(self) -> None:
        self.hubs: weakref.WeakSet[ServesHere] = weakref.WeakSet()

    def serving(self) -> ServesHere:
        """The one that serves in the event loop that runs. Raises HubStopped, and LookupError where there are more."""
        found = [hub for hub in self.hubs if hub._is_here]
        if len(found) > 1:
            raise LookupError(f"{len(found)} hubs serve in this event loop: say which, hub=…")
        if not found:
            raise HubStopped(NOT_HERE)
        return found[0]


here = Here()
"""Hubs add themselves."""


class Socket:
    """One WebSocket as its server knows it, and the calls that its application finds in the scope."""

    __slots__ = ("__weakref__", "_take", "holder", "receive", "send", "state")

    def __init__(
        self,
        holder: Holder,
        receive: Receive,
        send: Send,
        state: Callable[[], State],
        take: Take | None = None,
    ) -> None:
        self._take = take
        self.holder = holder
        self.receive = receive
        self.send = send
        self.state = state

    def attach(
        self,
        channels: Iterable[str],
        *,
        hub: ServesHere | None = None,
        since: Mapping[str, Any] | None = None,
        start: str | None = None,
    ) -> None:
        """Have what is published to `channels` reach the client. See docs/scope.md, and ``Hub.attach``.

        Args:
            channels: their names.
            hub: whose channels; None: of the hub that serves in this event loop.
            since: by channel the last publication that the client had.
            start: ``live``, ``keyframe`` or ``history``; None is as each channel has it.

        Raises:
            HubStopped: no hub serves here.
            LookupError: several do, and none is said.
            What ``Hub.attach`` raises; then nothing was done.
        """
        (hub or here.serving()).attach(self, channels, since=since, start=start)

    def detach(self, channels: Iterable[str] | None = None, *, hub: ServesHere | None = None) -> None:
        """End that, of `channels` or, None, of all. Raises what `attach` does for its hub."""
        (hub or here.serving()).detach(self, channels)

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        hub: ServesHere | None = None,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
    ) -> Any:
        """Publish as ``Hub.publish`` does, and give what it gives. Raises what that does, and `attach` for its hub."""
        return (hub or here.serving()).publish(channel, data, event=event, key=key, ttl=ttl)

    def take(self, to: Callable[[int], object], *, receive: Receive, send: Send) -> bool:
        """Give the connection away before it is accepted: `to` owns a descriptor then, and answers the client.

        Nothing was read from it but the request, and nothing was written. The application returns then; its server has
        nothing more to do with the connection.

        Args:
            to: what takes the descriptor; where it raises, all is as it was.
            receive: what the application was given, and so is `send`: where these are not the server's own, somebody
                stands between who would see nothing any more.

        Returns:
            False: it cannot be, and nothing was done.

        Raises:
            OSError: there is no descriptor left.
            What `to` raises.
        """
        if self._take is None or receive != self.receive or send != self.send or self.state() != "connecting":
            return False
        return self._take(to)


class Extension(TypedDict):
    """What `extend` says of one WebSocket; other servers may say a part of it."""

    version: str
    """Of the specification, ``"1"``."""
    holder: Holder
    """What writes, all of it through its attribute ``transport``."""
    deflate: bool
    """Whether permessage-deflate was negotiated."""
    attach: Callable[..., None]
    detach: Callable[..., None]
    publish: Callable[..., Any]
    take: Callable[..., bool]


def extend(
    scope: MutableMapping[str, Any],
    holder: Holder,
    *,
    receive: Receive,
    send: Send,
    state: Callable[[], State],
    deflate: bool,
    take: Take | None = None,
) -> None:
    """Put the extension into the scope of a WebSocket, beside those that are there. For servers.

    Args:
        scope: what the application is about to get.
        holder: what writes to the socket, as docs/scope.md has it.
        receive: what the application gets, and so is `send`.
        state: says how far the connection has come.
        deflate: whether permessage-deflate was negotiated.
        take: has somebody else take the socket; None: that never can be.
    """
    socket = Socket(holder, receive, send, state, take)
    extension: Extension = {
        "version": VERSION,
        "holder": holder,
        "deflate": deflate,
        "attach": socket.attach,
        "detach": socket.detach,
        "publish": socket.publish,
        "take": socket.take,
    }
    scope["extensions"] = {**(scope.get("extensions") or {}), NAME: extension}


def holder_of(scope: Mapping[str, Any]) -> Any:
    """What holds the transport, if the server says so."""
    offered = (scope.get("extensions") or {}).get(NAME)
    return offered.get("holder") if offered else None


def taker_of(scope: Mapping[str, Any]) -> Callable[..., bool] | None:
    """What gives the connection away, if the server says so."""
    offered = (scope.get("extensions") or {}).get(NAME)
    taker: Callable[..., bool] | None = offered.get("take") if offered else None
    return taker
