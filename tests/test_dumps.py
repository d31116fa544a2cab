"""What objects are written as: msgspec's forms in both formats, pydantic's own dump, the hub's hook, .NET's forms."""

import collections
import datetime as dt
import decimal
import enum
import json
import math
import re
import uuid
from dataclasses import InitVar, dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypedDict

import attrs
import msgpack
import msgspec
import pydantic
import pytest
from fanwire import Hub, errors
from fanwire._engine import Encoder, encode_json, encode_msgpack
from hypothesis import given
from hypothesis import strategies as st


class Side(enum.Enum):
    HOME = "home"
    AWAY = 2
    BOTH = (1, 2)
    NONE = None


class Name(str, enum.Enum):  # noqa: UP042 the older way is still written
    ANN = "ann"


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Score(NamedTuple):
    home: int
    away: Any


class Row(TypedDict):
    at: dt.datetime


@dataclass
class Plain:
    a: Any
    _b: Any = 2
    c: ClassVar[int] = 3
    d: InitVar[int] = 4
    e: Any = msgspec.UNSET
    f: int = field(default_factory=lambda: 9, init=False)


@dataclass
class WithDefault:
    a: int = field(default=9, init=False)


@dataclass(slots=True)
class Slotted:
    a: Any
    _b: Any = 2


@attrs.define
class Attrs:
    a: Any
    _b: Any = 2
    c: Any = msgspec.UNSET


@attrs.define(slots=False)
class AttrsWithDict:
    a: Any


class Struct(msgspec.Struct):
    a: Any
    b: Any = msgspec.UNSET


class Renamed(msgspec.Struct, rename="camel", tag="kind", omit_defaults=True):
    one_two: Any
    three: list[Any] = []
    four: Any = None
    five: dict[str, Any] = msgspec.field(default_factory=dict)
    six: Any = msgspec.field(name="SIX", default=1)


class Listed(msgspec.Struct, array_like=True, tag=3, omit_defaults=True):
    a: Any
    b: Any = 1


TIMESPAN_MAX = dt.timedelta(microseconds=(2**63 - 1) // 10)
timespans = st.timedeltas(-TIMESPAN_MAX, TIMESPAN_MAX)
text = st.text(st.characters(exclude_categories=["Cs"]))
int64 = st.integers(-(2**63), 2**64 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
offsets = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
zones = st.none() | st.just(dt.UTC) | st.timezones() | offsets
times = st.times(timezones=st.none() | st.just(dt.UTC) | offsets)
days = st.datetimes(timezones=zones)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
named = days | st.dates() | times | timespans | decimals | st.uuids() | st.sampled_from([Side.HOME, Name.ANN])
scalars = (
    st.none() | st.booleans() | int64 | finite | text | st.binary() | named
    | st.sampled_from([*Side, *Level, Level.LOW | Level.HIGH])
    | st.binary().map(bytearray) | st.binary().map(memoryview)
)  # fmt: skip
keys = text | int64 | st.floats(1e-3, 1e15) | named | st.binary()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.frozensets(named)
        | st.sets(int64)
        | st.builds(Score, int64, inner)
        | st.builds(Plain, inner)
        | st.builds(Slotted, inner)
        | st.builds(Attrs, inner)
        | st.builds(AttrsWithDict, inner)
        | st.builds(Struct, inner)
        | st.builds(Renamed, inner, st.lists(inner), inner, st.dictionaries(text, inner))
        | st.builds(Listed, inner)
        | st.builds(collections.OrderedDict, st.dictionaries(text, inner))
    ),
    max_leaves=10,
)


@given(values)
def test_json_is_byte_for_byte_that_of_msgspec(value: Any) -> None:
    encoded = encode_json(value)
    if b"e" not in msgspec.json.encode(value):  # 1e300 has more than one shortest form
        assert encoded == msgspec.json.encode(value)
    assert json.loads(encoded) == json.loads(msgspec.json.encode(value))


@given(values)
def test_msgpack_is_what_msgspec_writes(value: Any) -> None:
    read = msgspec.msgpack.Decoder(strict=False).decode
    assert read(encode_msgpack(value)) == read(msgspec.msgpack.encode(value))


@pytest.mark.parametrize(
    "value",
    [
        Row(at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        dt.datetime(2026, 1, 1, 1, 2, 3, 4500, tzinfo=dt.timezone(dt.timedelta(seconds=9031))),
        dt.datetime(1, 1, 1, tzinfo=dt.UTC),
        dt.datetime.max,
        dt.timedelta(0),
        -dt.timedelta(microseconds=1),
        uuid.UUID(int=2**127),
        decimal.Decimal("-1E+5"),
        Plain([Side.BOTH, {Level.HIGH: Listed(1)}]),
        Renamed(1, six=Renamed(2)),
        {Name.ANN: Side.NONE},
        {Side.HOME},
    ],
    ids=repr,
)
def test_corners_are_those_of_msgspec(value: Any) -> None:
    assert encode_json(value) == msgspec.json.encode(value)
    assert encode_msgpack(value) == msgspec.msgpack.encode(value)


def test_what_was_never_set_is_left_out() -> None:
    value = Plain(1)
    del value.a
    assert encode_json([value]) == msgspec.json.encode([value]) == b'[{"_b":2,"f":9}]'
    with_default = WithDefault()  # of which msgspec leaves the field out, and dataclasses.asdict does not
    assert encode_json(with_default) == b'{"a":9}'
    with_more = AttrsWithDict(1)
    with_more.more = 2  # type: ignore[attr-defined]
    assert encode_json(with_more) == msgspec.json.encode(with_more) == b'{"a":1,"more":2}'


def test_what_derives_from_a_type_is_written_as_that() -> None:
    class Datetime(dt.datetime):
        """As freezegun and pendulum have one."""

    class Amount(decimal.Decimal):
        def __str__(self) -> str:
            raise AssertionError("not to be called")

    class Pause(dt.timedelta):
        pass

    at = Datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert encode_json([at, Amount("1.5"), Pause(seconds=2)]) == b'["2026-01-02T03:04:05Z","1.5","PT2S"]'
    assert encode_msgpack(at) == msgspec.msgpack.encode(dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC))


@pytest.mark.parametrize("value", [decimal.Decimal("NaN"), decimal.Decimal("-Infinity"), decimal.Decimal("sNaN")])
def test_a_decimal_that_is_no_number_is_refused(value: decimal.Decimal) -> None:
    for encode in encode_json, encode_msgpack:
        with pytest.raises(errors.UnsupportedValue, match=rf"Decimal {value} .*\(at \$\.a\)"):
            encode({"a": value})


@pytest.mark.parametrize(
    "value", [msgspec.UNSET, {"a": msgspec.UNSET}, [msgspec.Raw(b"1")], [msgspec.msgpack.Ext(1, b"")], 1j, range(2)]
)
def test_what_one_format_alone_can_hold_is_refused(value: Any) -> None:
    for encode in encode_json, encode_msgpack:
        with pytest.raises(errors.UnsupportedType, match="is not JSON serializable"):
            encode(value)


def test_a_circle_of_objects_is_refused() -> None:
    value = Plain([])
    value.a.append(value)
    with pytest.raises(errors.UnsupportedValue, match=r"^nesting exceeds 128 \(at \$\.a\[0\].*…"):
        encode_json(value)


# pydantic


class Address(pydantic.BaseModel):
    street: str = pydantic.Field(serialization_alias="Street")


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(serialize_by_alias=True)
    born: dt.datetime
    name: str = "ann"
    password: str = pydantic.Field("x", exclude=True)
    homes: list[Address] = []
    owes: decimal.Decimal = decimal.Decimal("1.50")
    secret: pydantic.SecretStr = pydantic.SecretStr("hunter2")
    site: pydantic.AnyUrl = pydantic.AnyUrl("https://a.example/")
    host: IPv4Address = IPv4Address("127.0.0.1")

    @pydantic.field_serializer("name")
    def shout(self, name: str) -> str:
        return name.upper()

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def year(self) -> int:
        return self.born.year


PERSON = Person(born=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), homes=[Address(street="a")])


def test_a_pydantic_model_is_written_by_its_own_dump() -> None:
    assert json.loads(encode_json([PERSON])) == [json.loads(PERSON.model_dump_json())]
    read = msgpack.unpackb(encode_msgpack(PERSON), timestamp=3)
    assert read["born"] == PERSON.born
    assert read["site"] == "https://a.example/"
    assert json.loads(Encoder().json(PERSON, hub=True))["owes"] == 1.5


def test_what_only_a_model_may_hold_is_refused_elsewhere() -> None:
    with pytest.raises(errors.UnsupportedType, match=r"IPv4Address.*\(at \$\[1\]\)"):
        encode_json([PERSON, PERSON.host])


def test_what_a_model_s_dump_holds_is_checked() -> None:
    class Prices(pydantic.BaseModel):
        prices: list[Any]

    for encode in encode_json, encode_msgpack:
        with pytest.raises(errors.UnsupportedValue, match=r"nan.*\(at \$\[0\]\.prices\[1\]\)"):
            encode([Prices(prices=[1, math.nan])])
        with pytest.raises(errors.UnsupportedType, match=r"type object.*\(at \$\[0\]\.prices\[0\]\)"):
            encode([Prices(prices=[object()])])


def test_serializers_of_a_model_that_are_for_json_alone_do_not_run() -> None:
    class Score(pydantic.BaseModel):
        home: int
        away: int

        @pydantic.field_serializer("home", when_used="json")
        def _home(self, value: int) -> str:
            return f"{value} at home"

        @pydantic.field_serializer("away")
        def _away(self, value: int) -> str:
            return f"{value} away"

    score = Score(home=1, away=2)
    assert json.loads(score.model_dump_json()) == {"home": "1 at home", "away": "2 away"}
    assert json.loads(Encoder().json(score)) == {"home": 1, "away": "2 away"}
    assert msgpack.unpackb(Encoder().msgpack(score)) == {"home": 1, "away": "2 away"}


@pydantic.dataclasses.dataclass
class Checked:
    a: int


def test_a_pydantic_dataclass_is_a_dataclass() -> None:
    assert encode_json(Checked(1)) == b'{"a":1}'


# Hub(encode=…)


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


def money(value: object) -> Any:
    if isinstance(value, Money):
        return {"cents": value.cents, "as": decimal.Decimal(value.cents) / 100}
    if isinstance(value, complex):
        raise ZeroDivisionError(value)
    if isinstance(value, range):
        return value
    raise NotImplementedError(f"no form of {value}")


HOOKED = Encoder(hook=money)


def test_the_hook_is_asked_for_what_has_no_form() -> None:
    value = [Money(150), {"m": Money(1)}]
    assert HOOKED.json(value) == msgspec.json.encode(value, enc_hook=money)
    assert HOOKED.msgpack(value) == msgspec.msgpack.encode(value, enc_hook=money)
    assert HOOKED.json(Money(150), hub=True) == b'{"cents":150,"as":1.5}'


def test_what_the_hook_does_not_know_is_refused_and_what_it_raises_passes() -> None:
    for encode in HOOKED.json, HOOKED.msgpack:
        with pytest.raises(errors.UnsupportedType, match=r"Object of type object .*\(at \$\.a\)"):
            encode({"a": object()})
        with pytest.raises(ZeroDivisionError) as raised:
            encode({"a": 1j})
        assert raised.value.__notes__[-1] == "raised while $.a was encoded"
        with pytest.raises(errors.UnsupportedValue, match="nesting exceeds 128"):
            encode(range(3))


# What .NET reads otherwise


def dotnet(duration: dt.timedelta) -> str:
    """The constant format of a TimeSpan."""
    ticks = (duration.days * 86_400 + duration.seconds) * 10**7 + duration.microseconds * 10
    sign, ticks = "-" if ticks < 0 else "", abs(ticks)
    minutes, seconds = divmod(ticks // 10**7, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    rest = f".{ticks % 10**7:07}" if ticks % 10**7 else ""
    return f"{sign}{f'{days}.' if days else ''}{hours:02}:{minutes:02}:{seconds:02}{rest}"


@given(decimals, timespans)
def test_signalr_s_clients_get_what_dotnet_reads(amount: decimal.Decimal, pause: dt.timedelta) -> None:
    text = Encoder().json([amount, pause, {pause: amount}], hub=True).decode()
    assert text == f'[{amount},"{dotnet(pause)}",{{"{dotnet(pause)}":{amount}}}]'
    ticks = (pause.days * 86_400 + pause.seconds) * 10**7 + pause.microseconds * 10
    assert msgpack.unpackb(Encoder().msgpack([amount, pause], hub=True)) == [str(amount), ticks]


@pytest.mark.parametrize(
    ("options", "plain", "hub"),
    [
        ({}, b'["1.5","PT90S"]', b'[1.5,"00:01:30"]'),
        ({"decimal": "string", "duration": "iso8601"}, b'["1.5","PT90S"]', b'["1.5","PT90S"]'),
        ({"decimal": "number", "duration": "dotnet"}, b'[1.5,"00:01:30"]', b'[1.5,"00:01:30"]'),
    ],
)
def test_options_choose_the_forms_for_everyone(options: dict[str, Any], plain: bytes, hub: bytes) -> None:
    value = [decimal.Decimal("1.5"), dt.timedelta(seconds=90)]
    assert Encoder(**options).json(value) == plain
    assert Encoder(**options).json(value, hub=True) == hub
    assert msgpack.unpackb(Encoder(**options).msgpack(value))[0] == "1.5"


def test_a_duration_beyond_dotnet_s_is_refused_for_everyone() -> None:
    for encode in encode_json, encode_msgpack:
        with pytest.raises(errors.UnsupportedValue, match=r"outside .NET's TimeSpan.*\(at \$\[0\]\)"):
            encode([dt.timedelta.max])
    assert Encoder(duration="iso8601").json(dt.timedelta.max) == msgspec.json.encode(dt.timedelta.max)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": "json"}, "formats must be .*not 'json'"),
        ({"formats": ("msgpack",)}, "formats must be"),
        ({"formats": ("json", "cbor")}, r"formats\[1\] must be 'json' or 'msgpack', not 'cbor'"),
        ({"decimal": "float"}, "decimal must be 'number', 'string' or None, not 'float'"),
        ({"duration": "iso"}, "duration must be 'dotnet', 'iso8601' or None, not 'iso'"),
    ],
)
def test_a_bad_option_is_refused_when_the_hub_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Hub(**options)


def test_a_hook_must_be_a_function() -> None:
    with pytest.raises(TypeError, match="encode must be a function of one object or None, not 5"):
        Hub(encode=5)  # type: ignore[typeddict-item]


def test_the_page_about_types_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "types.md").read_text()
    room: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(snippet, room)
    assert Encoder(hook=room["encode"]).json([1j]) == b"[[0.0,1.0]]"
