"""``fanwire serve``: a relay out of a file, the environment and options."""

from pathlib import Path as File
from typing import Annotated

from cyclopts import Parameter

from fanwire.cli import serving
from fanwire.cli.options import PATHS, help_of


def option(name: str) -> Parameter:
    """How the command line has it."""
    return Parameter(help=help_of(name), negative=(), show_default=False)


def serve(
    file: Annotated[File | None, Parameter(help="A TOML file; docs/settings.md tells its keys.")] = None,
    /,
    *,
    listen: Annotated[str | None, option("listen")] = None,
    shards: Annotated[str | None, option("shards")] = None,
    workers: Annotated[str | None, option("workers")] = None,
    backbone: Annotated[str | None, option("backbone")] = None,
    public: Annotated[list[str] | None, option("public")] = None,
    edge_admit: Annotated[str | None, option("edge_admit")] = None,
    upstream: Annotated[list[str] | None, option("upstream")] = None,
    path: Annotated[str | None, option("path")] = None,
    protocol: Annotated[str | None, option("protocol")] = None,
    share: Annotated[list[str] | None, option("share")] = None,
    snapshot: Annotated[str | None, option("snapshot")] = None,
    everyone: Annotated[list[str] | None, option("everyone")] = None,
    linger: Annotated[str | None, option("linger")] = None,
    admit: Annotated[str | None, option("admit")] = None,
    poller: Annotated[str | None, option("poller")] = None,
    drain_timeout: Annotated[str | None, option("drain_timeout")] = None,
    log_level: Annotated[str | None, option("log_level")] = None,
    log_format: Annotated[str | None, option("log_format")] = None,
) -> None:
    """Serve a relay: clients connect here, and the backend has one connection for all that watch the same.

    With --backbone fanwire://HOST:PORT it is an edge of that hub: clients here watch what is published there.

    An option comes before the environment, that before the file. Options of a relay are those of the first. Each option
    is a variable by its name, and each key of the file: relay[0].lanes.token is FANWIRE_RELAY__0__LANES__TOKEN.
    """
    given = {name: value for name, value in locals().items() if name in PATHS and value not in (None, [])}
    serving.serve(file, given)
