//! Deadlines of all connections in one dense array: four bytes and no timer for each.
//!
//! They stand in blocks, and a look passes over the blocks in which none has come. Longer times end in steps, so that many
//! end in the same tick, and a shard whose clients are idle sleeps from step to step.
use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{NO_TICK, tick_of, ticks};
use crate::messages::ConnectionId;
use crate::ws::CloseCode;

/// Deadlines in a block.
const BLOCK: usize = 64;
/// The longest step, in ticks.
pub(crate) const STEP_MAX: u32 = 5;

/// The step in which a time of so many ticks ends: a sixteenth of it, and no more than [`STEP_MAX`].
pub(crate) fn step_of(ticks: u32) -> u32 {
    (ticks / 16).clamp(1, STEP_MAX)
}

/// Deadlines by slot, in ticks.
#[derive(Debug)]
pub(crate) struct Timers {
    /// Whole blocks of them.
    deadlines: Vec<u32>,
    /// By block: none of its deadlines is before that.
    earliest: Vec<u32>,
    /// No deadline is before that.
    next: u32,
    /// Ticks since the engine began, as of the last look.
    now: u32,
    /// Ticks at the begin of this turn: what deadlines count from.
    turn: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Self { deadlines: Vec::new(), earliest: Vec::new(), next: NO_TICK, now: 0, turn: 0 }
    }
}

impl Timers {
    /// The slot's next deadline: never early, at most two ticks and a step late.
    pub(crate) fn set(&mut self, slot: u32, after: Duration) {
        let after = ticks(after);
        let tick = self.tick().saturating_add(after).saturating_add(1);
        self.set_at(slot, tick.checked_next_multiple_of(step_of(after)).unwrap_or(NO_TICK));
    }

    /// The same, at the begin of that tick.
    pub(crate) fn set_at(&mut self, slot: u32, tick: u32) {
        let (slot, tick) = (slot as usize, tick.min(NO_TICK - 1));
        let block = slot / BLOCK;
        if block >= self.earliest.len() {
            self.earliest.resize(block + 1, NO_TICK);
            self.deadlines.resize((block + 1) * BLOCK, NO_TICK);
        }
        self.deadlines[slot] = tick;
        self.earliest[block] = self.earliest[block].min(tick);
        self.next = self.next.min(tick);
    }

    /// The tick before which no time is up, [`NO_TICK`] where there is no deadline.
    pub(crate) fn next(&self) -> u32 {
        self.next
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
        if self.next > self.now {
            return expired;
        }
        self.next = NO_TICK;
        for (block, (earliest, deadlines)) in self.earliest.iter_mut().zip(self.deadlines.chunks_mut(BLOCK)).enumerate()
        {
            if *earliest <= self.now {
                *earliest = NO_TICK;
                for (slot, deadline) in ((block * BLOCK) as u32..).zip(deadlines) {
                    if *deadline <= self.now {
                        *deadline = NO_TICK;
                        expired.push(slot);
                    }
                    *earliest = (*earliest).min(*deadline);
                }
            }
            self.next = self.next.min(*earliest);
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

    /// Of many that were set at any time the shard wakes twice a second, and passes over who is not due.
    #[test]
    fn long_times_end_in_steps_and_the_next_is_known() {
        let mut timers = Timers::default();
        let at = |ms: u64| ms * 1_000_000;
        assert_eq!(timers.next(), NO_TICK);
        for slot in 0..300 {
            timers.begin_turn(at(u64::from(slot) * 100));
            timers.set(slot, Duration::from_secs(60));
        }
        let (mut looks, mut seen) = (0, 0);
        while timers.next() != NO_TICK {
            let tick = timers.next();
            let expired = timers.advance(at(u64::from(tick) * 100));
            for slot in &expired {
                let late = tick - (slot + 601);
                assert!(late < STEP_MAX, "the {slot}th is {late} ticks late");
            }
            (looks, seen) = (looks + 1, seen + expired.len());
        }
        assert_eq!((looks, seen), (60, 300));
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
