"""Checks a dataclass of settings that a program builds as one that a file holds: by the kinds of its fields.

In a program a duration is a number of seconds, a size one of bytes, a table an object of its class; all else is as in
the file. A list becomes a tuple.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin

from fanwire.config.kinds import ONE_OR_MORE
from fanwire.config.reading import apart, kinds_of, leaf_at, unwrapped
from fanwire.config.sources import dotted
from fanwire.values import Listed, Named, OrNone, Rule, WrongType, check_count, checked, part


class Built(Named):
    """The base of such a dataclass: whoever makes one is told what is wrong with it, at once.

    Raises:
        TypeError: an argument that there is not, or a value of a wrong type.
        ValueError: a value out of its range, or one that does not go with another.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, (rule, is_shown) in _rules_of(cls).items():
            value = checked(f"{cls.__name__}.{name}", getattr(self, name), rule, is_shown=is_shown)
            object.__setattr__(self, name, value)
        faults = getattr(self, "faults", None)
        for path, message in apart(faults()) if faults else ():
            raise ValueError(f"{cls.__name__}.{dotted(path)} {message}")


@cache
def _rules_of(cls: type) -> dict[str, tuple[Rule, bool]]:
    return {name: _rule_of(kind) for name, kind in kinds_of(cls).items()}


def _rule_of(kind: Any) -> tuple[Rule, bool]:
    """What a field takes, and whether an error may show what was given."""
    plain, marks = unwrapped(kind)
    leaf, is_shown = leaf_at(kind), True
    if leaf is not None:
        rule, is_shown = leaf.take, not leaf.is_secret
    elif get_origin(plain) is tuple:
        each, _ = _rule_of(get_args(plain)[0])
        what = str(each) if isinstance(each, _OfClass) else "strings"
        rule = Listed(each, what, is_one_enough=ONE_OR_MORE in marks)
    elif get_origin(plain) is Mapping:
        (key, _), (value, is_shown) = map(_rule_of, get_args(plain))
        rule = _Table(key, value)
    else:
        rule = _OfClass(get_args(plain) or (plain,))
    return OrNone(rule) if NoneType in get_args(kind) else rule, is_shown


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
class _Table:
    """A mapping of names that the program chooses; kept as a dict."""

    key: Rule
    each: Rule

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise WrongType("must be a mapping such as {'Name': 'value'}")
        check_count(value, value)
        return {part(name, name, self.key): part(name, each, self.each) for name, each in value.items()}
