"""A framework's WebSocket, as the hub sees it: what each file beside this one says of its framework.

No framework is imported: whoever has such a connection has imported it. What is told apart by a name of a class or of a
state stays right where the framework is not there, or is there twice.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from fanwire.frames import BINARY, TEXT, server_frame
from fanwire.logs import hub_log

FRAGMENTS = "sending a fragmented message"
"""Why a connection is left out of a broadcast, as ``websockets`` says it."""
OTHER_LOOP = "it belongs to another event loop"

ABNORMAL = 1006
"""The close code of who has left without one (RFC 6455 §7.1.5)."""


class NoTransport(Exception):
    """A message cannot be written at once: it goes through the framework's ``send``."""


class Departed(Exception):
    """The client has left: what a receiving ends with."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = ABNORMAL if code is None else int(code)


class Broadcast:
    """One message for many connections: its payload, and its frame, which all those get who can take the same bytes."""

    __slots__ = ("_frame", "_join", "is_text", "payload")

    def __init__(
        self,
        payload: bytes | bytearray | memoryview,
        *,
        is_text: bool,
        join: "Callable[[Any, Foreign, bytes], None] | None" = None,
    ) -> None:
        self._join = join
        self.payload = payload
        """UTF-8, where it is a text."""
        self.is_text = is_text
        self._frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """One whole message as a server sends it: not masked, and not compressed (RFC 6455 §5.2).

        Where compression was negotiated such a message may come between compressed ones, and changes nothing for them.
        """
        if self._frame is None:
            self._frame = server_frame(TEXT if self.is_text else BINARY, bytes(self.payload))
        return self._frame

    def write(self, pipe: Any, foreign: "Foreign") -> None:
        """Write the frame to a connection's transport, or have it written with others."""
        if self._join is None:
            pipe.write(self.frame)
        else:
            self._join(pipe, foreign, self.frame)

    @property
    def data(self) -> str | bytes:
        """As frameworks send it."""
        payload = bytes(self.payload)
        return payload.decode() if self.is_text else payload


class Foreign(ABC):
    """One connection of a framework. It has no state of its own, and is made anew wherever it is needed."""

    __slots__ = ("connection",)

    named: ClassVar[tuple[str, str]]
    """Module and name of the framework's class; its subclasses are meant, too."""
    what: ClassVar[str]
    """What it is called in errors and logs: ``a WebSocket of Starlette``."""

    why_no_broadcast: ClassVar[str] = ""
    """Why no message can be pushed to it, if none can."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    @property
    def identity(self) -> Any:
        """What is the same for all that stands for this one connection."""
        return self.connection

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

    @staticmethod
    def pipe(connection: Any) -> Any:
        """The transport, where whole frames, neither masked nor compressed, may be written to it now; else None."""
        return None

    @staticmethod
    def standing(connection: Any) -> Any:
        """What stands for its transport, if a message may be written to it now; else None. Asked for each message."""
        return None

    @staticmethod
    def loop_of(connection: Any) -> Any:
        """The event loop that it belongs to, or None where it does not say."""
        return None

    @staticmethod
    def push(connection: Any, message: Broadcast, loop: Any) -> Exception | None:
        """Write a message to a connection of this framework, at once and without a limit to what waits.

        Does nothing where it is closed.
        Gives why it was not written. Raises what the framework's own write raises, NoTransport where there is none, and
        RuntimeError where the connection is known to belong to another event loop than `loop`.
        """
        raise NoTransport

    @property
    def log(self) -> logging.Logger:
        """Where it is told that a broadcast left out this connection."""
        return hub_log

    @abstractmethod
    async def send(self, data: str | bytes) -> None:
        """Send one message as the framework does: text or binary. Raises what the framework raises."""

    @abstractmethod
    async def receive(self) -> str | bytes:
        """The next message. Raises Departed once the client has left, and what else the framework raises."""

    @abstractmethod
    async def close(self, code: int, reason: str) -> None:
        """The closing handshake as the framework does it."""
