"""How relays stand, of either protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fanwire.timings import Timings

SHOWN_MAX = 80
"""Characters of a lane's arguments in stats and log."""


@dataclass(frozen=True, slots=True)
class LaneStats:
    """How a lane stands."""

    method: str
    """The call that subscribes; of a plain backend ``?match`` (parameters of the query) or ``/watch`` (the pointer)."""
    arguments: str
    """What is watched, as JSON, shortened to 80 characters: the call's arguments, the parameters, or the value."""
    protocol: str
    """``json``, ``messagepack`` or, of a plain backend, ``websocket``."""
    state: str
    """``connecting``, ``live`` or ``down``; ``mirrored``: another worker holds it, and says which."""
    clients: int
    """Those that watch; not those that wait for the lane to open."""
    gap_since: float | None
    """Wall clock in seconds since when it is down; None while it is not."""
    gaps: int
    """How often it was down."""
    why: str
    """Why it is down or could not be opened, in at most 200 characters of the backend's words."""
    worker: int | None = None
    """The number of the worker that holds it; None where there is one process."""


@dataclass(frozen=True, slots=True)
class UpstreamStats:
    """How one of a relay's upstreams stands."""

    url: str
    """Without its query."""
    state: str
    """``up``, ``down``, or ``unknown`` until a first connection."""
    why: str
    """Why it is down: the system's or TLS's error, a timeout, or a status."""
    connects: int
    """Connections and negotiations that succeeded."""
    failures: int
    """Those that did not."""


@dataclass(frozen=True, slots=True)
class RelayStats:
    """How a relay stands."""

    path: str
    lanes: list[LaneStats]
    broadcasts: dict[str, str]
    """By hub protocol: ``live``, or why the broadcast lane is down; empty of a plain backend."""
    upstreams: list[UpstreamStats]
    """In the order of the settings."""
    private_lanes: int
    """Connections of single clients to the backend, open or about to be."""
    sessions: int
    """All connections to backends, of all relays of the hub."""
    gaps: int
    """How often lanes were down since the start."""
    unused: list[str]
    """Names of the settings that no client has called and no message of the backend has had so far, as
    ``share[0].snapshot = "Snapshot"``."""


@dataclass(frozen=True, slots=True)
class RelaySums:
    """The same in numbers: of however many lanes, without a word on each."""

    path: str
    states: Mapping[str, int]
    """Lanes by state."""
    watching: int
    """Ties between a client and a lane."""
    broadcasts: dict[str, str]
    upstreams: list[UpstreamStats]
    private_lanes: int
    gaps: int
    unused: int
    """How many names."""
    gap_times: Timings
    """How long lanes were down, of those that are live again."""
    connect_times: Mapping[str, Timings]
    """How long it took until a connection was had, by the upstream's URL without its query."""


class MeasuredRelay(Protocol):
    """A relay, of either protocol."""

    def sums(self) -> RelaySums:
        """How it stands, now."""
