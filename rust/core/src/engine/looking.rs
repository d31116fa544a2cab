//! What an operator asks of an engine. Each question is bounded, and waits a second for a shard at most.
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::Engine;
use crate::channel::{ChannelSeen, Kept};
use crate::connection_id::ConnectionId;
use crate::looking::{Look, Page};
use crate::messages::Command;
use crate::position::Position;

impl Engine {
    /// Some connections of a shard. `None` where there is no such shard, or it does not answer within a second.
    ///
    /// Only those who watch `channel`, if there is one by that name; a name that nobody watches gives nobody.
    #[must_use]
    pub fn look_at_connections(&self, shard: usize, mut look: Look, channel: Option<&str>) -> Option<Page> {
        self.check_running().ok()?;
        if let Some(name) = channel {
            look.channel = self.common.registry.find(name);
            if look.channel.is_none() {
                return Some(Page::default());
            }
        }
        let (reply, page) = sync_channel(1);
        self.shards.get(shard)?.command(Command::Look(Box::new(look), reply));
        page.recv_timeout(Duration::from_secs(1)).ok()
    }

    /// How many shards there are.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The shard of a connection's id.
    #[must_use]
    pub fn shard_index_of(&self, id: ConnectionId) -> usize {
        id.shard()
    }

    /// Up to `count_max` channels behind a place, and the place behind the last of them; `None` at the end. It begins at
    /// (0, 0).
    #[must_use]
    pub fn look_at_channels(&self, from: (usize, u64), count_max: usize) -> (Vec<ChannelSeen>, Option<(usize, u64)>) {
        let (channels, next) = self.common.registry.page(from, count_max.max(1));
        let now_ns = self.common.clock.now_ns();
        (channels.iter().map(|channel| channel.look(now_ns)).collect(), next)
    }

    /// The channel of this name, if it exists.
    #[must_use]
    pub fn look_at_channel(&self, name: &str) -> Option<ChannelSeen> {
        Some(self.common.registry.find(name)?.look(self.common.clock.now_ns()))
    }

    /// Channels that are made from now on have a greater number than this, those that are there a lower one.
    #[must_use]
    pub fn next_epoch(&self) -> u64 {
        self.common.registry.next_epoch()
    }

    /// What a channel keeps behind `since`, or the newest of it; see [`Channel::kept`](crate::channel::Channel).
    #[must_use]
    pub fn kept_of(
        &self,
        name: &str,
        since: Option<Position>,
        count_max: usize,
    ) -> Option<(Position, Vec<Kept>, bool)> {
        Some(self.common.registry.find(name)?.kept(since, count_max, self.common.clock.now_ns()))
    }
}
