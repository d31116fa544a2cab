//! A session's end, which is told exactly once however it comes.
use std::sync::Arc;

use fanwire_core::protocol::signalr::HubProtocol;

use crate::api::{CloseFrame, Said, UpstreamEvent};
use crate::outbox::Outbox;
use crate::pending::Pending;
use crate::shared::Shared;

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
        let (said, frame) = (self.said.take(), self.frame.take());
        self.report(UpstreamEvent::Closed {
            error,
            status: self.status,
            said,
            frame,
            was_open: self.was_open,
            pending,
        });
    }
}
