"""Presence of channels over several workers: who is told what, whoever comes, goes or is lost."""

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import fanwire
import pytest
from fanwire._loop import Callback
from fanwire.attendance import USERS_AT_ONCE, Attendance
from fanwire.auth import Identity
from fanwire.errors import WorkersApart
from fanwire.presence import Presences
from fanwire.workers.bus import Bus
from fanwire.workers.elders import SETTLE_S
from hypothesis import given
from hypothesis import strategies as st
from support.joined import Star, tasks_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Workers:
    """Workers whose clients come to channels and leave them; what is published and told is kept in order."""

    def __init__(self, group: Any, **promise: Any) -> None:
        self.star = Star()
        self.group = group
        self.promise = {"presence": True, "presence_linger": 0, **promise}
        self.presences: dict[int, Presences] = {}
        self.clients: dict[int, dict[int, tuple[str, str | None]]] = defaultdict(dict)
        self.told: list[tuple[int, fanwire.PresenceChange]] = []
        self.published: list[tuple[int, dict[str, Any]]] = []
        self.snapshots: list[tuple[int, dict[str, Any]]] = []
        self.newest = 0

    def start(self, number: int) -> Presences:
        """One comes."""
        tasks = tasks_of(self.group)
        bus = self.star.join(number, tasks)

        async def hear(change: fanwire.PresenceChange) -> None:
            self.told.append((number, change))

        engine: Any = SimpleNamespace(
            publish=lambda channel, data, event: self._publish(bus, data),
            publish_snapshot=lambda channel, data, event: self.snapshots.append((number, data)),
            occupancy=lambda channel: sum(one == channel for one, _ in self.clients[number].values()),
        )
        channels = {"r*": fanwire.Channel(**self.promise)}
        presences = Presences(engine, channels, Callback(hear), lambda id: self.identity(number, id), tasks, bus)
        self.presences[number] = presences
        self.star.welcome(number)
        return presences

    def _publish(self, bus: Bus, data: dict[str, Any]) -> None:
        if self.star.buses.get(bus.number) is not bus:
            raise WorkersApart
        self.star.do_in_order(bus.number, lambda: self.published.append((bus.number, data)))

    def identity(self, number: int, connection: int) -> Identity | None:
        user = self.clients[number][connection][1]
        return None if user is None else Identity(user)

    def join(self, number: int, channel: str, user: str | None) -> int:
        """A client comes; gives its connection."""
        self.newest += 1
        self.clients[number][self.newest] = (channel, user)
        self._take(number, channel, self.newest, True)
        return self.newest

    def leave(self, number: int, connection: int) -> None:
        """It goes."""
        channel, _ = self.clients[number].pop(connection)
        self._take(number, channel, connection, False)

    def _take(self, number: int, channel: str, connection: int, has_joined: bool) -> None:
        self.presences[number].take(SimpleNamespace(changes=[(channel, connection, has_joined)]))  # type: ignore[arg-type]

    def kill(self, number: int) -> None:
        """One is lost, with its clients."""
        if number in self.star.buses:
            self.star.leave(number)
        else:
            del self.star._apart[number]
        del self.presences[number]
        self.clients.pop(number, None)

    def truth(self, channel: str) -> list[str]:
        """Who is there."""
        tied = [tie for clients in self.clients.values() for tie in clients.values()]
        return sorted({user for name, user in tied if name == channel and user is not None})

    def occupancy(self, channel: str) -> int:
        """How many are."""
        return sum(name == channel for clients in self.clients.values() for name, _ in clients.values())

    async def settle(self) -> None:
        """Have everything told that is to be."""
        for _ in range(6):
            self.star.settle()
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            self.star.settle()
            for presences in list(self.presences.values()):
                await presences._tell()

    def check(self, channel: str, *, tells_application: bool = True) -> None:
        """What is known and was told is what is so."""
        truth, occupancy = self.truth(channel), self.occupancy(channel)
        assert {number: one.members(channel) for number, one in self.presences.items()} == dict.fromkeys(
            self.presences, truth
        )
        assert {one.occupancy(channel) for one in self.presences.values()} <= {occupancy}
        told = [change for _, change in self.told if change.channel == channel and tells_application]
        published = [data for _, data in self.published if data["channel"] == channel]
        both = [[(one.joined, one.left) for one in told], [(one["joined"], one["left"]) for one in published]]
        for changes in both if tells_application else both[1:]:
            there: set[str] = set()
            for joined, left in changes:
                there = (there | set(joined)) - set(left)
            assert sorted(there) == truth
        assert [one.occupancy for one in told[-1:]] in ([], [occupancy])
        assert [one["occupancy"] for one in published[-1:]] in ([], [occupancy])


async def with_workers(work: Callable[[Workers], Any], count: int = 3, **promise: Any) -> None:
    async with anyio.create_task_group() as group:
        workers = Workers(group, **promise)
        for number in range(count):
            workers.start(number)
            workers.star.settle()
        await work(workers)
        group.cancel_scope.cancel()


async def test_all_know_who_is_there_and_the_eldest_tells_it_once() -> None:
    async def work(workers: Workers) -> None:
        first = workers.join(1, "room", "ann")
        second = workers.join(2, "room", "ann")
        workers.join(2, "room", "bob")
        workers.join(0, "room", None)
        await workers.settle()
        workers.check("room")
        assert {number for number, _ in workers.told} == {number for number, _ in workers.published} == {0}
        joined = [user for _, change in workers.told for user in change.joined]
        assert sorted(joined) == ["ann", "bob"]
        workers.leave(1, first)
        await workers.settle()
        workers.check("room")
        assert not any(change.left for _, change in workers.told), "she is there by another worker"
        workers.leave(2, second)
        await workers.settle()
        workers.check("room")
        assert workers.told[-1][1] == fanwire.PresenceChange("room", (), ("ann",), 2)

    await with_workers(work)


async def test_who_came_by_a_worker_that_is_lost_has_left_and_the_next_eldest_tells_it() -> None:
    async def work(workers: Workers) -> None:
        workers.join(0, "room", "ann")
        workers.join(1, "room", "bob")
        workers.join(2, "room", "cid")
        await workers.settle()
        workers.kill(0)
        await workers.settle()
        workers.check("room")
        assert workers.told[-1] == (1, fanwire.PresenceChange("room", (), ("ann",), 2))
        workers.start(3)
        await workers.settle()
        workers.check("room")
        workers.kill(1)
        await workers.settle()
        workers.kill(2)
        await workers.settle()
        workers.check("room")
        assert workers.told[-1] == (3, fanwire.PresenceChange("room", (), ("cid",), 0))
        joined = [user for _, change in workers.told for user in change.joined]
        assert sorted(joined) == ["ann", "bob", "cid"], "and nobody twice"
        assert not any(presences._rooms for presences in workers.presences.values())

    await with_workers(work)


async def test_one_that_could_not_be_reached_for_a_while_tells_nothing_and_learns_what_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fanwire.workers.attending.PAUSE_S", 0)

    async def work(workers: Workers) -> None:
        workers.join(0, "room", "ann")
        bob = workers.join(1, "room", "bob")
        workers.join(2, "rest", "cid")
        await workers.settle()
        workers.star.cut(0)
        await workers.settle()
        assert [number for number, _ in workers.told if number != 0] == [1], "that she is gone, as far as one knows"
        assert workers.presences[1].members("room") == ["bob"]
        workers.leave(1, bob)
        workers.join(2, "room", "eve")
        told = len([number for number, _ in workers.told if number == 0])
        await workers.settle()
        workers.star.mend(0)
        await workers.settle()
        await workers.settle()
        for channel in ("room", "rest"):
            workers.check(channel)
        assert len([number for number, _ in workers.told if number == 0]) == told
        assert workers.told[-1][0] == 1, "it is the youngest now"

    await with_workers(work)


async def test_who_comes_back_to_another_worker_in_time_never_left() -> None:
    async def work(workers: Workers) -> None:
        workers.join(2, "room", "ann")
        await workers.settle()
        workers.kill(2)
        await workers.settle()
        assert workers.presences[0].members("room") == ["ann"], "it may come back"
        workers.join(1, "room", "ann")
        await workers.settle()
        workers.check("room")
        assert not any(change.left for _, change in workers.told)
        assert [change.joined for _, change in workers.told if change.joined] == [("ann",)]

    await with_workers(work, presence_linger=60)


async def test_counts_are_summed_and_tell_no_names() -> None:
    async def work(workers: Workers) -> None:
        for number in range(3):
            workers.join(number, "room", "ann")
        await workers.settle()
        assert {presences.occupancy("room") for presences in workers.presences.values()} == {3}
        assert workers.told[-1] == (0, fanwire.PresenceChange("room", (), (), 3))
        workers.kill(0)
        await workers.settle()
        assert workers.told[-1] == (1, fanwire.PresenceChange("room", (), (), 2))

    await with_workers(work, presence="counts")


async def test_a_snapshot_is_the_eldests_who_knows_what_was_told_before() -> None:
    async def work(workers: Workers) -> None:
        workers.join(1, "room", "ann")
        await workers.settle()
        workers.group.start_soon(workers.star.run)
        for number in (1, 0):
            assert await workers.presences[number].have_snapshot("presence:room")
        snapshot = {"channel": "room", "members": ["ann"], "occupancy": 1}
        assert workers.snapshots == [(0, snapshot)] * 2
        workers.star.silent.add(0)
        assert await workers.presences[1].have_snapshot("presence:room")
        assert workers.snapshots[2:] == [(1, snapshot)], "one that says nothing is not waited for long"

    await with_workers(work)


async def test_many_users_are_told_in_several_messages_and_what_could_not_be_sent_is_told_later() -> None:
    async def work(workers: Workers) -> None:
        users = [f"user {number}" for number in range(2 * USERS_AT_ONCE + 5)]
        for user in users:
            workers.join(1, "room", user)
        await workers.settle()
        workers.check("room")
        workers.star.is_full = {0, 1}
        for connection in list(workers.clients[1]):
            workers.leave(1, connection)
        workers.join(1, "room", "last")
        await workers.settle()
        assert len(workers.presences[0].members("room")) == len(users)
        workers.star.is_full.clear()
        workers.start(3)
        await workers.settle()
        workers.check("room")

    await with_workers(work)


async def test_until_all_have_said_since_when_they_are_there_nobody_who_has_just_come_is_the_eldest() -> None:
    async with anyio.create_task_group() as group:
        workers = Workers(group)
        first = workers.start(0)
        second = workers.start(1)
        workers.star.welcome(0)
        assert workers.star.buses[0].others == {1} and first._attending is not None and second._attending is not None
        assert not first._attending.is_eldest
        elders = first._attending.elders
        assert elders.since < second._attending.elders.since
        elders._unknown = float("inf")  # as `SETTLE_S` later
        assert SETTLE_S > 0 and first._attending.is_eldest
        workers.star.settle()
        assert first._attending.is_eldest and not second._attending.is_eldest
        group.cancel_scope.cancel()


def test_what_was_told_crosses_what_has_changed_since() -> None:
    room = Attendance(0, has_names=True)
    room.take(1, ("r", 1, ["ann"], [], False), 0)
    room.note_told(("r", 2, ["ann", "bob"], [], True), 0)
    assert list(room.announced) == ["ann", "bob"] and list(room.going) == ["bob"], "he has gone since"
    room.note_told(("r", 1, [], ["ann", "bob"], False), 0)
    assert list(room.coming) == ["ann"], "she is back since"
    change = room.change("r", 1)
    assert change is None or change.joined == ("ann",)


WORKERS = st.integers(0, 3)
WHAT = st.one_of(
    st.tuples(st.just("start"), WORKERS),
    st.tuples(st.just("kill"), WORKERS),
    st.tuples(st.just("join"), WORKERS, st.sampled_from(["r1", "r2"]), st.sampled_from(["ann", "bob", None])),
    st.tuples(st.just("leave"), WORKERS, st.integers(0, 9)),
    st.tuples(st.just("step"), st.integers(0, 99), st.integers(1, 9)),
    st.tuples(st.just("tell"), WORKERS),
    st.tuples(st.sampled_from(["full", "cut", "mend"]), WORKERS),
)


@given(st.lists(WHAT, max_size=60))
def test_whatever_happens_all_are_right_in_the_end(whats: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("bus", "attending"):
            patch.setattr(f"fanwire.workers.{module}.PAUSE_S", 0)
        anyio.run(whatever, whats)


async def whatever(whats: list[tuple[Any, ...]]) -> None:
    async with anyio.create_task_group() as group:
        workers = Workers(group)
        for what in whats:
            match what:
                case ("start", number) if number not in workers.presences:
                    workers.start(number)
                case ("kill", number) if number in workers.presences:
                    workers.kill(number)
                case ("join", number, channel, user) if number in workers.presences:
                    workers.join(number, channel, user)
                case ("leave", number, which) if workers.clients[number]:
                    connections = list(workers.clients[number])
                    workers.leave(number, connections[which % len(connections)])
                case ("step", which, times):
                    for _ in range(times):
                        steps = workers.star.steps()
                        if steps:
                            steps[which % len(steps)]()
                case ("tell", number) if number in workers.presences:
                    await workers.presences[number]._tell()
                case ("full", number):
                    workers.star.is_full ^= {number}
                case ("cut", number) if number in workers.star.buses:
                    workers.star.cut(number)
                case ("mend", number) if number in workers.star._apart:
                    workers.star.mend(number)
        workers.star.is_full.clear()
        for number in list(workers.star._apart):
            workers.star.mend(number)
        for presences in workers.presences.values():
            attending = presences._attending
            assert attending is not None
            attending.elders._unknown = float("inf")
        for _ in range(3):
            await workers.settle()
        if workers.presences:
            for channel in ("r1", "r2"):  # what a worker told its application when it was killed, nobody else knows
                workers.check(channel, tells_application=False)
        group.cancel_scope.cancel()
