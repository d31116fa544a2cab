"""The options of ``fanwire serve`` as settings, from the command line or from variables of the same name."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path as File
from typing import Any
from urllib.parse import urlsplit

from fanwire.cli.config import ServeConfig, load
from fanwire.config.kinds import NotGiven, Text
from fanwire.config.reading import paths_of
from fanwire.config.sources import PREFIX, Option, Path, variable
from fanwire.errors import ConfigError

RELAY = ("relay", 0)
PATHS: dict[str, Path] = {
    "listen": ("listen", "address"),
    "shards": ("listen", "shards"),
    "upstream": (*RELAY, "upstream"),
    "path": (*RELAY, "path"),
    "protocol": (*RELAY, "protocol"),
    "share": (*RELAY, "share"),
    "snapshot": (*RELAY, "share", 0, "snapshot"),
    "everyone": (*RELAY, "everyone", "targets"),
    "linger": (*RELAY, "linger"),
    "admit": (*RELAY, "admit"),
    "poller": ("limits", "poller"),
    "drain_timeout": ("drain", "timeout"),
    "log_level": ("log", "level"),
}
"""Which setting each option is."""
NO_PATH = "is missing: a path such as /live, or a URL of the upstream that has one: http://127.0.0.1:5000/live"
"""What is said where clients could not know where to connect."""
LISTS = {"upstream", "share", "everyone"}
"""Options that may be given several times; a variable holds them with commas between."""


def settings(file: File | None, environment: Mapping[str, str], given: Mapping[str, Any]) -> ServeConfig:
    """What a file, the environment and the options of the command line give together; the later of these comes first.

    Raises:
        What ``fanwire.cli.config.load`` raises.
    """
    options = [*options_in(environment), *options_of(given)]
    return load(file, environment, options, misspelt(environment))


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
            given[name] = [part.strip() for part in value.split(",") if part.strip()] if name in LISTS else value
    return options_of(given, short_variable)


def misspelt(environment: Mapping[str, str]) -> Iterable[ConfigError]:
    """Variables that would be settings if their underscores were right: they must not be ignored in silence.

    Other names that begin with ``FANWIRE_`` are the user's own: what a container platform tells of a service, say.
    """
    known = {variable(path).replace("__", "_"): variable(path) for path in paths_of(ServeConfig)}
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
