//! The only clock: monotonic nanoseconds since the engine began.
use std::time::{Duration, Instant};

/// Timers look at their deadlines this often.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Shared by publishers and shards, so that their times compare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}
