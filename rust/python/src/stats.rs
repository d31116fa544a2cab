//! The engine's counters, as Python sees them.
use std::collections::BTreeMap;

use fanwire_core::channel::Policy;
use fanwire_core::{Engine as CoreEngine, FRACTIONS, Histogram, PollerKind};
use pyo3::prelude::*;

/// Upper bounds in seconds, and how many took at most so long.
type Buckets = Vec<(f64, u64)>;

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
    closes: BTreeMap<u16, u64>,
    skipped: BTreeMap<&'static str, u64>,
    completion_buckets: Buckets,
    completion_seconds: f64,
    taken: Vec<(f64, Buckets, f64)>,
    poller: &'static str,
}

impl Stats {
    pub(crate) fn new(engine: &CoreEngine) -> Self {
        let stats = engine.stats();
        let taken =
            |(fraction, histogram): (f64, &Histogram)| (fraction, buckets(histogram), histogram.sum.as_secs_f64());
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
            closes: stats.closes,
            skipped: Policy::ALL.into_iter().map(Policy::name).zip(stats.skipped).collect(),
            completion_buckets: buckets(&stats.completion),
            completion_seconds: stats.completion.sum.as_secs_f64(),
            taken: FRACTIONS.into_iter().zip(&stats.taken).map(taken).collect(),
            poller: match engine.poller() {
                Some(PollerKind::Uring) => "uring",
                Some(PollerKind::Epoll) => "epoll",
                None => "",
            },
        }
    }
}

/// How many took at most so many seconds, cumulative.
fn buckets(histogram: &Histogram) -> Buckets {
    let seconds = |us: u64| if us == u64::MAX { f64::INFINITY } else { us as f64 / 1e6 };
    histogram.buckets.iter().map(|&(us, count)| (seconds(us), count)).collect()
}
