//! Every interleaving of what publishers and a shard share: nothing is left in the box of a shard that sleeps.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p fanwire-core --test loom --release`; empty otherwise.
#![cfg(loom)]
use fanwire_core::mailbox::{Dirty, Mailbox, Moved, MustRing};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// What a publisher and a shard share of one log: its tail, the mark that it moved, and how far the shard may fan out.
#[derive(Default)]
struct Log {
    tail: AtomicUsize,
    dirty: Dirty,
    due: AtomicUsize,
}

struct Watch(Arc<Log>);

impl Moved for Watch {
    fn settle(&self) {
        self.0.dirty.clear();
        self.0.due.store(self.0.tail.load(Ordering::Acquire), Ordering::Release);
    }
}

/// What a publisher and a shard share.
struct Shared {
    log: Arc<Log>,
    mailbox: Mailbox<(), Watch>,
    rings: AtomicUsize,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { log: Arc::new(Log::default()), mailbox: Mailbox::default(), rings: AtomicUsize::new(0) })
    }

    fn ring(&self, must_ring: MustRing) {
        self.rings.fetch_add(usize::from(must_ring.0), Ordering::SeqCst);
    }

    /// Appends and tells, as `Channel::append` and `Engine::publish` do; counts rings.
    fn publish(&self, is_deferred: bool) {
        self.log.tail.fetch_add(1, Ordering::Relaxed); // the channel's lock orders the real one
        if self.log.dirty.mark() {
            self.ring(self.mailbox.push_dirty(Watch(Arc::clone(&self.log)), is_deferred));
        }
    }

    /// One turn of the shard's loop after it woke: how many commands came, and how far it has fanned out.
    fn turn(&self) -> (usize, usize) {
        let (mut commands, mut moved) = (Vec::new(), Vec::new());
        self.mailbox.take(&mut commands, &mut moved);
        (commands.len(), self.log.due.load(Ordering::Acquire))
    }
}

#[test]
fn a_shard_never_sleeps_on_a_publication() {
    loom::model(|| {
        let shared = Shared::new();
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.publish(false))
            })
            .collect();
        let (_, mut fanned_out) = shared.turn();
        let slept = shared.mailbox.park();
        publishers.into_iter().for_each(|publisher| publisher.join().expect("publishers do not panic"));
        let was_rung = shared.rings.load(Ordering::SeqCst) > 0;
        if !slept || was_rung {
            (_, fanned_out) = shared.turn();
        }
        assert_eq!(fanned_out, 2, "slept: {slept}, rung: {was_rung}");
        assert!(shared.rings.load(Ordering::SeqCst) <= 1, "one sleep, one ring");
    });
}

#[test]
fn a_flush_wakes_for_what_was_deferred() {
    loom::model(|| {
        let shared = Shared::new();
        let other = Arc::clone(&shared);
        let publisher = thread::spawn(move || {
            other.publish(true);
            other.publish(true);
            other.ring(other.mailbox.flush());
        });
        let (_, mut fanned_out) = shared.turn();
        let slept = shared.mailbox.park();
        publisher.join().expect("the publisher does not panic");
        if !slept || shared.rings.load(Ordering::SeqCst) > 0 {
            (_, fanned_out) = shared.turn();
        }
        assert_eq!(fanned_out, 2);
    });
}

#[test]
fn what_is_published_behind_a_command_is_not_fanned_out_before_it() {
    loom::model(|| {
        let shared = Shared::new();
        let other = Arc::clone(&shared);
        let publisher = thread::spawn(move || {
            other.publish(true);
            other.ring(other.mailbox.push(()));
            other.publish(false);
        });
        let (commands, fanned_out) = shared.turn();
        assert!(commands == 1 || fanned_out <= 1, "{commands} commands, {fanned_out} fanned out");
        publisher.join().expect("the publisher does not panic");
        let (more, fanned_out) = shared.turn();
        assert_eq!((commands + more, fanned_out), (1, 2));
    });
}

#[test]
fn a_publication_that_finds_the_mark_set_is_seen_by_who_clears_it() {
    loom::model(|| {
        let log = Arc::new(Log::default());
        let other = Arc::clone(&log);
        log.tail.fetch_add(1, Ordering::Relaxed);
        assert!(log.dirty.mark());
        let publisher = thread::spawn(move || {
            other.tail.fetch_add(1, Ordering::Relaxed);
            other.dirty.mark()
        });
        log.dirty.clear();
        let seen = log.tail.load(Ordering::Relaxed);
        let must_tell = publisher.join().expect("the publisher does not panic");
        assert!(seen == 2 || must_tell, "the second publication would be lost");
    });
}
