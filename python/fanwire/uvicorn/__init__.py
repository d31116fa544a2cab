"""WebSocket protocols for uvicorn, whose connections a hub can take over the writing of.

``uvicorn app:app --ws fanwire.uvicorn:Protocol`` does framing, receiving and compression in Rust. `Sansio` is
uvicorn's own protocol. Both have one key more in the scope of a WebSocket: docs/scope.md. Needs uvicorn, and `Sansio`
needs websockets, which the extra ``uvicorn`` brings.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fanwire.logs import hub_log
from fanwire.stand_in import IS_STAND_IN

if TYPE_CHECKING:
    from fanwire.uvicorn.protocol import Protocol
    from fanwire.uvicorn.sansio import Sansio

__all__ = ["Protocol", "Sansio"]


def __getattr__(name: str) -> Any:
    """One of the protocols, imported when it is asked for: the first needs no websockets, and the engine."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    asked = name
    if name == "Protocol" and IS_STAND_IN:
        hub_log.warning("fanwire.uvicorn:Protocol needs fanwire's engine, which is not installed here: this is Sansio")
        name = "Sansio"
    try:
        found = globals()[asked] = getattr(import_module(f"{__name__}.{name.lower()}"), name)  # it is asked for once
        return found
    except ImportError as error:
        raise ImportError(f"fanwire.uvicorn needs {error.name}: pip install 'fanwire[uvicorn]'") from error
