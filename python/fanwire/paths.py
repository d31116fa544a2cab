"""Which path is whose, from what the application registered, and its paths that come and go while the hub serves.

The table itself is the engine's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from fanwire._engine import Engine, Route
from fanwire.callbacks import Callbacks
from fanwire.options import OWN_PATHS, clash
from fanwire.owner import APPLICATION, RELAYS, SCRAPES
from fanwire.relay.config import RelayConfig


def route_of_hub(path: str, callbacks: Callbacks, own: Mapping[str, Any]) -> Route:
    """A path of the application's where SignalR clients find methods."""
    transports = callbacks.transports.get(path, own["signalr_transports"])
    return Route(path, "signalr", APPLICATION, transports=transports, asks=asked_of(callbacks))


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


WIRES = ("websocket", "events", "metrics")
"""What may be spoken at such a path."""


@dataclass(frozen=True, slots=True)
class PathRule:
    """One such path; see ``Hub.path``."""

    path: str
    wire: str
    channel: str | None = None
    origins: Sequence[str] | None = None
    message_bytes_max: int | None = None

    def route(self, asks: Sequence[str] = ()) -> Route:
        """The route, of which the application is asked this. Raises ValueError where there can be none."""
        is_scraped = self.wire == "metrics"
        return Route(
            self.path,
            "request" if is_scraped else self.wire,
            SCRAPES if is_scraped else APPLICATION,
            channel=self.channel,
            asks=asks,
            origins=self.origins,
            message_bytes_max=self.message_bytes_max,
        )


class Paths:
    """Those of one hub, which begins with its own, and of the serving that has them now; any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rules = {path: PathRule(path, wire) for path, wire in OWN_PATHS.items()}
        # The engine that serves, and what the application is asked there.
        self._served: tuple[Engine, Sequence[str]] | None = None

    def __len__(self) -> int:
        return len(self._rules.keys() - OWN_PATHS.keys())

    @property
    def count(self) -> int:
        """How many there are, the hub's own with them."""
        return len(self._rules)

    def clash(self, route: Route) -> str | None:
        """The path that this route would hide, or that would hide it."""
        return clash(route, (rule.route() for rule in list(self._rules.values())))

    def add(self, rule: PathRule, check: Callable[[Route], None]) -> None:
        """Add one, which `check` has nothing against. Raises ValueError where it cannot be."""
        route = rule.route()
        check(route)
        with self._lock:
            other = self.clash(route)
            if other is not None:
                raise ValueError(hiding(rule.path, other))
            if self._served is not None:
                engine, asks = self._served
                engine.add_route(rule.route(asks))
            self._rules[rule.path] = rule

    def remove(self, path: str) -> None:
        """Remove one. Raises ValueError for one that was not added."""
        with self._lock:
            if self._rules.pop(path, None) is None:
                raise ValueError(f"there is no path {path!r} of hub.path to remove, nor an endpoint or a relay")
            if self._served is not None:
                self._served[0].remove_route(path)

    def serve(self, engine: Engine, asks: Sequence[str]) -> None:
        """Have this engine serve them, and those that come. Raises ValueError for one that an option's path hides."""
        with self._lock:
            for rule in self._rules.values():
                engine.add_route(rule.route(asks))
            self._served = engine, asks

    def end(self) -> None:
        """Nobody serves them any more."""
        self._served = None


def hiding(path: str, other: str) -> str:
    """What is said of two that cannot both be."""
    return f"path {path!r} and {other!r} would hide each other"
