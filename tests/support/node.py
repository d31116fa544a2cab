"""Clients that Node runs; tests that need them are skipped where they are not installed."""

import shutil
from pathlib import Path

import pytest

NODE = Path(__file__).parents[1] / "interop" / "node"


def node_with(package: str) -> str:
    """The path of node, which has that package; skips the test where it has not."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    if not (NODE / "node_modules" / package).is_dir():
        pytest.skip(f"the npm package {package} is not installed: run `npm ci` in {NODE}")
    return found
