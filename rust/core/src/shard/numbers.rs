//! The numbers of a shard's slots. Any thread may take one, so that a connection has its id before its shard knows of it.
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::messages::{GENERATION_MAX, SLOTS_MAX};

/// Which slots are free, and how many are not.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    inner: Mutex<Inner>,
    used: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    /// Each with the generation of who comes next.
    free: Vec<(u32, u32)>,
    /// From this one on none was ever used.
    next: u32,
}

impl Numbers {
    fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.inner.lock().expect("no code panics while it holds the numbers"))
    }

    /// Slots in use. Of one whose generations are used up it is one too many.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A slot and its generation; `None` when 16 million are in use.
    pub(crate) fn take(&self) -> Option<(u32, u32)> {
        let taken = self.with(|inner| {
            inner.free.pop().or_else(|| {
                let slot = inner.next;
                inner.next = Some(slot + 1).filter(|&next| next <= SLOTS_MAX)?;
                Some((slot, 0))
            })
        })?;
        self.used.fetch_add(1, Ordering::Relaxed);
        Some(taken)
    }

    /// A slot is free for who comes next, in this generation; after the last one it never is again.
    pub(crate) fn give_back(&self, slot: u32, generation: u32) {
        if generation <= GENERATION_MAX {
            self.used.fetch_sub(1, Ordering::Relaxed);
            self.with(|inner| inner.free.push((slot, generation)));
        }
    }
}
