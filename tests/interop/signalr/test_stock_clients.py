"""Stock SignalR clients see the same at the target as at the real hub: each client, transport and protocol."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import pytest
from clients import Mode, missing, modes
from stage import Hub, Seen, play, play_pair

pytestmark = pytest.mark.timeout(150)
STORIES = {"scenario": "live", "unanswered": "live", "throwing": "live", "goodbye": "live", "member": "members"}
NO_GOODBYE = {"pysignalr": "after a Close it reconnects on its own, for ever"}

RACY = {"java-longpolling-json": 3}
"""How often a client may try whose own requests race: Java's posts and polls do not wait for each other."""

T = TypeVar("T")


def at_both(run: Callable[[Hub], T], reference: Hub, target: Hub) -> list[T]:
    """What a run brings at the one and at the other, side by side."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, (reference, target)))


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
        seen = play(story, mode, f"{hub.url}/{path}", hub.token if path == "members" else None)
        if str(mode) in RACY:  # whether its last poll meets the end, or nobody, is chance
            seen = replace(seen, life=[{**event, "error": None} for event in seen.life])
        return seen

    for _ in range(RACY.get(str(mode), 1) - 1):
        with suppress(AssertionError):
            expected, got = at_both(look, reference_hub, target_hub)
            if got == expected:
                return
    expected, got = at_both(look, reference_hub, target_hub)
    assert got == expected


def test_a_pair_looks_the_same(mode: Mode, reference_hub: Hub, target_hub: Hub) -> None:
    expected, got = at_both(lambda hub: play_pair(mode, f"{hub.url}/live"), reference_hub, target_hub)
    assert got == expected
    listener, teller = got
    assert [message["args"] for message in listener.messages] == [["not to me"], ["to all"]]
    assert [message["args"] for message in teller.messages] == [["to all"]]
