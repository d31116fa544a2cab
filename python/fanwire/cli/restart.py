"""``fanwire restart``: the workers of a supervisor, one after another."""

import os
import sys
from typing import NoReturn

from fanwire.addresses import address_of
from fanwire.workers.folder import RunningSupervisor, supervisors

NOBODY = (
    "no supervisor of yours runs: one is `fanwire serve --workers N`, or a program with hub.run(…, workers=N); "
    "that of a systemd unit is found by `systemctl reload` alone"
)


def restart(address: str | None = None, /) -> None:
    """Restart the workers of `fanwire serve --workers`, or of `hub.run(…, workers=…)`, one after another.

    Each new one serves before the one that it replaces is drained; this returns when the last has ended. Exit status 1:
    there is nothing to restart, or a new worker did not serve; then the others go on as they were.

    Args:
        address: where it listens; needed where several of yours run on this machine.
    """
    found = list(supervisors(os.environ))
    try:
        _restart(found, address)
    finally:
        for supervisor in found:
            supervisor.close()


def _restart(found: list[RunningSupervisor], address: str | None) -> None:
    if address is not None:
        try:
            wanted = address_of(address)
        except ValueError as error:
            _fail(str(error))
    else:
        wanted = ""
    meant = [supervisor for supervisor in found if wanted in ("", supervisor.address)]
    listens = ", ".join(f"{supervisor.address} (process {supervisor.process})" for supervisor in found)
    if not meant:
        _fail(f"none of your supervisors listens on {wanted}; there are: {listens}" if found else NOBODY)
    if len(meant) > 1:
        _fail(f"several supervisors run: say which address is meant, of {listens}")
    failure = meant[0].restart()
    if failure:
        _fail(f"{meant[0].address}: the restart is broken off: {failure}")
    print(f"{meant[0].address}: {meant[0].workers} worker{'s' * (meant[0].workers != 1)} restarted")


def _fail(why: str) -> NoReturn:
    print(f"fanwire: {why}", file=sys.stderr)
    raise SystemExit(1)
