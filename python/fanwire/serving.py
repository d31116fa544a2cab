"""One serving of a hub, from its engine's start to the engine's end. Not here: what is published, what callbacks do.

It lives in a task of its own, which owns its task group. Whoever begins it and whoever ends it may be different tasks
of the loop: a fixture's setup and teardown, hooks of a framework. So no cancel scope spans both.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import anyio

from fanwire._engine import Encoder, Engine, Route, Settings
from fanwire._loop import Interrupt, Loop, background_tasks, in_thread, spawn
from fanwire.addresses import inherited
from fanwire.callbacks import Callbacks
from fanwire.channel import Channel
from fanwire.client import Link
from fanwire.errors import HubStopped
from fanwire.faults import Tasks
from fanwire.logs import hub_log
from fanwire.options import (
    OWN,
    ROWS,
    RULES,
    SHARDS_RULE,
    check_count,
    check_paths,
    encoder_of,
)
from fanwire.owner import RELAYS
from fanwire.paths import Paths, asked_of, route_of_hub, route_of_relay
from fanwire.presence import presence_patterns, rules_of
from fanwire.pump import PRESENCE_INTERVAL_S, Pump
from fanwire.relay.config import RelayConfig
from fanwire.stand_in import require_engine
from fanwire.values import checked
from fanwire.wording import Wording
from fanwire.workers.seat import Seat, seat_of_process
from fanwire.workers.siblings import Sibling

STOPPED = "the hub was stopped: its serving has ended"
LOOP_CLOSED = "the event loop was closed while the hub served: stop the hub first"
RELAY_DESCRIPTORS_SPARE = 256
"""With a relay: those that clients leave for connections to backends, a quarter of the limit at most."""
RELAY_OUTBOX_BYTES_MAX = 2 << 20
"""With a relay: a backend's largest message and what may wait before it; see ``outbox_bytes_max``."""
HURRIED_DRAIN_S = 1.0
"""How long clients get to answer the close when serving ends by cancellation or an exception, at most."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What ``hub.start`` and ``async with hub.serve(...)`` give."""

    address: str
    """Where the hub listens, as bound: with the port that the kernel chose where 0 was asked for. Empty: nowhere."""
    poller: str
    """``epoll`` or ``uring``."""
    admin: tuple[str, ...] = ()
    """Where the admin side listens, as bound."""

    def __str__(self) -> str:
        return f"serving on {self.address}" if self.address else "serving without an address"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is served: all that the application said, checked."""

    settings: Settings
    routes: Sequence[Route]
    """Which path is whose; the owners' numbers are those of ``owner``."""
    encoder: Encoder
    """What writes publications, replies and the like."""
    own: Mapping[str, Any]
    """The hub's own options; see ``options.OWN``."""
    callbacks: Callbacks
    channels: Mapping[str, Channel]
    relays: Sequence[RelayConfig]
    seat: Seat | Sibling | None
    """Of the worker whose hub it is."""
    options: Mapping[str, Any]
    """What was given."""

    @property
    def paths(self) -> Sequence[str]:
        """Where SignalR clients find methods, the hub's own first; those of relays are none of them."""
        paths: Sequence[str] = self.own["signalr_paths"]
        return paths

    @property
    def grace_s(self) -> float:
        """How long the end may take: seconds that clients get."""
        return float(self.own["drain_timeout"] + self.own["drain_spread"])


def plan(
    callbacks: Callbacks,
    channels: Mapping[str, Channel],
    relays: Sequence[RelayConfig],
    shards: int,
    options: Mapping[str, Any],
    seat: Seat | Sibling | None = None,
) -> Plan:
    """What is to be served with `options`, which are checked; at the `seat` of a worker, as one hub with the others.

    Raises TypeError and ValueError for bad `shards`, and for what is wrong between options and what is registered.
    """
    checked("shards", shards, SHARDS_RULE)
    for methods in (callbacks.methods, *callbacks.endpoints.values()):
        methods.settle()
    if callbacks.on_presence is not None and not presence_patterns(channels):
        hub_log.warning("on_presence is never called: no channel of Hub(channels) has presence=True or 'counts'")
    merged: dict[str, Any] = {**OWN, **options}
    own = {name: merged.pop(name) for name in OWN}
    own["handshake_timeout"] = merged.setdefault("handshake_timeout", ROWS["handshake_timeout"].default)
    callbacks = replace(callbacks, subprotocols=frozenset(own["subprotocols"]))
    own["signalr_paths"] = [*own["signalr_paths"], *callbacks.endpoints]
    check_paths(own["signalr_paths"])
    check_count(len(own["signalr_paths"]) + sum(relay.protocol == "signalr" for relay in relays))
    if relays:
        require_engine("a relay")
        merged.setdefault("outbox_bytes_max", RELAY_OUTBOX_BYTES_MAX)
    if merged.get("poller") is None:
        merged["poller"] = checked("FANWIRE_POLLER", os.environ.get("FANWIRE_POLLER") or None, RULES["poller"])
    process = seat or seat_of_process()  # a worker's other hubs are each one of its own
    settings = Settings(
        shards=shards,
        channels=rules_of(channels),
        snapshots=[
            *((pattern, PRESENCE_INTERVAL_S) for pattern in presence_patterns(channels)),
            *((rule.pattern, rule.interval) for rule in callbacks.snapshots),
        ],
        tell_details=own["detailed_errors"],
        descriptors_spare=RELAY_DESCRIPTORS_SPARE if relays else 0,
        worker=process.number if process else 0,
        siblings=(seat.folder, bytes.fromhex(seat.key)) if seat else None,
        verify_compression=os.environ.get("FANWIRE_VERIFY_COMPRESSION") == "1",  # of tests: all is decoded again
        **merged,
    )
    routes = [route_of_hub(path, callbacks, own) for path in own["signalr_paths"]]
    routes += map(route_of_relay, relays, count(RELAYS))
    return Plan(settings, routes, encoder_of(own), own, callbacks, channels, relays, seat, options)


def leave(seat: Seat | Sibling | None) -> None:
    """Nothing is served there, or no more: a place that was taken among other workers is free."""
    if isinstance(seat, Sibling):
        seat.close()


class Life:
    """One serving. All but ``end_soon`` is called in its loop's thread, from any task.

    Args:
        plan: what is served.
        ways: the paths that come and go.
        linked: called once with the life when the pump is there.
        unlinked: called once when the engine is about to end, however that came about.
        ended: called once, last, when the engine has ended.
    """

    def __init__(
        self,
        plan: Plan,
        ways: Paths,
        linked: Callable[["Life"], None],
        unlinked: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._linked = linked
        self._unlinked = unlinked
        self._ended = ended
        self.engine = Engine(plan.settings, plan.encoder)
        """What serves."""
        for route in plan.routes:
            self.engine.add_route(route)
        ways.serve(self.engine, asked_of(plan.callbacks))
        self.link = Link(self.engine)
        self.link.wording = Wording(plan.own["detailed_errors"])
        """What clients hold of it."""
        self.loop: Loop
        """Where the callbacks run."""
        self._pump: Pump | None = None
        self.interrupt: Interrupt | None = None
        """What is to be interrupted when the serving ends without having been asked to: the body of ``serve``."""
        self.serving: Serving
        """Where it serves; once begun."""
        # Why it ended without having been asked to, until somebody was told.
        self._failure: BaseException | None = None
        self._begun = anyio.Event()
        # Somebody wants the end; with how long clients get to answer the close, and over how long they are closed.
        self._asked = anyio.Event()
        self._timeout, self._spread = plan.own["drain_timeout"], plan.own["drain_spread"]
        self._draining: anyio.CancelScope | None = None
        self._is_abandoned = self._is_forsaken = False
        self._over = anyio.Event()

    async def begin(self, address: str | None) -> None:
        """Start the engine, listen, and return when events are dealt with. Raises what those raise; then all is over.

        Without an address nothing listens. Cancelled, it ends what has begun.
        """
        try:
            self.engine.start()
            seat = self._plan.seat
            if isinstance(seat, Sibling):
                seat.order(self._plan.settings)
            if seat is not None:
                self.engine.join(seat.sequencer)
            bound = self.engine.listen(inherited(address)) if address is not None else ""
            self.serving = Serving(bound, self.engine.stats().poller)
            self.loop = Loop()
        except BaseException:
            await self._end_engine()
            raise
        spawn(self._live, f"fanwire {bound}".rstrip())
        try:
            await self._begun.wait()
        except BaseException:
            self.abandon()
            with anyio.CancelScope(shield=True):
                await self._over.wait()
            raise
        failure, self._failure = self._failure, None
        if failure is not None:  # it was over before it had begun
            raise failure

    async def end(self) -> None:
        """Have it drain and end, and return when all is over. Raises what ended it before, once.

        Cancelled, it no longer drains, and ends by itself.
        """
        self._asked.set()
        try:
            await self._over.wait()
        except anyio.get_cancelled_exc_class():
            self.abandon()
            raise
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def leave(self, *, is_hurried: bool = False) -> None:
        """``end`` for one that must not return before all is over, cancelled or not; hurried it raises no failure."""
        if is_hurried:
            self._hurry()
        try:
            await self.end()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException:
            if not is_hurried:
                raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._over.wait()

    def end_soon(self) -> None:
        """Have it drain and end; any thread, returns at once."""
        with suppress(RuntimeError):  # the loop is gone, and the serving with it
            self.loop.call_from_any_thread(self._asked.set)

    def forsake(self) -> None:
        """Its loop was closed, so its tasks never go on: end what does not need them. Any thread."""
        self._is_forsaken = True
        self._unlinked()
        self.link.end(LOOP_CLOSED)
        try:
            self.engine.stop()
        finally:
            leave(self._plan.seat)
            self._ended()

    def abandon(self) -> None:
        """Have it end without waiting for anybody."""
        self._is_abandoned = True
        self._asked.set()
        if self._draining is not None:
            self._draining.cancel()

    @property
    def plan(self) -> Plan:
        """What is served."""
        return self._plan

    @property
    def grace_s(self) -> float:
        """How long its end may take: seconds that clients get."""
        return self._plan.grace_s

    async def wait_asked(self) -> None:
        """Return when somebody wants the end, or it has come."""
        await self._asked.wait()

    @property
    def handshake_timeout(self) -> float:
        """Seconds that an opening may take."""
        return float(self._plan.own["handshake_timeout"])

    @property
    def pump(self) -> Pump:
        """What deals with the engine's events; from when it is linked until the engine ends."""
        assert self._pump is not None
        return self._pump

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left."""
        return self._is_forsaken or self._over.is_set()

    # Paths that come and go; those of ``hub.path`` are with the engine

    def add_endpoint(self, path: str) -> None:
        """Have SignalR clients find methods there."""
        self.engine.add_route(route_of_hub(path, self._plan.callbacks, self._plan.own))

    def remove_endpoint(self, path: str) -> None:
        """Have nobody find it, and close who is connected there."""
        self.engine.remove_route(path, self._plan.own["drain_code"])

    def add_relay(self, config: RelayConfig) -> None:
        """Have a relay work. Raises ConfigError for a `ca` that is not good any more; then there is none."""
        require_engine("a relay")
        number = self.pump.add_relay(config)
        try:
            self.engine.add_route(route_of_relay(config, number))
        except BaseException:
            self.pump.remove_relay(config, self._plan.own["drain_code"])
            raise

    def remove_relay(self, config: RelayConfig) -> None:
        """End it, and close its clients."""
        code = self._plan.own["drain_code"]
        self.engine.remove_route(config.path, code)
        self.pump.remove_relay(config, code)

    def _hurry(self) -> None:
        self._timeout, self._spread = min(self._timeout, HURRIED_DRAIN_S), 0.0

    async def _live(self) -> None:
        """All of it, in its own task. Raises nothing but the cancellation of that task."""
        try:
            try:
                await self._serve()
            finally:
                await self._end_engine()
        except anyio.get_cancelled_exc_class():  # the loop ends, and nobody has stopped the hub
            self._failure = HubStopped("the event loop ended while the hub served: stop it first")
            raise
        except BaseException as error:
            self._failure = alone(error)
            hub_log.error("%s ended: %s", self.serving, self._failure, exc_info=error)
        finally:
            self._begun.set()
            self._over.set()
            if self.interrupt is not None and not self._asked.is_set():
                self.interrupt.now()
            self._asked.set()

    async def _end_engine(self) -> None:
        self._unlinked()
        self.link.end(STOPPED)
        try:
            with anyio.CancelScope(shield=True):
                await in_thread(self.engine.stop)
        finally:
            leave(self._plan.seat)
            self._ended()
            if self._pump is not None:
                self._pump.let_go()
                self._pump = None

    async def _serve(self) -> None:
        async with background_tasks() as tasks:
            plan = self._plan
            guarded = Tasks(tasks, self.link.faults)
            pump = self._pump = Pump(
                self.link,
                plan.callbacks,
                self.loop,
                guarded,
                own=plan.own,
                relays=plan.relays,
                channels=plan.channels,
                seat=plan.seat,
            )
            tasks.start_soon(pump.run)
            if isinstance(plan.seat, Sibling):
                tasks.start_soon(plan.seat.keep, self.engine, plan.settings)
            self._linked(self)
            self._begun.set()
            try:
                await self._asked.wait()
            except anyio.get_cancelled_exc_class():
                self._hurry()
                await self._drain(is_shielded=True)
                raise
            else:
                await self._drain()
            finally:
                pump.end(HubStopped(STOPPED))

    async def _drain(self, *, is_shielded: bool = False) -> None:
        """Close every connection, over some seconds; returns when none is left and all are told of, or time is up."""
        if self._is_abandoned:
            return
        engine, pump = self.engine, self.pump
        pump.retire()
        engine.drain(self._plan.own["drain_code"], "", self._spread)
        pause = 0.001
        with anyio.move_on_after(self._spread + self._timeout, shield=is_shielded) as self._draining:
            while engine.stats().connections or pump.is_parting:
                await anyio.sleep(pause)
                pause = min(pause * 2, 0.05)


def alone(error: BaseException) -> BaseException:
    """What a task group wrapped, if it is one error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
