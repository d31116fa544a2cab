//! Events on their way to the application: a bounded queue for each shard, one for the rest, one eventfd for all.
//!
//! The eventfd is rung only when the reader has found the queues empty before; so a burst of events is one wake-up.
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::messages::Event;
use crate::notify::Bell;

/// Events for which nobody is woken.
const QUIET_MAX: usize = 256;

/// One shard's queue.
#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    /// The shard stopped reading sockets because the queue was full.
    is_stalled: bool,
}

/// All shards' queues.
#[derive(Debug)]
pub(crate) struct Events {
    queues: Vec<Mutex<Queue>>,
    pub(crate) bell: Bell,
    /// The reader found nothing and sleeps: whoever adds the next event rings.
    is_parked: AtomicBool,
    /// From which queue on events are taken next: each time from another one, so that one that is never empty leaves room.
    first: AtomicUsize,
    pending_max: usize,
}

impl Events {
    /// With a queue more than there are shards: for what the rest of the program reports.
    pub(crate) fn new(shards: usize, pending_max: usize) -> std::io::Result<Self> {
        let queues = (0..=shards).map(|_| Mutex::default()).collect();
        let (is_parked, first) = (AtomicBool::new(true), AtomicUsize::new(0));
        Ok(Self { queues, bell: Bell::new()?, is_parked, first, pending_max })
    }

    fn lock(&self, shard: usize) -> std::sync::MutexGuard<'_, Queue> {
        self.queues[shard].lock().expect("no code panics while it holds an event queue")
    }

    /// Whether the shard may make more events out of what its sockets hold. When not, it hears `Resume` later.
    pub(crate) fn has_room(&self, shard: usize) -> bool {
        let mut queue = self.lock(shard);
        let has_room = queue.events.len() < self.pending_max;
        queue.is_stalled |= !has_room;
        has_room
    }

    /// Adds an event that can wait until the reader has more to take, many of these as well, or is [woken](Self::wake).
    pub(crate) fn push_quietly(&self, shard: usize, event: Event) {
        let count = {
            let mut queue = self.lock(shard);
            queue.events.push_back(event);
            queue.events.len()
        };
        if count >= QUIET_MAX.min(self.pending_max) {
            self.wake();
        }
    }

    /// Has the reader take what there is.
    pub(crate) fn wake(&self) {
        // Sequentially consistent with `take`: either this sees the reader parked, or the reader's last look sees it.
        if self.is_parked.load(Ordering::SeqCst) && self.is_parked.swap(false, Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    /// Adds an event; those that end a connection or were begun before the queue was full always fit.
    pub(crate) fn push(&self, shard: usize, event: Event) {
        self.lock(shard).events.push_back(event);
        self.wake();
    }

    /// Takes up to `count_max` events; `resume` hears of each shard that was stalled and now has room.
    ///
    /// With nothing left the reader counts as asleep: the next event rings.
    pub(crate) fn take(&self, count_max: usize, mut resume: impl FnMut(usize)) -> Vec<Event> {
        self.bell.hush();
        self.first.fetch_add(1, Ordering::Relaxed);
        let mut taken = self.take_some(count_max, &mut resume);
        if taken.len() < count_max {
            self.is_parked.store(true, Ordering::SeqCst);
            taken.extend(self.take_some(count_max - taken.len(), &mut resume));
        }
        if taken.len() == count_max {
            // Something may be left: come again without waiting for a new event.
            self.is_parked.store(false, Ordering::SeqCst);
            self.bell.ring();
        }
        taken
    }

    fn take_some(&self, count_max: usize, resume: &mut impl FnMut(usize)) -> Vec<Event> {
        let mut taken = Vec::new();
        let first = self.first.load(Ordering::Relaxed);
        for step in 0..self.queues.len() {
            let shard = first.wrapping_add(step) % self.queues.len();
            let mut queue = self.lock(shard);
            let count = queue.events.len().min(count_max - taken.len());
            taken.extend(queue.events.drain(..count));
            let resumes = queue.is_stalled && queue.events.len() < self.pending_max / 2;
            queue.is_stalled &= !resumes;
            drop(queue);
            if resumes {
                resume(shard);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Event {
        Event::Record(20, text.to_owned())
    }

    #[test]
    fn a_full_queue_has_no_room_until_half_is_taken() {
        let events = Events::new(1, 4).expect("an eventfd");
        for _ in 0..4 {
            assert!(events.has_room(0));
            events.push(0, record("x"));
        }
        assert!(!events.has_room(0));
        let mut resumed = Vec::new();
        assert_eq!(events.take(2, |shard| resumed.push(shard)).len(), 2);
        assert!(resumed.is_empty());
        assert_eq!(events.take(10, |shard| resumed.push(shard)).len(), 2);
        assert_eq!(resumed, [0]);
        assert!(events.has_room(0));
    }

    #[test]
    fn what_is_told_quietly_is_taken_with_the_next_or_when_the_reader_is_woken() {
        let events = Events::new(1, 10).expect("an eventfd");
        assert!(events.take(10, |_| ()).is_empty());
        events.push_quietly(0, record("a"));
        assert!(!events.bell.is_rung());
        events.push(0, record("b"));
        assert!(events.bell.is_rung());
        assert_eq!(events.take(10, |_| ()).len(), 2);
        events.push_quietly(0, record("c"));
        assert!(!events.bell.is_rung());
        events.wake();
        assert!(events.bell.is_rung());
        assert_eq!(events.take(10, |_| ()).len(), 1);
    }

    /// The first shard's clients had all the application's time, and those of the others none, nor had what backends answer.
    #[test]
    fn a_queue_that_is_never_empty_leaves_room_for_the_others() {
        let events = Events::new(2, 100).expect("an eventfd");
        let mut seen = std::collections::BTreeSet::new();
        events.push(1, record("of the second shard"));
        events.push(2, record("of a backend"));
        for _ in 0..3 {
            (0..4).for_each(|_| events.push(0, record("flood")));
            let taken = events.take(4, |_| {});
            assert_eq!(taken.len(), 4);
            seen.extend(taken.iter().map(|event| format!("{event:?}")));
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
}
