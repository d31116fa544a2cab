"""Where a setting stands: in the tree of settings, in a TOML file (its line), and as an environment variable.

``tomllib`` gives values without positions, and no kept library gives both; so the lines are looked up here, in a text
that ``tomllib`` has found valid.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""``("relay", 0, "linger")``: names of keys, and indices of lists."""

PREFIX = "FANWIRE_"
TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}(?!")|\'\'\'.*?'{3,5}(?!')'''
    r"""|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*|[\[{]|[\]}]|,|\n|[^\[\]{}"'#,\n]+""",
    re.DOTALL,
)
"""Strings, comments, brackets, commas, line ends, and what is between."""


def dotted(path: Path) -> str:
    """``relay[0].linger``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def variable(path: Path) -> str:
    """``FANWIRE_RELAY__0__LINGER``."""
    return PREFIX + "__".join(str(part).upper().replace("-", "_") for part in path)


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of each table, key and list element of a valid TOML text.

    What stands inside an inline table has the line of the statement, or of the list element, that holds it.
    """
    lines: dict[Path, int] = {}
    lengths: dict[Path, int] = {}
    table: Path = ()
    for statement, line, elements in _statements(text.replace("\r\n", "\n")):
        if not statement.startswith("["):
            for path in _paths(tomllib.loads(statement)):
                first = next((part for part in path if isinstance(part, int)), 0)
                is_element = any(isinstance(part, int) for part in path) and elements
                lines.setdefault(table + path, elements[first] if is_element else line)
            continue
        is_list = statement.startswith("[[")
        # The deepest path of what tomllib reads has each key of the header, and a 0 behind the last one of a list.
        names = max(_paths(tomllib.loads(statement)), key=len)
        names = names[:-1] if is_list else names
        table = ()
        for name in names[:-1]:
            table = _entered((*table, name), lengths)
            lines.setdefault(table, line)
        table = (*table, names[-1])
        if is_list:
            lines.setdefault(table, line)
            lengths[table] = lengths.get(table, 0) + 1
            table = _entered(table, lengths)
        lines[table] = line
    return lines


def _entered(path: Path, lengths: dict[Path, int]) -> Path:
    """The newest element, if the path is that of a list of tables."""
    return (*path, lengths[path] - 1) if path in lengths else path


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of each key and list element in a value."""
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _paths(child, (*path, key))


def _statements(text: str) -> Iterator[tuple[str, int, list[int]]]:
    """Each header and each ``key = value``, its line, and the lines of the elements if the value is a list."""
    statement, depth, line, started, elements, is_awaited = "", 0, 1, 1, list[int](), False
    for match in TOKEN.finditer(text + "\n"):
        token = match[0]
        if token == "\n" and depth == 0:
            if statement.strip():
                yield statement.strip(), started, elements
            statement, elements = "", []
        elif not token.startswith("#"):
            if not statement.strip():
                started = line
            closes = token in ("]", "}")
            if is_awaited and token.strip() and not (closes and depth == 1):
                elements.append(line)
                is_awaited = False
            depth += (token in ("[", "{")) - closes
            is_awaited = is_awaited or (depth == 1 and token in ("[", ",") and _is_list(statement))
            statement += token
        line += token.count("\n")


def _is_list(statement: str) -> bool:
    """Whether what began a value at depth 1 is a list: its first bracket behind the ``=``."""
    return re.match(r"\s*(?:\"(?:\\.|[^\"\\])*\"|'[^']*'|[^\"'=\[{])+=\s*(?:\[|$)", statement) is not None
