"""docs/promises.md, row by row: what its tables say is what a client sees."""

import json
import re
import socket
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import fanwire
import pytest
from anyio.to_thread import run_sync
from support.clients import connected, settle
from support.hubs import MakeHub
from support.raw import MORE_THAN_A_SOCKET_TAKES, read_close, read_frame, upgraded
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
PAGE = (Path(__file__).parent.parent / "docs" / "promises.md").read_text()
POLICIES = fanwire.channel.ROWS["policy"].choices
KEYS = 20
PAD = "x" * 16_000


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without code marks; its head is left out."""
    rows = [line for line in PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows[2:]]


LAGGARDS = [
    (policy, situation, promise)
    for policy, *promises in table("Who is behind")
    for situation, promise in zip(("keeps pace", "behind", "overtaken"), promises, strict=True)
]


def test_the_tables_are_complete() -> None:
    assert {policy for policy, _, _ in LAGGARDS} == set(POLICIES)
    assert len(LAGGARDS) == 12
    assert {row[3] for row in table("Who comes, and who comes back")} == {"–", "true", "false"}


def check_order(seen: list[int], last: int) -> None:
    assert seen == sorted(set(seen)), "in order, never twice"
    assert seen[-1] == last, "and live again"


def check_every(seen: list[int], last: int) -> None:
    assert seen == list(range(1, last + 1))


def check_latest(seen: list[int], last: int) -> None:
    check_order(seen, last)
    assert len(seen) < last, "something was replaced"
    assert {max(n for n in seen if n % KEYS == key) for key in range(KEYS)} == set(range(last - KEYS + 1, last + 1))


def gaps(seen: list[int]) -> list[int]:
    """What came behind each gap; there is one at least."""
    behind = [after for before, after in pairwise(seen) if after != before + 1]
    assert behind
    return behind


def check_keyframe(seen: list[int], last: int) -> None:
    check_order(seen, last)
    assert {behind % 7 for behind in gaps(seen)} == {0}


def check_tail(seen: list[int], last: int) -> None:
    check_order(seen, last)
    assert len(gaps(seen)) < last - len(seen), "not one by one"


CHECKS: dict[str, Callable[[list[int], int], None]] = {
    "every publication": check_every,
    "the newest of each key": check_latest,
    "on from the newest keyframe": check_keyframe,
    "on from the tail": check_tail,
}


def read_until(connection: socket.socket, last: int) -> list[int]:
    """Numbers of the publications up to this one."""
    seen: list[int] = []
    while not seen or seen[-1] < last:
        seen.append(json.loads(read_frame(connection).payload)["n"])
    return seen


class Feed:
    """Publishes one number after the other."""

    def __init__(self, hub: fanwire.Hub) -> None:
        self.last = 0
        self._hub = hub

    def publish(self, count: int = 1, pad: str = PAD) -> None:
        """The next ones; every seventh is a keyframe."""
        for n in range(self.last + 1, self.last + count + 1):
            data = {"n": n, "pad": pad}
            self._hub.publish("c", data, key=str(n % KEYS), keyframe=n % 7 == 0)
        self.last += count


@pytest.mark.parametrize(("policy", "situation", "promise"), LAGGARDS)
async def test_who_is_behind(make_hub: MakeHub, policy: str, situation: str, promise: str) -> None:
    backlog = 256_000 if situation == "overtaken" else 1 << 30
    hub = make_hub({"c": fanwire.Channel(policy=policy, backlog_bytes=backlog)}, publication_bytes_max=64 << 20)
    feed = Feed(hub)
    async with hub.serve(ANY) as serving:
        with await run_sync(
            partial(upgraded, serving.address, "/ws?channel=c&start=live", receive_buffer=4_096)
        ) as connection:
            await until(lambda: hub.occupancy("c") == 1)
            seen: list[int] = []
            if situation == "keeps pace":
                while feed.last < 60:
                    feed.publish()
                    seen += await run_sync(read_until, connection, feed.last)
                return CHECKS[promise](seen, feed.last)
            feed.publish(pad=MORE_THAN_A_SOCKET_TAKES)
            await until(lambda: hub.stats().lagging == 1)
            feed.publish(5 * KEYS)
            if situation == "overtaken" and policy != "latest":
                while not (hub.stats().overtaken or hub.stats().skipped[policy]):
                    feed.publish(5)
                    await settle(hub, serving.address)
            if promise == "closed with 1013":
                assert await run_sync(read_close, connection) == (1013, "too slow for channel c")
                assert hub.stats().overtaken == 1
                return None
            before = None
            while before != hub.stats().skipped:  # a round that overtakes it may be skipped to its end; the next is not
                before = hub.stats().skipped
                feed.publish(7)
                await settle(hub, serving.address)
            seen += await run_sync(read_until, connection, feed.last)
            await until(lambda: hub.stats().lagging == 0)
            feed.publish()
            seen += await run_sync(read_until, connection, feed.last)
            skipped = {**dict.fromkeys(POLICIES, 0), policy: feed.last - len(seen)}
            assert hub.stats().skipped == skipped
            return CHECKS[promise](seen, feed.last)


NEWCOMERS = table("Who comes, and who comes back")
GETS = {
    "the keyframe and what followed": ["K", "3", "4"],
    "what is published from now on": [],
    "all that is kept": ["1", "2", "K", "3", "4"],
    "the newest of each key": ["2", "K", "3", "4"],
    "exactly what it missed": ["3", "4"],
}


@pytest.mark.parametrize(("asks", "there_is", "gets", "recovered"), NEWCOMERS)
async def test_who_comes_and_who_comes_back(
    make_hub: MakeHub, asks: str, there_is: str, gets: str, recovered: str
) -> None:
    kept = 2 if "not all" in there_is else 100 if "history" in there_is or "all that" in there_is else 0
    policy = "latest" if "latest" in there_is else "every"
    hub = make_hub({"c": fanwire.Channel(history=kept, policy=policy)})
    async with hub.serve(ANY) as serving:
        positions = {
            data: hub.publish(
                "c", data, key="a" if data in "12" else data, keyframe=data == "K" and "no k" not in there_is
            )
            for data in ("1", "2", "K", "3", "4")
        }
        epoch, offset = positions["1" if "not all" in there_is else "K"]
        offset += 100 * ("future" in asks)
        epoch -= "another epoch" in asks
        start = re.search(r"start=(\w+)", asks)
        query = f"&since={epoch}-{offset}" * ("since" in asks) + (f"&start={start[1]}" if start else "")
        first = [] if asks == "nothing" and "no keyframe" in there_is else GETS[gets]
        async with connected(serving.address, f"/ws?channel=c{query}") as peer:
            if recovered != "–":
                told: dict[str, Any] = (await peer.receive_json())["result"]
                assert told["recovered"] == {"c": recovered == "true"}
            await until(lambda: hub.occupancy("c") == 1)
            assert await peer.receive_all(len(first)) == first
            hub.publish("c", "live")
            assert await peer.receive() == "live"
