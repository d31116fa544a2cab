"""Numbers as a person reads them, with their units; ``–`` where there is none."""

NONE = "–"


def number(value: float) -> str:
    """A count."""
    return f"{value:,.0f}"


def size(count: float) -> str:
    """Bytes."""
    for unit in ("B", "kB", "MB"):
        if count < 999.95:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def rate(count: float, seconds: float) -> str:
    """Bytes a second."""
    return f"{size(count / seconds if seconds else 0)}/s"


def ratio(larger: float, smaller: float) -> str:
    """How many times as much."""
    return f"{larger / smaller:,.0f} : 1" if smaller and larger else NONE


def percent(share: float | None) -> str:
    """A share."""
    return NONE if share is None else f"{100 * max(0.0, share):.1f} %"


def saved(value: float, beside: float) -> str:
    """How much less it is, or how much more."""
    if not beside:
        return NONE
    share = 1 - value / beside
    return f"{percent(abs(share))} {'less' if share >= 0 else 'more'}"


def duration(seconds: float | None) -> str:
    """A time."""
    if seconds is None:
        return NONE
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return (
        f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    )
