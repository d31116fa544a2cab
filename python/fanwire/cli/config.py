"""All settings of ``fanwire serve``: what a ``fanwire.toml`` may hold."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path as File
from typing import Annotated, Any, ClassVar, Literal

from fanwire._engine import Engine, Settings, matches
from fanwire.admin.config import AdminConfig
from fanwire.channel import NO_HISTORY, Channel, check_pattern
from fanwire.channel import RULES as CHANNEL_RULES
from fanwire.cli.backbone import BackboneConfig, OriginConfig, faults_of, joined, relay_of
from fanwire.config.kinds import (
    Address,
    Duration,
    Leaf,
    Limits,
    Origins,
    choice,
    leaf_of,
    shown,
    text,
    whole,
)
from fanwire.config.reading import UNREAD, Chosen, apart, read
from fanwire.config.sources import Option, Path, Sources
from fanwire.errors import ConfigError
from fanwire.options import ELSEWHERE as HUBS_ELSEWHERE
from fanwire.options import (
    FORMATS,
    IN_ADDRESS,
    MANY_WORKERS,
    PATHS_MAX,
    ROWS,
    RULES,
    SHARDS,
    SHARDS_RULE,
    TRANSPORTS,
    WORKER_TIMEOUT_RULE,
    WORKERS_MAX,
    WORKERS_RULE,
    read_close_code,
)
from fanwire.paths import route_of_relay
from fanwire.presence import PREFIX as PRESENCE
from fanwire.relay.config import NEGOTIATE, NO_BACKBONE, RelayConfig
from fanwire.sources.config import SourceConfig
from fanwire.values import Mistake

IN_LISTEN = {
    IN_ADDRESS: "is part of address under [listen]",
    SHARDS: "is called shards here, under [listen]",
    MANY_WORKERS: "is called workers here, under [listen]",
}
"""What is said of what is written there."""
SOURCES_MAX = 64
"""So many are run beside a server, each with connections of its own."""
LISTS = {"formats": FORMATS, "signalr_transports": TRANSPORTS}
"""Options that are lists of names, and which those are."""


ELSEWHERE = {
    **{name: text for name, text in HUBS_ELSEWHERE.items() if text.startswith(("is called", "is none of"))},
    **{name: IN_LISTEN[text] for name, text in HUBS_ELSEWHERE.items() if text in IN_LISTEN},
    **dict.fromkeys(Channel.__dataclass_fields__, "is a key of each [[channel]]"),
    "shards": "is written as shards under [listen]",
    "workers": "is written as workers under [listen]",
    "worker_timeout": "is written as worker_timeout under [listen]",
    "address": "is written as address under [listen]",
    "drain_timeout": "is written as timeout under [drain]",
    "drain_spread": "is written as spread under [drain]",
    "drain_code": "is written as code under [drain]",
    "subprotocols": "is an option of Hub(...): a relay's backend chooses them",
    "signalr_paths": "is written as the path of each [[relay]]",
    "encode": "is a function, and so an option of Hub(...) alone",
}


def _kind_of_option(name: str) -> Any:
    """How an option of ``Hub(...)`` is written in the file."""
    if name in LISTS:
        return tuple[Annotated[str, choice(LISTS[name])], ...]
    return Origins if name == "origins" else Annotated[Any, leaf_of(RULES[name], is_bare_allowed=True)]


OPTIONS = Limits({name: _kind_of_option(name) for name in RULES if name not in ELSEWHERE}, ELSEWHERE)
"""The options of ``Hub(...)`` as the file has them, under ``[limits]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where clients connect, and how many threads serve them."""

    address: Address = "127.0.0.1:8000"
    """As ``address`` of ``serve``. Worst cost: as there."""
    shards: Annotated[int, leaf_of(SHARDS_RULE)] = 1
    """As ``shards`` of ``serve``. Worst cost: as there."""
    workers: Annotated[int | Literal["auto"], whole(WORKERS_RULE, f'0 to {WORKERS_MAX}, or "auto"')] = 0
    """As ``workers`` of ``run``. Worst cost: as there."""
    worker_timeout: Annotated[float, leaf_of(WORKER_TIMEOUT_RULE)] = 30.0
    """As ``worker_timeout`` of ``run``. Worst cost: as there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelConfig(Channel):
    """What the channels promise whose name matches a pattern: ``fanwire.Channel``. The first match wins."""

    LATER: ClassVar[Mapping[str, str]] = {}
    """Names of others mean nothing here."""
    KINDS: ClassVar[Mapping[str, Leaf]] = {
        **{name: leaf_of(rule) for name, rule in CHANNEL_RULES.items()},
        "presence": choice((True, False, "counts")),
    }
    """How the file has what a channel takes: with units."""

    pattern: Annotated[str, text("a channel's name in which * is any run of characters", check=check_pattern)]
    """Which channels; required."""

    def channel(self) -> Channel:
        """The same for ``Hub(channels=...)``."""
        return Channel(**{name: getattr(self, name) for name in CHANNEL_RULES})

    def faults(self) -> Iterator[tuple[Path, str]]:
        """What is wrong between the fields."""
        if self.start == "history" and not self.history:
            yield ("start",), f'is "history", {NO_HISTORY}'
        if self.presence:
            try:
                matches(f"{PRESENCE}{self.pattern}", "")
            except ValueError:
                yield ("pattern",), f'is {shown(self.pattern)}, too long for its presence to be told on "{PRESENCE}…"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The orderly end."""

    timeout: Duration = 3.0
    """How long clients get to answer the close. Worst cost: the end takes so long when clients do not answer."""
    spread: Annotated[float, leaf_of(RULES["drain_spread"])] = 4.0
    """Over how long the closes are spread; with `timeout` less than 8 s by default, since ``docker stop`` kills after
    10. Worst cost: all clients come back at once where it is 0."""
    code: Annotated[int, whole(read_close_code, ROWS["drain_code"].must)] = 1000
    """The close code of clients that are not SignalR's. Worst cost: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is logged, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged, on stderr. Worst cost: a line each with ``debug`` for what a client can cause, 1,000 of
    a kind within 10 s; how many more there were is told once."""
    format: Literal["text", "json"] = "text"
    """How: ``text`` is short lines on a terminal and ``key=value`` elsewhere, ``json`` an object a line, as
    docs/monitoring.md tells. Worst cost: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """What ``fanwire serve`` serves."""

    LATER: ClassVar[Mapping[str, str]] = {
        "service": "is not known yet: service mode, where the backend dials in, comes in a later version",
        "tls": "is not known: fanwire speaks plain HTTP, and a proxy in front ends TLS, as docs/proxy.md shows",
    }

    listen: Listen = Listen()
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    relay: Annotated[tuple[RelayConfig, ...], Chosen(relay_of)] = ()
    """The backends, each with its path; at least one, where there is no source and this is no edge. One whose upstream
    is an origin is the backbone: ``load`` puts it there."""
    source: tuple[SourceConfig, ...] = ()
    """What is read and published beside: docs/sources.md."""
    channel: tuple[ChannelConfig, ...] = ()
    """What channels promise, by patterns of their names; the first match wins."""
    limits: Annotated[Mapping[str, Any], OPTIONS] = field(default_factory=dict)
    """Options of ``Hub(...)`` by their names; those that are not given have their defaults. A number without a unit is
    seconds or bytes here, as it is there."""
    drain: Drain = Drain()
    log: Log = Log()
    admin: AdminConfig = field(default_factory=AdminConfig)
    """Who is connected, what lags and why: docs/admin.md."""

    def faults(self) -> Iterator[tuple[Path, str]]:
        """What is wrong between the fields."""
        if len(self.relay) > PATHS_MAX:
            yield ("relay",), f"has {len(self.relay):,} tables, must have {PATHS_MAX} at most"
        relays = (self._fault_of_path(*pair) for pair in combinations(range(len(self.relay[:PATHS_MAX])), 2))
        known: dict[str, int] = {}
        channels = (self._fault_of_pattern(index, known) for index in range(len(self.channel)))
        limits = (self._fault_of_limit(name, value) for name, value in self.limits.items() if name in LISTS)
        alone = (self._fault_of_alone(index) for index in range(len(self.relay[:PATHS_MAX])))
        joins = faults_of(self.backbone, self.relay)
        others = *channels, *limits, self._fault_of_poller(), self._faults_of_places(), joins
        yield from _first_of_each(apart(self._fault_of_none(), *relays, *alone, *others))

    @property
    def _is_edge(self) -> bool:
        return joined(self.backbone, self.relay).is_edge

    def _fault_of_limit(self, name: str, value: Any) -> Iterator[tuple[Path, str]]:
        if value is UNREAD or any(each is UNREAD for each in value):
            return
        try:
            RULES[name](value)
        except Mistake as mistake:
            yield ("limits", name), f"{mistake.at} {mistake}".strip()

    def _fault_of_poller(self) -> Iterator[tuple[Path, str]]:
        if self.limits.get("poller") != "uring":
            return
        engine = Engine(Settings(poller="uring"))
        try:
            engine.start()
        except OSError as error:
            yield ("limits", "poller"), f'is "uring", which this kernel does not allow: {error.strerror or error}'
        finally:
            engine.stop()

    def _fault_of_none(self) -> Iterator[tuple[Path, str]]:
        if not self.relay and not self.source and not self._is_edge:
            yield ("relay",), "is missing: name a backend, with [[relay]] in a file or --upstream URL"

    def _faults_of_places(self) -> Iterator[tuple[Path, str]]:
        if self.source and self._is_edge:
            yield ("source",), "publishes, and an edge does not: read it at the origin"
        if len(self.source) > SOURCES_MAX:
            yield ("source",), f"has {len(self.source):,} tables, must have {SOURCES_MAX} at most"
            return
        known: dict[str, int] = {}
        for index, one in enumerate(self.source):
            first = known.setdefault(one.place, index)
            if one.place and first != index:
                yield ("source", index, "name"), f'is "{one.place}", which is source[{first}]\'s already'

    def _fault_of_alone(self, index: int) -> Iterator[tuple[Path, str]]:
        if isinstance(self.relay[index], OriginConfig):
            return
        is_alone = self.backbone.url is None or self._is_edge
        if self.relay[index].lanes.machines == "shared" and is_alone:
            yield ("relay", index, "lanes", "machines"), NO_BACKBONE

    def _fault_of_path(self, known: int, index: int) -> Iterator[tuple[Path, str]]:
        other, relay = self.relay[known], self.relay[index]
        if isinstance(other, OriginConfig) or isinstance(relay, OriginConfig):
            return
        is_above = len(relay.path) < len(other.path)  # first: it looks whether both were read
        if route_of_relay(relay).clashes_with(route_of_relay(other)):
            what = f"whose {NEGOTIATE}" if is_above else "which"
            yield ("relay", index, "path"), f'is "{relay.path}", {what} is relay[{known}]\'s already'

    def _fault_of_pattern(self, index: int, known: dict[str, int]) -> Iterator[tuple[Path, str]]:
        pattern = self.channel[index].pattern
        first = known.setdefault(pattern, index)
        if first != index:
            yield ("channel", index, "pattern"), f'is "{pattern}", which is channel[{first}]\'s already'


def _first_of_each(faults: Iterator[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    """Of what is told of one setting, the first."""
    told: set[Path] = set()
    for path, message in faults:
        if path not in told:
            told.add(path)
            yield path, message


def load(
    file: File | None,
    environment: Mapping[str, str],
    options: Iterable[Option] = (),
    faults: Iterable[ConfigError] = (),
) -> ServeConfig:
    """The settings that a file, the environment and options give together; the later of these comes first.

    `faults` is what is known to be wrong already; it is told with the rest.

    Raises:
        ExceptionGroup: of ConfigError, all that is wrong.
        OSError: the file cannot be read.
        UnicodeDecodeError: it is no UTF-8.
    """
    try:
        sources = Sources(file, environment, options)
    except ConfigError as error:
        raise ExceptionGroup(f"{file}: 1 error", [error]) from error
    sources.faults.extend(faults)
    config = read(ServeConfig, sources)
    backends = tuple(one for one in config.relay if not isinstance(one, OriginConfig))
    return replace(config, backbone=joined(config.backbone, config.relay), relay=backends)
