//! The only clock: monotonic nanoseconds, from a fixed number at the engine's start on, and the ticks in which deadlines are counted.
use std::sync::OnceLock;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Timers look at their deadlines this often.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// What the clock says at its start: ages of what other processes have published go further back, up to a year.
const EPOCH_NS: u64 = 366 * 86_400 * 1_000_000_000;

static START: OnceLock<Instant> = OnceLock::new();

/// Shared by publishers and shards, so that their times compare.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    /// The system's, from here on.
    Since(Instant),
    /// A test's.
    #[cfg(test)]
    Set(&'static AtomicU64),
}

impl Clock {
    /// All of one process agree.
    pub(crate) fn start() -> Self {
        Self::Since(*START.get_or_init(Instant::now))
    }

    pub(crate) fn now_ns(self) -> u64 {
        match self {
            Self::Since(start) => EPOCH_NS + start.elapsed().as_nanos() as u64,
            #[cfg(test)]
            Self::Set(now_ns) => now_ns.load(Ordering::Relaxed),
        }
    }
}

/// A time of the clock as another machine reads it: milliseconds since 1970, by the system's clock as it is now.
pub(crate) fn unix_ms_of(time_ns: u64) -> u64 {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    now_ms.saturating_sub(Clock::start().now_ns().saturating_sub(time_ns) / 1_000_000)
}

/// No tick: a deadline that there is not.
pub(crate) const NO_TICK: u32 = u32::MAX;

/// A time in ticks, rounded up.
pub(crate) fn ticks(time: Duration) -> u32 {
    time.as_nanos().div_ceil(TICK.as_nanos()) as u32
}

/// When a tick begins.
pub(crate) fn start_of(tick: u32) -> u64 {
    u64::from(tick) * TICK.as_nanos() as u64
}

/// The tick in which a moment lies.
pub(crate) fn tick_of(now_ns: u64) -> u32 {
    u32::try_from(u128::from(now_ns) / TICK.as_nanos()).unwrap_or(NO_TICK - 1)
}
