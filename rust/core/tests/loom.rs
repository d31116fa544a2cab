//! Every interleaving of what publishers and a shard share: nothing is left in the box of a shard that sleeps.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p fanwire-core --test loom --release`; empty otherwise.
#![cfg(loom)]
use fanwire_core::mailbox::{Dirty, Mailbox};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// What a publisher and a shard share of one log: its tail, and the mark that it moved.
#[derive(Default)]
struct Log {
    tail: AtomicUsize,
    dirty: Dirty,
}

/// Appends and tells, as `Channel::append` and `Engine::publish` do; counts rings.
fn publish(log: &Log, mailbox: &Mailbox<(), ()>, rings: &AtomicUsize, is_deferred: bool) {
    log.tail.fetch_add(1, Ordering::Relaxed); // the channel's lock orders the real one
    if log.dirty.mark() && mailbox.push_dirty((), is_deferred).0 {
        rings.fetch_add(1, Ordering::SeqCst);
    }
}

/// One turn of the shard's loop after it woke: the tail that it has fanned out.
fn turn(log: &Log, mailbox: &Mailbox<(), ()>) -> Option<usize> {
    let (mut commands, mut moved) = (Vec::new(), Vec::new());
    mailbox.take(&mut commands, &mut moved);
    moved.pop().map(|()| {
        log.dirty.clear();
        log.tail.load(Ordering::Relaxed)
    })
}

#[test]
fn a_shard_never_sleeps_on_a_publication() {
    loom::model(|| {
        let shared = Arc::new((Log::default(), Mailbox::<(), ()>::default(), AtomicUsize::new(0)));
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || publish(&shared.0, &shared.1, &shared.2, false))
            })
            .collect();
        let (log, mailbox, rings) = (&shared.0, &shared.1, &shared.2);
        let mut fanned_out = turn(log, mailbox).unwrap_or(0);
        let slept = mailbox.park();
        publishers.into_iter().for_each(|publisher| publisher.join().expect("publishers do not panic"));
        let was_rung = rings.load(Ordering::SeqCst) > 0;
        if !slept || was_rung {
            fanned_out = fanned_out.max(turn(log, mailbox).unwrap_or(0));
        }
        assert_eq!(fanned_out, 2, "slept: {slept}, rung: {was_rung}");
        assert!(rings.load(Ordering::SeqCst) <= 1, "one sleep, one ring");
    });
}

#[test]
fn a_flush_wakes_for_what_was_deferred() {
    loom::model(|| {
        let shared = Arc::new((Log::default(), Mailbox::<(), ()>::default(), AtomicUsize::new(0)));
        let other = Arc::clone(&shared);
        let publisher = thread::spawn(move || {
            publish(&other.0, &other.1, &other.2, true);
            publish(&other.0, &other.1, &other.2, true);
            if other.1.flush().0 {
                other.2.fetch_add(1, Ordering::SeqCst);
            }
        });
        let (log, mailbox, rings) = (&shared.0, &shared.1, &shared.2);
        let mut fanned_out = turn(log, mailbox).unwrap_or(0);
        let slept = mailbox.park();
        publisher.join().expect("the publisher does not panic");
        if !slept || rings.load(Ordering::SeqCst) > 0 {
            fanned_out = fanned_out.max(turn(log, mailbox).unwrap_or(0));
        }
        assert_eq!(fanned_out, 2);
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
