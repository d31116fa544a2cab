"""Where a setting stands: in the tree of settings, and as an environment variable."""

from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""``("relay", 0, "linger")``: names of keys, and indices of lists."""

PREFIX = "FANWIRE_"


def dotted(path: Path) -> str:
    """``relay[0].linger``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def variable(path: Path) -> str:
    """``FANWIRE_RELAY__0__LINGER``."""
    return PREFIX + "__".join(str(part).upper().replace("-", "_") for part in path)
