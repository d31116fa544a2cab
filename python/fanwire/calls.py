"""What is wrong with a call: which argument, what it was, and what is allowed. Not here: the calls themselves.

``publish`` and its like hand their arguments to the engine as they are: only when that fails does ``explain`` look at
them, one by one. Calls that are rare have them checked before.
"""

import json
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, NoReturn

from fanwire._engine import Filter, Position, matches
from fanwire.channel import STARTS
from fanwire.errors import FanwireError, InvalidChannel
from fanwire.options import read_close_code
from fanwire.values import TRUTH, Choice, checked, told

EVENT = "the name of an event, a str without line breaks"
START = Choice((*STARTS, None))
ITEMS = "a list or another iterable of what is to be published"


def wrong(name: str, must: str, value: object, kind: type[Exception] = TypeError) -> NoReturn:
    """Raise `kind`, which says that the argument `name` must be `must`, and what it is."""
    raise kind(f"{name} must be {must}, not {told(value)}") from None


def check_text(name: str, value: object, must: str) -> str:
    """A str that UTF-8 can hold. Raises TypeError, and ValueError for a lone surrogate."""
    if not isinstance(value, str):
        wrong(name, must, value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            wrong(name, f"{must}, without lone surrogates", value, ValueError)
    return value


def check_channel(channel: object) -> str:
    """The name of a channel. Raises TypeError for what is no str, and InvalidChannel for what no channel is called."""
    name = check_text("channel", channel, "the name of a channel, a str")
    if "*" in name:
        raise InvalidChannel(name, "must not hold *, which makes a pattern of it: a channel is named in full")
    matches(name, "")  # the engine has the other rules
    return name


def check_event(event: object) -> None:
    """Raises TypeError, ValueError for what is neither None nor the name of an event."""
    if event is not None and set(check_text("event", event, f"{EVENT}, or None")) & {"\n", "\r"}:
        wrong("event", f"{EVENT}, or None", event, ValueError)


def check_key(key: object) -> None:
    """Raises TypeError, ValueError for what is no conflation key."""
    if key is not None:
        check_text("key", key, "a str of at most 255 bytes, or None")


def check_ttl(ttl: object) -> None:
    """Raises TypeError, ValueError for what is no time to live."""
    must = "a number of seconds over 0, or None"
    if ttl is None:
        return
    if not isinstance(ttl, int | float) or isinstance(ttl, bool):
        wrong("ttl", must, ttl)
    if not (ttl > 0 and (isinstance(ttl, int) or isfinite(ttl))):
        wrong("ttl", must, ttl, ValueError)


def check_keyframe(keyframe: object) -> None:
    """Raises TypeError for what is no bool."""
    checked("keyframe", keyframe, TRUTH)


def check_since(since: object) -> None:
    """Raises TypeError for what is no position."""
    if since is not None and not isinstance(since, Position):
        wrong("since", "a Position, as publish returns it, or None", since)


def check_start(start: object) -> None:
    """Raises TypeError, ValueError for what is no place where a subscriber may begin."""
    checked("start", start, START)


def check_tags(tags: object) -> None:
    """Raises TypeError for what are no tags. What each may hold the engine says."""
    must = "a dict of names with a str, an int, a float or a bool each, or None"
    if tags is not None and not isinstance(tags, dict):
        wrong("tags", must, tags)
    for name, value in (tags or {}).items():
        if not isinstance(name, str):
            wrong("tags", f"{must}, each name a str", name)
        if not isinstance(value, str | int | float):
            kind = type(value).__name__
            raise TypeError(
                f"tag {json.dumps(name[:80])}: expected a str, an int, a float or a bool, not {kind}"
            ) from None


def read_filter(name: str, given: object) -> Filter | None:
    """A filter as the engine has it; None where it asks for nothing. Raises TypeError, ValueError."""
    if given is None:
        return None
    must = 'a dict such as {"league": "seriea"}, or None'
    if not isinstance(given, dict):
        wrong(name, must, given)
    try:
        text = json.dumps(given, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        wrong(name, f"{must}, of what JSON has", given, ValueError)
    return Filter.parse(text)


def check_code(code: object) -> None:
    """Raises TypeError, ValueError for what is no close code that may be sent."""
    checked("code", code, read_close_code)


def check_reason(reason: object) -> None:
    """Raises TypeError, ValueError for what is no text. How long it may be depends on the client."""
    check_text("reason", reason, "a str")


def check_fraction(fraction: object) -> None:
    """Raises TypeError, ValueError for what is no part of a channel's subscribers."""
    must = "a number, > 0 and <= 1"
    if not isinstance(fraction, int | float) or isinstance(fraction, bool):
        wrong("fraction", must, fraction)
    if not 0 < fraction <= 1:
        wrong("fraction", must, fraction, ValueError)


def check_position(position: object) -> None:
    """Raises TypeError for what no ``publish`` returned."""
    if not isinstance(position, Position):
        wrong("position", "a Position, as publish returns it", position)


def check_items(items: object) -> None:
    """Raises TypeError for one thing where several are meant: a str would be taken for its letters."""
    if isinstance(items, str | bytes | bytearray | memoryview | Mapping) or not hasattr(type(items), "__iter__"):
        wrong("items", f"{ITEMS}, which publish takes one by one", items)


CHECKS: Mapping[str, Callable[[Any], object]] = {
    "channel": check_channel,
    "event": check_event,
    "key": check_key,
    "ttl": check_ttl,
    "keyframe": check_keyframe,
    "tags": check_tags,
    "since": check_since,
    "start": check_start,
    "code": check_code,
    "reason": check_reason,
}
"""Those that ``explain`` knows, by the argument's name."""


def explain(error: Exception, **given: object) -> None:
    """Raise what is wrong with the first of the arguments that is wrong, in place of what the engine raised.

    Does nothing where that is said already, or the arguments are right: `error` is then the caller's to raise.
    """
    if not isinstance(error, FanwireError):
        for name, value in given.items():
            CHECKS[name](value)
