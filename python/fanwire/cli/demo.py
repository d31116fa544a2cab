"""``fanwire demo``: a SignalR backend, the relay before it and thousands of clients, live in the terminal."""

import resource
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from urllib.parse import urlsplit

import anyio
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.live import Live

from fanwire._loop import run, watch_signals
from fanwire.demo.acts import DemoFailed, DemoPlan, Show, played
from fanwire.demo.backends import BackendFailed
from fanwire.demo.processes import ChildEnded, LoadClientMissing, load_client
from fanwire.demo.screen import line, screen
from fanwire.demo.summary import summary

DESCRIPTORS_SPARE = 512
"""Descriptors that the relay and the backend need besides their clients'."""
DRAWN_EVERY_S = 0.2
LINE_EVERY_S = 1.0


def _check_url(type_: type, value: str | None) -> None:
    if value is not None:
        parts = urlsplit(value)
        if parts.scheme != "http" or not parts.netloc or not parts.path:
            raise ValueError("must be http://ADDRESS:PORT/PATH")


def demo(
    *,
    clients: Annotated[int, Parameter(validator=Number(gte=1))] = 10_000,
    matches: Annotated[int, Parameter(validator=Number(gte=1))] = 20,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 60.0,
    backend: Annotated[str | None, Parameter(env_var="DEMO_BACKEND", validator=_check_url)] = None,
) -> None:
    """Show the relay: a backend with football matches, thousands of SignalR clients, and few connections between them.

    Args:
        clients: SignalR clients that log in.
        matches: what there is to watch; each client watches one.
        seconds: how long the acts take together; logins come on top.
        backend: the URL of another backend, which is then not killed; it has the calls and messages that the
            documentation names, and takes orders over HTTP (``fanwire/demo/backends.py``).
    """
    try:
        load_client()
    except LoadClientMissing as missing:
        print(f"fanwire demo: {missing}", file=sys.stderr)
        raise SystemExit(1) from None
    possible = raise_descriptors(clients)
    show = Show(DemoPlan(possible, matches, seconds, backend))
    console = Console()
    if possible < clients:
        print(f"{possible:,} of {clients:,} clients: the limit of open descriptors (ulimit -n) allows no more")
    # A terminal that is closed ends the demo as Ctrl-C does, and so all its processes.
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    why = None
    try:
        run(_main, show, console)
    except* (DemoFailed, ChildEnded, BackendFailed) as failed:
        why = str(failed.exceptions[0])
    if why is not None:
        print(f"fanwire demo: {why}", file=sys.stderr)
        raise SystemExit(1)
    if show.is_over:
        console.print(summary(show))


async def _main(show: Show, console: Console) -> None:
    """Play to the end; SIGINT or SIGTERM ends it at once."""
    with TemporaryDirectory(prefix="fanwire-demo-") as directory:
        async with anyio.create_task_group() as tasks:
            await tasks.start(watch_signals, tasks.cancel_scope.cancel)
            tasks.start_soon(_show, show, console)
            async with played(show, Path(directory), tasks) as play:
                await play.play()
            tasks.cancel_scope.cancel()


async def _show(show: Show, console: Console) -> None:
    if not console.is_terminal:
        while True:
            show.figures.sample()
            print(line(show), flush=True)
            await anyio.sleep(LINE_EVERY_S)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            show.figures.sample()
            live.update(screen(show, console.width), refresh=True)
            await anyio.sleep(DRAWN_EVERY_S)


def raise_descriptors(clients: int) -> int:
    """Raise the soft limit as far as is needed and allowed; how many of `clients` a process then can hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + DESCRIPTORS_SPARE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(1, min(clients, wanted - DESCRIPTORS_SPARE))
