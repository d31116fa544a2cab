"""A framework's WebSocket, as the hub sees it: what each file beside this one says of its framework.

No framework is imported: whoever has such a connection has imported it. What is told apart by a name of a class or of a
state stays right where the framework is not there, or is there twice.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

ABNORMAL = 1006
"""The close code of who has left without one (RFC 6455 §7.1.5)."""


class Departed(Exception):
    """The client has left: what a receiving ends with."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = ABNORMAL if code is None else int(code)


class Foreign(ABC):
    """One connection of a framework. It has no state of its own, and is made anew wherever it is needed."""

    __slots__ = ("connection",)

    named: ClassVar[tuple[str, str]]
    """Module and name of the framework's class; its subclasses are meant, too."""
    what: ClassVar[str]
    """What it is called in errors and logs: ``a WebSocket of Starlette``."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether messages can be sent: the opening handshake is over, and no closing one has begun."""

    @property
    @abstractmethod
    def is_begun(self) -> bool:
        """Whether the opening handshake is over."""

    @property
    @abstractmethod
    def how_to_begin(self) -> str:
        """What the program has to do first, where it is not."""

    @property
    @abstractmethod
    def holders(self) -> Sequence[tuple[Any, str]]:
        """What holds the transport that the framework writes to: objects, each with the attribute's name. All of them
        hold the same one. None where it cannot be had."""

    @property
    def why_none(self) -> str:
        """Why there are no holders, and what to do, for the log."""
        return "its server does not show its transport"

    @abstractmethod
    async def send(self, data: str | bytes) -> None:
        """Send one message as the framework does: text or binary. Raises what the framework raises."""

    @abstractmethod
    async def receive(self) -> str | bytes:
        """The next message. Raises Departed once the client has left, and what else the framework raises."""

    @abstractmethod
    async def close(self, code: int, reason: str) -> None:
        """The closing handshake as the framework does it."""
