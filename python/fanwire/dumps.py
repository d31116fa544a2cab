"""What objects of a class are written as, where they are neither plain nor containers. Not here: bytes of any format.

The forms are msgspec's. ``_engine`` asks once for each class, and remembers.
"""

import datetime as dt
import decimal
import enum
import sys
import uuid
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec
from msgspec import UNSET

DumpPlan = tuple[str, Callable[[Any], Any] | None]
"""A word for what the function makes of an object: ``text``, ``datetime``, ``duration``, ``decimal`` (all ``str``),
``value`` (another object), ``model`` (a pydantic model's dump), ``pairs`` (of names and values); or ``unknown``."""


def plan_of(cls: type) -> DumpPlan:
    """How objects of `cls` are written."""
    if issubclass(cls, enum.Enum):
        return "value", _enum_value
    for base, plan in _PLANS.items():
        if issubclass(cls, base):
            return plan
    if issubclass(cls, msgspec.Struct):
        return _plan_of_struct(cls)
    if callable(getattr(cls, "model_dump", None)) and hasattr(cls, "__pydantic_serializer__"):
        return "model", cls.model_dump  # type: ignore[attr-defined]
    if is_dataclass(cls):
        return "pairs", _fields_of(cls)
    if hasattr(cls, "__attrs_attrs__"):
        return "pairs", _attrs_fields
    return "unknown", None


def model_value(value: object) -> Any:
    """A value of a pydantic model's dump as pydantic itself has it in JSON; NotImplemented if it has no form."""
    core = sys.modules.get("pydantic_core")
    if core is None:
        return NotImplemented
    try:
        return core.to_jsonable_python(value)
    except core.PydanticSerializationError:
        return NotImplemented


def _enum_value(member: enum.Enum) -> Any:
    return member._value_


def _datetime(value: dt.datetime) -> Any:
    if type(value) is not dt.datetime:
        value = dt.datetime.combine(_exact_date(value), value.timetz())
    return msgspec.to_builtins(value)


def _exact_date(value: dt.date) -> dt.date:
    return dt.date(value.year, value.month, value.day)


def _date(value: dt.date) -> Any:
    return msgspec.to_builtins(_exact_date(value))


def _time(value: dt.time) -> Any:
    if type(value) is not dt.time:
        value = dt.time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)
    return msgspec.to_builtins(value)


def _duration(value: dt.timedelta) -> Any:
    return msgspec.to_builtins(dt.timedelta(value.days, value.seconds, value.microseconds))


_PLANS: dict[type, DumpPlan] = {
    dt.datetime: ("datetime", _datetime),
    dt.date: ("text", _date),
    dt.time: ("text", _time),
    dt.timedelta: ("duration", _duration),
    decimal.Decimal: ("decimal", decimal.Decimal.__str__),
    uuid.UUID: ("text", msgspec.to_builtins),
    set: ("value", list),
    frozenset: ("value", list),
}
"""Of each class and what derives from it; a ``datetime`` is a ``date``, too."""


def _plan_of_struct(cls: type[msgspec.Struct]) -> DumpPlan:
    config = cls.__struct_config__
    names = cls.__struct_fields__
    if config.array_like:
        head = [] if config.tag is None else [config.tag]
        return "value", lambda struct: head + [getattr(struct, name) for name in names]
    tag: list[tuple[str, Any]] = [] if config.tag is None else [(str(config.tag_field), config.tag)]
    keys = cls.__struct_encode_fields__
    if not config.omit_defaults:
        plain = tuple(zip(keys, names, strict=True))
        return "pairs", lambda struct: tag + _set_pairs((key, getattr(struct, name)) for key, name in plain)
    tested = tuple(zip(keys, names, map(_is_unlike, _defaults_of(cls)), strict=True))

    def pairs(struct: msgspec.Struct) -> list[tuple[str, Any]]:
        values = ((key, getattr(struct, name), is_unlike) for key, name, is_unlike in tested)
        return tag + _set_pairs((key, value) for key, value, is_unlike in values if is_unlike(value))

    return "pairs", pairs


def _set_pairs(pairs: Any) -> list[tuple[str, Any]]:
    return [pair for pair in pairs if pair[1] is not UNSET]


def _defaults_of(cls: type[msgspec.Struct]) -> list[Any]:
    """The default of each field; those of the first fields may be missing."""
    defaults = cls.__struct_defaults__
    return [msgspec.NODEFAULT] * (len(cls.__struct_fields__) - len(defaults)) + list(defaults)


def _is_unlike(default: Any) -> Callable[[Any], bool]:
    """Whether a value is not what ``omit_defaults`` leaves out: the very default, or an empty container of its kind."""
    factory = getattr(default, "factory", None) if type(default).__name__ == "Factory" else None
    if factory in (list, dict, set):
        return lambda value: type(value) is not factory or len(value) > 0
    return lambda value: value is not default


def _fields_of(cls: Any) -> Callable[[Any], list[tuple[str, Any]]]:
    """Fields of a dataclass; those that were never set, or set to ``UNSET``, are left out."""
    names = [field.name for field in fields(cls)]
    return lambda instance: _set_pairs((name, getattr(instance, name, UNSET)) for name in names)


def _attrs_fields(instance: Any) -> list[tuple[str, Any]]:
    """Attributes of an attrs class, without those that are private."""
    names = dict.fromkeys(attribute.name for attribute in type(instance).__attrs_attrs__)
    names |= dict.fromkeys(getattr(instance, "__dict__", ()))
    return _set_pairs((name, getattr(instance, name, UNSET)) for name in names if not name.startswith("_"))
