"""Checks a dataclass of settings that a program builds as one that a file holds: by the kinds of its fields.

In a program a duration is a number of seconds, a size one of bytes, a table an object of its class; all else is as in
the file. A list becomes a tuple.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from fanwire.config.kinds import ONE_OR_MORE, Leaf
from fanwire.config.reading import apart, kinds_of, unwrapped
from fanwire.config.sources import dotted
from fanwire.values import Choice, Listed, Named, OrNone, Rule, WrongType, check_count, checked, part


class Built(Named):
    """The base of such a dataclass: whoever makes one is told what is wrong with it, at once.

    Raises:
        TypeError: an argument that there is not, or a value of a wrong type.
        ValueError: a value out of its range, or one that does not go with another.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, taken in _fields_of(cls).items():
            value = checked(f"{cls.__name__}.{name}", getattr(self, name), taken.rule, is_shown=taken.is_shown)
            object.__setattr__(self, name, value)
        faults = getattr(self, "faults", None)
        for path, message in apart(faults()) if faults else ():
            raise ValueError(f"{cls.__name__}.{dotted(path)} {message}")


@dataclass(frozen=True, slots=True)
class _Field:
    """What a field takes."""

    rule: Rule
    is_shown: bool = True
    """Whether an error may show what was given."""


@cache
def _fields_of(cls: type) -> dict[str, _Field]:
    return {name: _field(kind) for name, kind in kinds_of(cls).items()}


def _field(kind: Any) -> _Field:
    plain, marks = unwrapped(kind)
    leaf = next((mark for mark in marks if isinstance(mark, Leaf)), None)
    origin = get_origin(plain)
    if origin is Literal:
        found = _Field(Choice(get_args(plain)))
    elif leaf is not None:
        found = _Field(leaf.take, not leaf.is_secret)
    elif origin is tuple:
        each = _field(get_args(plain)[0]).rule
        found = _Field(_OneOrMore(each) if ONE_OR_MORE in marks else Listed(each, _what(each)))
    elif origin is Mapping:
        key, value = map(_field, get_args(plain))
        found = _Field(_Table(key.rule, value.rule), value.is_shown)
    else:
        found = _Field(_OfClass(get_args(plain) or (plain,)))
    is_optional = NoneType in get_args(kind)
    return _Field(OrNone(found.rule), found.is_shown) if is_optional else found


def _what(each: Rule) -> str:
    return str(each) if isinstance(each, _OfClass) else "strings"


@dataclass(frozen=True, slots=True)
class _OfClass:
    """An object of one of these classes, which has checked itself."""

    classes: tuple[type, ...]

    def __str__(self) -> str:
        *others, last = (f"{each.__name__}(...)" for each in self.classes)
        return f"{', '.join(others)} or {last}" if others else last

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, self.classes):
            raise WrongType(f"must be {self}")
        return value


@dataclass(frozen=True, slots=True)
class _OneOrMore:
    """A list that is not empty, for which its only element may stand."""

    each: Rule

    def __call__(self, value: Any) -> Any:
        if isinstance(value, str):
            return (self.each(value),)
        return Listed(self.each, "strings, or one string", is_empty_allowed=False)(value)


@dataclass(frozen=True, slots=True)
class _Table:
    """A mapping of names that the program chooses; kept as a dict."""

    key: Rule
    each: Rule

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise WrongType("must be a mapping such as {'Name': 'value'}")
        check_count(value, value)
        return {part(name, name, self.key): part(name, each, self.each) for name, each in value.items()}
