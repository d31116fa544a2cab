"""Whether the engine is the compiled one, or the pure-Python stand-in for it, which writes to no framework's socket."""

import sys

from fanwire._engine import build_info
from fanwire.errors import EngineMissing
from fanwire.logs import hub_log

IS_STAND_IN = build_info()["profile"] == "pure"
"""True on machines for which there is no wheel with the engine: ``pure/engine``."""
_told: list[bool] = []


def require_engine(what: str) -> None:
    """Raise EngineMissing where this is the stand-in, which does not have `what`."""
    if IS_STAND_IN:
        raise EngineMissing(what)


def tell_once() -> None:
    """Say in the log, once a process, that this is no installation for production."""
    if IS_STAND_IN and not _told:
        _told.append(True)
        hub_log.warning(
            "fanwire runs without its engine, by the pure-Python stand-in for development and tests (%s): "
            "what is attached is written to by its framework, and nothing listens",
            sys.platform,
        )
