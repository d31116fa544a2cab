"""What only the compiled engine has: each of these says so when it is asked for."""

from typing import Any, NoReturn

from fanwire.errors import EngineMissing


def missing(what: str) -> NoReturn:
    """Raise EngineMissing for what was asked of the engine."""
    raise EngineMissing(what)


class Refused:
    """The base of classes whose objects the compiled engine alone makes."""

    WHAT = "this"

    def __new__(cls, *positional: object, **named: object) -> Any:
        """Raises EngineMissing."""
        missing(cls.WHAT)


class HeldAddress(Refused):
    """An address that this process listens at for those who inherit it."""

    WHAT = "serving by workers"


class Answer(Refused):
    """What becomes of a publication that a backbone is asked for."""

    WHAT = "a Publisher"


class BackboneLink(Refused):
    """A link to a backbone."""

    WHAT = "a Publisher"


class Sequencer(Refused):
    """What orders the publications of workers."""

    WHAT = "serving by workers"


class Roots(Refused):
    """Certificates of authorities, by which backends of ``https`` and ``wss`` are checked."""

    WHAT = "a relay"


class Look(Refused):
    """What an operator is shown of an engine."""

    WHAT = "the admin side"


class WebSocketHandshake(Refused):
    """A request that asks rightly for a WebSocket."""

    WHAT = "fanwire.uvicorn:Protocol"


class WebSocketCodec(Refused):
    """The state of a WebSocket after its handshake, of the server's side."""

    WHAT = "fanwire.uvicorn:Protocol"


def adopt_orphans(wanted: bool) -> NoReturn:
    """Raises EngineMissing."""
    missing("serving by workers")


def read_handshake(head: bytes, *, deflates: bool) -> NoReturn:
    """Raises EngineMissing."""
    missing("fanwire.uvicorn:Protocol")


def response_head(status: int, headers: Any) -> NoReturn:
    """Raises EngineMissing."""
    missing("fanwire.uvicorn:Protocol")


def canonical(protocol: str, value: bytes) -> NoReturn:
    """Raises EngineMissing."""
    missing("a relay")


def invocation(protocol: str, id: str, target: str, arguments: bytes) -> NoReturn:
    """Raises EngineMissing."""
    missing("a relay")


def toml_lines(text: str) -> NoReturn:
    """Raises EngineMissing."""
    missing("a file of settings")
