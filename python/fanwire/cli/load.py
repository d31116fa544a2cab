"""``fanwire load``: becomes the load client, which is a program of its own."""

import os
import sys
from typing import Annotated

from cyclopts import Parameter

from fanwire.demo.processes import LoadClientMissing, load_client


def load(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Open many connections to a WebSocket server and measure what arrives; `fanwire load --help` tells its options.

    Args:
        arguments: handed over to the load client as they are.
    """
    try:
        program = load_client()
    except LoadClientMissing as missing:
        print(f"fanwire load: {missing}", file=sys.stderr)
        raise SystemExit(1) from None
    os.execv(program, ["fanwire load", *arguments])
