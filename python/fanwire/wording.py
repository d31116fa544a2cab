"""What a client is told, in words that can be sent; of an exception, in those of ASP.NET Core. Not here: sending."""

from fanwire.errors import Told

REASON_BYTES_MAX = 123
"""Of a Close frame: RFC 6455 §5.5."""
TOLD_BYTES_MAX = 65_536
"""Of an error that a client is told: what is longer is cut there."""
TOLD_BRIEFLY_BYTES_MAX = 512
"""Of the same, where more does not fit into what may wait for the client."""
BRIEF_MAX = 200
"""Characters of why a peer ended something, as stats keep and show it."""
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


def printable(text: str) -> str:
    """A text with nothing in it that a terminal would obey, on one line."""
    return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)


def shortened(text: str, characters_max: int) -> str:
    """So many characters of a text, and a sign where there are more."""
    return text if len(text) <= characters_max else f"{text[:characters_max]}…"


def cut_reason(reason: object) -> str:
    """A close's reason, as much as fits."""
    return sendable(reason, REASON_BYTES_MAX)


CLOSED_WITH_ERROR = "Connection closed with an error."
"""What a SignalR client is told whose connection the hub ends by itself."""
STREAMING_FAILED = "An error occurred on the server while streaming results."
"""What is answered when a stream raised after it had begun."""
UPLOAD_FAILED = "Failed to bind Stream message."
"""What a method reads of an uploaded item that is not of its type."""


class InvalidData(ValueError):
    """Arguments or items that are not what a method takes; to SignalR clients it is ``InvalidDataException``.

    Args:
        detail: what is wrong, as the log has it: which argument, and why.
        told: the same as a client is told it, in the reference's words.
    """

    def __init__(self, detail: str, told: str | None = None) -> None:
        super().__init__(detail)
        self.told: str = detail if told is None else told
        """What a client is told where the hub tells details."""


class Wording:
    """How exceptions are told: bare, but for ``Told``; with ``detailed_errors`` each with class and text."""

    __slots__ = ("is_detailed",)

    def __init__(self, is_detailed: bool = False) -> None:
        self.is_detailed: bool = is_detailed
        """What ``EnableDetailedErrors`` is in ASP.NET Core."""

    def of(self, text: str, error: BaseException) -> str:
        """What a SignalR client is told: `text`, and of the exception what it may know."""
        if isinstance(error, Told):
            return sendable(f"{text} HubException: {sendable(error)}")
        if not self.is_detailed:
            return text
        if isinstance(error, InvalidData):
            return sendable(f"{text} InvalidDataException: {error.told}")
        return sendable(f"{text} {type(error).__name__}: {sendable(error)}")

    def raw(self, error: BaseException) -> str:
        """What a client of the raw protocol is told."""
        if isinstance(error, Told):
            return sendable(error)
        if not self.is_detailed:
            return INTERNAL_ERROR
        return sendable(f"{INTERNAL_ERROR}: {type(error).__name__}: {sendable(error)}")


def failed_to_invoke(target: str) -> str:
    """What is answered to an invocation that cannot be made."""
    return f"Failed to invoke '{target}' due to an error on the server."


def unexpected_error(target: str) -> str:
    """What is answered when a method raised."""
    return f"An unexpected error occurred invoking '{target}' on the server."


def not_invoked(target: str, *, is_stream: bool) -> str:
    """What is answered to an invocation of the wrong kind, where `is_stream` says what the method gives."""
    method, call = ("streaming", "non-streaming") if is_stream else ("non-streaming", "streaming")
    return f"The client attempted to invoke the {method} '{target}' method with a {call} invocation."


def not_a_stream(target: str) -> str:
    """What is answered when a method that says it gives a stream gave something else."""
    return f"The value returned by the streaming method '{target}' is not a ChannelReader<> or IAsyncEnumerable<>."


def brief(text: str, characters_max: int = BRIEF_MAX) -> str:
    """What a peer wrote, such as why it ended something: so many characters of it, all printable."""
    return printable(shortened(text, characters_max))
