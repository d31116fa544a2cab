"""The examples, run as they stand."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES_MAX = 5
"""So many lines of a program may have to differ."""


def before(name: str, page: str) -> str:
    """An example as it was without fanwire: the first diff of a page of the docs, undone, in which it is whole."""
    program = (EXAMPLES / name).read_text()
    difference = (EXAMPLES.parent / "docs" / page).read_text().partition("```diff\n")[2].partition("```")[0]
    assert 0 < sum(line.startswith("+") for line in difference.splitlines()) <= LINES_MAX
    for part in difference.strip("\n").split("\n\n"):
        lines = part.splitlines()
        now, then = ("\n".join(line[1:] for line in lines if line[0] in kept) for kept in ("+ ", "- "))
        assert program.count(now) == 1, now
        program = program.replace(now, then)
    return program


@contextmanager
def example(name: str, *arguments: str) -> Iterator[str]:
    """The first line that the example, or the program with that path, prints, while it runs; then Ctrl-C."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    # A background job of a shell ignores Ctrl-C, and its children would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
        process.communicate()
