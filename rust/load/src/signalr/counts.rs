//! What arrived at all clients together.

use hdrhistogram::Histogram;

use super::inbound::Seen;
use crate::histogram::latencies;
use crate::sys;

/// What arrived since counting last began.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) bytes: u64,
    pub(super) frames: u64,
    pub(super) pings: u64,
    /// Ages of messages that were published since, to clients that were open by then.
    pub(super) latency: Histogram<u64>,
    /// The longest time between two messages, whoever received them.
    pub(super) silence_ns: u64,
    /// When the last came.
    pub(super) last_ns: u64,
    /// When counting began by the wall's clock.
    since_wall_ns: u64,
}

impl Counts {
    /// Nothing has arrived yet.
    pub(super) fn new() -> Self {
        Self {
            received: 0,
            bytes: 0,
            frames: 0,
            pings: 0,
            latency: latencies(),
            silence_ns: 0,
            last_ns: 0,
            since_wall_ns: sys::wall_ns(),
        }
    }

    /// Adds what one read brought to a client that opened then.
    pub(super) fn add(&mut self, seen: &Seen, opened_wall_ns: u64) {
        self.received += seen.counted;
        self.bytes += seen.bytes;
        self.frames += seen.frames;
        self.pings += seen.pings;
        if seen.counted > 0 {
            let now = sys::monotonic_ns();
            if self.last_ns != 0 {
                self.silence_ns = self.silence_ns.max(now - self.last_ns);
            }
            self.last_ns = now;
        }
        if !seen.times.is_empty() {
            let now = sys::wall_ns();
            let since = self.since_wall_ns.max(opened_wall_ns);
            for time in seen.times.iter().filter(|&&time| time >= since) {
                self.latency.saturating_record(now.saturating_sub(*time));
            }
        }
    }
}

/// How far the clients are in what they watch.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The newest publication of each match that any client has, all matches together.
    pub(super) newest: u64,
    /// Clients that do not have the newest of theirs.
    pub(super) behind: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_of_what_was_published_since_to_clients_that_were_open() {
        let mut counts = Counts::new();
        let now = sys::wall_ns();
        let seen = |time| Seen { counted: 1, times: vec![time], ..Seen::default() };
        counts.add(&seen(now - 3_600_000_000_000), 0);
        counts.add(&seen(now), now + 1);
        assert!(counts.latency.is_empty());
        counts.add(&seen(now), 0);
        assert_eq!((counts.received, counts.latency.len()), (3, 1));
        assert!(counts.silence_ns > 0);
    }
}
