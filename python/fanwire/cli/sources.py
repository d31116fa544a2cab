"""``fanwire sources``: the sources of a file, without a server."""

import os
from pathlib import Path

import anyio

from fanwire._loop import background_tasks, run, watch_signals
from fanwire.cli.options import settings
from fanwire.cli.serving import sources_of
from fanwire.cli.telling import complain
from fanwire.loglines import log_to_stderr
from fanwire.logs import hub_log

NO_BACKBONE = "fanwire: {file} has no [backbone], into which the sources could publish: `fanwire serve` needs none"
NO_SOURCE = "fanwire: {file} has no [[source]]"


def sources(file: Path, /) -> None:
    """Read the sources of a file of `fanwire serve` and publish them into its backbone, until SIGINT or SIGTERM.

    Nothing is served. What the file says of relays is checked, and otherwise left alone.
    """
    try:
        config = settings(file, os.environ, {})
    except (ExceptionGroup, OSError, UnicodeDecodeError) as error:
        complain(file, error)
    url = config.backbone.url
    if url is None or not config.source:
        raise SystemExit((NO_SOURCE if not config.source else NO_BACKBONE).format(file=file))
    log_to_stderr(config.log.level, config.log.format)
    every = sources_of(config)

    async def main() -> None:
        ending = anyio.Event()
        async with background_tasks() as tasks:
            await tasks.start(watch_signals, ending.set, tasks.cancel_scope.cancel)
            for one in every:
                tasks.start_soon(one.keep_reading, None)
            await ending.wait()
            hub_log.info("ending")
            tasks.cancel_scope.cancel()

    run(main)
