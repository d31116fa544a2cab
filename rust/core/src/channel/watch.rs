//! What one shard tells the writers of a log: that it watches, how far it is, and what its laggards still need.
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::view::View;
use crate::mailbox::{Dirty, Moved};

/// One shard's eye on one log, or on a view of it.
#[derive(Debug)]
pub struct Watch {
    /// The shard.
    pub shard: usize,
    /// What of the log its subscribers there are to get.
    pub(crate) view: View,
    /// Stands in the shard's mailbox already.
    dirty: Dirty,
    /// The shard's own index of what it keeps for this log; `u32::MAX` until it has one.
    pub(crate) feed: AtomicU32,
    /// Where the log ends. Changes under the channel's lock.
    tail: AtomicU64,
    /// Where it ended when the shard last emptied its mailbox. It fans out no further: what was published behind a
    /// command comes behind it.
    due: AtomicU64,
    /// Where its subscribers at the tail are.
    pub(super) cursor: AtomicU64,
    /// Lower bound of what its slowest subscriber needs.
    pub(super) needed: AtomicU64,
    /// Subscribers, also those on their way to the shard. Changes under the channel's lock.
    pub(super) subscribers: AtomicU32,
    /// Those on their way: the shard does not know yet what they need, so nothing is let go for want of need.
    pub(super) joining: AtomicU32,
}

impl Watch {
    pub(super) fn new(shard: usize, tail: u64, view: View) -> Self {
        Self {
            shard,
            view,
            dirty: Dirty::default(),
            feed: AtomicU32::new(u32::MAX),
            tail: AtomicU64::new(tail),
            due: AtomicU64::new(tail),
            cursor: AtomicU64::new(tail),
            needed: AtomicU64::new(tail),
            subscribers: AtomicU32::new(0),
            joining: AtomicU32::new(0),
        }
    }

    /// The log now ends at `tail`. True when the shard must be told.
    pub(super) fn append(&self, tail: u64) -> bool {
        self.tail.store(tail, Ordering::Release);
        self.dirty.mark()
    }

    /// Where the log ends. Whoever has published sees that here.
    pub(crate) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// How far the shard may fan out.
    pub(crate) fn due(&self) -> u64 {
        self.due.load(Ordering::Acquire)
    }

    /// How far the shard has fanned out.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Acquire)
    }

    /// What the log must keep for this shard, unless a bound says otherwise.
    pub(super) fn needed(&self) -> u64 {
        if self.joining.load(Ordering::Acquire) > 0 { 0 } else { self.needed.load(Ordering::Acquire) }
    }

    /// The shard fans out nothing here for now: publications do not wait for it.
    pub(crate) fn pass_by(&self) {
        self.cursor.store(self.due(), Ordering::Release);
    }

    /// The shard has fanned out up to `cursor`; its slowest laggard needs `needed` and what follows.
    pub(crate) fn advance(&self, cursor: u64, needed: u64) {
        self.cursor.store(cursor, Ordering::Release);
        self.needed.store(needed, Ordering::Release);
    }
}

impl Moved for std::sync::Arc<Watch> {
    fn settle(&self) {
        self.dirty.clear();
        self.due.store(self.tail.load(Ordering::Acquire), Ordering::Release);
    }
}
