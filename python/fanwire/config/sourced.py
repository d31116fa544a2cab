"""All settings of a tree that was read, each with where it is from: for whoever wonders what is in force."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

from fanwire.config.kinds import Secret
from fanwire.config.reading import kinds_of, leaf_at, unwrapped
from fanwire.config.sources import Path, Sources, dotted, variable
from fanwire.values import concealed

HIDDEN = "…"
SHOWN_MAX = 400
"""Characters of a value."""


def told(tree: Any, sources: Sources) -> Iterator[tuple[str, str, str]]:
    """Each setting, its value as a file has it, and its source: ``file:LINE``, a variable, an option or ``default``.

    Args:
        tree: the dataclass that ``read`` gave for `sources`.
    """
    for path, kind, value in _leaves(tree, ()):
        yield dotted(path), _text(kind, value), _source(path, sources)


def _leaves(table: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    cls: Any = type(table)
    kinds = kinds_of(cls)
    for each in fields(table):
        kind, value, at = kinds[each.name], getattr(table, each.name), (*path, each.name)
        if is_dataclass(value):
            yield from _leaves(value, at)
        elif isinstance(value, tuple) and value and all(map(is_dataclass, value)):
            for index, one in enumerate(value):
                yield from _leaves(one, (*at, index))
        elif isinstance(value, Mapping):
            for name, one in value.items():
                yield (*at, name), None, one
        else:
            yield at, kind, value


def _text(kind: Any, value: Any) -> str:
    leaf = None if kind is None else leaf_at(kind)
    if isinstance(value, Secret) or (leaf is not None and leaf.is_secret and value is not None):
        return HIDDEN
    if value is None:
        return ""
    if isinstance(value, tuple):
        plain = None if kind is None else unwrapped(kind)[0]
        each = get_args(plain)[0] if plain is not None and get_origin(plain) is tuple else None
        return concealed(", ".join(_text(each, one) for one in value))[:SHOWN_MAX]
    return concealed(str(value) if leaf is None else leaf.written(value))[:SHOWN_MAX]


def _source(path: Path, sources: Sources) -> str:
    origin = sources.origins.get(path)
    if origin is None:
        below = (one for known, one in sources.origins.items() if known[: len(path)] == path)
        origin = next(below, None)
    if origin is None:
        return "default"
    if origin.line is not None:
        return f"file:{origin.line}"
    return origin.option or variable(origin.path)
