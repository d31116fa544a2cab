"""The ``fanwire`` command: one file for each subcommand."""

from cyclopts import App

from fanwire._engine import __version__
from fanwire.cli.check import check
from fanwire.cli.demo import demo
from fanwire.cli.load import load
from fanwire.cli.serve import serve

app = App(name="fanwire", help="Fan-out for Python: publish once, thousands of sockets.", version=__version__)
app.command(serve)
app.command(check)
app.command(demo)
app.command(load, help_flags=(), version_flags=())


def main() -> None:
    """The entry point of the ``fanwire`` script."""
    app()
