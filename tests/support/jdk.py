"""The JDK's inflater (``java.util.zip.Inflater``), with as much of zlib's interface as deflating.py asks for.

Its window is always of 15 bits: that a distance is longer than was agreed it does not see.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from types import ModuleType
from typing import Any

JAVA = which("java")
NO_JAVA = "java is not installed"
SOURCE = Path(__file__).parents[1] / "interop/java/Inflates.java"


class Error(Exception):
    """What the inflater refuses."""


class _Stream:
    """One inflater over there."""

    eof = False
    unconsumed_tail = b""

    def __init__(self, process: "subprocess.Popen[str]", number: int) -> None:
        self._process, self._number = process, number

    def decompress(self, data: bytes, _bytes_max: int = 0) -> bytes:
        """All that it stands for, however much was asked for. Raises Error."""
        if not data:
            return b""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{self._number} {data.hex()}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if answer.startswith("!"):
            raise Error(answer)
        return bytes.fromhex(answer)


@contextmanager
def jdk() -> Iterator[ModuleType]:
    """A process of Java, as a module like zlib; for one thread at a time."""
    assert JAVA is not None, NO_JAVA
    command = [JAVA, str(SOURCE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        count = 0

        def decompressobj(_bits: int) -> _Stream:
            nonlocal count
            count += 1
            return _Stream(process, count - 1)

        module: Any = ModuleType("jdk")
        module.decompressobj, module.error = decompressobj, Error
        yield module
        assert process.stdin is not None
        process.stdin.close()
