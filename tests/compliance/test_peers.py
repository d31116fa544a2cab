"""Peers' own tests with ours in their place, those that tell most: two minutes. `make peers` runs the others as well.

They are run from checkouts or source packages in the folder that PEERS names; nothing of them is here.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
PEERS = Path(os.environ.get("PEERS") or HERE.parent / "peers")
TELLING = ["websockets", "starlette", "fastapi", "python-socketio"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", TELLING)
def test_a_peer_s_own_tests_pass_with_ours(name: str) -> None:
    if not (PEERS / name / "tests").is_dir():
        pytest.skip(f"no sources of {name}: name a folder that has them as {name}/ in PEERS")
    paths = os.pathsep.join([str(HERE.parent / "python"), str(HERE)])
    command = [sys.executable, str(HERE / "peers" / "run.py"), str(PEERS), name]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
