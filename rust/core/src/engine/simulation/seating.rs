//! Where a subscription has to begin, and what it is told of that.
use super::list::{Kind, List};
use super::promise::Promise;
use crate::channel::{Origin, Policy, Start};
use crate::position::Position;

/// When it was asked for, and from where on.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) origin: Origin,
    /// How many publications there were.
    pub(super) place: usize,
    /// The number of the last of them.
    pub(super) offset: u64,
    /// That is when its shard seats it.
    pub(super) is_by_turn: bool,
}

impl Asked {
    /// By a client, so that its shard looks where it begins when it reads that.
    pub(super) fn by_turn(origin: Origin) -> Self {
        Self { origin, place: 0, offset: 0, is_by_turn: true }
    }
}

/// What the list says of it at the moment when it was seated.
#[derive(Debug)]
pub(super) struct Seating {
    asked: Asked,
    now_ns: u64,
    /// It may, and it must begin at this keyframe.
    keyframe: Option<usize>,
    must_begin_at_keyframe: bool,
    /// It was there, if its position is one of this channel's.
    since: Option<(Position, bool)>,
    must_recover: bool,
    is_stale: bool,
    /// The oldest that the history promises.
    kept: usize,
    waits_without_keyframe: bool,
    life: (u64, u64),
    /// The number before the first that its life has.
    first: u64,
    length: usize,
    gap: u64,
    /// Nothing before this is for who comes and asks for the history.
    oldest: usize,
}

impl Seating {
    pub(super) fn new(mut asked: Asked, list: &List, now_ns: u64) -> Self {
        if asked.is_by_turn {
            (asked.place, asked.offset) = (list.all.len(), list.offset());
        }
        let known = |since| list.number_of(since).filter(|&number| number <= list.offset());
        let since = asked.origin.since.map(|since| (since, known(since).is_some()));
        let ours = asked.origin.since.and_then(known);
        let is_latest = list.settings.policy == Policy::Latest;
        let keyframe = list.newest_keyframe(list.all.len(), now_ns).filter(|&index| list.is_fresh(index, now_ns));
        Self {
            now_ns,
            keyframe,
            must_begin_at_keyframe: keyframe.is_some_and(|index| list.must_keep_keyframe(index)),
            since,
            must_recover: ours.is_some_and(|offset| list.must_recover(offset, now_ns)),
            is_stale: ours.is_some_and(|offset| list.is_stale(list.index_behind(offset), now_ns)),
            kept: (0..list.all.len()).find(|&index| list.is_kept(index, now_ns)).unwrap_or(list.all.len()),
            waits_without_keyframe: list.settings.snapshot_interval.is_some(),
            life: list.life(),
            first: if list.all.is_empty() { 0 } else { list.before(0).max(list.life().1) },
            length: list.all.len(),
            gap: list.gap(),
            oldest: if is_latest { list.behind_life() } else { list.behind_gap(list.all.len()) },
            asked,
        }
    }

    /// Of one that is not told: it wanted what is published from now on.
    pub(super) fn begin_live(&self) -> Promise {
        Promise::from(self.asked.place, self.asked.place)
    }

    /// It was told that it begins here.
    pub(super) fn begin(&self, position: Position, recovered: Option<bool>, list: &List) -> Promise {
        assert_eq!(position.epoch, self.life.0);
        let number = position.offset + self.life.1;
        assert_eq!(recovered.is_some(), self.asked.origin.since.is_some());
        if recovered == Some(true) {
            let (since, is_ours) = self.since.expect("asked for");
            assert!(is_ours && since == position, "{since} recovered at {position}");
            let may_be_stale = list.settings.policy == Policy::Latest;
            assert!(may_be_stale || !self.is_stale, "{since} is too old, and recovered");
            assert!(number >= self.gap, "{since} is recovered, and something is missing behind it");
            return Promise::from(self.index_behind(number, list), self.length);
        }
        assert!(!self.must_recover, "{:?} is not recovered", self.since);
        match self.asked.origin.start.unwrap_or(list.settings.start) {
            Start::Keyframe => self.begin_at_keyframe(number, list),
            Start::Live => {
                assert_eq!(number, self.asked.offset.max(self.first));
                self.begin_live()
            }
            Start::History => {
                let next = self.index_behind(number, list);
                assert!(next >= self.oldest, "the history begins before {}", self.oldest);
                let missed = list.count(self.kept, next);
                assert!(missed == 0, "the history begins at {next}, not {}", self.kept);
                Promise::from(next, self.length)
            }
        }
    }

    /// The first that has a number of its own behind this one, of those that were there when it was seated: what it is told may
    /// come later, and behind a snapshot that has no number.
    fn index_behind(&self, number: u64, list: &List) -> usize {
        list.index_behind(number).min(self.length)
    }

    /// Of one that came and went in one turn: nobody saw where it stood, and what it is told is believed.
    pub(super) fn believe(position: Position, asked: &Asked, list: &List) -> Promise {
        let life = list.lives.iter().find(|life| life.0 == position.epoch).expect("one of its lives");
        let number = position.offset + life.1;
        let is_it = |&index: &usize| list.all[index].kind != Kind::Plain && list.before(index) == number;
        // Of one that asked in a life that is over it is told as well that it begins with the next one.
        let may_be_earlier = position.offset == 0 && life.1 > 0;
        let next = if may_be_earlier { asked.place.min(list.place(number)) } else { list.place(number) };
        let mut promise = Promise::from(next, list.all.len());
        promise.may_miss_from(next.min(asked.place));
        if may_be_earlier {
            promise.may_wait();
        }
        if let Some(index) = (0..list.all.len()).rev().find(is_it) {
            promise.begin_at(index, true);
            if may_be_earlier {
                promise.next = next;
            }
        }
        // It may have come to what is missing, and waited there.
        let may_be_overtaken = list.settings.policy == Policy::Keyframe && list.has_gap_in(next..list.all.len());
        if list.settings.snapshot_interval.is_some() || may_be_overtaken {
            promise.may_wait();
        }
        promise
    }

    fn begin_at_keyframe(&self, number: u64, list: &List) -> Promise {
        let at_keyframe = self.keyframe.filter(|&index| list.before(index) == number);
        let is_ambiguous = |index: usize| list.all[index].kind == Kind::Snapshot && number == self.asked.offset;
        if let Some(index) = at_keyframe {
            let may_wait = is_ambiguous(index) && !self.must_begin_at_keyframe && self.waits_without_keyframe;
            let mut promise = Promise::from(index, if may_wait { self.asked.place } else { self.length });
            promise.begin_at(index, !self.must_begin_at_keyframe && is_ambiguous(index));
            if may_wait {
                promise.may_wait();
            }
            return promise;
        }
        assert!(
            !self.must_begin_at_keyframe,
            "it does not begin at the keyframe {:?}, at {} ms",
            self.keyframe,
            self.now_ns / 1_000_000
        );
        assert_eq!(number, self.asked.offset.max(self.first));
        let mut promise = self.begin_live();
        if self.waits_without_keyframe {
            promise.wait();
        }
        promise
    }
}
