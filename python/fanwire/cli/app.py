"""All subcommands as one program. A process that only serves reads no command line and does without this."""

import os
import signal
import sys

from cyclopts import App

from fanwire._engine import __version__
from fanwire.cli.check import check
from fanwire.cli.demo import demo
from fanwire.cli.doctor import doctor
from fanwire.cli.load import load
from fanwire.cli.operating import channels, clients, disconnect, publish, stats, tail
from fanwire.cli.restart import restart
from fanwire.cli.script import script
from fanwire.cli.serve import serve
from fanwire.cli.sources import sources
from fanwire.cli.top import top

app = App(name="fanwire", help="Fan-out for Python: publish once, thousands of sockets.", version=__version__)
app.command(serve)
app.command(sources)
app.command(restart)
app.command(publish)
app.command(tail)
app.command(clients)
app.command(channels)
app.command(disconnect)
app.command(stats)
app.command(top)
app.command(check)
app.command(doctor)
app.command(script)
app.command(demo)
app.command(load, help_flags=(), version_flags=())


def main() -> None:
    """The entry point of the ``fanwire`` script.

    Whoever reads what it prints may stop reading (``fanwire check FILE | head -1``): that ends it without a word, as
    the signal would (exit status 141).
    """
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered must not be tried again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
