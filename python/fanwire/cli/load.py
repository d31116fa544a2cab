"""``fanwire load``: hands over to the Rust load client, wherever this installation has it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast

from cyclopts import Parameter

from fanwire import _engine

PACKAGE = Path(__file__).resolve().parent.parent
AGAIN = [sys.executable, "-m", "fanwire", "load"]
"""Starts the load client that is inside the extension, as a process of its own."""

RunLoad = Callable[[list[str], list[str]], int]
"""What starts this client again for more connections than one process may hold, its arguments; its exit code."""


def load(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Open many connections to a WebSocket server and measure what arrives; `fanwire load --help` tells its options.

    Args:
        arguments: handed over to the load client as they are.
    """
    inside = run_load()
    if inside is not None:
        raise SystemExit(inside(AGAIN, ["fanwire load", *arguments]))
    raise SystemExit(subprocess.run([*load_command(), *arguments], check=False).returncode)


def load_command() -> list[str]:
    """The command that starts a load client as a process of its own.

    The first of: the program that ``FANWIRE_LOAD`` names, the one inside the extension, ``fanwire-load`` beside the
    package, in the source tree's ``target/release``, on ``PATH``.

    Raises:
        SystemExit: there is none; the text says how to get one.
    """
    named = os.environ.get("FANWIRE_LOAD")
    if named:
        return [named]
    if run_load() is not None:
        return AGAIN
    target = Path(os.environ.get("CARGO_TARGET_DIR", PACKAGE.parent.parent / "target"))
    for candidate in (PACKAGE / "fanwire-load", target / "release" / "fanwire-load"):
        if candidate.is_file():
            return [str(candidate)]
    found = shutil.which("fanwire-load")
    if found is None:
        raise SystemExit(
            "fanwire: no load client found; build it with `cargo build --release -p fanwire-load`, "
            "or name it in FANWIRE_LOAD"
        )
    return [found]


def run_load() -> RunLoad | None:
    """The load client inside the extension, or None where it was built without, or FANWIRE_LOAD names another."""
    if os.environ.get("FANWIRE_LOAD"):
        return None
    return cast("RunLoad | None", getattr(_engine, "run_load", None))
