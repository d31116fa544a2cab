//! Deadlines of all connections in one dense array, looked at once a tick: four bytes and no timer for each.
//!
//! A look at 20,000 deadlines reads 80 KB and takes about 5 µs, ten times a second.
use std::time::Duration;

use super::clock::TICK;

/// No deadline.
const NEVER: u32 = u32::MAX;

/// Deadlines by slot, in ticks.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: Vec<u32>,
    /// Ticks since the engine began, as of the last look.
    now: u32,
    /// Ticks at the begin of this turn: what deadlines count from.
    turn: u32,
}

impl Timers {
    /// The slot's next deadline: never early, at most two ticks late.
    pub(crate) fn set(&mut self, slot: u32, after: Duration) {
        self.set_in(slot, ticks(after));
    }

    /// The same, so many ticks from now.
    pub(crate) fn set_in(&mut self, slot: u32, ticks: u32) {
        let slot = slot as usize;
        if slot >= self.deadlines.len() {
            self.deadlines.resize(slot + 1, NEVER);
        }
        self.deadlines[slot] = self.tick().saturating_add(ticks.saturating_add(1)).min(NEVER - 1);
    }

    /// Ticks since the engine began, as of this turn.
    pub(crate) fn tick(&self) -> u32 {
        self.turn.max(self.now)
    }

    /// A turn begins.
    pub(crate) fn begin_turn(&mut self, now_ns: u64) {
        self.turn = tick_of(now_ns);
    }

    pub(crate) fn clear(&mut self, slot: u32) {
        if let Some(deadline) = self.deadlines.get_mut(slot as usize) {
            *deadline = NEVER;
        }
    }

    /// Whether a tick has begun since the last look.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        tick_of(now_ns) > self.now
    }

    /// Moves the clock on, gives the slots whose time has come and clears their deadlines.
    pub(crate) fn advance(&mut self, now_ns: u64) -> Vec<u32> {
        self.now = tick_of(now_ns);
        let mut expired = Vec::new();
        for (slot, deadline) in (0..).zip(&mut self.deadlines) {
            if *deadline <= self.now {
                *deadline = NEVER;
                expired.push(slot);
            }
        }
        expired
    }
}

/// A time in ticks, rounded up.
pub(crate) fn ticks(time: Duration) -> u32 {
    time.as_nanos().div_ceil(TICK.as_nanos()) as u32
}

fn tick_of(now_ns: u64) -> u32 {
    u32::try_from(u128::from(now_ns) / TICK.as_nanos()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_comes_once_and_never_early() {
        let mut timers = Timers::default();
        timers.set(3, Duration::from_millis(250));
        timers.set(1, Duration::from_secs(1));
        let at = |ms: u64| ms * 1_000_000;
        assert!(timers.advance(at(200)).is_empty());
        assert_eq!(timers.advance(at(400)), [3]);
        timers.begin_turn(at(499));
        timers.set(2, Duration::from_millis(100));
        assert!(timers.advance(at(500)).is_empty(), "set at 499 ms for 100 ms");
        assert_eq!(timers.advance(at(600)), [2]);
        assert!(timers.advance(at(900)).is_empty());
        timers.clear(1);
        assert!(timers.advance(at(5_000)).is_empty());
    }
}
