"""How what is logged is written: a line an event, as text or JSON, no more lines of a kind than a disk can stand.

``fanwire serve`` writes with these. A program with a logging of its own may have ``JsonLines`` as any formatter.
"""

import json
import logging
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from fanwire.logs import LOG_S, Sparing
from fanwire.wording import printable, shortened

LINES = "%(asctime)s %(message)s"
"""On a terminal; what is worse than info has its level in front."""
PAIRS = "time=%(asctime)s level=%(levelname)s logger=%(name)s message=%(message)s"
FLOOD_LINES_MAX = 1_000
"""So many lines of one kind are written within ``LOG_S``, whoever logs them; what clients can cause has less."""
TEXT_MAX = 8_192
"""Characters of a line's message, and of the end of a traceback."""
CONNECTION = re.compile(r"\bc\d+@\d+(?:/\d+)?\b")
NAMES = r"(?:access_?|id_?|refresh_?)?token|secret|password|passwd|api_?key|signature"
SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"(?i)\b({NAMES})=[^&\s\"']+"), r"\1=…"),
    (re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]{8,}"), r"\1 …"),
    (re.compile(r"://[^/\s:@]*:[^/\s@]+@"), "://…@"),
)
"""What must not be read in a log, wherever it came from: an exception of the application's may quote a URL."""


def without_secrets(text: str) -> str:
    """A text without what looks like a token, a password or a secret of a query."""
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return text


def _traceback(record: logging.LogRecord, write: Callable[..., str]) -> str:
    """That of a record, without secrets and not too long: its end says what was raised."""
    if not record.exc_info:
        return ""
    text = without_secrets(write(record.exc_info))
    return text if len(text) <= TEXT_MAX else f"…{text[-TEXT_MAX:]}"


class TerminalLines(logging.Formatter):
    """For who reads along; a traceback has its lines."""

    def __init__(self) -> None:
        super().__init__(LINES, "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The time and the message, with its level where it is worse than info."""
        record.message = "\n".join(map(printable, without_secrets(record.message).split("\n")))
        if record.levelno > logging.INFO:
            record.message = f"{record.levelname.lower()}: {record.message}"
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """As it is, without secrets."""
        return without_secrets(super().formatException(ei))  # type: ignore[arg-type]


class PairLines(logging.Formatter):
    """``key=value``, in one line whatever is told."""

    def __init__(self) -> None:
        super().__init__(PAIRS, "%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = shortened(without_secrets(record.getMessage()), TEXT_MAX)
        at, level = self.formatTime(record, self.datefmt), record.levelname.lower()
        line = f"time={at} level={level} logger={record.name} message={_quoted(message)}"
        traceback = _traceback(record, self.formatException)
        return f"{line} exception={_quoted(traceback)}" if traceback else line


def _quoted(text: str) -> str:
    if set(' "=\n') & set(text):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{printable(escaped)}"'
    return printable(text)


class JsonLines(logging.Formatter):
    """An object a line: ``time`` (UTC), ``level``, ``logger``, ``event``, ``message``, and what else there is.

    That is ``worker``, its number; ``connection``, as ``c17@2``; ``exception``, its traceback. ``event`` is the message
    before anything was filled in: one text for each kind of event.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, in ASCII."""
        worker = getattr(record, "worker", None)
        prefix = "" if worker is None else f"worker {worker}: "
        message = without_secrets(record.getMessage()).removeprefix(prefix)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, object] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": without_secrets(str(record.msg)).removeprefix(prefix),
            "message": shortened(message, TEXT_MAX),
        }
        if worker is not None:
            told["worker"] = worker
        if (connection := CONNECTION.search(message)) is not None:
            told["connection"] = connection[0]
        if traceback := _traceback(record, self.formatException):
            told["exception"] = traceback
        return json.dumps(told)


class Sparingly(logging.StreamHandler[TextIO]):
    """Writes so many lines of a kind in a while; how many were left out is told once, by the first line behind that."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._sparing = Sparing()

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or count it."""
        for kind, left_out in self._sparing.settle():
            text = f"%d more lines were left out within {LOG_S:g} s: %s"
            super().emit(logging.LogRecord("fanwire.log", logging.WARNING, "", 0, text, (left_out, kind), None))
        may, _ = self._sparing.ask(f"{record.name}: {record.msg}", FLOOD_LINES_MAX)
        if may:
            super().emit(record)


def log_to_stderr(level: str, style: str = "text") -> None:
    """Have what fanwire logs, from `level` on, written to stderr.

    `style` is ``json``, or ``text``: short lines on a terminal, else ``key=value``.
    """
    handler = Sparingly(sys.stderr)
    text = TerminalLines() if sys.stderr.isatty() else PairLines()
    handler.setFormatter(JsonLines() if style == "json" else text)
    log = logging.getLogger("fanwire")
    log.handlers = [handler]
    log.setLevel(level.upper())
    log.propagate = False
