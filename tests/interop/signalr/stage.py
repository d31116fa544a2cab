"""Runs a story with a client against a hub, and brings what the application saw into a form that two runs share."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients import Mode

STORIES = Path(__file__).parent / "stories"
STORY_WITHIN_S = 25
VOLATILE = {
    re.compile(r"[0-9a-f]{32}"): "<guid>",
    re.compile(r"[\w-]{22}"): "<connection id>",
}
"""Strings that every run makes anew; nothing else that the application sees is touched."""


@dataclass(frozen=True)
class Hub:
    """A hub of the reference's methods: at `{url}/live`, and at `{url}/members` for who has the token, user alice's."""

    url: str
    token: str


@dataclass(frozen=True)
class Seen:
    """What the application saw: messages in their order, what belongs to a call by its id, and the connection's life.

    Handlers and completions run side by side in .NET and Java, so that their order to each other is left out.
    """

    exit_status: int
    life: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    by_id: dict[str, list[dict[str, Any]]]


def commands(story: str, mode: Mode) -> str:
    """The story's lines without those that need what the client lacks."""
    kept = []
    for line in (STORIES / f"{story}.jsonl").read_text("utf-8").splitlines():
        if line.startswith("{"):
            command = json.loads(line)
            if not mode.lacks(command.pop("needs", [])):
                kept.append(json.dumps(command))
    return "\n".join(kept) + "\n"


def settled(value: Any) -> Any:
    """A value with what is volatile in it replaced."""
    if isinstance(value, dict):
        return {name: settled(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [settled(inner) for inner in value]
    if isinstance(value, str):
        return next((name for form, name in VOLATILE.items() if form.fullmatch(value)), value)
    return value


def seen(events: list[dict[str, Any]], exit_status: int) -> Seen:
    """Events of one run in the form that is compared."""
    life, messages, by_id = [], [], dict[str, list[dict[str, Any]]]()
    for event in map(settled, events):
        if event["ev"] in ("message", "asked"):
            messages.append(event)
        elif "id" in event:
            by_id.setdefault(event["id"], []).append(event)
        else:
            life.append(event)
    for id, about in by_id.items():
        if any(event["ev"] == "cancelled" for event in about):  # how many items came before the end is chance
            items = [event for event in about if event["ev"] == "item"][:2]
            by_id[id] = items + [event for event in about if event["ev"] != "item"]
    return Seen(exit_status, life, messages, by_id)


def driver(mode: Mode, url: str, token: str | None, *features: str) -> subprocess.Popen[str]:
    """A client that takes commands."""
    return subprocess.Popen(
        mode.command(url, token, *features),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


@contextmanager
def playing(story: str, mode: Mode, url: str, token: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """A client that plays the story, with its commands already given."""
    with driver(mode, url, token) as process:
        assert process.stdin
        try:
            process.stdin.write(commands(story, mode))
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str], before: list[str]) -> Seen:
    """Wait for the story's end; `before` are lines that were read already."""
    out, errors = process.communicate(timeout=STORY_WITHIN_S)
    events = [json.loads(line) for line in [*before, *out.split("\n")] if line]
    failures = [event for event in events if event["ev"] in ("failed", "timeout")]
    assert process.returncode == 0 and not failures, (process.returncode, failures or events[-3:], errors[-2000:])
    return seen(events, process.returncode)


def play(story: str, mode: Mode, url: str, token: str | None = None) -> Seen:
    """One client's run through a story."""
    with playing(story, mode, url, token) as process:
        return finish(process, [])


def play_pair(mode: Mode, url: str) -> tuple[Seen, Seen]:
    """What a listener sees, and a teller that comes once the listener is there."""
    with playing("listener", mode, url) as listener:
        assert listener.stdout
        first = listener.stdout.readline()
        assert json.loads(first)["ev"] == "started", first
        teller = play("teller", mode, url)
        return finish(listener, [first]), teller
