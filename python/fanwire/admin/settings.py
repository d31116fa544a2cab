"""What this hub is set to, and where each value is from."""

from typing import Any

from fanwire.admin.config import AdminConfig
from fanwire.admin.desk import Desk
from fanwire.admin.shapes import Nothing, SettingRow, SettingsAnswer
from fanwire.options import ROWS
from fanwire.values import concealed

SECRET = "…"


class SettingsRoom:
    """What the endpoint of settings does."""

    def __init__(self, desk: Desk, config: AdminConfig) -> None:
        self._desk, self._config = desk, config

    async def all(self, query: Nothing) -> SettingsAnswer:
        """All of this worker's, which are those of all."""
        told = self._desk.told.settings  # of a file, the environment and options: all but what they leave alone
        rows = [SettingRow(key, value, source) for key, value, source in told]
        given, known = self._desk.life.plan.options, {row.key for row in rows}
        for name, row in ROWS.items():
            is_given = name in given
            if not told or not (is_given or f"limits.{name}" in known):
                source = "program" if is_given else "default"
                rows.append(SettingRow(name, text_of(given[name] if is_given else row.default), source))
        if not told:
            for pattern, channel in self._desk.life.plan.channels.items():
                rows.append(SettingRow(f"channel {pattern}", concealed(repr(channel)), "program"))
            rows.append(SettingRow("admin.token", "" if self._config.token is None else SECRET, "program"))
        return SettingsAnswer(rows)


def text_of(value: Any) -> str:
    """A value as it is told."""
    return concealed(value) if isinstance(value, str) else repr(value)
