"""One tree of settings out of a TOML file, the environment and options; each value knows where it is from."""

import re
import tomllib
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any, TypeAlias

from fanwire._engine import toml_lines
from fanwire.config.kinds import Text, bytes_of
from fanwire.errors import ConfigError
from fanwire.values import Mistake
from fanwire.wording import printable, shortened

Path: TypeAlias = tuple[str | int, ...]
"""``("relay", 0, "linger")``: names of keys, and indices of lists."""

PREFIX = "FANWIRE_"
FILE_BYTES_MAX = 1 << 20
"""Of a TOML file."""
TOO_DEEP = "is nested too deeply: tables, lists and parts of a key are 80 deep at most"
KEY_SHOWN_MAX = 200
"""Characters of a key in an error."""


def dotted(path: Path) -> str:
    """``relay[0].linger``, as it is shown."""
    parts = path[:KEY_SHOWN_MAX]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    return printable(shortened(text, KEY_SHOWN_MAX))


def variable(path: Path) -> str:
    """``FANWIRE_RELAY__0__LINGER``."""
    return PREFIX + "__".join(str(part).upper().replace("-", "_") for part in path)


@dataclass(frozen=True, slots=True)
class Option:
    """A setting that was given on the command line."""

    name: str
    """``--listen``"""
    path: Path
    value: Any
    is_fallback: bool = False
    """Whether it counts only where nothing else is given at the same path."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting is from."""

    path: Path
    line: int | None = None
    """In the file; None: from the environment or an option."""
    option: str | None = None
    """``--listen``; None: from the file or the environment."""


@dataclass
class Sources:
    """All that was given, merged: an option comes before the environment, and that before the file.

    Args:
        file: the TOML file, or None.
        environment: variables; those that begin with ``FANWIRE_`` and hold ``__`` are settings.
        options: what the command line gave.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is no UTF-8.
        ConfigError: it is no TOML.
    """

    file: File | None
    environment: Mapping[str, str]
    options: Iterable[Option] = ()
    tree: dict[str, Any] = field(default_factory=dict)
    """What stands in the file has the types of TOML, what came otherwise is ``Text``."""
    origins: dict[Path, Origin] = field(default_factory=dict)
    faults: list[ConfigError] = field(default_factory=list)
    """What could not be merged."""
    # The first origin below each path; made when it is asked for, from `origins` as they are then.
    _below: dict[Path, Origin] | None = None

    def __post_init__(self) -> None:
        if self.file is not None:
            self._read_file(self.file)
        for name in sorted(self.environment, key=_in_order):
            if name.startswith(PREFIX) and "__" in name:
                path = tuple(
                    int(part) if part.isdecimal() else part for part in name[len(PREFIX) :].lower().split("__")
                )
                self._overlay(path, Text(self.environment[name]), None)
        for option in self.options:
            if option.is_fallback and option.path in self.origins:
                continue
            self._overlay(option.path, option.value, option.name)

    def _read_file(self, file: File) -> None:
        try:
            text = bytes_of(file, FILE_BYTES_MAX).decode("utf-8-sig")  # as some editors begin a file
        except Mistake as mistake:
            raise ConfigError(f"is {mistake.told}, {mistake}", file=str(file)) from mistake
        try:
            lines = _lines(text)  # first: that is quick to see what is too deep, at which tomllib takes minutes
            self.tree = tomllib.loads(text)
            if lines is None:
                lines = toml_lines(text)
        except RecursionError as error:
            raise ConfigError(TOO_DEEP, file=str(file), line=_first_too_deep(text)) from error
        except ValueError as error:
            what = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
            line = int(what[2]) if what and what[2] else text.count("\n") + 1
            raise ConfigError(f"is no TOML: {what[1] if what else error}", file=str(file), line=line) from error
        self.origins = {path: Origin(path, line=line) for path, line in lines.items()}

    def _overlay(self, path: Path, value: Any, option: str | None) -> None:
        """Put `value` at `path`, making the tables and lists on the way."""
        node: Any = self.tree
        so_far: Path = ()
        for part, following in zip(path, (*path[1:], None), strict=True):
            if isinstance(part, str) and isinstance(node, dict):
                part = _spelled(part, node, is_header="headers" in so_far)
                known: Any = node.get(part)
            elif isinstance(part, int) and part <= len(node):
                known = node[part] if part < len(node) else None
            else:
                message = f"is number {part} of a list that has {len(node)}; they count from 0"
                self.faults.append(ConfigError(message, key=option or variable(path)))
                return
            so_far = (*so_far, part)
            child = value if following is None else _container(known, following)
            if isinstance(node, list) and len(node) == part:
                node.append(child)
            else:
                node[part] = child
            node = child
            if child is not known and known is not None:
                self._forget(so_far)
        self._below = None
        self.origins[so_far] = Origin(so_far, option=option)

    def _forget(self, path: Path) -> None:
        """What stood at `path`, and below it, is replaced."""
        self.origins = {known: origin for known, origin in self.origins.items() if known[: len(path)] != path}

    def origin(self, path: Path) -> Origin | None:
        """Where the setting at `path` is from; else what is below it; else what holds it."""
        if path in self.origins:
            return self.origins[path]
        if self._below is None:
            self._below = {}
            for known, origin in self.origins.items():
                for length in range(len(known)):
                    self._below.setdefault(known[:length], origin)
        return self._below.get(path) or (self.origin(path[:-1]) if path else None)

    def error(self, path: Path, message: str) -> ConfigError:
        """An error at `path`, told in the words of its source."""
        origin = self.origin(path)
        if origin is None:
            return ConfigError(message, key=dotted(path))
        if origin.line is not None:
            return ConfigError(message, file=str(self.file), line=origin.line, key=dotted(path))
        shorter = min(len(path), len(origin.path))
        is_about_it = path[:shorter] == origin.path[:shorter]
        if origin.option:
            return ConfigError(message, key=origin.option if is_about_it else dotted(path))
        return ConfigError(message, key=variable(origin.path if is_about_it else path))


def _lines(text: str) -> dict[Path, int] | None:
    """Where each key stands; None where it is no TOML, which tomllib tells better. Raises RecursionError."""
    try:
        return toml_lines(text)
    except ValueError:
        return None


def _first_too_deep(text: str) -> int:
    """The first line of a text that is nested too deeply up to there; the parser does not say where."""
    lines = text.splitlines(keepends=True)

    def is_too_deep(count: int) -> bool:
        try:
            _lines("".join(lines[:count]))
        except RecursionError:
            return True
        return False

    return bisect_left(range(len(lines) - 1), True, key=lambda index: is_too_deep(index + 1)) + 1


def _in_order(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts ``…__10`` behind ``…__9``."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in name.split("__")]


def _spelled(part: str, table: dict[str, Any], *, is_header: bool) -> str:
    """A variable's part as the table has it: headers' names have hyphens, and capitals that variables do not keep."""
    if not is_header:
        return part
    plain = part.replace("_", "-")
    return next((name for name in table if name.lower().replace("_", "-") == plain), plain)


def _container(known: Any, following: str | int) -> Any:
    """What holds `following`: what is there, if it can, else something new."""
    if isinstance(following, int):
        return known if isinstance(known, list) else []
    return known if isinstance(known, dict) else {}
