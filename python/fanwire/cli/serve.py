"""``fanwire serve``: a relay out of a file, the environment and options."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path as File
from typing import Annotated, Any
from urllib.parse import urlsplit

from cyclopts import Parameter

from fanwire.cli import serving
from fanwire.cli.check import complain
from fanwire.cli.config import load
from fanwire.config.kinds import Text
from fanwire.config.paths import Path, variable
from fanwire.config.sources import Option
from fanwire.errors import ListenFailed

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


def option(name: str, help: str) -> Parameter:
    """An option, and the variable that means the same."""
    path = (*PATHS[name], 0, "subscribe") if name == "share" else PATHS[name]
    return Parameter(help=f"{help}  \n{variable(path)}", negative=(), show_default=False)


def serve(
    file: Annotated[File | None, Parameter(help="A TOML file; docs/settings.md tells its keys.")] = None,
    /,
    *,
    listen: Annotated[
        str | None, option("listen", "HOST:PORT, [V6]:PORT or unix:PATH (default: 127.0.0.1:8000).")
    ] = None,
    shards: Annotated[str | None, option("shards", "Threads that own the connections (default: 1).")] = None,
    upstream: Annotated[
        list[str] | None, option("upstream", "A backend's URL; again: another, for when it fails.")
    ] = None,
    path: Annotated[str | None, option("path", "What clients connect to (default: the upstream's own path).")] = None,
    protocol: Annotated[str | None, option("protocol", "signalr or websocket (default: signalr).")] = None,
    share: Annotated[
        list[str] | None, option("share", "SUBSCRIBE[/UNSUBSCRIBE]: calls that mean 'watch'; again: others.")
    ] = None,
    snapshot: Annotated[
        str | None, option("snapshot", "The target whose newest message a late joiner of a --share gets first.")
    ] = None,
    everyone: Annotated[
        list[str] | None, option("everyone", "A target of messages to all clients; again: others.")
    ] = None,
    linger: Annotated[str | None, option("linger", "How long a lane outlives its last client (default: 30s).")] = None,
    admit: Annotated[
        str | None,
        option("admit", "negotiate: the backend is asked who may connect; or anyone (default: negotiate)."),
    ] = None,
    poller: Annotated[str | None, option("poller", "epoll or uring; the better one that the kernel allows.")] = None,
    drain_timeout: Annotated[str | None, option("drain_timeout", "How long clients get to go (default: 5s).")] = None,
    log_level: Annotated[str | None, option("log_level", "debug, info, warning or error (default: info).")] = None,
) -> None:
    """Serve a relay: clients connect here, and the backend has one connection for all that watch the same.

    An option comes before the environment, that before the file. Options of a relay are those of the first. Each key of
    the file is a variable, not only these: relay[0].lanes.token is FANWIRE_RELAY__0__LANES__TOKEN.
    """
    given = {name: value for name, value in locals().items() if name in PATHS and value not in (None, [])}
    try:
        config = load(file, os.environ, options_of(given))
    except (ExceptionGroup, OSError, UnicodeDecodeError) as error:
        complain(file, error)
    try:
        serving.run(config)
    except ListenFailed as error:
        print(f"fanwire serve: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def options_of(given: dict[str, Any]) -> Iterator[Option]:
    """What was given on the command line as settings."""
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "share":
            yield Option(flag, PATHS[name], [_share(each, given.get("snapshot")) for each in value])
        elif name != "snapshot" or "share" not in given:
            yield Option(flag, PATHS[name], [Text(each) for each in value] if isinstance(value, list) else Text(value))
    # Where nothing names the path, clients find the relay where they found the backend.
    for url in given.get("upstream", [])[:1]:
        try:
            path = urlsplit(url).path.rstrip("/")
        except ValueError:
            continue  # the URL itself will be complained of
        if path:
            yield Option("--upstream", PATHS["path"], Text(path), is_fallback=True)


def _share(written: str, snapshot: str | None) -> dict[str, Text]:
    """``Subscribe/Unsubscribe`` as the table that it stands for."""
    subscribe, slash, unsubscribe = written.partition("/")
    share = {"subscribe": Text(subscribe)}
    if slash:
        share["unsubscribe"] = Text(unsubscribe)
    if snapshot is not None:
        share["snapshot"] = Text(snapshot)
    return share
