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
    from fanwire.metrics import Metrics

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
        # The newest answer, and until when it is new enough.
        self._answer = b""
        self._until = -inf
        # Connections whose answer waits for other workers.
        self._waiting: list[int] = []
        self._summing = None if bus is None else Summing(bus, tasks, self._samples)

    def asking(self, event: Asking) -> None:
        """Answer one. A failure ends that request alone, with 500, or with 501 where the package is missing."""
        try:
            metrics = self._collected()
            if self._now() >= self._until:
                if self._summing is not None:
                    self._ask_all(event.connection, metrics, self._summing)
                    return
                self._renew(metrics.render())
            self._respond(event.connection, metrics)
        except ModuleNotFoundError as error:
            if error.name != "prometheus_client":
                raise
            self._endings.refuse(event.connection, 501, MISSING)
        except BaseException as error:
            if ends_task(error):
                raise
            self._fail([event.connection], error)

    def part(self) -> None:
        """This worker ends: what it has counted stays with the others."""
        if self._summing is not None:
            self._summing.part()

    def _ask_all(self, connection: int, metrics: "Metrics", summing: Summing) -> None:
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            self._tasks.start_soon(self._answer_all, metrics, summing)

    async def _answer_all(self, metrics: "Metrics", summing: Summing) -> None:
        """Answer those that wait, with the sum of all workers."""
        try:
            self._renew(metrics.render_all(await summing.sum()))
        except BaseException as error:
            waiting, self._waiting = self._waiting, []
            if ends_task(error):
                raise
            self._fail(waiting, error)
            return
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            try:
                self._respond(connection, metrics)
            except BaseException as error:
                if ends_task(error):
                    raise
                self._fail([connection], error)

    def _respond(self, connection: int, metrics: "Metrics") -> None:
        self._engine.respond(connection, 200, metrics.content_type, self._answer)

    def _renew(self, answer: bytes) -> None:
        self._answer, self._until = answer, self._now() + FRESH_S

    def _fail(self, connections: Sequence[int], error: BaseException) -> None:
        self._faults.note("metrics", error, "/metrics could not be rendered")
        for connection in connections:
            self._endings.refuse(connection, 500, INTERNAL_ERROR)

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
        )
        return metrics.Metrics(self._engine.stats, others)
