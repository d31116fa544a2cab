"""What the application registers with its hub before it serves. Not here: serving, what callbacks are asked when."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

from fanwire._engine import Route
from fanwire._loop import Callback
from fanwire.arguments import check_parameters
from fanwire.attendance import PresenceChange
from fanwire.auth import Identity, Request
from fanwire.callbacks import Callbacks, hand_over
from fanwire.calls import check_text
from fanwire.client import Client, Link
from fanwire.errors import ClientGone, ConfigError
from fanwire.methods import Endpoint, M, Methods
from fanwire.options import RULES, check_count, check_room, clash, read_signalr_path, signalr_key
from fanwire.paths import WIRES, PathRule, Paths, hiding, route_of_relay
from fanwire.relay.config import NO_BACKBONE, RelayConfig
from fanwire.snapshots import SnapshotRule, check_snapshot
from fanwire.values import Choice, OrNone, checked, told

# What each callback takes and gives; sync or async.
Authenticate = TypeVar(
    "Authenticate", bound=Callable[[Request], Identity | str | Awaitable[Identity | str | None] | None]
)
Allowed: TypeAlias = bool | dict[str, Any]
Authorize = TypeVar("Authorize", bound=Callable[[Client, str], Allowed | Awaitable[Allowed]])
OnConnect = TypeVar("OnConnect", bound=Callable[[Client], object])
OnClient = TypeVar("OnClient", bound=Callable[[Client], Awaitable[object]])
OnDisconnect = TypeVar("OnDisconnect", bound=Callable[[Client, ClientGone], object])
OnMessage = TypeVar("OnMessage", bound=Callable[[Client, str | bytes], object])
OnPresence = TypeVar("OnPresence", bound=Callable[[PresenceChange], object])
Snapshot = TypeVar("Snapshot", bound=Callable[[str], object])


class ServedPaths(Protocol):
    """The serving whose paths come and go."""

    link: Link

    def add_endpoint(self, path: str) -> None:
        """Have SignalR clients find methods there."""

    def remove_endpoint(self, path: str) -> None:
        """Have nobody find it, and close who is connected there."""

    def add_relay(self, config: RelayConfig) -> None:
        """Have a relay work."""

    def remove_relay(self, config: RelayConfig) -> None:
        """End it, and close its clients."""


class Registering:
    """The registering half of a ``Hub``: decorators, each for use before it serves, and paths, for use at any time."""

    def __init__(self, own_paths: Sequence[str]) -> None:
        # Where the hub's own methods are, unless serve says otherwise.
        self._own_paths = own_paths
        self._callbacks = Callbacks()
        self._relays: list[RelayConfig] = []
        self._ways = Paths()
        self._has_backbone = False
        self._is_serving = False
        self._served_paths: ServedPaths | None = None
        # SignalR paths of methods, by how they are compared; the first is where to.all() goes.
        self._paths: dict[str, str] = {}

    def authenticate(self, function: Authenticate) -> Authenticate:
        """Have `function(request)` say who connects, once for each connection; sync or async; for use as a decorator.

        It returns ``Identity``, a ``str`` (its id) or None for an anonymous client, or raises
        ``Refused(reason, status=401)``, or another ``Told``. Any other exception is logged and answered with 500. A
        connection is accepted
        only afterwards; at most ``openings_max`` async calls are at work at once.
        """
        self._may_register("authenticate", self._callbacks.authenticate)
        self._callbacks.authenticate = callback_of("authenticate", function, ("request",))
        return function

    def authorize(self, function: Authorize) -> Authorize:
        """Have `function(client, channel) -> bool` allow each subscription that a client asks for; sync or async.

        A dict in place of True is a filter: it is allowed, and the client gets what passes that, and its own filter if
        it asked with one. See docs/filters.md.

        Channels of the query are asked about before the connection is accepted: one denial refuses it with 403.
        A later denial is answered with an error, and the client's other channels stay. ``Hub.subscribe`` does not ask.
        """
        self._may_register("authorize", self._callbacks.authorize)
        self._callbacks.authorize = callback_of("authorize", function, ("client", "channel"))
        return function

    def on_connect(self, function: OnConnect) -> OnConnect:
        """Have `function(client)` hear of each client once it is connected, before its first message; sync or async.

        Of a SignalR client that is after its handshake. What the client sends waits until it returns. If it raises, the
        client is turned away: with 1008 and the text of a ``Told``, else with 1011;
        a SignalR client with a Close message.
        """
        self._may_register("on_connect", self._callbacks.on_connect)
        self._callbacks.on_connect = callback_of("on_connect", function, ("client",))
        return function

    def on_disconnect(self, function: OnDisconnect) -> OnDisconnect:
        """Have `function(client, gone)` hear of the end of each connected client, once and last; sync or async.

        `gone` is a ``ClientGone``: by whom, with which close code and reason. Not called for a client that
        ``on_connect`` turned away, nor for those that are still there when ``drain_timeout`` is over.
        """
        self._may_register("on_disconnect", self._callbacks.on_disconnect)
        self._callbacks.on_disconnect = callback_of("on_disconnect", function, ("client", "gone"))
        return function

    def on_message(self, function: OnMessage) -> OnMessage:
        """Have `function(client, data)` take what else a client of the raw protocol sends; sync or async.

        One client's messages come one after another, in order. Without it such messages are dropped. If it raises, that
        is logged and the client told ``{"error":"internal error"}``, or what a ``Told`` says.
        """
        self._may_register("on_message", self._callbacks.on_message, "client" if self._callbacks.client else "")
        self._callbacks.on_message = callback_of("on_message", function, ("client", "data"))
        return function

    def client(self, function: OnClient) -> OnClient:
        """Have `function(client)`, an ``async def``, run for each client: in a task, from ``on_connect`` to its end.

        It reads with ``async for message in client`` what ``on_message`` would get, which cannot be registered as well;
        for clients of other protocols nothing comes. The loop ends when the client leaves. Where the function ends
        before that, the client is closed with 1000; where it raises, as for ``on_connect``. When serving ends it has
        ``drain_timeout`` to return, and is cancelled then.
        """
        self._may_register("client", self._callbacks.client)
        callback = callback_of("client", function, ("client",))
        if not callback.is_async:
            raise TypeError(f"client {callback} must be an `async def`: it lasts as long as its client")
        self._may_register("client", self._callbacks.on_message, "on_message")
        self._callbacks.client = callback
        self._callbacks.on_message = Callback(hand_over)
        return function

    def on_presence(self, function: OnPresence) -> OnPresence:
        """Have `function(change)`, a ``PresenceChange``, hear who came to channels with ``presence`` and who went.

        Sync or async; changes of a quarter of a second come together, a channel's in their order.
        """
        self._may_register("on_presence", self._callbacks.on_presence)
        self._callbacks.on_presence = callback_of("on_presence", function, ("change",))
        return function

    def snapshot(
        self, pattern: str, *, interval: float = 1.0, timeout: float = 5.0, event: str | None = None
    ) -> Callable[[Snapshot], Snapshot]:
        """Have `function(channel)` give the state of a channel that matches `pattern`, for new subscribers alone.

        Asked at most once in `interval` seconds a channel, however many join: they wait for what it returns, begin with
        that, as an `event`, and get what was published after it. If it returns None, raises or takes longer than
        `timeout` seconds, they begin live and are told so. Sync or async; a sync one sees the state at its place in
        the log. For those whose ``start`` is ``keyframe``; the first pattern that matches counts.
        """
        check_snapshot(pattern, interval, timeout, event)
        self._may_register(f"snapshot of {pattern!r}")

        def register(function: Snapshot) -> Snapshot:
            self._may_register(f"snapshot of {pattern!r}")
            callback = callback_of(f"snapshot of {pattern!r}", function, ("channel",))
            rule = SnapshotRule(pattern, callback, interval, timeout, event)
            self._callbacks.snapshots.append(rule)
            return function

        return register

    @overload
    def method(self, name: M) -> M: ...
    @overload
    def method(self, name: str) -> Callable[[M], M]: ...
    def method(self, name: Any) -> Any:
        """Let clients call `function(client, *args)` as `name` (bare: as the function's own name); sync or async.

        Arguments are read as the annotations say, and a call whose arguments are wrong is an error. What the function
        returns is the reply. A ``Told``, such as ``CallFailed``, is answered with its text; another
        exception is logged, and the client told that there was one. To SignalR clients a generator is a stream,
        and a parameter annotated ``AsyncIterator[T]`` takes a stream of theirs.
        """
        return Endpoint("", self._callbacks.methods, self._may_register).method(name)

    def endpoint(self, path: str, *, transports: Sequence[str] | None = None) -> Endpoint:
        """Another SignalR hub, at `path`, with methods of its own; channels, callbacks and options are this hub's.

        Before the hub serves, or while it does and then in the event loop's thread: then its methods may be registered
        while the hub serves, too. ``remove_path`` removes it.

        Args:
            path: where clients connect; ``/negotiate`` is below it.
            transports: which of ``WebSockets``, ``ServerSentEvents`` and ``LongPolling`` its clients may use; None is
                what the option ``signalr_transports`` says.

        Raises:
            TypeError: a path that is no str, or transports that are no list.
            ValueError: the path is taken or none that a hub can have, or there is no such transport.
        """
        path = checked("endpoint's path", path, read_signalr_path)
        chosen = checked("endpoint's transports", transports, RULES["signalr_transports"])
        served = self._change(f"endpoint {path!r}", self._callbacks.endpoints.get(path))
        self._check_new(_signalr(path), is_signalr=True)
        if chosen is not None:
            self._callbacks.transports[path] = chosen
        methods = self._callbacks.endpoints[path] = Methods(is_served=served is not None)
        if served is None:
            return Endpoint(path, methods, self._may_register)
        try:
            served.add_endpoint(path)
        except BaseException:
            self._forget_endpoint(path)
            raise
        self._paths[signalr_key(path)] = path
        return Endpoint(path, methods, lambda what: None)

    def relay(self, config: RelayConfig) -> None:
        """Relay the clients of ``config.path`` to a backend; see ``fanwire.relay``.

        Before the hub serves, or while it does and then in the event loop's thread. ``remove_path`` removes it. A hub
        that has begun without a relay keeps its ``outbox_bytes_max``: give 2 MiB, as a hub with relays has it.
        Who may connect there is the backend's to say; this hub's callbacks are not asked about them. Raises TypeError
        for what is no ``RelayConfig``, and ValueError for a path that is taken, or for ``lanes.machines="shared"`` in a
        hub without a backbone.
        """
        if not isinstance(config, RelayConfig):
            raise TypeError(f"relay takes a RelayConfig(...), not {told(config)}")
        if config.lanes.machines == "shared" and not self._has_backbone:
            raise ConfigError(NO_BACKBONE, key=f"lanes.machines of the relay at {config.path}")
        route = route_of_relay(config)
        others = [*map(_signalr, self._callbacks.endpoints), *map(route_of_relay, self._relays)]
        served = self._change(f"a hub at {config.path!r}", clash(route, others))
        self._check_new(route, is_signalr=config.protocol == "signalr")
        if served is not None:
            served.add_relay(config)
        self._relays.append(config)

    def path(
        self,
        path: str,
        *,
        channel: str | None = None,
        wire: Literal["websocket", "events", "metrics"] = "websocket",
        origins: str | Sequence[str] | None = None,
        message_bytes_max: int | None = None,
    ) -> None:
        """Have clients connect at `path` as at ``/ws``, or as at ``/events``: so that a program keeps its URLs.

        ``hub.path("/ws/{room}", channel="odds:{room}")`` has who connects at ``/ws/7`` watch ``odds:7`` from the first
        byte on, as with ``/ws?channel=odds:7``. ``authorize`` is asked for that channel; the query may name others, and
        all else is as there. Before the hub serves or while it does; any thread.

        Args:
            path: percent-encoded or not, ``/caf%C3%A9`` or ``/café``: a request finds it however it is encoded itself.
                A segment ``{name}`` stands for any text but none, percent-decoded. Of several paths that a request
                fits the most exact one answers: one without placeholders, then the one of which the first segment that
                differs is a text.
            channel: what its clients watch; ``{name}`` stands for what the path has there. A request for what is no
                channel's name is answered with 400. None (default): what the query says.
            wire: ``websocket`` (default), ``events`` for event streams, or ``metrics`` for what ``/metrics`` answers.
            origins: as the option of ``serve``, for this path; None (default) is as that says.
            message_bytes_max: the same.

        Raises:
            TypeError: an argument is of a wrong type.
            ValueError: no request can have the path, a placeholder is there twice or in `channel` alone, no channel
                can have the name, another path would be hidden by it, or it is one over 1,024.
        """
        if channel is not None:
            check_text("channel", channel, "a channel's name, a str such as 'odds:{room}'")
        rule = PathRule(
            check_text("path", path, "what clients connect to, a str such as '/ws/{room}'"),
            checked("wire", wire, Choice(WIRES)),
            None
            if channel is None
            else check_text("channel", channel, "a channel's name, a str such as 'odds:{room}'"),
            checked("origins", origins, RULES["origins"]),
            checked("message_bytes_max", message_bytes_max, OrNone(RULES["message_bytes_max"])),
        )
        if rule.wire == "metrics" and message_bytes_max is not None:
            raise ValueError("message_bytes_max means nothing to a path of metrics: nobody sends messages there")
        self._ways.add(rule, self._check_free)

    def remove_path(self, path: str) -> None:
        """Have nobody connect any more at a path: one of ``path``, of an endpoint or a relay, or of the hub's own.

        At any time. Who is connected at one of ``path``, or of the hub's own, stays; any thread.
        Of an endpoint or a relay everybody is closed with ``drain_code``, 1,024 of a shard in a tenth of a second; who
        is asked about is answered with 404, and a relay's connections to its backend end. While the hub serves that is
        for the event loop's thread.

        Raises:
            ValueError: there is no such path. Those of ``signalr_paths`` are the option's.
            TypeError: it is no str.
            RuntimeError: this is another thread.
        """
        check_text("path", path, "what was given to hub.path, a str")
        relay = next((relay for relay in self._relays if relay.path == path), None)
        if relay is None and path not in self._callbacks.endpoints:
            self._ways.remove(path)
            return
        served = self._change(f"path {path!r}")
        if relay is not None:
            self._relays.remove(relay)
            if served is not None:
                served.remove_relay(relay)
            return
        self._forget_endpoint(path)
        if served is not None:
            del self._paths[signalr_key(path)]
            served.remove_endpoint(path)

    def _forget_endpoint(self, path: str) -> None:
        del self._callbacks.endpoints[path]
        self._callbacks.transports.pop(path, None)

    def _check_free(self, route: Route) -> None:
        """Raises ValueError for one too many, and where a hub or a relay has a path that this one would hide."""
        others = len(self._own_paths) + len(self._callbacks.endpoints) + len(self._relays) + self._ways.count
        check_room(route.path, others)
        hubs = map(_signalr, (*self._own_paths, *self._callbacks.endpoints))
        other = clash(route, (*hubs, *map(route_of_relay, self._relays)))
        if other is not None:
            raise ValueError(hiding(route.path, other))

    def _check_new(self, route: Route, *, is_signalr: bool) -> None:
        """The same of one that comes beside the hub's own methods, which the text says how to be without."""
        hubs = len(self._own_paths) + len(self._callbacks.endpoints)
        check_count(hubs + sum(relay.protocol == "signalr" for relay in self._relays) + is_signalr)
        other = clash(route, map(_signalr, self._own_paths))
        if other is not None:
            told = f"a hub at {route.path!r} and one at {other!r} would hide each other"
            own = list(self._own_paths)
            raise ValueError(f"{told}; the hub's own paths are {own!r}, Hub(signalr_paths=()) has none")
        self._check_free(route)
        other = self._ways.clash(route)
        if other is not None:
            raise ValueError(hiding(route.path, other))

    def _change(self, what: str, before: object = None) -> ServedPaths | None:
        """The serving of which something is to change; None where there is none."""
        if self._served_paths is None:
            self._may_register(what, before)
            return None
        self._served_paths.link.require_thread(what)
        self._check_alone(what, before)
        return self._served_paths

    def _may_register(self, what: str, before: object = None, taker: str = "") -> None:
        if self._is_serving:
            raise RuntimeError(f"{what} must be registered before the hub serves")
        self._check_alone(what, before, taker)

    def _check_alone(self, what: str, before: object, taker: str = "") -> None:
        if before is not None and taker:
            raise ValueError(f"{what} cannot be registered beside {taker}: what clients send goes to one of them")
        if before is not None:
            raise ValueError(f"{what} is registered already")


def _signalr(path: str) -> Route:
    return Route(path, "signalr")


def callback_of(what: str, function: Callable[..., Any], given: tuple[str, ...]) -> Callback:
    """The callback. Raises TypeError for a function that cannot be called so, or whose body a call does not run."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        name = getattr(function, "__name__", function)
        raise TypeError(f"{what} {name!r} has a yield: it is a generator, and its body would never run")
    check_parameters(what, function, given)
    return Callback(function)
