"""Every family that ``/metrics`` can have, whatever is served: and what promtool says of texts and files."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fanwire._engine import Engine, Settings
from fanwire.backbone import Reached
from fanwire.metrics import (
    BackboneCollector,
    FaultsCollector,
    Metrics,
    ProcessCollector,
    RefusedCollector,
    RelayCollector,
    Scrape,
    SourceCollector,
)
from fanwire.relay.stats import RelaySums, UpstreamStats
from fanwire.sources.stats import SourceStats
from fanwire.timings import Timings
from fanwire.workers.summing import Summed

URL = "http://backend:5000/live"
TRACE = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
PROMTOOL = shutil.which("promtool")
NO_PROMTOOL = "there is no promtool: apt-get install prometheus"


def everything() -> Scrape:
    """A reading with a relay, a source, a backbone and a second worker, in which each family has a sample or more."""
    metrics = Metrics(Engine(Settings()).stats, _others())
    samples = metrics.samples()
    return metrics.read_all(Summed(samples, {0: samples, 1: samples}, {1: True}))


def everything_of_one() -> Scrape:
    """The same of one process alone, where exemplars are."""
    return Metrics(Engine(Settings()).stats, _others()).read()


def _others() -> tuple[Any, ...]:
    backbone, times = Reached(), Timings()
    backbone.note("up", "")
    times.add(0.003)
    times.add(0.2, TRACE)
    sums = RelaySums(
        path="/live",
        states={"live": 2},
        watching=3,
        broadcasts={"json": "live"},
        upstreams=[UpstreamStats(URL, "up", "", 1, 0)],
        private_lanes=0,
        gaps=1,
        unused=0,
        gap_times=times,
        connect_times={URL: times},
    )
    stats = SourceStats(1, 1, 0, 0, "1", is_reading=True, lag=0.0)
    source: Any = SimpleNamespace(name="outbox", is_here=True, stats=lambda: stats, number_of=float)
    relay: Any = SimpleNamespace(sums=lambda: sums)
    return (
        FaultsCollector(lambda: {"pump.opening": 1}),
        RefusedCollector({"client_bytes_max": 1}),
        RelayCollector([relay]),
        SourceCollector([source]),
        BackboneCollector(backbone),
        ProcessCollector(),
    )


def promtool(*arguments: str | Path, given: bytes = b"", among: Sequence[int] = (0,)) -> str:
    """What it says; its exit status is one of `among`."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], input=given, capture_output=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode in among, said
    return said
