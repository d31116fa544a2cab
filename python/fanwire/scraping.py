"""The answer to `/metrics`, and when prometheus-client is needed for it: at the first scrape."""

from collections.abc import Mapping, Sequence
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

MISSING = "metrics need the package prometheus-client: pip install 'fanwire[metrics]'"


class Scraping(Owner):
    """Answers scrapes of one engine: the owner of ``/metrics``."""

    def __init__(
        self,
        engine: Engine,
        faults: Faults,
        endings: Endings,
        *,
        refused: Mapping[str, int],
        relays: Sequence[MeasuredRelay],
    ) -> None:
        self._engine, self._faults, self._endings = engine, faults, endings
        self._refused, self._relays = refused, relays
        self._metrics: Metrics | None = None

    def asking(self, event: Asking) -> None:
        """Answer one. A failure ends that request alone, with 500, or with 501 where the package is missing."""
        try:
            metrics = self._metrics = self._metrics or self._collect()
            self._engine.respond(event.connection, 200, metrics.content_type, metrics.render())
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
