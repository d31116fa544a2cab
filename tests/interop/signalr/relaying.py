"""A process of `fanwire serve` in front of a real hub, and what of a client's story it may change."""

import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from stage import Seen

READY_WITHIN_S = 20
PATHS = ("/live", "/members", "/broken", "/elsewhere")
CONFIGURATION = """\
[listen]
address = "{address}"

[log]
level = "debug"
"""
RELAY = """
[[relay]]
path = "{path}"
trusted_proxies = ["127.0.0.1"]
upstream = "{upstream}{path}"
{more}

[[relay.share]]
subscribe = "Subscribe"
unsubscribe = "Unsubscribe"
snapshot = "Snapshot"

[relay.everyone]
targets = ["Announcement"]
"""


@contextmanager
def relay(
    upstream: str, directory: Path, *, paths: tuple[str, ...] = PATHS, more: str = "", address: str = "127.0.0.1:0"
) -> Iterator[str]:
    """A relay in front of the hub at `upstream`; gives its address. Its log is `relay.log` in the directory."""
    with relay_process(upstream, directory, paths=paths, more=more, address=address) as (_, bound):
        yield bound


@contextmanager
def relay_process(
    upstream: str, directory: Path, *, paths: tuple[str, ...] = PATHS, more: str = "", address: str = "127.0.0.1:0"
) -> Iterator[tuple[subprocess.Popen[Any], str]]:
    """The same, with its process, which may be killed."""
    relays = "".join(RELAY.format(path=path, upstream=upstream, more=more) for path in paths)
    with serving(CONFIGURATION.format(address=address) + relays, directory) as served:
        yield served


@contextmanager
def serving(configuration: str, directory: Path) -> Iterator[tuple[subprocess.Popen[Any], str]]:
    """`fanwire serve` with this file: its process, and its address. Its log is `relay.log` in the directory."""
    file = directory / "fanwire.toml"
    file.write_text(configuration)
    log = directory / "relay.log"
    with log.open("w") as errors:
        process = subprocess.Popen([sys.executable, "-m", "fanwire", "serve", str(file)], stderr=errors)
    try:
        yield process, address_in(log, process)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def address_in(log: Path, process: subprocess.Popen[Any]) -> str:
    """Where the relay says that it listens."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"serving on (127\.0\.0\.1:\d+)", log.read_text())
        if found:
            return found[1]
        select.select([], [], [], 0.01)
    raise AssertionError(f"the relay never listened: {log.read_text()[-2000:]}")


def through_relay(seen: Seen) -> Seen:
    """What a client saw, as it sees it through a relay: to the hub its connection is a WebSocket of the relay's."""

    def told(value: Any) -> Any:
        if isinstance(value, dict):
            changed = {name: told(inner) for name, inner in value.items()}
            for name, other in (("transport", "WebSockets"), ("forwardedFor", "127.0.0.1")):
                for cased in (name, name[0].upper() + name[1:]):
                    if cased in changed and {"user", "User"} & changed.keys():
                        changed[cased] = other
            return changed
        return [told(inner) for inner in value] if isinstance(value, list) else value

    return replace(seen, by_id=told(seen.by_id))
