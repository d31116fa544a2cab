//! What a shard and the other threads share: commands and channels that moved, and whether the shard sleeps.
//!
//! One short lock, never held while a socket is written. Whoever puts the first thing into the box of a sleeping shard
//! is told to ring, exactly once; tests/loom.rs shows that no thing is left in the box of a shard that sleeps.
use crate::sync::{AtomicBool, Mutex, Ordering};

/// The box. `C` are commands, `D` what moved.
#[derive(Debug)]
pub struct Mailbox<C, D> {
    inner: Mutex<Inner<C, D>>,
}

#[derive(Debug)]
struct Inner<C, D> {
    commands: Vec<C>,
    dirty: Vec<D>,
    /// How many of the commands came before anything had moved.
    ahead: usize,
    /// The shard sleeps, or has decided to: the next to put something in must ring.
    is_parked: bool,
}

/// Whether the caller must ring the shard's eventfd.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MustRing(pub bool);

impl<C, D> Default for Mailbox<C, D> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { commands: Vec::new(), dirty: Vec::new(), ahead: 0, is_parked: false }) }
    }
}

/// Something that can stand in a mailbox once, however often it moves.
pub trait Moved {
    /// It is taken out: what moves from now on is put in anew, and comes after the commands that were there.
    fn settle(&self);
}

impl<C, D: Moved> Mailbox<C, D> {
    fn with<R>(&self, act: impl FnOnce(&mut Inner<C, D>) -> R) -> R {
        act(&mut self.inner.lock().expect("no code panics while it holds a mailbox"))
    }

    /// Puts in a command.
    pub fn push(&self, command: C) -> MustRing {
        self.with(|inner| {
            inner.commands.push(command);
            MustRing(std::mem::take(&mut inner.is_parked))
        })
    }

    /// Puts in a command of which a sleeping shard need not know before [`flush`](Self::flush).
    pub fn push_deferred(&self, command: C) {
        self.with(|inner| inner.commands.push(command));
    }

    /// Puts in something that moved. With `is_deferred` a sleeping shard sleeps on until [`flush`](Self::flush).
    pub fn push_dirty(&self, dirty: D, is_deferred: bool) -> MustRing {
        self.with(|inner| {
            if inner.dirty.is_empty() {
                inner.ahead = inner.commands.len();
            }
            inner.dirty.push(dirty);
            MustRing(!is_deferred && std::mem::take(&mut inner.is_parked))
        })
    }

    /// Whether what was deferred needs a ring.
    pub fn flush(&self) -> MustRing {
        self.with(|inner| {
            let waits = !inner.commands.is_empty() || !inner.dirty.is_empty();
            MustRing(waits && std::mem::take(&mut inner.is_parked))
        })
    }

    /// The shard wants to sleep: true when nothing waits but what was deferred before it went to sleep.
    pub fn park(&self) -> bool {
        self.with(|inner| {
            inner.is_parked = inner.commands.is_empty() && inner.dirty.is_empty();
            inner.is_parked
        })
    }

    /// The shard is awake and swaps its empty lists for the full ones. Gives how many of the commands, the first ones,
    /// came before anything that moved.
    pub fn take(&self, commands: &mut Vec<C>, dirty: &mut Vec<D>) -> usize {
        debug_assert!(commands.is_empty() && dirty.is_empty());
        self.with(|inner| {
            inner.is_parked = false;
            std::mem::swap(&mut inner.commands, commands);
            std::mem::swap(&mut inner.dirty, dirty);
            dirty.iter().for_each(Moved::settle);
            if dirty.is_empty() { commands.len() } else { inner.ahead }
        })
    }
}

/// Marks a thing as moved, so that it stands at most once in a mailbox.
#[derive(Debug, Default)]
pub struct Dirty(AtomicBool);

impl Dirty {
    /// True for the caller that must put it into the mailbox.
    pub fn mark(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The shard takes it out and looks at the log after this, so that what is appended later marks it anew.
    pub fn clear(&self) {
        // A swap, not a store: it must come after the mark of whoever found it marked, to see what that one appended.
        self.0.swap(false, Ordering::AcqRel);
    }
}
