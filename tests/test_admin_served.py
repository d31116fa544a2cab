"""``fanwire serve`` has an admin side without being told: the shell finds it, and it tells what is set and by what."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fanwire.cli.instance import Instance
from support.raw import free_port
from support.waiting import until_in_thread
from support.workers import Program, runtime_of, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FILE = """
[[relay]]
path = "/live"
upstream = "http://127.0.0.1:9/live"

[limits]
ping_interval = "7s"

[admin]
listen = "127.0.0.1:{port}"
token = {{ env = "A_TOKEN" }}
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_shell_finds_what_serves_and_what_it_is_set_to(
    workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, secret = free_port(), "a-secret-of-some-length"
    monkeypatch.setenv("A_TOKEN", secret)
    (tmp_path / "fanwire.toml").write_text(FILE.format(port=port))
    command = [sys.executable, "-W", "ignore", "-m", "fanwire", "serve", "fanwire.toml"]
    options = ["--listen", "127.0.0.1:0", "--workers", workers]
    program = Program(started([*command, *options], tmp_path))
    try:
        program.until("serving on")
        environment = {"XDG_RUNTIME_DIR": runtime_of(tmp_path), "FANWIRE_ADMIN__TOKEN": secret}
        instance = Instance(None, environment)
        assert instance.address.startswith("unix:")
        until_in_thread(lambda: len(instance.get("/api/stats")["workers"]) == max(int(workers), 1), 60)
        rows = {row["key"]: row for row in instance.get("/api/settings")["settings"]}
        assert rows["relay[0].path"] == {"key": "relay[0].path", "value": "/live", "source": "file:3"}
        assert (rows["limits.ping_interval"]["value"], rows["limits.ping_interval"]["source"]) == ("7.0", "file:7")
        assert rows["listen.workers"]["source"] == "--workers" and rows["drain.timeout"]["source"] == "default"
        assert rows["admin.token"]["value"] == "…" and secret not in json.dumps(rows)
        assert [row["path"] for row in instance.get("/api/relays")["relays"]] == ["/live"] * max(int(workers), 1)
        assert instance.get("/api/lanes") == {"lanes": [], "next": None, "silent": []}
        assert Instance(f"127.0.0.1:{port}", environment).get("/api/workers")["workers"]
        asked = [sys.executable, "-W", "ignore", "-m", "fanwire", "stats", "--json"]
        done = subprocess.run(
            asked, capture_output=True, text=True, env={**environment, "PATH": "/usr/bin"}, check=True
        )
        assert json.loads(done.stdout)["connections"] == 0
    finally:
        program.end()
