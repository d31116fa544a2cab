"""What publications are tagged with, and filters that look at it: which of them a subscription is to get."""

import json
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeAlias

Tag: TypeAlias = str | int | float | bool

TAGS_MAX = 16
NAME_BYTES_MAX = 64
TEXT_BYTES_MAX = 255
WHOLE_MAX = 1 << 53
FILTER_BYTES_MAX = 4_096
TERMS_MAX = 16


def check_tags(tags: Mapping[str, Tag] | None) -> dict[str, Tag]:
    """Tags as they are kept. Raises TypeError, ValueError, which name the tag, what it has and the bound."""
    if tags is None:
        return {}
    if not isinstance(tags, dict):
        raise TypeError("tags must be a dict, or None")
    for name, value in tags.items():
        if not isinstance(name, str):
            raise TypeError("tags: each name must be a str")
        if not isinstance(value, str | int | float):
            kind = type(value).__name__
            raise TypeError(f"tag {_shown(name)}: expected a str, an int, a float or a bool, not {kind}")
    if len(tags) > TAGS_MAX:
        raise ValueError(f"tags: {len(tags)} are over the bound of {TAGS_MAX}")
    for name, value in tags.items():
        _check_name(name)
        _check_value(name, value)
    return dict(tags)


def _shown(name: str) -> str:
    return json.dumps(name[:80], ensure_ascii=False)


def _check_name(name: str) -> None:
    count = len(name.encode())
    if not 0 < count <= NAME_BYTES_MAX:
        raise ValueError(f"tag {_shown(name)}: a name has 1 to {NAME_BYTES_MAX} bytes of UTF-8, not {count}")
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in name):
        raise ValueError(f"tag {_shown(name)}: a name must not hold control characters")


def _check_value(name: str, value: Tag) -> None:
    if isinstance(value, str):
        count = len(value.encode())
        if count > TEXT_BYTES_MAX:
            raise ValueError(f"tag {_shown(name)}: a text of {count} bytes is over the bound of {TEXT_BYTES_MAX}")
    elif isinstance(value, float):
        if not isfinite(value):
            raise ValueError(f"tag {_shown(name)}: a number must be finite, not {value}")
    elif abs(value) > WHOLE_MAX:
        raise ValueError(f"tag {_shown(name)}: a whole number is within ±{WHOLE_MAX}, not {value}")


def _kind_of(value: object) -> str:
    """Of JSON."""
    kinds = ((bool, "a boolean"), (str, "a string"), (int, "a number"), (float, "a number"), (list, "an array"))
    return next((kind for type, kind in kinds if isinstance(value, type)), "null" if value is None else "an object")


Condition: TypeAlias = Callable[[Tag], bool]


class Filter:
    """Which publications of a channel a subscription is to get. Those that ask for the same are equal."""

    __slots__ = ("_terms", "_texts")

    def __init__(self, terms: dict[tuple[str, str], Condition]) -> None:
        self._terms = [(name, condition) for (name, _), condition in terms.items()]
        self._texts = terms

    @staticmethod
    def parse(json_text: str, /) -> "Filter | None":
        """Read an object of JSON; None where it asks for nothing. Raises ValueError, which names what is wrong."""
        count = len(json_text.encode())
        if count > FILTER_BYTES_MAX:
            raise ValueError(f"filter of {count} bytes is over the bound of {FILTER_BYTES_MAX}")
        try:
            asked = json.loads(json_text)
        except ValueError as error:
            raise ValueError(f"filter must be an object of JSON: {error}") from None
        if asked is None:
            return None
        if not isinstance(asked, dict):
            raise ValueError(f"filter must be an object of JSON: got {_kind_of(asked)}")
        terms = {}
        for name, wanted in sorted(asked.items()):
            try:
                _check_name(name)
                text, condition = _condition(name, wanted)
            except ValueError as error:
                raise ValueError(f"filter: {error}") from None
            terms[name, text] = condition
        return Filter._of(terms)

    @staticmethod
    def _of(terms: dict[tuple[str, str], Condition]) -> "Filter | None":
        if len(terms) > TERMS_MAX:
            raise ValueError(f"filter of {len(terms)} conditions is over the bound of {TERMS_MAX}")
        return Filter(terms) if terms else None

    def both(self, other: "Filter") -> "Filter | None":
        """What both let through. Raises ValueError where that are too many conditions."""
        return Filter._of(self._texts | other._texts)

    def passes(self, tags: Mapping[str, Tag]) -> bool:
        """Whether a publication with these tags does: one without a tag that is named does not."""
        return all(name in tags and condition(tags[name]) for name, condition in self._terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self._texts.keys() == other._texts.keys()

    def __hash__(self) -> int:
        return hash(frozenset(self._texts))


def _plain(name: str, value: Any) -> tuple[str, Tag]:
    """A value that can be compared: what it is, and it."""
    if not isinstance(value, str | int | float):
        got = _kind_of(value)
        raise ValueError(f"tag {_shown(name)}: expected a text, a number, true or false, got {got}")
    if not isinstance(value, bool):
        if isinstance(value, int) and abs(value) > WHOLE_MAX:
            raise ValueError(f"tag {_shown(name)}: a whole number is within ±{WHOLE_MAX}, not {value}")
        return ("text", value) if isinstance(value, str) else ("number", float(value) + 0.0)
    return "truth", value


def _condition(name: str, wanted: Any) -> tuple[str, Condition]:
    """The one text of what a tag has to be, and whether one is."""
    if isinstance(wanted, dict):
        return _by_members(name, wanted)
    several = wanted if isinstance(wanted, list) else [wanted]
    if not several:
        raise ValueError(f"tag {_shown(name)}: an empty array lets nothing through")
    values = {_plain(name, one) for one in several}
    return repr(sorted(values, key=repr)), lambda tag: _plain(name, tag) in values


def _by_members(name: str, members: dict[str, Any]) -> tuple[str, Condition]:
    expected = f'tag {_shown(name)}: expected {{"prefix": TEXT}} or {{"min": NUMBER, "max": NUMBER}}'
    prefix = members.get("prefix")
    if len(members) == 1 and isinstance(prefix, str):
        start = prefix
        return f"prefix {start!r}", lambda tag: isinstance(tag, str) and tag.startswith(start)
    if not members or members.keys() - {"min", "max"}:
        keys = json.dumps(sorted(members)[:4], ensure_ascii=False)
        raise ValueError(f"{expected}, got the members {keys}")
    ends = {}
    for key in ("min", "max"):
        end = members.get(key)
        if end is not None:
            kind, value = _plain(name, end)
            if kind != "number":
                raise ValueError(f"{expected}, got {_kind_of(end)} as {key}")
            ends[key] = float(value)
    if not ends:
        raise ValueError(f"{expected}, got neither")
    least, most = ends.get("min", float("-inf")), ends.get("max", float("inf"))
    if least > most:
        raise ValueError(f"tag {_shown(name)}: nothing is from {least:g} to {most:g}")

    def is_in(tag: Tag) -> bool:
        return not isinstance(tag, str | bool) and least <= tag <= most

    return f"from {least} to {most}", is_in
