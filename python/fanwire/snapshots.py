"""Keyframes on demand: the application is asked for one when new subscribers wait, at most once in a while."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from fanwire._engine import Engine, SnapshotWanted, matches
from fanwire._loop import Callback, ends_task, finish
from fanwire.calls import check_event
from fanwire.channel import check_pattern
from fanwire.faults import Faults, Tasks
from fanwire.logs import hub_log
from fanwire.values import Seconds, checked, told


@dataclass(frozen=True, slots=True)
class SnapshotRule:
    """Who makes the snapshots of the channels that match a pattern."""

    pattern: str
    callback: Callback
    interval: float
    """Seconds for which new subscribers begin at the same one."""
    timeout: float
    """Seconds that the callback may take."""
    event: str | None
    """As of ``publish``."""
    publishes: bool = False
    """Whether the callback publishes it by itself, and says whether it has."""


class Snapshots:
    """Asks for them, one at a time for a channel. All state is the loop's thread's own."""

    def __init__(self, engine: Engine, rules: Sequence[SnapshotRule], tasks: Tasks, faults: Faults) -> None:
        self._engine = engine
        self._faults = faults
        self._rules = rules
        self._tasks = tasks
        # Async callbacks at work at once; the others wait in order.
        self._at_work = anyio.CapacityLimiter(AT_WORK_MAX)
        # When each channel's last one was asked for, and whether in vain; those of long ago are forgotten when there
        # are many.
        self._asked: dict[str, tuple[float, bool]] = {}

    def wanted(self, event: SnapshotWanted) -> None:
        """New subscribers of a channel wait: have them get one, or begin live."""
        rule = next(rule for rule in self._rules if matches(rule.pattern, event.channel))
        now = anyio.current_time()
        asked_at, has_failed = self._asked.get(event.channel, (-rule.interval, False))
        pause = 0.0 if event.again else asked_at + rule.interval - now
        if pause > 0 and has_failed:
            self._begin_live(event.channel)
        elif pause > rule.timeout:
            self._tasks.start_soon(self._give_up_later, event.channel, rule.timeout)
        elif pause <= 0 and not rule.callback.is_async:
            finish(self._ask(event.channel, rule))  # here and now: nothing is published between the state and its place
        else:
            self._tasks.start_soon(self._ask_later, event.channel, rule, max(pause, 0))

    async def _ask_later(self, channel: str, rule: SnapshotRule, pause: float) -> None:
        await anyio.sleep(pause)
        with anyio.move_on_after(rule.timeout) as scope:
            async with self._at_work:
                await self._ask(channel, rule)
        if scope.cancelled_caught:
            text = "the snapshot of channel %r took longer than %g s"
            self._faults.tell(hub_log, logging.ERROR, "snapshots that took too long", text, channel, rule.timeout)
            self._give_up(channel)

    def fail(self, event: SnapshotWanted) -> None:
        """Something went wrong with it that nobody expected: those who wait begin live."""
        self._give_up(event.channel)

    async def _give_up_later(self, channel: str, pause: float) -> None:
        """The last one has left the backlog, and it is too early for the next: nobody waits for so long."""
        await anyio.sleep(pause)
        self._begin_live(channel)

    def _give_up(self, channel: str) -> None:
        self._asked[channel] = (anyio.current_time(), True)
        self._begin_live(channel)

    def _begin_live(self, channel: str) -> None:
        """Have those who wait begin without one; twice, since nobody is to wait for ever. Raises nothing."""
        for _ in range(2):
            with self._faults.contained(
                "snapshot.none", "nobody could be told that channel %r has no snapshot", channel
            ):
                self._engine.give_up_snapshot(channel, _none_of(channel))
                return

    async def _ask(self, channel: str, rule: SnapshotRule) -> None:
        self._note(channel, rule)
        try:
            data = await rule.callback(channel)
            if rule.publishes and data:
                return
            if not rule.publishes and data is not None:
                self._engine.publish_snapshot(channel, data, rule.event)
                return
        except BaseException as error:
            if ends_task(error):
                raise
            self._faults.note("snapshot", error, "the snapshot of channel %r could not be made", channel)
        self._give_up(channel)

    def _note(self, channel: str, rule: SnapshotRule) -> None:
        now = anyio.current_time()
        if len(self._asked) >= ASKED_MAX:
            self._asked = {name: asked for name, asked in self._asked.items() if asked[0] + INTERVAL_MAX > now}
        self._asked[channel] = (now, False)


AT_WORK_MAX = 64
"""Channels whose snapshots are being made at once: a client that invents channels must not cost more than that."""
ASKED_MAX = 10_000
"""Channels whose last snapshot is remembered, before those of long ago are looked for."""
INTERVAL_MAX = 3600.0
"""Longest ``interval``, seconds."""


def check_snapshot(pattern: object, interval: object, timeout: object, event: object) -> None:
    """Raises TypeError and ValueError for times out of range, or what is none; InvalidChannel for a bad pattern."""
    if not isinstance(pattern, str):
        raise TypeError(f"pattern must be a str such as 'odds:*', not {told(pattern)}")
    check_pattern(pattern)
    check_event(event)
    for name, value in (("interval", interval), ("timeout", timeout)):
        checked(name, value, Seconds(0.001, INTERVAL_MAX))


def _none_of(channel: str) -> str:
    return f"no snapshot of channel {channel}: what follows is live"
