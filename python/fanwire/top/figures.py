"""Numbers as a narrow column has them. What is not known is a dash."""

from fanwire.demo.figures import NONE, duration, size
from fanwire.wording import printable, shortened

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
TEXT_MAX = 512
"""Characters of anything that is shown in one place."""


def count(value: float | None) -> str:
    """A count in at most 6 characters: ``12,345``, ``1.2M``."""
    if value is None:
        return NONE
    if abs(value) < 99_999.5:
        return f"{value:,.0f}"
    for unit in ("k", "M", "G"):
        value /= 1_000
        if abs(value) < 999.5:
            return f"{value:.0f}{unit}" if abs(value) >= 99.95 else f"{value:.1f}{unit}"
    return f"{value / 1_000:.1f}T"


def rate(value: float | None) -> str:
    """How many a second: those below ten with one decimal."""
    return f"{value:.1f}" if value is not None and 0 < value < 9.95 else count(value)


def octets(value: float | None) -> str:
    """Bytes."""
    return NONE if value is None else size(value)


def octets_rate(value: float | None) -> str:
    """Bytes a second."""
    return NONE if value is None else f"{size(value)}/s"


def seconds(value: float | None) -> str:
    """A time in at most 7 characters: ``12.5 ms``, ``4.2 s``, ``3m 20s``, ``5h 02m``, ``12d 3h``."""
    if value is None or value < MINUTE_S:
        return duration(value if value is None else max(0.0, value)) if value != 0 else "0 s"
    whole = int(value)
    if whole < HOUR_S:
        return f"{whole // MINUTE_S}m {whole % MINUTE_S:02}s"
    if whole < DAY_S:
        return f"{whole // HOUR_S}h {whole % HOUR_S // MINUTE_S:02}m"
    return f"{whole // DAY_S}d {whole % DAY_S // HOUR_S}h"


def processors(value: float | None) -> str:
    """Of processor time a second: 1 is one processor that does nothing else."""
    return NONE if value is None else f"{100 * max(0.0, value):.0f} %"


def text(value: object) -> str:
    """What somebody named, as a terminal may have it: one line of it, with nothing that a terminal would obey."""
    return NONE if value is None or value == "" else printable(shortened(str(value), TEXT_MAX))
