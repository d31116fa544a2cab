"""The files of deploy/: what a test can hold them to without systemd or Docker at work."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fanwire.cli.options import settings
from fanwire.config.kinds import Secret

ROOT = Path(__file__).parents[1]
SYSTEMD = ROOT / "deploy/systemd"
CONTAINER = ROOT / "deploy/container"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_has_no_complaint_of_the_unit(tmp_path: Path) -> None:
    for name in ("fanwire.service", "fanwire.socket"):
        text = (SYSTEMD / name).read_text().replace("/opt/fanwire/bin/fanwire", sys.executable)
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    ours = [line for line in done.stderr.splitlines() if "fanwire" in line]
    assert ours == []


def test_what_the_unit_runs_is_a_command() -> None:
    unit = (SYSTEMD / "fanwire.service").read_text()
    commands = re.findall(r"^Exec\w+=/opt/fanwire/bin/fanwire (.*)$", unit, re.MULTILINE)
    assert commands == [
        "check /etc/fanwire/fanwire.toml --workers auto",
        "serve /etc/fanwire/fanwire.toml --listen systemd --workers auto",
        "restart",
    ]


def test_the_relay_of_the_example_can_be_served() -> None:
    config = settings(CONTAINER / "fanwire.toml", {"FANWIRE_LISTEN__ADDRESS": ":8000"}, {})
    assert [relay.path for relay in config.relay] == ["/live"]
    assert config.listen.address == "[::]:8000"


def test_the_relays_of_two_machines_share_what_they_hold() -> None:
    text = (CONTAINER / "machines.yaml").read_text()
    variables = dict(re.findall(r"^ +(FANWIRE_\w+): (\S+)$", text, re.MULTILINE))
    config = settings(CONTAINER / "fanwire.toml", {"FANWIRE_LISTEN__ADDRESS": ":8000"} | variables, {})
    assert config.backbone.url == Secret("redis://redis:6379")
    assert [relay.lanes.machines for relay in config.relay] == ["shared"]


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    dockerfile = (CONTAINER / "Dockerfile").read_text()
    kept = {line[1:] for line in (CONTAINER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE) for name in line.split()
    }
    assert copied == kept
    for name in copied:
        assert (ROOT / name).exists(), name
