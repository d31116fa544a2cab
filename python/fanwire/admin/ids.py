"""How clients are named over workers, and the cursors of lists: opaque to who holds one, checked when it comes back."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from typing import Any

import msgspec

from fanwire._engine import Position
from fanwire.admin.problems import Problem
from fanwire.logs import name_of
from fanwire.workers.bus import NUMBERS

CLIENT = re.compile(r"(?:([0-9]{1,9}):)?c([0-9]{1,8})@([0-9]{1,8})(?:/([0-9]{1,3}))?", re.ASCII)
POSITION = re.compile(r"([0-9]{1,20})-([0-9]{1,20})", re.ASCII)
SLOTS = 1 << 24
CURSOR_CHARACTERS_MAX = 8_192


def client_name(worker: int, connection: int) -> str:
    """``0:c17@2``."""
    return f"{worker}:{name_of(connection)}"


def client_of(name: str, here: int) -> tuple[int, int]:
    """The worker, and the connection's number there; a name without a worker is one of `here`. Raises Problem."""
    match = CLIENT.fullmatch(name)
    if match is None:
        raise Problem("bad_request", f"client {name[:80]!r} must be a name such as 0:c17@2")
    worker = here if match[1] is None else int(match[1])
    slot, generation, shard = int(match[2]), int(match[3]), int(match[4] or 0)
    if slot >= SLOTS or generation >= SLOTS or shard > 255:
        raise Problem("no_such_client", f"no client {name} can be connected")
    return worker, worker % NUMBERS << 56 | shard << 48 | generation << 24 | slot


def position_text(position: Position) -> str:
    """``EPOCH-OFFSET``."""
    return f"{position.epoch}-{position.offset}"


def position_of(text: str) -> Position:
    """Reads what ``position_text`` wrote. Raises Problem."""
    match = POSITION.fullmatch(text)
    try:
        if match is not None:
            return Position(int(match[1]), int(match[2]))
    except (OverflowError, ValueError):
        pass
    raise Problem("bad_request", f"a position is EPOCH-OFFSET, not {text[:80]!r}")


def cursor_text(kind: str, place: Any) -> str:
    """A place in a list, as it is handed out."""
    return urlsafe_b64encode(msgspec.msgpack.encode([kind, place])).decode().rstrip("=")


def cursor_of(text: str, kind: str, shape: Any) -> Any:
    """The place, of a list of this kind, as `shape` has it. Raises Problem."""
    try:
        if len(text) > CURSOR_CHARACTERS_MAX:
            raise ValueError
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        named, place = msgspec.msgpack.decode(raw, type=tuple[str, Any])
        if named == kind:
            return msgspec.convert(place, shape)
    except (Error, ValueError, msgspec.MsgspecError):
        pass
    raise Problem("bad_cursor", "`after` must be what `next` of the same list said")
