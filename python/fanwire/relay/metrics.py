"""How the relays stand, in Prometheus' text format. Not here: what counts it."""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fanwire.relay.stats import MeasuredRelay

STATES = ("connecting", "live", "down")


class RelayCollector(Collector):
    """Reads the stats of all relays once for each scrape."""

    def __init__(self, relays: Iterable[MeasuredRelay]) -> None:
        self._relays = relays

    def collect(self) -> Iterator[Metric]:
        """Every family, by path."""
        lanes = GaugeMetricFamily("fanwire_relay_lanes", "Lanes by state, now.", labels=["path", "state"])
        clients = GaugeMetricFamily("fanwire_relay_watching", "Ties between a client and a lane, now.", labels=["path"])
        private = GaugeMetricFamily("fanwire_relay_private_lanes", "Clients' own connections, now.", labels=["path"])
        gaps = CounterMetricFamily("fanwire_relay_gaps", "Times that a lane was down.", labels=["path"])
        broadcasts = GaugeMetricFamily(
            "fanwire_relay_broadcast_live", "Whether the broadcast lane is live.", labels=["path", "protocol"]
        )
        up = GaugeMetricFamily(
            "fanwire_relay_upstream_up", "Whether the upstream is not known to be down.", labels=["path", "upstream"]
        )
        connects = CounterMetricFamily(
            "fanwire_relay_upstream_connects", "Connections and negotiations had.", labels=["path", "upstream"]
        )
        failures = CounterMetricFamily(
            "fanwire_relay_upstream_failures", "Those that could not be had.", labels=["path", "upstream"]
        )
        unused = GaugeMetricFamily(
            "fanwire_relay_unused_names", "Names of the settings that nobody has used so far.", labels=["path"]
        )
        for stats in (relay.stats() for relay in self._relays):
            states = Counter(lane.state for lane in stats.lanes)
            for state in STATES:
                lanes.add_metric([stats.path, state], states[state])
            clients.add_metric([stats.path], sum(lane.clients for lane in stats.lanes))
            private.add_metric([stats.path], stats.private_lanes)
            unused.add_metric([stats.path], len(stats.unused))
            gaps.add_metric([stats.path], stats.gaps)
            for protocol, how in stats.broadcasts.items():
                broadcasts.add_metric([stats.path, protocol], how == "live")
            for one in stats.upstreams:
                labels = [stats.path, one.url]
                up.add_metric(labels, one.state != "down")
                connects.add_metric(labels, one.connects)
                failures.add_metric(labels, one.failures)
        return iter((lanes, clients, private, gaps, broadcasts, up, connects, failures, unused))
