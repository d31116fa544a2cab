"""What joins this machine's hub to others: ``[backbone]``, or a ``[[relay]]`` whose upstream is an origin."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from fanwire.backbone import PREFIX, PREFIX_MUST, URL_MUST, OnDown, check_prefix, check_url, is_origin
from fanwire.channel import check_pattern
from fanwire.config.kinds import ONE_OR_MORE, Duration, HeaderPattern, Leaf, Proxy, Secret, text
from fanwire.config.reading import UNREAD, apart
from fanwire.config.sources import Path
from fanwire.relay.config import RelayConfig
from fanwire.relay.headers import UNIMPORTANT

WHO_MAY = (
    "name the channels that anyone may watch here, with public or --public; or have the origin asked who may watch "
    'what, with admit = "origin" or --edge-admit origin'
)
FOR_AN_EDGE = "is for an edge, whose url is that of an origin, as fanwire://HOST:PORT"
ASKING = ("admit_for", "admit_ignore", "trusted_proxies")
"""What says how an origin is asked."""
NO_RELAY = (
    "means nothing where upstream is that of an origin: this hub is an edge then, whose clients connect to its own "
    "paths, such as /ws and /events"
)
NO_BACKEND = "must be that of an origin, fanwire://HOST:PORT, as another one here is: a backend is a relay of its own"
SEVERAL = "names several origins, and a hub has one: its addresses stand in one URL, as fanwire://HOST:PORT,HOST:PORT"


def _read_url(value: Any) -> Secret:
    return Secret(URL.read(value.reveal() if isinstance(value, Secret) else value))


URL = text(f'{URL_MUST}, or {{ env = "NAME" }}', r"[!-~]+", check_url, most=4_096)
ORIGIN = text(NO_BACKEND.removeprefix("must be "), r"fanwires?://[!-~]*", most=4_096)
OriginUrl = Annotated[
    Secret, Leaf(lambda value: Secret(ORIGIN.read(value)), lambda value: value, ORIGIN.span, is_secret=True)
]
BackboneUrl = Annotated[Secret, Leaf(_read_url, _read_url, URL.span, is_secret=True)]
"""It may hold a password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """What orders publications for several machines: docs/machines.md."""

    url: BackboneUrl | None = None
    """``redis://HOST:PORT``, ``rediss://`` with TLS, ``fanwire://HOST:PORT`` for an edge of that hub, or as
    docs/machines.md says; no error shows it. Worst cost: who may write there publishes to all clients of all machines.
    """
    public: tuple[
        Annotated[str, text("a channel's name in which * is any run of characters", check=check_pattern)], ...
    ] = ()
    """At an edge: the channels that anyone may watch here, of those that the origin lets the edge have; ``"*"`` is all.
    Worst cost: nobody is asked who a client is."""
    admit: Literal["public", "origin"] = "public"
    """At an edge, who may watch the other channels: with ``public`` nobody, with ``origin`` whom the origin lets. It is
    asked in the client's name, once for each distinct set of headers (but those of `admit_ignore`), query and channel.
    Worst cost: as many questions to the origin as clients make up, 256 at once."""
    admit_for: Duration = 60.0
    """How long the origin's yes is remembered, and a 401 or 403 for who shows the very same; no longer than a JWT that
    is shown says with its ``exp``; with 0 each is asked about. Worst cost: who was shut out may begin to watch for so
    long."""
    admit_ignore: tuple[HeaderPattern, ...] = UNIMPORTANT
    """Headers by which the origin does not decide, as those of a relay. Worst cost: a header too many: one client's yes
    is another's; one too few: the origin is asked more often."""
    trusted_proxies: tuple[Proxy, ...] = ()
    """Addresses and networks, or ``unix``, whose ``X-Forwarded-*`` and ``Forwarded`` are kept and appended to; those of
    others are replaced. Worst cost: who is in them says where clients come from."""
    prefix: Annotated[str, text(PREFIX_MUST, check=check_prefix)] = PREFIX
    """What names there begin with. Worst cost: machines with another one have nothing in common."""
    on_down: OnDown = "buffer"
    """What becomes of publications while it is out of reach. Worst cost: ``buffer`` keeps 16 MiB of them in memory;
    those of ``fail`` are lost; those of ``local`` never come to clients of other machines."""

    @property
    def is_edge(self) -> bool:
        """Whether it is a hub that orders, and this one passes on."""
        return self.url is not None and is_origin(self.url.reveal())


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginConfig:
    """A ``[[relay]]`` whose upstream is an origin: another way to write ``url`` under ``[backbone]``."""

    LATER: ClassVar[Mapping[str, str]] = dict.fromkeys(RelayConfig.__dataclass_fields__.keys() - {"upstream"}, NO_RELAY)
    """Keys of a relay, and what is said of them here."""

    upstream: Annotated[tuple[OriginUrl, ...], ONE_OR_MORE]
    """The origin's URL, one."""

    def faults(self) -> Iterator[tuple[Path, str]]:
        """What is wrong between the fields."""
        if len(self.upstream) > 1 and not any(url is UNREAD for url in self.upstream):
            yield ("upstream",), SEVERAL


def relay_of(table: Mapping[str, Any], _: Mapping[str, Any]) -> type[RelayConfig | OriginConfig]:
    """Which kind of a ``[[relay]]`` this is, by its upstreams."""
    upstream = table.get("upstream")
    urls = upstream if isinstance(upstream, list) else [upstream]
    return OriginConfig if any(isinstance(url, str) and is_origin(url) for url in urls) else RelayConfig


def joined(backbone: BackboneConfig, relays: tuple[Any, ...]) -> BackboneConfig:
    """The backbone, whichever way it is written."""
    origin = next((one for one in relays if isinstance(one, OriginConfig)), None)
    return backbone if origin is None else replace(backbone, url=origin.upstream[0])


def faults_of(backbone: BackboneConfig, relays: tuple[Any, ...]) -> Iterator[tuple[Path, str]]:
    """What is wrong between the two places, and with an edge."""
    known = joined(backbone, relays)
    is_known = known.is_edge or not any(one is UNREAD for one in relays)
    return apart(_faults_of_origins(backbone, relays), _faults_of_edge(known) if is_known else iter(()))


def _faults_of_origins(backbone: BackboneConfig, relays: tuple[Any, ...]) -> Iterator[tuple[Path, str]]:
    known = "backbone.url" if backbone.url is not None else ""
    for index, relay in enumerate(relays):
        if isinstance(relay, OriginConfig):
            if known:
                yield ("relay", index, "upstream"), f"is that of an origin, and {known} is set: a hub has one of them"
            known = known or f"relay[{index}].upstream"


def _faults_of_edge(backbone: BackboneConfig) -> Iterator[tuple[Path, str]]:
    if backbone.is_edge and backbone.on_down == "local":
        yield ("backbone", "on_down"), 'is "local", and an edge publishes nothing: leave it out'
    if backbone.is_edge and backbone.admit == "public" and not backbone.public:
        yield ("backbone", "public"), f"is missing: {WHO_MAY}"
    if backbone.public and not backbone.is_edge:
        yield ("backbone", "public"), FOR_AN_EDGE
    if backbone.admit == "origin" and not backbone.is_edge:
        yield ("backbone", "admit"), FOR_AN_EDGE
    usual = BackboneConfig()
    for name in ASKING if backbone.admit == "public" else ():
        if getattr(backbone, name) != getattr(usual, name):
            yield ("backbone", name), 'is for an edge that asks, with admit = "origin"'
