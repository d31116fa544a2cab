"""Colours, and texts in them. They are read on light and on dark; nothing that somebody named is taken as markup."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from rich.text import Text

Moods: TypeAlias = Mapping[str, str]
"""The style of each mood."""
DARK: Moods = {
    "bad": "bold #ff7b8a",
    "warning": "#ffc66d",
    "good": "#7fd88f",
    "quiet": "#a0a8b4",
    "strong": "bold #ffffff",
}
LIGHT: Moods = {
    "bad": "bold #a0001c",
    "warning": "#753c00",
    "good": "#145a25",
    "quiet": "#41474f",
    "strong": "bold #000000",
}
"""Each has a contrast of 4.5 at least on its background."""


def is_light_terminal(environment: Mapping[str, str]) -> bool:
    """Whether the terminal says that its background is light, as some do by COLORFGBG."""
    background = environment.get("COLORFGBG", "").rpartition(";")[2]
    return background in ("7", "15")


def spoken(parts: Sequence[tuple[str, str]], moods: Moods, *, is_wrapped: bool = False) -> Text:
    """Pieces of text, each with its mood, as one: on one line unless it may be wrapped."""
    styled = ((text, moods.get(mood, "")) for text, mood in parts)
    return Text.assemble(*styled, no_wrap=not is_wrapped, overflow="fold" if is_wrapped else "ellipsis")


def cell(text: str, mood: str, is_number: bool, moods: Moods) -> Text:
    """What stands in one place of a table."""
    style = moods.get(mood, "")
    return Text(text, style=style, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
