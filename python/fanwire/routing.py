"""Which path is whose, from what the application registered. The table itself is the engine's."""

from collections.abc import Mapping
from typing import Any

from fanwire._engine import Route
from fanwire.callbacks import Callbacks
from fanwire.options import OWN_PATHS
from fanwire.owner import RELAYS, SCRAPES
from fanwire.relay.config import RelayConfig


def routes_of(callbacks: Callbacks, own: Mapping[str, Any]) -> list[Route]:
    """The paths of the application, which is asked what it has a callback for."""
    asks = asked_of(callbacks)
    chosen = dict.fromkeys(own["signalr_paths"], own["signalr_transports"]) | callbacks.transports
    hubs = [Route(path, "signalr", transports=chosen[path], asks=asks) for path in own["signalr_paths"]]
    return [*(Route(path, wire, SCRAPES * (wire == "request"), asks=asks) for path, wire in OWN_PATHS.items()), *hubs]


def asked_of(callbacks: Callbacks) -> list[str]:
    """What the application is asked and told of its clients: what it has a callback for."""
    asked = {
        "opening": callbacks.know_clients or callbacks.subprotocols,
        "subscribing": callbacks.authorize,
        "connected": callbacks.is_told_of_clients,
        "messages": callbacks.on_message,
    }
    return [name for name, callback in asked.items() if callback]


def route_of_relay(relay: RelayConfig, owner: int = RELAYS) -> Route:
    """A relay's path: its clients are the relay's to let in, and it passes on what they send."""
    if relay.protocol == "websocket":
        return Route(relay.path, "plain", owner)
    return Route(relay.path, "signalr", owner, asks=["opening", "connected", "records"])
