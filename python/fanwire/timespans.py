"""Durations as .NET writes them, made such that msgspec reads them; and text that is none. Not here: what they are for.

.NET has a ``TimeSpan`` as ``[-][d.]hh:mm:ss[.fffffff]`` in JSON and as ticks of 100 ns in MessagePack.
"""

import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import inspect

TIMESPAN = re.compile(r"(-?)(?:(\d{1,8})\.)?(\d\d):(\d\d):(\d\d)(?:\.(\d{1,7}))?")
TICKS_PER_MICROSECOND = 10
ESCAPES = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)

Fix = Callable[[Any], Any]
"""Gives a decoded value with ISO 8601 in place of each duration of .NET's; whatever else is there it leaves."""

_JSON: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=Decimal)
_TO_JSON = msgspec.json.Encoder(decimal_format="number")


class Durations:
    """Mends values of a type; false where there are no durations in it."""

    def __init__(self, type_: Any) -> None:
        info = inspect.type_info(type_)
        self._has_any = _has_duration(info, set())
        self._of_json = _Fixes(_of_text).fix_of(info) if self._has_any else None
        self._of_msgpack = _Fixes(_of_ticks).fix_of(info) if self._has_any else None

    def __bool__(self) -> bool:
        return self._has_any

    def mend(self, data: Any, is_json: bool) -> bytes:
        """The same data with durations as msgspec reads them; numbers keep their digits. Raises what msgspec raises."""
        assert self._of_json is not None and self._of_msgpack is not None, "who asks has looked"
        if is_json:
            return _TO_JSON.encode(self._of_json(_JSON.decode(data)))
        return msgspec.msgpack.encode(self._of_msgpack(msgspec.msgpack.decode(data)))


def lone_surrogate(data: bytes) -> str | None:
    """The first escape in JSON that is half of a surrogate pair, which is no character (RFC 8259 §8.2), if one is."""
    high, end = "", -1  # a first half, and where the second must stand
    for escape in ESCAPES.finditer(data):
        unit = int(escape[1] or b"0", 16)
        if high and not (escape.start() == end and 0xDC00 <= unit < 0xE000):
            return high
        if not high and 0xDC00 <= unit < 0xE000:
            return escape[0].decode()
        high, end = (escape[0].decode(), escape.end()) if 0xD800 <= unit < 0xDC00 else ("", -1)
    return high or None


def _of_text(value: Any) -> Any:
    if isinstance(value, str) and (match := TIMESPAN.fullmatch(value)):
        sign, days, hours, minutes, seconds, fraction = match.groups("")
        if int(hours) < 24 and int(minutes) < 60 and int(seconds) < 60:
            whole = int(days or 0) * 86_400 + int(hours) * 3_600 + int(minutes) * 60 + int(seconds)
            microseconds = int(fraction.ljust(7, "0")) // TICKS_PER_MICROSECOND
            duration = dt.timedelta(seconds=whole, microseconds=microseconds)
            return msgspec.to_builtins(-duration if sign else duration)
    return value


def _of_ticks(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        ticks = abs(value) // TICKS_PER_MICROSECOND
        return msgspec.to_builtins(dt.timedelta(microseconds=-ticks if value < 0 else ticks))
    return value


def _parts(info: Any) -> list[Any]:
    """The types that a type is made of."""
    parts = [getattr(info, name, None) for name in ("item_type", "key_type", "value_type")]
    parts += [*getattr(info, "item_types", ()), *getattr(info, "types", ())]
    parts += [field.type for field in getattr(info, "fields", ())]
    return [part for part in parts if part is not None]


def _has_duration(info: Any, seen: set[int]) -> bool:
    if isinstance(info, inspect.TimeDeltaType):
        return True
    if id(info) in seen:
        return False
    seen.add(id(info))
    return any(_has_duration(part, seen) for part in _parts(info))


class _Fixes:
    """Makes a ``Fix`` for each type; one that holds itself is made once."""

    def __init__(self, leaf: Fix) -> None:
        self._leaf = leaf
        self._made: dict[int, Fix] = {}
        self._seen: list[Any] = []  # so that no id is another's

    def fix_of(self, info: Any) -> Fix:
        """What mends values of a type."""
        if id(info) not in self._made:
            self._seen.append(info)
            self._made[id(info)] = lambda value: self._made[id(info)](value)  # until it is known, and in a circle
            self._made[id(info)] = self._make(info)
        return self._made[id(info)]

    def _make(self, info: Any) -> Fix:
        if isinstance(info, inspect.TimeDeltaType):
            return self._leaf
        if not _has_duration(info, set()):
            return lambda value: value
        if isinstance(info, inspect.UnionType):
            fixes = [self.fix_of(part) for part in info.types if _has_duration(part, set())]
            takes_int = any(isinstance(part, inspect.IntType | inspect.FloatType) for part in info.types)
            return lambda value: value if takes_int and isinstance(value, int) else _each(fixes, value)
        if hasattr(info, "item_types"):
            return self._of_places([self.fix_of(part) for part in info.item_types])
        if hasattr(info, "item_type"):
            item = self.fix_of(info.item_type)
            return lambda value: [item(one) for one in value] if isinstance(value, list) else value
        if hasattr(info, "key_type"):
            key, item = self.fix_of(info.key_type), self.fix_of(info.value_type)
            return lambda value: {key(k): item(v) for k, v in value.items()} if isinstance(value, dict) else value
        return self._of_fields(info)

    def _of_places(self, fixes: list[Fix]) -> Fix:
        def fix(value: Any) -> Any:
            if not isinstance(value, list) or len(value) != len(fixes):
                return value
            return [fix(one) for fix, one in zip(fixes, value, strict=True)]

        return fix

    def _of_fields(self, info: Any) -> Fix:
        by_name = {field.encode_name: self.fix_of(field.type) for field in info.fields}
        in_order = list(by_name.values())
        if getattr(info, "tag", None) is not None:
            in_order.insert(0, lambda value: value)

        def fix(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: by_name[name](one) if name in by_name else one for name, one in value.items()}
            if isinstance(value, list):  # of an array-like Struct, or a NamedTuple
                return [fix(one) for fix, one in zip(in_order, value, strict=False)] + value[len(in_order) :]
            return value

        return fix


def _each(fixes: list[Fix], value: Any) -> Any:
    for fix in fixes:
        value = fix(value)
    return value
