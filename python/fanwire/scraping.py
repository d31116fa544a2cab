"""The answer to `/metrics`, and when prometheus-client is needed for it: at the first scrape."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from fanwire._engine import Asking, Engine
from fanwire._loop import ends_task
from fanwire.endings import Endings
from fanwire.faults import Faults
from fanwire.owner import Owner
from fanwire.relay.stats import MeasuredRelay
from fanwire.wording import INTERNAL_ERROR

if TYPE_CHECKING:
    from fanwire.metrics import Metrics

FRESH_S = 1.0
"""How long an answer is good for all who ask: none of them shows who it is, and each answer holds up the event loop."""
MISSING = "metrics need the package prometheus-client: pip install 'fanwire[metrics]'"


class Scraping(Owner):
    """Answers scrapes of one engine: the owner of ``/metrics``.

    Args:
        now: seconds of the monotonic clock.
    """

    def __init__(
        self,
        engine: Engine,
        faults: Faults,
        endings: Endings,
        *,
        refused: Mapping[str, int],
        relays: Sequence[MeasuredRelay],
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._engine, self._faults, self._endings = engine, faults, endings
        self._refused, self._relays = refused, relays
        self._now = now
        self._metrics: Metrics | None = None
        # The newest answer, and until when it is new enough.
        self._answer = b""
        self._until = -inf

    def asking(self, event: Asking) -> None:
        """Answer one. A failure ends that request alone, with 500, or with 501 where the package is missing."""
        try:
            metrics = self._metrics = self._metrics or self._collect()
            if self._now() >= self._until:
                self._answer = metrics.render()
                self._until = self._now() + FRESH_S
            self._engine.respond(event.connection, 200, metrics.content_type, self._answer)
        except ModuleNotFoundError as error:
            if error.name != "prometheus_client":
                raise
            self._endings.refuse(event.connection, 501, MISSING)
        except BaseException as error:
            if ends_task(error):
                raise
            self._faults.note("metrics", error, "/metrics could not be rendered")
            self._endings.refuse(event.connection, 500, INTERNAL_ERROR)

    def _collect(self) -> "Metrics":
        from fanwire.metrics import FaultsCollector, Metrics, RefusedCollector, RelayCollector

        counted = FaultsCollector(lambda: self._faults.counts), RefusedCollector(self._refused)
        return Metrics(self._engine.stats, [*counted, RelayCollector(self._relays)])
