"""The command line."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import fanwire
import pytest
from fanwire.loglines import PairLines, TerminalLines


def fanwire_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m fanwire`` to its end."""
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    command = [sys.executable, "-m", "fanwire", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=inherited, timeout=100, check=False)


def test_version() -> None:
    done = fanwire_command("--version")
    assert done.stdout.strip() == fanwire.__version__
    assert done.returncode == 0


def test_an_unknown_command_is_an_error() -> None:
    assert fanwire_command("dmeo").returncode != 0


def test_load_hands_everything_over_and_gives_the_exit_code_back() -> None:
    helped = fanwire_command("load", "--help")
    assert "--connections" in helped.stdout
    assert helped.returncode == 0
    refused = fanwire_command("load", "--url", "gopher://x", "--connections", "1")
    assert "gopher" in refused.stderr
    assert refused.returncode == 2


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_the_demo_counts_what_it_did_with_the_relay_and_without() -> None:
    done = fanwire_command("demo", "--clients", "60", "--matches", "5", "--seconds", "5")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"│ +(\S.*?) {2,}(\S.*?) *│", done.stdout))
    assert rows["clients"].split() == ["60", "60"]
    assert rows["connections at the backend"].split()[:2] == ["6", "60"]
    due = rows["messages that clients are due"].split()
    assert rows["messages that arrived"].split() == [*due, "each", "of", "them"]
    assert all(int(count.replace(",", "")) > 60 for count in due)
    told = " ".join(done.stdout.replace("│", " ").split())
    assert "60 of 60 clients stayed connected" in told
    assert "all 6 connections were back" in told


@pytest.mark.slow
def test_an_interrupted_demo_leaves_no_process() -> None:
    inherited = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "FANWIRE_DEMO_MARK": str(os.getpid()),
    }
    command = [sys.executable, "-m", "fanwire", "demo", "--clients", "20", "--seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=inherited) as demo:
        assert demo.stdout is not None
        assert any(" odds " in line and " 20 clients" in line for line in demo.stdout)
        children = marked(f"FANWIRE_DEMO_MARK={os.getpid()}")
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
    assert len(children) == 5
    assert marked(f"FANWIRE_DEMO_MARK={os.getpid()}") == []


def marked(variable: str) -> list[int]:
    """Processes that inherited a variable."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue  # it is another's, or has just ended
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("-c", "import fanwire, sys; fanwire.Hub().run(sys.argv[1])"),
        ("-m", "fanwire", "serve", "--upstream", "http://127.0.0.1:9/live", "--listen"),
    ],
    ids=["run", "serve"],
)
def test_a_port_that_is_taken_ends_the_program_with_one_line(command: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
        run = [sys.executable, *command, address]
        done = subprocess.run(run, capture_output=True, text=True, env=inherited, timeout=100, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"fanwire: cannot listen on {address}: Address already in use (errno 98)"


@pytest.mark.parametrize("formatter", [TerminalLines(), PairLines()], ids=["for a terminal", "pairs"])
@pytest.mark.parametrize("name", ["relay", "engine"])
def test_what_a_peer_wrote_moves_no_cursor_where_the_log_is_read(formatter: logging.Formatter, name: str) -> None:
    """A backend's close reason may hold ESC and the like, and a client's arguments the controls that JSON leaves."""
    log = logging.getLogger(f"fanwire.{name}")
    record = log.makeRecord(log.name, 30, "", 0, "%s is down: %s", ("l", "a\x1b[2Jb\x9b1mc\u2028d\re\x7f"), None)
    assert log.filter(record)
    line = formatter.format(record)
    assert line.isprintable() and "a [2Jb 1mc d e " in line
    if name == "relay":
        assert record.getMessage().isprintable(), "whoever else writes it"
