//! Counters: each shard writes its own, anyone reads and sums them.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::channel::{Policy, Run};
use crate::protocol::Coding;
use crate::protocol::signalr::negotiate::Transport;

/// Upper bounds of every histogram's buckets, microseconds; one more counts what is over the last.
pub(crate) const BOUNDS_US: [u64; 15] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// A number that one shard writes and others read: no lock prefix on the write.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    pub(crate) fn sub(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(count), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How a subscription comes to read a compressed log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Joined {
    /// One with context, from its begin.
    AtOnce,
    /// One whose messages are compressed each by itself.
    Alone,
    /// One with more context than the one before, having got enough for that.
    Climbed,
}

/// Names of `Joined`.
pub const JOINED: [&str; 3] = ["at_once", "alone", "climbed"];

/// Why a subscription goes back from a compressed log to the one that is not.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FellBack {
    /// The log no longer holds what it needs.
    Overtaken,
    /// It lags, and what it lags behind has been replaced.
    Replaced,
    /// Another subscription of its connection brings more, and has the window now.
    Moved,
    /// An event stream's client gets something that the others do not.
    Parted,
}

/// Names of `FellBack`.
pub const FELL_BACK: [&str; 4] = ["overtaken", "replaced", "moved", "parted"];

/// What readers of one coding get.
#[derive(Debug, Default)]
pub(crate) struct CodedStats {
    /// How many there are.
    pub(crate) readers: Counter,
    /// Bytes of frames that they got.
    sent_bytes: Counter,
    /// The same, if nothing were compressed.
    plain_bytes: Counter,
}

impl CodedStats {
    /// So many get a run.
    pub(crate) fn count(&self, run: &Run, readers: u64) {
        self.sent_bytes.add(run.bytes() as u64 * readers);
        self.plain_bytes.add(run.plain_bytes() * readers);
    }

    /// One did not after all.
    pub(crate) fn take_back(&self, run: &Run) {
        self.sent_bytes.sub(run.bytes() as u64);
        self.plain_bytes.sub(run.plain_bytes());
    }
}

/// What one shard counts.
#[derive(Debug, Default)]
pub(crate) struct ShardStats {
    pub(crate) connections: Counter,
    pub(crate) connections_total: Counter,
    pub(crate) subscriptions: Counter,
    pub(crate) deliveries: Counter,
    pub(crate) expired: Counter,
    pub(crate) writes: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) lagging: Counter,
    pub(crate) overtaken: Counter,
    /// Publications that subscribers went past under a policy, by its index.
    pub(crate) skipped: [Counter; Policy::ALL.len()],
    pub(crate) accept_pauses: Counter,
    refused: Refused,
    pub(crate) tokens_refused: Counter,
    pub(crate) passed_on: Counter,
    /// Codes 1000 to 1015 by their last two digits; 16 is 3000 to 3999, 17 is 4000 to 4999.
    closes: [Counter; 18],
    /// By [`Coding::index`].
    coded: [CodedStats; Coding::COMPRESSED.len()],
    pub(crate) joined: [Counter; JOINED.len()],
    pub(crate) fell_back: [Counter; FELL_BACK.len()],
    completion: Times,
    /// Of sampled publications: until so many of the subscribers had it, as [`FRACTIONS`] says.
    taken: [Times; FRACTIONS.len()],
    /// Of openings, as [`Opened`] says.
    openings: [Times; OPENED.len()],
    /// Of subscriptions that the application was asked about.
    subscribing: Times,
}

/// Requests answered with an error, by their status less 400.
#[derive(Debug)]
struct Refused([Counter; 200]);

impl Default for Refused {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// How long something took, and how often.
#[derive(Debug, Default)]
struct Times {
    buckets: [Counter; BOUNDS_US.len() + 1],
    sum_ns: Counter,
}

impl Times {
    fn count(&self, took_ns: u64) {
        let took_us = took_ns / 1_000;
        self.buckets[BOUNDS_US.partition_point(|&bound| bound < took_us)].add(1);
        self.sum_ns.add(took_ns);
    }
}

/// The shares of its subscribers at which the way of a publication is timed.
pub const FRACTIONS: [f64; 3] = [0.5, 0.99, 1.0];

/// What clients open, as metrics name it.
pub const OPENED: [&str; 7] = [
    "websocket",
    "event_stream",
    "relayed",
    "signalr_negotiate",
    "signalr_websocket",
    "signalr_event_stream",
    "signalr_long_polling",
];

/// The same, by the index in [`OPENED`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Opened {
    WebSocket,
    EventStream,
    Relayed,
    Negotiation,
    SignalR(Transport),
}

impl Opened {
    fn index(self) -> usize {
        match self {
            Self::WebSocket => 0,
            Self::EventStream => 1,
            Self::Relayed => 2,
            Self::Negotiation => 3,
            Self::SignalR(Transport::WebSockets) => 4,
            Self::SignalR(Transport::ServerSentEvents) => 5,
            Self::SignalR(Transport::LongPolling) => 6,
        }
    }
}

impl ShardStats {
    /// The shard has died, and its connections with it.
    pub(crate) fn forget_connections(&self) {
        for gauge in [&self.connections, &self.subscriptions, &self.lagging] {
            gauge.sub(gauge.get());
        }
        self.coded.iter().for_each(|coded| coded.readers.sub(coded.readers.get()));
    }

    /// What is counted of a log's readers; `None` of one that is not compressed.
    pub(crate) fn coded(&self, coding: Coding) -> Option<&CodedStats> {
        coding.index().map(|index| &self.coded[index])
    }

    pub(crate) fn count_close(&self, code: u16) {
        let index = match code {
            1000..=1015 => usize::from(code - 1000),
            3000..=3999 => 16,
            4000..=4999 => 17,
            _ => 6,
        };
        self.closes[index].add(1);
    }

    /// A request was answered with this status; errors count.
    pub(crate) fn count_answer(&self, status: u16) {
        if let Some(counter) = status.checked_sub(400).and_then(|index| self.refused.0.get(usize::from(index))) {
            counter.add(1);
        }
    }

    /// A client was let in, so long after its request had come.
    pub(crate) fn count_opening(&self, opened: Opened, took_ns: u64) {
        self.openings[opened.index()].count(took_ns);
    }

    /// What a client asked to subscribe to was settled, so long after it had asked.
    pub(crate) fn count_subscribing(&self, took_ns: u64) {
        self.subscribing.count(took_ns);
    }

    /// One turn's frames of one log were handed to every socket that could take them, so long after publication.
    pub(crate) fn count_completion(&self, took_ns: u64) {
        self.completion.count(took_ns);
    }

    /// So many of a feed's subscribers, by the index in [`FRACTIONS`], had a publication so long after it was made.
    pub(crate) fn count_taken(&self, fraction: usize, took_ns: u64) {
        self.taken[fraction].count(took_ns);
    }
}

/// How long something took, of all that were timed.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// How many took at most so many microseconds, cumulative; the last bound is `u64::MAX`.
    pub buckets: Vec<(u64, u64)>,
    /// Sum of all of them.
    pub sum: Duration,
}

impl Histogram {
    fn add(&mut self, times: &Times) {
        let bounds = BOUNDS_US.into_iter().chain([u64::MAX]);
        if self.buckets.is_empty() {
            self.buckets = bounds.map(|bound| (bound, 0)).collect();
        }
        let mut below = 0;
        for (total, bucket) in self.buckets.iter_mut().zip(&times.buckets) {
            below += bucket.get();
            total.1 += below;
        }
        self.sum += Duration::from_nanos(times.sum_ns.get());
    }
}

/// Counters since start and gauges now, of all shards.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Open sockets.
    pub connections: u64,
    /// Sockets accepted since start.
    pub connections_total: u64,
    /// Ties between clients and channels.
    pub subscriptions: u64,
    /// Channels that exist.
    pub channels: u64,
    /// Publications appended.
    pub publications: u64,
    /// Frames of publications that were handed whole to a socket.
    pub deliveries: u64,
    /// Frames that a subscriber skipped because their time to live was over.
    pub expired: u64,
    /// System calls or ring entries that carried publications.
    pub writes: u64,
    /// Bytes handed to sockets.
    pub bytes_out: u64,
    /// Bytes taken from sockets.
    pub bytes_in: u64,
    /// Connections whose socket is full.
    pub lagging: u64,
    /// Connections closed because a channel's bound overtook them.
    pub overtaken: u64,
    /// Publications that a subscriber went past under the policy of its channel, by the index of
    /// [`Policy`](crate::channel::Policy).
    pub skipped: [u64; Policy::ALL.len()],
    /// Times that accepting paused for want of descriptors.
    pub accept_pauses: u64,
    /// Requests answered with an error.
    pub handshakes_refused: u64,
    /// The same by status.
    pub refused: BTreeMap<u16, u64>,
    /// SignalR requests with a token that none of these workers has signed: forged, cut, or of another instance.
    pub tokens_refused: u64,
    /// Requests and sockets that were passed on to the worker that has their connection, or searched for.
    pub passed_on: u64,
    /// Subscriptions that read a compressed log, by [`Coding::COMPRESSED`].
    pub compression_readers: [u64; Coding::COMPRESSED.len()],
    /// Bytes of frames that those got.
    pub compression_sent_bytes: [u64; Coding::COMPRESSED.len()],
    /// The same, if nothing were compressed.
    pub compression_plain_bytes: [u64; Coding::COMPRESSED.len()],
    /// How often a subscription went on in a compressed log, by [`JOINED`].
    pub compression_joins: [u64; JOINED.len()],
    /// And went back, by [`FELL_BACK`].
    pub compression_fallbacks: [u64; FELL_BACK.len()],
    /// Time in which publications were compressed.
    pub compression_time: Duration,
    /// How often compression was found not to pay in a channel, and rested.
    pub compression_rests: u64,
    /// Closed connections by close code; 3000 and 4000 stand for their thousands.
    pub closes: BTreeMap<u16, u64>,
    /// From a publication until the last subscriber that keeps pace was written to.
    pub completion: Histogram,
    /// From a publication until half, 99 of 100 and all of a shard's subscribers had it; of each channel one
    /// publication at a time is looked at.
    pub taken: [Histogram; FRACTIONS.len()],
    /// From a client's request until it was let in, by what it opened, as [`OPENED`] names it.
    pub openings: [Histogram; OPENED.len()],
    /// From a client's request to subscribe until it was settled, where the application is asked.
    pub subscribing: Histogram,
}

impl Stats {
    /// Adds one shard's.
    pub(crate) fn add(&mut self, shard: &ShardStats) {
        self.connections += shard.connections.get();
        self.connections_total += shard.connections_total.get();
        self.subscriptions += shard.subscriptions.get();
        self.deliveries += shard.deliveries.get();
        self.expired += shard.expired.get();
        self.writes += shard.writes.get();
        self.bytes_out += shard.bytes_out.get();
        self.bytes_in += shard.bytes_in.get();
        self.lagging += shard.lagging.get();
        self.overtaken += shard.overtaken.get();
        self.accept_pauses += shard.accept_pauses.get();
        for (status, count) in (400_u16..).zip(&shard.refused.0) {
            if count.get() > 0 {
                self.handshakes_refused += count.get();
                *self.refused.entry(status).or_default() += count.get();
            }
        }
        self.tokens_refused += shard.tokens_refused.get();
        self.passed_on += shard.passed_on.get();
        for (index, count) in (0_u16..).zip(&shard.closes) {
            let code = if index < 16 { 1_000 + index } else { (index - 13) * 1_000 };
            if count.get() > 0 {
                *self.closes.entry(code).or_default() += count.get();
            }
        }
        self.completion.add(&shard.completion);
        for (taken, times) in self.taken.iter_mut().zip(&shard.taken) {
            taken.add(times);
        }
        for (opened, times) in self.openings.iter_mut().zip(&shard.openings) {
            opened.add(times);
        }
        self.subscribing.add(&shard.subscribing);
        for (index, coded) in shard.coded.iter().enumerate() {
            self.compression_readers[index] += coded.readers.get();
            self.compression_sent_bytes[index] += coded.sent_bytes.get();
            self.compression_plain_bytes[index] += coded.plain_bytes.get();
        }
        let totals = self.skipped.iter_mut().chain(&mut self.compression_joins).chain(&mut self.compression_fallbacks);
        for (total, count) in totals.zip(shard.skipped.iter().chain(&shard.joined).chain(&shard.fell_back)) {
            *total += count.get();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_cumulative_and_summed_over_shards() {
        let (one, two) = (ShardStats::default(), ShardStats::default());
        one.count_completion(50_000);
        one.count_completion(51_000);
        two.count_completion(60_000_000_000);
        two.count_close(1013);
        two.count_close(4_321);
        one.count_answer(101);
        one.count_answer(401);
        two.count_answer(401);
        two.count_answer(599);
        two.count_answer(600);
        for (index, transport) in (4..).zip(Transport::ALL) {
            assert_eq!(Opened::SignalR(transport).index(), index);
            one.count_opening(Opened::SignalR(transport), 1_000);
        }
        let mut stats = Stats::default();
        stats.add(&one);
        stats.add(&two);
        assert_eq!(stats.completion.buckets[0], (50, 1));
        assert_eq!(stats.completion.buckets[1], (100, 2));
        assert_eq!(stats.completion.buckets.last(), Some(&(u64::MAX, 3)));
        assert_eq!(stats.closes, BTreeMap::from([(1013, 1), (4000, 1)]));
        assert_eq!((stats.handshakes_refused, stats.refused), (3, BTreeMap::from([(401, 2), (599, 1)])));
        let opened = stats.openings.map(|histogram| histogram.buckets[0].1);
        assert_eq!(opened, [0, 0, 0, 0, 1, 1, 1]);
    }
}
