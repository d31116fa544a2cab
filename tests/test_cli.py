"""The command line."""

import os
import subprocess
import sys

import fanwire
import pytest
from fanwire.cli.demo import GOAL_BURST, PAYLOAD_BYTES, move, payload, plan
from fanwire.cli.demo_figures import Figures, Match
from fanwire.cli.demo_screen import line, screen, summary


def fanwire_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m fanwire`` to its end."""
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    command = [sys.executable, "-m", "fanwire", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=inherited, timeout=50, check=False)


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


def test_the_plan_ticks_calmly_and_has_goals() -> None:
    rhythm = plan(30, 10_000)
    assert [at for at, _ in rhythm] == sorted(at for at, _ in rhythm)
    assert {count for _, count in rhythm} == {1, GOAL_BURST}
    assert 5 <= sum(count == GOAL_BURST for _, count in rhythm) <= 9
    assert rhythm[-1][0] < 30
    assert plan(0.01, 1) == [(0.0, 1)]


def test_the_payload_is_what_the_load_client_checks() -> None:
    text = payload(7, 123)
    assert len(text) == PAYLOAD_BYTES
    assert text.startswith("0000000007 000000 00000000000000000123 x")


def test_a_goal_counts_and_moves_the_odds() -> None:
    import random

    match = Match()
    before = list(match.odds)
    move(match, 0.5, random.Random(1), is_goal=True)
    assert sum(match.goals) == 1
    assert match.minute == 45
    assert match.odds != before


@pytest.mark.parametrize("phase", ["connecting", "playing", "done"])
def test_every_phase_can_be_drawn(phase: str) -> None:
    from rich.console import Console

    figures = Figures(clients=10, seconds=3, phase=phase, connections=7)
    figures.connected = {"connected": 10}
    figures.complete = {"received": 5, "expected": 5, "gaps": 0, "latency_us": {"p50": 1.0}} if phase == "done" else {}
    figures.publications, figures.deliveries, figures.writes = 5, 50, 10
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(screen(figures, (0.001, float("inf"))))
    console.print(summary(figures))
    console.file.close()
    text = console.export_text()
    assert "7 clients" in text
    assert "50 writes" in text
    assert line(figures)


@pytest.mark.timeout(60)
def test_demo_without_a_terminal_prints_lines_and_ends() -> None:
    done = fanwire_command("demo", "--clients", "50", "--seconds", "2")
    assert done.returncode == 0, done.stderr
    assert "50 clients" in done.stdout
    assert "gaps, reordered" in done.stdout
