"""Who is in a channel, as the application, ``hub.presence`` and subscribers of ``presence:NAME`` see it."""

from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import anyio
import fanwire
import pytest
from fanwire.attendance import merged
from fanwire.presence import CHANNELS_AT_ONCE, Presences
from support.clients import connected, refusal
from support.hubs import MakeHub
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


def hub_of(make_hub: MakeHub, **promise: Any) -> tuple[fanwire.Hub, list[fanwire.PresenceChange]]:
    """A hub whose users have the names that they bring, and what it is told of channel `room`."""
    hub = make_hub({"room": fanwire.Channel(**{"presence": True, "presence_linger": 0.1, **promise})})
    hub.authenticate(lambda request: request.query.get("user"))
    changes: list[fanwire.PresenceChange] = []
    hub.on_presence(changes.append)
    return hub, changes


async def test_who_comes_and_goes_is_told_once_however_many_connections(make_hub: MakeHub) -> None:
    hub, changes = hub_of(make_hub)
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=presence:room&user=eve") as watcher:
        assert await watcher.receive_json() == {"channel": "room", "members": [], "occupancy": 0}
        async with AsyncExitStack() as stack:
            for user in ("ann", "bob", "ann", ""):
                target = f"/ws?channel=room&user={user}" if user else "/ws?channel=room"
                await stack.enter_async_context(connected(serving.address, target))
            await until(lambda: sum(len(change.joined) for change in changes) == 2 and changes[-1].occupancy == 4)
            assert hub.presence("room") == ["ann", "bob"]
            async with connected(serving.address, "/ws?channel=presence:room") as late:
                assert await late.receive_json() == {"channel": "room", "members": ["ann", "bob"], "occupancy": 4}
        both = {"ann", "bob"}
        await until(lambda: {user for one in changes for user in one.left} == both and not changes[-1].occupancy)
        assert sorted(user for change in changes for user in change.joined) == ["ann", "bob"]
        assert hub.presence("room") == []
        told = [await watcher.receive_json() for _ in changes]
        assert [(one["joined"], one["left"], one["occupancy"]) for one in told] == [
            (list(change.joined), list(change.left), change.occupancy) for change in changes
        ]


async def test_who_comes_back_in_time_never_left(make_hub: MakeHub) -> None:
    hub, changes = hub_of(make_hub, presence_linger=60)
    async with hub.serve(ANY) as serving:
        for _ in range(3):
            async with connected(serving.address, "/ws?channel=room&user=ann"):
                await until(lambda: changes and changes[-1].occupancy == 1)
            await until(lambda: changes[-1].occupancy == 0)
            assert hub.presence("room") == ["ann"], "it may come back"
        assert [change.joined for change in changes if change.joined] == [("ann",)]
        assert not any(change.left for change in changes)


async def test_counts_tell_no_names(make_hub: MakeHub) -> None:
    hub, changes = hub_of(make_hub, presence="counts")
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=presence:room") as watcher:
        assert await watcher.receive_json() == {"channel": "room", "occupancy": 0}
        async with connected(serving.address, "/ws?channel=room&user=ann"):
            assert await watcher.receive_json() == {"channel": "room", "occupancy": 1}
        assert await watcher.receive_json() == {"channel": "room", "occupancy": 0}
        await until(lambda: len(changes) == 2)
    assert [(change.joined, change.left) for change in changes] == [((), ()), ((), ())]


async def test_leaving_a_channel_is_leaving_it(make_hub: MakeHub) -> None:
    hub, changes = hub_of(make_hub)
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?user=ann") as peer:
        await peer.send_json(subscribe=["room"])
        await until(lambda: changes)
        await peer.send_json(unsubscribe=["room"])
        await until(lambda: changes[-1].left == ("ann",))


async def test_who_was_there_for_a_moment_is_no_trouble(make_hub: MakeHub) -> None:
    hub, changes = hub_of(make_hub)
    async with hub.serve(ANY) as serving:
        for _ in range(30):
            async with connected(serving.address, "/ws?channel=room&user=ann"):
                pass
        async with connected(serving.address, "/ws?channel=room&user=bob"):
            await until(lambda: hub.presence("room") == ["bob"] and changes and changes[-1].occupancy == 1)
        await until(lambda: changes[-1].occupancy == 0 and not hub.presence("room"))
        joined = [user for change in changes for user in change.joined]
        left = [user for change in changes for user in change.left]
        assert sorted(joined) == sorted(left)


async def test_a_callback_that_raises_ends_nothing(make_hub: MakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub = make_hub({"*": fanwire.Channel(presence=True)})
    told = 0

    @hub.on_presence
    async def fail(change: fanwire.PresenceChange) -> None:
        nonlocal told
        told += 1
        raise RuntimeError("no")

    async with hub.serve(ANY) as serving:
        async with connected(serving.address, "/ws?channel=a&channel=presence:a"):
            await until(lambda: told == 1)
        await until(lambda: told == 2)
    assert "the presence of channel 'a' could not be told" in caplog.text
    assert "presence:presence" not in caplog.text


async def test_a_channel_whose_presence_has_no_name_is_no_fault(
    make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make_hub({"*": fanwire.Channel(presence=True)})
    told: list[fanwire.PresenceChange] = []
    hub.on_presence(told.append)
    longest = "a" * 255
    async with hub.serve(ANY) as serving, connected(serving.address, f"/ws?channel={longest}"):
        await until(lambda: [(change.channel, change.occupancy) for change in told] == [(longest, 1)])
    assert "presence" not in caplog.text


async def test_off_by_default(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a&user=ann"):
        await until(lambda: hub.occupancy("a") == 1)
        with pytest.raises(LookupError, match="channel 'a' has no presence"):
            hub.presence("a")
    with pytest.raises(fanwire.HubStopped):
        hub.presence("a")


async def test_a_slow_callback_holds_up_neither_other_channels_nor_what_is_published(make_hub: MakeHub) -> None:
    may_go_on = anyio.Event()
    told: list[fanwire.PresenceChange] = []
    hub = make_hub({"*": fanwire.Channel(presence=True, presence_linger=0)})
    hub.authenticate(lambda request: request.query.get("user"))

    @hub.on_presence
    async def slow(change: fanwire.PresenceChange) -> None:
        told.append(change)
        if change.channel == "slow":
            await may_go_on.wait()

    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=presence:slow") as watcher:
        assert (await watcher.receive_json())["occupancy"] == 0
        for user in ("ann", "bob", "ann"):
            async with connected(serving.address, f"/ws?channel=slow&user={user}"):
                assert (await watcher.receive_json())["joined"] == [user]
            assert (await watcher.receive_json())["left"] == [user]
        async with connected(serving.address, "/ws?channel=other&user=eve"):
            await until(lambda: told[-1].channel == "other")
        assert [change.joined for change in told if change.channel == "slow"] == [("ann",)]
        may_go_on.set()
        await until(lambda: [change.occupancy for change in told if change.channel == "slow"] == [1, 0])
        assert told[-1].left == ("ann",), "who came and went meanwhile is in neither list"


async def test_who_flaps_while_a_callback_is_at_work_is_no_trouble(make_hub: MakeHub) -> None:
    hub = make_hub({"*": fanwire.Channel(presence=True, presence_linger=0)})
    told = 0

    @hub.on_presence
    async def slow(change: fanwire.PresenceChange) -> None:
        nonlocal told
        told += 1
        for _ in range(100):
            await anyio.lowlevel.checkpoint()

    async with hub.serve(ANY) as serving:
        for _ in range(40):
            async with connected(serving.address, "/ws?channel=a"):
                pass
        async with connected(serving.address, "/ws?channel=b"):
            await until(lambda: told and hub.occupancy("b") == 1)
        await until(lambda: hub.stats().connections == 0)


async def test_who_leaves_and_comes_in_one_breath_is_there(make_hub: MakeHub) -> None:
    hub, changes = hub_of(make_hub, presence_linger=60)  # however long the breath
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=room&user=ann") as peer:
        await until(lambda: changes)
        for _ in range(3):
            await peer.send('{"unsubscribe":["room"]}')
            await peer.send('{"subscribe":["room"],"id":1}')
            assert (await peer.receive_json())["id"] == 1
        async with connected(serving.address, "/ws?channel=room&user=bob"):
            await until(lambda: hub.presence("room") == ["ann", "bob"])
            await until(lambda: changes[-1].occupancy == 2)
        assert not any("ann" in change.left for change in changes)


@pytest.mark.parametrize("settings", [{"start": "live"}, {"start": "history", "history": 9}, {"policy": "latest"}])
async def test_presence_is_told_in_the_same_way_whatever_the_channels_are(
    make_hub: MakeHub, settings: dict[str, Any]
) -> None:
    hub = make_hub({"*": fanwire.Channel(presence=True, **settings)})
    hub.authenticate(lambda request: request.query.get("user"))
    hub.snapshot("*")(lambda channel: {"not": "of presence"})
    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a&user=ann"):
        await until(lambda: hub.presence("a") == ["ann"])
        async with connected(serving.address, "/ws?channel=presence:a") as watcher:
            told = await watcher.receive_json()
            assert told in (
                {"channel": "a", "members": ["ann"], "occupancy": 1},
                {"channel": "a", "members": [], "occupancy": 0},
            )


def test_two_changes_are_one() -> None:
    first = fanwire.PresenceChange("a", ("ann", "bob"), ("eve", "joe"), 2)
    second = fanwire.PresenceChange("a", ("eve", "kim"), ("bob", "zoe"), 3)
    assert merged(first, second) == fanwire.PresenceChange("a", ("ann", "kim"), ("joe", "zoe"), 3)


async def test_the_loop_has_turns_while_thousands_of_channels_are_told_of(
    make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    told: Counter[int] = Counter()
    tell_of = Presences._tell_of

    def counted(self: Presences, *arguments: Any) -> None:
        told[turns] += 1
        tell_of(self, *arguments)

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    monkeypatch.setattr(Presences, "_tell_of", counted)
    hub = make_hub({"*": fanwire.Channel(presence="counts", presence_linger=0)})
    async with hub.serve(ANY) as serving, anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        async with connected(serving.address) as peer:
            names = [f"p{number}" for number in range(600)]
            await peer.send_json(subscribe=names, id=1)
            await until(lambda: sum(told.values()) >= len(names))
            assert hub.occupancy("p0") == hub.occupancy("p599") == 1
        await until(lambda: sum(told.values()) >= 2 * len(names))
        tasks.cancel_scope.cancel()
    assert max(told.values()) <= 2 * CHANNELS_AT_ONCE, "trio has tasks of one turn in any order"


async def test_who_wants_to_watch_the_presence_of_a_channel_without_is_told_so(make_hub: MakeHub) -> None:
    """It was silence."""
    promised = {"with:*": fanwire.Channel(presence=True), "presence:own": fanwire.Channel()}
    hub = make_hub(promised)
    hub.on_connect(lambda client: None)
    why = "nothing is told there: the channel behind the colon has no presence"
    async with hub.serve(ANY) as serving:
        assert await refusal(serving.address, "/ws?channel=presence:a") == (400, f"channel 'presence:a': {why}")
        async with connected(serving.address, "/ws?channel=presence:own") as peer:
            await peer.send_json(subscribe=["presence:a"], id=1)
            assert await peer.receive_json() == {"id": 1, "error": f'channel name "presence:a": {why}'}
            await peer.send_json(subscribe=["presence:with:7"], id=2)
            assert (await peer.receive_json())["result"] == {"subscribed": ["presence:with:7"]}
            await until(hub.clients)
            with pytest.raises(fanwire.InvalidChannel, match=why):
                hub.subscribe(hub.clients()[0], "presence:a")
    hub.authorize(lambda client, channel: True)
    async with hub.serve(ANY) as serving:
        assert await refusal(serving.address, "/ws?channel=presence:a") == (400, f"channel 'presence:a': {why}")
