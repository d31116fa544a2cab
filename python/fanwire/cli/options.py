"""The options of ``fanwire serve`` as settings, from the command line or from variables of the same name."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path as File
from typing import Any
from urllib.parse import urlsplit

from fanwire.backbone import is_origin
from fanwire.cli.config import ServeConfig, load
from fanwire.config.kinds import NotGiven, Text
from fanwire.config.reading import rows_of
from fanwire.config.sourced import told
from fanwire.config.sources import PREFIX, Option, Path, Sources, variable
from fanwire.errors import ConfigError
from fanwire.values import TABLE

RELAY = ("relay", 0)
SHARE = (*RELAY, "share")
FLAGS: dict[str, tuple[Path, str] | tuple[Path, str, str]] = {
    "listen": (("listen", "address"), "Where clients connect"),
    "shards": (("listen", "shards"), TABLE["shards"].meaning),
    "workers": (("listen", "workers"), "Processes that serve, under a supervisor; auto: one for each CPU"),
    "backbone": (("backbone", "url"), "What makes several machines one"),
    "public": (("backbone", "public"), "At an edge: channels that anyone may watch; again: others"),
    "edge_admit": (("backbone", "admit"), "At an edge: who may watch other channels: nobody, or whom the origin lets"),
    "upstream": ((*RELAY, "upstream"), "A backend's URL; again: another, for when it fails; fanwire://: an edge's"),
    "path": ((*RELAY, "path"), "What clients connect to", "the upstream's own path"),
    "protocol": ((*RELAY, "protocol"), "What clients and backend speak"),
    "share": (SHARE, "SUBSCRIBE[/UNSUBSCRIBE]: calls that mean 'watch'; again: others"),
    "snapshot": ((*SHARE, 0, "snapshot"), "The target whose newest message a late joiner of a --share gets first"),
    "everyone": ((*RELAY, "everyone", "targets"), "A target of messages to all clients; again: others"),
    "linger": ((*RELAY, "linger"), "How long a lane outlives its last client"),
    "admit": ((*RELAY, "admit"), "Whether the backend is asked who may connect"),
    "poller": (("limits", "poller"), TABLE["poller"].meaning, TABLE["poller"].usual),
    "drain_timeout": (("drain", "timeout"), "How long clients get to go"),
    "log_level": (("log", "level"), "The least that is logged"),
    "log_format": (("log", "format"), "How it is written; text: key=value where it is no terminal"),
}
"""Which setting each option is, and what its help says beside the range; a default that is not fixed."""
PATHS = {name: path for name, (path, *_) in FLAGS.items()}
KNOWN = {row.path: row for row in rows_of(ServeConfig)}
NO_PATH = "is missing: a path such as /live, or a URL of the upstream that has one: http://127.0.0.1:5000/live"
"""What is said where clients could not know where to connect."""
LISTS = {"public", "upstream", "share", "everyone"}
"""Options that may be given several times; a variable holds them with commas between."""


def settings(file: File | None, environment: Mapping[str, str], given: Mapping[str, Any]) -> ServeConfig:
    """What a file, the environment and the options of the command line give together; the later of these comes first.

    Raises:
        What ``fanwire.cli.config.load`` raises.
    """
    options = [*options_in(environment), *options_of(given)]
    return load(file, environment, options, misspelt(environment))


def told_settings(
    config: ServeConfig, file: File | None, environment: Mapping[str, str], given: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """What these gave together: each setting with its value and its source."""
    options = [*options_in(environment), *options_of(given)]
    return list(told(config, Sources(file, environment, options)))


def help_of(name: str) -> str:
    """What ``--help`` says of an option: its words, range and default, and the variables that mean the same."""
    path, words, *usual = FLAGS[name]
    row, longest = KNOWN.get(path), (*path, 0, "subscribe") if name == "share" else path
    span = f"; {row.leaf.span} (default: {(*usual, row.default_text)[0]})" if row and row.leaf else ""
    return f"{words[0].upper()}{words[1:]}{span}.  \n{short_variable(name)}, {variable(longest)}".replace('"', "")


def flag(name: str) -> str:
    """``--drain-timeout``"""
    return f"--{name.replace('_', '-')}"


def short_variable(name: str) -> str:
    """``FANWIRE_DRAIN_TIMEOUT``"""
    return PREFIX + name.upper()


def options_of(given: Mapping[str, Any], written: Any = flag) -> Iterator[Option]:
    """What was given as options, by their names; `written` says how each was, for the errors."""
    for name, value in given.items():
        if name == "share":
            yield Option(written(name), PATHS[name], [_share(each, given.get("snapshot")) for each in value])
        elif name != "snapshot" or "share" not in given:
            texts = [Text(each) for each in value] if isinstance(value, list) else Text(value)
            yield Option(written(name), PATHS[name], texts)
    # Where nothing names the path, clients find the relay where they found the backend.
    for url in given.get("upstream", [])[:1]:
        if is_origin(url):
            continue  # of an edge the paths are the hub's own
        try:
            path = urlsplit(url).path.rstrip("/")
        except ValueError:
            path = ""  # the URL itself will be complained of, too
        has_one = path.startswith("/")
        name, value = ("upstream", Text(path)) if has_one else ("path", NotGiven(NO_PATH))
        yield Option(written(name), PATHS["path"], value, is_fallback=True)


def options_in(environment: Mapping[str, str]) -> Iterator[Option]:
    """The options that variables of their names give: ``FANWIRE_LISTEN`` is ``--listen``."""
    given: dict[str, Any] = {}
    for name in PATHS:
        value = environment.get(short_variable(name), "")
        if value:
            parts = [value] if is_origin(value) and value.count("://") == 1 else value.split(",")  # it may have commas
            given[name] = [part.strip() for part in parts if part.strip()] if name in LISTS else value
    return options_of(given, short_variable)


def misspelt(environment: Mapping[str, str]) -> Iterable[ConfigError]:
    """Variables that would be settings if their underscores were right: they must not be ignored in silence.

    Other names that begin with ``FANWIRE_`` are the user's own: what a container platform tells of a service, say.
    """
    known = {variable(path).replace("__", "_"): variable(path) for path in KNOWN}
    options = {short_variable(name) for name in PATHS}
    for name in sorted(environment):
        if name in known and name not in options and known[name] != name:
            yield ConfigError(f"is unknown; {known[name]} is meant, with two underscores", key=name)


def _share(written: str, snapshot: str | None) -> dict[str, Text]:
    """``Subscribe/Unsubscribe`` as the table that it stands for."""
    subscribe, slash, unsubscribe = written.partition("/")
    share = {"subscribe": Text(subscribe)}
    if slash:
        share["unsubscribe"] = Text(unsubscribe)
    if snapshot is not None:
        share["snapshot"] = Text(snapshot)
    return share
