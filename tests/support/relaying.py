"""A relay before a scripted backend, and its clients."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fanwire
from fanwire.relay.config import CallShare, Lanes, RelayConfig

from support.hub_client import HubClient
from support.scripted_backend import ScriptedBackend

ANY = "127.0.0.1:0"
PATH = "/live"
SECRET = "a-token-nobody-may-read"
SHARE = CallShare(subscribe="Watch", unsubscribe="Unwatch", snapshot="Snapshot")
PATIENT = Lanes(backoff_min=0.01, backoff_max=0.02)
"""Back at once, and no timeout that a busy machine could reach."""


def config(backend: ScriptedBackend, path: str = PATH, **options: Any) -> RelayConfig:
    """A relay in front of it."""
    chosen: dict[str, Any] = {"admit": "anyone", "share": (SHARE,), "lanes": PATIENT, "linger": 0.02, **options}
    return RelayConfig(path=path, upstream=(f"http://{backend.address}{path}?secret={SECRET}",), **chosen)


@asynccontextmanager
async def relayed(hub: fanwire.Hub, *relays: RelayConfig) -> AsyncIterator[str]:
    """The address of `hub` as these relays."""
    for relay in relays:
        hub.relay(relay)
    async with hub.serve(ANY, signalr_paths=(), drain_timeout=0.2) as serving:
        yield serving.address


async def watch(client: HubClient, match: str = "m", id: str = "1") -> Any:
    """Watch a match; the error, or the snapshot."""
    await client.send({"type": 1, "invocationId": id, "target": "Watch", "arguments": [match]})
    snapshot = None
    while (message := await client.receive())["type"] != 3:
        assert message == {"type": 1, "target": "Snapshot", "arguments": [match]}
        snapshot = match
    assert message["invocationId"] == id
    return message.get("error", snapshot)


def odds(backend: ScriptedBackend, match: str, *numbers: int) -> None:
    """Publish to the lane of a match."""
    for session in backend.watching(match):
        session.say(*({"type": 1, "target": "Odds", "arguments": [number]} for number in numbers))


async def numbers(client: HubClient, last: int) -> list[int]:
    """Odds up to this one."""
    seen: list[int] = []
    while last not in seen:
        message = await client.receive()
        assert message["target"] == "Odds", message
        seen.append(message["arguments"][0])
    return seen
