//! The engine's counters, as Python sees them.
use std::collections::BTreeMap;
use std::fmt::Display;

use fanwire_core::channel::Policy;
use fanwire_core::protocol::Coding;
use fanwire_core::{Engine as CoreEngine, FELL_BACK, FRACTIONS, Histogram, JOINED, OPENED, PollerKind};
use pyo3::prelude::*;

/// Upper bounds in seconds, and how many took at most so long.
type Buckets = Vec<(f64, u64)>;

/// Numbers by what they are of.
type Named = BTreeMap<&'static str, u64>;

/// Counters since start and gauges now, summed over the shards.
#[pyclass(frozen, get_all, module = "fanwire._engine")]
pub(crate) struct Stats {
    connections: u64,
    connections_total: u64,
    subscriptions: u64,
    channels: u64,
    publications: u64,
    deliveries: u64,
    expired: u64,
    writes: u64,
    bytes_out: u64,
    bytes_in: u64,
    lagging: u64,
    overtaken: u64,
    accept_pauses: u64,
    handshakes_refused: u64,
    refused: BTreeMap<u16, u64>,
    tokens_refused: u64,
    passed_on: u64,
    closes: BTreeMap<u16, u64>,
    skipped: Named,
    compression_readers: Named,
    compression_sent_bytes: Named,
    compression_plain_bytes: Named,
    compression_joins: Named,
    compression_fallbacks: Named,
    compression_seconds: f64,
    compression_rests: u64,
    completion_buckets: Buckets,
    completion_seconds: f64,
    taken: Vec<(f64, Buckets, f64)>,
    openings: Vec<(&'static str, Buckets, f64)>,
    subscribing: (Buckets, f64),
    poller: &'static str,
}

impl Stats {
    pub(crate) fn new(engine: &CoreEngine) -> Self {
        let stats = engine.stats();
        let by_coding = |numbers: [u64; Coding::COMPRESSED.len()]| {
            Coding::COMPRESSED.into_iter().map(Coding::name).zip(numbers).collect()
        };
        Self {
            connections: stats.connections,
            connections_total: stats.connections_total,
            subscriptions: stats.subscriptions,
            channels: stats.channels,
            publications: stats.publications,
            deliveries: stats.deliveries,
            expired: stats.expired,
            writes: stats.writes,
            bytes_out: stats.bytes_out,
            bytes_in: stats.bytes_in,
            lagging: stats.lagging,
            overtaken: stats.overtaken,
            accept_pauses: stats.accept_pauses,
            handshakes_refused: stats.handshakes_refused,
            refused: stats.refused,
            tokens_refused: stats.tokens_refused,
            passed_on: stats.passed_on,
            closes: stats.closes,
            skipped: Policy::ALL.into_iter().map(Policy::name).zip(stats.skipped).collect(),
            compression_readers: by_coding(stats.compression_readers),
            compression_sent_bytes: by_coding(stats.compression_sent_bytes),
            compression_plain_bytes: by_coding(stats.compression_plain_bytes),
            compression_joins: JOINED.into_iter().zip(stats.compression_joins).collect(),
            compression_fallbacks: FELL_BACK.into_iter().zip(stats.compression_fallbacks).collect(),
            compression_seconds: stats.compression_time.as_secs_f64(),
            compression_rests: stats.compression_rests,
            completion_buckets: buckets(&stats.completion),
            completion_seconds: stats.completion.sum.as_secs_f64(),
            taken: named(FRACTIONS, &stats.taken),
            openings: named(OPENED, &stats.openings),
            subscribing: (buckets(&stats.subscribing), stats.subscribing.sum.as_secs_f64()),
            poller: engine.poller().map_or("", PollerKind::name),
        }
    }
}

#[pymethods]
impl Stats {
    /// The gauges, on one line.
    fn __repr__(&self) -> String {
        let Self { connections, subscriptions, channels, publications, deliveries, lagging, .. } = self;
        format!(
            "<Stats connections={connections} subscriptions={subscriptions} channels={channels} \
             publications={publications} deliveries={deliveries} lagging={lagging}>"
        )
    }

    /// A line a field; of what is measured as a histogram how many there were, and their mean.
    fn __str__(&self) -> String {
        let closes: Vec<String> = self.closes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
        let counts = |numbers: &Named| {
            listed(&numbers.iter().map(|(name, count)| format!("{name}: {count}")).collect::<Vec<_>>())
        };
        let mut lines = vec![
            ("connections", self.connections.to_string()),
            ("connections_total", self.connections_total.to_string()),
            ("handshakes_refused", self.handshakes_refused.to_string()),
            ("tokens_refused", self.tokens_refused.to_string()),
            ("passed_on", self.passed_on.to_string()),
            ("accept_pauses", self.accept_pauses.to_string()),
            ("closes", listed(&closes)),
            ("subscriptions", self.subscriptions.to_string()),
            ("channels", self.channels.to_string()),
            ("publications", self.publications.to_string()),
            ("deliveries", self.deliveries.to_string()),
            ("lagging", self.lagging.to_string()),
            ("overtaken", self.overtaken.to_string()),
            ("skipped", counts(&self.skipped)),
            ("expired", self.expired.to_string()),
            ("writes", self.writes.to_string()),
            ("bytes_out", self.bytes_out.to_string()),
            ("bytes_in", self.bytes_in.to_string()),
            ("completion", mean(&self.completion_buckets, self.completion_seconds)),
        ];
        lines.push(("taken", means(&self.taken)));
        lines.push(("openings", means(&self.openings)));
        lines.push(("subscribing", mean(&self.subscribing.0, self.subscribing.1)));
        lines.extend([
            ("compression_readers", counts(&self.compression_readers)),
            ("compression_sent_bytes", counts(&self.compression_sent_bytes)),
            ("compression_plain_bytes", counts(&self.compression_plain_bytes)),
            ("compression_joins", counts(&self.compression_joins)),
            ("compression_fallbacks", counts(&self.compression_fallbacks)),
            ("compression_seconds", format!("{:.3}", self.compression_seconds)),
            ("compression_rests", self.compression_rests.to_string()),
        ]);
        lines.push(("poller", self.poller.into()));
        lines.iter().map(|(name, value)| format!("{name:23} {value}\n")).collect::<String>().trim_end().into()
    }
}

fn listed(parts: &[String]) -> String {
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

/// How many there were, and how long they took on average.
fn mean(buckets: &Buckets, seconds: f64) -> String {
    match buckets.last() {
        Some(&(_, count)) if count > 0 => format!("{count} of {:.3} ms", seconds * 1000.0 / count as f64),
        _ => "none".into(),
    }
}

/// Each with its name, buckets and sum.
fn named<N, const LENGTH: usize>(names: [N; LENGTH], histograms: &[Histogram; LENGTH]) -> Vec<(N, Buckets, f64)> {
    let all = names.into_iter().zip(histograms);
    all.map(|(name, histogram)| (name, buckets(histogram), histogram.sum.as_secs_f64())).collect()
}

/// The mean of each that there is any of.
fn means<N: Display>(all: &[(N, Buckets, f64)]) -> String {
    let any = all.iter().filter(|(_, buckets, _)| buckets.last().is_some_and(|&(_, count)| count > 0));
    listed(&any.map(|(name, buckets, seconds)| format!("{name}: {}", mean(buckets, *seconds))).collect::<Vec<_>>())
}

/// How many took at most so many seconds, cumulative.
fn buckets(histogram: &Histogram) -> Buckets {
    let seconds = |us: u64| if us == u64::MAX { f64::INFINITY } else { us as f64 / 1e6 };
    histogram.buckets.iter().map(|&(us, count)| (seconds(us), count)).collect()
}
