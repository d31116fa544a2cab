//! Idle channels are forgotten a little at a time, by the first shard: a share of all in each tick, spread over turns.
use std::collections::VecDeque;
use std::time::Duration;

use super::timers::ticks;
use super::{Io, Shard};
use crate::channel::{Channel, Registry};

/// How long it takes to look at every channel once, about.
const ROUND: Duration = Duration::from_secs(6);
/// Looked at in one turn: some 30 µs, for which the shard's sockets wait.
const LOOKS_A_TURN: usize = 256;
/// How long the shard that sweeps sleeps where there are channels and nothing else is to be done.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Channels without any publication that the last one has left, and that wait for somebody to come back, in one shard.
/// Those before them are forgotten at once: a client may subscribe to a hundred thousand names a second.
const LEFT_MAX: usize = 1_024;

/// What is to be looked at before the next tick.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// By registry.
    due: [usize; 4],
    /// What a round is reckoned to look at. It shrinks slowly: while many are given up the pace must not fall with them.
    round: [usize; 4],
    /// Epochs of channels that were left unused, oldest first.
    left: VecDeque<u64>,
    /// The tick up to which it was reckoned.
    tick: u32,
}

impl Sweep {
    /// Whether something is left for the next turn.
    pub(super) fn has_more(&self) -> bool {
        self.due.iter().any(|&count| count > 0)
    }
}

impl<I: Io> Shard<I> {
    fn registries(&self) -> [&Registry; 4] {
        let common = &self.common;
        [&common.registry, &common.users, &common.hubs, &common.lanes]
    }

    /// Whether this shard has channels to look at from time to time.
    pub(super) fn has_to_sweep(&self) -> bool {
        self.index == 0 && self.registries().iter().any(|registry| registry.count() > 0)
    }

    /// A tick: reckons how many are to be looked at until the next.
    pub(super) fn plan_sweep(&mut self) {
        if !self.has_to_sweep() {
            self.sweep.due = [0; 4];
            return;
        }
        let tick = self.timers.tick();
        let passed = (tick.saturating_sub(self.sweep.tick) as usize).min(ticks(ROUND) as usize);
        let looks = self.registries().map(Registry::looks);
        self.sweep.tick = tick;
        for (round, looks) in self.sweep.round.iter_mut().zip(looks) {
            *round = looks.max(*round - *round / (16 * ticks(ROUND) as usize));
        }
        self.sweep.due = self.sweep.round.map(|count| (count * passed).div_ceil(ticks(ROUND) as usize));
    }

    /// Somebody left a channel: with one that nobody needs, the oldest such one may go.
    pub(super) fn note_left(&mut self, channel: &Channel) {
        if !channel.is_listed || !channel.is_unused() {
            return;
        }
        self.sweep.left.push_back(channel.epoch());
        if self.sweep.left.len() > LEFT_MAX
            && let Some(epoch) = self.sweep.left.pop_front()
        {
            self.common.registry.forget_unused(epoch);
        }
    }

    /// A turn: looks at some, if any are due.
    pub(super) fn sweep_on(&mut self) {
        let now_s = self.clock.now_ns() / 1_000_000_000;
        let Some(index) = self.sweep.due.iter().position(|&count| count > 0) else { return };
        let count = self.sweep.due[index].min(LOOKS_A_TURN);
        let looked = self.registries()[index].sweep(count, now_s);
        self.sweep.due[index] = self.sweep.due[index].saturating_sub(looked);
    }
}
