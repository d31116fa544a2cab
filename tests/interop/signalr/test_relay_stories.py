"""Stock SignalR clients see the same through a relay as at the hub behind it: each client, transport and protocol."""

from collections.abc import Iterator

import pytest
from clients import Mode
from conftest import BACKEND_PORT, origin
from relaying import relay, through_relay
from stage import Hub, Seen, play
from test_stock_clients import NO_GOODBYE, STORIES, at_both, mode, without_chance

__all__ = ["mode"]
pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def relayed_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A relay in front of a hub of its own."""
    with origin(BACKEND_PORT) as hub, relay(hub.url, tmp_path_factory.mktemp("relay")) as address:
        yield Hub(f"http://{address}", hub.token)


@pytest.mark.parametrize("story", STORIES)
def test_a_story_looks_the_same_through_a_relay(story: str, mode: Mode, reference_hub: Hub, relayed_hub: Hub) -> None:
    if story == "goodbye" and mode.kind.name in NO_GOODBYE:
        pytest.skip(NO_GOODBYE[mode.kind.name])
    path = STORIES[story]

    def look(hub: Hub) -> Seen:
        seen = play(story, mode, f"{hub.url}/{path}", hub.token if path == "members" else None)
        return through_relay(without_chance(seen, mode))

    expected, got = at_both(mode, look, reference_hub, relayed_hub)
    assert got == expected
