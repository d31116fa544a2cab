"""Serves what a file, the environment and options say, until SIGINT or SIGTERM. All that a worker needs is here.

So nothing here may import what reads the command line.
"""

import logging
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fanwire._engine import matches
from fanwire.asking import OriginAdmission
from fanwire.cli.backbone import BackboneConfig
from fanwire.cli.config import ServeConfig
from fanwire.cli.options import settings, told_settings
from fanwire.cli.telling import complain, route
from fanwire.client import Client
from fanwire.hub import Hub
from fanwire.loglines import log_to_stderr
from fanwire.logs import hub_log
from fanwire.publisher import Publisher
from fanwire.sources.beside import Beside
from fanwire.workers.seat import is_supervised

PUBLISHERS = ("formats", "decimal", "duration", "publication_bytes_max")
"""Options that a publisher has from the file, as the hub does."""


def serve(file: Path | None, given: Mapping[str, Any]) -> None:
    """Serve until SIGINT or SIGTERM; returns once all clients are gone or ``drain.timeout`` is over.

    Args:
        given: options by the names of ``PATHS``, as texts.

    Raises:
        SystemExit: something is wrong with the settings, which is told; the address cannot be had; see ``Hub.run``.
    """
    try:
        config = settings(file, os.environ, given)
    except (ExceptionGroup, OSError, UnicodeDecodeError) as error:
        complain(file, error)
    run(config, {"file": None if file is None else str(file), "given": given})


def serve_again(program: Mapping[str, Any]) -> None:
    """``serve``, as the supervisor was told to: for a zygote."""
    serve(None if program["file"] is None else Path(program["file"]), program["given"])


def run(config: ServeConfig, program: Mapping[str, Any]) -> None:
    """Serve it; `program` is what ``serve_again`` takes."""
    log_to_stderr(config.log.level, config.log.format)
    level = logging.DEBUG if is_supervised() else logging.INFO  # the supervisor has said it
    raise_descriptors(level)
    signal.signal(signal.SIGHUP, lambda *_: hub_log.info("SIGHUP is ignored: settings are read at the start only"))
    channels = {one.pattern: one.channel() for one in config.channel}
    backbone = config.backbone.url
    hub = Hub(
        channels,
        signalr_paths=(),  # no methods of its own: all SignalR paths are relays'
        backbone=backbone.reveal() if backbone else None,
        backbone_prefix=config.backbone.prefix,
        backbone_on_down=config.backbone.on_down,
        admin=config.admin,
    )
    hub._program = program
    file = program.get("file")
    hub._told_settings = told_settings(config, file and Path(file), os.environ, program.get("given", {}))
    hub._sources = sources_of(config)
    if config.backbone.admit == "origin":
        hub.authorize(asking(hub, config.backbone))
    elif config.backbone.public:
        hub.authorize(_public(config.backbone.public))
    for relay in config.relay:
        hub.relay(relay)
        hub_log.log(level, "relaying %s", route(relay))
    hub.run(
        config.listen.address,
        shards=config.listen.shards,
        workers=config.listen.workers,
        worker_timeout=config.listen.worker_timeout,
        drain_timeout=config.drain.timeout,
        drain_spread=config.drain.spread,
        drain_code=config.drain.code,
        **dict(config.limits),
    )


def sources_of(config: ServeConfig) -> list[Beside]:
    """What is read and published beside: into the backbone, where there is one."""
    url, prefix = config.backbone.url, config.backbone.prefix
    publisher = None
    if url is not None:
        terms = {name: config.limits[name] for name in PUBLISHERS if name in config.limits}
        channels = {one.pattern: one.channel() for one in config.channel}
        publisher = partial(Publisher, url.reveal(), prefix=prefix, channels=channels, **terms)
    return [Beside(one.source(prefix), publisher) for one in config.source]


def asking(hub: Hub, edge: BackboneConfig) -> Callable[[Client, str], Awaitable[bool]]:
    """Have an edge ask the origin about its clients; gives what is to be its ``authorize``."""
    assert edge.url is not None  # it is an edge's
    hub._admission = OriginAdmission(
        edge.url.reveal(),
        public=edge.public,
        admit_for=edge.admit_for,
        admit_ignore=edge.admit_ignore,
        trusted_proxies=edge.trusted_proxies,
    )
    return hub._admission.authorize


def _public(patterns: Iterable[str]) -> Callable[[Client, str], bool]:
    def may_watch(client: Client, channel: str) -> bool:
        return any(matches(pattern, channel) for pattern in patterns)

    return may_watch


def raise_descriptors(level: int) -> None:
    """Have the soft limit of open files be the hard one, and say what it is: each client has a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        hub_log.warning("the limit of open files stays at %s: %s", shown_limit(soft), error)
    else:
        hub_log.log(level, "the limit of open files is %s (it was %s)", shown_limit(hard), shown_limit(soft))


def shown_limit(limit: int) -> str:
    """A limit of the system's, as it is said."""
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit:,}"
