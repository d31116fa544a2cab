"""The web console in a tab of Chromium, driven by Playwright; tests that need it are skipped where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.chromium import CHROMIUM

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PATIENCE_MS = 30_000
"""For what is to come; nothing is asserted of how long it takes."""


@contextmanager
def open_browser() -> Iterator[Any]:
    """One for several tabs; skips the test where there is none."""
    if not CHROMIUM:
        pytest.skip("there is no Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield opened
        finally:
            opened.close()


class Console:
    """The console in a tab."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self._address = address
        self.complaints: list[str] = []
        """What the browser complains of: what failed in a script, and what the policy forbids."""
        page.on("console", lambda line: line.type in ("error", "warning") and self._note(line.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, text: str) -> None:
        if not text.startswith("Failed to load resource"):  # a problem of the API is told so, too
            self.complaints.append(text)

    @classmethod
    @contextmanager
    def opened(cls, browser: Any, address: str, place: str = "overview", **options: Any) -> Iterator[Console]:
        """One with a profile of its own."""
        context = browser.new_context(**{"viewport": {"width": 1_440, "height": 900}, **options})
        try:
            context.set_default_timeout(PATIENCE_MS)
            console = cls(context.new_page(), address)
            console.go(place)
            yield console
        finally:
            context.close()

    def go(self, place: str) -> None:
        """To what stands behind ``#/``."""
        self.page.goto(f"http://{self._address}/console#/{place}")

    def sees(self, text: str) -> None:
        """Wait until this text is shown somewhere, as it stands."""
        self.page.wait_for_function("(text) => document.body.innerText.includes(text)", arg=text)
