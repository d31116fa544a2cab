"""The engine's counters, and how relays stand, in Prometheus' text format. Not here: what counts them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import inf

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fanwire._engine import Stats
from fanwire.backbone import Reached
from fanwire.relay.stats import MeasuredRelay
from fanwire.sources.stats import MeasuredSource
from fanwire.workers.summing import Key, Samples, Summed

GAUGES = {
    "connections": "Connections open now.",
    "subscriptions": "Ties between a client and a channel, now.",
    "channels": "Channels that have a log, now.",
    "lagging": "Connections whose socket is full, now.",
}
COUNTERS = {
    "connections_total": "Connections accepted since the start.",
    "publications": "Publications appended to a log.",
    "deliveries": "Frames of publications handed whole to a socket.",
    "expired": "Frames that a subscriber skipped because their time to live was over.",
    "writes": "System calls or ring entries that carried deliveries.",
    "bytes_out": "Bytes written to sockets.",
    "bytes_in": "Bytes read from sockets.",
    "overtaken": "Connections closed because a channel's bound overtook them.",
    "accept_pauses": "Times that accepting paused for want of descriptors.",
    "handshakes_refused": "Upgrade requests answered with an error.",
    "tokens_refused": "SignalR requests whose token no worker of this supervisor has signed.",
    "passed_on": "SignalR requests and sockets passed on to the worker that has their connection.",
}
NAMES = {
    "lagging": "lagging_connections",
    "connections_total": "connections",
    "bytes_out": "bytes_sent",
    "bytes_in": "bytes_received",
}
"""Where the name for Prometheus is not the field's own; counters get ``_total`` behind it."""
NOT_SUMMED = {
    "fanwire_backbone_up",
    "fanwire_relay_broadcast_live",
    "fanwire_relay_upstream_up",
    "fanwire_relay_unused_names",
    "fanwire_source_lag_seconds",
    "fanwire_source_place",
    "fanwire_source_up",
}
"""Gauges that have no sum: with workers each has its own, labelled with its number."""


class StatsCollector(Collector):
    """Reads the counters once for each scrape."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Every family, from one reading of the counters."""
        stats = self._stats()
        for field, help_text in GAUGES.items():
            yield GaugeMetricFamily(_name(field), help_text, getattr(stats, field))
        for field, help_text in COUNTERS.items():
            yield CounterMetricFamily(_name(field), help_text, getattr(stats, field))
        closes = CounterMetricFamily(_name("closes"), "Closed connections by close code.", labels=["code"])
        for code, count in sorted(stats.closes.items()):
            closes.add_metric([str(code)], count)
        yield closes
        skipped = CounterMetricFamily(
            _name("skipped"), "Publications that a subscriber went past, by the channel's policy.", labels=["policy"]
        )
        for policy, count in sorted(stats.skipped.items()):
            skipped.add_metric([policy], count)
        yield skipped
        yield HistogramMetricFamily(
            _name("fanout_completion_seconds"),
            "Time from a publication until the last subscriber that keeps up has been written to.",
            buckets=_buckets(stats.completion_buckets),
            sum_value=stats.completion_seconds,
        )
        taken = HistogramMetricFamily(
            _name("delivery_seconds"),
            "Time from a sampled publication until this share of a shard's subscribers had it or went past it.",
            labels=["fraction"],
        )
        for fraction, buckets, seconds in stats.taken:
            taken.add_metric([f"{fraction:g}"], _buckets(buckets), seconds)
        yield taken


class FaultsCollector(Collector):
    """What ``fanwire.faults`` counts."""

    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """One family."""
        errors = CounterMetricFamily(
            _name("internal_errors"), "Exceptions that were caught and logged, by where.", labels=["where"]
        )
        for where, count in sorted(self._counts().items()):
            errors.add_metric([where], count)
        yield errors


class RefusedCollector(Collector):
    """What was refused to clients because of a bound of their own, by its name."""

    def __init__(self, refused: Mapping[str, int]) -> None:
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        """One family; a bound that nobody has met yet is not in it."""
        family = CounterMetricFamily(
            _name("client_refusals"), "Requests refused because of a bound of the client's own.", labels=["bound"]
        )
        for bound, count in sorted(self._refused.items()):
            family.add_metric([bound], count)
        yield family


class BackboneCollector(Collector):
    """Whether the backbone is reached."""

    def __init__(self, backbone: Reached) -> None:
        self._backbone = backbone

    def collect(self) -> Iterator[Metric]:
        """Three families; none where there is no backbone, or nobody knows yet."""
        if self._backbone.state is None:
            return iter(())
        up = GaugeMetricFamily("fanwire_backbone_up", "Whether the backbone is reached.", self._backbone.state == "up")
        downs = CounterMetricFamily(
            "fanwire_backbone_downs", "Times that the backbone was found to be out of reach.", self._backbone.downs
        )
        foreign = CounterMetricFamily(
            "fanwire_backbone_foreign_records",
            "Records on keys and channels of the prefix that no hub and no publisher has published.",
            self._backbone.foreign,
        )
        return iter((up, downs, foreign))


class Metrics:
    """A registry of its own for one engine: nothing of the process's default registry is mixed in."""

    content_type = CONTENT_TYPE_LATEST
    """Of what ``render`` gives."""

    def __init__(self, stats: Callable[[], Stats], others: Iterable[Collector] = ()) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StatsCollector(stats))
        for other in others:
            self._registry.register(other)
        # What families are about, by name and type, as of the last reading in numbers.
        self._helps: dict[tuple[str, str], str] = {}

    def render(self) -> bytes:
        """The text of a scrape; its type is ``content_type``."""
        return generate_latest(self._registry)

    def samples(self) -> Samples:
        """The same in numbers, for other workers."""
        samples: Samples = {}
        for family in self._registry.collect():
            self._helps[family.name, family.type] = family.documentation
            for sample in family.samples:
                labels = tuple(chain.from_iterable(sample.labels.items()))
                samples[family.name, family.type, sample.name, labels] = sample.value
        return samples

    def render_all(self, summed: Summed) -> bytes:
        """The text of a scrape of all workers, of which this one was read by ``samples``."""
        registry = CollectorRegistry()
        registry.register(SummedCollector(summed, self._helps))
        return generate_latest(registry)


class SummedCollector(Collector):
    """What all workers count."""

    def __init__(self, summed: Summed, helps: Mapping[tuple[str, str], str]) -> None:
        self._summed, self._helps = summed, helps

    def collect(self) -> Iterator[Metric]:
        """Every family: sums, or what each worker says where that has none; and how many there are."""
        summed, families = self._summed, dict[tuple[str, str], Metric]()
        for key, value in summed.samples.items():
            if key[0] not in NOT_SUMMED:
                self._add(families, key, value)
        for worker, samples in sorted(summed.workers.items()):
            for key, value in samples.items():
                if key[0] in NOT_SUMMED:
                    self._add(families, (*key[:3], (*key[3], "worker", str(worker))), value)
        yield from families.values()
        yield GaugeMetricFamily("fanwire_workers", "Workers that are there, now.", len(summed.silent) + 1)
        silent = GaugeMetricFamily(
            "fanwire_workers_silent",
            "Whether a worker did not answer: what it said last stands for it, here and in the sums.",
            labels=["worker"],
        )
        for worker, is_silent in summed.silent.items():
            silent.add_metric([str(worker)], is_silent)
        yield silent

    def _add(self, families: dict[tuple[str, str], Metric], key: Key, value: float) -> None:
        name, kind, sample, labels = key  # a gauge and a counter may have one name: the counter gets `_total` behind it
        family = families.setdefault((name, kind), Metric(name, self._helps.get((name, kind), ""), kind))
        family.add_sample(sample, dict(zip(labels[::2], labels[1::2], strict=True)), value)


def _buckets(counts: Iterable[tuple[float, int]]) -> list[tuple[str, int]]:
    return [(f"{bound:g}" if bound < inf else "+Inf", count) for bound, count in counts]


def _name(field: str) -> str:
    return f"fanwire_{NAMES.get(field, field)}"


STATES = ("connecting", "live", "down", "mirrored")


class RelayCollector(Collector):
    """Reads the sums of all relays once for each reading; they come and go."""

    def __init__(self, relays: Sequence[MeasuredRelay]) -> None:
        self._relays = relays

    def collect(self) -> Iterator[Metric]:
        """Every family, by path; none where there is no relay."""
        if not self._relays:
            return iter(())
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
        for sums in (relay.sums() for relay in self._relays):
            for state in STATES:
                lanes.add_metric([sums.path, state], sums.states.get(state, 0))
            clients.add_metric([sums.path], sums.watching)
            private.add_metric([sums.path], sums.private_lanes)
            unused.add_metric([sums.path], sums.unused)
            gaps.add_metric([sums.path], sums.gaps)
            for protocol, how in sums.broadcasts.items():
                broadcasts.add_metric([sums.path, protocol], how == "live")
            for one in sums.upstreams:
                labels = [sums.path, one.url]
                up.add_metric(labels, one.state != "down")
                connects.add_metric(labels, one.connects)
                failures.add_metric(labels, one.failures)
        return iter((lanes, clients, private, gaps, broadcasts, up, connects, failures, unused))


class SourceCollector(Collector):
    """Reads what each source has done, and of the worker that reads it, how it stands."""

    def __init__(self, sources: Sequence[MeasuredSource]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Every family, by the source's name; none where there is no source."""
        if not self._sources:
            return iter(())
        labels = ["source"]
        read = CounterMetricFamily("fanwire_source_read", "Entries that were read.", labels=labels)
        skipped = CounterMetricFamily(
            "fanwire_source_skipped", "Entries left out: they are no publication.", labels=labels
        )
        failures = CounterMetricFamily(
            "fanwire_source_failures", "Attempts to read and publish that ended by an error.", labels=labels
        )
        up = GaugeMetricFamily("fanwire_source_up", "Whether what is read is reached.", labels=labels)
        lag = GaugeMetricFamily(
            "fanwire_source_lag_seconds", "How long ago the oldest entry was written that waits.", labels=labels
        )
        place = GaugeMetricFamily(
            "fanwire_source_place",
            "Behind the newest that was published: a time, transaction or sequence.",
            labels=labels,
        )
        for source in self._sources:
            stats, name = source.stats(), [source.name]
            read.add_metric(name, stats.read)
            skipped.add_metric(name, stats.skipped)
            failures.add_metric(name, stats.failures)
            if source.is_here:
                up.add_metric(name, stats.is_reading)
                lag.add_metric(name, stats.lag)
                if stats.place is not None:
                    place.add_metric(name, source.number_of(stats.place))
        return iter((read, skipped, failures, up, lag, place))
