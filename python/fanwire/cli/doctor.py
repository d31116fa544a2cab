"""``fanwire doctor``: whether this machine, and what a file names, are as they should be; and what to do."""

import ctypes
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from fanwire.cli import reaching
from fanwire.cli.config import ServeConfig
from fanwire.cli.machine import holds, lacks, this_machine
from fanwire.cli.options import settings
from fanwire.cli.telling import complain
from fanwire.options import count_of_workers
from fanwire.serving import RELAY_DESCRIPTORS_SPARE
from fanwire.values import TABLE

CLIENTS = 10_000
SLOW_CLOCKS = ("acpi_pm", "hpet", "jiffies", "refined-jiffies")
UNSYNCHRONIZED = 5
"""What adjtimex(2) returns where nothing sets the clock."""
TIMEX_BYTES = 512
"""More than its argument has on any machine."""
MODULE = "modprobe tcp_bbr, then "
WORDS = {"ok": "ok  ", "note": "note", "bad": "BAD "}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Literal["ok", "note", "bad"]
    """``bad`` keeps it from serving as it is meant to; ``note`` is worth a look."""
    about: str
    found: str
    todo: str = ""
    """What to do about it."""


def doctor(
    file: Path | None = None,
    /,
    *,
    workers: str | None = None,
    clients: Annotated[int, Parameter(validator=validators.Number(gte=0))] = CLIENTS,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Look at this machine, and at what a file of `fanwire serve` names; tell what is wrong, and what to do.

    Exit status 1: something is bad. It changes nothing. Upstreams are asked as lanes do, once each.

    Args:
        file: the TOML file; without it the machine alone is looked at.
        workers: as `fanwire serve` is given it.
        clients: so many have to fit.
        as_json: a JSON array of objects instead of lines.
    """
    config = ServeConfig()
    if file is not None:
        try:
            config = settings(file, os.environ, {} if workers is None else {"workers": workers})
        except (ExceptionGroup, OSError, UnicodeDecodeError) as error:
            complain(file, error)
    found = [*of_machine(config, clients), *of_network(), *of_clock(), *of_config(config)]
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    else:
        for line in told(found):
            print(line)
    if any(one.level == "bad" for one in found):
        raise SystemExit(1)


def told(found: Iterable[Finding]) -> Iterator[str]:
    """A line for each, and one for what to do."""
    for one in found:
        yield f"{WORDS[one.level]}  {one.about}: {one.found}"
        if one.todo:
            yield f"      → {one.todo}"


def of_machine(config: ServeConfig, clients: int, root: Path = Path("/")) -> Iterator[Finding]:
    """Descriptors, the backlog, memory and what else bounds so many clients, as ``fanwire check`` has it."""
    machine, processes = this_machine(root), count_of_workers(config.listen.workers)
    spare = RELAY_DESCRIPTORS_SPARE if config.relay else 0
    yield Finding("ok", "descriptors", holds(machine, processes, spare).removeprefix("descriptors: "))
    backlog = dict(config.limits).get("backlog", TABLE["backlog"].default)
    short = list(lacks(machine, clients, processes, spare, backlog))
    for line in short:
        about, _, what = line.partition(": ") if line.startswith(("descriptors", "memory")) else line.partition(" is ")
        todo = "docs/million.md has all limits; deploy/sysctl/90-fanwire.conf raises those of the kernel"
        yield Finding("bad", about, f"too little for {clients:,} clients: {what}", todo)
    if not short:
        yield Finding("ok", "limits", f"allow {clients:,} clients: files, backlog, sockets that are waited for, memory")


def of_network(root: Path = Path("/")) -> Iterator[Finding]:
    """What the kernel's TCP has met since it booted, and how it sends."""
    proc = root / "proc"
    counts = _netstat(proc / "net/netstat")
    overflows = counts.get("ListenOverflows", 0)
    if overflows:
        todo = "raise net.core.somaxconn and limits.backlog, or add workers: clients had to try again, a second later"
        yield Finding("note", "backlog", f"{overflows:,} connects found a queue full since boot", todo)
    elif counts:
        yield Finding("ok", "backlog", "no connect has found a queue full since boot")
    pages, bound = _tcp_pages(proc)
    if pages is not None and bound:
        used = f"{pages:,} of {bound:,} pages of TCP's buffers are in use"
        is_short = pages * 10 > bound * 8
        todo = "raise net.ipv4.tcp_mem: beyond it sends wait, and all clients lag" if is_short else ""
        yield Finding("note" if is_short else "ok", "buffers", used, todo)
    control = _text(proc / "sys/net/ipv4/tcp_congestion_control")
    known = _text(proc / "sys/net/ipv4/tcp_available_congestion_control")
    if control:
        todo = ""
        if control != "bbr":
            how = 'limits.congestion_control = "bbr"'
            todo = (
                f"bbr may keep clients on lossy networks from lagging: {'' if 'bbr' in known.split() else MODULE}{how}"
            )
        yield Finding("ok", "congestion control", f"{control} (there are: {known})", todo)


def of_clock(root: Path = Path("/"), is_set: bool | None = None) -> Iterator[Finding]:
    """Whether something sets the clock, and whether it is quick to read."""
    is_set = _is_clock_set() if is_set is None else is_set
    if is_set is False:
        todo = "run chrony or systemd-timesyncd: `exp` of tokens and the lag of sources are compared with other clocks"
        yield Finding("note", "clock", "nothing sets it", todo)
    elif is_set:
        yield Finding("ok", "clock", "is kept in time")
    source = _text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source in SLOW_CLOCKS:
        todo = "boot with tsc or kvm-clock where the machine has it: each look at the time is a system call"
        yield Finding("note", "clock source", f"{source} is slow", todo)
    elif source:
        yield Finding("ok", "clock source", source)


def of_config(config: ServeConfig) -> Iterator[Finding]:
    """Upstreams and the backbone: whether they can be reached from here."""
    for name, why, status in reaching.upstreams(config.relay):
        if not why:
            yield Finding("ok", f"upstream {name}", "takes connections")
        elif status in (401, 403):
            todo = "lanes.token or lanes.headers say who the relay is; what clients show is passed on for them alone"
            yield Finding("note", f"upstream {name}", f"{why}: it is there, and does not know us", todo)
        elif status == 404:
            yield Finding(
                "bad", f"upstream {name}", why, "is its path right, and is it a hub? See `protocol`, `negotiate`"
            )
        else:
            yield Finding("bad", f"upstream {name}", why, "is it running, and may this machine connect to it?")
    if config.backbone.url is not None:
        for address, why in reaching.backbone(config.backbone.url.reveal()):
            todo = "" if not why else "is it running, and may this machine connect to it?"
            yield Finding("bad" if why else "ok", f"backbone {address}", why or "takes connections", todo)


def _is_clock_set() -> bool | None:
    """None where the system does not tell."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return None
    state: int = adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))  # all zero: it is asked, and nothing is set
    return None if state < 0 else state != UNSYNCHRONIZED


def _netstat(file: Path) -> dict[str, int]:
    """The counters of TCP's extension: a line of names, and one of numbers."""
    lines = [line.split() for line in _text(file).splitlines() if line.startswith("TcpExt:")]
    return dict(zip(lines[0][1:], map(int, lines[1][1:]), strict=False)) if len(lines) > 1 else {}


def _tcp_pages(proc: Path) -> tuple[int | None, int]:
    words = next((line.split() for line in _text(proc / "net/sockstat").splitlines() if line.startswith("TCP:")), [])
    bounds = _text(proc / "sys/net/ipv4/tcp_mem").split()
    used = int(words[words.index("mem") + 1]) if "mem" in words else None
    return used, int(bounds[1]) if len(bounds) == 3 else 0


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # no Linux, or a container that hides it
        return ""
