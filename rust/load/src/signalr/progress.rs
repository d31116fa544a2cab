//! What there has been since the start, told from time to time. No sockets.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::inbound::Seen;
use crate::histogram::{ages_us, pairs};
use crate::sys;

/// The counters since the start, and the ages of the span since they were last told.
pub(super) struct Progress {
    /// Between two spans, and the end of this one; `None` where nobody wants to know.
    every_ns: Option<u64>,
    due_ns: u64,
    pub(super) received: u64,
    /// Hub messages of the server's that ask for nothing.
    pub(super) pings: u64,
    /// All that was read, answers to requests and heads of frames included.
    pub(super) bytes: u64,
    /// Of publications, in microseconds.
    ages: Histogram<u64>,
}

impl Progress {
    /// Nothing yet; told `every` so often from `now` on.
    pub(super) fn new(every: Option<Duration>, now: u64) -> Self {
        let every_ns = every.map(|every| every.as_nanos() as u64);
        Self { every_ns, due_ns: now + every_ns.unwrap_or_default(), received: 0, pings: 0, bytes: 0, ages: ages_us() }
    }

    /// Adds what one read brought to a client that opened then; the age of what was published before does not count.
    #[inline]
    pub(super) fn add(&mut self, seen: &Seen, opened_wall_ns: u64) {
        self.received += seen.counted;
        self.pings += seen.pings;
        if self.every_ns.is_some() && !seen.times.is_empty() {
            let now = sys::wall_ns();
            for time in seen.times.iter().filter(|&&time| time >= opened_wall_ns) {
                self.ages.saturating_record(now.saturating_sub(*time) / 1_000);
            }
        }
    }

    /// When the span ends.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.every_ns.map(|_| self.due_ns)
    }

    /// Whether the span has ended.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.every_ns.is_some() && now >= self.due_ns
    }

    /// Begins the next span; gives the ages of the last, with how many had them.
    pub(super) fn begin_span(&mut self, now: u64) -> Vec<(u64, u64)> {
        self.due_ns = now + self.every_ns.unwrap_or_default();
        let ages = pairs(&self.ages);
        self.ages.reset();
        ages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stay_and_ages_are_those_of_the_span() {
        let mut progress = Progress::new(Some(Duration::from_nanos(10)), 100);
        assert_eq!((progress.due_ns(), progress.is_due(109), progress.is_due(110)), (Some(110), false, true));
        progress.add(&Seen { counted: 3, times: vec![1, 1, 0], ..Seen::default() }, 1);
        let ages = progress.begin_span(110);
        assert_eq!((progress.received, ages.len(), ages[0].1), (3, 1, 2));
        assert_eq!((progress.begin_span(120), progress.received, progress.due_ns()), (vec![], 3, Some(130)));
    }

    #[test]
    fn nothing_is_due_where_nobody_wants_to_know() {
        let progress = Progress::new(None, 0);
        assert_eq!((progress.due_ns(), progress.is_due(u64::MAX)), (None, false));
    }
}
