"""All settings of ``fanwire serve``: what a ``fanwire.toml`` may hold."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import combinations
from pathlib import Path as File
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from fanwire._engine import Settings, matches
from fanwire.channel import Channel
from fanwire.config.kinds import Address, Boolean, Duration, Leaf, Limits, Mistake, Origins, count, duration, size, text
from fanwire.config.paths import Path
from fanwire.config.reading import UNREAD, apart, read
from fanwire.config.sources import Option, Sources
from fanwire.errors import ConfigError
from fanwire.options import OWN, Options, check_options, may_be_sent
from fanwire.relay.config import NEGOTIATE, RelayConfig

SIZES = {"notsent_lowat"}
"""Options that are bytes, besides those whose name says so."""


def _as_engine_takes_it(name: str, leaf: Leaf) -> Leaf:
    """The same, and within the range that the hub and the engine know."""

    def check(value: Any) -> Any:
        value = leaf.read(value)
        try:
            if name in OWN:
                check_options({name: value})
            else:
                Settings(**{name: value})
        except OverflowError as error:
            raise Mistake("is out of range") from error
        except ValueError as error:
            must = str(error).partition("must ")[2].partition(", not ")[0]
            raise Mistake(f"must {must}") from error
        return value

    return Leaf(check)


def _kind_of_option(name: str, annotation: Any) -> Any:
    """How an option of ``Hub(...)`` is written in the file."""
    if name == "origins":
        return Origins
    if annotation is float:
        return Annotated[float, _as_engine_takes_it(name, duration(is_bare_allowed=True))]
    if annotation is int and (name in SIZES or "bytes" in name):
        return Annotated[int, _as_engine_takes_it(name, size(is_bare_allowed=True))]
    if annotation is int:
        return Annotated[int, _as_engine_takes_it(name, count(0))]
    if annotation is bool:
        return Boolean
    string = text("a string that is not empty")
    if annotation in (str | None, str):
        return Annotated[str, _as_engine_takes_it(name, string)]
    return tuple[Annotated[str, string], ...]


ELSEWHERE = {
    "drain_timeout": "is written as timeout under [drain]",
    "drain_spread": "is written as spread under [drain]",
    "drain_code": "is written as code under [drain]",
    "subprotocols": "is an option of Hub(...): a relay's backend chooses them",
    "signalr_paths": "is written as the path of each [[relay]]",
    "encode": "is a function, and so an option of Hub(...) alone",
}
OPTIONS = Limits(
    {name: _kind_of_option(name, hint) for name, hint in get_type_hints(Options).items() if name not in ELSEWHERE},
    ELSEWHERE,
)
"""The options of ``Hub(...)`` as the file has them, under ``[limits]``."""


def _check_close_code(value: Any) -> int:
    code = int(count(0, 4999).read(value))
    if not may_be_sent(code):
        raise Mistake("must be a close code that a server may send, such as 1000 or 1012")
    return code


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where clients connect, and how many threads serve them."""

    address: Address = "127.0.0.1:8000"
    """``HOST:PORT`` (port 0: any free one), ``[V6]:PORT`` or ``unix:PATH``; default ``127.0.0.1:8000``."""
    shards: Annotated[int, _as_engine_takes_it("shards", count())] = 1
    """Threads that own the connections; 1 to 64, default 1."""


def _check_pattern(value: str) -> None:
    matches(value, "")


def _read_presence(value: Any) -> bool | str:
    if value == "counts":
        return str(value)
    if isinstance(value, bool) or value in ("true", "false"):
        return value is True or value == "true"
    raise Mistake('must be true, false or "counts"')


_some_time = duration(0.001)
_some_bytes = size(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelConfig:
    """What the channels promise whose name matches a pattern: ``fanwire.Channel``. The first match wins."""

    pattern: Annotated[str, text("a channel's name in which * is any run of characters", check=_check_pattern)]
    """Which channels; required."""
    policy: Literal["every", "latest", "keyframe", "drop"] = "every"
    """What becomes of a subscriber that is further behind than the backlog; default ``every``."""
    backlog_bytes: Annotated[int, _some_bytes] = 1_048_576
    """How far a subscriber may be behind, bytes; default 1 MiB."""
    backlog_frames: Annotated[int, count()] = 16_384
    """The same, publications; default 16,384."""
    backlog_age: Annotated[float, _some_time] | None = None
    """The same, time since the publication; default unbounded."""
    history: Annotated[int, count(0)] = 0
    """Publications kept for who comes back; default 0."""
    history_age: Annotated[float, _some_time] = 300.0
    """For how long; default 300 s."""
    history_bytes: Annotated[int, _some_bytes] = 16_777_216
    """How many bytes of them; default 16 MiB."""
    start: Literal["live", "keyframe", "history"] = "keyframe"
    """Where a new subscriber begins; default ``keyframe``."""
    presence: Annotated[bool | str, Leaf(_read_presence)] = False
    """Whether it is told, on ``presence:NAME``, who is there, or ``"counts"``, how many; default false."""
    presence_linger: Duration = 5.0
    """How long one who is gone may come back before that is told; default 5 s."""

    def channel(self) -> Channel:
        """The same for ``Hub(channels=...)``."""
        promised = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "pattern"}
        return Channel(**promised)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The orderly end."""

    timeout: Duration = 3.0
    """How long clients get to answer the close; default 3 s."""
    spread: Duration = 4.0
    """Over how long the closes are spread, so that not all clients come back at once; default 4 s: with `timeout` all
    is over before ``docker stop`` kills, after 10 s."""
    code: Annotated[int, Leaf(_check_close_code)] = 1000
    """The close code; default 1000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is logged, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is; default ``info``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """What ``fanwire serve`` serves."""

    LATER: ClassVar[Mapping[str, str]] = {
        "service": "is not known yet: service mode, where the backend dials in, comes in a later version",
        "tls": "is not known: fanwire speaks plain HTTP, and a proxy in front ends TLS, as docs/proxy.md shows",
        "backbone": "is not known yet: one process serves alone; a backbone between machines comes in a later version",
        "admin": "is not known yet: /metrics, /healthz and /readyz are there on the address that clients connect to",
    }

    listen: Listen = Listen()
    relay: tuple[RelayConfig, ...] = ()
    """The backends, each with its path; at least one."""
    channel: tuple[ChannelConfig, ...] = ()
    """What channels promise, by patterns of their names; the first match wins."""
    limits: Annotated[Mapping[str, Any], OPTIONS] = field(default_factory=dict)
    """Options of ``Hub(...)`` by their names; those that are not given have their defaults. A number without a unit is
    seconds or bytes here, as it is there."""
    drain: Drain = Drain()
    log: Log = Log()

    def faults(self) -> Iterator[tuple[Path, str]]:
        """What is wrong between the fields."""
        relays = (self._fault_of_path(*pair) for pair in combinations(range(len(self.relay)), 2))
        channels = (self._fault_of_pattern(*pair) for pair in combinations(range(len(self.channel)), 2))
        limits = (self._fault_of_limit(name, value) for name, value in self.limits.items())
        yield from _first_of_each(apart(self._fault_of_none(), *relays, *channels, *limits))

    def _fault_of_limit(self, name: str, value: Any) -> Iterator[tuple[Path, str]]:
        if value is UNREAD:
            return
        try:
            check_options({name: value})
        except (TypeError, ValueError, OverflowError) as error:
            yield ("limits", name), str(error).removeprefix(f"{name} ")

    def _fault_of_none(self) -> Iterator[tuple[Path, str]]:
        if not self.relay:
            yield ("relay",), "is missing: name a backend, with [[relay]] in a file or --upstream URL"

    def _fault_of_path(self, known: int, index: int) -> Iterator[tuple[Path, str]]:
        other, relay = self.relay[known], self.relay[index]
        if relay.meets(other):
            is_above = len(relay.path.casefold()) < len(other.path.casefold())
            what = f"whose {NEGOTIATE}" if is_above else "which"
            yield ("relay", index, "path"), f'is "{relay.path}", {what} is relay[{known}]\'s already'

    def _fault_of_pattern(self, known: int, index: int) -> Iterator[tuple[Path, str]]:
        pattern = self.channel[index].pattern
        if pattern == self.channel[known].pattern:
            yield ("channel", index, "pattern"), f'is "{pattern}", which is channel[{known}]\'s already'


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
    return read(ServeConfig, sources)
