"""Stock SignalR clients see the same at a hub that is mounted in an ASGI application, over every transport."""

import pytest
from clients import KINDS, Mode, missing
from stage import Hub, play

pytestmark = pytest.mark.timeout(150)
MODES = [
    Mode(kind, transport, protocols[-1])
    for kind in KINDS
    for transport, protocols in kind.transports.items()
    if kind.name in ("node", "pysignalr")
]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_story_looks_the_same_at_a_mounted_hub(mode: Mode, target_hub: Hub, mounted_hub: Hub) -> None:
    reason = missing(mode.kind)
    if reason:
        pytest.skip(reason)
    expected, got = (play("scenario", mode, f"{hub.url}/live", None) for hub in (target_hub, mounted_hub))
    assert got == expected
