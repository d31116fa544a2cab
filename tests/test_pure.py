"""The pure-Python wheel: what is in it, which machines get it, and that programs and their tests run by it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.stand_in import ROOT, build_wheel, unpack

EVERYWHERE = "not uvloop and not trio and not the_engine_writes and not of_a_hub_gets_all_in_the_order_of_the_calls"
"""By plain sends nothing is said of the order between what the program sends and what is published."""
SUITES = {
    "adapters": (["test_adopt_plain.py", "test_fastapi.py", "test_scope.py"], EVERYWHERE),
    "compat": ([f"test_compat_{name}.py" for name in ("broadcaster", "channels", "litestar", "socketio")], EVERYWHERE),
    "examples": (["test_examples.py"], "tests_of_a_fastapi_program or what_is_said_in_a_room"),
    "refusals": (["pure"], ""),
}
"""What runs by it as it does by the engine: files, and which tests of them, on asyncio where nothing else is said."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip would leave it."""
    return unpack(wheel, tmp_path_factory.mktemp("installed"))


def run(installed: Path, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Python, to which fanwire is what was installed."""
    variables = {**os.environ, "PYTHONPATH": str(installed), "FANWIRE_POLLER": "epoll"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("suite", SUITES)
def test_the_tests_of_what_needs_no_listener_pass(installed: Path, suite: str) -> None:
    files, chosen = SUITES[suite]
    options = ["-m", "not soak", "-k", chosen, "-p", "no:cacheprovider"]
    ended = run(installed, "-m", "pytest", "-q", *options, *(f"tests/{name}" for name in files), timeout=180)
    assert ended.returncode == 0, ended.stdout[-4000:]


def test_sources_have_one_engine_and_the_wheel_the_other(installed: Path) -> None:
    """maturin takes all that is in python/: no installation with the engine can come to use the stand-in."""
    assert not (ROOT / "python" / "fanwire" / "_engine").exists()
    names = {path.name for path in (installed / "fanwire").iterdir()}
    assert "_engine" in names and not [name for name in names if name.startswith("_engine.")]
    assert (installed / "fanwire" / "_engine" / "__init__.pyi").is_file()
    assert (installed / "fanwire" / "py.typed").is_file()
    ended = run(installed, "-c", "from fanwire import _engine; print(_engine.__file__)")
    assert ended.stdout.split()[0] == str(installed / "fanwire" / "_engine" / "__init__.py"), ended.stderr


def test_both_installed_over_one_another_is_refused(installed: Path, tmp_path: Path) -> None:
    both = shutil.copytree(installed, tmp_path / "both")
    (both / "fanwire" / "_engine.abi3.so").touch()
    ended = run(both, "-c", "import fanwire")
    assert "fanwire is installed twice" in ended.stderr and "pip uninstall fanwire" in ended.stderr


PLATFORMS = {
    "manylinux_2_28_x86_64": "cp311-abi3",
    "manylinux_2_28_aarch64": "cp311-abi3",
    "macosx_14_0_arm64": "py3-none",
    "win_amd64": "py3-none",
    "musllinux_1_2_x86_64": "py3-none",
}


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
def test_pip_takes_the_engine_where_there_is_one(wheel: Path, tmp_path: Path, platform: str) -> None:
    """Only the names of wheels count for that: here they are all the same within."""
    index = tmp_path / "index" / "fanwire"
    index.mkdir(parents=True)
    version = wheel.name.split("-")[1]
    names = [wheel.name]
    names += [f"fanwire-{version}-cp311-abi3-manylinux_2_28_{machine}.whl" for machine in ("x86_64", "aarch64")]
    for name in names:
        shutil.copy(wheel, index / name)
    (index / "index.html").write_text("".join(f'<a href="{name}">{name}</a>\n' for name in names))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--index-url", (tmp_path / "index").as_uri(), "--dest", str(tmp_path / "got"), "--platform", platform]
    ended = subprocess.run([*command, "fanwire"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    (got,) = (tmp_path / "got").iterdir()
    assert got.name.split("-", 2)[2].startswith(PLATFORMS[platform])


@pytest.mark.slow
def test_it_is_installed_without_rust(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path)]
    subprocess.run(
        [*command, "--find-links", str(wheel.parent), "fanwire"], check=True, env={"PATH": "/nowhere"}, timeout=60
    )
    ended = run(tmp_path, "-c", "from fanwire.stand_in import IS_STAND_IN; print(IS_STAND_IN)")
    assert ended.stdout == "True\n", ended.stderr


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_it_runs_without_what_linux_alone_has(installed: Path, platform: str) -> None:
    """What those systems lack is hidden, after the libraries that look at it themselves are imported."""
    ended = run(installed, "-W", "error", str(ROOT / "tests" / "support" / "elsewhere.py"), platform)
    assert ended.returncode == 0 and ended.stdout == f"{platform}: all is well\n", ended.stdout + ended.stderr
