//! What the handle, its callers' threads and the sessions have in common; and a session's end, told exactly once.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanwire_core::protocol::signalr::HubProtocol;
use tokio::sync::oneshot::Sender;

use crate::api::{CloseFrame, Fault, Said, Sink, UpstreamEvent};
use crate::outbox::Outbox;
use crate::pending::Pending;

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

/// A session from its open to its Closed, which it reports when it is dropped.
pub(crate) struct Ending {
    pub(crate) session: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) outbox: Arc<Outbox>,
    /// Of a hub's session.
    pub(crate) protocol: Option<HubProtocol>,
    pub(crate) pending: Pending,
    pub(crate) was_open: bool,
    /// Why; the stop, unless something else came first.
    pub(crate) error: String,
    /// Whether it is not to begin.
    pub(crate) is_refused: bool,
    pub(crate) status: Option<u16>,
    /// Of one that was never open.
    pub(crate) fault: Option<Fault>,
    pub(crate) said: Option<Said>,
    pub(crate) frame: Option<CloseFrame>,
}

impl Ending {
    pub(crate) fn new(session: u64, shared: Arc<Shared>, outbox: Arc<Outbox>, protocol: Option<HubProtocol>) -> Self {
        Self {
            session,
            shared,
            outbox,
            protocol,
            pending: Pending::default(),
            was_open: false,
            error: "the upstreams were stopped".to_owned(),
            is_refused: false,
            status: None,
            fault: None,
            said: None,
            frame: None,
        }
    }

    /// Has it end before it begins.
    pub(crate) fn refuse(&mut self, error: String) {
        self.error = error;
        self.is_refused = true;
    }

    pub(crate) fn report(&self, event: UpstreamEvent) {
        self.shared.sink.report(self.session, event);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let unsent = self.outbox.finish();
        self.shared.forget(self.session, &self.outbox);
        let records = unsent.into_iter().map(|(_, bytes)| bytes);
        let calls = std::mem::take(&mut self.pending);
        let pending = self.protocol.map_or_else(Vec::new, |protocol| calls.into_ids(protocol, records));
        let error = std::mem::take(&mut self.error);
        let (fault, said, frame) = (self.fault.take(), self.said.take(), self.frame.take());
        self.report(UpstreamEvent::Closed {
            error,
            status: self.status,
            fault,
            said,
            frame,
            was_open: self.was_open,
            pending,
        });
    }
}
