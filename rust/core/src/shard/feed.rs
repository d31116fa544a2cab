//! One log as one shard sees it: who is at the tail, who lags. Lists are dense; a place in them is known from both ends.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connection::Subscription;
use super::poller::Member;
use super::slab::Slab;
use crate::channel::{Channel, Watch};
use crate::protocol::Format;

/// A log that some connection of this shard watches.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) channel: Arc<Channel>,
    pub(crate) format: Format,
    pub(crate) watch: Arc<Watch>,
    /// Where everyone in `at_tail` is.
    pub(crate) cursor: u64,
    pub(crate) at_tail: Vec<Member>,
    pub(crate) lagging: Vec<Member>,
    /// No cursor in `lagging` is before this.
    pub(crate) oldest_lag: u64,
    /// Its run is being written: who took only a part still counts as at the tail, so nothing is reported.
    pub(crate) is_in_turn: bool,
}

impl Feed {
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

/// All feeds of a shard.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    feeds: Vec<Option<Feed>>,
    free: Vec<u32>,
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

    /// The feed of a watch, made if need be.
    ///
    /// A new one starts where the watch's last one ended: the log may have let go of what is before that.
    pub(crate) fn obtain(&mut self, channel: &Arc<Channel>, format: Format, watch: &Arc<Watch>) -> u32 {
        let known = watch.feed.load(Ordering::Relaxed);
        if known != u32::MAX {
            return known;
        }
        let cursor = watch.cursor();
        let feed = Feed {
            channel: Arc::clone(channel),
            format,
            watch: Arc::clone(watch),
            cursor,
            at_tail: Vec::new(),
            lagging: Vec::new(),
            oldest_lag: cursor,
            is_in_turn: false,
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
    pub(crate) fn join(&mut self, slab: &mut Slab, slot: u32, feed: u32, cursor: u64, is_lagging: bool) {
        let connection = slab.at(slot);
        let target = self.at(feed);
        let list = if is_lagging { &mut target.lagging } else { &mut target.at_tail };
        let subscription = connection.subscriptions.len() as u32;
        list.push(Member { fd: connection.raw_fd(), slot, subscription });
        let index = list.len() - 1;
        if is_lagging {
            target.oldest_lag = target.oldest_lag.min(cursor);
        }
        connection.subscriptions.push(Subscription::new(feed, index, is_lagging, cursor));
        self.sharing += usize::from(connection.subscriptions.len() == 2);
    }

    /// Takes the connection's `index`-th subscription away; the feed goes with its last one.
    pub(crate) fn leave(&mut self, slab: &mut Slab, slot: u32, index: usize) {
        let subscription = slab.at(slot).subscriptions[index];
        self.take_out(slab, subscription);
        let connection = slab.at(slot);
        connection.subscriptions.swap_remove(index);
        self.sharing -= usize::from(connection.subscriptions.len() == 1);
        if let Some(moved) = connection.subscriptions.get(index).copied() {
            let target = self.at(moved.feed);
            let list = if moved.is_lagging() { &mut target.lagging } else { &mut target.at_tail };
            list[moved.index()].subscription = index as u32;
        }
        let target = self.at(subscription.feed);
        target.channel.unwatch(target.format, &target.watch);
        target.report();
        self.forget_if_empty(subscription.feed);
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

    /// Moves a subscription from the tail to the lagging, at `cursor`, or back to the tail.
    pub(crate) fn move_to(&mut self, slab: &mut Slab, slot: u32, index: usize, lagging_at: Option<u64>) {
        let subscription = slab.at(slot).subscriptions[index];
        self.take_out(slab, subscription);
        let target = self.at(subscription.feed);
        let is_lagging = lagging_at.is_some();
        let cursor = lagging_at.unwrap_or(target.cursor);
        let list = if is_lagging {
            target.oldest_lag = target.oldest_lag.min(cursor);
            &mut target.lagging
        } else {
            &mut target.at_tail
        };
        let connection = slab.at(slot);
        list.push(Member { fd: connection.raw_fd(), slot, subscription: index as u32 });
        let moved = &mut connection.subscriptions[index];
        moved.cursor = cursor;
        moved.set_place(list.len() - 1, is_lagging);
        if !is_lagging {
            target.report();
        }
    }

    /// Removes a subscription from its feed's list and mends the place of the one that takes its place.
    fn take_out(&mut self, slab: &mut Slab, subscription: Subscription) {
        let target = self.at(subscription.feed);
        let list = if subscription.is_lagging() { &mut target.lagging } else { &mut target.at_tail };
        let index = subscription.index();
        list.swap_remove(index);
        if let Some(moved) = list.get(index).copied() {
            let other = &mut slab.at(moved.slot).subscriptions[moved.subscription as usize];
            other.set_place(index, subscription.is_lagging());
        }
    }
}
