"""The answer to `/metrics`, and when prometheus-client is needed for it: at the first scrape."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from fanwire._engine import Asking, Engine
from fanwire._loop import ends_task
from fanwire.backbone import Reached
from fanwire.endings import Endings
from fanwire.faults import Tasks
from fanwire.owner import Owner
from fanwire.relay.stats import MeasuredRelay
from fanwire.sources.stats import MeasuredSource
from fanwire.wording import INTERNAL_ERROR
from fanwire.workers.bus import Bus
from fanwire.workers.summing import Samples, Summing

if TYPE_CHECKING:
    from fanwire.metrics import Metrics, Scrape

FRESH_S = 1.0
"""How long an answer is good for all who ask: none of them shows who it is, and each answer holds up the event loop."""
MISSING = "metrics need the package prometheus-client: pip install 'fanwire[metrics]'"


@dataclass(frozen=True, slots=True)
class Measured:
    """What is counted beside the engine and its faults."""

    refused: Mapping[str, int]
    """What clients were refused, by the bound."""
    relays: Sequence[MeasuredRelay] = ()
    sources: Sequence[MeasuredSource] = ()
    backbone: Reached = field(default_factory=Reached)
    """Whether it is reached, where there is one."""


class Scraping(Owner):
    """Answers scrapes: the owner of ``/metrics``.

    Args:
        measured: what is counted beside.
        bus: to the other workers, where there are any; then an answer is the sum of all.
        now: seconds of the monotonic clock.
    """

    def __init__(
        self,
        engine: Engine,
        tasks: Tasks,
        endings: Endings,
        measured: Measured,
        *,
        bus: Bus | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._engine, self._endings = engine, endings
        self._tasks, self._faults = tasks, tasks.faults
        self._measured = measured
        self._now = now
        self._metrics: Metrics | None = None
        # What was read last, and until when it is new enough.
        self._reading: Scrape | None = None
        self._until = -inf
        # Who waits for what other workers say.
        self._waiting: list[Asking] = []
        self._summing = None if bus is None else Summing(bus, tasks, self._samples)

    def asking(self, event: Asking) -> None:
        """Answer one. A failure ends that request alone, with 500, or with 501 where the package is missing."""
        try:
            metrics = self._collected()
            reading = self._reading
            if reading is None or self._now() >= self._until:
                if self._summing is not None:
                    self._ask_all(event, metrics, self._summing)
                    return
                reading = self._renew(metrics.read())
            self._respond(event, reading)
        except ModuleNotFoundError as error:
            if error.name != "prometheus_client":
                raise
            self._endings.refuse(event.connection, 501, MISSING)
        except BaseException as error:
            if ends_task(error):
                raise
            self._fail([event], error)

    def part(self) -> None:
        """This worker ends: what it has counted stays with the others."""
        if self._summing is not None:
            self._summing.part()

    def _ask_all(self, event: Asking, metrics: "Metrics", summing: Summing) -> None:
        self._waiting.append(event)
        if len(self._waiting) == 1:
            self._tasks.start_soon(self._answer_all, metrics, summing)

    async def _answer_all(self, metrics: "Metrics", summing: Summing) -> None:
        """Answer those that wait, with the sum of all workers."""
        try:
            reading = self._renew(metrics.read_all(await summing.sum()))
        except BaseException as error:
            waiting, self._waiting = self._waiting, []
            if ends_task(error):
                raise
            self._fail(waiting, error)
            return
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            try:
                self._respond(event, reading)
            except BaseException as error:
                if ends_task(error):
                    raise
                self._fail([event], error)

    def _respond(self, event: Asking, reading: "Scrape") -> None:
        accept = ",".join(value for name, value in event.headers if name == "accept")
        self._engine.respond(event.connection, 200, *reading.text(accept))

    def _renew(self, reading: "Scrape") -> "Scrape":
        self._reading, self._until = reading, self._now() + FRESH_S
        return reading

    def _fail(self, events: Sequence[Asking], error: BaseException) -> None:
        self._faults.note("metrics", error, "/metrics could not be rendered")
        for event in events:
            self._endings.refuse(event.connection, 500, INTERNAL_ERROR)

    def _samples(self) -> Samples:
        return self._collected().samples()

    def _collected(self) -> "Metrics":
        metrics = self._metrics = self._metrics or self._collect()
        return metrics

    def _collect(self) -> "Metrics":
        from fanwire import metrics

        measured = self._measured
        others = (
            metrics.FaultsCollector(lambda: self._faults.counts),
            metrics.RefusedCollector(measured.refused),
            metrics.RelayCollector(measured.relays),
            metrics.SourceCollector(measured.sources),
            metrics.BackboneCollector(measured.backbone),
            metrics.ProcessCollector(),
        )
        return metrics.Metrics(self._engine.stats, others)
