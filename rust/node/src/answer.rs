//! What becomes of a call, for whoever waits for it: in a thread, or in an event loop.
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use fanwire_core::Position;
use rustix::event::{EventfdFlags, eventfd};

/// Why a publication has no position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// In words.
    pub why: String,
    /// It may have been published: nobody knows.
    pub may_stand: bool,
}

/// What becomes of one call, known later.
#[derive(Debug, Default)]
pub struct Answer {
    outcome: Mutex<Option<Result<Position, Unplaced>>>,
    is_known: Condvar,
    bell: OnceLock<OwnedFd>,
}

impl Answer {
    fn lock(&self) -> MutexGuard<'_, Option<Result<Position, Unplaced>>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn settle(&self, outcome: Result<Position, Unplaced>) {
        let mut known = self.lock();
        *known = Some(outcome);
        if let Some(bell) = self.bell.get() {
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes()); // an eventfd that is full is readable
        }
        drop(known);
        self.is_known.notify_all();
    }

    /// What became of it, if that is known.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<Position, Unplaced>> {
        self.lock().clone()
    }

    /// The same, after so long at most.
    #[must_use]
    pub fn wait(&self, for_at_most: Duration) -> Option<Result<Position, Unplaced>> {
        let known = self.lock();
        let waited = self.is_known.wait_timeout_while(known, for_at_most, |known| known.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// A descriptor that can be read from once it is known, for whoever waits in an event loop. It is closed with this.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn descriptor(&self) -> std::io::Result<i32> {
        let known = self.lock();
        if self.bell.get().is_none() {
            let count = u32::from(known.is_some());
            let _ = self.bell.set(eventfd(count, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        }
        Ok(self.bell.get().map_or(-1, AsRawFd::as_raw_fd))
    }
}
