//! The plain list: everything that was published to a channel, and what can be said of it without a log.
use std::rc::Rc;
use std::time::Duration;

use crate::channel::Policy;
use crate::messages::ConnectionId;
use crate::settings::ChannelSettings;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Keyframe,
    Snapshot,
}

/// One publication. Its index in the list is the number that stands in its payload.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// Of a snapshot that of the publication before it.
    pub(super) offset: u64,
    pub(super) key: Option<u8>,
    pub(super) kind: Kind,
    pub(super) published_ns: u64,
    pub(super) expires_ns: u64,
    /// At least the bytes of its frame in any format.
    pub(super) bytes_max: u64,
    /// Whom it is not for.
    pub(super) excluded: Rc<[ConnectionId]>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct List {
    pub(super) name: String,
    pub(super) epoch: u64,
    pub(super) all: Vec<Published>,
    pub(super) settings: ChannelSettings,
    /// The application was asked for a keyframe, and has not answered.
    pub(super) is_snapshot_asked: bool,
}

impl List {
    pub(super) fn offset(&self) -> u64 {
        self.all.last().map_or(0, |one| one.offset)
    }

    /// The first that has a number of its own behind this one.
    pub(super) fn index_behind(&self, offset: u64) -> usize {
        let first = self.all.partition_point(|one| one.offset <= offset);
        let is_behind = |one: &Published| one.kind != Kind::Snapshot;
        self.all[first..].iter().position(is_behind).map_or(self.all.len(), |at| first + at)
    }

    /// The first that may lie behind a place of the log, before which this number is the last: a snapshot has no number.
    pub(super) fn place(&self, before: u64) -> usize {
        self.all.partition_point(|one| one.offset - u64::from(one.kind != Kind::Snapshot) < before)
    }

    /// The number of the publication before one.
    pub(super) fn before(&self, index: usize) -> u64 {
        self.all[index].offset - u64::from(self.all[index].kind != Kind::Snapshot)
    }

    /// When the list was so long, if its time is not over.
    pub(super) fn newest_keyframe(&self, length: usize, now_ns: u64) -> Option<usize> {
        let newest = self.all[..length].iter().rposition(|one| one.kind != Kind::Plain);
        newest.filter(|&index| !self.is_expired(index, now_ns))
    }

    pub(super) fn is_expired(&self, index: usize, now_ns: u64) -> bool {
        self.all[index].expires_ns <= now_ns
    }

    pub(super) fn is_excluded(&self, index: usize, id: ConnectionId) -> bool {
        self.all[index].excluded.contains(&id)
    }

    /// Whether there is a newer one of its key, when the list is so long.
    pub(super) fn is_replaced(&self, index: usize, to: usize) -> bool {
        let one = &self.all[index];
        self.all[index + 1..to].iter().any(|other| other.kind != Kind::Snapshot && other.key == one.key)
    }

    /// Publications with a number of their own in a range.
    pub(super) fn count(&self, from: usize, to: usize) -> u64 {
        self.all[from.min(to)..to].iter().filter(|one| one.kind != Kind::Snapshot).count() as u64
    }

    fn bytes_from(&self, from: usize) -> u64 {
        self.all[from..].iter().map(|one| one.bytes_max).sum()
    }

    fn is_older(&self, index: usize, age: Duration, now_ns: u64) -> bool {
        u128::from(now_ns.saturating_sub(self.all[index].published_ns)) > age.as_nanos()
    }

    /// Whether the bounds may have overtaken one that has yet to get the publication at `next`.
    pub(super) fn may_be_overtaken(&self, next: usize, now_ns: u64) -> bool {
        let is_over = self.all.len() - next > self.settings.backlog_frames
            || self.bytes_from(next) > self.settings.backlog_bytes
            || (next < self.all.len() && self.is_older(next, self.settings.backlog_age, now_ns));
        is_over && (self.settings.policy != Policy::Latest || self.may_lose_newest())
    }

    /// Whether the newest of all keys, and as much again, may be over the bounds of policy `latest`.
    fn may_lose_newest(&self) -> bool {
        let newest: Vec<&Published> = (0..self.all.len())
            .filter(|&index| self.all[index].kind != Kind::Snapshot && !self.is_replaced(index, self.all.len()))
            .map(|index| &self.all[index])
            .collect();
        let bytes_max = self.all.iter().map(|one| one.bytes_max).max().unwrap_or(0);
        newest.len() > self.settings.backlog_frames || newest.len() as u64 * bytes_max > self.settings.backlog_bytes
    }

    /// Whether the history promises all from here on.
    pub(super) fn is_kept(&self, from: usize, now_ns: u64) -> bool {
        self.count(from, self.all.len()) <= self.settings.history_frames as u64
            && self.all.len() - from < 2 * self.settings.history_frames
            && self.bytes_from(from) <= self.settings.history_bytes
            && (from..self.all.len()).all(|index| !self.is_older(index, self.settings.history_age, now_ns))
    }

    /// Whether what comes first is older than the history's age.
    pub(super) fn is_stale(&self, from: usize, now_ns: u64) -> bool {
        from < self.all.len() && self.is_older(from, self.settings.history_age, now_ns)
    }

    /// Whether who returns with this offset has to be recovered.
    pub(super) fn must_recover(&self, offset: u64, now_ns: u64) -> bool {
        if offset > self.offset() {
            return false;
        }
        let keeps_newest =
            self.settings.policy == Policy::Latest && self.settings.history_frames > 0 && !self.may_lose_newest();
        offset == self.offset() || keeps_newest || self.is_kept(self.index_behind(offset), now_ns)
    }

    /// Whether a keyframe, and what follows it, is within the bounds.
    pub(super) fn must_keep_keyframe(&self, index: usize) -> bool {
        self.all.len() - index <= self.settings.backlog_frames && self.bytes_from(index) <= self.settings.backlog_bytes
    }

    /// Whether a newcomer may begin at a keyframe instead of asking for another.
    pub(super) fn is_fresh(&self, index: usize, now_ns: u64) -> bool {
        let interval = self.settings.snapshot_interval;
        self.all[index].kind == Kind::Keyframe || interval.is_none_or(|age| !self.is_older(index, age, now_ns))
    }
}
