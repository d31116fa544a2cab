//! Clients that were lost and come back: which of them, and when. No sockets.

use std::collections::VecDeque;

/// Before another try, where one has failed: the second pause of stock clients.
const PAUSE_NS: u64 = 2_000_000_000;

/// Those that are away, and what became of the others.
#[derive(Debug, Default)]
pub(super) struct Returning {
    /// To try at once, and later: with when that is, in this order.
    now: VecDeque<usize>,
    later: VecDeque<(u64, usize)>,
    /// How many are open again, and how long that took the slowest.
    pub(super) returned: u64,
    pub(super) slowest_ns: u64,
}

impl Returning {
    /// Client `index` is lost. Where a try to come back has `failed`, it waits.
    pub(super) fn lose(&mut self, index: usize, failed: bool, now_ns: u64) {
        if failed {
            self.later.push_back((now_ns + PAUSE_NS, index));
        } else {
            self.now.push_back(index);
        }
    }

    /// The client that is to try now.
    pub(super) fn next(&mut self, now_ns: u64) -> Option<usize> {
        let is_due = self.later.front().is_some_and(|&(due_ns, _)| due_ns <= now_ns);
        if is_due { self.later.pop_front().map(|(_, index)| index) } else { self.now.pop_front() }
    }

    /// When one is to try that waits for nothing else.
    pub(super) fn due_ns(&self) -> Option<u64> {
        if self.now.is_empty() { self.later.front().map(|&(due_ns, _)| due_ns) } else { Some(0) }
    }

    /// Whether nobody is to try.
    pub(super) fn is_empty(&self) -> bool {
        self.now.is_empty() && self.later.is_empty()
    }

    /// One is open again after so long.
    pub(super) fn welcome(&mut self, away_ns: u64) {
        self.returned += 1;
        self.slowest_ns = self.slowest_ns.max(away_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_client_tries_at_once_and_after_a_failure_later() {
        let mut returning = Returning::default();
        assert_eq!((returning.next(0), returning.due_ns(), returning.is_empty()), (None, None, true));
        returning.lose(7, false, 5);
        assert_eq!((returning.due_ns(), returning.next(5)), (Some(0), Some(7)));
        returning.lose(7, true, 5);
        assert_eq!((returning.due_ns(), returning.next(5)), (Some(5 + PAUSE_NS), None));
        returning.lose(8, false, 6);
        assert_eq!(returning.next(5 + PAUSE_NS), Some(7));
        assert_eq!((returning.next(6), returning.is_empty()), (Some(8), true));
        returning.welcome(3);
        returning.welcome(2);
        assert_eq!((returning.returned, returning.slowest_ns), (2, 3));
    }
}
