"""``fanwire load``: hands over to the Rust load client inside the extension."""

import sys
from typing import Annotated

from cyclopts import Parameter

from fanwire._engine import run_load

AGAIN = [sys.executable, "-m", "fanwire", "load"]
"""Starts the load client as a process of its own."""


def load(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Open many connections to a WebSocket server and measure what arrives; `fanwire load --help` tells its options.

    Args:
        arguments: handed over to the load client as they are.
    """
    raise SystemExit(run_load(AGAIN, ["fanwire load", *arguments]))
