"""Writes what is made of the tables of settings: those of docs/settings.md, the type of options, the stand-in's table.

Of the engine and the hub it is a table of values (``fanwire.values.TABLE``), of a file's own tables the dataclasses: a
field's annotation has kind and range, its docstring says what it means, and behind ``Worst cost:`` what it may cost.

``python tests/support/settings_page.py`` writes all three files; ``tests/test_settings_table.py`` holds them equal.
"""

import ast
import inspect
import json
import re
import subprocess
import sys
from math import inf
from pathlib import Path

from fanwire._engine import Setting, __version__
from fanwire.admin.config import AdminConfig
from fanwire.cli.backbone import BackboneConfig
from fanwire.cli.config import OPTIONS as LIMITS
from fanwire.cli.config import Drain, Listen, Log
from fanwire.config.kinds import ONE_OR_MORE
from fanwire.config.reading import Row, kinds_of, leaf_at, unwrapped
from fanwire.config.reading import rows_of as rows_of_table
from fanwire.options import RULES
from fanwire.relay.config import CallShare, Everyone, Lanes, MessageShare, Private, QueryShare, RelayConfig
from fanwire.sources.config import SourceConfig
from fanwire.values import LIST_MAX, TABLE, rows_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "settings.md"
OPTIONS = ROOT / "python" / "fanwire" / "_options.py"
STAND_IN = ROOT / "pure" / "engine" / "table.json"
NUMBERS = ["kind", "least", "most", "choices", "must", "limits"]
FIELDS = ["name", "scope", "group", "meaning", *NUMBERS, "default", "usual", "cost"]
HEAD = "| | what, and its unit | default | range | worst cost, and what an attacker gains |"
TYPES = {"seconds": "float", "bytes": "int", "whole": "int", "permissions": "int", "truth": "bool", "choice": "str"}
OTHER_TYPES = {
    "origins": "str | Sequence[str]",
    "encode": "Callable[[Any], Any]",
    "congestion_control": "str",
    "drain_code": "int",
}
"""Types of what is neither a number nor one of a few values; the others are lists."""


def size(number: float) -> str:
    """``64 KiB``, ``100``."""
    power = next((power for power in (4, 3, 2, 1) if number and number % 1024**power == 0), 0)
    return f"{number / 1024**power:,g}" + (f" {'KMGT'[power - 1]}iB" if power else "")


def amount(row: Setting, number: float) -> str:
    """A number as the page has it."""
    if row.kind == "bytes":
        return size(number)
    if row.kind == "permissions":
        return f"{int(number):#o}"
    return "2³¹ − 1" if number == 2**31 - 1 else f"{number:,.10g}"


def value(row: Setting) -> str:
    """The default as the page has it."""
    if isinstance(row.default, bool) or (row.kind == "other" and isinstance(row.default, int)):
        return str(row.default)
    if isinstance(row.default, int | float):
        return amount(row, row.default)
    if isinstance(row.default, tuple):
        return ", ".join(f'`"{each}"`' for each in row.default) or "none"
    return "None" if row.default is None else f'`"{row.default}"`'


def default(row: Setting) -> str:
    """The same with what else there is to say of it."""
    said = f"{value(row)}{': ' if row.default is None else '; '}{row.usual}" if row.usual else value(row)
    return "none: it is required" if row.name == "address" else said


def span(row: Setting) -> str:
    """What it may be, as the page has it."""
    if row.kind == "other":
        said = row.must
    elif row.kind == "truth":
        said = "False, True"
    elif row.kind == "choice":
        said = ", ".join(f'`"{name}"`' for name in row.choices)
    elif row.most == inf:
        said = f"≥ {amount(row, row.least)}"
    else:
        said = f"{amount(row, row.least)} to {amount(row, row.most)}"
    return "; ".join(part for part in (said, row.limits) if part)


def table(group: str) -> str:
    """The table under one heading."""
    rows = (row for row in TABLE.values() if row.group == group)
    lines = (f"| `{row.name}` | {row.meaning} | {default(row)} | {span(row)} | {row.cost} |" for row in rows)
    return "\n".join((HEAD, "|---|---|---|---|---|", *lines))


SECTIONS: dict[str, dict[str, type]] = {
    "### `[listen]`, `[backbone]`, `[limits]`, `[drain]`, `[log]`, `[admin]`": {
        "listen.": Listen,
        "backbone.": BackboneConfig,
        "drain.": Drain,
        "log.": Log,
        "admin.": AdminConfig,
    },
    "### `[[source]]`": {"": SourceConfig},
    "### `[[relay]]`": {"": RelayConfig},
    "#### `[[relay.share]]` of `signalr`": {"": CallShare},
    "#### `[[relay.share]]` of `websocket`": {"": QueryShare, " ": MessageShare},
    "#### `[relay.everyone]`, `[relay.private]`, `[relay.lanes]`": {
        "everyone.": Everyone,
        "private.": Private,
        "lanes.": Lanes,
    },
}
"""A file's own tables, by the page's headings; what stands before each key."""


def words(table: type) -> dict[str, tuple[str, str]]:
    """What each field means, and what it may cost at worst: its docstring."""
    (tree,) = ast.parse(inspect.getsource(table)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, word in zip(tree.body, [*tree.body[1:], None], strict=True):
        is_said = isinstance(word, ast.Expr) and isinstance(word.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and is_said and "ClassVar" not in ast.unparse(field.annotation):
            meaning, _, cost = " ".join(word.value.value.split()).partition(" Worst cost: ")  # type: ignore[union-attr]
            found[ast.unparse(field.target)] = (meaning, cost)
    return found


def cell(text: str) -> str:
    """A sentence of a docstring as the page has it."""
    text = text.replace("``", "`").removesuffix(".")
    return re.sub(r"docs/(\w+\.md), (\w+)", lambda match: f"[{match[1]}]({match[1]}#{match[2].lower()})", text)


def row_span(kind: object) -> str:
    """What it may be, as the page has it."""
    leaf = leaf_at(kind)
    if leaf is not None:
        return re.sub(r'(\{.*?\}|".*?")', r"`\1`", leaf.span.replace("2,147,483,647", "2³¹ − 1")).removeprefix(
            "a whole number, "
        )
    plain, marks = unwrapped(kind)
    is_list = plain.__origin__ is tuple
    each = row_span(plain.__args__[0 if is_list else -1])
    one = "one, or " * (ONE_OR_MORE in marks)
    return f"{one}{'a list' if is_list else 'a table'} of at most {LIST_MAX:,}; each {each}"


def row_line(prefix: str, row: Row, said: tuple[str, str]) -> str:
    """A row of such a table."""
    key = f"{prefix}{row.path[0]}".strip()
    default = "see [Headers](#headers)" if key == "admit_ignore" else row.default_text
    if default.isdecimal() and row.path != ("code",):
        default = f"{int(default):,}"
    elif not default.startswith(("see", "none", "required")):
        default = f"`{default}`"
    cost = cell(said[1])
    return f"| `{key}` | {cell(said[0])} | {default} | {row_span(row.kind)} | {'–' if cost == 'none' else cost} |"


def file_table(heading: str) -> str:
    """The table of the page under one of ``SECTIONS``."""
    lines = [HEAD, "|---|---|---|---|---|"]
    for prefix, table in SECTIONS[heading].items():
        said = words(table)
        kinds = kinds_of(table)
        for row in rows_of_table(table):
            if len(row.path) == 1 and (row.leaf or row.path[0] != "share"):
                assert row.path[0] in kinds
                lines.append(row_line(prefix, row, said[str(row.path[0])]))
        if table is Listen:
            elsewhere = ", ".join(f"`{name}`" for name in RULES if name not in LIMITS.kinds)
            lines.append(
                f"| `limits.…` | the options above, by their names, but {elsewhere} | as above | as above | as above |"
            )
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its tables as they have to be."""
    for heading in SECTIONS:
        pattern = rf"(?ms)^({re.escape(heading)}\n.*?\n)\| \|.*?(?=\n(?!\|))"
        new = file_table(heading)
        text, count = re.subn(pattern, lambda match, new=new: match[1] + new, text, count=1)  # type: ignore[misc]
        assert count == 1, heading
    for group in dict.fromkeys(row.group for row in TABLE.values()):
        pattern = rf"(?ms)^(## {group}\n.*?\n)\| \|.*?(?=\n(?!\|))"
        text, count = re.subn(pattern, lambda match, group=group: match[1] + table(group), text, count=1)  # type: ignore[misc]
        assert count == 1, group
    return text


def options() -> str:
    """The module with the type of a hub's options."""
    lines = [
        '"""The type of a hub\'s options. Made of the table of settings by tests/support/settings_page.py alone."""',
        "",
        "from collections.abc import Callable, Sequence",
        "from typing import Any, TypedDict",
        "",
        "",
        "class Options(TypedDict, total=False):",
        '    """What ``Hub(...)`` takes as defaults, and ``serve`` and ``run`` for one serving: docs/settings.md."""',
        "",
    ]
    for row in rows_of("engine", "hub").values():
        kind = TYPES.get(row.kind) or OTHER_TYPES.get(row.name, "Sequence[str]")
        lines.append(f"    {row.name}: {kind}{' | None' * (row.default is None)}")
        told = f"{row.meaning[0].upper()}{row.meaning[1:]}; {span(row)}; default {default(row)}."
        lines.append(f'    """{wrapped(told.replace("`", "``"))}"""')
    return "\n".join(lines) + "\n"


def stand_in() -> str:
    """What the pure-Python stand-in for the engine knows of settings: a line for each."""
    rows = [json.dumps({name: getattr(row, name) for name in FIELDS}, ensure_ascii=False) for row in TABLE.values()]
    return f'{{"version": "{__version__}", "rows": [\n' + ",\n".join(rows) + "\n]}\n"


def wrapped(text: str) -> str:
    """A docstring in lines of 120."""
    found = [""]
    for word in text.split():
        room = 120 - 4 - (3 if len(found) == 1 else 0) - 3
        if found[-1] and len(found[-1]) + 1 + len(word) > room:
            found.append(word)
        else:
            found[-1] = f"{found[-1]} {word}".strip()
    return "\n    ".join(found)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    OPTIONS.write_text(options(), encoding="utf-8")
    STAND_IN.write_text(stand_in(), encoding="utf-8")
    sys.exit(subprocess.call([sys.executable, "-m", "ruff", "format", "--quiet", str(OPTIONS)]))
