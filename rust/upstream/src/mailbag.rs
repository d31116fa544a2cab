//! What comes on a plain WebSocket, whole message by whole message, and goes where its route says.
use bytes::Bytes;
use fanwire_core::Message;

use crate::api::{PlainRoute, Sink};

/// The messages of one read.
pub(crate) struct Mailbag {
    route: PlainRoute,
    /// Whether each is text, and its bytes.
    messages: Vec<(bool, Bytes)>,
}

impl Mailbag {
    pub(crate) const fn new(route: PlainRoute) -> Self {
        Self { route, messages: Vec::new() }
    }

    /// The backend has agreed: the client that waits for that is told before anything is sent to it.
    pub(crate) fn begin(&self, sink: &dyn Sink, subprotocol: Option<&str>) {
        if let PlainRoute::Private { client, accepts: true } = self.route {
            sink.accept(client, subprotocol);
        }
    }

    /// Takes a message.
    pub(crate) fn push(&mut self, is_text: bool, data: Bytes) {
        if !matches!(self.route, PlainRoute::Nowhere) {
            self.messages.push((is_text, data));
        }
    }

    /// Passes on what this read brought.
    pub(crate) fn flush(&mut self, sink: &dyn Sink) {
        if self.messages.is_empty() {
            return;
        }
        // A burst's room is not kept: there are thousands of sessions.
        let taken = std::mem::take(&mut self.messages);
        let messages: Vec<Message<'_>> =
            taken.iter().map(|(is_text, data)| Message { is_text: *is_text, data }).collect();
        match &self.route {
            PlainRoute::Lane { channel } => sink.append_messages(channel, &messages),
            PlainRoute::Private { client, .. } => sink.send_messages(*client, &messages),
            PlainRoute::Nowhere => {}
        }
    }
}
