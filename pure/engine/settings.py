"""Settings cross once, as one frozen object; what there is to be set stands in a table of plain values."""

import json
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

from .names import check_pattern, is_match

MADE = json.loads(Path(__file__).with_name("table.json").read_text(encoding="utf-8"))
"""Of the compiled engine's table, by tests/support/settings_page.py."""
VERSION: str = MADE["version"]


class Setting:
    """What there is to know of a setting: one row of the table."""

    __slots__ = (
        "choices",
        "cost",
        "default",
        "group",
        "kind",
        "least",
        "limits",
        "meaning",
        "most",
        "must",
        "name",
        "scope",
        "usual",
    )
    name: str
    scope: str
    group: str
    meaning: str
    kind: str
    least: float
    most: float
    choices: list[str]
    must: str
    limits: str
    default: Any
    usual: str
    cost: str

    def __init__(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, tuple(value) if name == "default" and isinstance(value, list) else value)


TABLE = [Setting(values) for values in MADE["rows"]]
ENGINE = {row.name: row for row in TABLE if row.scope == "engine" or row.name == "shards"}
CHANNEL = {row.name: row for row in TABLE if row.scope == "channel" and row.kind != "other"}


def settings_table() -> list[Setting]:
    """All that can be set, a row each."""
    return list(TABLE)


def number_text(kind: str, least: float, most: float) -> str:
    """What a number of a kind (``Setting.kind``) must be, between two bounds, in words."""
    from_, to = (_grouped(bound) for bound in (least, most))
    match kind:
        case "seconds":
            return f"a number of seconds, {from_} or more" if most == inf else f"a number of seconds, {from_} to {to}"
        case "bytes":
            return f"a whole number of bytes, {from_} to {to}"
        case "whole":
            return f"a whole number, {from_} to {to}"
        case "permissions":
            return f"permissions, {int(least):#o} to {int(most):#o}"
    raise ValueError(f"there is no kind of number {kind!r}")


def _grouped(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else f"{number:,.10g}"


def _checked(rows: dict[str, Setting], values: dict[str, Any]) -> dict[str, Any]:
    """The values of all rows. Raises ValueError for an unknown name and for a value out of its range."""
    for name, value in values.items():
        row = rows.get(name)
        if row is None:
            raise ValueError(f'there is no setting "{name}"')
        if not (value is None and row.default is None) and not _takes(row, value):
            must = row.must + " or None" * (row.default is None)
            raise ValueError(f"{name} must be {must}, not {value!r}")
    return {name: row.default for name, row in rows.items()} | values


def _takes(row: Setting, value: Any) -> bool:
    match row.kind:
        case "truth":
            return isinstance(value, bool)
        case "choice":
            return value in row.choices
        case "other":
            return isinstance(value, str | list | tuple)
    is_number = isinstance(value, int | float if row.kind == "seconds" else int) and not isinstance(value, bool)
    return is_number and row.least <= value <= row.most


class Promise:
    """What one channel promises."""

    __slots__ = (
        "backlog_age_ns",
        "backlog_bytes",
        "backlog_frames",
        "filters_max",
        "history",
        "history_age_ns",
        "history_bytes",
        "policy",
        "snapshot_ns",
        "start",
        "tells_presence",
    )

    def __init__(self, values: dict[str, Any], *, presence: bool, snapshot: float | None) -> None:
        self.policy: str = values["policy"]
        self.start: str = values["start"]
        self.backlog_bytes: int = values["backlog_bytes"]
        self.backlog_frames: int = values["backlog_frames"]
        self.backlog_age_ns = _ns(values["backlog_age"])
        self.history: int = values["history"]
        self.history_bytes: int = values["history_bytes"]
        self.history_age_ns = _ns(values["history_age"])
        self.filters_max: int = values["filters_max"]
        self.tells_presence = presence
        self.snapshot_ns = None if snapshot is None else _ns(snapshot)
        """For so long a snapshot is fresh; None where the application gives none."""


def _ns(seconds: float | None) -> float:
    return inf if seconds is None else seconds * 1e9


class ChannelRule:
    """What the channels promise whose name matches `pattern`; the first match wins. `values` are the table's."""

    __slots__ = ("pattern", "presence", "values")

    def __init__(self, pattern: str, *, presence: bool = False, **values: Any) -> None:
        check_pattern(pattern)
        self.pattern = pattern
        self.presence = presence
        values.pop("presence_linger", None)
        self.values = _checked(CHANNEL, values)


class Settings:
    """All limits and options of an engine, frozen; `values` are the table's. A bad one is a ``ValueError``."""

    def __init__(
        self,
        *,
        channels: Sequence[ChannelRule] = (),
        snapshots: Sequence[tuple[str, float]] = (),
        tell_details: bool = False,
        descriptors_spare: int = 0,
        worker: int = 0,
        siblings: tuple[str, bytes] | None = None,
        verify_compression: bool = False,
        **values: Any,
    ) -> None:
        for pattern, _ in snapshots:
            check_pattern(pattern)
        self._channels, self._snapshots = tuple(channels), tuple(snapshots)
        values = _checked(ENGINE, values)
        self.channels_max: int = values["channels_max"]
        self.close_timeout: float = values["close_timeout"]
        self.publication_bytes_max: int = values["publication_bytes_max"]
        self.unsent_bytes_max: int = values["unsent_bytes_max"]
        self.subscriptions_max: int = values["subscriptions_max"]

    def promise(self, name: str) -> Promise:
        """What the channel of this name promises."""
        rule = next((rule for rule in self._channels if is_match(rule.pattern, name)), DEFAULT)
        snapshot = next((interval for pattern, interval in self._snapshots if is_match(pattern, name)), None)
        return Promise(rule.values, presence=rule.presence, snapshot=snapshot)


DEFAULT = ChannelRule("*")
