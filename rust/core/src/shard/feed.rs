//! One log as one shard sees it: who is at the tail, who lags. Lists are dense; a place in them is known from both ends.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connection::{Connection, Subscription};
use super::io::Member;
use super::sampling::Sample;
use super::slab::Slab;
use crate::channel::{Channel, Mode, Watch};
use crate::messages::ConnectionId;
use crate::protocol::LogId;

/// A log that some connection of this shard watches.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) channel: Arc<Channel>,
    /// Which of the channel's logs.
    pub(crate) log: LogId,
    pub(crate) watch: Arc<Watch>,
    /// Where everyone in `at_tail` is.
    pub(crate) cursor: u64,
    pub(crate) at_tail: Vec<Member>,
    pub(crate) lagging: Vec<Member>,
    /// No cursor in `lagging` is before this.
    pub(crate) oldest_lag: u64,
    /// Those of `lagging` that get nothing before the next keyframe.
    pub(crate) awaiting: usize,
    /// Turns so far: with each the list is written from another place on, so that nobody is always last.
    pub(crate) turns: u32,
    /// The last run that everyone at the tail got: from where on, and in which tick.
    pub(crate) written: (u64, u32),
    /// The publication whose way is timed.
    pub(crate) sample: Option<Sample>,
    /// Its run is being written: who took only a part still counts as at the tail, so nothing is reported.
    pub(crate) is_in_turn: bool,
    /// Of a log whose frames are not compressed: who came to its tail and could read one whose are.
    pub(crate) uncoded: Vec<ConnectionId>,
    /// In which tick they are looked at again: those of whom another subscription has the window.
    pub(crate) uncoded_at: u32,
    /// Somebody has come there whom nobody has looked at, or who could not go on just then.
    pub(crate) has_new_uncoded: bool,
    /// How much it brings.
    pub(crate) load: Load,
    /// Of one whose are: readers for whom there is a better one, each with what had gone in when it began to get every byte.
    pub(crate) climbers: Vec<(ConnectionId, u64)>,
    /// With so many bytes gone in, one of them may go on there.
    pub(crate) better_from: u64,
}

/// Ticks in which a load becomes half.
const HALF_TICKS: u32 = 10;

/// Bytes that a feed has brought each of its readers lately, as if nothing were compressed: half as much after a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    tick: u32,
    bytes: u64,
}

impl Load {
    pub(crate) fn add(&mut self, tick: u32, bytes: u64) {
        (self.bytes, self.tick) = (self.at(tick) + bytes, tick);
    }

    pub(crate) fn at(self, tick: u32) -> u64 {
        self.bytes.checked_shr(tick.saturating_sub(self.tick) / HALF_TICKS).unwrap_or(0)
    }
}

impl Feed {
    /// When this subscription's connection got the last of what went out to all at the tail; `None` if it did not.
    pub(crate) fn written_tick(&self, subscription: Subscription) -> Option<u32> {
        let (from, tick) = self.written;
        (tick > 0 && !subscription.is_lagging() && subscription.cursor <= from).then_some(tick)
    }

    /// Whether one that reads in this mode waits for nothing but what the view has, and goes past the rest.
    pub(crate) fn passes_unmatched(&self, mode: Mode) -> bool {
        !self.watch.view.is_all() && matches!(mode, Mode::Lagging | Mode::Replaying)
    }

    /// One more at the tail, or among the lagging at a cursor; gives its place in that list.
    fn enlist(&mut self, member: Member, cursor: u64, is_lagging: bool) -> usize {
        let list = if is_lagging {
            self.oldest_lag = self.oldest_lag.min(cursor);
            &mut self.lagging
        } else {
            &mut self.at_tail
        };
        list.push(member);
        list.len() - 1
    }

    /// Where in a list of so many the writing of this turn begins: each turn elsewhere, evenly over time.
    pub(crate) fn begin_turn(&mut self, members: usize) -> usize {
        self.turns = self.turns.wrapping_add(1);
        // The golden ratio as a fraction of 2^32: successive multiples leave no stretch without one for long.
        let place = u64::from(self.turns.wrapping_mul(0x9E37_79B9));
        ((place * members as u64) >> 32) as usize
    }

    /// Tells the log's writers how far this shard is and what it still needs.
    pub(crate) fn report(&mut self) {
        if self.lagging.is_empty() {
            self.oldest_lag = self.cursor;
        }
        if self.is_in_turn {
            return;
        }
        self.watch.advance(self.cursor, self.oldest_lag.min(self.cursor));
    }
}

/// So many subscriptions of a connection are looked through.
pub(super) const FEW: usize = 16;

/// All feeds of a shard.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    feeds: Vec<Option<Feed>>,
    free: Vec<u32>,
    /// By slot and feed, of connections with more than [`FEW`] subscriptions: which of them that is. A client repeats names as
    /// often as it likes, and others wait while one is looked for.
    places: HashMap<(u32, u32), u32>,
    /// Connections with more than one subscription: while there are none, channels need not be joined.
    pub(crate) sharing: usize,
}

impl Feeds {
    pub(crate) fn at(&mut self, feed: u32) -> &mut Feed {
        self.feeds[feed as usize].as_mut().expect("a subscription or a watch names it, so it exists")
    }

    pub(crate) fn get(&self, feed: u32) -> Option<&Feed> {
        self.feeds.get(feed as usize)?.as_ref()
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.feeds.iter().flatten().count()
    }

    /// What feeds know of themselves is so, between two turns.
    #[cfg(test)]
    pub(super) fn check(&self) {
        for feed in self.feeds.iter().flatten() {
            assert!(!feed.is_in_turn && feed.at_tail.len() + feed.lagging.len() > 0);
            assert_eq!(feed.watch.cursor(), feed.cursor, "the writers know how far it is");
        }
    }

    /// Which of a connection's subscriptions is this feed's.
    pub(crate) fn find(&self, connection: &Connection, slot: u32, feed: u32) -> Option<usize> {
        if connection.subscriptions.len() > FEW {
            return self.places.get(&(slot, feed)).map(|&index| index as usize);
        }
        connection.subscriptions.iter().position(|subscription| subscription.feed == feed)
    }

    /// The feed of a watch, made if need be.
    ///
    /// A new one starts where the watch's last one ended: the log may have let go of what is before that.
    pub(crate) fn obtain(&mut self, channel: &Arc<Channel>, log: impl Into<LogId>, watch: &Arc<Watch>) -> u32 {
        let known = watch.feed.load(Ordering::Relaxed);
        if known != u32::MAX {
            return known;
        }
        let cursor = watch.cursor();
        let feed = Feed {
            channel: Arc::clone(channel),
            log: log.into(),
            watch: Arc::clone(watch),
            cursor,
            at_tail: Vec::new(),
            lagging: Vec::new(),
            awaiting: 0,
            turns: 0,
            written: (0, 0),
            sample: None,
            oldest_lag: cursor,
            is_in_turn: false,
            uncoded: Vec::new(),
            uncoded_at: 0,
            has_new_uncoded: false,
            load: Load::default(),
            climbers: Vec::new(),
            better_from: u64::MAX,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.feeds.push(None);
            (self.feeds.len() - 1) as u32
        });
        self.feeds[index as usize] = Some(feed);
        watch.feed.store(index, Ordering::Relaxed);
        index
    }

    /// Adds a subscription to a connection and its feed.
    pub(crate) fn join(&mut self, slab: &mut Slab, slot: u32, feed: u32, cursor: u64, lagging: Option<Mode>) {
        let connection = slab.at(slot);
        let target = self.at(feed);
        let subscription = connection.subscriptions.len() as u32;
        let member = Member { fd: connection.transport.member_fd(), slot, subscription };
        let index = target.enlist(member, cursor, lagging.is_some());
        target.awaiting += usize::from(lagging == Some(Mode::AwaitingKeyframe));
        connection.subscriptions.push(Subscription::new(feed, index, lagging, cursor));
        if connection.subscriptions.len() > FEW {
            let first = if subscription as usize == FEW { 0 } else { subscription as usize };
            for (index, one) in connection.subscriptions.iter().enumerate().skip(first) {
                self.places.insert((slot, one.feed), index as u32);
            }
        }
        self.sharing += usize::from(connection.subscriptions.len() == 2);
    }

    /// One that lags goes on elsewhere.
    pub(crate) fn go_on(&mut self, slab: &mut Slab, slot: u32, index: usize, cursor: u64, mode: Mode) {
        let subscription = &mut slab.at(slot).subscriptions[index];
        let was_awaiting = subscription.mode() == Mode::AwaitingKeyframe;
        subscription.cursor = cursor;
        subscription.set_mode(mode);
        let target = self.at(subscription.feed);
        target.oldest_lag = target.oldest_lag.min(cursor);
        target.awaiting -= usize::from(was_awaiting);
        target.awaiting += usize::from(mode == Mode::AwaitingKeyframe);
    }

    /// Takes the connection's `index`-th subscription away; the feed goes with its last one.
    pub(crate) fn leave(&mut self, slab: &mut Slab, slot: u32, index: usize) {
        let subscription = slab.at(slot).subscriptions[index];
        if subscription.is_lagging() && subscription.mode() == Mode::AwaitingKeyframe {
            self.at(subscription.feed).awaiting -= 1;
        }
        self.take_out(slab, subscription);
        let connection = slab.at(slot);
        connection.subscriptions.swap_remove(index);
        self.forget_place(connection, (slot, subscription.feed), index);
        self.sharing -= usize::from(connection.subscriptions.len() == 1);
        if let Some(moved) = connection.subscriptions.get(index).copied() {
            let target = self.at(moved.feed);
            let list = if moved.is_lagging() { &mut target.lagging } else { &mut target.at_tail };
            list[moved.index()].subscription = index as u32;
        }
        self.let_go(subscription.feed);
    }

    /// A connection's subscription to this feed is gone, the last one took its place.
    fn forget_place(&mut self, connection: &Connection, gone: (u32, u32), index: usize) {
        let left = &connection.subscriptions;
        if left.len() < FEW {
            return;
        }
        self.places.remove(&gone);
        if left.len() == FEW {
            for one in left {
                self.places.remove(&(gone.0, one.feed));
            }
        } else if let Some(moved) = left.get(index) {
            self.places.insert((gone.0, moved.feed), index as u32);
        }
    }

    /// A feed that nobody is on is not kept; the next subscriber's begins where that one does.
    pub(crate) fn forget_if_empty(&mut self, feed: u32) {
        let target = self.at(feed);
        if target.at_tail.is_empty() && target.lagging.is_empty() {
            target.watch.feed.store(u32::MAX, Ordering::Relaxed);
            self.feeds[feed as usize] = None;
            self.free.push(feed);
        }
    }

    /// Moves a subscription from the tail to the lagging, at a cursor and in a mode, or back to the tail.
    pub(crate) fn move_to(&mut self, slab: &mut Slab, slot: u32, index: usize, lagging: Option<(u64, Mode)>) {
        let subscription = slab.at(slot).subscriptions[index];
        self.take_out(slab, subscription);
        let target = self.at(subscription.feed);
        let (cursor, mode) = lagging.map_or((target.cursor, None), |(cursor, mode)| (cursor, Some(mode)));
        let connection = slab.at(slot);
        let member = Member { fd: connection.transport.member_fd(), slot, subscription: index as u32 };
        let place = target.enlist(member, cursor, mode.is_some());
        let moved = &mut connection.subscriptions[index];
        moved.cursor = cursor;
        moved.set_place(place, mode);
        if mode.is_none() {
            target.report();
        }
    }

    /// Moves a subscription to another feed of its channel, where its place is at `cursor`: to the tail, or in a mode.
    pub(crate) fn pass(
        &mut self,
        slab: &mut Slab,
        (slot, index): (u32, usize),
        to: u32,
        (cursor, lagging): (u64, Option<Mode>),
    ) {
        let subscription = slab.at(slot).subscriptions[index];
        self.take_out(slab, subscription);
        let target = self.at(to);
        let connection = slab.at(slot);
        let member = Member { fd: connection.transport.member_fd(), slot, subscription: index as u32 };
        let place = target.enlist(member, cursor, lagging.is_some());
        connection.subscriptions[index] = Subscription::new(to, place, lagging, cursor);
        target.report();
        if connection.subscriptions.len() > FEW {
            self.places.remove(&(slot, subscription.feed));
            self.places.insert((slot, to), index as u32);
        }
        self.let_go(subscription.feed);
    }

    /// One subscriber of a feed is gone.
    fn let_go(&mut self, feed: u32) {
        let target = self.at(feed);
        target.channel.unwatch(target.log, &target.watch);
        target.report();
        self.forget_if_empty(feed);
    }

    /// Removes a subscription from its feed's list and mends the place of the one that takes its place.
    fn take_out(&mut self, slab: &mut Slab, subscription: Subscription) {
        let target = self.at(subscription.feed);
        let list = if subscription.is_lagging() { &mut target.lagging } else { &mut target.at_tail };
        let index = subscription.index();
        list.swap_remove(index);
        if let Some(moved) = list.get(index).copied() {
            let other = &mut slab.at(moved.slot).subscriptions[moved.subscription as usize];
            other.set_index(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Registry;
    use crate::protocol::Format;
    use crate::settings::Settings;

    /// Of so many turns each member is the first about as often, and none waits for long until it is.
    #[test]
    fn over_many_turns_every_member_is_first_about_equally_often() {
        let channel = Registry::listed(&Arc::default(), 10).obtain("c", &Settings::default(), 0).expect("room");
        let watched = channel.watch(Format::Raw.into(), 0).expect("a format");
        let mut feeds = Feeds::default();
        let feed = feeds.obtain(&channel, Format::Raw, &watched.watch);
        for members in [1, 2, 3, 7, 100, 1_000] {
            let turns = members * 100;
            let (mut firsts, mut last) = (vec![0_usize; members], vec![0; members]);
            let mut longest = 0;
            for turn in 1..=turns {
                let first = feeds.at(feed).begin_turn(members);
                firsts[first] += 1;
                longest = longest.max(turn - last[first]);
                last[first] = turn;
            }
            assert!(firsts.iter().all(|&count| (95..=105).contains(&count)), "{members}: {firsts:?}");
            assert!(longest <= members * 4, "{members}: one waited {longest} turns");
        }
        assert_eq!(feeds.at(feed).begin_turn(0), 0);
        feeds.at(feed).turns = u32::MAX;
        assert_eq!(feeds.at(feed).begin_turn(10), 0, "it begins anew");
    }
}
