"""A failure at every engine call and every callback in turn: whoever it belongs to may go, another is served."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import anyio
import fanwire
import fanwire.serving
import pytest
from fanwire._engine import Engine
from fanwire.application import ApplicationStats
from fanwire.relay.config import CallShare, Everyone, Lanes, MessageShare, Private, QueryShare, RelayConfig
from support import injection, scripted_backend
from support.clients import connected
from support.hub_client import hub_client
from support.injection import LIVES, FaultyEngine, Panic
from support.plain_backend import PlainBackend
from support.scripted_backend import ScriptedBackend, Session
from support.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend", [("asyncio", {"use_uvloop": False}), ("trio", {})], ids=["asyncio", "trio"]
    ),
]
ANY = "127.0.0.1:0"
OFTEN = Lanes(backoff_min=0.01, backoff_max=0.02, connect_timeout=1.0, snapshot_bytes_max=1_024, on_gap="message")
RECORD_BYTES_MAX = 4_096
Victim = Callable[[str], Awaitable[None]]
APPLICATIONS: tuple[Victim, ...] = (injection.raw, injection.events, injection.signalr)
VICTIMS: tuple[Victim, ...] = (*APPLICATIONS, injection.relayed, injection.asked, injection.plain, injection.scraper)
CALLBACKS = {"authenticate", "authorize", "on_connect", "on_message", "on_disconnect", "on_presence", "snapshot"}
CALLBACKS |= {"echo", "counts", "sums", "asks"}
CONVERSING = {"begun", "message", "left"}
"""Where the function of ``@hub.client`` fails: before its first message, at one, and when its client has left."""
METHODS = {name for name in dir(Engine) if not name.startswith("_") and callable(getattr(Engine, name))}
NOT_BY_EVENTS = {
    *LIVES,
    *("publish_to_hub", "publish_to_user", "subscribe", "unsubscribe", "channels", "occupancy", "track", "untrack"),
    *("flush", "send", "position", "remove", "listen_to", "add_route", "remove_route", "welcome", "adopt", "broadcast"),
    *("tell", "mirror", "unmirror", "follow", "unfollow", "ask_about_all"),
}
"""What the application calls itself, where it hears of the exception; or its server, of a mounted hub."""


@dataclass
class Served:
    """A hub, its engine, and what its callbacks are to raise."""

    hub: fanwire.Hub
    address: str = ""
    engine: Any = None
    fails: dict[str, BaseException] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)

    def at(self, callback: str) -> None:
        """A callback is called."""
        self.called.add(callback)
        error = self.fails.get(callback)
        if error is not None:
            raise error


def greet(session: Session) -> None:
    """A greeting behind the handshake."""
    session.say({}, {"type": 1, "target": "Hello", "arguments": []})


def be_down_once(backend: ScriptedBackend, session: Session) -> None:
    """One answer of a server that is down: ``/readyz`` is told, and told again when it is back."""
    backend.negotiate = scripted_backend.negotiate
    session.answer(503)


def answer(backend: ScriptedBackend, session: Session, message: dict[str, Any]) -> None:
    """As a hub does; for what is big more comes before the answer than is kept; one call ends the victims' lanes."""
    if message.get("target") == "Watch" and message["arguments"] == ["big"]:
        for target in ("Snapshot", "Odds"):
            session.say({"type": 1, "target": target, "arguments": ["big", "x" * (RECORD_BYTES_MAX - 100)]})
        session.say({"type": 3, "invocationId": message["invocationId"], "result": None})
        return
    if message.get("target") == "Drop":
        backend.negotiate = partial(be_down_once, backend)
        for lane in backend.watching("victims"):
            lane.end()
    scripted_backend.answer(session, message)


async def converse(served: Served, client: fanwire.Client) -> None:
    """As ``on_message`` does, in a function that lasts as long as its client."""
    served.at("begun")
    async for message in client:
        served.at("message")
        client.send(message)
    served.at("left")


def registered(served: Served, *, is_async: bool, converses: bool) -> fanwire.Hub:
    """A hub on which all that can be is registered, as sync or async functions."""
    hub = served.hub

    def callback(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def now(*arguments: Any) -> Any:
            served.at(name)
            return answer(*arguments)

        async def later(*arguments: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            return now(*arguments)

        return later if is_async else now

    def turn_away(client: fanwire.Client) -> None:
        if client.identity is not None and client.identity.id == "mallory":
            raise fanwire.Refused("turned away")

    hub.authenticate(callback("authenticate", lambda request: request.query.get("user", "ada")))
    hub.authorize(callback("authorize", lambda client, channel: channel != "secret"))
    hub.on_connect(callback("on_connect", turn_away))
    if converses:
        hub.client(partial(converse, served))
    else:
        hub.on_message(callback("on_message", lambda client, data: client.send(data)))
    hub.on_disconnect(callback("on_disconnect", lambda client, gone: None))
    hub.on_presence(callback("on_presence", lambda change: None))
    hub.snapshot("board", interval=0.001)(callback("snapshot", lambda channel: {"now": 1}))
    hub.snapshot("bare", interval=0.001)(lambda channel: None)

    if is_async:

        @hub.method("echo")
        async def echo(client: fanwire.Client, word: str) -> str:
            served.at("echo")
            return word
    else:

        @hub.method("echo")
        def echo_now(client: fanwire.Client, word: str) -> str:
            served.at("echo")
            return word

    @hub.method
    async def counts(client: fanwire.Client, count: int) -> AsyncIterator[int]:
        for number in range(count):
            served.at("counts")
            yield number

    @hub.method
    async def sums(client: fanwire.Client, numbers: AsyncIterator[int]) -> int:
        served.at("sums")
        return sum([number async for number in numbers])

    @hub.method
    async def asks(client: fanwire.Client) -> Any:
        served.at("asks")
        return await client.invoke("question")

    return hub


@asynccontextmanager
async def served(monkeypatch: pytest.MonkeyPatch, *, is_async: bool, converses: bool = False) -> AsyncIterator[Served]:
    """All of it, with relays of both kinds, on one hub."""
    made: list[FaultyEngine] = []

    def make(*arguments: Any) -> Any:
        made.append(FaultyEngine(*arguments))
        return made[-1]

    monkeypatch.setattr(fanwire.serving, "Engine", make)
    monkeypatch.setattr(fanwire.presence, "BATCH_S", 0.001)
    monkeypatch.setattr(fanwire.relay.backed, "RECORD_BYTES_MAX", RECORD_BYTES_MAX)
    channels = {"b*": fanwire.Channel(start="keyframe"), "room": fanwire.Channel(presence=True, presence_linger=0)}
    it = Served(fanwire.Hub(channels, handshake_timeout=2.0, close_timeout=0.2, poller="epoll"))
    registered(it, is_async=is_async, converses=converses)
    with ScriptedBackend() as backend, PlainBackend().serving() as plain:
        backend.answer, backend.shake_hands = partial(answer, backend), greet
        share = CallShare(subscribe="Watch", unsubscribe="Unwatch", snapshot="Snapshot")
        private = Private(pooled=("Pooled",), idle=0.05)
        common: dict[str, Any] = {"lanes": OFTEN, "linger": 0.01, "admit": "anyone"}
        upstream = (f"http://{backend.address}/live",)
        everyone = Everyone(welcome=("Hello",))
        live = RelayConfig(
            path="/live", upstream=upstream, share=(share,), private=private, everyone=everyone, **common
        )
        it.hub.relay(live)
        it.hub.relay(replace(live, path="/asked", admit="negotiate", admit_for=0.001, everyone=Everyone()))
        shares = (QueryShare(query=("match",)), MessageShare(subscribe="/watch", unsubscribe="/unwatch"))
        upstream = (f"ws://{plain}/plain",)
        it.hub.relay(RelayConfig(path="/plain", upstream=upstream, protocol="websocket", share=shares, **common))
        async with it.hub.serve(ANY, drain_timeout=0.2, outbox_bytes_max=4_096) as serving:
            it.address, it.engine = serving.address, made[-1]
            yield it


async def is_served(it: Served) -> None:
    """New clients of each kind get what is theirs."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        peer, stream, client, relayed, plain = (
            await enter(connected(it.address, "/ws?channel=room")),
            await enter(connected(it.address, "/ws?channel=board")),
            await enter(hub_client(it.address)),
            await enter(hub_client(it.address, "/live")),
            await enter(connected(it.address, "/plain?match=m")),
        )
        await peer.send_json(call="echo", args=["x"], id=1)
        assert await peer.receive_json() == {"id": 1, "result": "x"}
        await peer.send("said")
        assert await peer.receive() == "said"
        assert await stream.receive_json() == {"now": 1}
        assert await client.invoke("echo", "x") == {"result": "x"}
        assert (await relayed.receive())["target"] == "Hello"
        assert await relayed.invoke("Private", "x") == {"result": "x"}
        await relayed.send({"type": 1, "invocationId": "w", "target": "Watch", "arguments": ["m"]})
        while (await relayed.receive())["type"] != 3:
            pass
        await plain.send("x")
        assert await plain.receive() == "x"


async def all_gone(it: Served) -> None:
    """Return when nobody is connected, and nothing is left of those who were."""
    pump = it.hub._life.pump  # type: ignore[union-attr]

    def left() -> dict[str, Any]:
        stats = it.hub.relay_stats()
        found = {
            "connections": it.engine.stats().connections,
            "parting": pump.application.is_parting,
            "application": pump.application.stats() != ApplicationStats(clients=0, openings=0, parting=0),
            "clients": [client for relay in pump._relays for client in relay._clients],
            "openings": [one for relay in pump._relays for one in getattr(relay, "_at_work", ())],
            "lanes": [lane for relay in stats for lane in relay.lanes],
            "private lanes": sum(relay.private_lanes for relay in stats),
        }
        return {name: what for name, what in found.items() if what}

    with suppress(TimeoutError):
        await until(lambda: not left())
    assert left() == {}


async def play(it: Served, *victims: Victim) -> None:
    """Have them do all that they do, at once, and leave."""
    async with anyio.create_task_group() as tasks:
        for victim in victims:
            tasks.start_soon(victim, it.address)
    await all_gone(it)


async def calls_of(it: Served, *victims: Victim) -> dict[str, Victim]:
    """Whose play makes which engine calls."""
    found: dict[str, Victim] = {}
    for victim in victims:
        it.engine.watch()
        await play(it, victim)
        for name in it.engine.calls:
            found.setdefault(name, victim)
    return found


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.soak)])
async def test_a_failure_at_every_engine_call(
    monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str, number: int
) -> None:
    async with served(monkeypatch, is_async=True) as it:
        calls = await calls_of(it, *VICTIMS)
        unknown = METHODS - set(calls) - NOT_BY_EVENTS
        assert not unknown, f"no victim's play calls {unknown}: let one, or say in NOT_BY_EVENTS who calls it"
        monkeypatch.setattr(injection.Victim, "patience_s", injection.SHORT_S)
        for name, victim in sorted(calls.items()):
            is_panic = (number == 1) == (anyio_backend_name == "trio")
            it.engine.fail(name, number, Panic(name) if is_panic else RuntimeError(name))
            await play(it, victim)
        it.engine.watch()
        await is_served(it)
        await all_gone(it)


KINDS = {
    True: (GeneratorExit(), asyncio.CancelledError(), fanwire.Refused("lone \ud800 " * 100)),
    False: (SystemExit(1), ValueError("mine"), Panic()),
}


async def test_a_failure_at_every_callback(monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str) -> None:
    is_async = anyio_backend_name == "trio"
    async with served(monkeypatch, is_async=is_async) as it:
        await play(it, *APPLICATIONS)
        await until(lambda: it.called == CALLBACKS)
        monkeypatch.setattr(injection.Victim, "patience_s", injection.SHORT_S)
        for name in sorted(CALLBACKS):
            for error in KINDS[is_async]:
                it.fails = {name: error}
                await play(it, *APPLICATIONS)
        it.fails = {}
        await is_served(it)
        await all_gone(it)


async def test_a_failure_at_every_part_of_a_function_that_lasts_as_long_as_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served(monkeypatch, is_async=True, converses=True) as it:
        calls = await calls_of(it, *APPLICATIONS)
        await until(lambda: it.called == (CALLBACKS - {"on_message"}) | CONVERSING)
        monkeypatch.setattr(injection.Victim, "patience_s", injection.SHORT_S)
        for name in sorted(CONVERSING):
            for error in (*KINDS[True], *KINDS[False]):
                it.fails = {name: error}
                await play(it, *APPLICATIONS)
        it.fails = {}
        for name, victim in sorted(calls.items()):
            it.engine.fail(name, 1, Panic(name))
            await play(it, victim)
        it.engine.watch()
        await is_served(it)
        await all_gone(it)
