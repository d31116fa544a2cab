"""The encoder against ``json`` and ``msgpack``: the same bytes for what they take, one error for what it refuses."""

import array
import collections
import datetime as dt
import enum
import json
import math
import pickle
import sys
from typing import Any, NamedTuple

import msgpack
import pytest
from fanwire import errors
from fanwire._engine import Encoder, encode_json, encode_msgpack
from hypothesis import given
from hypothesis import strategies as st

DEPTH_MAX = 128
json_alone = Encoder(msgpack=False).json

text = st.text(st.characters(exclude_categories=["Cs"]))
finite = st.floats(allow_nan=False, allow_infinity=False)
int64 = st.integers(-(2**63), 2**64 - 1)
short = st.floats(-1e12, 1e12).map(lambda value: round(value, 3))
"""Numbers that ``json`` and we write alike; for keys, which are names."""
json_keys = text | st.integers() | short | st.booleans() | st.none()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | text,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(json_keys, inner),
    max_leaves=30,
)
msgpack_scalars = st.none() | st.booleans() | int64 | finite | text | st.binary()
msgpack_values = st.recursive(
    msgpack_scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(msgpack_scalars, inner),
    max_leaves=30,
)


class Colour(enum.IntEnum):
    RED = 3


class Side(enum.StrEnum):
    HOME = "home"


class Pair(enum.Enum):
    ONE = (1, 2)


class Score(NamedTuple):
    home: int
    away: int


class Shout(str):
    def __str__(self) -> str:
        raise AssertionError("not to be called")

    __repr__ = __str__


class Big(int):
    def __str__(self) -> str:
        raise AssertionError("not to be called")

    __repr__ = __index__ = __int__ = __str__  # type: ignore[assignment]


class Ratio(float):
    def __repr__(self) -> str:
        raise AssertionError("not to be called")

    __str__ = __float__ = __repr__  # type: ignore[assignment]


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def nested(depth: int, container: type) -> Any:
    value: Any = container()
    for _ in range(depth - 1):
        value = container({"a": value}) if issubclass(container, dict) else container([value])
    return value


# JSON


@given(json_values)
@pytest.mark.slow
def test_json_reads_back_as_that_of_json_does(value: Any) -> None:
    assert json.loads(json_alone(value)) == json.loads(json.dumps(value))


@given(
    st.recursive(st.integers() | text | st.none(), lambda inner: st.lists(inner) | st.dictionaries(json_keys, inner))
)
@pytest.mark.slow
def test_json_without_floats_is_byte_for_byte_that_of_json(value: Any) -> None:
    assert json_alone(value) == compact(value)


@given(finite)
def test_json_float_has_the_digits_of_repr(value: float) -> None:
    encoded = encode_json(value).decode()
    assert float(encoded) == value
    assert math.copysign(1, float(encoded)) == math.copysign(1, value)
    assert len(encoded) <= max(len(repr(value)), 3) + 3  # ryu writes 0.00001 for 1e-05
    if 1e-3 <= abs(value) < 1e15 or value == 0:
        assert encoded == repr(value)


@given(st.integers(-(10**14), 10**14), st.integers(0, 4))
def test_json_price_has_the_digits_of_repr(digits: int, places: int) -> None:
    value = digits / 10**places
    if abs(value) >= 1e-4 or value == 0:
        assert encode_json(value) == repr(value).encode()


@pytest.mark.parametrize("char", [*map(chr, range(0x80)), "é", "€", "😀", "\u2028"])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 7, 8, 12, 15, 16, 17, 31, 32, 33, 100])
def test_json_escapes_a_character_at_every_place(char: str, length: int) -> None:
    for at in {0, length // 2, max(length - 1, 0), length}:
        value = "x" * at + char + "y" * (length - at)
        assert encode_json(value) == compact(value)
        assert encode_json({value: value}) == compact({value: value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, b"3"),
        (Side.HOME, b'"home"'),
        (Score(1, 2), b"[1,2]"),
        (Shout("a\n"), b'"a\\n"'),
        (Big(7), b"7"),
        (Big(2**70), str(2**70).encode()),
        (Ratio(1.5), b"1.5"),
        (True, b"true"),
        ({Colour.RED: Side.HOME, Side.HOME: Score(0, 0)}, b'{"3":"home","home":[0,0]}'),
        (collections.defaultdict(int, a=1), b'{"a":1}'),
        (collections.Counter("aab"), b'{"a":2,"b":1}'),
        (type("L", (list,), {})([1, [2]]), b"[1,[2]]"),
        (-0.0, b"-0.0"),
        (-12.5, b"-12.5"),
        (5e-324, b"5e-324"),
        (1.7976931348623157e308, b"1.7976931348623157e308"),
        (2**63, b"9223372036854775808"),
        (-(2**63) - 1, b"-9223372036854775809"),
        ({}, b"{}"),
        ((), b"[]"),
        ("", b'""'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_of_derived_classes_and_corners(value: Any, expected: bytes) -> None:
    assert json_alone(value) == expected


def test_json_keys_are_coerced_as_json_does_and_may_collide() -> None:
    value = {1: "a", "1": "b", True and 2: "c", None: 1, 0.5: 4, -(2**70): 5, False: 6}
    assert json_alone(value) == compact(value)
    assert encode_json({Ratio(2.5): 7}) == b'{"2.5":7}'
    assert encode_json({1e16: 2, 1e-5: 3}) == b'{"1e16":2,"0.00001":3}'
    assert encode_json({1: 0, "1": 0}) == b'{"1":0,"1":0}'


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack])
def test_ordered_dict_keeps_its_own_order(encode: Any) -> None:
    value = collections.OrderedDict(a=1, b=2)
    value.move_to_end("a")
    assert encode(value) == encode({"b": 2, "a": 1})


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack, json_alone])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(encode: Any, value: float) -> None:
    with pytest.raises(errors.UnsupportedValue) as raised:
        encode([0, {"price": value}])
    assert str(raised.value) == f"float {value} is not JSON serializable (at $[1].price)"
    assert raised.value.path == "$[1].price"
    with pytest.raises(errors.UnsupportedValue, match=r"\(at \$\)"):
        encode({value: 1})


@pytest.mark.parametrize(
    ("value", "name", "path"),
    [
        ({"odds": [0, 1, 2, {"since": iter(())}]}, "tuple_iterator", "$.odds[3].since"),
        (NotImplemented, "NotImplementedType", "$"),
        ({"a b": (object(),)}, "object", '$["a b"][0]'),
        ({"é": {1: collections.deque()}}, "deque", '$["é"]["1"]'),
        ({1: {None: 1j}}, "complex", '$["1"].null'),
        ({5: {-3: {True: {b"k": {dt.date(2026, 1, 1): object}}}}}, "type", '$["5"]["-3"].true["aw=="]["2026-01-01"]'),
        (collections.OrderedDict(a={"_b2": range(3)}), "range", "$.a._b2"),
        ({"k" * 100: object}, "type", '$["' + "k" * 64 + '…"]'),
    ],
)
@pytest.mark.parametrize("encode", [encode_json, encode_msgpack, json_alone])
def test_a_type_is_refused_and_the_error_says_where(encode: Any, value: Any, name: str, path: str) -> None:
    with pytest.raises(errors.UnsupportedType) as raised:
        encode(value)
    assert str(raised.value) == f"Object of type {name} is not JSON serializable (at {path})"
    assert raised.value.path == path
    assert isinstance(raised.value, TypeError)


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack, json_alone])
@pytest.mark.parametrize("key", [(1, 2), frozenset(), Score(1, 2), Pair.ONE])
def test_a_key_without_a_text_is_refused(encode: Any, key: Any) -> None:
    with pytest.raises(errors.UnsupportedType) as raised:
        encode({"a": [{key: 1}]})
    assert str(raised.value) == f"a key of type {type(key).__name__} has no text in JSON (at $.a[0])"


def test_json_refuses_an_int_of_more_digits_than_python_prints() -> None:
    before = sys.get_int_max_str_digits()
    assert json_alone(10**4299) == str(10**4299).encode()
    with pytest.raises(errors.UnsupportedValue, match=r"4300.*\(at \$\.n\)"):
        json_alone({"n": 10**5000})
    with pytest.raises(errors.UnsupportedValue, match="4300"):
        json_alone({10**5000: 1})
    sys.set_int_max_str_digits(0)
    try:
        assert json_alone(10**5000) == b"1" + b"0" * 5000
        assert json_alone({10**30000: [10**30000]}) == b'{"1%b":[1%b]}' % (b"0" * 30000, b"0" * 30000)
    finally:
        sys.set_int_max_str_digits(before)


# MessagePack


@given(msgpack_values)
def test_msgpack_is_byte_for_byte_that_of_msgpack(value: Any) -> None:
    assert encode_msgpack(value) == msgpack.packb(value, use_bin_type=True)


@given(st.recursive(st.none() | int64 | text | st.binary(), lambda v: st.lists(v) | st.dictionaries(text, v)))
def test_msgpack_reads_back(value: Any) -> None:
    assert msgpack.unpackb(encode_msgpack(value)) == value


@pytest.mark.parametrize("bits", range(65))
def test_msgpack_int_has_the_smallest_form(bits: int) -> None:
    for value in {2**bits + off for off in (-1, 0, 1)} | {-(2**bits) + off for off in (-1, 0, 1)}:
        if -(2**63) <= value < 2**64:
            assert encode_msgpack(value) == msgpack.packb(value)
            assert encode_msgpack(Big(value)) == msgpack.packb(value)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_msgpack_length_has_the_smallest_form(count: int) -> None:
    for value in ("x" * count, b"x" * count, [None] * count, dict.fromkeys(range(count)), bytearray(count)):
        assert encode_msgpack(value) == msgpack.packb(value)


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (Colour.RED, 3),
        (Side.HOME, "home"),
        (Score(1, 2), [1, 2]),
        (Ratio(1.5), 1.5),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(array.array("i", [1, 2])), array.array("i", [1, 2]).tobytes()),
        (type("B", (bytes,), {})(b"ab"), b"ab"),
        ({2.5: 2, None: 3, b"b": 4}, {2.5: 2, None: 3, b"b": 4}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_msgpack_of_derived_classes_and_buffers(value: Any, same: Any) -> None:
    assert encode_msgpack(value) == msgpack.packb(same)


@given(st.datetimes(timezones=st.timezones() | st.just(dt.UTC)))
def test_msgpack_aware_datetime_is_a_timestamp(value: dt.datetime) -> None:
    assert encode_msgpack([value]) == msgpack.packb([value], datetime=True)


def test_msgpack_datetime_at_the_bounds_of_its_three_forms() -> None:
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    for seconds in (-1, 0, 2**32 - 1, 2**32, 2**34 - 1, 2**34):
        for microseconds in (0, 1, 999_999):
            value = epoch + dt.timedelta(seconds=seconds, microseconds=microseconds)
            assert encode_msgpack(value) == msgpack.packb(value, datetime=True)


def test_what_a_tzinfo_raises_is_passed_on_and_says_where_raises() -> None:
    class Broken(dt.tzinfo):
        def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
            raise LookupError("no such zone")

    for encode in encode_json, encode_msgpack:
        with pytest.raises(LookupError, match="no such zone") as raised:
            encode({"at": [dt.datetime(2026, 1, 1, tzinfo=Broken())]})
        assert raised.value.__notes__ == ["raised while $.at[0] was encoded"]


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack])
@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**5000], ids=["over", "under", "huge"])
def test_an_int_beyond_64_bits_is_refused(encode: Any, value: int) -> None:
    with pytest.raises(errors.UnsupportedValue) as raised:
        encode({"n": [value]})
    expected = 'int is outside MessagePack\'s -2**63 to 2**64 - 1, which Hub(formats=("json",)) lifts (at $.n[0])'
    assert str(raised.value) == expected


def test_a_released_memoryview_is_refused() -> None:
    view = memoryview(b"x")
    view.release()
    for encode in encode_json, encode_msgpack:
        with pytest.raises(errors.UnsupportedValue, match="released"):
            encode([view])


# Both


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack])
@pytest.mark.parametrize("value", ["\ud800", "aé\udfff", Shout("\udc80")], ids=["first", "last", "derived"])
def test_lone_surrogate_is_refused(encode: Any, value: str) -> None:
    with pytest.raises(errors.UnsupportedValue) as raised:
        encode({"name": [value]})
    assert str(raised.value) == f"str has a lone surrogate at index {len(value) - 1} (at $.name[0])"
    with pytest.raises(errors.UnsupportedValue, match=r"surrogate.*\(at \$\.a\)"):
        encode({"a": {value: 1}})


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack])
@pytest.mark.parametrize("container", [list, tuple, dict, collections.OrderedDict])
def test_nesting_ends_at_128(encode: Any, container: type) -> None:
    assert encode(nested(DEPTH_MAX, container))
    with pytest.raises(errors.UnsupportedValue, match=r"^nesting exceeds 128 \(at \$.*…"):
        encode(nested(DEPTH_MAX + 1, container))


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack])
def test_circle_is_refused(encode: Any) -> None:
    circle: list[Any] = [1]
    circle.append({"again": circle})
    with pytest.raises(errors.UnsupportedValue, match="nesting exceeds 128"):
        encode(circle)


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack])
@pytest.mark.parametrize("outer", [list, dict])
def test_container_that_changes_meanwhile_is_refused(encode: Any, outer: type) -> None:
    holder: Any = outer()

    class Clearing(dict[str, int]):
        def items(self) -> Any:
            holder.clear()
            return super().items()

    if outer is list:
        holder.extend([Clearing(a=1), *(object() for _ in range(50))])
    else:
        holder.update({str(i): [i] for i in range(3)} | {"x": Clearing(a=1), "y": [object()]})
        holder.pop("0")
    with pytest.raises(errors.UnsupportedValue, match=r"changed its size while it was encoded"):
        encode(holder)


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack])
def test_dict_that_grows_meanwhile_ends(encode: Any) -> None:
    holder: dict[str, Any] = {}

    class Growing(dict[str, int]):
        def items(self) -> Any:
            holder[str(len(holder))] = self
            return super().items()

    holder["x"] = Growing(a=1)
    with pytest.raises(errors.UnsupportedValue, match="dict changed its size"):
        encode(holder)


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack])
def test_items_of_a_derived_dict_may_misbehave(encode: Any) -> None:
    def derived(items: Any) -> Any:
        return type("D", (dict,), {"items": items})(a=1)

    with pytest.raises(errors.UnsupportedValue, match=r"items\(\) of D gives no pairs \(at \$\[0\]\)"):
        encode([derived(lambda self: [1, 2])])
    with pytest.raises(ZeroDivisionError):
        encode(derived(lambda self: 1 // 0))
    with pytest.raises(TypeError):
        encode(derived(lambda self: 5))
    assert encode(derived(lambda self: [("b", 2)])) == encode({"b": 2})


def test_refcounts_stay() -> None:
    inner = [1.5, "é", {"k": (None, 2**80)}]
    value = {"a": inner, 5: inner, "o": collections.OrderedDict(x=inner)}
    before = sys.getrefcount(inner)
    for _ in range(100):
        json_alone(value)
        with pytest.raises(errors.UnsupportedValue):
            encode_msgpack(value)
    assert sys.getrefcount(inner) == before


# errors.py


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.HubStopped(), "the hub is stopped"),
        (errors.ListenFailed(98, "Address in use", "[::1]:80"), "cannot listen on [::1]:80: Address in use (errno 98)"),
        (errors.ListenFailed(0, "no such name", "x:80"), "cannot listen on x:80: no such name"),
        (errors.ConfigError("is 41", file="f.toml", line=3, key="shards"), "f.toml:3: shards is 41"),
        (errors.ConfigError("is unknown", key="shard"), "shard is unknown"),
        (errors.InvalidChannel("a\n", "has a control character"), "channel 'a\\n': has a control character"),
        (errors.PayloadTooBig(11, 10, "outbox_bytes_max"), "payload of 11 bytes is over outbox_bytes_max, which is 10"),
        (errors.LimitReached("channels_max", 11, 10), "channels_max: 11 is over the bound of 10"),
        (errors.UnsupportedType("Object of type X", "$.a"), "Object of type X (at $.a)"),
        (errors.UnsupportedValue("nan"), "nan (at $)"),
        (errors.ClientGone(1001, "bye", "client"), "closed by client with 1001 (bye)"),
        (errors.CallFailed("no such method"), "no such method"),
        (errors.Refused("no such user", status=403), "no such user"),
    ],
)
def test_error_says_it_and_survives_pickling(error: errors.FanwireError, message: str) -> None:
    assert str(error) == message
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), message, vars(error))


def test_error_classes_keep_old_excepts_working() -> None:
    for error, base in {
        errors.HubStopped: RuntimeError,
        errors.ListenFailed: OSError,
        errors.ConfigError: ValueError,
        errors.InvalidChannel: ValueError,
        errors.PayloadTooBig: ValueError,
        errors.UnsupportedType: TypeError,
        errors.UnsupportedValue: ValueError,
    }.items():
        assert issubclass(error, base)
        assert issubclass(error, errors.FanwireError)
    assert errors.ListenFailed(98, "in use", "x").errno == 98


def test_refused_answers_401_unless_told_otherwise() -> None:
    assert errors.Refused("no such user").status == 401
    with pytest.raises(ValueError, match="status must be a whole number, 400 to 599, not 200"):
        errors.Refused("x", status=200)
