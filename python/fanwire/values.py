"""What a setting may be where Python gives it: one rule each, which says what is wrong with another value.

A rule is a function of the value. It gives what is kept, or raises ``Mistake``, whose text goes on where the setting's
name ends. ``checked`` makes a TypeError or a ValueError of that, with name and value. Names, bounds and defaults stand
in the engine's table of settings; ``rule_of`` makes the rule of one of its rows.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, ClassVar, TypeAlias

from fanwire._engine import Setting, number_text, settings_table
from fanwire.wording import shortened

SHOWN_MAX = 64
"""Characters of a value that an error shows."""
COUNT_MAX = 2**31 - 1
"""The most that a number of things may be."""
SIZE_MAX = 2**40
"""The most that a number of bytes may be: 1 TiB."""
DAY_S = 86_400.0
TEXT_MAX = 255
"""The most characters that a text may have, unless it says otherwise."""
LIST_MAX = 1_024
"""The most elements that a list may have, unless it says otherwise."""
TABLE = {row.name: row for row in settings_table()}
"""What can be set: of serving, of a hub and of a channel."""


class Mistake(ValueError):
    """What is wrong with a value: the end of a sentence that begins with the setting and, in a file, the value.

    Args:
        must: what is allowed: ``must be a whole number, 1 to 64``.
        at: which part of the value it is about: ``[3]``.
        told: how the value is shown, where that is not as Python or the file has it.
    """

    def __init__(self, must: str, at: str = "", told: str = "") -> None:
        super().__init__(must)
        self.at: str = at
        self.told: str = told


class WrongType(Mistake):
    """The value is of a type that the setting never has."""


Rule: TypeAlias = Callable[[Any], Any]
"""Takes what was given and gives what it means; raises Mistake."""


def concealed(text: str) -> str:
    """A text without the users, passwords and queries of the URLs in it, which may be secret."""
    text = re.sub(r"//[^/]*@", "//…@", text)
    return re.sub(r"(://[^?]*\?).+", r"\1…", text, flags=re.DOTALL)


def told(value: object) -> str:
    """A value as an error shows it: as Python writes it, short, on one line and without what may be secret in it."""
    try:
        text = concealed(ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value))
    except Exception:  # a repr that fails, or an int of more digits than Python writes
        return f"one of type {type(value).__name__}"
    text = " ".join(text.split())
    return shortened(text, SHOWN_MAX)


def checked(name: str, value: object, rule: Rule, *, is_shown: bool = True) -> Any:
    """What `rule` makes of `value`. Raises TypeError and ValueError, which name the setting, the value and the rule."""
    try:
        return rule(value)
    except Mistake as mistake:
        kind = TypeError if isinstance(mistake, WrongType) else ValueError
        given = f", not {mistake.told or told(value)}" if is_shown else ""
        raise kind(f"{name}{mistake.at} {mistake}{given}") from None


def unknown(what: str, name: str, known: Iterable[str], elsewhere: Mapping[str, str]) -> str:
    """What is said of a setting that there is not: where it belongs, or the nearest one; `what` has no such."""
    if name in elsewhere:
        return f"{name} is no {what}: it {elsewhere[name]}"
    nearest = get_close_matches(name, known, 1) or get_close_matches(name.lower(), known, 1)
    return f"unknown {what} {name!r}" + (f"; the nearest known one is {nearest[0]!r}" if nearest else "")


class Named:
    """The base of a dataclass of settings: an argument that it does not have is told with the nearest one."""

    __slots__ = ()
    LATER: ClassVar[Mapping[str, str]] = {}
    """Arguments of others, and of earlier or later versions, with what is said of each."""

    def __new__(cls, *positional: object, **given: object) -> Any:
        """Raises TypeError for an argument that there is not, and for one without its name."""
        known = getattr(cls, "__dataclass_fields__", {})
        if positional:
            name = next(iter(known))
            raise TypeError(f"{cls.__name__} takes its arguments by name, such as {cls.__name__}({name}=...)")
        for name in given.keys() - known.keys():
            raise TypeError(f"{cls.__name__}: {unknown('argument', name, known, cls.LATER)}")
        return super().__new__(cls)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A number of seconds, `least` to `most`."""

    least: float = 0.0
    most: float = DAY_S

    def __str__(self) -> str:
        return number_text("seconds", self.least, self.most)

    def __call__(self, value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise WrongType(f"must be {self}")
        if not self.least <= value <= self.most or (isinstance(value, int) and value.bit_length() > 1000):
            raise Mistake(f"must be {self}")
        return value


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number, `least` to `most`."""

    least: int = 1
    most: int = COUNT_MAX
    kind: str = "whole"
    """What it counts: ``bytes``, ``whole`` things, or ``permissions``, which are written as octal numbers."""

    def __str__(self) -> str:
        return number_text(self.kind, self.least, self.most)

    def __call__(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise WrongType(f"must be {self}")
        if not self.least <= value <= self.most:
            told = shortened(f"{value:#o}", SHOWN_MAX) if self.kind == "permissions" else ""
            raise Mistake(f"must be {self}", told=told)
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values: texts, booleans, None."""

    known: tuple[object, ...]

    def __call__(self, value: Any) -> Any:
        *others, last = map(repr, self.known)
        must = f"must be {', '.join(others)} or {last}" if others else f"must be {last}"
        are_texts = isinstance(value, str)
        alike = [one for one in self.known if (isinstance(one, str) if are_texts else type(one) is type(value))]
        if not alike:  # 1 is no True
            raise WrongType(must)
        if value not in alike:
            raise Mistake(must)
        return value


TRUTH = Choice((True, False))


@dataclass(frozen=True, slots=True)
class OrNone:
    """None, or what `rule` takes."""

    rule: Rule

    def __call__(self, value: Any) -> Any:
        if value is None:
            return None
        try:
            return self.rule(value)
        except Mistake as mistake:
            or_none = "" if mistake.at else " or None"
            raise type(mistake)(f"{mistake}{or_none}", mistake.at, mistake.told) from None


@dataclass(frozen=True, slots=True)
class Listed:
    """A list, tuple or other collection, each of whose elements `each` takes; kept as a tuple."""

    each: Rule
    what: str
    """What it is a list of, such as ``paths``."""
    is_empty_allowed: bool = True
    most: int = LIST_MAX
    is_one_enough: bool = False
    """Whether its only element may stand for it, a str; then it is not empty."""

    def __call__(self, value: Any) -> tuple[Any, ...]:
        if self.is_one_enough and isinstance(value, str):
            return (self.each(value),)
        may_be_empty = self.is_empty_allowed and not self.is_one_enough
        one = ", or one string" * self.is_one_enough
        must = f"must be a {'' if may_be_empty else 'non-empty '}list of {self.what}{one}"
        if isinstance(value, str | bytes | bytearray | memoryview | Mapping) or not isinstance(value, Iterable):
            raise WrongType(must)
        given = tuple(islice(value, self.most + 1))
        check_count(value, given, self.most)
        if not given and not may_be_empty:
            raise Mistake(must)
        return tuple(part(index, one, self.each) for index, one in enumerate(given))


def check_count(value: Any, given: Sized, most: int = LIST_MAX) -> None:
    """Raises Mistake for a collection of more than so many; `given` is as much of it as is looked at."""
    if len(given) > most:
        told = f"one of {len(value):,}" if isinstance(value, Sized) else "one of more"
        raise Mistake(f"must have {most:,} elements at most", told=told)


def rule_in(error: ValueError, otherwise: str) -> str:
    """The rule that the engine names in an error; `otherwise` where it names none."""
    _, _, rule = str(error).rpartition(": must ")
    return f"must {rule}" if rule != str(error) else otherwise


def part(index: object, value: object, rule: Rule) -> Any:
    """What `rule` makes of an element. Raises Mistake, which tells where it is."""
    try:
        return rule(value)
    except Mistake as mistake:
        raise type(mistake)(str(mistake), f"[{index!r}]{mistake.at}", mistake.told or told(value)) from None


def rule_of(row: Setting, readers: Mapping[str, Rule]) -> Rule:
    """What a setting of the table may be. `readers` has those by name that are neither numbers nor of a few values."""
    if row.kind == "other":
        return readers[row.name]
    if row.kind == "truth":
        return TRUTH
    is_optional = row.default is None
    if row.kind == "choice":
        return Choice((*row.choices, *([None] * is_optional)))
    is_time = row.kind == "seconds"
    rule = Seconds(row.least, row.most) if is_time else Whole(int(row.least), int(row.most), row.kind)
    return OrNone(rule) if is_optional else rule


def rows_of(*scopes: str) -> dict[str, Setting]:
    """The rows of the table that belong to one of `scopes`, by their names."""
    return {name: row for name, row in TABLE.items() if row.scope in scopes}
