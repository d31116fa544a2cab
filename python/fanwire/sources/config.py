"""What a file says of a source, and the source that it says."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from fanwire.calls import check_channel
from fanwire.config.kinds import Boolean, Leaf, Secret, leaf_of, text
from fanwire.config.reading import apart
from fanwire.config.sources import Path
from fanwire.sources.source import BATCH, NAME_BYTES_MAX, Source, check_name
from fanwire.values import Whole

SCHEMES = {
    "redis-stream": ("redis://", "rediss://", "valkey://", "valkeys://", "unix://"),
    "postgres": ("postgresql://", "postgres://"),
    "nats": ("nats://", "tls://", "ws://", "wss://"),
}
PACKAGES = {"redis-stream": ("redis", "redis"), "postgres": ("psycopg", "postgres"), "nats": ("nats", "nats")}
"""What each needs, and the extra that brings it."""
OWN = {"stream": ("redis-stream", "nats"), "subject": ("nats",), "payload": ("nats",), "deletes": ("postgres",)}
"""Keys that belong to some kinds alone."""


def _read_url(value: Any) -> Secret:
    return Secret(URL.read(value.reveal() if isinstance(value, Secret) else value))


URL = text('the URL of a server, such as redis://HOST:PORT, or { env = "NAME" }', "[!-~]+", most=4_096)
SourceUrl = Annotated[Secret, Leaf(_read_url, _read_url, URL.span, is_secret=True)]
"""It may hold a password."""
Place = Annotated[str, text(f"a name of 1 to {NAME_BYTES_MAX} bytes", check=check_name)]
Key = Annotated[str, text("a name, not empty and without control characters", r"[^\x00-\x1f\x7f]+")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One source: docs/sources.md."""

    kind: Literal["redis-stream", "postgres", "nats"]
    """What is read. Worst cost: none."""
    url: SourceUrl
    """Where it is, as ``redis://HOST:PORT``, ``postgresql://…``, ``nats://HOST:PORT``; no error shows it. Worst cost:
    who may write there publishes to all clients."""
    stream: Key | None = None
    """Of ``redis-stream`` its key, which is required; of ``nats`` the stream of JetStream that keeps the subject:
    without one each message is published at most once. Worst cost: none."""
    subject: Key | None = None
    """Of ``nats``, required: with its wildcards, as ``odds.>``. Worst cost: none."""
    payload: Literal["entry", "data", "text", "bytes"] = "entry"
    """Of ``nats``, what a message is: all that an entry has as an object of JSON, or one of these alone. Worst cost:
    none."""
    name: Place | None = None
    """What its place is kept under; none: its stream, subject, or ``outbox``. Worst cost: two hubs that are not one and
    read under one name each publish a part."""
    channel: Annotated[str, text("the name of a channel", check=check_channel)] | None = None
    """The channel of all entries; none: each names its own. Worst cost: without it who writes there chooses."""
    batch: Annotated[int, leaf_of(Whole())] = BATCH
    """Entries that are read and published at once. Worst cost: so many are in memory, and all are read again where one
    cannot be published."""
    deletes: Boolean = True
    """Of ``postgres``: rows that were published are deleted. Worst cost: where not, the table grows."""

    @property
    def place(self) -> str:
        """The name of its place; empty where what it would be named after is missing."""
        return self.name or {"nats": self.subject, "redis-stream": self.stream}.get(self.kind, "outbox") or ""

    def faults(self) -> Iterator[tuple[Path, str]]:
        """What is wrong between the fields."""
        yield from apart(self._faults_of_url(), self._faults_of_others(), self._faults_of_missing())

    def _faults_of_url(self) -> Iterator[tuple[Path, str]]:
        known = SCHEMES[self.kind]
        if not self.url.reveal().startswith(known):
            yield ("url",), f'must begin with {", ".join(known[:-1])} or {known[-1]} where kind is "{self.kind}"'

    def _faults_of_others(self) -> Iterator[tuple[Path, str]]:
        usual = {"stream": None, "subject": None, "payload": "entry", "deletes": True}
        for name, kinds in OWN.items():
            if self.kind not in kinds and getattr(self, name) != usual[name]:
                yield (name,), "belongs to " + " or ".join(f'kind = "{one}"' for one in kinds)

    def _faults_of_missing(self) -> Iterator[tuple[Path, str]]:
        package, extra = PACKAGES[self.kind]
        if find_spec(package) is None:
            yield ("kind",), f"is \"{self.kind}\", which needs the package {extra}: pip install 'fanwire[{extra}]'"
        needed = {"redis-stream": "stream", "nats": "subject"}.get(self.kind)
        if needed and getattr(self, needed) is None:
            yield (needed,), f'is missing: kind = "{self.kind}" needs one'

    def source(self, prefix: str) -> Source:
        """It; `prefix` is what names at its server begin with."""
        return MAKERS[self.kind](self, prefix)


def _redis_stream(config: SourceConfig, prefix: str) -> Source:
    from fanwire.sources.redis_stream import RedisStream

    assert config.stream is not None
    return RedisStream(config.url.reveal(), config.stream, prefix=prefix, **_common(config))


def _postgres(config: SourceConfig, prefix: str) -> Source:
    from fanwire.sources.postgres import PostgresOutbox

    named = {name: value for name, value in _common(config).items() if value is not None}
    return PostgresOutbox(config.url.reveal(), deletes=config.deletes, **named)


def _nats(config: SourceConfig, prefix: str) -> Source:
    from fanwire.sources.nats import NatsSubject

    assert config.subject is not None
    terms = {"stream": config.stream, "payload": config.payload, "prefix": prefix, **_common(config)}
    return NatsSubject(config.url.reveal(), config.subject, **terms)


def _common(config: SourceConfig) -> dict[str, Any]:
    return {"name": config.name, "channel": config.channel, "batch": config.batch}


MAKERS: Mapping[str, Callable[[SourceConfig, str], Source]] = {
    "redis-stream": _redis_stream,
    "postgres": _postgres,
    "nats": _nats,
}
