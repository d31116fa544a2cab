//! What the handle, its callers' threads and the sessions have in common.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot::Sender;

use crate::api::Sink;
use crate::outbox::Outbox;

/// What the handle and the sessions have in common.
pub(crate) struct Shared {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) counters: Counters,
    /// Sessions that are not closed.
    sessions: Mutex<HashMap<u64, Arc<Outbox>>>,
    /// Negotiations that are not answered; what is dropped here is called off.
    asked: Mutex<HashMap<u64, Sender<()>>>,
}

impl Shared {
    pub(crate) fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, counters: Counters::default(), sessions: Mutex::default(), asked: Mutex::default() }
    }

    /// A session is closed.
    pub(crate) fn forget(&self, session: u64, outbox: &Arc<Outbox>) {
        let mut sessions = self.lock();
        if sessions.get(&session).is_some_and(|known| Arc::ptr_eq(known, outbox)) {
            sessions.remove(&session);
        }
    }

    /// All sessions that are not closed.
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Outbox>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All negotiations that are not answered.
    pub(crate) fn lock_asked(&self) -> MutexGuard<'_, HashMap<u64, Sender<()>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread counts; read from any other.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) sessions_total: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) records_in: AtomicU64,
    pub(crate) connects_failed: AtomicU64,
}

impl Counters {
    pub(crate) fn count_record(&self) {
        self.records_in.fetch_add(1, Ordering::Relaxed);
    }
}
