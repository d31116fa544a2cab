//! One subscription of a client, as the test has it.
use super::list::List;
use super::promise::{Losses, Promise, Standing, When};
use super::seating::{Asked, Seating};
use super::sieve::Sieve;
use super::turn::Turn;
use crate::channel::Mode;
use crate::position::Position;

/// One subscription of it, from when it is asked for.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) channel: usize,
    pub(super) asked: Asked,
    /// What it filters by.
    pub(super) sieve: Option<Sieve>,
    /// It hears where it begins.
    pub(super) is_told: bool,
    /// Its shard has it, since this moment.
    pub(super) seating: Option<Seating>,
    pub(super) promise: Option<Promise>,
    /// Its unsubscription is on its way, from here on nothing is for it.
    pub(super) until: usize,
    pub(super) standing: Option<Standing>,
    /// Where it stood after turns, not yet compared with what came: a part of something has come.
    pub(super) deferred: Vec<(usize, Standing, When)>,
    pub(super) may_give_up: bool,
    pub(super) is_leaving: bool,
    /// Where it stood for a while is not known.
    pub(super) is_unsure: bool,
    /// Its shard has let go of it.
    pub(super) is_over: bool,
    /// The same, before the subscription behind it began in the same turn.
    pub(super) has_left: bool,
    /// Of an adopted connection: what was published before this came before a message of the framework, unless it waited for
    /// a keyframe by then and was told that there is none.
    pub(super) floor: usize,
    /// In which turn that message came.
    pub(super) floor_turn: usize,
    pub(super) has_waited: bool,
    pub(super) has_given_up: bool,
    /// Its shard was told that there is no keyframe while a message of the framework was under way: what it waited for comes
    /// behind that.
    pub(super) is_held_up: bool,
    /// In which turn its shard has let go of it.
    pub(super) over_in: usize,
}

impl Account {
    pub(super) fn new(channel: usize, asked: Asked, is_told: bool) -> Self {
        let (seating, promise, standing) = (None, None, None);
        Self {
            channel,
            asked,
            sieve: None,
            is_told,
            seating,
            promise,
            until: usize::MAX,
            standing,
            deferred: Vec::new(),
            may_give_up: false,
            is_leaving: false,
            is_unsure: false,
            is_over: false,
            has_left: false,
            floor: 0,
            floor_turn: 0,
            has_waited: false,
            has_given_up: false,
            is_held_up: false,
            over_in: 0,
        }
    }

    pub(super) fn filtered(self, sieve: Option<Sieve>) -> Self {
        Self { sieve, ..self }
    }

    pub(super) fn is_seated(&self) -> bool {
        self.seating.is_some()
    }

    /// What is published from here on is not for it.
    pub(super) fn end_at(&mut self, until: usize) {
        self.until = self.until.min(until);
        if let Some(promise) = &mut self.promise {
            promise.until = self.until;
        }
    }

    /// Whether it waits for a keyframe, as far as one knows.
    pub(super) fn may_be_waiting(&self) -> bool {
        let waits = |one: &Standing| one.mode == Some(Mode::AwaitingKeyframe);
        let has_waited = self.standing.as_ref().is_some_and(waits) || self.deferred.iter().any(|one| waits(&one.1));
        has_waited || self.promise.as_ref().is_none_or(Promise::is_in_doubt)
    }

    /// Its shard has found where it begins, of which nobody is told.
    pub(super) fn seat_at(&mut self, position: Position, recovered: Option<bool>, turn: &Turn<'_>) {
        let list = &turn.lists[self.channel];
        let seating = Seating::new(self.asked.clone(), list, turn.now_ns);
        self.begin(seating.begin(position, recovered, list));
        self.seating = Some(seating);
    }

    pub(super) fn is_lagging(&self) -> bool {
        self.standing.is_some_and(|standing| standing.mode.is_some())
    }

    /// Where it stood before a turn, and where the log begins in it.
    pub(super) fn stood(&self, turn: &Turn<'_>) -> Option<Standing> {
        let list = &turn.lists[self.channel];
        let seen = turn.seen.and_then(|seen| seen.subscriptions.iter().find(|one| one.channel == list.name));
        let head = seen.map_or(usize::MAX, |one| list.place(one.before_head));
        self.standing.map(|standing| Standing { head, ..standing })
    }

    /// The number of the last publication that it got, if it got any.
    pub(super) fn last_offset(&self, list: &List) -> Option<u64> {
        let last = self.promise.as_ref()?.received.last()?;
        Some(list.all[*last].offset)
    }

    /// It has read everything: it has all that there is, or waits for a keyframe.
    pub(super) fn check_caught_up(&self, list: &List, is_alone: bool) {
        let promise = self.promise.as_ref();
        let promise = promise.unwrap_or_else(|| panic!("it was never told where it begins in {}: {self:?}", list.name));
        let standing = self.standing.expect("it was seen");
        let waits = standing.mode == Some(Mode::AwaitingKeyframe);
        assert!(waits || is_alone || standing.mode.is_none(), "{} is not at the tail: {standing:?}", list.name);
        let has_all = promise.next >= list.place(list.offset()) || self.until < list.all.len();
        assert!(waits || has_all, "{} lacks something behind {}", list.name, promise.next);
    }

    /// Compares what came with where it stood after the turns before this one.
    pub(super) fn catch_up(&mut self, turn: usize, list: &List, losses: &mut Losses) {
        let Some(promise) = &mut self.promise else { return };
        promise.is_unsure |= std::mem::take(&mut self.is_unsure);
        let count = self.deferred.iter().take_while(|one| one.0 < turn).count();
        for (_, standing, when) in self.deferred.drain(..count) {
            promise.settle(standing, &when, list, losses);
        }
    }

    /// Its shard has it.
    pub(super) fn seat(&mut self, list: &List, now_ns: u64) {
        let seating = Seating::new(self.asked.clone(), list, now_ns);
        if !self.is_told {
            self.begin(seating.begin_live());
        }
        self.seating = Some(seating);
    }

    pub(super) fn begin(&mut self, promise: Promise) {
        self.promise.insert(promise).until = self.until;
    }
}
