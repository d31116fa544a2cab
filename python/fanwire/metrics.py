"""The engine's counters, and how relays stand, in Prometheus' text format. Not here: what counts them."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from math import inf

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from fanwire._engine import Stats
from fanwire.backbone import Reached
from fanwire.process import SELF, descriptors, memory_bytes
from fanwire.relay.stats import MeasuredRelay
from fanwire.sources.stats import MeasuredSource
from fanwire.timings import Timings
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
    "tokens_refused": "SignalR requests whose token no worker of this supervisor has signed.",
    "passed_on": "SignalR requests and sockets passed on to the worker that has their connection.",
    "compression_seconds": "Time in which publications were compressed.",
    "compression_rests": "Times that compression did not pay in a channel, whose next MiB went out as it is.",
}
LABELLED = {
    "skipped": ("Publications that a subscriber went past, by the channel's policy.", "policy"),
    "compression_sent_bytes": ("Bytes of frames sent to subscriptions that read compressed ones.", "coding"),
    "compression_plain_bytes": ("The same, if nothing had been compressed.", "coding"),
    "compression_joins": (
        "Times that a subscription went on with compressed frames, or with more context.",
        "kind",
    ),
    "compression_fallbacks": ("Times that a subscription went back to frames that are not compressed.", "reason"),
}
"""Counters of each value of a label."""
NAMES = {
    "lagging": "lagging_connections",
    "connections_total": "connections_accepted",
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
    "process_start_time_seconds",
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
        for field, (help_text, label) in LABELLED.items():
            family = CounterMetricFamily(_name(field), help_text, labels=[label])
            for value, count in sorted(getattr(stats, field).items()):
                family.add_metric([value], count)
            yield family
        readers = GaugeMetricFamily(
            _name("compression_readers"), "Subscriptions that read compressed frames, now.", labels=["coding"]
        )
        for coding, count in sorted(stats.compression_readers.items()):
            readers.add_metric([coding], count)
        yield readers
        refused = CounterMetricFamily(
            _name("handshakes_refused"), "Requests answered with an error, by its status.", labels=["code"]
        )
        for code, count in sorted(stats.refused.items()):
            refused.add_metric([str(code)], count)
        yield refused
        yield from self._histograms(stats)

    def _histograms(self, stats: Stats) -> Iterator[Metric]:
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
        opened = HistogramMetricFamily(
            _name("handshake_seconds"), "Time from a client's request until it was let in.", labels=["transport"]
        )
        for transport, buckets, seconds in stats.openings:
            if buckets[-1][1]:
                opened.add_metric([transport], _buckets(buckets), seconds)
        yield opened
        buckets, seconds = stats.subscribing
        yield HistogramMetricFamily(
            _name("subscribe_seconds"),
            "Time from a client's request to subscribe until it was settled, where the application is asked.",
            buckets=_buckets(buckets),
            sum_value=seconds,
        )


class ProcessCollector(Collector):
    """What the process takes, under the names that all of Prometheus' clients have.

    Their own of Python lists the folder of descriptors, each connection of it: this one asks for its size.
    """

    def __init__(self) -> None:
        self._started = time.time() - time.monotonic() + self._ticks()

    def collect(self) -> Iterator[Metric]:
        """A family for each number that the machine tells."""
        used = CounterMetricFamily("process_cpu_seconds", "Seconds of CPU, user and system.", time.process_time())
        yield used
        yield GaugeMetricFamily("process_start_time_seconds", "When it began, seconds since 1970.", self._started)
        resident = memory_bytes()
        if resident is not None:
            yield GaugeMetricFamily("process_resident_memory_bytes", "Memory that is resident.", resident)
        most = next((line.split()[3] for line in self._lines("limits") if line.startswith("Max open files")), "")
        if most.isdigit():
            yield GaugeMetricFamily("process_max_fds", "Descriptors that it may have open.", int(most))
        open_now = descriptors()
        if open_now is not None:
            yield GaugeMetricFamily("process_open_fds", "Descriptors that are open.", open_now)

    def _ticks(self) -> float:
        """When the process began, in seconds since the machine did; now, where that is not told."""
        behind_name = " ".join(self._lines("stat")).rpartition(")")[2].split()
        return int(behind_name[19]) / os.sysconf("SC_CLK_TCK") if len(behind_name) > 19 else time.monotonic()

    def _lines(self, name: str) -> list[str]:
        try:
            return (SELF / name).read_text().splitlines()
        except OSError:  # no Linux
            return []


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

    def __init__(self, stats: Callable[[], Stats], others: Iterable[Collector] = ()) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StatsCollector(stats))
        for other in others:
            self._registry.register(other)
        # What families are about, by name and type, as of the last reading in numbers.
        self._helps: dict[tuple[str, str], str] = {}

    def read(self) -> "Scrape":
        """How everything stands, now."""
        return Scrape(self._registry)

    def samples(self) -> Samples:
        """The same in numbers, for other workers."""
        samples: Samples = {}
        for family in self._registry.collect():
            self._helps[family.name, family.type] = family.documentation
            for sample in family.samples:
                labels = tuple(chain.from_iterable(sample.labels.items()))
                samples[family.name, family.type, sample.name, labels] = sample.value
        return samples

    def read_all(self, summed: Summed) -> "Scrape":
        """How all workers stand, of which this one was read by ``samples``."""
        return Scrape(SummedCollector(summed, self._helps))


class Scrape(Collector):
    """What was collected once, to be written in either of two formats."""

    def __init__(self, of: Collector) -> None:
        self._families = list(of.collect())
        # By whether it is OpenMetrics.
        self._texts: dict[bool, bytes] = {}

    def collect(self) -> Iterator[Metric]:
        """Every family, as it was."""
        return iter(self._families)

    def text(self, accept: str) -> tuple[str, bytes]:
        """The content type and the text of a scrape, in what its ``Accept`` prefers."""
        is_open = prefers_openmetrics(accept)
        if is_open not in self._texts:
            write: Callable[[Collector], bytes] = openmetrics.generate_latest if is_open else generate_latest
            self._texts[is_open] = write(self)
        return (openmetrics.CONTENT_TYPE_LATEST if is_open else CONTENT_TYPE_LATEST), self._texts[is_open]


def prefers_openmetrics(accept: str) -> bool:
    """Whether a header ``Accept`` names OpenMetrics, and no plain text that it likes better."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, _, parameters = part.strip().partition(";")
        quality = next((one.strip()[2:] for one in parameters.split(";") if one.strip().startswith("q=")), "1")
        kind = kind.strip().lower()
        if kind in weights:
            with suppress(ValueError):
                weights[kind] = max(weights[kind], float(quality))
    open_metrics, plain = weights.values()
    return open_metrics > 0 and open_metrics >= plain


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


def _buckets(counts: Iterable[tuple[float, int]]) -> list[tuple[str, float]]:
    return [(f"{bound:g}" if bound < inf else "+Inf", count) for bound, count in counts]


def _add_timings(family: HistogramMetricFamily, labels: list[str], timings: Timings) -> None:
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = list(_buckets(timings.buckets))
    for index, one in timings.examples.items():
        traced = Exemplar({"trace_id": one.trace, "span_id": one.span}, one.seconds, one.at)
        buckets[index] = (*buckets[index][:2], traced)
    family.add_metric(labels, buckets, timings.seconds)


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
        lost = HistogramMetricFamily(
            "fanwire_relay_gap_seconds", "How long lanes were down, of those that are live again.", labels=["path"]
        )
        took = HistogramMetricFamily(
            "fanwire_relay_upstream_connect_seconds",
            "Time until a connection was had, with negotiation and failed attempts.",
            labels=["path", "upstream"],
        )
        for sums in (relay.sums() for relay in self._relays):
            for state in STATES:
                lanes.add_metric([sums.path, state], sums.states.get(state, 0))
            clients.add_metric([sums.path], sums.watching)
            private.add_metric([sums.path], sums.private_lanes)
            unused.add_metric([sums.path], sums.unused)
            gaps.add_metric([sums.path], sums.gaps)
            _add_timings(lost, [sums.path], sums.gap_times)
            for url, timings in sums.connect_times.items():
                _add_timings(took, [sums.path, url], timings)
            for protocol, how in sums.broadcasts.items():
                broadcasts.add_metric([sums.path, protocol], how == "live")
            for one in sums.upstreams:
                labels = [sums.path, one.url]
                up.add_metric(labels, one.state != "down")
                connects.add_metric(labels, one.connects)
                failures.add_metric(labels, one.failures)
        return iter((lanes, clients, private, gaps, broadcasts, up, connects, failures, unused, lost, took))


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
