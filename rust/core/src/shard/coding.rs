//! Who reads which of a channel's logs: those whose clients inflate go from log to log, to where fewer bytes go out.
//!
//! A subscription begins in the log whose frames are not compressed, and at its tail goes on in one whose are. There frames
//! are read without a gap. Who is to skip some goes back. A connection has one window: one subscription at a time has it.
use super::{Io, Shard};
use crate::channel::{Inflates, Mode, Policy, Watched};
use crate::messages::ConnectionId;
use crate::protocol::{Coding, Framing};
use crate::stats::{FellBack, Joined};

/// So many ticks lie between two looks at who has the window.
const LOOK_TICKS: u32 = if cfg!(test) { 0 } else { 10 };

/// What is compressed with context stands for so many times as much, about.
const RATIO: u64 = 8;

/// Of policy `latest`: who lags by more of a compressed log than this gets nothing any more that was replaced.
const LAG_BYTES_MAX: u64 = if cfg!(test) { 0 } else { 16 << 10 };

impl<I: Io> Shard<I> {
    /// A subscription has come to its feed's tail: it may be one that could read a compressed log.
    pub(super) fn note_uncoded(&mut self, slot: u32, feed: u32) {
        let connection = self.slab.at(slot);
        if connection.inflates.is_none() || connection.format.framing() == Framing::Edge || self.is_alone(slot) {
            return;
        }
        let id = self.id_of(slot);
        let target = self.feeds.at(feed);
        let reads_all = target.watch.view.is_all(); // what is left out an inflater would lack
        if reads_all && target.log.coding == Coding::Plain && target.channel.settings().compression {
            if target.uncoded.len() >= 2 * target.at_tail.len().max(8) {
                target.uncoded.sort_unstable();
                target.uncoded.dedup(); // who comes and goes stands there several times
            }
            target.uncoded.push(id);
            target.has_new_uncoded = true;
            self.uncoded.push(feed); // before anything else is published, if that can be
        }
    }

    /// Of these feeds, who may goes on in a better log; and whoever has to falls back.
    pub(super) fn settle_codings(&mut self, feeds: impl Iterator<Item = u32>) {
        for feed in feeds {
            self.code(feed);
        }
        for id in std::mem::take(&mut self.falling) {
            self.with(id, Self::fall_back);
        }
    }

    fn code(&mut self, feed: u32) {
        let Some(target) = self.feeds.get(feed) else { return };
        let is_due = target.has_new_uncoded || self.timers.tick() >= target.uncoded_at;
        if !target.uncoded.is_empty() && is_due {
            self.begin_coding(feed);
        } else if !target.climbers.is_empty() && target.channel.fed_at(target.log, target.cursor) >= target.better_from
        {
            self.climb(feed);
        }
    }

    /// Those who wait for it go on in a compressed log, if they are enough.
    fn begin_coding(&mut self, feed: u32) {
        self.feeds.at(feed).has_new_uncoded = false;
        let mut waiting = std::mem::take(&mut self.feeds.at(feed).uncoded);
        waiting.sort_unstable();
        waiting.dedup();
        waiting.retain(|&id| self.index_at(id, feed).is_some_and(|(_, is_lagging)| !is_lagging));
        let target = self.feeds.at(feed);
        if waiting.len() < target.channel.settings().compression_readers && !target.channel.is_coded(target.log.format)
        {
            target.uncoded = waiting;
            return;
        }
        let tick = self.timers.tick();
        let may_take = tick >= self.feeds.at(feed).uncoded_at;
        let mut is_late = false;
        waiting.retain(|&id| match self.window_of(id) {
            Some(other) if !may_take || !self.take_window(id, other, feed) => true,
            _ => {
                let stays = !self.go_to_better(id, feed, None);
                is_late |= stays;
                stays
            }
        });
        if self.feeds.get(feed).is_some() {
            let target = self.feeds.at(feed);
            if may_take {
                target.uncoded_at = tick + LOOK_TICKS;
            }
            target.has_new_uncoded |= is_late;
            target.uncoded.append(&mut waiting);
        }
    }

    /// A feed brings its readers so many bytes.
    pub(super) fn note_load(&mut self, feed: u32, bytes: usize) {
        let tick = self.timers.tick();
        let target = self.feeds.at(feed);
        let ratio = if target.log.coding == Coding::Plain { 1 } else { RATIO };
        target.load.add(tick, bytes as u64 * ratio);
    }

    /// A reader of a compressed log has got something else: as if it had just come there.
    pub(super) fn begin_climbing_anew(&mut self, id: ConnectionId, feed: u32) {
        let Some((index, is_lagging)) = self.index_at(id, feed) else { return };
        let Some(connection) = self.slot_of(id).and_then(|slot| self.slab.get(slot)) else { return };
        let cursor = connection.subscriptions[index].cursor;
        let target = self.feeds.at(feed);
        let since = target.channel.fed_at(target.log, if is_lagging { cursor } else { target.cursor });
        self.note_climber(id, feed, since);
    }

    /// Those go on in a better log who have got enough for that.
    fn climb(&mut self, feed: u32) {
        let target = self.feeds.at(feed);
        target.better_from = u64::MAX;
        for (id, since) in newest_of_each(std::mem::take(&mut target.climbers)) {
            if self.index_at(id, feed).is_some() && !self.go_to_better(id, feed, Some(since)) {
                self.note_climber(id, feed, since);
            }
        }
    }

    /// Which of its subscriptions is this feed's, and whether it lags there.
    pub(super) fn index_at(&self, id: ConnectionId, feed: u32) -> Option<(usize, bool)> {
        let slot = self.slot_of(id)?;
        let connection = self.slab.get(slot)?;
        let index = self.feeds.find(connection, slot, feed)?;
        Some((index, connection.subscriptions[index].is_lagging()))
    }

    /// The feed of the subscription that has the connection's window, if that is one alone.
    fn window_of(&self, id: ConnectionId) -> Option<u32> {
        let slot = self.slot_of(id)?;
        let connection = self.slab.get(slot)?;
        self.inflates_of(slot).filter(|inflates| inflates.takes_over)?;
        let is_coded = |feed: &u32| self.feeds.get(*feed).is_some_and(|target| target.log.coding != Coding::Plain);
        connection.subscriptions.iter().map(|one| one.feed).find(is_coded)
    }

    /// The window goes to the subscription that brings more, if that is twice as much as of the one that has it.
    fn take_window(&mut self, id: ConnectionId, from: u32, to: u32) -> bool {
        let tick = self.timers.tick();
        if self.feeds.at(to).load.at(tick) <= 2 * self.feeds.at(from).load.at(tick) {
            return false;
        }
        let (Some(slot), Some((index, false))) = (self.slot_of(id), self.index_at(id, from)) else { return false };
        let target = self.feeds.at(from);
        let (channel, place) = (target.channel.clone(), (target.log, target.cursor));
        let Some((passage, _)) = channel.fall_back(place, self.index) else { return false };
        let Some(plain) = self.pass_at_tail((slot, index), passage) else { return false };
        self.stats.fell_back[FellBack::Moved as usize].add(1);
        self.note_uncoded(slot, plain);
        true
    }

    /// A subscription at the tail goes on at that of another log of its channel; gives the feed. `None` where it stays: one of
    /// the two was told of another publication meanwhile. After the next turn they may be together.
    fn pass_at_tail(&mut self, at: (u32, usize), passage: Watched) -> Option<u32> {
        let to = self.feeds.obtain(&passage.channel, passage.log, &passage.watch);
        if self.feeds.at(to).cursor != passage.cursor {
            self.feeds.forget_if_empty(to);
            return None;
        }
        self.count_passage(at, to);
        self.feeds.pass(&mut self.slab, at, to, (passage.cursor, None));
        passage.keep();
        Some(to)
    }

    /// A subscription is about to go on in another log.
    fn count_passage(&mut self, (slot, index): (u32, usize), to: u32) {
        let from = self.slab.at(slot).subscriptions[index].feed;
        let (from, to) = (self.feeds.at(from).log.coding, self.feeds.at(to).log.coding);
        self.stats.coded(from).inspect(|coded| coded.readers.sub(1));
        self.stats.coded(to).inspect(|coded| coded.readers.add(1));
    }

    /// A subscription at the tail goes on in a better log, if there is one for it. False where it stays.
    fn go_to_better(&mut self, id: ConnectionId, feed: u32, since: Option<u64>) -> bool {
        let (Some(slot), Some((index, false))) = (self.slot_of(id), self.index_at(id, feed)) else { return false };
        let Some(inflates) = self.inflates_of(slot) else { return false };
        let target = self.feeds.at(feed);
        let (channel, place) = (target.channel.clone(), (target.log, target.cursor));
        let from = target.log.coding;
        let Some((passage, since)) = channel.better(place, inflates, since, self.index) else { return false };
        let Some(to) = self.pass_at_tail((slot, index), passage) else { return false };
        let joined = match from {
            Coding::Plain if self.feeds.at(to).log.coding.is_shared() => Joined::AtOnce,
            Coding::Plain => Joined::Alone,
            _ => Joined::Climbed,
        };
        self.stats.joined[joined as usize].add(1);
        self.note_climber(id, to, since);
        true
    }

    /// Notes when this reader may go on in a log with more context, if there is one for it.
    fn note_climber(&mut self, id: ConnectionId, feed: u32, since: u64) {
        let inflates = self.slot_of(id).and_then(|slot| self.inflates_of(slot));
        let Some(Inflates { window_bits, takes_over }) = inflates else { return };
        let target = self.feeds.at(feed);
        let better = Coding::of(window_bits, takes_over).iter().take_while(|&&coding| coding != target.log.coding);
        let Some(next) = better.last() else { return };
        let fed = target.channel.fed_at(target.log, target.cursor);
        // Where it had enough and the log was not there yet, or has just moved on, it is looked at again soon.
        target.better_from = target.better_from.min((since + (1 << next.window_bits())).max(fed + 1));
        if target.climbers.len() >= 2 * target.at_tail.len().max(8) {
            target.climbers = newest_of_each(std::mem::take(&mut target.climbers)); // as above
        }
        target.climbers.push((id, since));
    }

    /// Why a lagging subscription has to go back to the log whose frames may be skipped; `None` if it has not.
    pub(super) fn why_fall_back(&mut self, slot: u32, index: usize) -> Option<FellBack> {
        let subscription = self.slab.at(slot).subscriptions[index];
        let target = self.feeds.at(subscription.feed);
        if target.log.coding == Coding::Plain || !subscription.is_lagging() {
            return None;
        }
        let lag = (subscription.cursor, target.cursor);
        let is_replaced = target.channel.settings().policy == Policy::Latest
            && lag.1.saturating_sub(lag.0) > LAG_BYTES_MAX
            && subscription.mode() == Mode::Lagging
            && target.channel.has_replaced(target.log, lag);
        if is_replaced {
            return Some(FellBack::Replaced);
        }
        let is_overtaken = target.channel.is_overtaken(target.log, subscription.cursor, subscription.mode());
        is_overtaken.then_some(FellBack::Overtaken)
    }

    /// Subscriptions of a connection that lag too far go on in the log whose frames may be skipped, as the policy says.
    fn fall_back(&mut self, slot: u32) {
        if self.slab.at(slot).format.is_gzip() {
            return self.leave_coded(slot);
        }
        let feeds: Vec<u32> = self.slab.at(slot).subscriptions.iter().map(|one| one.feed).collect();
        for feed in feeds {
            let index = self.slab.get(slot).and_then(|connection| self.feeds.find(connection, slot, feed));
            if let Some(index) = index
                && let Some(why) = self.why_fall_back(slot, index)
            {
                self.fall_back_from(slot, index, why);
            }
        }
        if self.slab.get(slot).is_some() {
            self.later.push(self.id_of(slot)); // its socket may have room, of which the kernel will not tell
        }
    }

    pub(super) fn fall_back_from(&mut self, slot: u32, index: usize, why: FellBack) {
        let subscription = self.slab.at(slot).subscriptions[index];
        let target = self.feeds.at(subscription.feed);
        let (channel, place) = (target.channel.clone(), (target.log, subscription.cursor));
        let Some((passage, lost)) = channel.fall_back(place, self.index) else { return };
        let mut to = self.feeds.obtain(&channel, passage.log, &passage.watch);
        while self.feeds.at(to).cursor < passage.cursor {
            self.unsubscribe_before(&channel, (passage.log.format, passage.cursor));
            to = self.feeds.obtain(&channel, passage.log, &passage.watch);
            self.fan_out(&[to], Some(passage.cursor)); // nobody is ahead of the feed
            to = self.feeds.obtain(&channel, passage.log, &passage.watch);
        }
        let connection = self.slab.get(slot);
        let index = connection.and_then(|connection| self.feeds.find(connection, slot, subscription.feed));
        let Some(index) = index else { return self.feeds.forget_if_empty(to) }; // it has gone meanwhile
        let mode = Some(subscription.mode());
        self.stats.fell_back[why as usize].add(1);
        self.count_passage((slot, index), to);
        self.feeds.pass(&mut self.slab, (slot, index), to, (passage.cursor, mode));
        passage.keep();
        let policy = channel.settings().policy;
        if matches!(policy, Policy::Keyframe | Policy::Drop) {
            self.stats.skipped[policy as usize].add(lost);
        }
        self.settle_overtaken(to);
    }
}

/// Who has gone away and come back stands there several times, and has missed something before the last.
fn newest_of_each(mut climbers: Vec<(ConnectionId, u64)>) -> Vec<(ConnectionId, u64)> {
    climbers.sort_unstable_by(|one, other| other.cmp(one));
    climbers.dedup_by_key(|one| one.0);
    climbers
}
