"""From the engine's events to the owners of paths, and acknowledgements back.

Each event of a connection carries the number of the owner of its path, who is asked or told of it; one guard stands
around all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anyio.lowlevel import checkpoint

from fanwire._engine import Asking, Audible, Closed, Opening, Presence, Progress, Record, SnapshotWanted, Upstream
from fanwire._loop import Callback, Loop, ends_task, outlives, readable
from fanwire.application import Application
from fanwire.budget import Budgets
from fanwire.callbacks import Callbacks
from fanwire.channel import Channel
from fanwire.client import Link
from fanwire.deliveries import Deliveries
from fanwire.errors import EngineFailed, HubStopped
from fanwire.faults import Tasks
from fanwire.hearing import Listeners
from fanwire.logs import engine_log, name_of
from fanwire.owner import APPLICATION, RELAYS, SCRAPES, Owner, handlers_of
from fanwire.presence import Presences, presence_patterns
from fanwire.relay.config import RelayConfig
from fanwire.relay.plain import PlainRelay
from fanwire.relay.relay import Relay
from fanwire.relay.stats import RelayStats
from fanwire.relay.upstreams import Upstreams
from fanwire.scraping import Scraping
from fanwire.snapshots import SnapshotRule, Snapshots
from fanwire.wording import INTERNAL_ERROR

PRESENCE_INTERVAL_S = 0.25
"""For so long new subscribers of a presence channel begin at the same list."""
TAKING_ATTEMPTS_MAX = 3
"""How often in a row the engine's events cannot be taken before serving ends."""
EVENTS_MAX = 128
"""So many are dealt with before the loop has a turn: a flood of them is not to hold up who publishes."""


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
    ) -> None:
        engine = link.require()
        self._link = link
        self._engine = engine
        self._faults, self._endings = link.faults, link.endings
        self._loop = loop
        self._tasks = tasks
        # Connections of messages that are dealt with, to be acknowledged in one call.
        self._dealt: list[int] = []
        self._acknowledging = False
        # What waits for each client.
        budgets = Budgets(own["client_bytes_max"])
        upstreams = Upstreams(engine, link.faults, link.endings)
        relaying = link, tasks, upstreams, self._acknowledge_soon, own["handshake_timeout"], budgets
        kinds: dict[str, type[Relay | PlainRelay]] = {"signalr": Relay, "websocket": PlainRelay}
        self._relays = [kinds[config.protocol](config, *relaying) for config in relays]
        self.application = Application(link, callbacks, tasks, own, budgets, self._note_dealt, self._acknowledge_soon)
        self.deliveries = Deliveries(engine)
        self.listeners = Listeners(engine)
        self.presences = Presences(engine, channels, callbacks.on_presence, self.application.identify, link.faults)
        rules = [*self._presence_snapshots(channels), *callbacks.snapshots]
        self._snapshots = Snapshots(engine, rules, tasks, link.faults)
        # By the number that events carry.
        self._owners: dict[int, Owner] = {
            APPLICATION: self.application,
            SCRAPES: Scraping(engine, link.faults, link.endings, refused=budgets.refused, relays=self._relays),
            **dict(enumerate(self._relays, RELAYS)),
        }
        # Of each of them, by the event's class.
        self._handlers = {number: handlers_of(owner) for number, owner in self._owners.items()}
        # What belongs to no connection.
        self._reports: dict[type, Callable[[Any], None]] = {
            SnapshotWanted: self._snapshots.wanted,
            Presence: self.presences.take,
            Progress: self.deliveries.take,
            Audible: self.listeners.take,
            Record: self._record,
            Upstream: upstreams.dispatch,
        }

    def _presence_snapshots(self, channels: Mapping[str, Channel]) -> list[SnapshotRule]:
        """How a new subscriber of a presence channel learns who is there."""
        patterns = presence_patterns(channels)
        if patterns:
            self._tasks.start_soon(self.presences.run, self._tasks)
        callback = Callback(self.presences.snapshot)
        return [SnapshotRule(pattern, callback, PRESENCE_INTERVAL_S, 1.0, "presence") for pattern in patterns]

    async def run(self) -> None:
        """Deal with events for ever. Cancelled, it leaves no event half dealt with, but for those in tasks.

        What goes wrong with an event ends at most what it belongs to: this is the one guard around all of them.
        Raises what keeps it from taking any.
        """
        descriptor = self._engine.event_fd
        reports, handlers = self._reports, self._handlers
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
                await (checkpoint() if events else readable(descriptor))
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

    def relay_stats(self) -> list[RelayStats]:
        """How the relays stand."""
        return [relay.stats() for relay in self._relays]

    def end(self, error: HubStopped) -> None:
        """Nothing is answered any more: whoever waits for a client, or for a delivery, is told."""
        self.application.end(error)
        self.deliveries.end(str(error))
        self.listeners.end()

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

    def _record(self, event: Record) -> None:
        self._faults.tell(engine_log, event.level, "what the engine tells", "%s", event.text)
