//! What one subscriber has got, and whether its channel's policy allows that.
use super::list::{Kind, List};
use super::sieve::Sieve;
use crate::channel::{Mode, Policy};
use crate::messages::ConnectionId;

/// So many pieces of a log are read at once.
const READ_PIECES: usize = 32;

/// Where a subscription stood between two turns, as its shard has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// How it lags, if it does.
    pub(super) mode: Option<Mode>,
    /// Its next publication, where the log knows.
    pub(super) place: Option<usize>,
    /// What is missing before these may lie behind it, as far as numbers tell.
    pub(super) crossed: usize,
    /// That of those at the tail.
    pub(super) tail: usize,
    /// Where the log begins now.
    pub(super) head: usize,
}

/// In which turn, and how, something was written to it.
#[derive(Clone, Debug)]
pub(super) struct When {
    pub(super) now_ns: u64,
    /// Where it stood before that turn.
    pub(super) before: Option<Standing>,
    /// The socket did not take all in that turn.
    pub(super) is_short: bool,
    /// By the fast path.
    pub(super) is_fan_out: bool,
    /// By that, and before anything else in that turn.
    pub(super) is_first: bool,
    /// The fast path wrote to it by then in that turn, and it did not take all: who has more to get than one call takes is left to
    /// the slow path, and is no laggard.
    pub(super) is_in_fan_out: bool,
    /// How many publications there were when it was written.
    pub(super) published: usize,
    /// What a log that moved on meanwhile no longer knows is written as a whole, whatever is over since.
    pub(super) is_torn: bool,
    pub(super) id: ConnectionId,
    /// What it filters by.
    pub(super) sieve: Option<Sieve>,
    /// In that turn its shard was told that there is no keyframe to be had.
    pub(super) may_give_up: bool,
}

/// How many publications subscribers went past under a policy, at least and at most.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) min: [u64; Policy::ALL.len()],
    pub(super) max: [u64; Policy::ALL.len()],
}

/// One subscriber's account.
#[derive(Debug)]
pub(super) struct Promise {
    /// Index of the next publication that it may get.
    pub(super) next: usize,
    /// The keyframe that it is to begin with or go on at.
    keyframe: Option<usize>,
    /// Nobody can tell whether it is.
    is_optional: bool,
    /// What passes it by now is not for it: it waits for a keyframe.
    is_waiting: bool,
    may_be_waiting: bool,
    /// Where it stood for a while nobody knows: what came meanwhile was torn.
    pub(super) is_unsure: bool,
    /// What is missing before these it has gone past, or nothing of that was for it.
    pub(super) crossed: usize,
    /// The same, where it may have: that counts.
    may_have_crossed: usize,
    /// Where it waited no longer, which may have been behind what is missing there.
    gave_up: usize,
    /// It gets nothing from here on.
    pub(super) until: usize,
    pub(super) received: Vec<usize>,
}

impl Promise {
    pub(super) fn from(next: usize, crossed: usize) -> Self {
        Self {
            next,
            crossed,
            may_have_crossed: crossed,
            gave_up: 0,
            keyframe: None,
            is_optional: false,
            is_waiting: false,
            may_be_waiting: false,
            is_unsure: false,
            until: usize::MAX,
            received: Vec::new(),
        }
    }

    pub(super) fn begin_at(&mut self, index: usize, is_optional: bool) {
        (self.next, self.keyframe, self.is_optional) = (index, Some(index), is_optional);
    }

    pub(super) fn wait(&mut self) {
        (self.is_waiting, self.may_be_waiting, self.keyframe) = (true, false, None);
    }

    /// What is missing behind this it may have gone past.
    pub(super) fn may_miss_from(&mut self, index: usize) {
        self.may_have_crossed = index;
    }

    pub(super) fn may_wait(&mut self) {
        self.may_be_waiting = true;
    }

    /// Whether it gets this one also if it is replaced.
    fn is_exact_at(&self, index: usize, when: &When, list: &List) -> bool {
        match when.before {
            Some(Standing { mode: None, place: Some(place), .. }) => {
                index >= place && !when.is_torn && (when.is_first || !when.is_short)
            }
            Some(Standing {
                mode: Some(mode @ (Mode::Replaying | Mode::AtKeyframe)),
                place: Some(place),
                crossed,
                tail,
                head,
            }) => {
                // What is missing at the head of a log has no number either: who stands before it may be behind the head.
                let may_be_behind = head == place && list.has_gap_in(crossed..place + 1);
                // Whether a log still has the snapshot at its head nobody can tell, as that has no number of its own.
                let is_gone = |at: usize| {
                    list.is_expired(at, when.now_ns) || list.all[at].kind == Kind::Snapshot && head == place
                };
                let begins_there =
                    |&at: &usize| list.all[at].kind != Kind::Plain && list.place(list.before(at)) == place;
                let may_be_gone = mode == Mode::AtKeyframe && (place..tail).filter(begins_there).any(is_gone);
                (place..tail).contains(&index) && head <= place && !may_be_behind && !may_be_gone && !when.is_torn
            }
            _ => false,
        }
    }

    /// What it does not get, of those before `to`, though they are for it.
    fn missing(&self, to: usize, when: &When, list: &List) -> Vec<usize> {
        let conflates = list.settings.policy == Policy::Latest;
        let is_missing = |&index: &usize| {
            let one = &list.all[index];
            let is_skipped = (one.kind == Kind::Snapshot && (self.keyframe != Some(index) || self.is_optional))
                || list.is_expired(index, when.now_ns)
                || list.is_excluded(index, when.id)
                || !list.passes(index, when.sieve)
                || (conflates
                    && one.kind != Kind::Snapshot
                    && !self.is_exact_at(index, when, list)
                    && list.is_replaced(index, list.all.len()));
            !is_skipped
        };
        (self.next..to.min(self.until)).filter(is_missing).collect()
    }

    /// It was written this one.
    pub(super) fn receive(&mut self, index: usize, when: &When, list: &List, losses: &mut Losses) {
        let one = &list.all[index];
        assert!(index < self.until, "{index} was published after it had left");
        assert!(index >= self.next, "{index} after {:?}, next is {}", self.received.last(), self.next);
        assert!(!list.is_excluded(index, when.id), "{index} is not for it");
        assert!(list.passes(index, when.sieve), "{index} does not pass {:?}", when.sieve);
        assert!(when.is_torn || !list.is_expired(index, when.now_ns), "{index} has expired");
        let has_gap = list.has_gap_in(self.crossed..index + 1);
        self.cross(index + 1, one.kind != Kind::Plain, when, list, losses);
        if self.is_waiting && one.kind != Kind::Plain {
            self.go_to_keyframe(index, when, list, losses);
        } else if self.is_waiting {
            let may_go_on = when.may_give_up || self.is_unsure;
            assert!(may_go_on, "{index} for one that waits for a keyframe");
            self.give_up(index, when, list, losses);
        }
        self.pass(index, when, list, losses, one.kind != Kind::Plain && !list.is_expired(index, when.now_ns));
        if has_gap && one.kind != Kind::Plain && list.settings.policy == Policy::Keyframe {
            self.keyframe = Some(index);
        }
        if one.kind == Kind::Snapshot {
            assert_eq!(self.keyframe, Some(index), "a snapshot for one that is no newcomer");
        } else if list.settings.policy == Policy::Latest {
            let lags = match when.before.and_then(|before| before.mode) {
                // One that was at the tail, unless something was not for it, or it had too much to get for one call: that is
                // read with all that is replaced.
                None => {
                    let place = when.before.and_then(|before| before.place).unwrap_or(usize::MAX);
                    place < list.all.len()
                        && when.is_short
                        && when.is_in_fan_out
                        && !(place..list.all.len()).any(|at| list.is_excluded(at, when.id))
                }
                mode => mode == Some(Mode::Lagging),
            };
            // It may have come back to the tail in this turn, where one read of the log was not all of it: what follows is for who
            // keeps pace.
            let tail = when.before.map_or(index, |before| before.tail.min(index));
            let is_behind_a_read =
                !when.is_short && list.count_withheld(tail, index, when.now_ns, when.sieve) >= READ_PIECES - 1;
            let is_stale = lags
                && !is_behind_a_read
                && !when.is_fan_out
                && !when.is_torn
                && list.is_replaced(index, when.published);
            assert!(!is_stale, "{index} is replaced, and was written to a laggard");
        }
        self.received.push(index);
        (self.next, self.may_be_waiting) = (index + 1, false);
        if self.keyframe == Some(index) {
            self.keyframe = None;
        }
    }

    /// It is past what is missing before the publications before `to`.
    fn cross(&mut self, to: usize, is_keyframe: bool, when: &When, list: &List, losses: &mut Losses) {
        let policy = list.settings.policy;
        let from = self.crossed.max(self.gave_up);
        if list.has_gap_in(from..to) {
            let has_expired = self.keyframe.is_some_and(|keyframe| list.is_expired(keyframe, when.now_ns));
            let is_unsure = self.is_unsure || self.may_be_waiting || when.is_torn;
            let may_cross = match policy {
                Policy::Every => {
                    is_keyframe && (self.is_waiting || has_expired || is_unsure)
                        || !list.has_gap_in(from.max(self.waited_behind(to, when, list))..to)
                }
                Policy::Keyframe => is_keyframe || when.may_give_up || is_unsure,
                Policy::Latest | Policy::Drop => true,
            };
            assert!(may_cross, "it went past what is missing, to {to}");
            if matches!(policy, Policy::Keyframe | Policy::Drop) {
                losses.min[policy as usize] += if is_unsure { 0 } else { list.missing(from, to) };
            }
        }
        self.crossed = self.crossed.max(to);
        self.may_cross(to, list, losses);
    }

    /// What is missing before these was behind one that is told that there is no keyframe to be had: it begins where it
    /// waited, and the backlog may have overtaken it there.
    fn waited_behind(&self, to: usize, when: &When, list: &List) -> usize {
        let Some(before) = when.before.filter(|_| self.is_waiting && when.may_give_up) else { return 0 };
        let is_overtaken = to >= before.tail && list.may_be_overtaken(self.next, when.now_ns);
        if is_overtaken { to } else { before.crossed }
    }

    /// It may be past that.
    fn may_cross(&mut self, to: usize, list: &List, losses: &mut Losses) {
        let to = to.min(list.all.len());
        losses.max[list.settings.policy as usize] += list.missing(self.may_have_crossed, to);
        self.may_have_crossed = self.may_have_crossed.max(to);
    }

    /// There is no keyframe to be had: it goes on where it waited, or at the tail if it was overtaken there.
    fn give_up(&mut self, to: usize, when: &When, list: &List, losses: &mut Losses) {
        self.is_waiting = false;
        let is_overtaken = list.may_be_overtaken(self.next, when.now_ns) || list.has_gap_in(self.next..list.reach(to));
        if is_overtaken && when.before.is_none_or(|before| to >= before.tail) {
            self.lose(to, when, list, losses);
            self.next = self.next.max(to);
        }
    }

    /// It goes on at this keyframe, for which it has waited.
    fn go_to_keyframe(&mut self, index: usize, when: &When, list: &List, losses: &mut Losses) {
        assert!(index >= self.next, "a keyframe at {index} for one that is at {}", self.next);
        self.lose(index, when, list, losses);
        (self.next, self.keyframe, self.is_waiting) = (index, Some(index), false);
        (self.is_optional, self.may_be_waiting) = (false, false);
    }

    /// Counts what it went past up to `to`.
    fn lose(&mut self, to: usize, when: &When, list: &List, losses: &mut Losses) {
        let policy = list.settings.policy;
        if matches!(policy, Policy::Keyframe | Policy::Drop) {
            let lost = self.missing(to, when, list);
            let alive = lost.iter().filter(|&&index| list.all[index].kind != Kind::Snapshot).count();
            // Of one that nobody saw, and that may have begun later, it may be none.
            let is_sure = when.before.is_some() || !self.may_be_waiting;
            losses.min[policy as usize] += if is_sure { alive as u64 } else { 0 };
            losses.max[policy as usize] += list.count(self.next, to);
        }
    }

    /// The keyframe that it was to begin with, if the log may have let go of it for a newer one or its bounds, or as
    /// something is missing behind it, or if its time is over.
    fn gone_keyframe(&self, list: &List, now_ns: u64) -> Option<usize> {
        let has_newer = |keyframe: usize| list.all[keyframe + 1..].iter().any(|one| one.kind != Kind::Plain);
        let is_gone = |&keyframe: &usize| {
            !list.must_keep_keyframe(keyframe)
                || has_newer(keyframe)
                || list.has_gap_in(keyframe + 1..list.all.len())
                || list.is_expired(keyframe, now_ns)
        };
        self.keyframe.filter(is_gone)
    }

    /// Whether it may come to wait for a keyframe: its own may be gone, or the policy has it wait for the next one.
    pub(super) fn may_come_to_wait(&self, now_ns: u64, list: &List) -> bool {
        let is_lost = list.may_be_overtaken(self.next, now_ns) || list.has_gap_in(self.next..list.all.len());
        self.gone_keyframe(list, now_ns).is_some() || (list.settings.policy == Policy::Keyframe && is_lost)
    }

    /// It went past the keyframe that it was to begin with, whose time was over: it has waited for the next one, or was
    /// overtaken besides.
    fn check_expired_keyframe(&self, when: &When, list: &List) {
        let is_sure = !self.is_optional && !self.may_be_waiting && !self.is_unsure && !when.is_torn;
        let keyframe = self.keyframe.filter(|&keyframe| is_sure && list.is_expired(keyframe, when.now_ns));
        let Some(keyframe) = keyframe.filter(|_| !when.may_give_up) else { return };
        let may_go_on = match list.settings.policy {
            Policy::Latest => list.settings.snapshot_interval.is_none(),
            Policy::Drop => list.may_be_overtaken(self.next, when.now_ns),
            Policy::Every | Policy::Keyframe => false,
        };
        assert!(may_go_on, "its keyframe {keyframe} has expired, and it goes on without another");
    }

    /// It is past everything before this place: what it did not get was not for it, or its policy took it.
    fn pass(&mut self, to: usize, when: &When, list: &List, losses: &mut Losses, is_keyframe: bool) {
        if self.is_waiting || to <= self.next {
            if is_keyframe && self.may_be_waiting {
                self.keyframe = Some(to); // it may have waited for that
            }
            self.next = self.next.max(to);
            return;
        }
        if !is_keyframe && self.keyframe.is_some_and(|keyframe| keyframe < to) {
            self.check_expired_keyframe(when, list);
        }
        let missing = self.missing(to, when, list);
        let was_at_tail = when.before.is_some_and(|before| before.mode.is_none()) && !when.is_short && !when.is_torn;
        let has_expired = self.keyframe.is_some_and(|keyframe| list.is_expired(keyframe, when.now_ns));
        let has_gap = list.has_gap_in(self.next..list.reach(to));
        let is_right = self.may_be_waiting || when.is_torn || (has_expired && is_keyframe);
        if let (Some(&first), false) = (missing.first(), is_right) {
            let one = (&list.all[first], self.next, when);
            assert!(!was_at_tail || has_gap, "{first} ({one:?}) was lost at the tail");
            match list.settings.policy {
                Policy::Every => panic!("{first} ({one:?}) was lost on the way to {to}"),
                Policy::Latest => {
                    let keyframe = self.gone_keyframe(list, when.now_ns);
                    let is_it_alone = keyframe == Some(first) && missing.len() == 1;
                    let may_miss = is_it_alone || (keyframe.is_some() && (is_keyframe || when.may_give_up));
                    assert!(may_miss, "{missing:?} ({one:?}) were lost on the way to {to}");
                }
                Policy::Drop | Policy::Keyframe => {
                    let is_overtaken = list.may_be_overtaken(self.next, when.now_ns) || has_gap;
                    assert!(is_overtaken, "overtaken at {one:?}, on the way to {to}");
                    let goes_on_at_tail = when.before.is_none_or(|before| to >= before.tail);
                    let is_right = if list.settings.policy == Policy::Drop { goes_on_at_tail } else { is_keyframe };
                    let may_go_on = is_right || (when.may_give_up && goes_on_at_tail);
                    assert!(may_go_on, "{first} ({one:?}) was lost, and it goes on at {to}");
                }
            }
        }
        if !was_at_tail || has_gap {
            self.lose(to, when, list, losses);
        }
        let may_jump = has_expired
            || match list.settings.policy {
                Policy::Keyframe => list.may_be_overtaken(self.next, when.now_ns) || has_gap,
                Policy::Latest => self.gone_keyframe(list, when.now_ns).is_some(),
                Policy::Every | Policy::Drop => false,
            };
        if is_keyframe && (!missing.is_empty() || self.may_be_waiting || may_jump) {
            self.keyframe = Some(to);
        } else if self.keyframe.is_some_and(|keyframe| keyframe < to) {
            self.keyframe = None;
        }
        self.next = to;
    }

    /// A turn is over, and this is where its shard says that it stands.
    pub(super) fn settle(&mut self, standing: Standing, when: &When, list: &List, losses: &mut Losses) {
        let Some(place) = standing.place else {
            let has_gone_on = self.is_waiting && standing.mode != Some(Mode::AwaitingKeyframe);
            assert!(!has_gone_on || when.may_give_up || self.is_unsure || standing.mode == Some(Mode::AtKeyframe));
            self.is_unsure |= has_gone_on;
            return;
        };
        self.may_cross(list.reach(place), list, losses);
        match standing.mode {
            Some(Mode::AwaitingKeyframe) => self.come_to_wait(place, when, list, losses),
            Some(Mode::AtKeyframe) => {
                let is_known = self.keyframe == Some(self.next) && place == list.place(list.before(self.next));
                if !is_known {
                    let is_it =
                        |&index: &usize| list.all[index].kind != Kind::Plain && place == list.place(list.before(index));
                    let index = (0..when.published).rev().find(is_it).expect("it goes on at a keyframe");
                    let tail = when.before.map_or(0, |before| before.tail);
                    let newer = (index + 1..tail).rev().find(|&index| list.all[index].kind != Kind::Plain);
                    let stood_there = |before: Standing| (before.mode, before.place) == (standing.mode, Some(place));
                    let is_newest = newer.is_none_or(|newer| list.is_expired(newer, when.now_ns))
                        || when.before.is_some_and(stood_there);
                    assert!(is_newest, "it goes on at the keyframe {index}, and there was {newer:?}");
                    self.cross(index + 1, true, when, list, losses);
                    if self.is_waiting {
                        self.go_to_keyframe(index, when, list, losses);
                    } else {
                        self.pass(index, when, list, losses, true);
                        self.keyframe = Some(index);
                    }
                }
                self.is_optional = false;
            }
            Some(Mode::Lagging | Mode::Replaying | Mode::Live) | None => {
                // The keyframe that it went to may be gone before it got it, where others publish meanwhile.
                let may_miss = when.is_torn && list.settings.policy == Policy::Drop;
                let may_go_on = when.may_give_up || self.is_unsure || may_miss;
                assert!(!self.is_waiting || may_go_on, "it waits, and goes on without a keyframe");
                self.cross(place, false, when, list, losses);
                // Of policy `keyframe` one may come to a gap, and wait for a keyframe in vain, in this turn.
                let has_waited = self.is_waiting || self.may_be_waiting || self.is_unsure;
                if when.may_give_up && (has_waited || list.settings.policy == Policy::Keyframe) {
                    self.gave_up = self.gave_up.max(standing.crossed);
                }
                if self.is_waiting {
                    self.give_up(place, when, list, losses);
                }
                if standing.mode == Some(Mode::Lagging) {
                    self.lose_snapshot(place, when, list);
                }
                if when.may_give_up && standing.mode == Some(Mode::Replaying) {
                    self.give_up_keyframe(place, when, list);
                }
                (self.may_be_waiting, self.is_unsure) = (false, false);
                self.pass(place, when, list, losses, false);
            }
        }
    }

    /// It waits for a keyframe, and stands here.
    fn come_to_wait(&mut self, place: usize, when: &When, list: &List, losses: &mut Losses) {
        let kept = |&index: &usize| index >= self.next && index < place && list.must_keep_keyframe(index);
        let passed = list.newest_keyframe(when.published, when.now_ns).filter(kept);
        assert_eq!(passed, None, "it waits for one, and went past it");
        if place > self.next || !(self.is_waiting || self.may_be_waiting || self.is_unsure) {
            // Its keyframe may be gone: of policy `latest` for the bounds, of any as its time is over.
            let is_gone = self.gone_keyframe(list, when.now_ns).is_some();
            let has_gap = list.has_gap_in(self.next..list.reach(place));
            // It may have gone to one while nobody knew where it stood, whose time is over since.
            let is_over = |index: usize| list.all[index].kind != Kind::Plain && list.is_expired(index, when.now_ns);
            let had_one = self.is_unsure && (self.next..list.reach(place)).any(is_over);
            let may_wait = list.may_be_overtaken(self.next, when.now_ns) || is_gone || has_gap || had_one;
            assert!(may_wait, "it waits, and is not overtaken");
            self.lose(place, when, list, losses);
        }
        self.cross(place, true, when, list, losses);
        self.wait();
        self.next = self.next.max(place);
    }

    /// Its keyframe's time was over in a turn in which it was told that there is none: it goes on where it waited for another.
    fn give_up_keyframe(&mut self, place: usize, when: &When, list: &List) {
        let is_it = |index: &usize| list.place(list.before(*index)) == place && list.is_expired(*index, when.now_ns);
        if self.keyframe.filter(is_it) == Some(self.next) {
            self.keyframe = None;
        }
    }

    /// It lags here, and was to begin with a snapshot. As that has no number, it may stand behind it, where it was overtaken.
    fn lose_snapshot(&mut self, place: usize, when: &When, list: &List) {
        let is_it = |index: usize| index == self.next && index >= place && list.all[index].kind == Kind::Snapshot;
        let is_lost =
            || self.gone_keyframe(list, when.now_ns).is_some() || list.may_be_overtaken(self.next, when.now_ns);
        self.is_optional |= self.keyframe.is_some_and(is_it) && is_lost();
    }

    /// Whether it waits for a keyframe, or nobody knows.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_waiting || self.may_be_waiting || self.is_unsure
    }

    /// It left behind a barrier: what was published before has come, or its policy took it.
    pub(super) fn leave_behind(&mut self, when: &When, list: &List) {
        if self.is_in_doubt() || when.is_torn || when.may_give_up {
            return;
        }
        let to = self.until.min(list.all.len());
        let missing = self.missing(to, when, list);
        let may_skip = list.may_be_overtaken(self.next, when.now_ns) || list.has_gap_in(self.next..list.reach(to));
        let skips = matches!(list.settings.policy, Policy::Drop | Policy::Keyframe);
        let may_miss = (skips && may_skip) || self.gone_keyframe(list, when.now_ns).is_some();
        assert!(missing.is_empty() || may_miss, "{missing:?} were published before it left, and have not come");
    }

    /// It left: what was published before, and was due to it, has come.
    pub(super) fn leave(&mut self, when: &When, list: &List) {
        let was_at_tail = when.before.is_some_and(|before| before.mode.is_none()) && !when.is_short && !when.is_torn;
        if was_at_tail && !self.is_waiting && !list.has_gap_in(self.crossed..self.until.min(list.all.len())) {
            let missing = self.missing(self.until.min(list.all.len()), when, list);
            assert!(missing.is_empty(), "{missing:?} were published before it left");
        }
    }
}
