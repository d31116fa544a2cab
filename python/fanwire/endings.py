"""How a client is told that something is over: its request, its call, its connection. Nothing here raises.

Refusing and closing always end in the client being out, and a call that cannot be answered ends the connection: where
the engine does not take a text, it gets a shorter one, and where it takes none, the client goes.
"""

from collections.abc import Callable, Sequence

from fanwire._engine import Engine, encode_json
from fanwire._loop import ends_task
from fanwire.errors import PayloadTooBig
from fanwire.faults import Faults
from fanwire.logs import name_of
from fanwire.wording import INTERNAL_ERROR, TOLD_BRIEFLY_BYTES_MAX, cut_reason, sendable

CLOSE_ERROR_BYTES_MAX = 4096
"""Of the error in a SignalR Close message, as the engine takes it."""
REFUSAL_BYTES_MAX = 1024
"""Of the text of a refusal: it is the body of an answer."""


class Endings:
    """For one serving; ``Link.endings`` leads here. Once that is over, nothing is done.

    Args:
        engine: gives the engine; None once the serving ended.
    """

    __slots__ = ("_engine", "_faults")

    def __init__(self, engine: Callable[[], Engine | None], faults: Faults) -> None:
        self._engine = engine
        self._faults = faults

    def refuse(self, connection: int, status: int, reason: object, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer a request that waits with an error, and with `headers` besides."""
        engine = self._engine()
        if engine is None:
            return
        if self._takes(engine.refuse, connection, status, sendable(reason, REFUSAL_BYTES_MAX), headers):
            return
        self._takes(engine.refuse, connection, 500, INTERNAL_ERROR)

    def close(self, connection: int, code: int, reason: object, *, is_hub: bool = False) -> None:
        """Close a client's connection; one of SignalR (`is_hub`) gets a Close message, which holds a longer reason."""
        cut = sendable(reason, CLOSE_ERROR_BYTES_MAX) if is_hub else cut_reason(reason)
        engine = self._engine()
        if engine is None:
            return
        for code_now, text in ((code, cut), (1011, INTERNAL_ERROR)):
            if self._takes(engine.disconnect, connection, code_now, text):
                return

    def fail_call(self, connection: int, id: str, text: object) -> None:
        """Answer a SignalR client's call with an error; where its id leaves no room for one, it is closed."""
        engine = self._engine()
        if engine is None:
            return
        for told in (sendable(text), sendable(text, TOLD_BRIEFLY_BYTES_MAX), INTERNAL_ERROR):
            if self._takes(engine.complete_error, connection, id, told):
                return
        self.close(connection, 1009, f"a call with an id of {len(id)} characters cannot be answered")

    def tell_error(self, connection: int, id: str | None, text: object) -> None:
        """Send a client of the raw protocol ``{"error": text}``, with the ``id``, as JSON text, of what it answers.

        Where that leaves no room for an answer, the client is closed.
        """
        engine = self._engine()
        if engine is None:
            return
        answered = "" if id is None else f'"id":{id},'
        for told in (sendable(text), sendable(text, TOLD_BRIEFLY_BYTES_MAX), INTERNAL_ERROR):
            if self._takes(engine.reply, connection, f'{{{answered}"error":{encode_json(told).decode()}}}'):
                return
        self.close(connection, 1009, f"a message with an id of {len(id or '')} characters cannot be answered")

    def _takes(self, call: Callable[..., object], connection: int, *arguments: object) -> bool:
        """Whether the engine takes it; what a client's own bytes made too big is no fault."""
        try:
            call(connection, *arguments)
        except PayloadTooBig:
            return False
        except BaseException as error:
            if ends_task(error):
                raise
            self._faults.note("endings", error, "client %s could not be told of an end", name_of(connection))
            return False
        return True
