"""Text that goes to a client, whoever wrote it: made such that it can be sent. Not here: sending it."""

REASON_BYTES_MAX = 123
"""Of a Close frame: RFC 6455 §5.5."""
TOLD_BYTES_MAX = 65_536
"""Of an error that a client is told: what is longer is cut there."""
TOLD_BRIEFLY_BYTES_MAX = 512
"""Of the same, where more does not fit into what may wait for the client."""
INTERNAL_ERROR = "internal error"
"""All that a client learns of an exception that the application did not mean for it."""


def sendable(text: object, bytes_max: int = TOLD_BYTES_MAX) -> str:
    """`text` as UTF-8 can hold it, at most `bytes_max` bytes of it, cut between two characters. Raises nothing.

    A lone surrogate is replaced by ``?``. Of an exception it is ``str(error)``, or its type's name where that raises.
    """
    if not isinstance(text, str):
        text = _str_of(text)
    encoded = text.encode(errors="replace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    return encoded[:bytes_max].decode(errors="ignore")


def _str_of(what: object) -> str:
    try:
        return str(what)
    except Exception:  # an exception of the application, with a __str__ of its own
        return type(what).__name__


def shortened(text: str, characters_max: int) -> str:
    """So many characters of a text, and a sign where there are more."""
    return text if len(text) <= characters_max else f"{text[:characters_max]}…"


def cut_reason(reason: object) -> str:
    """A close's reason, as much as fits."""
    return sendable(reason, REASON_BYTES_MAX)


def name_of(connection: int) -> str:
    """A connection as logs name it, ``c17@2``: place 17, in its 2nd life; with ``/3`` where it is of shard 3."""
    shard, generation, slot = connection >> 56, connection >> 24 & 0xFFF_FFFF, connection & 0xFF_FFFF
    return f"c{slot}@{generation}" + (f"/{shard}" if shard else "")
