"""``fanwire check``: whether a file can be served, and what would be."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from fanwire.cli.config import ServeConfig
from fanwire.cli.machine import holds, lacks, this_machine
from fanwire.cli.options import settings
from fanwire.cli.telling import complain, route
from fanwire.config.kinds import duration_text
from fanwire.options import count_of_workers
from fanwire.relay.config import CallShare, QueryShare, Share
from fanwire.serving import RELAY_DESCRIPTORS_SPARE
from fanwire.values import TABLE


def check(
    file: Path,
    /,
    *,
    workers: str | None = None,
    clients: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
) -> None:
    """Check a file of `fanwire serve`: `ok` and what would be served, or all that is wrong (exit status 1).

    Args:
        file: the TOML file; variables of the environment count as they do for `fanwire serve`.
        workers: as `fanwire serve` is given it.
        clients: so many have to fit: each limit of this machine that is too small is told (exit status 1).
    """
    try:
        config = settings(file, os.environ, {} if workers is None else {"workers": workers})
    except (ExceptionGroup, OSError, UnicodeDecodeError) as error:
        complain(file, error)
    print(f"{file}: ok")
    for line in summary(config):
        print(f"  {line}")
    machine, listen = this_machine(), config.listen
    processes = count_of_workers(listen.workers)
    spare = RELAY_DESCRIPTORS_SPARE if config.relay else 0
    print(f"  {holds(machine, processes, spare)}")
    if not clients:
        return
    backlog = dict(config.limits).get("backlog", TABLE["backlog"].default)
    short = list(lacks(machine, clients, processes, spare, backlog))
    if short:
        print(f"for {clients:,} clients this machine lacks:", *short, sep="\n  ", file=sys.stderr)
        raise SystemExit(1)
    print(f"  this machine's limits allow {clients:,} clients")


def summary(config: ServeConfig) -> Iterator[str]:
    """What would be served, in lines."""
    shards, workers = config.listen.shards, config.listen.workers
    with_workers = f", in {workers} worker{'s' * (workers != 1)}" if workers else ""
    yield f"listens on {config.listen.address} with {shards} shard{'s' * (shards > 1)}{with_workers}"
    for relay in config.relay:
        yield route(relay)
        yield from (f"  shares {_shared(share)}" for share in relay.share)
        if relay.everyone.targets:
            yield f"  gives everyone {', '.join(relay.everyone.targets)}"
        yield f"  keeps a lane {duration_text(relay.linger)} after its last client"
        if relay.admit == "anyone":
            yield "  admits anyone"
    for channel in config.channel:
        kept = f", keeps {channel.history}" if channel.history else ""
        yield f"channels {channel.pattern}: {channel.policy}{kept}"
    for source in config.source:
        what = source.subject if source.kind == "nats" else source.stream or "the outbox"
        where = f"channel {source.channel}" if source.channel else "the channels that entries name"
        yield f"publishes {source.kind} {what} to {where}, its place is {source.place}"
    if config.limits:
        yield f"limits: {', '.join(config.limits)}"


def _shared(share: Share) -> str:
    if isinstance(share, QueryShare):
        return f"connections of equal path{''.join(f' and {name}' for name in share.query)}"
    ends = f", ended by {share.unsubscribe}" if share.unsubscribe else ""
    if isinstance(share, CallShare) and share.snapshot:
        ends += f"; the newest {share.snapshot} comes first"
    return share.subscribe + ends
