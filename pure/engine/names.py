"""What names, close codes and headers may be."""

import re
from collections.abc import Iterable
from unicodedata import category

from fanwire.errors import InvalidChannel

NAME_BYTES_MAX = 255
HEADERS_BYTES_MAX = 16 * 1024
"""What an application's headers of one answer may take together."""
TOKEN = re.compile(r"[!#-'*+.^-`|~0-9A-Za-z-]+")
VISIBLE = re.compile(r"[\t -~]*")
OWN = frozenset(
    (
        "connection",
        "content-length",
        "content-type",
        "keep-alive",
        "proxy-connection",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Headers that are the engine's."""


def quoted(text: str) -> str:
    """A text as the engine's errors show it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def check_pattern(name: str) -> None:
    """Raises InvalidChannel for what may stand neither in a channel's name nor in a pattern of names."""
    if not name:
        why = "must not be empty"
    elif len(name.encode()) > NAME_BYTES_MAX:
        why = "must not be over 255 bytes of UTF-8"
    elif not name.isprintable() and any(category(one) == "Cc" for one in name):
        why = "must not hold control characters"
    else:
        return
    raise InvalidChannel(name[:80], why)


def check_name(name: str) -> None:
    """Raises InvalidChannel for what no channel is called."""
    if "*" in name:
        raise InvalidChannel(name[:80], "must not hold *, which makes a pattern of it: a channel is named in full")
    check_pattern(name)


def is_match(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern that is checked. Takes what stands between two ``*`` where it first can."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *between, last = rest
    if not name.startswith(first) or len(name) < len(first) + len(last) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for text in between:
        found = name.find(text, at, end)
        if found < 0:
            return False
        at = found + len(text)
    return True


def matches(pattern: str, name: str) -> bool:
    """Whether a channel's name matches a pattern, in which ``*`` is any run of characters. Raises InvalidChannel."""
    check_pattern(pattern)
    return is_match(pattern, name)


def may_be_received(code: object) -> bool:
    """Whether it is a close code that a client may send (RFC 6455 §7.4)."""
    if not isinstance(code, int):
        return False
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def may_be_sent(code: object) -> bool:
    """Whether it is a close code that a server may send (RFC 6455 §7.4)."""
    return may_be_received(code) and code != 1010


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Raises ValueError for headers that no response of the application's may have together."""
    taken = 0
    for name, value in headers:
        taken += len(name.encode()) + len(value.encode()) + 4
        if not TOKEN.fullmatch(name):
            why = "has a name that is no token"
        elif name.lower() in OWN:
            why = "is the engine's own to set"
        elif not VISIBLE.fullmatch(value):
            why = "has a value with bytes that are not visible ASCII"
        elif taken > HEADERS_BYTES_MAX:
            why = f"is one too many: together they are {taken} bytes, over the bound of {HEADERS_BYTES_MAX}"
        else:
            continue
        raise ValueError(f'header "{name}" {why}')
