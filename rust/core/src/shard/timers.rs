//! Deadlines of all connections in one dense array, looked at once a tick: four bytes and no timer for each.
//!
//! A look at 20,000 deadlines reads 80 KB and takes about 5 µs, ten times a second.
use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{NO_TICK, tick_of, ticks};
use crate::messages::ConnectionId;
use crate::ws::CloseCode;

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
            self.deadlines.resize(slot + 1, NO_TICK);
        }
        self.deadlines[slot] = self.tick().saturating_add(ticks.saturating_add(1)).min(NO_TICK - 1);
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
            *deadline = NO_TICK;
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
                *deadline = NO_TICK;
                expired.push(slot);
            }
        }
        expired
    }
}

/// Connections that a drain has yet to close, in order, each with the tick of its turn.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) code: CloseCode,
    pub(crate) reason: Box<str>,
    connections: VecDeque<(u32, ConnectionId)>,
    /// When it began.
    begun: u32,
    /// Over how many ticks it is spread.
    spread: u32,
    /// How many places there are in that time.
    count: usize,
}

impl Leaving {
    /// Nobody yet; over `spread` ticks from `begun` on there are `count` places.
    pub(crate) fn new((code, reason): (CloseCode, Box<str>), (begun, spread): (u32, u32), count: usize) -> Self {
        Self { code, reason, connections: VecDeque::with_capacity(count), begun, spread, count }
    }

    /// One more, whose turn is that of its place.
    pub(crate) fn add(&mut self, place: usize, id: ConnectionId) {
        let after = u64::from(self.spread) * place as u64 / self.count as u64;
        self.connections.push_back((self.begun + after as u32, id));
    }

    /// Whose turn has come by this tick.
    pub(crate) fn next_before(&mut self, tick: u32) -> Option<ConnectionId> {
        self.connections.front().filter(|one| one.0 <= tick)?;
        self.connections.pop_front().map(|one| one.1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }
}

/// Who was taken and has not asked for anything, or not been answered, when a drain began that leaves the port to others.
#[derive(Debug)]
pub(crate) struct Latecomers {
    pub(crate) code: CloseCode,
    pub(crate) reason: Box<str>,
    pub(crate) connections: Vec<ConnectionId>,
    /// The tick up to which the next request may come on one that had one.
    pub(crate) until: u32,
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

    /// Who comes back does not come all at once.
    #[test]
    fn those_who_leave_do_so_evenly_over_the_time() {
        let id = |slot| ConnectionId::new(0, 0, 0, slot);
        let mut leaving = Leaving::new((CloseCode::RESTART, "".into()), (100, 10), 4);
        (0..4).filter(|&place| place != 1).for_each(|place| leaving.add(place, id(place as u32)));
        let mut at = |tick| std::iter::from_fn(|| leaving.next_before(tick)).map(|one| one.slot()).collect::<Vec<_>>();
        assert_eq!([at(99), at(100), at(104), at(105), at(200)], [vec![], vec![0], vec![], vec![2], vec![3]]);
        assert!(leaving.is_empty());
    }
}
