"""The kinds of values that settings have: durations, sizes, counts, URLs, secrets, each with what is said of a bad one.

A field is annotated with one, ``linger: Duration = 30.0``; the value is plain, the kind tells how it is written.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv6Address, ip_network
from math import inf
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from fanwire._engine import Roots
from fanwire.addresses import ADDRESS_FORMS, ORIGIN_FORM, origins_of, read_address
from fanwire.backbone import ORIGINS
from fanwire.values import (
    SHOWN_MAX,
    SIZE_MAX,
    TEXT_MAX,
    TRUTH,
    Choice,
    Mistake,
    OrNone,
    Rule,
    Seconds,
    Whole,
    WrongType,
    concealed,
    rule_in,
)
from fanwire.wording import shortened

SECONDS = {"s": "1", "ms": "0.001", "m": "60", "h": "3600", "d": "86400"}
BYTES = {
    "B": "1",
    **{f"{letter}iB": str(1024**power) for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}B": str(1000**power) for power, letter in enumerate("KMGT", 1)},
    "kB": "1000",
}
NUMBER_BITS_MAX = 1_000
"""A longer whole number is none of any setting's; Python writes none of more than 4,300 digits."""
VISIBLE = "[!-~]([ -~]*[!-~])?"
SECRET_MAX = 16_384
"""Characters of a secret: as much as a whole request's head may have by default."""
BUNDLE_BYTES_MAX = 16 * 1024 * 1024
"""Of a file of certificates; a system's own has a quarter of a MiB."""
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


class Text(str):
    """A value from the environment or an option: a string that numbers, booleans and lists may be read from."""

    __slots__ = ()


class NotGiven(str):
    """Stands where a value could have been given, and says what is wrong without it."""

    __slots__ = ()


class Secret:
    """A string that no repr, error or log shows; ``reveal`` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The string itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def shown(value: Any) -> str:
    """A value as an error shows it: as the file has it, short, on one line, and a URL without what may be secret."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > NUMBER_BITS_MAX:
        return "a number of too many digits"
    if not isinstance(value, str):
        return shortened(str(value), SHOWN_MAX)
    text = shortened(concealed(value), SHOWN_MAX)
    return '"' + "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text) + '"'


@dataclass(frozen=True, slots=True)
class Leaf:
    """How one value is read."""

    read: Rule
    """Takes the value as it was written and gives what it means; raises Mistake."""
    take: Rule
    """The same of a value that Python gives: a number of seconds, where a file has a text with a unit."""
    span: str
    """What it may be, as a file has it: ``0s to 24h``."""
    written: Callable[[Any], str] = str
    """A value as a file has it."""
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """A table whose keys and their kinds are known only as a mapping; what is given is kept as a dict."""

    kinds: dict[str, Any]
    elsewhere: dict[str, str]
    """Keys that are wrong here, and what is said of them."""


ONE_OR_MORE = "one or more"
"""Of a list: a single value stands for a list of one, and an empty list is an error."""


def _amount(rule: Seconds | Whole, is_bare_allowed: bool) -> Leaf:
    """A number that `rule` takes, with a unit; bounds are told as a file has them."""
    is_time = isinstance(rule, Seconds)
    units = SECONDS if is_time else BYTES
    written: Callable[[Any], str] = duration_text if is_time else size_text
    plain, span = next(iter(units)), f"{written(rule.least)} to {'more' if rule.most == inf else written(rule.most)}"

    def read(value: Any) -> Any:
        number, unit = _number_and_unit(value)
        if number is None or (unit and unit not in units):
            raise Mistake(f"must be {'a duration such as 30s' if is_time else 'a size such as 16KiB'}")
        if not unit and not is_bare_allowed:
            raise Mistake(f"must have a unit, such as {number}{plain}")
        amount = number * Decimal(units[unit or plain])
        if not is_time and amount != int(amount):
            raise Mistake("must come to whole bytes")
        try:
            return rule(float(amount) if is_time else int(amount))
        except Mistake:
            raise Mistake(f"must be {span}") from None

    return Leaf(read, rule, span, written)


def whole(rule: Rule, span: str = "") -> Leaf:
    """A whole number without a unit; a variable, too, may hold one as ``0o660``."""

    def read(value: Any) -> int:
        if isinstance(value, Text) and re.fullmatch(r"-?[0-9]{1,18}|0o[0-7]{1,8}", value):
            value = int(value, 8 if value.startswith("0o") else 10)
        number: int = rule(value)
        return number

    return Leaf(read, rule, span or str(rule))


def leaf_of(rule: Rule, *, is_bare_allowed: bool = False) -> Leaf:
    """How a file has what a program gives by `rule`; `is_bare_allowed`: a number without a unit is seconds or bytes."""
    rule = rule.rule if isinstance(rule, OrNone) else rule
    if isinstance(rule, Seconds) or (isinstance(rule, Whole) and rule.kind == "bytes"):
        return _amount(rule, is_bare_allowed)
    if isinstance(rule, Whole):
        return whole(rule)
    if isinstance(rule, Choice):
        return choice(one for one in rule.known if one is not None)
    return Leaf(rule, rule, "")


def text(
    must: str, pattern: str = ".+", check: Callable[[str], object] | None = None, *, most: float = TEXT_MAX
) -> Leaf:
    """A string of UTF-8, of `most` characters, that matches `pattern` whole and passes `check`, which raises ValueError
    or Mistake.

    Lone surrogates come from bytes of a variable that are no UTF-8.
    """
    span = must if most == inf else f"{must}, of {most:,} characters at most"

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise WrongType(f"must be {must}")
        if len(value) > most:
            raise Mistake(f"must be {span}")
        if not re.fullmatch(pattern, value, re.DOTALL) or re.search("[\ud800-\udfff]", value):
            raise Mistake(f"must be {must}")
        try:
            if check:
                check(value)
        except Mistake:
            raise
        except ValueError as error:
            raise Mistake(rule_in(error, f"must be {must}")) from error
        return str(value)

    return Leaf(read, read, span)


def choice(known: Iterable[object]) -> Leaf:
    """One of a few strings and booleans."""
    known = tuple(known)
    names = {shown(one): one for one in known}
    *others, last = names
    span = f"{', '.join(others)} or {last}" if others else last

    def read(value: Any) -> Any:
        name = value.lower() if isinstance(value, Text) and value.lower() in names else shown(value)
        if name not in names:
            raise Mistake(f"must be {span}")
        return names[name]

    return Leaf(read, Choice(known), span, lambda value: shown(value).strip('"'))


def _taken_secret(value: Any) -> Secret:
    return Secret(TAKEN_SECRET.read(value.reveal() if isinstance(value, Secret) else value))


def _read_origins(value: Any) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, Text) else [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise Mistake("must be a list of origins such as https://bets.example")
    for each in given:
        try:
            origins_of([each])
        except Mistake as mistake:
            raise Mistake(f"must be {ORIGIN_FORM}; {shown(each)} is not") from mistake
    origins = origins_of(given)
    return ("*",) if origins is None else origins


def _check_url(value: str) -> None:
    url = urlsplit(value)
    if url.scheme in ORIGINS:
        raise Mistake(
            "must be a backend's, and this is that of an origin: Hub(backbone=...) takes it, and is an edge then"
        )
    if "@" in url.netloc:
        raise Mistake("must not hold a user or a password: they belong into a header of the lanes")
    if url.scheme not in ("http", "https", "ws", "wss") or url.fragment or url.port == 0 or url.netloc.endswith(":"):
        raise ValueError
    if "[" in url.netloc:
        IPv6Address(url.hostname or "")
    elif not re.fullmatch(r"[\w.-]+", url.hostname or ""):
        raise ValueError


def roots_of(file: str) -> Roots:
    """The authorities of a PEM file. Raises Mistake: it cannot be read, or holds no certificate, or a bad one."""
    try:
        pem = bytes_of(file, BUNDLE_BYTES_MAX)
    except Mistake as mistake:
        raise Mistake(str(mistake)) from mistake  # which file is told
    except OSError as error:
        raise Mistake(f"must be a file that can be read ({error.strerror})") from error
    try:
        return Roots(pem)
    except ValueError as error:
        raise Mistake(f"must be a PEM file of certificates (it {error})") from error


def bytes_of(file: str | Path, bytes_max: int) -> bytes:
    """What is in a file. Raises OSError: it cannot be read; Mistake: it is over the bound, or a pipe or device."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to would not open otherwise
    with os.fdopen(descriptor, "rb") as opened:
        about = os.fstat(descriptor)
        read = opened.read(bytes_max + 1) if S_ISREG(about.st_mode) else None
    if read is None or len(read) > bytes_max:
        told = "no regular file" if read is None else f"of {max(about.st_size, len(read)):,} bytes"
        raise Mistake(f"must be a file of {size_text(bytes_max)} at most", told=told)
    return read


def _check_header(value: str) -> None:
    if value.lower() in HOP_BY_HOP or value.lower().startswith("sec-websocket-"):
        raise Mistake("must not be a header that belongs to the connection itself")


def _check_proxy(value: str) -> None:
    if value != "unix":
        ip_network(value)


def _number_and_unit(value: Any) -> tuple[Decimal | None, str]:
    """``"1.5m"`` as ``(1.5, "m")``; no number where there is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = shown(value)
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([A-Za-z]*)", value) if isinstance(value, str) else None
    return (Decimal(match[1]), match[2]) if match else (None, "")


def duration_text(seconds: float) -> str:
    """``30s``, ``200ms``, ``24h``, ``366d``."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    longest = (("d", 86_400),) if seconds > 86_400 else ()
    units = ((unit, each) for unit, each in (*longest, ("h", 3600), ("m", 60)) if seconds and seconds % each == 0)
    unit, each = next(units, ("s", 1))
    return f"{seconds / each:g}{unit}"


def size_text(count: int) -> str:
    """``64KiB``, ``100B``."""
    units = (unit for unit in ("TiB", "GiB", "MiB", "KiB") if count and count % int(BYTES[unit]) == 0)
    unit = next(units, "B")
    return f"{count // int(BYTES[unit])}{unit}"


Duration: TypeAlias = Annotated[float, leaf_of(Seconds())]
"""Seconds, 0 to a day."""
Interval: TypeAlias = Annotated[float, leaf_of(Seconds(0.1))]
"""Seconds, 0.1 to a day."""
Pause: TypeAlias = Annotated[float, leaf_of(Seconds(0.01))]
"""Seconds between two attempts, 0.01 to a day."""
Size: TypeAlias = Annotated[int, leaf_of(Whole(0, SIZE_MAX, "bytes"))]
"""Bytes, 0 to 1 TiB."""
MessageSize: TypeAlias = Annotated[int, leaf_of(Whole(1, SIZE_MAX, "bytes"))]
"""Bytes of one message, 1 to 1 TiB."""
Count: TypeAlias = Annotated[int, leaf_of(Whole())]
"""A whole number of things, 1 or more."""
Few: TypeAlias = Annotated[int, leaf_of(Whole(1, 1_024))]
"""A number of things that are all there from the beginning."""
Boolean: TypeAlias = Annotated[bool, leaf_of(TRUTH)]
Name: TypeAlias = Annotated[str, text("a name, not empty and without control characters", r"[^\x00-\x1f\x7f]+")]
"""A method's or target's."""
Header: TypeAlias = Annotated[
    str, text("a header's name, such as Accept-Language", r"[!#-'*+.^-`|~0-9A-Za-z-]+", _check_header)
]
HeaderPattern: TypeAlias = Annotated[
    str, text("a header's name, perhaps with * at its end, such as accept-*", r"[!#-'+.^-`|~0-9A-Za-z-]+\*?")
]
Proxy: TypeAlias = Annotated[
    str, text('an address, a network such as 10.0.0.0/8, or "unix"', r"[0-9A-Fa-f.:/]+|unix", _check_proxy)
]
Parameter: TypeAlias = Annotated[str, text("the name of a query parameter", r"[^\s&=#\x00-\x1f\x7f]+")]
Pointer: TypeAlias = Annotated[str, text("a JSON pointer such as /watch (RFC 6901)", r"(?:/(?:[^/~]|~[01])*)+")]
Url: TypeAlias = Annotated[
    str, text("an http, https, ws or wss URL such as http://127.0.0.1:5000/live", r"[!-~]+", _check_url, most=2_048)
]
Bundle: TypeAlias = Annotated[str, text("the name of a PEM file", "[^\0]+", roots_of, most=4_095)]
"""A file of certificates that can be used."""
Address: TypeAlias = Annotated[str, Leaf(read_address, read_address, ADDRESS_FORMS)]
Origins: TypeAlias = Annotated[tuple[str, ...], Leaf(_read_origins, origins_of, "a list of origins")]
"""``Origin`` values, one or more; ``"*"`` is all."""
# Not even its form is told: visible ASCII, as header values are (RFC 9110 §5.5), spaces inside included.
SECRET = text('a string of visible ASCII, or { env = "NAME" }', VISIBLE, most=SECRET_MAX)
TAKEN_SECRET = text("a Secret, or a string of visible ASCII", VISIBLE, most=SECRET_MAX)
Hidden: TypeAlias = Annotated[
    Secret, Leaf(lambda value: Secret(SECRET.read(value)), _taken_secret, SECRET.span, is_secret=True)
]
