"""How a client is shown out, whatever went wrong. ✗ why.

Refusing and closing always end in the client being out: where the engine does not take the text, it gets another one.
"""

from collections.abc import Callable

from fanwire._engine import Engine
from fanwire.faults import Faults
from fanwire.methods import INTERNAL_ERROR
from fanwire.texts import cut_reason, sendable

REFUSAL_BYTES_MAX = 1024
"""Of the text of a refusal: it stands in a head."""


class Endings:
    """For one serving. Nothing here raises."""

    __slots__ = ("_engine", "_faults")

    def __init__(self, engine: Engine, faults: Faults) -> None:
        self._engine = engine
        self._faults = faults

    def refuse(self, connection: int, status: int, reason: object) -> None:
        """Answer a request that waits with an error."""
        text = sendable(reason, REFUSAL_BYTES_MAX)
        self._surely(
            f"client {connection} cannot be refused with status {status}",
            lambda: self._engine.refuse(connection, status, text),
            lambda: self._engine.refuse(connection, 500, INTERNAL_ERROR),
        )

    def close(self, connection: int, code: int, reason: object) -> None:
        """Close a client's connection; one of SignalR gets a Close message."""
        text = cut_reason(reason)
        self._surely(
            f"client {connection} cannot be closed with code {code}",
            lambda: self._engine.disconnect(connection, code, text),
            lambda: self._engine.disconnect(connection, 1011, INTERNAL_ERROR),
        )

    def _surely(self, what: str, first: Callable[[], None], then: Callable[[], None]) -> None:
        for attempt in (first, then):
            try:
                attempt()
                return
            except Exception as error:  # such as a status that there is not, or an engine that has just stopped
                self._faults.note("endings", error, "%s", what)
