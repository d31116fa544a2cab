//! The plain list: everything that was published to a channel, and what can be said of it without a log.
use std::rc::Rc;
use std::time::Duration;

use super::sieve::Sieve;
use crate::channel::Policy;
use crate::messages::ConnectionId;
use crate::position::Position;
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
    /// Its number in the logs, in which an epoch from outside goes on; of a snapshot that of the publication before it.
    pub(super) offset: u64,
    pub(super) position: Position,
    /// So many are missing before it.
    pub(super) missing: u64,
    pub(super) begins_life: bool,
    pub(super) key: Option<u8>,
    pub(super) kind: Kind,
    pub(super) published_ns: u64,
    pub(super) expires_ns: u64,
    /// At least the bytes of its frame in any format.
    pub(super) bytes_max: u64,
    /// Whom it is not for.
    pub(super) excluded: Rc<[ConnectionId]>,
    /// What filters look at.
    pub(super) tag: Option<u8>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct List {
    pub(super) name: String,
    /// Epochs, each with the number before its first publication.
    pub(super) lives: Vec<(u64, u64)>,
    pub(super) all: Vec<Published>,
    pub(super) settings: ChannelSettings,
    /// The application was asked for a keyframe, and has not answered.
    pub(super) is_snapshot_asked: bool,
}

impl List {
    pub(super) fn offset(&self) -> u64 {
        self.all.last().map_or(0, |one| one.offset)
    }

    pub(super) fn life(&self) -> (u64, u64) {
        *self.lives.last().expect("it has begun")
    }

    /// That of the newest publication.
    pub(super) fn position(&self) -> Position {
        self.position_of(self.offset())
    }

    /// That of a publication that was in one of the lives.
    pub(super) fn position_of(&self, number: u64) -> Position {
        let (epoch, before) = *self.lives.iter().rfind(|life| life.1 < number).unwrap_or(&self.lives[0]);
        let (epoch, before) = if number == self.offset() { self.life() } else { (epoch, before) };
        Position { epoch, offset: number - before }
    }

    /// Of a position of this life.
    pub(super) fn number_of(&self, position: Position) -> Option<u64> {
        let (epoch, before) = self.life();
        (position.epoch == epoch).then(|| position.offset + before)
    }

    /// Where a publication stands that is published at this position: its number, what is missing before it, and whether it
    /// begins a life. Nowhere if that is there.
    pub(super) fn stand(&self, at: Position, own: u64) -> Option<(u64, u64, bool)> {
        let (head, is_new_life) = (self.position(), at.epoch != self.life().0);
        let is_there = match is_new_life {
            true => self.lives.len() > 1 && at.epoch < head.epoch,
            false => at.offset < head.offset + own,
        };
        let number = at.offset + if is_new_life { self.offset() } else { self.life().1 };
        let missing = if self.all.is_empty() { 0 } else { (number - own).saturating_sub(self.offset()) };
        (!is_there).then_some((number, missing, is_new_life))
    }

    /// Whether a position is of a life that was here and is over, and none older than this one: it is refused.
    pub(super) fn is_of_another_time(&self, at: Position) -> bool {
        let (now, before) = self.lives.split_last().expect("it has begun");
        at.epoch > now.0 && before.iter().any(|life| life.0 == at.epoch)
    }

    /// Whether something is missing before a publication: a new life may have lost some of the one before.
    pub(super) fn has_gap(&self, index: usize) -> bool {
        index < self.all.len() && index > 0 && (self.all[index].missing > 0 || self.all[index].begins_life)
    }

    pub(super) fn has_gap_in(&self, mut indexes: std::ops::Range<usize>) -> bool {
        indexes.any(|index| self.has_gap(index))
    }

    /// How many are missing before publications of a range.
    pub(super) fn missing(&self, from: usize, to: usize) -> u64 {
        self.all[from.min(to)..to].iter().map(|one| one.missing).sum()
    }

    /// When the list was so long, the first behind the newest gap.
    pub(super) fn behind_gap(&self, length: usize) -> usize {
        (0..length).rfind(|&index| self.has_gap(index)).unwrap_or(0)
    }

    /// The first of this life.
    pub(super) fn behind_life(&self) -> usize {
        (0..self.all.len()).rfind(|&index| self.all[index].begins_life).unwrap_or(0)
    }

    /// Nobody recovers from before this number.
    pub(super) fn gap(&self) -> u64 {
        if self.all.is_empty() { 0 } else { self.before(self.behind_gap(self.all.len())) }
    }

    fn frames_from(&self, from: usize) -> usize {
        (from..self.all.len()).map(|index| 1 + usize::from(self.has_gap(index))).sum()
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

    /// Behind what may lie at a place of the log: snapshots that have no number, and the one that has the next.
    pub(super) fn reach(&self, place: usize) -> usize {
        let behind = |number: u64| (place..self.all.len()).find(|&index| self.before(index) > number);
        let reach = (place < self.all.len()).then(|| behind(self.before(place))).flatten();
        reach.unwrap_or(self.all.len())
    }

    /// The first before which something may be missing that lies behind a place of the log, before which this number is the
    /// last: a new life that misses none begins at a place of its own, and with no number.
    pub(super) fn crossed(&self, before: u64) -> usize {
        (0..self.all.len()).find(|&index| self.before(index) > before).unwrap_or(self.all.len())
    }

    /// When the list was so long, if its time is not over.
    pub(super) fn newest_keyframe(&self, length: usize, now_ns: u64) -> Option<usize> {
        let newest = self.all[..length].iter().rposition(|one| one.kind != Kind::Plain);
        newest.filter(|&index| !self.is_expired(index, now_ns) && index >= self.behind_gap(length))
    }

    pub(super) fn is_expired(&self, index: usize, now_ns: u64) -> bool {
        self.all[index].expires_ns <= now_ns
    }

    pub(super) fn is_excluded(&self, index: usize, id: ConnectionId) -> bool {
        self.all[index].excluded.contains(&id)
    }

    /// Whether it passes a client's filter, if that has one.
    pub(super) fn passes(&self, index: usize, sieve: Option<Sieve>) -> bool {
        let one = &self.all[index];
        sieve.is_none_or(|sieve| (one.kind != Kind::Plain && one.tag.is_none()) || sieve.lets(one.tag))
    }

    /// The next that does, from there on.
    pub(super) fn next_passing(&self, next: usize, sieve: Option<Sieve>) -> usize {
        (next..self.all.len()).find(|&index| self.passes(index, sieve)).unwrap_or(self.all.len())
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

    /// Publications of a range between which a read for those at the tail is in pieces.
    pub(super) fn count_withheld(&self, from: usize, to: usize, now_ns: u64, sieve: Option<Sieve>) -> usize {
        let is_withheld = |&index: &usize| {
            self.all[index].kind == Kind::Snapshot || self.is_expired(index, now_ns) || !self.passes(index, sieve)
        };
        (from..to).filter(is_withheld).count()
    }

    fn bytes_from(&self, from: usize) -> u64 {
        self.all[from..].iter().map(|one| one.bytes_max).sum()
    }

    fn is_older(&self, index: usize, age: Duration, now_ns: u64) -> bool {
        u128::from(now_ns.saturating_sub(self.all[index].published_ns)) > age.as_nanos()
    }

    /// Whether the bounds may have overtaken one that has yet to get the publication at `next`.
    pub(super) fn may_be_overtaken(&self, next: usize, now_ns: u64) -> bool {
        let is_over = self.frames_from(next) > self.settings.backlog_frames
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
        from >= self.behind_gap(self.all.len())
            && self.count(from, self.all.len()) <= self.settings.history_frames as u64
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
        if offset > self.offset() || offset < self.gap() {
            return false;
        }
        let keeps_newest =
            self.settings.policy == Policy::Latest && self.settings.history_frames > 0 && !self.may_lose_newest();
        offset == self.offset() || keeps_newest || self.is_kept(self.index_behind(offset), now_ns)
    }

    /// Whether a keyframe, and what follows it, is within the bounds.
    pub(super) fn must_keep_keyframe(&self, index: usize) -> bool {
        self.frames_from(index) <= self.settings.backlog_frames && self.bytes_from(index) <= self.settings.backlog_bytes
    }

    /// Whether a newcomer may begin at a keyframe instead of asking for another.
    pub(super) fn is_fresh(&self, index: usize, now_ns: u64) -> bool {
        let interval = self.settings.snapshot_interval;
        self.all[index].kind == Kind::Keyframe || interval.is_none_or(|age| !self.is_older(index, age, now_ns))
    }
}
