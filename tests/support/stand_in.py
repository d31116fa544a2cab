"""The pure-Python stand-in for the engine, beside the engine itself in one process; and the wheel that has it."""

import subprocess
import sys
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "pure" / "engine"


def load_stand_in() -> Any:
    """The package, under a name of its own."""
    name = "fanwire_stand_in"
    if name not in sys.modules:
        spec = spec_from_file_location(name, SOURCES / "__init__.py", submodule_search_locations=[str(SOURCES)])
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def build_wheel(folder: Path) -> Path:
    """The pure-Python wheel, made in a folder."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpack(wheel: Path, folder: Path) -> Path:
    """What is in a wheel, as it is when installed."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
