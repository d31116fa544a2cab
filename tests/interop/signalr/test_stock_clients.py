"""Stock SignalR clients see the same at the target as at the real hub: each client, transport and protocol."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TypeVar

import pytest
from clients import Mode, missing, modes
from stage import Hub, Seen, play, play_pair

pytestmark = pytest.mark.timeout(150)
STORIES = {"scenario": "live", "unanswered": "live", "throwing": "live", "goodbye": "live", "member": "members"}
NO_GOODBYE = {"pysignalr": "after a Close it reconnects on its own, for ever"}

RACY = {"java-longpolling-json": 3, "signalrcore-websockets-json": 3, "signalrcore-websockets-messagepack": 3}
"""How often a client may try that races with itself: Java's posts and polls do not wait for each other, and signalrcore
asks for a stream before anybody listens to it."""

T = TypeVar("T")


def at_both(mode: Mode, run: Callable[[Hub], T], reference: Hub, target: Hub) -> tuple[T, T]:
    """What a run brings at the one and at the other, side by side; a racy client tries again where they differ."""
    tries = RACY.get(str(mode), 1)
    while True:
        tries -= 1
        with suppress(AssertionError) if tries else nullcontext(), ThreadPoolExecutor(2) as pool:
            expected, got = pool.map(run, (reference, target))
            if got == expected or not tries:
                return expected, got


def without_chance(seen: Seen, mode: Mode) -> Seen:
    """Without how a racy client ended: whether its last poll meets the end, or nobody, is chance."""
    return replace(seen, life=[{**event, "error": None} for event in seen.life]) if str(mode) in RACY else seen


@pytest.fixture(params=modes(), ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    """A client that can run here."""
    chosen = request.param
    assert isinstance(chosen, Mode)
    reason = missing(chosen.kind)
    if reason:
        pytest.skip(reason)
    return chosen


@pytest.mark.parametrize("story", STORIES)
def test_a_story_looks_the_same(story: str, mode: Mode, reference_hub: Hub, target_hub: Hub) -> None:
    if story == "goodbye" and mode.kind.name in NO_GOODBYE:
        pytest.skip(NO_GOODBYE[mode.kind.name])
    path = STORIES[story]

    def look(hub: Hub) -> Seen:
        return without_chance(play(story, mode, f"{hub.url}/{path}", hub.token if path == "members" else None), mode)

    expected, got = at_both(mode, look, reference_hub, target_hub)
    assert got == expected


def test_a_pair_looks_the_same(mode: Mode, reference_hub: Hub, target_hub: Hub) -> None:
    def look(hub: Hub) -> list[Seen]:
        return [without_chance(seen, mode) for seen in play_pair(mode, f"{hub.url}/live")]

    expected, got = at_both(mode, look, reference_hub, target_hub)
    assert got == expected
    listener, teller = got
    assert [message["args"] for message in listener.messages] == [["not to me"], ["to all"]]
    assert [message["args"] for message in teller.messages] == [["to all"]]
