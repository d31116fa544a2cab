//! Idle channels are forgotten a little at a time, by the first shard: a share of all in each tick, spread over turns.
use std::collections::VecDeque;
use std::time::Duration;

use crate::channel::{Channel, Registry};
use crate::clock::ticks;

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
pub(crate) struct Sweep {
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

    /// A tick: reckons how many are to be looked at until the next.
    pub(super) fn plan(&mut self, registries: [&Registry; 4], tick: u32) {
        let passed = (tick.saturating_sub(self.tick) as usize).min(ticks(ROUND) as usize);
        self.tick = tick;
        for (round, looks) in self.round.iter_mut().zip(registries.map(Registry::looks)) {
            *round = looks.max(*round - *round / (16 * ticks(ROUND) as usize));
        }
        self.due = self.round.map(|count| (count * passed).div_ceil(ticks(ROUND) as usize));
    }

    /// Nothing is to be looked at.
    pub(super) fn rest(&mut self) {
        self.due = [0; 4];
    }

    /// Somebody left a channel of this registry: with one that nobody needs, the oldest such one may go.
    pub(super) fn note_left(&mut self, registry: &Registry, channel: &Channel) {
        if !channel.is_listed || !channel.is_unused() {
            return;
        }
        self.left.push_back(channel.own_epoch());
        if self.left.len() > LEFT_MAX
            && let Some(epoch) = self.left.pop_front()
        {
            registry.forget_unused(epoch);
        }
    }

    /// A turn: looks at some, if any are due.
    pub(super) fn go_on(&mut self, registries: [&Registry; 4], now_ns: u64) {
        let Some(index) = self.due.iter().position(|&count| count > 0) else { return };
        let count = self.due[index].min(LOOKS_A_TURN);
        let looked = registries[index].sweep(count, now_ns / 1_000_000_000);
        self.due[index] = self.due[index].saturating_sub(looked);
    }
}
