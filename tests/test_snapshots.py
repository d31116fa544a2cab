"""Keyframes on demand: who is asked, how often, and what happens when there is none."""

import json
import logging

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from support.clients import connected
from support.hubs import MakeHub
from support.raw import open_socket, read_head
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
NONE = {"error": "no snapshot of channel board:7: what follows is live"}


async def test_who_joins_begins_with_a_snapshot_and_nobody_else_gets_it(hub: fanwire.Hub) -> None:
    state = {"n": 0}
    asked: list[str] = []

    @hub.snapshot("board:*", event="board", interval=60)
    def board(channel: str) -> object:
        asked.append(channel)
        return state

    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=board:7") as first:
        assert await first.receive_json() == {"n": 0}
        state["n"] = 1
        hub.publish("board:7", {"change": 1})
        assert await first.receive_json() == {"change": 1}
        async with connected(serving.address, "/ws?channel=board:7") as second:
            assert await second.receive_json() == {"n": 0}, "within the interval it is the same"
            assert await second.receive_json() == {"change": 1}
            hub.publish("board:7", {"change": 2})
            assert await first.receive_json() == await second.receive_json() == {"change": 2}
    assert asked == ["board:7"]


async def test_many_who_join_at_once_ask_once_and_wait(hub: fanwire.Hub) -> None:
    may_answer = anyio.Event()
    asked = 0

    @hub.snapshot("board:*", interval=60)
    async def board(channel: str) -> object:
        nonlocal asked
        asked += 1
        await may_answer.wait()
        return {"asked": asked}

    async with hub.serve(ANY) as serving, anyio.create_task_group() as tasks:

        async def join() -> None:
            async with connected(serving.address, "/ws?channel=board:7") as peer:
                assert await peer.receive_json() == {"asked": 1}
                assert await peer.receive() == "after"

        for _ in range(20):
            tasks.start_soon(join)
        await until(lambda: hub.occupancy("board:7") == 20)
        hub.publish("board:7", "before")
        may_answer.set()
        await until(lambda: hub.stats().deliveries == 20)
        hub.publish("board:7", "after")


@pytest.mark.parametrize("trouble", ["raises", "hangs", "has none", "has no form"])
async def test_without_a_snapshot_who_joins_begins_live_and_is_told(
    hub: fanwire.Hub, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.snapshot("board:*", timeout=0.05)
    async def board(channel: str) -> object:
        if trouble == "raises":
            raise RuntimeError("the database is away")
        if trouble == "hangs":
            await anyio.sleep_forever()
        return None if trouble == "has none" else object()

    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=board:7") as peer:
        assert await peer.receive_json() == NONE
        hub.publish("board:7", "live")
        assert await peer.receive() == "live"
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    expected = {
        "hangs": ["the snapshot of channel 'board:7' took longer than 0.05 s"],
        "has none": [],
    }
    assert errors == expected.get(trouble, ["the snapshot of channel 'board:7' could not be made"])


async def test_what_is_published_while_a_snapshot_fails_is_not_lost(hub: fanwire.Hub) -> None:
    may_fail = anyio.Event()

    @hub.snapshot("board:*")
    async def board(channel: str) -> object:
        await may_fail.wait()
        return None

    async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=board:7") as peer:
        await until(lambda: hub.occupancy("board:7") == 1)
        hub.publish("board:7", "1")
        may_fail.set()
        assert [await peer.receive_json(), *await peer.receive_all(1)] == [NONE, "1"]


async def test_a_keyframe_of_the_channel_spares_the_snapshot(hub: fanwire.Hub) -> None:
    @hub.snapshot("*")
    def state(channel: str) -> object:
        raise AssertionError("nobody needs it")

    async with hub.serve(ANY) as serving:
        hub.publish("a", "K", keyframe=True)
        async with connected(serving.address, "/ws?channel=a") as peer:
            assert await peer.receive() == "K"
        async with connected(serving.address, "/ws?channel=b&start=live") as peer:
            await until(lambda: hub.occupancy("b") == 1)
            hub.publish("b", "live")
            assert await peer.receive() == "live"


async def test_the_interval_bounds_how_often_it_is_asked(make_hub: MakeHub) -> None:
    hub = make_hub({"*": fanwire.Channel(backlog_frames=2)})
    asked_at: list[float] = []

    @hub.snapshot("*", interval=0.2)
    def state(channel: str) -> object:
        asked_at.append(anyio.current_time())
        return {"asked": len(asked_at)}

    async with hub.serve(ANY) as serving:

        async def join(expected: int) -> None:
            async with connected(serving.address, "/ws?channel=a") as peer:
                assert await peer.receive_json() == {"asked": expected}

        await join(1)
        hub.publish_many("a", ["too", "much", "for", "the", "backlog"])
        await join(2)
    assert asked_at[1] - asked_at[0] > 0.199


async def test_after_a_failure_nobody_waits_for_the_next(hub: fanwire.Hub) -> None:
    asked = 0

    @hub.snapshot("*", interval=3600)
    async def state(channel: str) -> object:
        nonlocal asked
        asked += 1
        raise RuntimeError("no")

    async with hub.serve(ANY) as serving:
        for _ in range(3):
            async with connected(serving.address, "/ws?channel=board:7") as peer:
                assert await peer.receive_json() == NONE
    assert asked == 1


async def test_nobody_waits_for_long_where_the_last_one_is_gone_and_the_next_is_not_due(make_hub: MakeHub) -> None:
    hub = make_hub({"*": fanwire.Channel(backlog_frames=2)})
    hub.snapshot("*", interval=3600, timeout=1.0)(lambda channel: "state")
    async with hub.serve(ANY) as serving:
        async with connected(serving.address, "/ws?channel=board:7") as peer:
            assert await peer.receive() == "state"
        hub.publish_many("board:7", ["too", "much", "for", "the", "backlog"])
        async with connected(serving.address, "/ws?channel=board:7") as peer:
            assert await peer.receive_json() == NONE


async def test_many_that_hang_are_all_given_up_and_fill_no_log(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.snapshot("*", timeout=0.3)
    async def state(channel: str) -> object:
        await anyio.sleep_forever()

    async with hub.serve(ANY) as serving, connected(serving.address, "/ws") as peer:
        await peer.send_json(subscribe=[f"c{number}" for number in range(260)])
        errors = [(await peer.receive_json())["error"] for _ in range(260)]
        assert len(set(errors)) == 260
    assert caplog.text.count("took longer than 0.3 s") == 100


async def test_a_bad_registration_says_what_is_wrong(hub: fanwire.Hub) -> None:
    with pytest.raises(ValueError, match=r"interval must be a number of seconds, 0\.001 to 3,600, not 0"):
        hub.snapshot("*", interval=0)
    with pytest.raises(ValueError, match=r"timeout must be a number of seconds, 0\.001 to 3,600, not -1"):
        hub.snapshot("*", timeout=-1)
    with pytest.raises(fanwire.InvalidChannel):
        hub.snapshot("")


async def test_an_event_stream_is_told_by_an_event(hub: fanwire.Hub) -> None:
    @hub.snapshot("*")
    def none(channel: str) -> None:
        return None

    def read(address: str) -> bytes:
        with open_socket(address) as stream:
            stream.sendall(b"GET /events?channel=board:7 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            read_head(stream)
            events = b""
            while events.count(b"\n\n") < 2:
                events += stream.recv(1)
            return events.removeprefix(b":\n\n")

    async with hub.serve(ANY) as serving:
        event = await run_sync(read, serving.address)
        assert event.decode().splitlines() == [
            "event: subscribed",
            f"data: {json.dumps(NONE, separators=(',', ':'))}",
            "",
        ]
