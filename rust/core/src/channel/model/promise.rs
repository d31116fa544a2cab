//! What one subscriber has got, and whether its channel's policy allows that.
use super::list::{Kind, List};
use crate::channel::Policy;

/// One subscriber's account.
#[derive(Debug)]
pub(super) struct Promise {
    /// Index of the next publication that it may get.
    pub(super) next: usize,
    /// The keyframe that it begins with or goes on at.
    keyframe: Option<usize>,
    /// What passes it by now is not for it: it waits for a keyframe.
    is_waiting: bool,
    /// From here on it gets everything, also what is replaced.
    pub(super) exact_from: usize,
    pub(super) received: Vec<usize>,
}

impl Promise {
    pub(super) fn from(next: usize) -> Self {
        Self { next, keyframe: None, is_waiting: false, exact_from: usize::MAX, received: Vec::new() }
    }

    /// It goes on at this keyframe.
    pub(super) fn go_to_keyframe(&mut self, index: usize) {
        assert!(index >= self.next, "a keyframe at {index} for one that is at {}", self.next);
        (self.next, self.keyframe, self.is_waiting) = (index, Some(index), false);
    }

    /// What it was to begin with is gone.
    pub(super) fn lose_keyframe(&mut self) {
        self.keyframe = None;
    }

    /// It has lost everything before this place.
    pub(super) fn skip_to(&mut self, index: usize) {
        assert!(index >= self.next, "back from {} to {index}", self.next);
        self.next = index;
    }

    pub(super) fn wait(&mut self) {
        self.is_waiting = true;
    }

    /// There is no keyframe to be had.
    pub(super) fn give_up(&mut self) {
        self.is_waiting = false;
    }

    /// It was written this one; as a laggard by what was known when the list was so long.
    pub(super) fn receive(&mut self, index: usize, conflated_to: Option<usize>, list: &List, now_ns: u64) {
        let one = list.all[index];
        assert!(!self.is_waiting, "{index} for one that waits for a keyframe");
        assert!(index >= self.next, "{index} after {:?}", self.received.last());
        assert!(!list.is_expired(index, now_ns), "{index} has expired");
        self.pass(index, list, now_ns);
        if one.kind == Kind::Snapshot {
            assert_eq!(self.keyframe, Some(index), "a snapshot for one that is no newcomer");
        } else if list.settings.policy == Policy::Latest {
            let is_stale = conflated_to.is_some_and(|to| list.is_replaced(index, to));
            assert!(!is_stale, "{index} is replaced, and was written to a laggard");
        }
        self.received.push(index);
        self.next = index + 1;
    }

    /// It is past everything before this place: what it did not get was not for it.
    pub(super) fn pass(&mut self, to: usize, list: &List, now_ns: u64) {
        let conflates = list.settings.policy == Policy::Latest;
        for index in self.next..to {
            let one = list.all[index];
            let is_skipped = (one.kind == Kind::Snapshot && self.keyframe != Some(index))
                || list.is_expired(index, now_ns)
                || self.is_waiting
                || (conflates
                    && index < self.exact_from
                    && one.kind != Kind::Snapshot
                    && list.is_replaced(index, list.all.len()));
            assert!(is_skipped, "{index} ({one:?}) was lost on the way to {to}");
        }
        self.next = self.next.max(to);
    }
}
