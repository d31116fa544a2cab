"""From the engine's events to the owners of paths, and acknowledgements back.

Each event of a connection carries the number of the owner of its path, who is asked or told of it; one guard stands
around all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anyio.lowlevel import checkpoint

from fanwire import placing
from fanwire._engine import (
    Asking,
    Audible,
    BackboneChanged,
    BackboneForeign,
    Closed,
    Drained,
    MirrorLost,
    Opening,
    Placed,
    Presence,
    Progress,
    Record,
    Released,
    SnapshotWanted,
    Upstream,
    WorkerChanged,
    WorkerTold,
)
from fanwire._loop import Callback, Loop, Readable, ends_task, outlives
from fanwire.across import Across
from fanwire.adopt.attachments import Attachments
from fanwire.application import Application
from fanwire.backbone import Reached
from fanwire.budget import Budgets
from fanwire.callbacks import Callbacks
from fanwire.channel import Channel
from fanwire.client import Client, Link
from fanwire.deliveries import Deliveries
from fanwire.endings import Endings
from fanwire.errors import ClientGone, EngineFailed, HubStopped, LimitReached
from fanwire.faults import Faults, Tasks
from fanwire.hearing import Listeners
from fanwire.hosting import Hosting
from fanwire.logs import engine_log, name_of
from fanwire.owner import APPLICATION, RELAYS, SCRAPES, Owner, handlers_of
from fanwire.presence import Presences, presence_patterns
from fanwire.relay.backed import Surroundings
from fanwire.relay.config import RelayConfig
from fanwire.relay.plain import PlainRelay
from fanwire.relay.relay import Relay
from fanwire.relay.sharing import Sharing
from fanwire.relay.stats import RelayStats, RelaySums
from fanwire.relay.upstreams import Sessions, Upstreams
from fanwire.scraping import Measured, Scraping
from fanwire.snapshots import SnapshotRule, Snapshots
from fanwire.sources.stats import MeasuredSource
from fanwire.wording import INTERNAL_ERROR
from fanwire.workers.bus import NUMBERS, Bus, buses_of
from fanwire.workers.seat import Seat
from fanwire.workers.siblings import Sibling

PRESENCE_INTERVAL_S = 0.25
"""For so long new subscribers of a presence channel begin at the same list."""
TAKING_ATTEMPTS_MAX = 3
"""How often in a row the engine's events cannot be taken before serving ends."""
REMOVED = "this path has been removed"
"""What is said to who asks for it meanwhile, by the engine as well."""
EVENTS_MAX = 128
"""So many are dealt with before the loop has a turn: a flood of them is not to hold up who publishes."""


KINDS: Mapping[str, type[Relay | PlainRelay]] = {"signalr": Relay, "websocket": PlainRelay}
"""By what a relay's clients speak."""
OWNERS_MAX = 65_535
"""The highest number of one; so many are there at most."""


class Handlers(dict[int, dict[type, Callable[[Any], None]]]):
    """What deals with each class of event, by the number of the owner; of an owner that is gone, what `nobody` does."""

    def __init__(self, nobody: Owner) -> None:
        super().__init__()
        self._nobody = handlers_of(nobody)

    def __missing__(self, number: int) -> dict[type, Callable[[Any], None]]:
        return self._nobody


class Nobody(Owner):
    """Whose a path is that was removed a moment ago: who asks to connect is refused, all others are being closed."""

    def __init__(self, endings: Endings) -> None:
        self._endings = endings

    def opening(self, event: Opening) -> None:
        """It is not there."""
        self._endings.refuse(event.connection, 404, REMOVED)

    def asking(self, event: Asking) -> None:
        """It is not there."""
        self._endings.refuse(event.connection, 404, REMOVED)


def _sharings_of(
    seat: Seat | Sibling | None, bus: Bus | None, everyone: Bus | None, faults: Faults
) -> tuple[Sharing | None, Sharing | None]:
    """What relays share: with the workers of this machine, and with those of all."""
    if seat is None or bus is None or everyone is None:
        return None, None
    key, count = bytes.fromhex(seat.key), seat.count if isinstance(seat, Seat) else 1
    over_machines = Sharing(everyone, faults, key, count) if everyone.spans_machines else None
    return Sharing(bus, faults, key, count), over_machines


class Pump:
    """Takes the events of one engine and calls back, until it is cancelled. All state is the loop's thread's own."""

    def __init__(
        self,
        link: Link,
        callbacks: Callbacks,
        loop: Loop,
        tasks: Tasks,
        *,
        own: Mapping[str, Any],
        relays: Sequence[RelayConfig] = (),
        channels: Mapping[str, Channel],
        seat: Seat | Sibling | None = None,
    ) -> None:
        engine = link.require()
        self._link = link
        self._engine = engine
        self._faults, self._endings = link.faults, link.endings
        self._loop, self._tasks = loop, tasks
        # Connections of messages that are dealt with, to be acknowledged in one call.
        self._dealt: list[int] = []
        self._acknowledging = False
        # What waits for each client.
        budgets = Budgets(own["client_bytes_max"])
        # To the workers of this machine, and to those of all.
        self.bus, self._everyone = buses_of(seat, engine, tasks)
        sessions = Sessions(engine, link.faults, link.endings, self.bus, callbacks.tracing)
        handshake_timeout = own["handshake_timeout"]
        self._sharings = _sharings_of(seat, self.bus, self._everyone, link.faults)
        acknowledge, shared = self._acknowledge_soon, self._sharings
        self._around = Surroundings(link, tasks, sessions, acknowledge, handshake_timeout, budgets, *shared)
        self._relays: list[Relay | PlainRelay] = []
        self.application = Application(link, callbacks, tasks, own, budgets, self._note_dealt, self._acknowledge_soon)
        self.deliveries = Deliveries(engine, tasks, self._everyone)
        self.listeners = Listeners(engine)
        self.attachments = Attachments(engine, tasks, loop.call_soon)
        identify = self.application.identify
        self.presences = Presences(engine, channels, callbacks.on_presence, identify, tasks, self._everyone)
        self._snapshots = Snapshots(
            engine, [*self._presence_snapshots(channels), *callbacks.snapshots], tasks, link.faults
        )
        self.across = Across(engine, self.application.roster, self.relay_stats, link.faults, self._everyone)
        # By the number that events carry.
        self._backbone = Reached()
        self._sources: list[MeasuredSource] = []
        self._refused = budgets.refused
        counted = Measured(budgets.refused, self._relays, self._sources, self._backbone)
        self.scraping = Scraping(engine, tasks, link.endings, counted, bus=self.bus)
        self._owners: dict[int, Owner] = {APPLICATION: self.application, SCRAPES: self.scraping}
        # Of each of them, by the event's class.
        self._handlers = Handlers(Nobody(link.endings))
        self._handlers.update((number, handlers_of(owner)) for number, owner in self._owners.items())
        self._handlers[APPLICATION][Drained] = self._drained
        self._newest = RELAYS - 1
        for config in relays:
            self.add_relay(config)
        # What belongs to no connection.
        self._reports: dict[type, Callable[[Any], None]] = {
            SnapshotWanted: self._snapshots.wanted,
            Presence: self.presences.take,
            Progress: self.deliveries.take,
            Audible: self.listeners.take,
            Placed: placing.take,
            Released: self.attachments.released,
            Record: self._record,
            Upstream: sessions.dispatch,
            WorkerTold: self._told,
            WorkerChanged: self._changed,
            BackboneChanged: self._backbone_changed,
            BackboneForeign: self._backbone.note_foreign,
            MirrorLost: self._mirror_lost,
        }

    def _presence_snapshots(self, channels: Mapping[str, Channel]) -> list[SnapshotRule]:
        """How a new subscriber of a presence channel learns who is there."""
        patterns = presence_patterns(channels)
        if patterns:
            self._tasks.start_soon(self.presences.run)
        callback = Callback(self.presences.publish_snapshot if self.bus is None else self.presences.have_snapshot)
        return [SnapshotRule(one, callback, PRESENCE_INTERVAL_S, 2.0, None, publishes=True) for one in patterns]

    async def run(self) -> None:
        """Deal with events for ever. Cancelled, it leaves no event half dealt with, but for those in tasks.

        What goes wrong with an event ends at most what it belongs to: this is the one guard around all of them.
        Raises what keeps it from taking any.
        """
        reports, handlers = self._reports, self._handlers
        with Readable(self._engine.event_fd) as readable:
            while True:
                events = self._take_events()
                for event in events:
                    try:
                        kind = type(event)
                        (reports.get(kind) or handlers[event.owner][kind])(event)
                    except BaseException as error:
                        self._failed(event, error)
                if self._dealt:
                    self._acknowledge()
                try:
                    await (readable() if len(events) < EVENTS_MAX else checkpoint())
                except BaseException as error:  # a sync callback may have cancelled this task
                    if not outlives(error):
                        raise

    def _take_events(self) -> Sequence[Any]:
        """What happened since the last call. Fails it again and again, nobody is served any more: that is raised."""
        for _ in range(TAKING_ATTEMPTS_MAX - 1):
            try:
                return self._engine.take_events(EVENTS_MAX)
            except EngineFailed:  # serving ends with it, and logs it
                self._faults.count("engine.thread")
                raise
            except BaseException as error:
                if ends_task(error):
                    raise
                self._faults.note("pump.take_events", error, "the engine's events could not be taken")
        return self._engine.take_events(EVENTS_MAX)

    def _failed(self, event: Any, error: BaseException) -> None:
        """End what an event belongs to that could not be dealt with: the request, the connection or nothing at all."""
        if ends_task(error):
            raise error
        kind = type(event).__name__.lower()
        connection = getattr(event, "connection", None)
        what = "" if connection is None else f" of client {name_of(connection)}"
        self._faults.note(f"pump.{kind}", error, "a %s event%s could not be dealt with", kind, what)
        with self._faults.contained("pump.ending", "what a %s event belongs to could not be ended", kind):
            if isinstance(event, SnapshotWanted):
                self._snapshots.fail(event)
            elif connection is not None:
                self._end_connection(event)

    def _end_connection(self, event: Any) -> None:
        """End what an event belongs to, and have its owner know."""
        try:
            owner = self._owners.get(event.owner)
            if owner is not None:
                owner.failed(event)
        finally:
            if isinstance(event, (Opening, Asking)):
                self._endings.refuse(event.connection, 500, INTERNAL_ERROR)
            elif not isinstance(event, Closed):
                self._endings.close(event.connection, 1011, INTERNAL_ERROR)

    def read_beside(self, source: MeasuredSource, hub: Any) -> None:
        """Have `source` published by `hub`, whose pump this is, for as long as this worker is the eldest."""
        self._sources.append(source)
        self._tasks.start_soon(source.run, hub, lambda: self.presences.is_eldest)

    # Owners that come and go

    def add_owner(self, owner: Owner) -> int:
        """Have it answer for the paths of the number that this gives. Raises LimitReached where there are too many."""
        if len(self._owners) >= OWNERS_MAX:
            raise LimitReached("owners of paths", len(self._owners) + 1, OWNERS_MAX)
        number = self._newest
        while (number := number + 1 if number < OWNERS_MAX else RELAYS) in self._owners:
            pass
        self._newest = number
        self._owners[number], self._handlers[number] = owner, handlers_of(owner)
        return number

    def remove_owner(self, number: int) -> None:
        """Nobody answers for its paths any more: the number is not given anew before all others were."""
        del self._owners[number], self._handlers[number]

    @property
    def upstreams(self) -> Upstreams:
        """Connections to servers for one who is no relay."""
        return Upstreams(self._around.sessions)

    def add_relay(self, config: RelayConfig) -> int:
        """Have a relay work; gives its number. Raises ConfigError for a `ca` that is not good any more."""
        relay = KINDS[config.protocol](config, self._around)
        number = self.add_owner(relay)
        self._relays.append(relay)
        return number

    def remove_relay(self, config: RelayConfig, code: int) -> None:
        """End that relay, whose clients are being closed with this code; its path is removed already."""
        for number, owner in self._owners.items():
            if isinstance(owner, Relay | PlainRelay) and owner.config is config:
                self.remove_owner(number)
                self._relays.remove(owner)
                owner.end(ClientGone(code, "", "server"))
                return

    # What the admin side asks

    @property
    def everyone(self) -> Bus | None:
        """To the workers of all machines."""
        return self._everyone

    @property
    def tasks(self) -> Tasks:
        """Those of the serving."""
        return self._tasks

    @property
    def backbone(self) -> Reached:
        """Whether it is reached."""
        return self._backbone

    @property
    def refused(self) -> Mapping[str, int]:
        """What clients were refused, by the bound."""
        return self._refused

    def client_of(self, connection: int) -> Client | None:
        """The client of this number, if an owner knows it."""
        hosts = (owner for owner in self._owners.values() if isinstance(owner, Hosting))
        return next((client for host in hosts if (client := host.client(connection)) is not None), None)

    def relay_sums(self) -> list[RelaySums]:
        """How the relays stand, in numbers."""
        return [relay.sums() for relay in self._relays]

    def relay_stats(self) -> list[RelayStats]:
        """How the relays stand."""
        return [relay.stats() for relay in self._relays]

    def end(self, error: HubStopped) -> None:
        """Nothing is answered any more: whoever waits for a client, or for a delivery, is told."""
        self.application.end(error)
        self.deliveries.end(str(error))
        self.listeners.end()
        self.scraping.part()
        self.presences.part()
        if self.bus is not None:
            placing.end()
        for bus in self._buses:
            bus.end()

    @property
    def _buses(self) -> tuple[Bus, ...]:
        return tuple(bus for bus in (self.bus, self._everyone) if bus is not None)

    @property
    def is_parting(self) -> bool:
        """Whether somebody who leaves is yet to be told of, or a framework's socket is yet to be given back."""
        return self.application.is_parting or self.attachments.is_parting

    def let_go(self) -> None:
        """Cut the circles of references: else the engine's descriptors stay open until the garbage collector comes.

        The last that is called, when no task of the serving is left and the engine has ended.
        """
        self.attachments.end()
        vars(self.application).clear()
        self._around.sessions.let_go()
        for bus in self._buses:
            bus.let_go()
        for table in (self._reports, self._handlers, self._owners, self._relays):
            table.clear()  # what is left of ``run`` in a traceback has them, too
        vars(self).clear()

    def _note_dealt(self, connection: int) -> None:
        """A message is dealt with while events are: all of them are acknowledged together."""
        self._dealt.append(connection)

    def _acknowledge_soon(self, connection: int) -> None:
        self._dealt.append(connection)
        if not self._acknowledging:
            self._acknowledging = True
            self._loop.call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledging = False
        dealt, self._dealt = self._dealt, []
        engine = self._link.engine
        if dealt and engine is not None:
            try:
                engine.acknowledge(dealt)
            except BaseException as error:  # nobody is to wait for ever, for what may be one's fault
                if ends_task(error):
                    raise
                self._faults.note("pump.acknowledge", error, "%d messages could not be acknowledged", len(dealt))
                for connection in dealt:
                    with self._faults.contained("pump.acknowledge", "client %s cannot go on", name_of(connection)):
                        engine.acknowledge([connection])

    def _drained(self, event: Drained) -> None:
        if not self.attachments.drained(event):
            self.application.drained(event)

    def _told(self, event: WorkerTold) -> None:
        bus = self._everyone if event.is_for_all else self.bus
        if bus is not None:
            bus.told(event.worker, event.message)

    def _changed(self, event: WorkerChanged) -> None:
        if self.bus is not None and event.number < NUMBERS:
            self.bus.changed(event.number, event.has_come)
        if self._everyone is not None:
            self._everyone.changed(event.number, event.has_come, event.age)

    def _backbone_changed(self, event: BackboneChanged) -> None:
        bus = self.bus
        is_first = bus is None or bus.number <= min(bus.others, default=bus.number)
        why_not = self._backbone.note(event.state, event.why, counts=is_first)
        self._around.sessions.readiness.note("backbone", why_not)

    def _mirror_lost(self, event: MirrorLost) -> None:
        for sharing in filter(None, self._sharings):
            sharing.lost(event.worker, event.id)

    def retire(self) -> None:
        """This worker begins to drain: others say so, and hold what its relays have held for them."""
        self._around.sessions.readiness.drain()
        # All machines first: before anybody is asked for a lane anew, all know that this one ends.
        for sharing in filter(None, reversed(self._sharings)):
            sharing.retire()

    def _record(self, event: Record) -> None:
        self._faults.tell(engine_log, event.level, "what the engine tells", "%s", event.text)
