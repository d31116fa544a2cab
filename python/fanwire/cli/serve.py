"""``fanwire serve``: a relay out of a file, the environment and options."""

import os
from pathlib import Path as File
from typing import Annotated

from cyclopts import Parameter

from fanwire.cli import serving
from fanwire.cli.check import complain
from fanwire.cli.options import PATHS, settings, short_variable
from fanwire.config.sources import variable
from fanwire.values import TABLE


def option(name: str, help: str) -> Parameter:
    """An option, and the variable that means the same."""
    path = (*PATHS[name], 0, "subscribe") if name == "share" else PATHS[name]
    return Parameter(help=f"{help}  \n{short_variable(name)}, {variable(path)}", negative=(), show_default=False)


def of_table(name: str) -> Parameter:
    """One that the engine's table tells of."""
    row = TABLE[name]
    return option(name, f"{row.meaning.capitalize()}; {row.must} (default: {row.usual or row.default}).")


def serve(
    file: Annotated[File | None, Parameter(help="A TOML file; docs/settings.md tells its keys.")] = None,
    /,
    *,
    listen: Annotated[
        str | None, option("listen", "HOST:PORT, [V6]:PORT or unix:PATH (default: 127.0.0.1:8000).")
    ] = None,
    shards: Annotated[str | None, of_table("shards")] = None,
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
    poller: Annotated[str | None, of_table("poller")] = None,
    drain_timeout: Annotated[str | None, option("drain_timeout", "How long clients get to go (default: 3s).")] = None,
    log_level: Annotated[str | None, option("log_level", "debug, info, warning or error (default: info).")] = None,
) -> None:
    """Serve a relay: clients connect here, and the backend has one connection for all that watch the same.

    An option comes before the environment, that before the file. Options of a relay are those of the first. Each option
    is a variable by its name, and each key of the file: relay[0].lanes.token is FANWIRE_RELAY__0__LANES__TOKEN.
    """
    given = {name: value for name, value in locals().items() if name in PATHS and value not in (None, [])}
    try:
        config = settings(file, os.environ, given)
    except (ExceptionGroup, OSError, UnicodeDecodeError) as error:
        complain(file, error)
    serving.run(config)
