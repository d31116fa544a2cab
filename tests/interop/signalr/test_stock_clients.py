"""Stock SignalR clients see the same at the target as at the real hub: each client, transport and protocol."""

import pytest
from clients import Mode, missing, modes
from stage import Hub, play, play_pair

pytestmark = pytest.mark.timeout(150)
STORIES = {"scenario": "live", "unanswered": "live", "throwing": "live", "goodbye": "live", "member": "members"}
NO_GOODBYE = {"pysignalr": "after a Close it reconnects on its own, for ever"}


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
    runs = [play(story, mode, f"{hub.url}/{path}", hub.token if path == "members" else None) for hub in (reference_hub, target_hub)]
    assert runs[1] == runs[0]


def test_a_pair_looks_the_same(mode: Mode, reference_hub: Hub, target_hub: Hub) -> None:
    expected, got = (play_pair(mode, f"{hub.url}/live") for hub in (reference_hub, target_hub))
    assert got == expected
    listener, teller = got
    assert [message["args"] for message in listener.messages] == [["not to me"], ["to all"]]
    assert [message["args"] for message in teller.messages] == [["to all"]]
