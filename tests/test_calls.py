"""Every public call: a wrong argument raises at once, and says which it is, what it was and what is allowed."""

import gc
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import fanwire
import pytest
from fanwire.testing import HubServer, NotAccepted, TestClient, serving
from support.waiting import until

pytestmark = pytest.mark.anyio

NO_CHANNEL = "channel must be the name of a channel, a str, not "
A_PATTERN = r"channel 'a\*': must not hold \*, which makes a pattern of it"
EVENT = "event must be the name of an event, a str without line breaks, or None"
TTL = "ttl must be a number of seconds over 0, or None, not "
TAGS = "tags must be a dict of names with a str, an int, a float or a bool each, or None"
FILTER = r'filter must be a dict such as \{"league": "seriea"\}, or None'
A_USER = "must be an Identity, or its id, a str"
CODE = r"code must be a close code, 1000 to 1003, 1007 to 1009, 1011 to 1014 or 3000 to 4999 \(RFC 6455 §7.4\), not "
EXCLUDE = "exclude must be a Client or several"
ITEMS = "items must be a list or another iterable of what is to be published"
START = "start must be 'live', 'keyframe', 'history' or None, not "
SECONDS = "must be a number of seconds"
A_METHOD = "method takes a function, or the name to register it by, a str, not "
TARGET = r"target must be a path and perhaps a query, such as '/ws\?channel=goals', not "
WITHIN = "timeout must be a number of seconds, 0 or more, not "
SURROGATE = "\ud800"


@dataclass
class World:
    """What the calls are made on."""

    hub: fanwire.Hub
    server: HubServer
    peer: TestClient
    client: fanwire.Client
    other: fanwire.Client
    """Of another hub that serves."""
    idle: fanwire.Hub
    """One that does not serve: there things are registered."""
    position: fanwire.Position


Given = tuple[object, ...] | Callable[[World], tuple[object, ...]]


def to(*rest: object) -> Callable[[World], tuple[object, ...]]:
    """Arguments behind a client."""
    return lambda world: (world.client, *rest)


Row = tuple[str, str, Given, dict[str, object], type[Exception], str]
"""A call, which of its parameters is wrong, what it gets by position and by name, and what comes of it."""
PUBLISHED: list[Row] = [
    ("Hub.publish", "channel", (5, "x"), {}, TypeError, f"{NO_CHANNEL}5$"),
    ("Hub.publish", "channel", ("a*", "x"), {}, fanwire.InvalidChannel, A_PATTERN),
    ("Hub.publish", "channel", ("", "x"), {}, fanwire.InvalidChannel, "channel '': must not be empty"),
    ("Hub.publish", "channel", (SURROGATE, "x"), {}, ValueError, r"without lone surrogates, not '\\ud800'"),
    ("Hub.publish", "event", ("a", "x"), {"event": 5}, TypeError, f"{EVENT}, not 5$"),
    ("Hub.publish", "event", ("a", "x"), {"event": "a\nb"}, ValueError, rf"{EVENT}, not 'a\\nb'$"),
    ("Hub.publish", "event", ("a", "x"), {"event": SURROGATE}, ValueError, f"{EVENT}, without lone surrogates"),
    ("Hub.publish", "key", ("a", "x"), {"key": 5}, TypeError, "key must be a str of at most 255 bytes, or None, not 5"),
    ("Hub.publish", "key", ("a", "x"), {"key": "k" * 256}, ValueError, "key of 256 bytes is over the bound of 255"),
    ("Hub.publish", "ttl", ("a", "x"), {"ttl": "x"}, TypeError, f"{TTL}'x'$"),
    ("Hub.publish", "ttl", ("a", "x"), {"ttl": True}, TypeError, f"{TTL}True$"),
    ("Hub.publish", "ttl", ("a", "x"), {"ttl": 0}, ValueError, f"{TTL}0$"),
    ("Hub.publish", "ttl", ("a", "x"), {"ttl": float("nan")}, ValueError, f"{TTL}nan$"),
    ("Hub.publish", "keyframe", ("a", "x"), {"keyframe": 5}, TypeError, "keyframe must be True or False, not 5"),
    ("Hub.publish", "tags", ("a", "x"), {"tags": 5}, TypeError, f"{TAGS}, not 5"),
    ("Hub.publish", "tags", ("a", "x"), {"tags": {"b": None}}, TypeError, 'tag "b": expected a str, an int'),
    ("Hub.publish", "exclude", ("a", "x"), {"exclude": "ann"}, TypeError, f"{EXCLUDE}, not 'ann'"),
    ("Hub.publish", "exclude", ("a", "x"), {"exclude": None}, TypeError, f"{EXCLUDE}, not None"),
    ("Hub.publish", "exclude", ("a", "x"), {"exclude": [7]}, TypeError, f"{EXCLUDE}, each a Client, not 7"),
    ("Hub.publish_many", "channel", (5, ["x"]), {}, TypeError, f"{NO_CHANNEL}5$"),
    ("Hub.publish_many", "channel", ("a*", []), {}, fanwire.InvalidChannel, A_PATTERN),
    ("Hub.publish_many", "items", ("a", "abc"), {}, TypeError, f"{ITEMS}, which publish takes one by one, not 'abc'"),
    ("Hub.publish_many", "items", ("a", b"abc"), {}, TypeError, ITEMS),
    ("Hub.publish_many", "items", ("a", {"x": 1}), {}, TypeError, ITEMS),
    ("Hub.publish_many", "items", ("a", 5), {}, TypeError, ITEMS),
    ("Hub.publish_many", "event", ("a", []), {"event": 5}, TypeError, EVENT),
    ("Hub.publish_many", "key", ("a", []), {"key": 5}, TypeError, "key must be"),
    ("Hub.publish_many", "ttl", ("a", []), {"ttl": True}, TypeError, TTL),
    ("Hub.publish_many", "tags", ("a", []), {"tags": 5}, TypeError, f"{TAGS}, not 5"),
    ("Hub.publish_many", "keyframe", ("a", []), {"keyframe": 5}, TypeError, "keyframe must be True or False, not 5"),
    ("Hub.publish_many", "exclude", ("a", []), {"exclude": [7]}, TypeError, f"{EXCLUDE}, each a Client, not 7"),
    ("Hub.remove", "tags", ("a",), {"key": "k", "tags": 5}, TypeError, f"{TAGS}, not 5"),
    ("Hub.remove", "channel", (5,), {"key": "k"}, TypeError, f"{NO_CHANNEL}5$"),
    ("Hub.remove", "channel", ("a",), {"key": "k"}, ValueError, 'channel "a" has policy "every": only "latest" keeps'),
    ("Hub.remove", "key", ("a",), {"key": None}, TypeError, "key must be a str of at most 255 bytes, not None"),
    ("Hub.remove", "key", ("a",), {"key": 5}, TypeError, "key must be a str of at most 255 bytes"),
    ("Hub.remove", "key", ("a",), {"key": "k" * 256}, ValueError, "key of 256 bytes is over the bound of 255"),
    ("Hub.remove", "event", ("a",), {"key": "k", "event": 5}, TypeError, EVENT),
    ("Hub.remove", "exclude", ("a",), {"key": "k", "exclude": "x"}, TypeError, EXCLUDE),
    ("Hub.publish_to_user", "identity", (5, "x"), {}, TypeError, f"identity {A_USER}, not 5"),
    ("Hub.publish_to_user", "identity", to("x"), {}, TypeError, f"identity {A_USER}, not <Client"),
    ("Hub.publish_to_user", "identity", ("", "x"), {}, ValueError, f"identity {A_USER} that is not empty"),
    ("Hub.publish_to_user", "identity", (fanwire.Identity(None), "x"), {}, ValueError, "identity must be a user's"),
    ("Hub.publish_to_user", "event", ("ann", "x"), {"event": 5}, TypeError, EVENT),
    ("Hub.publish_to_user", "ttl", ("ann", "x"), {"ttl": "x"}, TypeError, TTL),
    ("Hub.publish_to_user", "ttl", ("ann", "x"), {"ttl": True}, TypeError, f"{TTL}True$"),
    ("Hub.publish_to_user", "exclude", ("ann", "x"), {"exclude": "x"}, TypeError, EXCLUDE),
    (
        "Hub.publish_to_all",
        "path",
        ("x",),
        {"path": "/nope"},
        ValueError,
        "path must be '/signalr' or None, not '/n",
    ),
    ("Hub.publish_to_all", "path", ("x",), {"path": 5}, TypeError, "path must be the path of a hub, a str, not 5"),
    ("Hub.publish_to_all", "event", ("x",), {"event": 5}, TypeError, EVENT),
    ("Hub.publish_to_all", "ttl", ("x",), {"ttl": "x"}, TypeError, TTL),
    ("Hub.publish_to_all", "ttl", ("x",), {"ttl": True}, TypeError, f"{TTL}True$"),
    ("Hub.publish_to_all", "exclude", ("x",), {"exclude": "x"}, TypeError, EXCLUDE),
]
ASKED: list[Row] = [
    ("Hub.send", "client", ("ann", "x"), {}, TypeError, "client must be a Client, not 'ann'"),
    (
        "Hub.send",
        "client",
        lambda world: (world.other, "x"),
        {},
        ValueError,
        "client must be one of this hub, not c0",
    ),
    ("Hub.send", "event", to("x"), {"event": 5}, TypeError, EVENT),
    ("Hub.disconnect", "client", ("ann",), {}, TypeError, "client must be a Client, not 'ann'"),
    ("Hub.disconnect", "client", lambda world: (world.other,), {}, ValueError, "client must be one of this hub"),
    ("Hub.disconnect", "code", to("1000"), {}, TypeError, f"{CODE}'1000'"),
    ("Hub.disconnect", "code", to(True), {}, TypeError, f"{CODE}True"),
    ("Hub.disconnect", "code", to(1010), {}, ValueError, f"{CODE}1010"),
    ("Hub.disconnect", "code", to(1005), {}, ValueError, f"{CODE}1005"),
    ("Hub.disconnect", "code", to(2**70), {}, ValueError, CODE),
    ("Hub.disconnect", "reason", to(1000, 5), {}, TypeError, "reason must be a str, not 5"),
    ("Hub.clients", "user", (5,), {}, TypeError, f"user {A_USER}, not 5"),
    ("Hub.clients", "user", (fanwire.Identity(None),), {}, ValueError, "user must be a user's, not anonymous"),
    ("Hub.disconnect_user", "user", (None,), {}, TypeError, f"user {A_USER}, not None"),
    ("Hub.disconnect_user", "code", ("nobody",), {"code": 5}, ValueError, f"{CODE}5"),
    ("Hub.disconnect_user", "reason", ("nobody",), {"reason": 5}, TypeError, "reason must be a str, not 5"),
    ("Hub.subscribe", "client", ("ann", "a"), {}, TypeError, "client must be a Client, not 'ann'"),
    ("Hub.subscribe", "client", lambda world: (world.other, "a"), {}, ValueError, "client must be one of this hub"),
    ("Hub.subscribe", "channel", to(5), {}, TypeError, NO_CHANNEL),
    ("Hub.subscribe", "channel", to("a*"), {}, fanwire.InvalidChannel, A_PATTERN),
    ("Hub.subscribe", "since", to("a"), {"since": 5}, TypeError, "since must be a Position, as publish returns it, or"),
    ("Hub.subscribe", "start", to("a"), {"start": "now"}, ValueError, f"{START}'now'"),
    ("Hub.subscribe", "start", to("a"), {"start": 5}, TypeError, f"{START}5"),
    ("Hub.subscribe", "filter", to("a"), {"filter": 5}, TypeError, f"{FILTER}, not 5"),
    ("Hub.subscribe", "filter", to("a"), {"filter": {"b": []}}, ValueError, 'filter: tag "b": an empty array'),
    ("Hub.unsubscribe", "client", ("ann", "a"), {}, TypeError, "client must be a Client, not 'ann'"),
    ("Hub.unsubscribe", "channel", to(5), {}, TypeError, NO_CHANNEL),
    ("Hub.unsubscribe", "channel", to("a*"), {}, fanwire.InvalidChannel, A_PATTERN),
    ("Hub.occupancy", "channel", (5,), {}, TypeError, NO_CHANNEL),
    ("Hub.occupancy", "channel", ("a*",), {}, fanwire.InvalidChannel, A_PATTERN),
    ("Hub.occupancy", "channel", ("",), {}, fanwire.InvalidChannel, "must not be empty"),
    ("Hub.occupancy_of_all", "channel", (5,), {}, TypeError, NO_CHANNEL),
    ("Hub.listen", "pattern", (5,), {}, TypeError, "pattern must be a str such as 'odds:.', not 5"),
    ("Hub.listen", "pattern", ("",), {}, fanwire.InvalidChannel, "must not be empty"),
    ("Hub.position", "channel", (5,), {}, TypeError, NO_CHANNEL),
    ("Hub.position", "channel", ("a*",), {}, fanwire.InvalidChannel, A_PATTERN),
    ("Hub.presence", "channel", (5,), {}, TypeError, NO_CHANNEL),
    ("Hub.presence", "channel", ("a",), {}, LookupError, r"channel 'a' has no presence: name it in Hub\(channels\)"),
    ("Hub.delivered", "position", (5,), {}, TypeError, "position must be a Position, as publish returns it, not 5"),
    ("Hub.delivered", "fraction", lambda world: (world.position, "x"), {}, TypeError, "fraction must be a number, > 0"),
    ("Hub.delivered", "fraction", lambda world: (world.position, True), {}, TypeError, "> 0 and <= 1, not True"),
    ("Hub.delivered", "fraction", lambda world: (world.position, 2), {}, ValueError, "> 0 and <= 1, not 2"),
    ("Client.send", "event", ("x",), {"event": 5}, TypeError, EVENT),
    ("Client.send", "event", ("x",), {"event": "a\nb"}, ValueError, EVENT),
    ("Client.subscribe", "channel", (5,), {}, TypeError, NO_CHANNEL),
    ("Client.subscribe", "since", ("a",), {"since": 5}, TypeError, "since must be a Position"),
    ("Client.subscribe", "start", ("a",), {"start": "now"}, ValueError, START),
    ("Client.subscribe", "filter", ("a",), {"filter": 5}, TypeError, f"{FILTER}, not 5"),
    ("Client.unsubscribe", "channel", ("a*",), {}, fanwire.InvalidChannel, A_PATTERN),
    ("Client.close", "code", ("x",), {}, TypeError, CODE),
    ("Client.close", "reason", (1000, 5), {}, TypeError, "reason must be a str, not 5"),
    ("Client.close", "reason", (1000, SURROGATE), {}, ValueError, "reason must be a str, without lone surrogates"),
    ("Client.close", "reason", (1000, "x" * 200), {}, ValueError, "close reason of 200 bytes is over the bound of 123"),
    ("Client.invoke", "target", (5,), {}, TypeError, "target must be the name of a method of the client, a str, not 5"),
]
REGISTERED: list[Row] = [
    *(
        (f"Hub.{name}", "function", (5,), {}, TypeError, f"{name} must be a function, not int")
        for name in ("authenticate", "authorize", "client", "on_connect", "on_disconnect", "on_message", "on_presence")
    ),
    ("Hub.method", "name", (5,), {}, TypeError, f"{A_METHOD}5"),
    ("Hub.method", "name", ("",), {}, ValueError, "name must be a str that is not empty"),
    ("Endpoint.method", "name", (5,), {}, TypeError, f"{A_METHOD}5"),
    ("Hub.snapshot", "pattern", (5,), {}, TypeError, "pattern must be a str such as 'odds:.', not 5"),
    ("Hub.snapshot", "interval", ("a",), {"interval": "x"}, TypeError, f"interval {SECONDS}.*, not 'x'"),
    ("Hub.snapshot", "interval", ("a",), {"interval": -1}, ValueError, f"interval {SECONDS}.*, not -1"),
    ("Hub.snapshot", "timeout", ("a",), {"timeout": "x"}, TypeError, f"timeout {SECONDS}.*, not 'x'"),
    ("Hub.snapshot", "event", ("a",), {"event": 5}, TypeError, f"{EVENT}, not 5"),
    ("Hub.endpoint", "path", (5,), {}, TypeError, "path.* must be .*, not 5"),
    ("Hub.endpoint", "path", ("nope",), {}, ValueError, "path.* must .*, not 'nope'"),
    ("Hub.endpoint", "transports", ("/x",), {"transports": "x"}, TypeError, "transports must be .*, not 'x'"),
    (
        "Hub.path",
        "path",
        (5,),
        {},
        TypeError,
        "path must be what clients connect to, a str such as '/ws/{room}', not 5",
    ),
    ("Hub.path", "path", ("nope",), {}, ValueError, "path ['\"]nope['\"]: must begin with /"),
    ("Hub.path", "channel", ("/x",), {"channel": 5}, TypeError, "channel must be a channel's name, a str .*, not 5"),
    ("Hub.path", "wire", ("/x",), {"wire": "tcp"}, ValueError, "wire must be 'websocket', 'events' or 'metrics'"),
    ("Hub.path", "origins", ("/x",), {"origins": 5}, TypeError, "origins must be .*, not 5"),
    (
        "Hub.path",
        "message_bytes_max",
        ("/x",),
        {"message_bytes_max": "x"},
        TypeError,
        "message_bytes_max must be .*'x'",
    ),
    ("Hub.remove_path", "path", (5,), {}, TypeError, "path must be what was given to hub.path, a str, not 5"),
    ("Hub.remove_path", "path", ("/x",), {}, ValueError, "there is no path '/x' of hub.path to remove"),
    ("Hub.relay", "config", (5,), {}, TypeError, r"relay takes a RelayConfig\(...\), not 5"),
    ("Hub.start", "address", ([],), {}, TypeError, "address must be HOST:PORT"),
    (
        "Hub.start",
        "address",
        ("127.0.0.1:65536",),
        {},
        ValueError,
        "with a PORT of 0 to 65535; .*:65536'$",
    ),
    ("Hub.start", "shards", (0,), {"shards": "x"}, TypeError, "shards must be .*, not 'x'"),
    ("Hub.start", "options", (0,), {"pings": 5}, TypeError, "unknown option 'pings'"),
    ("Hub.run", "address", (None,), {}, TypeError, "address must be HOST:PORT"),
    ("Hub.run", "shards", (0,), {"shards": 0}, ValueError, "shards must be .*, not 0"),
    ("Hub.run", "workers", (0,), {"workers": "x"}, TypeError, "workers must be .*, or 'auto', not 'x'"),
    ("Hub.run", "worker_timeout", (0,), {"worker_timeout": 0}, ValueError, "worker_timeout must be .*, not 0"),
    ("Hub.run", "options", (0,), {"pings": 5}, TypeError, "unknown option 'pings'"),
    ("Hub.serve", "address", ([],), {}, TypeError, "address must be HOST:PORT"),
    ("Hub.serve", "shards", (0,), {"shards": 0}, ValueError, "shards must be .*, not 0"),
    ("Hub.serve", "options", (0,), {"pings": 5}, TypeError, "unknown option 'pings'"),
]
ATTACHED: list[Row] = [
    ("Hub.attach", "connection", (5, ["a"]), {}, fanwire.AdoptionError, "cannot be attached"),
    ("Hub.attach", "channels", (5, "a"), {}, TypeError, "channels must be a list of names of channels, not 'a'"),
    (
        "Hub.attach",
        "since",
        (5, ["a"]),
        {"since": 5},
        TypeError,
        "since must be positions by the names of their channels",
    ),
    ("Hub.attach", "start", (5, ["a"]), {"start": "now"}, ValueError, f"{START}'now'"),
    ("Hub.attach", "filter", (5, ["a"]), {"filter": 5}, TypeError, f"{FILTER}, not 5"),
    ("Hub.detach", "connection", (5,), {}, fanwire.AdoptionError, "cannot be attached"),
    ("Hub.detach", "channels", (5, "a"), {}, TypeError, "channels must be a list of names of channels, not 'a'"),
    ("Hub.adopt", "connection", (5,), {}, fanwire.AdoptionError, "cannot be attached"),
    ("Hub.adopt", "channels", (5, "a"), {}, TypeError, "channels must be a list of names of channels, not 'a'"),
    ("Hub.adopt", "since", (5,), {"since": {"a": 5}}, TypeError, "since must be a Position"),
    ("Hub.adopt", "start", (5,), {"start": 5}, TypeError, f"{START}5"),
    ("Hub.adopt", "filter", (5,), {"filter": 5}, TypeError, f"{FILTER}, not 5"),
    ("Hub.adopt", "on_message", (5,), {"on_message": 5}, TypeError, "on_message must be a function of one argument"),
]
TESTED: list[Row] = [
    ("HubServer.url", "target", (5,), {}, TypeError, f"{TARGET}5"),
    ("HubServer.url", "scheme", ("/ws", 5), {}, TypeError, "scheme must be a str such as 'ws', not 5"),
    ("HubServer.connect", "target", ("ws",), {}, ValueError, f"{TARGET}'ws'"),
    ("HubServer.connect", "headers", (), {"headers": 5}, TypeError, "headers must be a mapping of names to values"),
    (
        "HubServer.connect",
        "origin",
        (),
        {"origin": 5},
        TypeError,
        "origin must be the origin of a page, a str, or",
    ),
    ("HubServer.connect", "subprotocols", (), {"subprotocols": "x"}, TypeError, "subprotocols must be a list of names"),
    ("TestClient.send", "data", ({1},), {}, TypeError, "set is not JSON serializable"),
    ("TestClient.receive", "timeout", ("x",), {}, TypeError, f"{WITHIN}'x'"),
    ("TestClient.receive_raw", "timeout", (-1,), {}, ValueError, f"{WITHIN}-1"),
    ("TestClient.subscribe", "channels", (), {}, ValueError, "channels must be one name or several, not none"),
    ("TestClient.subscribe", "channels", (5,), {}, TypeError, "channels must be names of channels, each a str, not 5"),
    ("TestClient.subscribe", "timeout", ("a",), {"timeout": None}, TypeError, WITHIN),
    ("TestClient.call", "method", (5,), {}, TypeError, "method must be the name of a method, a str, not 5"),
    ("TestClient.call", "timeout", ("a",), {"timeout": True}, TypeError, WITHIN),
    ("TestClient.closed", "timeout", ("x",), {}, TypeError, WITHIN),
    ("TestClient.close", "code", (5,), {}, ValueError, f"{CODE}5"),
    ("TestClient.close", "reason", (1000, 5), {}, TypeError, "reason must be a str, not 5"),
]
ROWS = [*PUBLISHED, *ASKED, *REGISTERED, *ATTACHED, *TESTED]
ANYTHING = {
    **dict.fromkeys(
        ("Hub.publish", "Hub.publish_to_user", "Hub.publish_to_all", "Hub.remove", "Hub.send", "Client.send"), "data"
    ),
    "Client.invoke": "arguments",
    "TestClient.call": "arguments",
    "Hub.lifespan": "app",
}
"""Parameters that are the application's own: what they hold is encoded, which tests/test_publishable.py tests; or, of
``lifespan``, nothing is done with it.
"""
OWNERS: dict[str, type] = {
    "Hub": fanwire.Hub,
    "Client": fanwire.Client,
    "Endpoint": fanwire.Endpoint,
    "HubServer": HubServer,
    "TestClient": TestClient,
}


def public_calls() -> set[tuple[str, str]]:
    """Each parameter of each public call of these classes."""
    found = set()
    for owner, kind in OWNERS.items():
        for name, function in inspect.getmembers(kind, callable):
            if not name.startswith("_"):
                parameters = list(inspect.signature(function).parameters)[1:]
                found |= {(f"{owner}.{name}", parameter) for parameter in parameters}
    return found


def test_the_table_has_every_parameter_of_every_public_call() -> None:
    assert public_calls() - set(ANYTHING.items()) == {(row[0], row[1]) for row in ROWS} - set(ANYTHING.items())


async def made(world: World, row: Row) -> None:
    """Make the call."""
    where, _, given, named, _, _ = row
    owner, _, name = where.partition(".")
    arguments = given(world) if callable(given) else given
    target: Any = {
        "Hub": world.idle if row in REGISTERED else world.hub,
        "Client": world.client,
        "Endpoint": world.idle.endpoint("/other") if owner == "Endpoint" else None,
        "HubServer": world.server,
        "TestClient": world.peer,
    }[owner]
    if where == "Hub.run":
        await anyio.to_thread.run_sync(lambda: target.run(*arguments, **named))
        return
    result = getattr(target, name)(*arguments, **named)
    if hasattr(result, "__aenter__"):
        async with result:
            return
    if inspect.isawaitable(result):
        await result


async def fault(world: World, row: Row) -> str | None:
    """What is wrong with what comes of a row."""
    error, says = row[-2:]
    try:
        await made(world, row)
    except Exception as raised:
        told = "; ".join([str(raised), *getattr(raised, "__notes__", [])])
        is_right = type(raised) is error and re.search(says, told) and "while processing" not in told
        return None if is_right else f"{type(raised).__name__}: {told}"
    return "nothing was raised"


async def test_a_wrong_argument_raises_and_is_named(hub: fanwire.Hub) -> None:
    hub.authenticate(lambda request: request.query.get("user"))
    elsewhere = fanwire.Hub()
    elsewhere.on_connect(lambda client: None)
    async with (
        serving(hub) as server,
        server.connect("/ws?user=ann") as peer,
        serving(elsewhere) as another,
        another.connect(),
    ):
        await until(lambda: hub.clients() and elsewhere.clients())
        (client,), (other,) = hub.clients(), elsewhere.clients()
        world = World(hub, server, peer, client, other, fanwire.Hub(), hub.publish("a", "x"))
        assert not [(row, why) for row in ROWS if (why := await fault(world, row))]
        assert hub.clients() == [client], "none of them did anything"
        assert hub.publish("a", "x").offset == 2


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ((401,), TypeError, r"reason must be a str, not 401; a status is named: Refused\('why', status=401\)"),
        ((b"no",), TypeError, "reason must be a str, not b'no'"),
        ({"status": "401"}, TypeError, "status must be a whole number, 400 to 599, not '401'"),
        ({"status": True}, TypeError, "status must be a whole number, 400 to 599, not True"),
        ({"status": 200}, ValueError, "status must be a whole number, 400 to 599, not 200"),
    ],
)
def test_a_refusal_is_checked_where_it_is_made(given: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        fanwire.Refused(**given) if isinstance(given, dict) else fanwire.Refused(*given)


async def test_what_an_answer_cannot_say_raises_in_the_callback(hub: fanwire.Hub) -> None:
    said: list[str] = []

    @hub.authenticate
    def who(request: fanwire.Request) -> None:
        headers = request.response_headers
        wrong: list[Callable[[], object]] = [
            lambda: headers.add("X-A", "1\r\nX-B: 2"),
            lambda: headers.add("Content-Length", "5"),
            lambda: headers.add("a b", "c"),
            lambda: headers.__setitem__("X-A", 5),  # type: ignore[arg-type]
            lambda: headers.add("X-Ä", "x"),
            lambda: headers.add("X-A", "x" * (16 << 10)),
            lambda: setattr(request, "subprotocol", "other"),
            lambda: fanwire.Identity("ann", ["admin"]),  # type: ignore[arg-type]
        ]
        for call in wrong:
            try:
                call()
            except (TypeError, ValueError) as error:
                said.append(str(error))
        headers["X-A"] = "1"
        with pytest.raises(ValueError, match="visible"):
            headers["x-a"] = "\n"

    async with serving(hub) as server, server.connect() as peer:
        assert peer.response_headers.all("x-a") == ["1"]
    assert said == [
        'header "X-A" has a value with bytes that are not visible ASCII',
        'header "Content-Length" is the engine\'s own to set',
        'header "a b" has a name that is no token',
        "a response header's value must be a str, not int",
        "a response header's name must be of visible ASCII",
        'header "X-A" is one too many: together they are 16391 bytes, over the bound of 16384',
        "only a subprotocol that the client offers can be chosen",
        "an identity's claims must be a mapping, not list",
    ]


async def test_a_client_of_an_earlier_serving_excludes_nobody(hub: fanwire.Hub) -> None:
    hub.on_connect(lambda client: None)
    before: fanwire.Client | None = None
    for _ in range(2):
        async with serving(hub) as server, server.connect("/ws?channel=a") as peer:
            await until(hub.clients)
            if before is None:
                (before,) = hub.clients()
                continue
            assert [client.id for client in hub.clients()] == [before.id], "the numbers begin anew"
            hub.publish("a", "x", exclude=before)
            assert await peer.receive() == "x"
            hub.publish("a", "y", exclude=hub.clients())
            hub.send(before, "nobody's")
            hub.subscribe(before, "b")
            hub.publish("a", "z")
            assert await peer.receive() == "z"
    assert before is not None


async def test_nothing_is_published_to_users_or_paths_that_cannot_be(hub: fanwire.Hub) -> None:
    bare = fanwire.Hub(signalr_paths=())
    async with serving(bare):
        with pytest.raises(LookupError, match="by what authenticate answered; none is registered"):
            bare.publish_to_user("ann", "x")
        with pytest.raises(ValueError, match="reaches nobody: signalr_paths is empty"):
            bare.publish_to_all("x")
    hub.endpoint("/Live")
    async with serving(hub):
        assert hub.publish_to_all("x", path="/live").offset == hub.publish_to_all("x").offset == 1
        assert hub.publish_to_all("x", path="/Live").offset == 2


async def test_a_pattern_is_no_channel_for_clients_either(hub: fanwire.Hub) -> None:
    async with serving(hub) as server, server.connect() as peer:
        with pytest.raises(fanwire.CallFailed, match=r"must not hold \*"):
            await peer.subscribe("odds:*")
        with pytest.raises(NotAccepted, match=r'400: channel name "odds:\*": must not hold \*'):
            async with server.connect("/ws?channel=odds:*"):
                raise AssertionError


class TestContexts:
    @pytest.mark.parametrize("make", [lambda hub: hub.serve(0), serving], ids=["serve", "serving"])
    async def test_only_async_with_enters_them(self, hub: fanwire.Hub, make: Callable[[fanwire.Hub], Any]) -> None:
        by_with = r"cannot be entered by `with`: write `async with .*serv.*\(\.\.\.\)`"
        with pytest.raises(TypeError, match=by_with), make(hub):
            raise AssertionError
        with pytest.raises(TypeError, match=r"cannot be awaited: write `async with"):
            await make(hub)
        with pytest.warns(RuntimeWarning, match="was never entered, so it did nothing"):
            make(hub)
            gc.collect()
        with pytest.raises(AttributeError, match=r"has no 'url' before it is entered: write `async with"):
            make(hub).url  # noqa: B018
