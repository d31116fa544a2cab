"""An object as JSON: what the compiled engine writes of it, and what it refuses, with the same words.

The forms are those of ``fanwire.dumps``. MessagePack goes to none of those that are attached, so that it is not
written; what it cannot hold is refused all the same where it is one of the hub's formats.
"""

import enum
from base64 import b64encode
from collections.abc import Callable, Iterable
from math import isfinite, isnan
from typing import Any

import msgspec
from fanwire.dumps import model_value, plan_of
from fanwire.errors import EncodeError, UnsupportedType, UnsupportedValue

from .missing import missing

DEPTH_MAX = 128
STEPS_SHOWN = 8
KEY_CHARS_SHOWN = 64
INT_OUT_OF_RANGE = 'int is outside MessagePack\'s -2**63 to 2**64 - 1, which Hub(formats=("json",)) lifts'
_text = msgspec.json.Encoder().encode


class Encoder:
    """How a hub writes objects: the options ``encode``, ``formats``, ``decimal`` and ``duration``."""

    __slots__ = ("decimal", "duration", "has_msgpack", "hook")

    def __init__(
        self,
        *,
        hook: Callable[[Any], Any] | None = None,
        msgpack: bool = True,
        decimal: str | None = None,
        duration: str | None = None,
    ) -> None:
        self.hook, self.has_msgpack = hook, msgpack
        self.decimal = _one_of("decimal", decimal, "number", "string")
        self.duration = _one_of("duration", duration, "dotnet", "iso8601")

    def json(self, data: Any, *, hub: bool = False) -> bytes:
        """`data` as JSON; with `hub` as SignalR's clients get it. Raises UnsupportedType, UnsupportedValue."""
        writer = _Writer(self, hub)
        writer.value(data, 0)
        return b"".join(writer.out)

    def msgpack(self, data: Any, *, hub: bool = False) -> bytes:
        """Raises EngineMissing, and for what cannot be published what ``json`` raises."""
        self.json(data, hub=hub)
        missing("MessagePack")


def _one_of(name: str, value: str | None, one: str, other: str) -> str | None:
    if value not in (None, one, other):
        raise ValueError(f'{name} is "{value}", must be {one!r}, {other!r} or None')
    return value


class Arguments:
    """Several arguments for ``publish`` and ``send``: to SignalR clients as such, to others an array."""

    __module__ = "fanwire"
    __slots__ = ("items",)
    items: tuple[Any, ...]

    def __new__(cls, *items: Any) -> "Arguments":
        """Keeps the items as they are."""
        self = super().__new__(cls)
        self.items = items
        return self

    def __repr__(self) -> str:
        return f"Arguments{self.items!r}"


class _Writer:
    """One walk over one object."""

    def __init__(self, encoder: Encoder, is_hub: bool) -> None:
        self.out: list[bytes] = []
        self._encoder = encoder
        self._writes_numbers = (encoder.decimal or ("number" if is_hub else "string")) == "number"
        self._writes_dotnet = (encoder.duration or ("dotnet" if is_hub else "iso8601")) == "dotnet"
        self._is_in_model = False
        self._steps: list[str] = []

    def value(self, value: Any, depth: int) -> None:
        kind = _kind(value)
        if kind is dict:
            self._dict(value, depth + 1)
        elif kind is list:
            self._list(value, depth + 1)
        elif kind is None:
            self._other(value, depth)
        else:
            self.out.append(self._scalar(value, kind))

    def _list(self, items: list[Any] | tuple[Any, ...], depth: int) -> None:
        self._deeper(depth)
        self.out.append(b"[")
        is_list, count = isinstance(items, list), len(items)
        for index in range(count):
            self.out.append(b"," if index else b"")
            self._steps.append(f"[{index}]")
            try:
                item = list.__getitem__(items, index) if isinstance(items, list) else tuple.__getitem__(items, index)
            except IndexError:
                break
            self.value(item, depth)
            self._steps.pop()
        if is_list and len(items) != count:
            raise self._fault(UnsupportedValue, "list changed its size while it was encoded")
        self.out.append(b"]")

    def _dict(self, pairs: dict[Any, Any], depth: int) -> None:
        if type(pairs) is not dict:
            self._pairs(pairs, list(pairs.items()), depth)
            return
        place = len(self._steps)
        try:
            self._pairs(pairs, pairs.items(), depth)
        except RuntimeError as error:
            if "during iteration" not in str(error):
                raise
            del self._steps[place:]
            raise self._fault(UnsupportedValue, "dict changed its size while it was encoded") from None

    def _scalar(self, value: Any, kind: type) -> bytes:
        if kind is str:
            return self._quoted(value)
        if kind is bool:
            return b"true" if value else b"false"
        if kind is type(None):
            return b"null"
        if kind is bytes:
            try:
                return b'"' + b64encode(value if isinstance(value, bytes) else _bytes_of(value)) + b'"'
            except ValueError as error:  # a memoryview that was released
                raise self._fault(UnsupportedValue, str(error)) from None
        if kind is float:
            if not isfinite(value):
                name = "nan" if isnan(value) else "inf" if value > 0 else "-inf"
                raise self._fault(UnsupportedValue, f"float {name} is not JSON serializable")
            return _text(float.__float__(value))
        if self._encoder.has_msgpack and not -(1 << 63) <= value < 1 << 64:
            raise self._fault(UnsupportedValue, INT_OUT_OF_RANGE)
        try:
            return int.__repr__(value).encode()
        except ValueError as error:
            raise self._fault(UnsupportedValue, str(error)) from None

    def _quoted(self, text: str) -> bytes:
        try:
            return _text(str(text) if type(text) is str else str.__str__(text))
        except UnicodeEncodeError as error:
            raise self._fault(UnsupportedValue, f"str has a lone surrogate at index {error.start}") from None

    def _pairs(self, object: Any, pairs: Iterable[Any], depth: int) -> None:
        self._deeper(depth)
        self.out.append(b"{")
        for index, pair in enumerate(pairs):
            if not isinstance(pair, tuple) or len(pair) != 2:
                text = f"items() of {type(object).__name__} gives no pairs"
                raise self._fault(UnsupportedValue, text)
            key = self._key(pair[0], depth)
            self.out += [b"," if index else b"", key, b":"]
            self._steps.append(_step(key[1:-1].decode()))
            self.value(pair[1], depth)
            self._steps.pop()
        self.out.append(b"}")

    def _key(self, key: Any, depth: int) -> bytes:
        """A key, in quotes."""
        kind = _kind(key)
        if kind in (dict, list):
            raise self._no_key(key)
        if kind is not None:
            text = self._scalar(key, kind)
            return text if text.startswith(b'"') else b'"' + text + b'"'
        way, value = self._lower(key)
        if way in ("model", "pairs"):
            raise self._no_key(key)
        if way == "value":
            self._deeper(depth + 1)
            if _kind(value) in (dict, list):
                raise self._no_key(key)
            return self._key(value, depth + 1)
        return self._quoted(value)

    def _no_key(self, key: Any) -> EncodeError:
        return self._fault(UnsupportedType, f"a key of type {type(key).__name__} has no text in JSON")

    def _other(self, value: Any, depth: int) -> None:
        way, lowered = self._lower(value)
        if way == "pairs":
            self._pairs(value, lowered, depth + 1)
        elif way in ("value", "model"):
            self._deeper(depth + 1)
            before, self._is_in_model = self._is_in_model, self._is_in_model or way == "model"
            self.value(lowered, depth + 1)
            self._is_in_model = before
        elif way == "decimal" and self._writes_numbers:
            self.out.append(lowered.encode())
        else:
            self.out.append(self._quoted(lowered))

    def _lower(self, value: Any) -> tuple[str, Any]:
        """What stands for an object, and how that is written."""
        way, function = plan_of(type(value))
        if function is None:
            return "value", self._ask_hook(value)
        try:
            lowered = function(value)
        except Exception as error:
            raise self._noted(error) from None
        if way == "decimal" and not lowered.removeprefix("-")[:1].isdigit():
            raise self._fault(UnsupportedValue, f"Decimal {lowered} is not JSON serializable")
        if way == "duration":
            return "text", self._duration(value, lowered)
        return ("text", lowered) if way == "datetime" else (way, lowered)

    def _ask_hook(self, value: Any) -> Any:
        if self._is_in_model:
            lowered = model_value(value)
            if lowered is not NotImplemented:
                return lowered
        if self._encoder.hook is not None:
            try:
                return self._encoder.hook(value)
            except NotImplementedError:
                pass
            except Exception as error:
                raise self._noted(error) from None
        raise self._fault(UnsupportedType, f"Object of type {type(value).__name__} is not JSON serializable")

    def _duration(self, value: Any, iso8601: str) -> str:
        ticks = (value.days * 86_400 + value.seconds) * 10_000_000 + value.microseconds * 10
        if not -(1 << 63) <= ticks < 1 << 63 and self._encoder.duration != "iso8601":
            text = 'timedelta is outside .NET\'s TimeSpan, which Hub(duration="iso8601") lifts'
            raise self._fault(UnsupportedValue, text)
        if not self._writes_dotnet:
            return iso8601
        seconds, rest = divmod(abs(ticks), 10_000_000)
        days, seconds = divmod(seconds, 86_400)
        whole = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        sign, fraction = "-" * (ticks < 0), f".{rest:07}" * (rest > 0)
        return f"{sign}{f'{days}.' * (days > 0)}{whole}{fraction}"

    def _deeper(self, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise self._fault(UnsupportedValue, f"nesting exceeds {DEPTH_MAX}")

    def _path(self) -> str:
        steps = self._steps
        if len(steps) > 2 * STEPS_SHOWN:
            steps = [*steps[:STEPS_SHOWN], "…", *steps[-STEPS_SHOWN:]]
        return "".join(("$", *steps))

    def _fault(self, kind: type[EncodeError], text: str) -> EncodeError:
        return kind(text, self._path())

    def _noted(self, error: Exception) -> Exception:
        error.add_note(f"raised while {self._path()} was encoded")
        return error


def _kind(value: Any) -> Any:
    """str, int, float, bool, dict, list, bytes or None's class; None where the class says what stands for it."""
    kind = type(value)
    if kind in (str, int, float, bool, dict, list, bytes, type(None)):
        return kind
    if issubclass(kind, enum.Enum):
        return None
    for base in (tuple, str, int, dict, list, bytes, float, bytearray, memoryview):
        if issubclass(kind, base):
            return WRITTEN_AS.get(base, base)
    return None


WRITTEN_AS: dict[Any, type] = {tuple: list, bytearray: bytes, memoryview: bytes}


def _bytes_of(value: bytearray | memoryview) -> bytes:
    return value.tobytes() if isinstance(value, memoryview) else bytes(value)


def _step(key: str) -> str:
    is_plain = len(key) <= KEY_CHARS_SHOWN and key.isascii() and key.isidentifier()
    if is_plain:
        return f".{key}"
    return f'["{key[:KEY_CHARS_SHOWN]}{"…" * (len(key) > KEY_CHARS_SHOWN)}"]'


DEFAULT = Encoder()


def encode_json(data: Any) -> bytes:
    """JSON of `data` as UTF-8, as ``publish`` of a hub without options sends it. Raises what ``publish`` raises."""
    return DEFAULT.json(data)


def encode_msgpack(data: Any) -> bytes:
    """Raises EngineMissing, and for what cannot be published what ``encode_json`` raises."""
    return DEFAULT.msgpack(data)


def read(data: Any) -> str | bytes | None:
    """`data` that goes out as it is; None for what is to be written as JSON.

    Raises UnsupportedValue for a lone surrogate.
    """
    if isinstance(data, str):
        _Writer(DEFAULT, False)._quoted(data)
        return data
    if isinstance(data, bytes):
        return data
    if isinstance(data, dict | list | int | float | None):
        return None
    try:
        view = memoryview(data)
    except TypeError:
        return None
    return view.tobytes()
